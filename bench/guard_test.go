package bench_test

import (
	"math"
	"testing"
	"time"

	"github.com/ovnd/ovnd/bench"
)

// What a gigabyte of TCP costs besides time: system calls, bytes that cross the
// border of the kernel for each byte of payload, objects on the heap. These are
// what makes the data path fast, and they do not depend on how busy the machine
// is, but for calls, since a slow flow has smaller super-packets: bounds are about
// twice what was measured, and well below what a data path makes that sends or
// writes its packets one by one (some 700,000 calls a gigabyte at each step).
func TestCostOfPath(t *testing.T) {
	for subject, most := range map[string]struct{ calls, copies, allocs float64 }{
		// Two TUNs and two sockets: four copies. The headers are the rest.
		bench.Ovnd:       {200_000, 4.4, 500},
		bench.OvndChaCha: {270_000, 4.4, 500},
		bench.OvndAES:    {270_000, 4.4, 500},
		bench.OvndLocal:  {130_000, 2.2, 500},
		bench.OvndVIP:    {130_000, 2.2, 500},
		bench.OvndVIPVia: {300_000, 4.4, 120_000}, // netstack's packets, of which a busy machine has more
		bench.OvndEgress: {0, 0, 120_000},         // neither is known
	} {
		cfg := quick()
		cfg.Subjects, cfg.Baselines, cfg.Tests = []string{subject}, nil, []string{bench.TestTCP}
		cfg.Rounds, cfg.Window = 3, 300*time.Millisecond
		r := run(t, cfg)
		least := map[string]float64{"calls": math.MaxFloat64, "copies": math.MaxFloat64, "allocs": math.MaxFloat64}
		for _, round := range r.Benchmarks[0].Results[0].Rounds {
			for name := range least {
				least[name] = min(least[name], round.Values[name])
			}
		}
		t.Logf("%s: %.0f calls a gigabyte, %.2f copies, %.0f objects", subject, least["calls"], least["copies"], least["allocs"])
		if least["calls"] > most.calls || least["copies"] > most.copies || least["allocs"] > most.allocs {
			t.Errorf("%s: at most %.0f, %.1f and %.0f are expected", subject, most.calls, most.copies, most.allocs)
		}
	}
}

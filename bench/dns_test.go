package bench_test

import (
	"testing"
	"time"

	"github.com/ovnd/ovnd/bench"
)

// Every kind of question is answered. How fast is for a quiet machine to say;
// here the resolver has to keep up with a tenth of what it is made for.
func TestRunDNS(t *testing.T) {
	r, err := bench.RunDNS(t.Context(), bench.DNSConfig{
		Timing: bench.Timing{Rounds: 2, Window: 200 * time.Millisecond}, Rate: 1000,
	})
	if err != nil {
		t.Fatal(err)
	}
	check(t, r, 2)
	if len(r.Benchmarks) != 6 {
		t.Errorf("%d benchmarks", len(r.Benchmarks))
	}
	for _, b := range r.Benchmarks {
		for _, round := range b.Results[0].Rounds {
			if round.Values["loss"] > 10 || round.Values["p99"] < round.Values["p50"] || round.Latency == nil {
				t.Errorf("%s: %+v", b.Name, round)
			}
		}
	}
}

func TestDNSConfigCheck(t *testing.T) {
	good := bench.Timing{Rounds: 1, Window: time.Second}
	for _, cfg := range []bench.DNSConfig{
		{Timing: bench.Timing{Window: time.Second}, Rate: 1000},
		{Timing: bench.Timing{Rounds: 1, Window: time.Millisecond}, Rate: 1000},
		{Timing: good, Rate: 0},
	} {
		if cfg.Check() == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
	cfg := bench.DNSConfig{Timing: good, Rate: 10_000}
	if err := cfg.Check(); err != nil {
		t.Error(err)
	}
}

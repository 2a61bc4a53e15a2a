package bench_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/ovnd/ovnd/bench"
)

// Everything is measured, nothing allocates, and benchstat gets its lines.
func TestRunEncap(t *testing.T) {
	r, err := bench.RunEncap(t.Context(), bench.EncapConfig{Timing: bench.Timing{Rounds: 1, Window: 5 * time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	check(t, r, 1)
	steps := make(map[string]int)
	for _, b := range r.Benchmarks {
		for _, res := range b.Results {
			steps[b.Name]++
			v := res.Rounds[0].Values
			if v["allocs"] != 0 || v["memory"] != 0 {
				t.Errorf("%s of %s on %s: %g objects, %g bytes a packet on the heap", b.Name, b.Params["size"], res.Subject, v["allocs"], v["memory"])
			}
		}
	}
	for name, want := range map[string]int{"parse": 8, "wrap": 8, "seal": 16, "open": 16, "outbound": 3, "inbound": 3} {
		if steps[name] != want {
			t.Errorf("%s: %d results, want %d", name, steps[name], want)
		}
	}
	var out bytes.Buffer
	if err := r.WriteBenchstat(&out); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "ns/op") {
		t.Errorf("no line for benchstat:\n%s", &out)
	}
}

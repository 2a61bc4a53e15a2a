package bench_test

import (
	"testing"
	"time"

	"github.com/ovnd/ovnd/bench"
)

func TestRunScale(t *testing.T) {
	r, err := bench.RunScale(t.Context(), bench.ScaleConfig{
		Timing: bench.Timing{Rounds: 1, Window: 5 * time.Millisecond}, Endpoints: []int{1000, 20_000}, Nodes: []int{10, 300},
	})
	if err != nil {
		t.Fatal(err)
	}
	check(t, r, 1)
	if len(r.Benchmarks) != 4*(2+2) {
		t.Errorf("%d benchmarks", len(r.Benchmarks))
	}
	for _, b := range r.Benchmarks {
		v := b.Results[0].Rounds[0].Values
		switch b.Name {
		case "memory":
			// An endpoint has two IDs, a name, a place and two map entries.
			if per := v["endpoint"]; per < 300 || per > 3000 {
				t.Errorf("%v: %g bytes an endpoint", b.Params, per)
			}
		case "gossip":
			if b.Simulated == "" || v["spread"] < 0.2 || v["spread"] > 5 {
				t.Errorf("%v: %v", b.Params, v)
			}
		}
	}
}

func TestScaleConfigCheck(t *testing.T) {
	good := bench.Timing{Rounds: 1, Window: time.Second}
	for _, cfg := range []bench.ScaleConfig{
		{Timing: bench.Timing{Rounds: 1}, Endpoints: []int{1}, Nodes: []int{2}},
		{Timing: good},
		{Timing: good, Endpoints: []int{0}, Nodes: []int{2}},
		{Timing: good, Endpoints: []int{1 << 30}, Nodes: []int{2}},
		{Timing: good, Endpoints: []int{1}, Nodes: []int{1}},
	} {
		if cfg.Check() == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
}

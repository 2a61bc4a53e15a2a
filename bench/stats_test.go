package bench

import "testing"

func TestSpread(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want Spread
	}{
		{[]float64{3}, Spread{3, 3, 3}},
		{[]float64{9, 1, 2}, Spread{2, 1, 9}},
		{[]float64{4, 1, 2, 9}, Spread{3, 1, 9}},
	} {
		if got := spread(c.in); got != c.want {
			t.Errorf("spread(%v) = %+v, want %+v", c.in, got, c.want)
		}
	}
}

func TestQuantile(t *testing.T) {
	sorted := []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
	for q, want := range map[float64]int{0: 1, 0.5: 6, 0.99: 10, 1: 10} {
		if got := quantile(sorted, q); got != want {
			t.Errorf("quantile(%g) = %d, want %d", q, got, want)
		}
	}
}

// Ratios are made within a round: a machine that is twice as slow in one round
// does not move them.
func TestRatiosPairRounds(t *testing.T) {
	r := newReport(PathConfig{Planes: []string{PlaneKernel, PlaneOvnd}, Tests: []string{"tcp1"}, Rounds: 3})
	for round, speed := range []float64{10, 5, 20} {
		for plane, share := range map[string]float64{PlaneKernel: 1, PlaneOvnd: 0.5} {
			r.Samples = append(r.Samples, Sample{"tcp1", plane, round, map[Metric]float64{Throughput: speed * share}})
		}
	}
	r.summarise()
	for _, res := range r.Results {
		if res.Plane == PlaneOvnd {
			if got, want := res.Ratios[PlaneKernel], (Spread{0.5, 0.5, 0.5}); got != want {
				t.Errorf("ratios %+v, want %+v", got, want)
			}
			if got, want := res.Metrics[Throughput], (Spread{5, 2.5, 10}); got != want {
				t.Errorf("throughput %+v, want %+v", got, want)
			}
		}
	}
}

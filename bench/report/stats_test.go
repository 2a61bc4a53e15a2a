package report

import (
	"math"
	"slices"
	"strings"
	"testing"
)

func near(a, b float64) bool { return math.Abs(a-b) <= 1e-9*max(1, math.Abs(b)) }

// The quartiles are R's: quantile(x, type = 7).
func TestSummarise(t *testing.T) {
	for _, c := range []struct {
		in   []float64
		want Spread
	}{
		{nil, Spread{}},
		{[]float64{3}, Spread{N: 1, Median: 3, Min: 3, Max: 3, Q1: 3, Q3: 3}},
		{[]float64{9, 1, 2}, Spread{N: 3, Median: 2, Min: 1, Max: 9, Q1: 1.5, Q3: 5.5}},
		{[]float64{4, 1, 2, 9}, Spread{N: 4, Median: 3, Min: 1, Max: 9, Q1: 1.75, Q3: 5.25}},
		{[]float64{5, 3, 1, 2, 4}, Spread{N: 5, Median: 3, Min: 1, Max: 5, Q1: 2, Q3: 4}},
	} {
		in := slices.Clone(c.in)
		if got := Summarise(in); got != c.want {
			t.Errorf("Summarise(%v) = %+v, want %+v", c.in, got, c.want)
		}
		if !slices.Equal(in, c.in) {
			t.Errorf("Summarise changed %v to %v", c.in, in)
		}
	}
}

func TestNoisy(t *testing.T) {
	for _, c := range []struct {
		values []float64
		share  float64
		noisy  bool
	}{
		{[]float64{100, 100, 100}, 0, false},
		{[]float64{90, 100, 110}, 0.2, false},
		{[]float64{83, 100, 117}, 0.34, true},
		{[]float64{-83, -100, -117}, 0.34, true},
		{[]float64{0, 0, 5}, 0, false}, // a share of nothing
	} {
		s := Summarise(c.values)
		if got := s.Relative(); !near(got, c.share) || s.Noisy() != c.noisy {
			t.Errorf("%v: spread %g, noisy %t; want %g, %t", c.values, got, s.Noisy(), c.share, c.noisy)
		}
	}
}

// p is exact for samples this small: of all ways to choose 5 of 10 ranks, 252,
// those at least as extreme. Samples that do not overlap: 2/252; U = 4: 24/252
// (Mann and Whitney, 1947, table I: 0.048 one-sided).
func TestSignificance(t *testing.T) {
	for _, c := range []struct {
		a, b  []float64
		exact bool
		want  float64
	}{
		{[]float64{1, 2, 3, 4, 5}, []float64{6, 7, 8, 9, 10}, false, 2.0 / 252},
		{[]float64{6, 7, 8, 9, 10}, []float64{1, 2, 3, 4, 5}, false, 2.0 / 252},
		{[]float64{1, 2, 3, 5, 8}, []float64{4, 6, 7, 9, 10}, false, 24.0 / 252},
		{[]float64{1, 2, 3}, []float64{4, 5, 6}, false, 2.0 / 20},
		{[]float64{5, 5, 5}, []float64{5, 5, 5}, false, 1},
		{[]float64{1}, []float64{2}, false, 1},
		{nil, []float64{2}, false, 1},
		{[]float64{0, 0, 0}, []float64{0}, true, 1},
		{[]float64{0, 0, 0}, []float64{1, 1, 1}, true, 0},
	} {
		if got := significance(c.a, c.b, c.exact); !near(got, c.want) {
			t.Errorf("p of %v and %v is %g, want %g", c.a, c.b, got, c.want)
		}
	}
}

func rounds(metric string, values ...float64) []Round {
	out := make([]Round, 0, len(values))
	for i, v := range values {
		if !math.IsNaN(v) {
			out = append(out, Round{Round: i, Values: map[string]float64{metric: v}})
		}
	}
	return out
}

// Ratios are made within a round: a machine that is twice as slow in one round
// does not move them, and a round that one of the two does not have is no pair.
func TestRatiosPairRounds(t *testing.T) {
	base := &Result{Rounds: rounds("x", 10, 5, math.NaN(), 20, 0)}
	ours := &Result{Rounds: rounds("x", 5, 2.5, 77, 10, 3)}
	if got, want := ours.ratios(base, "x"), []float64{0.5, 0.5, 0.5}; !slices.Equal(got, want) {
		t.Errorf("ratios %v, want %v", got, want)
	}
	if _, ok := ours.ratio(nil, &Metric{Name: "x"}); ok {
		t.Error("there is a ratio to what was not measured")
	}
	if got := (&Result{Rounds: rounds("x", 1e300)}).ratios(&Result{Rounds: rounds("x", 1e-300)}, "x"); got != nil {
		t.Errorf("ratios %v of what no number holds", got)
	}
}

func TestWarnings(t *testing.T) {
	r := example()
	r.Run.Interrupted, r.Machine.LoadBefore, r.Settings.Rounds = true, 1.7, 3
	got := strings.Join(r.Warnings(), "\n")
	for _, want := range []string{
		"interrupted", "load 1.7 on 2 cores", "3 rounds", "round 3 failed: no TCP data arrived",
		"noisy: Gbit/s in path/tcp1/mtu=1500, spread of the rounds: kernel 43 %",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in:\n%s", want, got)
		}
	}
	if strings.Contains(got, "of ovnd in") {
		t.Errorf("a steady figure is called noisy:\n%s", got)
	}
}

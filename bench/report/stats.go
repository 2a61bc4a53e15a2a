package report

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"golang.org/x/perf/benchmath"
)

// Alpha is the level of significance: a difference that chance alone makes more
// often than this is none.
const Alpha = 0.05

// noisyAbove is the spread, as a share of the median, above which a figure is
// called noisy.
const noisyAbove = 0.25

// A Spread describes the values of several rounds.
type Spread struct {
	N      int     `json:"n"` // rounds
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	Q1     float64 `json:"q1"` // quartiles: half of the values are between them
	Q3     float64 `json:"q3"`
}

// Summarise returns the spread of values, which it leaves as they are. Without
// values the spread's N is 0.
func Summarise(values []float64) Spread {
	if len(values) == 0 {
		return Spread{}
	}
	v := slices.Sorted(slices.Values(values))
	return Spread{
		N: len(v), Median: quantile(v, 0.5), Min: v[0], Max: v[len(v)-1],
		Q1: quantile(v, 0.25), Q3: quantile(v, 0.75),
	}
}

// quantile interpolates between the two nearest of sorted (definition 7 of
// Hyndman and Fan, Sample Quantiles in Statistical Packages, 1996).
func quantile(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	lo := int(at)
	hi := min(lo+1, len(sorted)-1)
	part := at - float64(lo)
	return sorted[lo]*(1-part) + sorted[hi]*part
}

// Relative is the distance from least to most as a share of the median; 0 when
// the median is 0.
func (s Spread) Relative() float64 {
	if s.Median == 0 {
		return 0
	}
	return (s.Max - s.Min) / math.Abs(s.Median)
}

// Noisy reports whether the values differ so much from round to round that the
// median says little.
func (s Spread) Noisy() bool { return s.Relative() > noisyAbove }

// A Ratio compares a subject with a baseline: the spread of the rounds' ratios.
type Ratio struct {
	Spread
	// P is how likely values that differ at least this much are if both have the
	// same distribution: Mann–Whitney U test, two-sided.
	P float64 `json:"p"`
}

// Significant reports whether the difference is more than chance.
func (r Ratio) Significant() bool { return r.P < Alpha }

// values returns one metric of all rounds that have it, and which rounds these
// are.
func (res *Result) values(metric string) (values []float64, rounds []int) {
	if res == nil {
		return nil, nil
	}
	for _, round := range res.Rounds {
		if v, ok := round.Values[metric]; ok {
			values, rounds = append(values, v), append(rounds, round.Round)
		}
	}
	return values, rounds
}

// spread sums up one metric; its N is 0 when it was not measured.
func (res *Result) spread(metric string) Spread {
	values, _ := res.values(metric)
	return Summarise(values)
}

// ratios returns metric of each round that both have, divided by base's. Rounds
// in which base's is 0, or next to it, have no ratio.
func (res *Result) ratios(base *Result, metric string) []float64 {
	values, rounds := res.values(metric)
	baseValues, baseRounds := base.values(metric)
	var out []float64
	for i, round := range rounds {
		j, ok := slices.BinarySearch(baseRounds, round)
		if !ok || baseValues[j] == 0 {
			continue
		}
		if q := values[i] / baseValues[j]; !math.IsInf(q, 0) {
			out = append(out, q)
		}
	}
	return out
}

// ratio compares the metric with base's; ok is false when no round has both.
func (res *Result) ratio(base *Result, m *Metric) (ratio Ratio, ok bool) {
	ratio.Spread = Summarise(res.ratios(base, m.Name))
	if ratio.N == 0 {
		return ratio, false
	}
	a, _ := res.values(m.Name)
	b, _ := base.values(m.Name)
	ratio.P = significance(a, b, m.Exact)
	return ratio, true
}

// significance returns how likely two samples this different are when nothing
// but chance made them differ. Exact values differ or do not: 0 or 1.
func significance(a, b []float64, exact bool) float64 {
	if exact {
		if slices.Equal(slices.Compact(slices.Sorted(slices.Values(a))), slices.Compact(slices.Sorted(slices.Values(b)))) {
			return 1
		}
		return 0
	}
	thresholds := benchmath.Thresholds{CompareAlpha: Alpha}
	// NewSample sorts what it is given.
	p := benchmath.AssumeNothing.Compare(
		benchmath.NewSample(slices.Clone(a), &thresholds), benchmath.NewSample(slices.Clone(b), &thresholds)).P
	return min(p, 1)
}

// fewestRounds is how many rounds the test needs to tell even samples apart
// that do not overlap.
const fewestRounds = 4

// summarise fills in all summaries and ratios.
func (r *Report) summarise() {
	for i := range r.Benchmarks {
		b := &r.Benchmarks[i]
		for j := range b.Results {
			res := &b.Results[j]
			res.Summary, res.Ratios = make(map[string]Spread), make(map[string]Ratio)
			for _, m := range b.Metrics {
				if s := res.spread(m.Name); s.N > 0 {
					res.Summary[m.Name] = s
				}
			}
			for _, base := range r.Subjects {
				if !base.Baseline || base.Name == res.Subject {
					continue
				}
				if ratio, ok := res.ratio(b.result(base.Name), &b.Metrics[0]); ok {
					res.Ratios[base.Name] = ratio
				}
			}
		}
	}
}

// Warnings says what makes the figures doubtful: an early end, a machine that
// was not idle, too few rounds, failures, and first metrics that are noisy.
func (r *Report) Warnings() []string {
	var out []string
	if r.Run.Interrupted {
		out = append(out, "the run was interrupted: later rounds are missing")
	}
	if load := r.Machine.LoadBefore; load > float64(r.Machine.Cores)/2 {
		out = append(out, fmt.Sprintf("the machine was not idle: load %.1f on %d cores at the start", load, r.Machine.Cores))
	}
	if n := r.Settings.Rounds; n > 0 && n < fewestRounds {
		out = append(out, fmt.Sprintf("%d rounds: significance needs at least %d", n, fewestRounds))
	}
	for i := range r.Benchmarks {
		out = append(out, r.Benchmarks[i].warnings()...)
	}
	return out
}

// warnings has a line for each failure, and one for all that is noisy.
func (b *Benchmark) warnings() []string {
	var out, noisy []string
	m := &b.Metrics[0]
	for i := range b.Results {
		res := &b.Results[i]
		for _, round := range res.Rounds {
			if round.Failed != "" {
				out = append(out, fmt.Sprintf("%s, %s, round %d failed: %s", b.Key(), res.Subject, round.Round, round.Failed))
			}
		}
		if s := res.spread(m.Name); !m.Exact && s.Noisy() {
			noisy = append(noisy, fmt.Sprintf("%s %.0f %%", res.Subject, 100*s.Relative()))
		}
	}
	if len(noisy) > 0 {
		out = append(out, fmt.Sprintf("noisy: %s in %s, spread of the rounds: %s", m.label(), b.Key(), strings.Join(noisy, ", ")))
	}
	return out
}

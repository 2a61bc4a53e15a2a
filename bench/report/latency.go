package report

import (
	"math"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// percents are the percentiles that a Latency has.
var percents = []float64{50, 75, 90, 95, 99, 99.5, 99.9, 99.95, 99.99, 99.999, 100}

// NewLatency describes the times in h, which counts nanoseconds. expected is the
// interval h was corrected with, or 0. It is nil when h is empty.
//
// Percentiles that h has too few samples for are left out: one in a thousand is
// not known from a hundred.
func NewLatency(h *hdrhistogram.Histogram, expected time.Duration) *Latency {
	n := h.TotalCount()
	if n == 0 {
		return nil
	}
	l := &Latency{
		Count:            n,
		Min:              float64(h.Min()) / 1e3,
		Mean:             h.Mean() / 1e3,
		Max:              float64(h.Max()) / 1e3,
		StdDev:           h.StdDev() / 1e3,
		ExpectedInterval: float64(expected) / 1e3,
	}
	for _, p := range percents {
		if p < 100 && math.Round(float64(n)*(100-p)) < 100 {
			continue
		}
		l.Percentiles = append(l.Percentiles, Percentile{Percent: p, Value: float64(h.ValueAtQuantile(p)) / 1e3})
	}
	return l
}

// At returns the time in microseconds that percent of the requests did not
// exceed; ok is false when the distribution does not have that percentile.
func (l *Latency) At(percent float64) (us float64, ok bool) {
	for _, p := range l.Percentiles {
		if p.Percent == percent {
			return p.Value, true
		}
	}
	return 0, false
}

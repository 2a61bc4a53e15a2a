package report

import (
	"math"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

func TestLatency(t *testing.T) {
	h := hdrhistogram.New(1, int64(time.Minute), 3)
	if NewLatency(h, 0) != nil {
		t.Error("an empty histogram has a latency")
	}
	for i := range 1000 {
		if err := h.RecordValue(int64(i+1) * 1000); err != nil {
			t.Fatal(err)
		}
	}
	l := NewLatency(h, time.Millisecond)
	if l.Count != 1000 || l.ExpectedInterval != 1000 {
		t.Errorf("count %d, interval %g µs", l.Count, l.ExpectedInterval)
	}
	for percent, want := range map[float64]float64{50: 500, 99: 990, 99.9: 999, 100: 1000} {
		if got, ok := l.At(percent); !ok || math.Abs(got-want) > want/500 {
			t.Errorf("%g %% is %g µs, want %g", percent, got, want)
		}
	}
	if _, ok := l.At(99.99); ok {
		t.Error("one in ten thousand is known from a thousand")
	}
}

// A stall that holds up requests that were due counts for all of them.
func TestLatencyIsCorrected(t *testing.T) {
	h := hdrhistogram.New(1, int64(time.Minute), 3)
	for range 90 {
		if err := h.RecordCorrectedValue(int64(time.Millisecond), int64(10*time.Millisecond)); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.RecordCorrectedValue(int64(time.Second), int64(10*time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	l := NewLatency(h, 10*time.Millisecond)
	if l.Count != 190 {
		t.Errorf("%d samples, want 90 and the 100 that were due in a second", l.Count)
	}
	if p75, _ := l.At(75); p75 < 4e5 {
		t.Errorf("75 %% is %g µs: the stall is hidden", p75)
	}
}

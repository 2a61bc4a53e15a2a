package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/ovnd/ovnd/bench/report"
	"github.com/ovnd/ovnd/bench/traffic"
)

// Names of the metrics of a loss search.
const (
	ndr     = "ndr"
	pdr     = "pdr"
	ceiling = "ceiling"
)

var searchMetrics = []report.Metric{
	{Name: ndr, Title: "NDR kpps", Unit: "kpps", Better: report.HigherIsBetter},
	{Name: pdr, Title: "PDR kpps", Unit: "kpps", Better: report.HigherIsBetter},
	{Name: ceiling, Title: "source's kpps", Unit: "kpps", Better: report.Informative},
}

const (
	// pdrLoss is the loss in percent that a partial drop rate allows.
	pdrLoss = 0.5
	// topRate is where a search begins, in datagrams per second: more than one
	// thread can send by the socket interface.
	topRate = 1_000_000
	// lowRate is where it gives up.
	lowRate = 500
	// resolution is how near to each other the highest rate that passed and the
	// lowest that failed are in the end.
	resolution = 1.05
	// maxTrials bounds the search for one of the rates, on a machine whose losses
	// are not the load's.
	maxTrials = 14
)

// search finds the highest UDP rates without loss and with less than half a
// percent, after RFC 2544 §26.1: trials of a fixed length at rates that a
// bisection chooses. Trials are shorter than the 60 s of §24 by far; one that
// loses little is made twice, since on a machine that is shared a single datagram
// is lost for reasons of its own.
func search(size int) test {
	return test{
		name: "loss-search", title: fmt.Sprintf("highest UDP rate, %d bytes of payload: without loss (NDR), below %g %% (PDR)", size, pdrLoss),
		params: map[string]string{"size": strconv.Itoa(size)}, varies: "size", metrics: searchMetrics,
		measure: func(ctx context.Context, m *measurement) (report.Round, error) { return m.search(ctx, size) },
	}
}

func (m *measurement) search(ctx context.Context, size int) (round report.Round, err error) {
	p := m.plane
	source, err := startChild(p.ends[0].host, childSpec{Trials: &traffic.Spec{
		To: p.ends[1].addr, UDPSize: size, Verify: p.setup.verify,
	}})
	if err != nil {
		return round, err
	}
	defer source.end()
	before, err := m.sinks()
	if err != nil {
		return round, err
	}
	found, err := searchRates(func(rate float64) (trial, error) { return m.trial(ctx, source, rate) })
	if err != nil {
		return round, err
	}
	if found.pdr == 0 {
		return round, errors.New("no rate goes through")
	}
	round.Values = map[string]float64{pdr: found.pdr / 1e3, ceiling: found.ceiling / 1e3}
	if found.ndr > 0 {
		round.Values[ndr] = found.ndr / 1e3
	}
	after, err := m.sinks()
	if err != nil {
		return round, err
	}
	return round, after.corruption(before)
}

// trial offers one rate for a part of the window, and waits for the rest.
func (m *measurement) trial(ctx context.Context, source *child, rate float64) (t trial, err error) {
	before, err := m.sinks()
	if err != nil {
		return t, err
	}
	length := max(m.window/4, 100*time.Millisecond)
	sent, err := source.ask(fmt.Sprintf("try %g %d", rate, length.Nanoseconds()), length*10+childPatience)
	if err != nil {
		return t, err
	}
	after, err := m.settle(ctx)
	if err != nil {
		return t, err
	}
	return trial{
		rate: float64(sent.Packets) / (float64(sent.Nanoseconds) / 1e9),
		loss: lost(sent.Packets, after.packets()-before.packets()),
	}, nil
}

// A trial is what one rate gave.
type trial struct {
	rate float64 // really offered, datagrams a second
	loss float64 // percent
}

// rates are the results of a search, in datagrams a second; 0 if no rate is low
// enough. ceiling is the highest that the source could offer.
type rates struct{ ndr, pdr, ceiling float64 }

// searchRates searches both rates with the trials of each. It takes for granted
// that less load loses less.
func searchRates(try func(rate float64) (trial, error)) (found rates, err error) {
	// The higher rate first: it narrows the bracket of the other.
	none, little := &bracket{}, &bracket{allowed: pdrLoss}
	brackets := []*bracket{little, none}
	run := func(rate float64) error {
		for again := range 2 {
			t, err := try(rate)
			if err != nil {
				return err
			}
			found.ceiling = max(found.ceiling, t.rate)
			if again == 0 && t.loss > 0 && t.loss <= 2*pdrLoss {
				continue // once more
			}
			for _, b := range brackets {
				b.learn(t)
			}
			break
		}
		return nil
	}
	if err := run(topRate); err != nil {
		return found, err
	}
	for _, b := range brackets {
		for range maxTrials {
			rate, ok := b.next()
			if !ok {
				break
			}
			if err := run(rate); err != nil {
				return found, err
			}
		}
	}
	found.ndr, found.pdr = none.passed, little.passed
	return found, nil
}

// A bracket encloses the highest rate that loses no more than allowed percent.
type bracket struct {
	allowed        float64
	passed, failed float64 // the highest and the lowest rate that did; 0: none
	through        float64 // what went through of failed
}

// learn takes what one trial gave, unless it contradicts what is known: it lost
// at less than what went through, or the other way round, for reasons that are
// not the load's.
func (b *bracket) learn(t trial) {
	below := b.failed == 0 || t.rate < b.failed
	switch {
	case t.loss <= b.allowed && below:
		b.passed = max(b.passed, t.rate)
	case t.loss > b.allowed && below && t.rate > b.passed:
		b.failed, b.through = t.rate, t.rate*(1-t.loss/100)
	}
}

// next returns the rate to try; ok is false if the bracket is narrow enough.
func (b *bracket) next() (rate float64, ok bool) {
	switch {
	case b.failed == 0: // all that the source can offer goes through
		return 0, false
	case b.passed == 0:
		rate = min(max(b.through*0.9, b.failed/8), b.failed/2)
		return rate, rate >= lowRate
	}
	return math.Sqrt(b.passed * b.failed), b.failed/b.passed > resolution
}

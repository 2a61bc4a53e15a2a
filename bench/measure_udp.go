package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ovnd/ovnd/bench/report"
	"github.com/ovnd/ovnd/bench/traffic"
)

const (
	// drain is how long a UDP sink must be silent for the rest to be lost.
	drain = 50 * time.Millisecond
	// longestDrain bounds the wait for that.
	longestDrain = time.Second
)

// rate is UDP at a fixed rate in datagrams per second.
func rate(size, pps int) test {
	return test{
		name: fmt.Sprintf("udp%d", size), title: fmt.Sprintf("UDP, %d bytes of payload, %g kpps offered", size, float64(pps)/1e3),
		metrics: rateMetrics,
		measure: func(ctx context.Context, m *measurement) (report.Round, error) { return m.rate(ctx, size, pps) },
	}
}

// rate measures UDP. Loss counts the whole run, so that no datagram in flight at
// an end of the window passes for lost.
func (m *measurement) rate(ctx context.Context, size, pps int) (round report.Round, err error) {
	before, err := m.sinks()
	if err != nil {
		return round, err
	}
	source, err := m.source(0, traffic.Spec{UDPRate: float64(pps), UDPSize: size})
	if err != nil {
		return round, err
	}
	defer source.end()
	first, err := source.counters()
	if err != nil {
		return round, err
	}
	start := time.Now()
	w, err := m.observe(ctx)
	if err != nil {
		return round, err
	}
	last, err := source.counters()
	if err != nil {
		return round, err
	}
	took := time.Since(start).Seconds()
	sent, err := source.stop()
	if err != nil {
		return round, err
	}
	after, err := m.settle(ctx)
	if err != nil {
		return round, err
	}
	packets := float64(w.to.packets() - w.from.packets())
	if packets == 0 || sent.Packets == 0 {
		return round, errors.New("no UDP datagrams arrived")
	}
	_, both, host := w.per(packets / 1e6)
	round.Values = map[string]float64{
		received:   packets / 1e3 / w.seconds(),
		offered:    float64(last.Packets-first.Packets) / 1e3 / took,
		loss:       lost(sent.Packets, after.packets()-before.packets()),
		disordered: 100 * float64(after.sinks[1].Disordered-before.sinks[1].Disordered) / float64(sent.Packets),
		cpu:        both, cpuHost: host,
	}
	return round, after.corruption(before)
}

// lost returns the percentage of what was sent that did not arrive.
func lost(sent, got uint64) float64 {
	if got >= sent {
		return 0
	}
	return 100 * (1 - float64(got)/float64(sent))
}

// settle waits until the sinks have been silent for a while.
func (m *measurement) settle(ctx context.Context) (instant, error) {
	last, err := m.sinks()
	for end := time.Now().Add(longestDrain); err == nil && time.Now().Before(end); {
		if err = m.wait(ctx, drain); err != nil {
			break
		}
		var now instant
		if now, err = m.sinks(); now.packets() == last.packets() {
			break
		}
		last = now
	}
	return last, err
}

// connectFlows is how many connections are open at a time.
const connectFlows = 16

// connects is as many new connections as can be opened.
func connects() test {
	return test{
		name: "connect", title: fmt.Sprintf("new TCP connections, %d at a time", connectFlows), metrics: openMetrics,
		measure: func(ctx context.Context, m *measurement) (report.Round, error) { return m.connects(ctx) },
	}
}

func (m *measurement) connects(ctx context.Context) (round report.Round, err error) {
	source, err := m.source(0, traffic.Spec{Connect: connectFlows})
	if err != nil {
		return round, err
	}
	defer source.end()
	if err := m.wait(ctx, m.warmup); err != nil {
		return round, err
	}
	before, err := source.counters()
	if err != nil {
		return round, err
	}
	var w window
	if w.from, err = m.instant(); err != nil {
		return round, err
	}
	if err := m.wait(ctx, m.window); err != nil {
		return round, err
	}
	after, err := source.counters()
	if err != nil {
		return round, err
	}
	if w.to, err = m.instant(); err != nil {
		return round, err
	}
	if _, err := source.stop(); err != nil {
		return round, err
	}
	n := float64(after.Packets - before.Packets)
	if n == 0 {
		return round, errors.New("no connection was opened")
	}
	_, both, host := w.per(n / 1e6)
	round.Values = map[string]float64{opened: n / w.seconds(), cpu: both, cpuHost: host}
	return round, nil
}

package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/ovnd/ovnd/bench/report"
	"github.com/ovnd/ovnd/bench/traffic"
)

// echoInterval is the time between two echo requests: few enough that they are no
// load.
const echoInterval = 5 * time.Millisecond

var rttMetrics = []report.Metric{
	{Name: p50, Title: "p50 µs", Unit: "µs", Better: report.LowerIsBetter},
	{Name: p99, Title: "p99 µs", Unit: "µs", Better: report.LowerIsBetter},
	{Name: loss, Title: "loss %", Unit: "%", Better: report.LowerIsBetter},
	{Name: throughput, Title: "load Gbit/s", Unit: "Gbit/s", Better: report.Informative},
}

// A load is the TCP traffic beside which round trips are measured.
type load int

const (
	idle load = iota
	half      // one flow at half of what it reaches alone
	full      // one flow as fast as it can
)

// roundTrips measures latency by ICMP echo requests on a fixed schedule, or by
// datagrams that the sink sends back.
func roundTrips(beside load, udp bool) test {
	t := test{name: "rtt-idle", title: "round trip, idle", metrics: rttMetrics[:3]}
	switch beside {
	case half:
		t.name, t.title, t.metrics = "rtt-half", "round trip beside one TCP flow at half its throughput", rttMetrics
	case full:
		t.name, t.title, t.metrics = "rtt-full", "round trip beside one TCP flow", rttMetrics
	}
	if udp {
		t.title += ", UDP"
	} else {
		t.title += ", ICMP"
	}
	t.measure = func(ctx context.Context, m *measurement) (report.Round, error) { return m.roundTrips(ctx, beside, udp) }
	return t
}

func (m *measurement) roundTrips(ctx context.Context, beside load, udp bool) (round report.Round, err error) {
	if beside == idle {
		return m.echo(ctx, udp)
	}
	spec := traffic.Spec{TCPFlows: 1}
	if beside == half {
		if spec.TCPRate, err = m.halfLoad(ctx); err != nil {
			return round, err
		}
	}
	source, err := m.source(0, spec)
	if err != nil {
		return round, err
	}
	defer source.end()
	if err := m.wait(ctx, m.warmup); err != nil {
		return round, err
	}
	before, err := m.sinks()
	if err != nil {
		return round, err
	}
	if round, err = m.echo(ctx, udp); err != nil {
		return round, err
	}
	after, err := m.sinks()
	if err != nil {
		return round, err
	}
	round.Values[throughput] = float64(after.bytes()-before.bytes()) * 8 / 1e9 / after.at.Sub(before.at).Seconds()
	_, err = source.stop()
	return round, err
}

// halfLoad returns half of what one TCP flow reached on the plane last, in bits a
// second. It has one run if none has.
func (m *measurement) halfLoad(ctx context.Context) (float64, error) {
	if m.plane.capacity == 0 {
		quiet := *m
		quiet.progress = nil
		if _, err := quiet.bulk(ctx, 1, 0); err != nil {
			return 0, err
		}
	}
	return m.plane.capacity / 2, nil
}

// echo measures round trips for the window.
func (m *measurement) echo(ctx context.Context, udp bool) (round report.Round, err error) {
	source, err := m.source(0, traffic.Spec{EchoInterval: echoInterval, EchoUDP: udp})
	if err != nil {
		return round, err
	}
	defer source.end()
	if err := m.wait(ctx, m.window); err != nil {
		return round, err
	}
	c, err := source.stop()
	if err != nil {
		return round, err
	}
	if c.Answered == 0 {
		return round, errors.New("no echo request was answered")
	}
	h, err := hdrhistogram.Decode([]byte(c.RTT))
	if err != nil {
		return round, fmt.Errorf("histogram of the source: %w", err)
	}
	round.Latency = report.NewLatency(h, 0)
	round.Latency.Lost = int64(c.Packets - c.Answered)
	round.Values = map[string]float64{
		p50:  float64(h.ValueAtQuantile(50)) / 1e3,
		p99:  float64(h.ValueAtQuantile(99)) / 1e3,
		loss: lost(c.Packets, c.Answered),
	}
	return round, nil
}

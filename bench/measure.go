package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ovnd/ovnd/bench/report"
	"github.com/ovnd/ovnd/bench/traffic"
)

// A test is one kind of load, on any plane.
type test struct {
	name    string
	title   string
	params  map[string]string
	varies  string
	metrics []report.Metric // the first one is what ratios are made of
	measure func(ctx context.Context, m *measurement) (report.Round, error)
	// skip says why a plane cannot be measured with it; "" if it can.
	skip func(p *plane) string
}

// Names of metrics.
const (
	throughput  = "throughput"
	forward     = "forward"
	backward    = "backward"
	cpu         = "cpu"
	cpuSender   = "cpu_sender"
	cpuReceiver = "cpu_receiver"
	cpuHost     = "cpu_host"
	calls       = "calls"
	copies      = "copies"
	allocs      = "allocs"
	received    = "received"
	offered     = "offered"
	loss        = "loss"
	disordered  = "disordered"
	opened      = "opened"
	p50         = "p50"
	p99         = "p99"
)

var (
	bulkMetrics = []report.Metric{
		{Name: throughput, Unit: "Gbit/s", Better: report.HigherIsBetter},
		{Name: cpu, Title: "cpu s/GB", Unit: "s/GB", Better: report.LowerIsBetter},
		{Name: cpuSender, Title: "sender's", Unit: "s/GB", Better: report.LowerIsBetter},
		{Name: cpuReceiver, Title: "receiver's", Unit: "s/GB", Better: report.LowerIsBetter},
		{Name: cpuHost, Title: "host s/GB", Unit: "s/GB", Better: report.LowerIsBetter},
		{Name: calls, Title: "calls/GB", Unit: "1/GB", Better: report.LowerIsBetter},
		{Name: copies, Title: "copies", Unit: "B/B", Better: report.LowerIsBetter},
		{Name: allocs, Title: "allocs/GB", Unit: "1/GB", Better: report.LowerIsBetter},
	}
	bothMetrics = slices.Insert(slices.Clone(bulkMetrics), 1,
		report.Metric{Name: forward, Title: "there", Unit: "Gbit/s", Better: report.HigherIsBetter},
		report.Metric{Name: backward, Title: "back", Unit: "Gbit/s", Better: report.HigherIsBetter})
	rateMetrics = []report.Metric{
		{Name: received, Unit: "kpps", Better: report.HigherIsBetter},
		{Name: offered, Title: "offered", Unit: "kpps", Better: report.Informative},
		{Name: loss, Title: "loss %", Unit: "%", Better: report.LowerIsBetter},
		{Name: disordered, Title: "disordered %", Unit: "%", Better: report.LowerIsBetter},
		{Name: cpu, Title: "cpu µs/p", Unit: "µs/p", Better: report.LowerIsBetter},
		{Name: cpuHost, Title: "host µs/p", Unit: "µs/p", Better: report.LowerIsBetter},
	}
	openMetrics = []report.Metric{
		{Name: opened, Unit: "1/s", Better: report.HigherIsBetter},
		{Name: cpu, Title: "cpu µs/c", Unit: "µs/c", Better: report.LowerIsBetter},
		{Name: cpuHost, Title: "host µs/c", Unit: "µs/c", Better: report.LowerIsBetter},
	}
)

// A measurement is one test on one plane in one round.
type measurement struct {
	plane    *plane
	warmup   time.Duration // from the start of the traffic to the window
	window   time.Duration // that is measured
	interval time.Duration // parts of the window that progress and intervals show
	progress func(from, to time.Duration, bytes, packets uint64)
}

// An instant is what all counters showed at one moment.
type instant struct {
	at     time.Time
	sinks  [2]reply
	tools  [2]usage // of the plane's processes, by end
	allocs uint64   // of those that are Go programs of ours
	host   time.Duration
}

func (i *instant) bytes() uint64   { return i.sinks[0].Bytes + i.sinks[1].Bytes }
func (i *instant) packets() uint64 { return i.sinks[0].Packets + i.sinks[1].Packets }

func (m *measurement) instant() (i instant, err error) {
	for k, e := range m.plane.ends {
		if e.sink != nil {
			if i.sinks[k], err = e.sink.counters(); err != nil {
				return i, err
			}
		}
	}
	i.at = time.Now()
	for k, e := range m.plane.ends {
		for _, t := range e.tools {
			u, err := usageOf(t.Process)
			if err != nil {
				return i, err
			}
			i.tools[k].add(u)
			if t.child == nil {
				continue
			}
			r, err := t.child.counters()
			if err != nil {
				return i, err
			}
			i.allocs += r.Allocs
		}
	}
	i.host, err = hostBusy()
	return i, err
}

// A window is what was counted between two instants.
type window struct {
	from, to  instant
	intervals []uint64 // bytes in each interval
}

func (w *window) seconds() float64 { return w.to.at.Sub(w.from.at).Seconds() }

func (w *window) bytes(end int) float64 {
	return float64(w.to.sinks[end].Bytes - w.from.sinks[end].Bytes)
}

// per returns the processor seconds of each end's processes, of both, and of the
// whole host, per unit.
func (w *window) per(units float64) (ends [2]float64, both, host float64) {
	for k := range ends {
		ends[k] = (w.to.tools[k].cpu - w.from.tools[k].cpu).Seconds() / units
		both += ends[k]
	}
	return ends, both, (w.to.host - w.from.host).Seconds() / units
}

// observe lets traffic run for the warm-up and the window and returns what was
// counted in the window.
func (m *measurement) observe(ctx context.Context) (w window, err error) {
	if err = m.wait(ctx, m.warmup); err != nil {
		return w, err
	}
	if w.from, err = m.instant(); err != nil {
		return w, err
	}
	last := w.from
	for done := time.Duration(0); done < m.window; {
		step := min(m.interval, m.window-done)
		if err = m.wait(ctx, step); err != nil {
			return w, err
		}
		// Processes are asked at the end only: that they answer costs time.
		var now instant
		if done+step >= m.window {
			now, err = m.instant()
			w.to = now
		} else {
			now, err = m.sinks()
		}
		if err != nil {
			return w, err
		}
		w.intervals = append(w.intervals, now.bytes()-last.bytes())
		if m.progress != nil {
			m.progress(last.at.Sub(w.from.at), now.at.Sub(w.from.at), now.bytes()-last.bytes(), now.packets()-last.packets())
		}
		last = now
		done += step
	}
	return w, nil
}

// sinks is an instant of the sinks alone.
func (m *measurement) sinks() (i instant, err error) {
	for k, e := range m.plane.ends {
		if e.sink != nil {
			if i.sinks[k], err = e.sink.counters(); err != nil {
				return i, err
			}
		}
	}
	i.at = time.Now()
	return i, nil
}

// wait waits, but not longer than the plane lives.
func (m *measurement) wait(ctx context.Context, d time.Duration) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(m.plane.lost, cancel)()
	if sleep(ctx, d) != nil {
		return m.plane.cause(ctx)
	}
	return nil
}

// sleep waits for d; it returns ctx's cause if that ends first.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

// source starts a traffic source at an end, for the other one.
func (m *measurement) source(end int, spec traffic.Spec) (*child, error) {
	p := m.plane
	spec.To, spec.Congestion, spec.Verify = p.ends[1-end].addr, p.setup.congestion, p.setup.verify
	if p.socks.IsValid() {
		spec.SOCKS, spec.SOCKSTo = p.socks, p.ends[1-end].bind.Addr()
	}
	return startChild(p.ends[end].host, childSpec{Source: &spec})
}

// bulk is TCP flows from a to b that send as fast as they can.
func bulk(flows int) test {
	title := "TCP, one flow"
	if flows > 1 {
		title = fmt.Sprintf("TCP, %d flows", flows)
	}
	return test{
		name: fmt.Sprintf("tcp%d", flows), title: title, metrics: bulkMetrics,
		measure: func(ctx context.Context, m *measurement) (report.Round, error) { return m.bulk(ctx, flows, 0) },
	}
}

// both is one TCP flow in each direction at the same time.
func both() test {
	return test{
		name: "tcp-both", title: "TCP, one flow there and one back at the same time", metrics: bothMetrics,
		measure: func(ctx context.Context, m *measurement) (report.Round, error) { return m.bulk(ctx, 1, 1) },
		skip: func(p *plane) string {
			if p.ends[0].sink == nil {
				return "nothing reaches the source's side"
			}
			return ""
		},
	}
}

func (m *measurement) bulk(ctx context.Context, there, back int) (round report.Round, err error) {
	before, err := m.sinks()
	if err != nil {
		return round, err
	}
	var sources []*child
	defer func() {
		for _, s := range sources {
			s.end()
		}
	}()
	for end, flows := range []int{there, back} {
		if flows == 0 {
			continue
		}
		s, err := m.source(end, traffic.Spec{TCPFlows: flows})
		if err != nil {
			return round, err
		}
		sources = append(sources, s)
	}
	w, err := m.observe(ctx)
	if err != nil {
		return round, err
	}
	var sent uint64
	for _, s := range sources {
		c, err := s.stop()
		if err != nil {
			return round, err
		}
		sent += c.Bytes
	}
	bytes := w.bytes(0) + w.bytes(1)
	if bytes == 0 {
		return round, errors.New("no TCP data arrived")
	}
	round = w.bulkRound(bytes)
	if m.plane.proxied {
		delete(round.Values, calls)
		delete(round.Values, copies)
	}
	if back == 0 {
		m.plane.capacity = bytes * 8 / w.seconds()
	} else {
		round.Values[forward] = w.bytes(1) * 8 / 1e9 / w.seconds()
		round.Values[backward] = w.bytes(0) * 8 / 1e9 / w.seconds()
	}
	round.Intervals = []report.Intervals{{Metric: throughput, Seconds: m.interval.Seconds(), Values: m.rates(w.intervals)}}
	return round, m.verifyTCP(ctx, before, sent)
}

// rates returns bytes of intervals as Gbit/s. A last one that is shorter is left
// out.
func (m *measurement) rates(intervals []uint64) []float64 {
	out := make([]float64, 0, len(intervals))
	for _, n := range intervals[:int(m.window/m.interval)] {
		out = append(out, float64(n)*8/1e9/m.interval.Seconds())
	}
	return out
}

func (w *window) bulkRound(bytes float64) report.Round {
	ends, both, host := w.per(bytes / 1e9)
	values := map[string]float64{
		throughput: bytes * 8 / 1e9 / w.seconds(),
		cpu:        both, cpuSender: ends[0], cpuReceiver: ends[1], cpuHost: host,
	}
	var used usage
	for k := range w.to.tools {
		used.add(w.to.tools[k].since(w.from.tools[k]))
	}
	if used.cpu > 0 { // else the plane has no processes
		values[calls] = float64(used.calls) / (bytes / 1e9)
		values[copies] = float64(used.moved+used.octets) / bytes
	}
	if made := w.to.allocs - w.from.allocs; w.to.allocs > 0 {
		values[allocs] = float64(made) / (bytes / 1e9)
	}
	return report.Round{Values: values}
}

// verifyTCP waits until all that was sent has arrived, if that is to be verified.
func (m *measurement) verifyTCP(ctx context.Context, before instant, sent uint64) error {
	if !m.plane.setup.verify {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, childPatience, errors.New("not all that was sent has arrived"))
	defer cancel()
	for {
		now, err := m.sinks()
		if err != nil {
			return err
		}
		if err := now.corruption(before); err != nil {
			return err
		}
		arrived := now.bytes() - before.bytes()
		if arrived == sent {
			return nil
		}
		if err := m.wait(ctx, 10*time.Millisecond); err != nil {
			return fmt.Errorf("%d bytes of %d: %w", arrived, sent, err)
		}
	}
}

// An IntegrityError is about data that is not what was sent.
type IntegrityError struct{ Bytes uint64 }

func (e *IntegrityError) Error() string {
	return fmt.Sprintf("%d bytes are not what was sent", e.Bytes)
}

func (i *instant) corruption(before instant) error {
	wrong := i.sinks[0].Corrupt + i.sinks[1].Corrupt - before.sinks[0].Corrupt - before.sinks[1].Corrupt
	if wrong > 0 {
		return &IntegrityError{wrong}
	}
	return nil
}

func (u *usage) add(o usage) {
	u.cpu += o.cpu
	u.calls += o.calls
	u.moved += o.moved
	u.octets += o.octets
}

func (u usage) since(o usage) usage {
	return usage{cpu: u.cpu - o.cpu, calls: u.calls - o.calls, moved: u.moved - o.moved, octets: u.octets - o.octets}
}

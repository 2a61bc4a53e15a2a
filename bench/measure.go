package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/ovnd/ovnd/bench/traffic"
)

// A Metric names one figure of a test, with its unit.
type Metric string

// The metrics. Less is better, but for Throughput, Received and
// Connects.
const (
	Throughput Metric = "Gbit/s"    // payload received
	ProcPerGB  Metric = "proc s/GB" // processor time of the plane's processes per 10⁹ bytes received
	HostPerGB  Metric = "host s/GB" // of the whole machine: traffic, kernel and bystanders included
	Received   Metric = "kpps"      // thousand datagrams received per second
	Offered    Metric = "offered"   // thousand datagrams sent per second: less than wanted on a machine that is too busy
	Loss       Metric = "loss %"    // of datagrams offered, or echo requests sent, without an answer
	ProcPerPkt Metric = "proc µs/p" // processor time of the plane's processes per datagram received
	HostPerPkt Metric = "host µs/p"
	Connects   Metric = "conn/s"    // TCP connections opened, greeted and ended
	ProcPerCon Metric = "proc µs/c" // processor time of the plane's processes per connection
	HostPerCon Metric = "host µs/c"
	RTT50      Metric = "p50 µs" // round trip, median
	RTT99      Metric = "p99 µs"
)

// A Test is one kind of traffic.
type Test struct {
	Name    string
	Title   string
	Metrics []Metric // the first one is what ratios are made of
	measure func(m *measurement, ctx context.Context) (map[Metric]float64, error)
}

// udpRate is the offered load of the UDP tests in datagrams per second.
const udpRate = 80_000

const (
	echoInterval = 10 * time.Millisecond
	// drain is how long a UDP sink must be silent for the rest to be lost.
	drain = 100 * time.Millisecond
)

var (
	bulkMetrics = []Metric{Throughput, ProcPerGB, HostPerGB}
	rateMetrics = []Metric{Received, Offered, Loss, ProcPerPkt, HostPerPkt}
	openMetrics = []Metric{Connects, ProcPerCon, HostPerCon}
	echoMetrics = []Metric{RTT50, RTT99, Loss}
)

// Tests are all tests in the order in which they run.
var Tests = []Test{
	{"tcp1", "TCP, one flow", bulkMetrics, bulk(1)},
	{"tcp4", "TCP, four flows", bulkMetrics, bulk(4)},
	{"udp64", "UDP, 64 bytes of payload, 80 kpps offered", rateMetrics, rate(64)},
	{"udp1200", "UDP, 1200 bytes of payload, 80 kpps offered", rateMetrics, rate(1200)},
	{"connect", "new TCP connections, 16 at a time", openMetrics, (*measurement).connects},
	{"ping", "ping, idle", echoMetrics, (*measurement).echo},
	{"ping-load", "ping beside one TCP flow", echoMetrics, (*measurement).echoLoaded},
}

// A measurement is one test on one plane in one round.
type measurement struct {
	plane      *plane
	congestion string
	warmup     time.Duration // from the start of the traffic to the window
	window     time.Duration // that is measured
}

// An instant is what all counters showed at one moment.
type instant struct {
	at   time.Time
	sink traffic.Counters
	proc time.Duration // of the plane's processes
	host time.Duration // busy time of all processors
}

func (m *measurement) instant() (i instant, err error) {
	if i.sink, err = m.plane.sink.counters(); err != nil {
		return i, err
	}
	i.at = time.Now()
	if i.proc, err = m.plane.cpu(); err != nil {
		return i, err
	}
	i.host, err = hostBusy()
	return i, err
}

// observe lets traffic run for the warm-up and the window and returns what the
// counters showed at both ends of the window.
func (m *measurement) observe(ctx context.Context) (from, to instant, err error) {
	if err = sleep(ctx, m.warmup); err != nil {
		return from, to, err
	}
	if from, err = m.instant(); err != nil {
		return from, to, err
	}
	if err = sleep(ctx, m.window); err != nil {
		return from, to, err
	}
	to, err = m.instant()
	return from, to, err
}

func (m *measurement) source(spec traffic.Spec) (*child, error) {
	spec.To, spec.Congestion = m.plane.target, m.congestion
	return startChild(m.plane.host, childSpec{Source: &spec})
}

// bulk measures TCP flows that send as fast as they can.
func bulk(flows int) func(*measurement, context.Context) (map[Metric]float64, error) {
	return func(m *measurement, ctx context.Context) (map[Metric]float64, error) {
		source, err := m.source(traffic.Spec{TCPFlows: flows})
		if err != nil {
			return nil, err
		}
		defer source.end()
		from, to, err := m.observe(ctx)
		if err != nil {
			return nil, err
		}
		bytes := float64(to.sink.Bytes - from.sink.Bytes)
		if bytes == 0 {
			return nil, errors.New("no TCP data arrived")
		}
		_, err = source.stop()
		return map[Metric]float64{
			Throughput: bytes * 8 / 1e9 / to.at.Sub(from.at).Seconds(),
			ProcPerGB:  (to.proc - from.proc).Seconds() / bytes * 1e9,
			HostPerGB:  (to.host - from.host).Seconds() / bytes * 1e9,
		}, err
	}
}

// rate measures UDP at a fixed rate. Loss counts the whole run, so that no
// datagram in flight at an end of the window passes for lost.
func rate(size int) func(*measurement, context.Context) (map[Metric]float64, error) {
	return func(m *measurement, ctx context.Context) (map[Metric]float64, error) {
		before, err := m.plane.sink.counters()
		if err != nil {
			return nil, err
		}
		source, err := m.source(traffic.Spec{UDPRate: udpRate, UDPSize: size})
		if err != nil {
			return nil, err
		}
		defer source.end()
		start := time.Now()
		from, to, err := m.observe(ctx)
		if err != nil {
			return nil, err
		}
		sent, err := source.stop()
		if err != nil {
			return nil, err
		}
		took := time.Since(start)
		after, err := m.settle(ctx)
		if err != nil {
			return nil, err
		}
		packets := float64(to.sink.Packets - from.sink.Packets)
		if packets == 0 || sent.Packets == 0 {
			return nil, errors.New("no UDP datagrams arrived")
		}
		got := float64(after.Packets - before.Packets)
		return map[Metric]float64{
			Received:   packets / 1e3 / to.at.Sub(from.at).Seconds(),
			Offered:    float64(sent.Packets) / 1e3 / took.Seconds(),
			Loss:       100 * (1 - got/float64(sent.Packets)),
			ProcPerPkt: float64((to.proc - from.proc).Microseconds()) / packets,
			HostPerPkt: float64((to.host - from.host).Microseconds()) / packets,
		}, nil
	}
}

// settle waits until the sink has been silent for a while.
func (m *measurement) settle(ctx context.Context) (traffic.Counters, error) {
	last, err := m.plane.sink.counters()
	for err == nil {
		if err = sleep(ctx, drain); err != nil {
			break
		}
		var now traffic.Counters
		if now, err = m.plane.sink.counters(); now.Packets == last.Packets {
			break
		}
		last = now
	}
	return last, err
}

// echo measures round trips on an idle plane.
func (m *measurement) echo(ctx context.Context) (map[Metric]float64, error) {
	source, err := m.source(traffic.Spec{EchoInterval: echoInterval})
	if err != nil {
		return nil, err
	}
	defer source.end()
	if err := sleep(ctx, m.window); err != nil {
		return nil, err
	}
	c, err := source.stop()
	if err != nil {
		return nil, err
	}
	if len(c.RTTs) == 0 {
		return nil, errors.New("no echo request was answered")
	}
	slices.Sort(c.RTTs)
	micros := func(q float64) float64 { return float64(quantile(c.RTTs, q).Nanoseconds()) / 1e3 }
	return map[Metric]float64{
		RTT50: micros(0.5),
		RTT99: micros(0.99),
		Loss:  100 * (1 - float64(len(c.RTTs))/float64(c.Packets)),
	}, nil
}

// echoLoaded measures round trips while a TCP flow fills the plane.
func (m *measurement) echoLoaded(ctx context.Context) (map[Metric]float64, error) {
	load, err := m.source(traffic.Spec{TCPFlows: 1})
	if err != nil {
		return nil, err
	}
	defer load.end()
	if err := sleep(ctx, m.warmup); err != nil {
		return nil, err
	}
	values, err := m.echo(ctx)
	if err != nil {
		return nil, err
	}
	_, err = load.stop()
	return values, err
}

// sleep waits for d; it returns ctx's error if that ends first.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// hostBusy returns the time that all processors together have not been idle
// since boot, in the kernel's ticks of 10 ms.
func hostBusy() (time.Duration, error) {
	f, err := os.Open("/proc/stat")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	line, err := bufio.NewReader(f).ReadString('\n')
	if err != nil {
		return 0, fmt.Errorf("/proc/stat: %w", err)
	}
	// proc_stat(5): cpu user nice system idle iowait irq softirq steal …
	const idle, iowait, softirq = 4, 5, 7
	var ticks int64
	for i, field := range strings.Fields(line) {
		if i == 0 || i == idle || i == iowait || i > softirq {
			continue
		}
		var n int64
		if _, err := fmt.Sscan(field, &n); err != nil {
			return 0, fmt.Errorf("/proc/stat: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil
}

package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/ovnd/ovnd/bench/lab"
	"github.com/ovnd/ovnd/bench/report"
	"github.com/ovnd/ovnd/bench/traffic"
)

// DNSConfig says how RunDNS measures.
type DNSConfig struct {
	Timing
	Rate int // queries a second that are offered

	Command  string // that repeats the run, for the report
	Progress Progress
}

// Check reports the first thing that is wrong with c.
func (c *DNSConfig) Check() error {
	if err := c.check(leastWindow); err != nil {
		return err
	}
	if c.Rate < 100 || c.Rate > 1_000_000 {
		return fmt.Errorf("rate %d: must be 100 to 1000000 queries a second", c.Rate)
	}
	return nil
}

// A dnsTest is one kind of question.
type dnsTest struct {
	name, title string
	question    dnsQuestion
	// share of the offered rate; 0: as many as are answered, dnsClients of them
	// at a time.
	share float64
}

// dnsTests are all of them in the order in which they run.
var dnsTests = []dnsTest{
	{"vip", "A of a service: its VIP", dnsQuestion{dnsName, typeA, 1}, 1},
	{"tasks", "A of tasks.NAME: three addresses", dnsQuestion{"tasks." + dnsName, typeA, dnsTasks}, 1},
	{"aaaa", "AAAA of a service: none, and a SOA", dnsQuestion{dnsName, typeAAAA, 0}, 1},
	{"ptr", "PTR of a task", dnsQuestion{dnsReverse, typePTR, 1}, 1},
	// A tenth: each of these costs a socket, and a server behind that shares the
	// processors.
	{"upstream", "A of another name, by a server on loopback", dnsQuestion{dnsOutside, typeA, 1}, 0.1},
	{"most", "A of a service, as many as are answered, 64 clients", dnsQuestion{dnsName, typeA, 1}, 0},
}

var dnsMetrics = []report.Metric{
	{Name: "answered", Title: "queries/s", Unit: "1/s", Better: report.HigherIsBetter},
	{Name: loss, Title: "lost %", Unit: "%", Better: report.LowerIsBetter},
	{Name: p50, Title: "p50 µs", Unit: "µs", Better: report.LowerIsBetter},
	{Name: p99, Title: "p99 µs", Unit: "µs", Better: report.LowerIsBetter},
	{Name: cpu, Title: "cpu µs/q", Unit: "µs/q", Better: report.LowerIsBetter},
}

// RunDNS measures a resolver that knows 50 services of three tasks, in a process
// of its own, over loopback. The calling program must have called lab.Enter, and
// must run [RunChild] in its children. What was measured before an error is in the
// report.
func RunDNS(ctx context.Context, cfg DNSConfig) (*report.Report, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	r := newReport(cfg.Command, cfg.Timing)
	r.Settings.WarmupSeconds = 0
	r.Settings.Generator = "ovnd"
	r.Subjects = []report.Subject{{Name: Ovnd, Title: "ovnd's resolver", Kind: report.KindOvnd}}
	for _, t := range dnsTests {
		r.Benchmarks = append(r.Benchmarks, report.Benchmark{
			Group: "dns", Name: t.name, Title: t.title, Metrics: dnsMetrics, Results: []report.Result{{Subject: Ovnd}},
		})
	}
	err := lab.Run(func(l *lab.Lab) error {
		host := l.Host("dns")
		upstream := netip.MustParseAddrPort("127.0.0.1:53")
		behind, err := startChild(host, childSpec{DNS: &dnsSpec{Listen: upstream, Upstream: true}})
		if err != nil {
			return err
		}
		server := netip.MustParseAddrPort("127.0.0.11:53")
		resolver, err := startChild(host, childSpec{DNS: &dnsSpec{Listen: server, Forward: upstream}})
		if err != nil {
			return err
		}
		ctx, lose := context.WithCancelCause(ctx)
		defer lose(nil)
		for _, c := range []*child{behind, resolver} {
			c.watch(lose)
			defer c.ending.Store(true)
		}
		m := &dnsMeasurement{cfg: cfg, host: host, server: server, child: resolver}
		return m.all(ctx, r)
	})
	finish(ctx, r)
	return r, err
}

// A dnsMeasurement measures one server.
type dnsMeasurement struct {
	cfg    DNSConfig
	host   *lab.Host
	server netip.AddrPort
	child  *child
}

// all runs the tests in turn, round after round.
func (m *dnsMeasurement) all(ctx context.Context, r *report.Report) error {
	total := m.cfg.Rounds * len(dnsTests)
	for n := range m.cfg.Rounds {
		for i, t := range dnsTests {
			if m.cfg.Progress.Begin != nil {
				m.cfg.Progress.Begin(n*len(dnsTests)+i, total, t.name, Ovnd, n)
			}
			round, err := m.one(ctx, t)
			if err != nil {
				if ctx.Err() != nil {
					err = context.Cause(ctx)
				}
				return fmt.Errorf("%s: %w", t.name, err)
			}
			round.Round = n
			res := &r.Benchmarks[i].Results[0]
			res.Rounds = append(res.Rounds, round)
			if m.cfg.Progress.End != nil {
				m.cfg.Progress.End(&r.Benchmarks[i], Ovnd, &round)
			}
		}
	}
	return nil
}

func (m *dnsMeasurement) one(ctx context.Context, t dnsTest) (round report.Round, err error) {
	load := dnsLoad{server: m.server, question: t.question, window: m.cfg.Window}
	sockets := dnsSockets
	if load.rate = int(t.share * float64(m.cfg.Rate)); load.rate == 0 {
		sockets = dnsClients
	}
	// Their namespace is that of the thread that opens them.
	err = m.host.Do(func() error { return load.open(sockets) })
	defer load.close()
	if err != nil {
		return round, err
	}
	before, err := m.child.CPU()
	if err != nil {
		return round, err
	}
	got, err := load.run(ctx)
	if err != nil {
		return round, err
	}
	after, err := m.child.CPU()
	if err != nil {
		return round, err
	}
	if len(got.rtts) == 0 {
		return round, errors.New("no query was answered")
	}
	answered := float64(len(got.rtts))
	h := traffic.NewRTTs()
	for _, rtt := range got.rtts {
		_ = h.RecordValue(min(rtt.Nanoseconds(), h.HighestTrackableValue()))
	}
	round.Latency = report.NewLatency(h, 0)
	round.Latency.Lost = int64(got.sent - len(got.rtts))
	round.Values = map[string]float64{
		"answered": answered / got.took.Seconds(),
		loss:       lost(uint64(got.sent), uint64(len(got.rtts))),
		p50:        float64(h.ValueAtQuantile(50)) / 1e3,
		p99:        float64(h.ValueAtQuantile(99)) / 1e3,
		cpu:        (after - before).Seconds() * 1e6 / answered,
	}
	return round, nil
}

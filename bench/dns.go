package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"text/tabwriter"
	"time"

	"github.com/ovnd/ovnd/bench/lab"
)

// DNSConfig says how RunDNS measures.
type DNSConfig struct {
	Rounds int
	Window time.Duration // of one measurement
	Rate   int           // queries a second that are offered
	// Progress is called after each measurement. It may be nil.
	Progress func(done, of int)
}

// Check reports the first thing that is wrong with c.
func (c *DNSConfig) Check() error {
	if c.Rounds < 1 || c.Window < 100*time.Millisecond {
		return fmt.Errorf("%d rounds of %v: at least one round and 100ms are needed", c.Rounds, c.Window)
	}
	if c.Rate < 100 || c.Rate > 1_000_000 {
		return fmt.Errorf("rate %d: must be 100 to 1000000 queries a second", c.Rate)
	}
	return nil
}

// A DNSTest is one kind of question.
type DNSTest struct {
	Name  string `json:"name"`
	Title string `json:"title"`

	question dnsQuestion
	// share of the offered rate; 0: as many as are answered, dnsClients of them
	// at a time.
	share float64
}

// DNSTests are all of them in the order in which they run.
var DNSTests = []DNSTest{
	{"vip", "A of a service: its VIP", dnsQuestion{dnsName, typeA, 1}, 1},
	{"tasks", "A of tasks.NAME: three addresses", dnsQuestion{"tasks." + dnsName, typeA, dnsTasks}, 1},
	{"aaaa", "AAAA of a service: none, and a SOA", dnsQuestion{dnsName, typeAAAA, 0}, 1},
	{"ptr", "PTR of a task", dnsQuestion{dnsReverse, typePTR, 1}, 1},
	// A tenth: each of these costs a socket, and a server behind that shares the
	// processors.
	{"upstream", "A of another name, by a server on loopback", dnsQuestion{dnsOutside, typeA, 1}, 0.1},
	{"most", "A of a service, as many as are answered, 64 clients", dnsQuestion{dnsName, typeA, 1}, 0},
}

// DNS metrics beside those of paths.
const (
	QueryRate  Metric = "queries/s"
	Unanswered Metric = "lost %"
	ProcPerQ   Metric = "proc µs/q" // processor time of the resolver's process per query answered
)

var dnsMetrics = []Metric{QueryRate, Unanswered, RTT50, RTT99, ProcPerQ}

// A DNSReport is the result of RunDNS.
type DNSReport struct {
	Schema  int         `json:"schema"`
	Time    time.Time   `json:"time"`
	Machine Machine     `json:"machine"`
	Rounds  int         `json:"rounds"`
	Window  float64     `json:"window_seconds"`
	Rate    int         `json:"rate"`
	Results []DNSResult `json:"results"`
}

// A DNSResult is what one test gave over all rounds.
type DNSResult struct {
	DNSTest
	Metrics map[Metric]Spread `json:"metrics"`
}

// RunDNS measures a resolver that knows 50 services of three tasks, in a process
// of its own, over loopback. The calling program must have called RunChild and
// lab.Enter.
func RunDNS(ctx context.Context, cfg DNSConfig) (*DNSReport, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	report := &DNSReport{
		Schema: reportSchema, Time: time.Now().UTC().Truncate(time.Second), Machine: thisMachine(),
		Rounds: cfg.Rounds, Window: cfg.Window.Seconds(), Rate: cfg.Rate,
	}
	err := lab.Run(func(l *lab.Lab) error {
		host := l.Host("dns")
		upstream := netip.MustParseAddrPort("127.0.0.1:53")
		if _, err := startChild(host, childSpec{DNS: &dnsSpec{Listen: upstream, Upstream: true}}); err != nil {
			return err
		}
		server := netip.MustParseAddrPort("127.0.0.11:53")
		child, err := startChild(host, childSpec{DNS: &dnsSpec{Listen: server, Forward: upstream}})
		if err != nil {
			return err
		}
		m := &dnsMeasurement{cfg: cfg, host: host, server: server, child: child}
		report.Results, err = m.all(ctx)
		return err
	})
	return report, err
}

// A dnsMeasurement measures one server.
type dnsMeasurement struct {
	cfg    DNSConfig
	host   *lab.Host
	server netip.AddrPort
	child  *child
}

// all runs the tests in turn, round after round.
func (m *dnsMeasurement) all(ctx context.Context) ([]DNSResult, error) {
	values := make(map[string]map[Metric][]float64)
	total := m.cfg.Rounds * len(DNSTests)
	for round := range m.cfg.Rounds {
		for i, test := range DNSTests {
			got, err := m.one(ctx, test)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", test.Name, err)
			}
			if values[test.Name] == nil {
				values[test.Name] = make(map[Metric][]float64)
			}
			for metric, v := range got {
				values[test.Name][metric] = append(values[test.Name][metric], v)
			}
			if m.cfg.Progress != nil {
				m.cfg.Progress(round*len(DNSTests)+i+1, total)
			}
		}
	}
	results := make([]DNSResult, 0, len(DNSTests))
	for _, test := range DNSTests {
		r := DNSResult{DNSTest: test, Metrics: make(map[Metric]Spread)}
		for metric, v := range values[test.Name] {
			r.Metrics[metric] = spread(v)
		}
		results = append(results, r)
	}
	return results, nil
}

func (m *dnsMeasurement) one(ctx context.Context, test DNSTest) (map[Metric]float64, error) {
	load := dnsLoad{server: m.server, question: test.question, window: m.cfg.Window}
	sockets := dnsSockets
	if load.rate = int(test.share * float64(m.cfg.Rate)); load.rate == 0 {
		sockets = dnsClients
	}
	// Their namespace is that of the thread that opens them.
	err := m.host.Do(func() error { return load.open(sockets) })
	defer load.close()
	if err != nil {
		return nil, err
	}
	before, err := m.child.CPU()
	if err != nil {
		return nil, err
	}
	got, err := load.run(ctx)
	if err != nil {
		return nil, err
	}
	after, err := m.child.CPU()
	if err != nil {
		return nil, err
	}
	if len(got.rtts) == 0 {
		return nil, errors.New("no query was answered")
	}
	answered := float64(len(got.rtts))
	micros := func(q float64) float64 { return float64(quantile(got.rtts, q).Nanoseconds()) / 1e3 }
	return map[Metric]float64{
		QueryRate:  answered / got.took.Seconds(),
		Unanswered: 100 * (1 - answered/float64(got.sent)),
		RTT50:      micros(0.5),
		RTT99:      micros(0.99),
		ProcPerQ:   float64((after - before).Microseconds()) / answered,
	}, nil
}

// WriteTable prints the report for people: median, least and most.
func (r *DNSReport) WriteTable(w io.Writer) error {
	var out bytes.Buffer
	fmt.Fprintf(&out, "%s, %d cores, Linux %s, %s\n", r.Machine.CPU, r.Machine.Cores, r.Machine.Kernel, r.Machine.Go)
	fmt.Fprintf(&out, "UDP over loopback, %d queries a second offered (upstream: a tenth); median [least–most] of %d rounds of %gs\n\n",
		r.Rate, r.Rounds, r.Window)
	table := tabwriter.NewWriter(&out, 0, 0, 3, ' ', 0)
	fmt.Fprint(table, "question")
	for _, metric := range dnsMetrics {
		fmt.Fprintf(table, "\t%s", metric)
	}
	fmt.Fprintln(table)
	for _, res := range r.Results {
		fmt.Fprint(table, res.Title)
		for _, metric := range dnsMetrics {
			s := res.Metrics[metric]
			fmt.Fprintf(table, "\t%s [%s–%s]", figure(s.Median), figure(s.Min), figure(s.Max))
		}
		fmt.Fprintln(table)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := w.Write(out.Bytes())
	return err
}

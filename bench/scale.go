package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/ovnd/ovnd/bench/lab"
	"github.com/ovnd/ovnd/bench/report"
	"github.com/ovnd/ovnd/dataplane"
	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/encap"
)

// ScaleConfig says how RunScale measures: each number of endpoints on ScaleNodes
// nodes, and ScaleEndpoints endpoints on each number of nodes.
type ScaleConfig struct {
	Timing
	Endpoints, Nodes []int

	Command  string // that repeats the run, for the report
	Progress Progress
}

// What stays the same while the other number varies.
const (
	ScaleNodes     = 100
	ScaleEndpoints = 50_000
)

// Limits of what can be asked for: endpoints fit the subnet, nodes the range of
// addresses that stands for them.
const (
	maxScaleEndpoints = 4_000_000
	maxScaleNodes     = 10_000
)

// Check reports the first thing that is wrong with c.
func (c *ScaleConfig) Check() error {
	if err := c.check(leastMemoryWindow); err != nil {
		return err
	}
	if len(c.Endpoints)+len(c.Nodes) == 0 {
		return errors.New("nothing to measure: a number of endpoints or of nodes is needed")
	}
	for _, n := range c.Endpoints {
		if n < 1 || n > maxScaleEndpoints {
			return fmt.Errorf("%d endpoints: must be 1 to %d", n, maxScaleEndpoints)
		}
	}
	for _, n := range c.Nodes {
		if n < 2 || n > maxScaleNodes {
			return fmt.Errorf("%d nodes: must be 2 to %d", n, maxScaleNodes)
		}
	}
	return nil
}

// scaleBenchmarks are what is measured at each size, without results.
func scaleBenchmarks() []report.Benchmark {
	return []report.Benchmark{
		{
			Name: "lookup", Title: "one small packet parsed, looked up in the forwarding table, and dropped since its source is not its port's",
			Metrics: []report.Metric{{Name: "time", Title: "ns/packet", Unit: "ns/op", Better: report.LowerIsBetter}},
		},
		{
			Name: "update", Title: "one endpoint changes: from the directory's new picture to the forwarding table in use",
			Metrics: []report.Metric{
				{Name: "total", Title: "ms", Unit: "ms", Better: report.LowerIsBetter},
				{Name: "directory", Title: "directory ms", Unit: "ms", Better: report.LowerIsBetter},
				{Name: "forwarding", Title: "forwarding ms", Unit: "ms", Better: report.LowerIsBetter},
			},
		},
		{
			Name: "memory", Title: "memory in use",
			Metrics: []report.Metric{
				{Name: "endpoint", Title: "B/endpoint", Unit: "B", Better: report.LowerIsBetter},
				{Name: "directory", Title: "directory MB", Unit: "MB", Better: report.LowerIsBetter},
				{Name: "forwarding", Title: "forwarding MB", Unit: "MB", Better: report.LowerIsBetter},
			},
		},
		gossipBenchmark(),
	}
}

// RunScale measures the directory and the forwarding table as a network grows,
// and simulates what gossip sends. The calling program must have called lab.Enter.
// What was measured before ctx ended is in the report.
func RunScale(ctx context.Context, cfg ScaleConfig) (*report.Report, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	r := newReport(cfg.Command, cfg.Timing)
	r.Settings.WarmupSeconds = 0
	r.Subjects = []report.Subject{{Name: Ovnd, Title: "ovnd", Kind: report.KindOvnd}}
	r.Notes = []string{
		"Endpoints and nodes are made up: one process has the directory and the forwarding table that a node of such a network would have.",
		"Gossip is simulated, not sent: see the model in bench/gossip.go. Discovery takes 262,144 endpoints of other nodes a network at most.",
	}
	defer func() { finish(ctx, r) }()
	for i, s := range cfg.sizes() {
		s.cfg, s.report, s.done = &cfg, r, i
		if err := s.run(ctx); err != nil {
			return r, err
		}
	}
	return r, nil
}

// sizes are those that are measured.
func (c *ScaleConfig) sizes() (out []*scale) {
	for _, n := range c.Endpoints {
		out = append(out, &scale{endpoints: n, nodes: ScaleNodes, varies: "endpoints"})
	}
	for _, n := range c.Nodes {
		if n != ScaleNodes || !slices.Contains(c.Endpoints, ScaleEndpoints) {
			out = append(out, &scale{endpoints: ScaleEndpoints, nodes: n, varies: "nodes"})
		}
	}
	return out
}

// A scale measures one size.
type scale struct {
	cfg              *ScaleConfig
	endpoints, nodes int
	varies           string // which of them
	report           *report.Report
	done             int // sizes before this one
}

func (s *scale) run(ctx context.Context) error {
	benchmarks := scaleBenchmarks()
	for i := range benchmarks {
		b := &benchmarks[i]
		b.Group, b.Results = "scale", []report.Result{{Subject: Ovnd}}
		b.Params = map[string]string{"endpoints": number(s.endpoints), "nodes": number(s.nodes)}
		b.Varies = s.varies
	}
	all := len(s.cfg.sizes()) * s.cfg.Rounds
	for n := range s.cfg.Rounds {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if s.cfg.Progress.Begin != nil {
			name := fmt.Sprintf("%d endpoints on %d nodes", s.endpoints, s.nodes)
			s.cfg.Progress.Begin(s.done*s.cfg.Rounds+n, all, name, Ovnd, n)
		}
		values, err := s.round()
		if err != nil {
			return err
		}
		for i := range benchmarks {
			round := report.Round{Round: n, Values: values[benchmarks[i].Name]}
			res := &benchmarks[i].Results[0]
			res.Rounds = append(res.Rounds, round)
			if s.cfg.Progress.End != nil {
				s.cfg.Progress.End(&benchmarks[i], Ovnd, &round)
			}
		}
	}
	s.report.Benchmarks = append(s.report.Benchmarks, benchmarks...)
	return nil
}

// round measures everything once. Values are by benchmark, then by metric.
func (s *scale) round() (values map[string]map[string]float64, err error) {
	values = make(map[string]map[string]float64)
	err = lab.Run(func(l *lab.Lab) error {
		host := l.Host("node")
		var sw *dataplane.Switch
		err := host.Do(func() (err error) {
			sw, err = dataplane.New(dataplane.Config{Underlay: netip.AddrPortFrom(scaleNode(0), encap.VXLANPort)})
			return err
		})
		if err != nil {
			return err
		}
		defer sw.Close()
		return s.measure(sw, values)
	})
	values["gossip"] = simulateGossip(s.endpoints, s.nodes)
	return values, err
}

func (s *scale) measure(sw *dataplane.Switch, values map[string]map[string]float64) error {
	store := directory.NewStore()
	port, err := sw.AddStackPort(dataplane.StackPortConfig{
		NetworkID: "scale", EndpointID: "port", Name: "port", MAC: encap.EndpointMAC(scalePort), Addrs: []netip.Addr{scalePort},
		MTU: encap.DefaultMTU, Deliver: func([]byte, int) {},
	})
	if err != nil {
		return err
	}
	before := heap()
	snap, builder := scaleSnapshot(s.endpoints, s.nodes)
	store.Publish(snap)
	withDirectory := heap()
	sw.SetNetwork(snap)
	withTable := heap()
	const mb = 1e6
	values["memory"] = map[string]float64{
		"endpoint":   (withTable - before) / float64(s.endpoints),
		"directory":  (withDirectory - before) / mb,
		"forwarding": (withTable - withDirectory) / mb,
	}
	if values["lookup"], err = s.lookup(sw, port, snap); err != nil {
		return err
	}
	values["update"] = s.update(sw, store, snap, builder)
	return nil
}

// heap returns what is in use on the heap in bytes.
func heap() float64 {
	runtime.GC()
	runtime.GC() // what the first one's finalizers freed
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

// update replaces one endpoint again and again until the window is over, at least
// once.
func (s *scale) update(sw *dataplane.Switch, store *directory.Store, snap *directory.Snapshot, builder *directory.Builder) map[string]float64 {
	addrs := endpointAddrs(snap)
	rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
	var inDirectory, inTable time.Duration
	n := 0
	for start := time.Now(); n == 0 || time.Since(start) < s.cfg.Window; n++ {
		from := time.Now()
		next := *snap
		next.Version++
		moved := *builder.Get(addrs[n%len(addrs)])
		moved.VTEP = scaleNode(1 + n%(s.nodes-1))
		builder.Set(&moved)
		builder.Fill(&next)
		store.Publish(&next)
		published := time.Now()
		sw.SetNetwork(store.Load(next.ID))
		inDirectory += published.Sub(from)
		inTable += time.Since(published)
		snap = &next
	}
	ms := func(d time.Duration) float64 { return d.Seconds() * 1e3 / float64(n) }
	return map[string]float64{"total": ms(inDirectory + inTable), "directory": ms(inDirectory), "forwarding": ms(inTable)}
}

// lookup sends packets to endpoints in no order, from an address that is not the
// port's: they go as far as the table, and no further.
func (s *scale) lookup(sw *dataplane.Switch, port *dataplane.StackPort, snap *directory.Snapshot) (map[string]float64, error) {
	const batch, batches = 64, 256
	random := rand.New(rand.NewPCG(1, 2))
	addrs := endpointAddrs(snap)
	slices.SortFunc(addrs, netip.Addr.Compare)
	frames := (&payload{sizes: []int{46}}).frames()
	all := make([][][]byte, batches)
	for i := range all {
		for k := range batch {
			frame := slices.Clone(frames[k%len(frames)])
			readdress(frame, addrs[random.IntN(len(addrs))])
			all[i] = append(all[i], frame)
		}
	}
	port.Inject(all[0])
	sent, start := 0, time.Now()
	for i := 0; sent == 0 || time.Since(start) < s.cfg.Window; i++ {
		port.Inject(all[i%batches])
		sent += batch
	}
	took := time.Since(start)
	if drops := sw.Stats().Total.Drops; drops[dataplane.DropSpoofed.String()] != uint64(sent+batch) {
		return nil, fmt.Errorf("%d packets did not go as far as the table: %v", sent+batch, drops)
	}
	return map[string]float64{"time": float64(took.Nanoseconds()) / float64(sent)}, nil
}

func endpointAddrs(snap *directory.Snapshot) (addrs []netip.Addr) {
	for addr := range snap.Endpoints.All() {
		addrs = append(addrs, addr)
	}
	return addrs
}

var (
	scaleSubnet = netip.MustParsePrefix("10.0.0.0/8")
	scalePort   = netip.MustParseAddr("10.255.255.1")
)

// scaleNode returns the underlay address of a node; number 0 is this one.
func scaleNode(n int) netip.Addr {
	if n == 0 {
		return netip.MustParseAddr("127.0.0.1")
	}
	return netip.AddrFrom4([4]byte{198, 18, byte(n >> 8), byte(n)}) // RFC 2544, appendix C.2.2
}

// scaleSnapshot is a network of services of ten tasks, spread over the nodes, and
// its builder.
func scaleSnapshot(endpoints, nodes int) (snap *directory.Snapshot, builder *directory.Builder) {
	snap = &directory.Snapshot{
		Version: 1, ID: "scale", Name: "scale", VNI: benchVNI, MTU: encap.DefaultMTU,
		Subnets: []directory.Subnet{{Prefix: scaleSubnet}},
		Peers:   make(map[netip.Addr]string, nodes),
	}
	names := make([]string, nodes)
	for n := range nodes {
		names[n] = fmt.Sprintf("%012x", n)
		snap.Peers[scaleNode(n)] = names[n]
	}
	const tasks = 10
	builder = directory.NewBuilder(endpoints)
	for i := range endpoints {
		addr := scaleEndpoint(i)
		service := fmt.Sprintf("service-%d", i/tasks)
		builder.Set(&directory.Endpoint{
			ID: scaleID(i, 64), Name: fmt.Sprintf("%s.%d.%s", service, i%tasks+1, scaleID(i, 25)), Addr: addr,
			MAC: encap.EndpointMAC(addr), NodeID: names[i%nodes], VTEP: scaleNode(i % nodes),
			ServiceID: service, ServiceName: service, VIP: netip.AddrFrom4([4]byte{10, 128 + byte(i/tasks>>16), byte(i / tasks >> 8), byte(i / tasks)}),
		})
	}
	builder.Fill(snap)
	return snap, builder
}

// scaleEndpoint returns the address of an endpoint: 10.0.1.0 and up, below the
// VIPs'.
func scaleEndpoint(i int) netip.Addr {
	i += 256
	return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
}

// scaleID returns an identifier as long as real ones.
func scaleID(i, length int) string {
	id := fmt.Sprintf("%08x", uint32(i)*2654435761)
	return strings.Repeat(id, length/len(id)+1)[:length]
}

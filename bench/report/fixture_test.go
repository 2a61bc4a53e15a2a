package report

import (
	"math"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// example is a report with something of everything, the same each time.
func example() *Report {
	r := &Report{
		Schema: SchemaV1,
		Run: Run{
			Version: "0123abc", Command: "ovnd bench path --baseline kernel,wireguard --json",
			Started: time.Date(2026, 11, 23, 1, 43, 0, 0, time.UTC), Seconds: 278.4,
		},
		Machine: Machine{
			Kernel: "6.18.44", Arch: "amd64", CPU: "AMD EPYC", CPUFeatures: []string{"aes", "avx2"}, Cores: 2,
			MemoryBytes: 8 << 30, Virtualization: "kvm", Go: "go1.26.8", UID: 1000, LoadBefore: 0.12, LoadAfter: 1.9,
		},
		Settings: Settings{
			Rounds: 5, WindowSeconds: 1.5, WarmupSeconds: 0.3, MTU: 1500, Underlay: "ipv4", Congestion: "cubic",
			Offloads: []string{"tso", "gro"}, Generator: "built-in",
		},
		Subjects: []Subject{
			{Name: "veth", Title: "raw veth", Kind: KindKernel, MTU: 1500, Baseline: true},
			{Name: "kernel", Title: "kernel VXLAN", Kind: KindKernel, MTU: 1450, Baseline: true},
			{Name: "wireguard-go", Kind: KindPeer, Version: "ecfc5a8d5446", MTU: 1420, Baseline: true, Sealed: true},
			{Name: "ovnd", Kind: KindOvnd, MTU: 1450},
			{Name: "ovnd-aes-256-gcm", Title: "ovnd aes-256-gcm", Kind: KindOvnd, MTU: 1424, Sealed: true},
		},
		Notes: []string{"pasta is not installed: left out"},
	}
	r.Benchmarks = append(r.Benchmarks, exampleTCP(), exampleUDP(), examplePing())
	for _, n := range []int{1e3, 1e4, 1e5, 1e6} {
		r.Benchmarks = append(r.Benchmarks, exampleLookup(n))
	}
	return r
}

// exampleTCP has a subject that is noisy, one that failed once, and intervals.
func exampleTCP() Benchmark {
	random := rand.New(rand.NewPCG(1, 2))
	b := Benchmark{
		Group: "path", Name: "tcp1", Title: "TCP, one flow", Params: map[string]string{"mtu": "1500"},
		Metrics: []Metric{
			{Name: "throughput", Unit: "Gbit/s", Better: HigherIsBetter},
			{Name: "proc", Title: "proc s/GB", Unit: "s/GB", Better: LowerIsBetter},
		},
	}
	for _, s := range []struct {
		name               string
		speed, cost, noise float64
	}{
		{"veth", 35.9, 0, 0.05},
		{"kernel", 27.1, 0, 0.8},
		{"wireguard-go", 2.67, 4.62, 0.05},
		{"ovnd", 10.3, 0.98, 0.05},
		{"ovnd-aes-256-gcm", 8.1, 1.3, 0.05},
	} {
		res := Result{Subject: s.name}
		for round := range 5 {
			if s.name == "ovnd-aes-256-gcm" && round == 3 {
				res.Rounds = append(res.Rounds, Round{Round: round, Failed: "no TCP data arrived"})
				continue
			}
			in := Intervals{Metric: "throughput", Seconds: 0.1}
			sum := 0.0
			speed := s.speed * (1 + s.noise*(random.Float64()-0.5))
			for range 15 {
				in.Values = append(in.Values, round3(speed*(1+0.1*(random.Float64()-0.5))))
				sum += in.Values[len(in.Values)-1]
			}
			res.Rounds = append(res.Rounds, Round{
				Round:     round,
				Values:    map[string]float64{"throughput": round3(sum / 15), "proc": round3(s.cost * (1 + 0.1*random.Float64()))},
				Intervals: []Intervals{in},
			})
		}
		b.Results = append(b.Results, res)
	}
	return b
}

// exampleUDP has subjects that chance alone could make differ.
func exampleUDP() Benchmark {
	b := Benchmark{
		Group: "path", Name: "udp64", Title: "UDP, 64 bytes of payload", Params: map[string]string{"mtu": "1500"},
		Metrics: []Metric{
			{Name: "received", Unit: "kpps", Better: HigherIsBetter},
			{Name: "offered", Title: "offered", Unit: "kpps", Better: Informative},
			{Name: "loss", Title: "loss %", Unit: "%", Better: LowerIsBetter},
		},
	}
	for i, name := range []string{"kernel", "wireguard-go", "ovnd"} {
		res := Result{Subject: name}
		for round := range 5 {
			kpps, loss := 80+float64((round*7+i*3)%5)/10, 0.0
			if name == "wireguard-go" {
				kpps, loss = kpps/2, 50
			}
			res.Rounds = append(res.Rounds, Round{
				Round: round, Values: map[string]float64{"received": round3(kpps), "offered": 79.9, "loss": loss},
			})
		}
		b.Results = append(b.Results, res)
	}
	return b
}

// examplePing has distributions.
func examplePing() Benchmark {
	random := rand.New(rand.NewPCG(3, 4))
	b := Benchmark{
		Group: "path", Name: "ping", Title: "round trip, idle", Params: map[string]string{"mtu": "1500"},
		Metrics: []Metric{
			{Name: "p50", Title: "p50 µs", Unit: "µs", Better: LowerIsBetter},
			{Name: "p99", Title: "p99 µs", Unit: "µs", Better: LowerIsBetter},
		},
	}
	for _, s := range []struct {
		name string
		us   float64
	}{{"veth", 33}, {"kernel", 51}, {"wireguard-go", 238}, {"ovnd", 166}} {
		res := Result{Subject: s.name}
		for round := range 5 {
			h := hdrhistogram.New(1e3, 1e10, 3)
			for range 1500 {
				if err := h.RecordValue(int64(1e3 * s.us * math.Exp(0.3*random.NormFloat64()))); err != nil {
					panic(err)
				}
			}
			l := NewLatency(h, 10*time.Millisecond)
			p50, _ := l.At(50)
			p99, _ := l.At(99)
			res.Rounds = append(res.Rounds, Round{Round: round, Values: map[string]float64{"p50": p50, "p99": p99}, Latency: l})
		}
		b.Results = append(b.Results, res)
	}
	return b
}

// exampleLookup varies by a parameter, and has an exact metric.
func exampleLookup(endpoints int) Benchmark {
	b := Benchmark{
		Group: "scale", Name: "lookup", Title: "forwarding table", Varies: "endpoints",
		Params: map[string]string{"endpoints": strconv.Itoa(endpoints)},
		Metrics: []Metric{
			{Name: "time", Unit: "ns/op", Better: LowerIsBetter},
			{Name: "allocs", Unit: "allocs/op", Better: LowerIsBetter, Exact: true},
		},
		Simulated: "nodes are entries in a directory, not processes",
		Results:   []Result{{Subject: "ovnd"}},
	}
	for round := range 5 {
		ns := 12 + 9*math.Log10(float64(endpoints)) + float64(round)/4
		b.Results[0].Rounds = append(b.Results[0].Rounds, Round{Round: round, Values: map[string]float64{"time": round3(ns), "allocs": 0}})
	}
	return b
}

func round3(v float64) float64 { return math.Round(v*1e3) / 1e3 }

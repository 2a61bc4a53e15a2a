package bench

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/ovnd/ovnd/bench/report"
)

// EncapConfig says how RunEncap measures.
type EncapConfig struct {
	Timing
	Command  string // that repeats the run, for the report
	Progress Progress
}

// Frame sizes in bytes, with Ethernet header and frame check sequence (RFC 2544
// §9.1, with 1280 for IPv6's MTU instead of its larger neighbours).
var frameSizes = []int{64, 128, 256, 512, 1024, 1280, 1518}

// The simple IMIX: 7 frames of 64 bytes, 4 of 594 and 1 of 1518, mixed.
var imix = []int{64, 594, 64, 64, 1518, 64, 594, 64, 594, 64, 64, 594}

// superSize is the payload of a super-packet in bytes.
const superSize = 62 << 10

var encapMetrics = []report.Metric{
	{Name: "time", Title: "ns/packet", Unit: "ns/op", Better: report.LowerIsBetter},
	{Name: throughput, Unit: "Gbit/s", Better: report.HigherIsBetter},
	{Name: allocs, Title: "allocs/packet", Unit: "allocs/op", Better: report.LowerIsBetter, Exact: true},
	{Name: "memory", Title: "B/packet", Unit: "B/op", Better: report.LowerIsBetter, Exact: true},
}

// An operation is one step of a packet's way, on its own, in memory.
type operation struct {
	name, title string
	// prepare makes what one run of it works on: inner packets of the given
	// sizes, or, if super is set, one super-packet. setUp is called before each
	// batch and is not measured; run works on the batch.
	prepare func(load payload) (setUp, run func(), err error)
	super   bool // of super-packets rather than of single ones
}

// A payload is what an operation is measured with.
type payload struct {
	sizes []int // of inner IP packets in bytes
	param string
}

// packets and bytes of a batch. A payload is repeated until the batch is full.
const batchPackets = 48

func (p payload) bytes() (n int) {
	for i := range batchPackets {
		n += p.sizes[i%len(p.sizes)]
	}
	return n
}

// payloads are those of single packets.
func payloads() (out []payload) {
	const etherAndFCS = 18
	for _, size := range frameSizes {
		out = append(out, payload{[]int{size - etherAndFCS}, strconv.Itoa(size)})
	}
	mixed := payload{param: "imix"}
	for _, size := range imix {
		mixed.sizes = append(mixed.sizes, size-etherAndFCS)
	}
	return append(out, mixed)
}

// superPayload is that of a super-packet: its wire packets.
func superPayload(sealed bool) payload {
	return payload{[]int{superSegment(sealed)}, "super"}
}

// A step is an operation with a payload on a subject.
type step struct {
	operation
	payload
	subject   string
	benchmark int // in the report
	packets   int // of a batch
	bytes     int
	setUp     func()
	run       func()
}

// RunEncap measures the steps of a packet's way in memory, without sockets or
// devices. What was measured before ctx ended is in the report.
func RunEncap(ctx context.Context, cfg EncapConfig) (*report.Report, error) {
	if err := cfg.check(leastMemoryWindow); err != nil {
		return nil, err
	}
	r := newReport(cfg.Command, cfg.Timing)
	r.Settings.WarmupSeconds = 0
	steps, err := encapSteps(r)
	if err != nil {
		return nil, err
	}
	err = measureSteps(ctx, cfg, r, steps)
	finish(ctx, r)
	return r, err
}

// encapSteps prepares all steps, and their places in the report.
func encapSteps(r *report.Report) (steps []*step, err error) {
	for _, suite := range suites {
		sub, _ := findSubject(suite.subject)
		r.Subjects = append(r.Subjects, report.Subject{Name: sub.name, Title: sub.title, Kind: sub.kind, Sealed: sub.sealed})
	}
	for _, name := range []string{"parse", "wrap", "seal", "open", "outbound", "inbound"} {
		for _, suite := range suites {
			for _, op := range suite.operations() {
				if op.name != name {
					continue
				}
				if steps, err = addSteps(steps, r, suite, op); err != nil {
					return nil, fmt.Errorf("%s on %s: %w", name, suite.subject, err)
				}
			}
		}
	}
	return steps, nil
}

// addSteps adds an operation with all its payloads.
func addSteps(steps []*step, r *report.Report, suite suite, op operation) ([]*step, error) {
	loads := payloads()
	if op.super {
		loads = []payload{superPayload(suite.sealed())}
	}
	for _, load := range loads {
		s := &step{operation: op, payload: load, subject: suite.subject, packets: batchPackets, bytes: load.bytes()}
		if op.super {
			s.packets, s.bytes = superPackets(suite.sealed()), superSize
		}
		var err error
		if s.setUp, s.run, err = op.prepare(load); err != nil {
			return nil, err
		}
		s.benchmark = encapBenchmark(r, s)
		steps = append(steps, s)
	}
	return steps, nil
}

// encapBenchmark returns the index of the step's benchmark in the report, with an
// empty result for its subject.
func encapBenchmark(r *report.Report, s *step) int {
	i := slices.IndexFunc(r.Benchmarks, func(b report.Benchmark) bool {
		return b.Name == s.name && b.Params["size"] == s.param
	})
	if i < 0 {
		i = len(r.Benchmarks)
		b := report.Benchmark{
			Group: "encap", Name: s.name, Title: s.title, Params: map[string]string{"size": s.param}, Metrics: encapMetrics,
		}
		if _, err := strconv.Atoi(s.param); err == nil {
			b.Varies = "size"
		}
		r.Benchmarks = append(r.Benchmarks, b)
	}
	r.Benchmarks[i].Results = append(r.Benchmarks[i].Results, report.Result{Subject: s.subject})
	return i
}

func measureSteps(ctx context.Context, cfg EncapConfig, r *report.Report, steps []*step) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for round := range cfg.Rounds {
		for turn := range steps {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			s := steps[(turn+round)%len(steps)]
			b := &r.Benchmarks[s.benchmark]
			if cfg.Progress.Begin != nil {
				cfg.Progress.Begin(round*len(steps)+turn, cfg.Rounds*len(steps), s.name+"/"+s.param, s.subject, round)
			}
			made := s.measure(cfg.Window)
			made.Round = round
			i := slices.IndexFunc(b.Results, func(res report.Result) bool { return res.Subject == s.subject })
			b.Results[i].Rounds = append(b.Results[i].Rounds, made)
			if cfg.Progress.End != nil {
				cfg.Progress.End(b, s.subject, &made)
			}
		}
	}
	return nil
}

// measure runs batches until the window is over. The clock is read once a batch,
// which is long against that.
func (s *step) measure(window time.Duration) report.Round {
	batches := 0
	var took time.Duration
	for start := time.Now(); time.Since(start) < window || batches == 0; batches++ {
		s.setUp()
		from := time.Now()
		s.run()
		took += time.Since(from)
	}
	each := float64(took.Nanoseconds()) / float64(batches)
	made, size := s.allocations()
	return report.Round{Values: map[string]float64{
		"time":     each / float64(s.packets),
		throughput: float64(s.bytes) * 8 / each,
		allocs:     made, "memory": size,
	}}
}

// allocations returns how many objects and bytes a packet costs on the heap, in the
// batch that costs least: more is what the rest of the process does meanwhile.
func (s *step) allocations() (objects, bytes float64) {
	const batches = 10
	var before, after runtime.MemStats
	mallocs, total := uint64(math.MaxUint64), uint64(math.MaxUint64)
	for range batches {
		s.setUp()
		runtime.ReadMemStats(&before)
		s.run()
		runtime.ReadMemStats(&after)
		mallocs = min(mallocs, after.Mallocs-before.Mallocs)
		total = min(total, after.TotalAlloc-before.TotalAlloc)
	}
	return float64(mallocs) / float64(s.packets), float64(total) / float64(s.packets)
}

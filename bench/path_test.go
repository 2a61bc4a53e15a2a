package bench_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ovnd/ovnd/bench"
	"github.com/ovnd/ovnd/bench/lab"
	"github.com/ovnd/ovnd/bench/report"
)

func TestMain(m *testing.M) {
	bench.RunChild()
	lab.Main(m)
}

// quick is a run that is long enough to see that everything is measured, and too
// short to measure it well.
func quick() bench.PathConfig {
	return bench.PathConfig{
		Timing:   bench.Timing{Rounds: 1, Window: 200 * time.Millisecond, Warmup: 50 * time.Millisecond},
		Subjects: bench.DefaultSubjects, Baselines: []string{bench.Kernel, bench.WireGuard, bench.Veth},
		Tests: bench.DefaultPathTests, MTUs: []int{1500}, Flows: 4, UDPRate: 20_000, Sizes: []int{64}, Congestion: "cubic",
	}
}

// run measures and fails the test if something could not be measured.
func run(t *testing.T, cfg bench.PathConfig) *report.Report {
	t.Helper()
	r, err := bench.RunPath(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	check(t, r, cfg.Rounds)
	return r
}

// check looks whether everything was measured and has values that can be.
func check(t *testing.T, r *report.Report, rounds int) {
	t.Helper()
	if err := r.Validate(); err != nil {
		t.Error(err)
	}
	for _, note := range r.Notes {
		t.Log(note)
	}
	for _, b := range r.Benchmarks {
		for _, res := range b.Results {
			if len(res.Rounds) != rounds {
				t.Errorf("%s on %s: %d rounds", b.Name, res.Subject, len(res.Rounds))
			}
			for _, round := range res.Rounds {
				checkRound(t, &b, res.Subject, &round)
			}
		}
	}
	if left := children(t); len(left) > 0 {
		t.Errorf("processes left behind: %v", left)
	}
}

func checkRound(t *testing.T, b *report.Benchmark, subject string, round *report.Round) {
	t.Helper()
	if round.Failed != "" {
		t.Errorf("%s on %s: %s", b.Name, subject, round.Failed)
		return
	}
	kernel := subject == bench.Veth || subject == bench.Kernel
	for _, m := range b.Metrics {
		v, ok := round.Values[m.Name]
		own := m.Name == "calls" || m.Name == "copies" || m.Name == "allocs" // of processes
		switch {
		case !ok && own && (!strings.HasPrefix(subject, bench.Ovnd) || slices.Contains(streams, subject)), m.Name == "ndr":
		case !ok:
			t.Errorf("%s on %s: no %s", b.Name, subject, m.Name)
		case m.Unit == "%" && (v < 0 || v > 100):
			t.Errorf("%s on %s: %s = %g", b.Name, subject, m.Name, v)
		case kernel && strings.HasPrefix(m.Name, "cpu") && m.Name != "cpu_host":
			if v != 0 {
				t.Errorf("%s on %s: %s = %g without a process", b.Name, subject, m.Name, v)
			}
		case v <= 0 && m.Unit != "%" && !mayBeNone[m.Name]:
			t.Errorf("%s on %s: %s = %g", b.Name, subject, m.Name, v)
		}
	}
	if strings.HasPrefix(b.Name, "rtt") && round.Latency == nil {
		t.Errorf("%s on %s: no distribution", b.Name, subject)
	}
}

func TestRunPath(t *testing.T) {
	cfg := quick()
	cfg.Subjects = []string{bench.Ovnd, bench.OvndAES}
	r := run(t, cfg)
	if len(r.Subjects) != 5 || !r.Subjects[0].Baseline || r.Subjects[0].Name != bench.Veth {
		t.Errorf("subjects %+v", r.Subjects)
	}
	if len(r.Settings.Offloads) == 0 {
		t.Error("no offloads of the underlay")
	}
	for _, b := range r.Benchmarks {
		if len(b.Results) != len(r.Subjects) {
			t.Errorf("%s: %d results", b.Name, len(b.Results))
		}
		if b.Name == "tcp1" && len(b.Results[0].Rounds[0].Intervals[0].Values) < 2 {
			t.Errorf("%s: intervals %+v", b.Name, b.Results[0].Rounds[0].Intervals)
		}
	}
	var out bytes.Buffer
	if err := errors.Join(r.WriteTable(&out), r.Write(&out), r.WriteBenchstat(&out), r.WriteHTML(&out, nil)); err != nil {
		t.Error(err)
	}
}

// streams are the subjects whose programs use sockets of streams.
var streams = []string{bench.OvndEgress, bench.OvndProxy, bench.OvndPort}

func TestRunPathIPv6(t *testing.T) {
	cfg := quick()
	cfg.IPv6, cfg.Tests = true, []string{bench.TestTCP, bench.TestRTT}
	run(t, cfg)
}

// patient is longer than a flow is silent that has lost its last segments on a busy
// machine: TCP repeats them after 200 ms (RFC 6298, and Linux's TCP_RTO_MIN).
const patient = 500 * time.Millisecond

// Every byte is checked: on all ways, over a large MTU too, and with several
// workers. With -short, for the race detector, only where data is sealed.
func TestVerify(t *testing.T) {
	wide := quick()
	wide.Verify, wide.Subjects, wide.Baselines = true, []string{bench.Ovnd, bench.OvndChaCha, bench.OvndAES}, nil
	wide.Tests = []string{bench.TestTCPBoth, bench.TestUDP}
	wide.MTUs, wide.Workers, wide.Sizes = []int{9000}, []int{2}, []int{1200, 8000}
	wide.Window = patient
	if testing.Short() {
		wide.Subjects, wide.Sizes = []string{bench.OvndChaCha}, []int{1200}
	}
	if r := run(t, wide); !r.Settings.Integrity {
		t.Error("the report does not say that bytes were compared")
	}
	if testing.Short() {
		return
	}
	usual := quick()
	usual.Window = patient
	usual.Verify, usual.Subjects, usual.Baselines = true, bench.Own(), []string{bench.Kernel}
	usual.Tests = []string{bench.TestTCP, bench.TestTCPMany, bench.TestUDP}
	run(t, usual)
}

// What other machines may have is measured where it is there, and noted where it
// is not.
func TestPeers(t *testing.T) {
	cfg := quick()
	cfg.Subjects, cfg.Baselines = streams, []string{bench.Slirp4netns, bench.Pasta, bench.Nebula}
	cfg.Tests = []string{bench.TestTCP, bench.TestTCPBoth, bench.TestRTT}
	cfg.Window = patient // pasta lets a flow wait at its start, too
	r := run(t, cfg)
	for _, name := range cfg.Baselines {
		measured := slices.ContainsFunc(r.Subjects, func(s report.Subject) bool { return s.Name == name })
		noted := slices.ContainsFunc(r.Notes, func(note string) bool { return strings.HasPrefix(note, name+" is not installed") })
		if measured == noted {
			t.Errorf("%s: measured %t, noted %t: %q", name, measured, noted, r.Notes)
		}
	}
}

func TestRunVIP(t *testing.T) {
	cfg := quick()
	cfg.Tests, cfg.Baselines = bench.DefaultVIPTests, nil
	r, err := bench.RunVIP(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	check(t, r, 1)
	if len(r.Subjects) != 3 || !r.Subjects[0].Baseline || r.Subjects[1].Baseline || r.Subjects[2].Baseline {
		t.Errorf("subjects %+v", r.Subjects)
	}
}

// A run that is stopped ends soon, has what was measured and leaves no process.
func TestStop(t *testing.T) {
	cfg := quick()
	cfg.Tests, cfg.Rounds = []string{bench.TestTCP, bench.TestRTTFull}, 1000
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	cfg.Progress.End = func(b *report.Benchmark, _ string, _ *report.Round) {
		if b.Name == "rtt-full" {
			cancel()
		}
	}
	start := time.Now()
	r, err := bench.RunPath(ctx, cfg)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want the context's", err)
	}
	if !r.Run.Interrupted || len(r.Benchmarks) != 2 || len(r.Benchmarks[0].Results[0].Rounds) == 0 {
		t.Errorf("the report of an interrupted run: %+v", r)
	}
	if err := r.Validate(); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > time.Minute {
		t.Errorf("stopping took %v", took)
	}
	if left := children(t); len(left) > 0 {
		t.Errorf("processes left behind: %v", left)
	}
}

func TestCheck(t *testing.T) {
	for want, change := range map[string]func(*bench.PathConfig){
		"subject":  func(c *bench.PathConfig) { c.Subjects = []string{"nonesuch"} },
		"baseline": func(c *bench.PathConfig) { c.Baselines = []string{"nonesuch"} },
		"test":     func(c *bench.PathConfig) { c.Tests = []string{"nonesuch"} },
		"rounds":   func(c *bench.PathConfig) { c.Rounds = 0 },
		"nothing":  func(c *bench.PathConfig) { c.Subjects, c.Baselines = nil, nil },
		"MTU":      func(c *bench.PathConfig) { c.MTUs = []int{68} },
		"workers":  func(c *bench.PathConfig) { c.Workers = []int{-1} },
		"payload":  func(c *bench.PathConfig) { c.Sizes = []int{8} },
		"flows":    func(c *bench.PathConfig) { c.Flows = 0 },
		"rate":     func(c *bench.PathConfig) { c.UDPRate = 0 },
	} {
		cfg := quick()
		change(&cfg)
		if err := cfg.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one about %s", err, want)
		}
	}
}

// mayBeNone are metrics that are 0 when all is well, or on a machine whose clock
// ticks are too far apart.
var mayBeNone = map[string]bool{"cpu_host": true, "cpu_receiver": true, "allocs": true, "memory": true}

package bench

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"

	"github.com/ovnd/ovnd/bench/report"
	"github.com/ovnd/ovnd/bench/traffic"
)

// PathConfig says what RunPath measures.
type PathConfig struct {
	Timing
	Subjects  []string // ovnd's; each must be one of Own
	Baselines []string // what they are compared with; each must be one of Baselines
	Tests     []string // each must be one of PathTests; none: DefaultPathTests

	MTUs    []int // bytes, of the underlay; each makes a series of its own
	Workers []int // of ovnd's data planes; each makes a series; none: their choice
	Flows   int   // of the test with several TCP flows
	UDPRate int   // datagrams per second of the tests at a fixed rate
	Sizes   []int // bytes of UDP payload, of those tests and of loss searches

	IPv6       bool   // underlay
	Congestion string // TCP congestion control, the same for all
	Verify     bool   // compare every byte
	IPerf3     bool   // let iperf3 measure TCP too

	Command  string // that repeats the run, for the report
	Progress Progress
}

// Names of the tests of a path.
const (
	TestTCP       = "tcp"         // one flow
	TestTCPMany   = "tcp-many"    // Flows of them
	TestTCPBoth   = "tcp-both"    // in both directions
	TestUDP       = "udp"         // at a fixed rate, each size
	TestSearch    = "loss-search" // NDR and PDR, each size
	TestConnect   = "connect"     // new connections
	TestRTT       = "rtt-idle"
	TestRTTHalf   = "rtt-half"
	TestRTTFull   = "rtt-full"
	testCrossName = "iperf3"
)

// DefaultSubjects are those of ovnd that a run measures which does not say.
var DefaultSubjects = []string{Ovnd, OvndChaCha, OvndAES}

// PathTests are all tests that a path can be measured with, in their order.
// DefaultPathTests are those of a run that does not say.
var (
	PathTests        = []string{TestTCP, TestTCPMany, TestTCPBoth, TestUDP, TestSearch, TestConnect, TestRTT, TestRTTHalf, TestRTTFull}
	DefaultPathTests = []string{TestTCP, TestTCPMany, TestTCPBoth, TestUDP, TestSearch, TestRTT, TestRTTHalf, TestRTTFull}
)

// Check reports the first thing that is wrong with c, and fills in what was left
// out.
func (c *PathConfig) Check() error {
	if err := c.check(leastWindow); err != nil {
		return err
	}
	if len(c.Tests) == 0 {
		c.Tests = DefaultPathTests
	}
	if len(c.Workers) == 0 {
		c.Workers = []int{0}
	}
	for _, list := range []struct {
		what     string
		got, all []string
	}{
		{"subject", c.Subjects, Own()},
		{"baseline", c.Baselines, append(Baselines(), Own()...)},
		{"test", c.Tests, PathTests},
	} {
		for _, name := range list.got {
			if !slices.Contains(list.all, name) {
				return fmt.Errorf("unknown %s %q: choose from %s", list.what, name, strings.Join(list.all, ", "))
			}
		}
	}
	if len(c.Subjects)+len(c.Baselines) == 0 || len(c.MTUs) == 0 {
		return errors.New("nothing to measure: at least one subject and one MTU are needed")
	}
	return c.checkNumbers()
}

func (c *PathConfig) checkNumbers() error {
	for _, mtu := range c.MTUs {
		if mtu < 1400 || mtu > 65535 {
			return fmt.Errorf("MTU %d: must be 1400 to 65535", mtu)
		}
	}
	for _, n := range c.Workers {
		if n < 0 || n > 64 {
			return fmt.Errorf("%d workers: must be 1 to 64", n)
		}
	}
	for _, size := range c.Sizes {
		if size < traffic.MinDatagram || size > 8900 {
			return fmt.Errorf("UDP payload of %d bytes: must be %d to 8900", size, traffic.MinDatagram)
		}
	}
	if c.Flows < 1 || c.Flows > 1024 {
		return fmt.Errorf("%d flows: must be 1 to 1024", c.Flows)
	}
	if c.UDPRate < 100 || c.UDPRate > 10_000_000 {
		return fmt.Errorf("UDP rate %d: must be 100 to 10000000 datagrams a second", c.UDPRate)
	}
	return nil
}

// RunPath builds the subjects' planes and measures them. The calling program must
// have called lab.Enter, and must run [RunChild] in its children. The report holds
// what was measured also if there is an error: that the run was stopped, or that
// something of ovnd's failed or a byte was wrong.
func RunPath(ctx context.Context, cfg PathConfig) (*report.Report, error) {
	return runPlanes(ctx, "path", cfg)
}

func runPlanes(ctx context.Context, group string, cfg PathConfig) (*report.Report, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	r := newReport(cfg.Command, cfg.Timing)
	r.Settings.Congestion, r.Settings.Integrity = cfg.Congestion, cfg.Verify
	r.Settings.Underlay = "ipv4"
	if cfg.IPv6 {
		r.Settings.Underlay = "ipv6"
	}
	if len(cfg.MTUs) == 1 {
		r.Settings.MTU = cfg.MTUs[0]
	}
	r.Settings.Generator = "ovnd"
	if cfg.IPerf3 {
		if _, err := exec.LookPath("iperf3"); err != nil {
			return nil, errors.New("iperf3 is not installed: go without --iperf3")
		}
		r.Settings.Generator = "ovnd, checked by iperf3 " + programVersion("iperf3")
	}
	var failures []error
	done, all := 0, len(cfg.MTUs)*len(cfg.Workers)
	for _, mtu := range cfg.MTUs {
		for _, workers := range cfg.Workers {
			s := &series{timing: cfg.Timing, progress: cfg.Progress, group: group, report: r, varies: cfg.varies()}
			s.params = map[string]string{"mtu": number(mtu)}
			if workers > 0 {
				s.params["workers"] = number(workers)
			}
			set := &setup{mtu: mtu, ipv6: cfg.IPv6, workers: workers, congestion: cfg.Congestion, verify: cfg.Verify}
			err := s.measure(ctx, &cfg, set, done, all)
			failures = append(failures, s.failures...)
			if err != nil {
				finish(ctx, r)
				return r, errors.Join(append(failures, err)...)
			}
			done++
		}
	}
	finish(ctx, r)
	return r, errors.Join(failures...)
}

// varies names the parameter that the series of a run differ in.
func (c *PathConfig) varies() string {
	switch {
	case len(c.Workers) > 1:
		return "workers"
	case len(c.MTUs) > 1:
		return "mtu"
	}
	return ""
}

// measure opens the planes, measures them and closes them. done of all series are
// over.
func (s *series) measure(ctx context.Context, cfg *PathConfig, set *setup, done, all int) error {
	defer s.closeAll()
	var names []string
	for _, sub := range subjects { // in the table's order
		if slices.Contains(cfg.Subjects, sub.name) || slices.Contains(cfg.Baselines, sub.name) {
			names = append(names, sub.name)
		}
	}
	if err := s.openAll(ctx, set, names); err != nil {
		return err
	}
	s.describe(cfg.Baselines)
	s.tests = cfg.tests(s.noICMP(), set.mtu)
	s.noteSkipped()
	each := len(s.tests) * len(s.planes) * s.timing.Rounds
	s.done, s.of = done*each, all*each
	return s.run(ctx)
}

// tests returns the tests of a series over an underlay of an MTU.
func (c *PathConfig) tests(noICMP bool, mtu int) (out []test) {
	for _, name := range c.Tests {
		switch name {
		case TestTCP:
			out = append(out, bulk(1))
		case TestTCPMany:
			out = append(out, bulk(c.Flows))
		case TestTCPBoth:
			out = append(out, both())
		case TestUDP:
			for _, size := range c.sizes(mtu) {
				out = append(out, rate(size, c.UDPRate))
			}
		case TestSearch:
			for _, size := range c.sizes(mtu) {
				out = append(out, search(size))
			}
		case TestConnect:
			out = append(out, connects())
		case TestRTT:
			out = append(out, roundTrips(idle, noICMP))
		case TestRTTHalf:
			out = append(out, roundTrips(half, noICMP))
		case TestRTTFull:
			out = append(out, roundTrips(full, noICMP))
		}
	}
	if c.IPerf3 {
		out = append(out, iperf3())
	}
	return out
}

// overlayMost is what an overlay of those that are measured, and UDP and IP
// headers, take of the underlay's MTU at most.
const overlayMost = 160

// sizes are the payloads that fit an underlay's MTU without fragments.
func (c *PathConfig) sizes(mtu int) []int {
	return slices.DeleteFunc(slices.Clone(c.Sizes), func(n int) bool { return n > mtu-overlayMost })
}

package bench

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/ovnd/ovnd/bench/lab"
)

// PathConfig says what RunPath measures.
type PathConfig struct {
	Planes []string // names; each must be one of Planes
	Tests  []string // names of Tests

	Rounds     int
	Window     time.Duration // measured part of one test
	Warmup     time.Duration // before it
	MTU        int           // bytes, of the underlay
	IPv6       bool          // underlay
	Congestion string        // TCP congestion control, the same for all planes

	// Progress is called after each test, for the user's patience. It may be
	// nil.
	Progress func(done, of int, s Sample)
}

// Check reports the first thing that is wrong with c.
func (c *PathConfig) Check() error {
	for _, name := range c.Planes {
		if !slices.Contains(Planes, name) {
			return fmt.Errorf("planes: %q is not one of %v", name, Planes)
		}
	}
	for _, name := range c.Tests {
		if _, ok := findTest(name); !ok {
			return fmt.Errorf("tests: %q is not one of %v", name, TestNames())
		}
	}
	if len(c.Planes) == 0 || len(c.Tests) == 0 {
		return fmt.Errorf("nothing to measure: name at least one plane and one test")
	}
	if c.Rounds < 1 || c.Window < 100*time.Millisecond {
		return fmt.Errorf("%d rounds of %v: at least one round and 100ms are needed", c.Rounds, c.Window)
	}
	if c.MTU < 1400 || c.MTU > 65535 {
		return fmt.Errorf("mtu %d: must be 1400 to 65535", c.MTU)
	}
	return nil
}

// TestNames returns the names of Tests.
func TestNames() []string {
	names := make([]string, 0, len(Tests))
	for _, t := range Tests {
		names = append(names, t.Name)
	}
	return names
}

func findTest(name string) (Test, bool) {
	i := slices.IndexFunc(Tests, func(t Test) bool { return t.Name == name })
	if i < 0 {
		return Test{}, false
	}
	return Tests[i], true
}

// RunPath builds the planes in a lab and measures them. The calling program
// must have called RunChild and lab.Enter.
func RunPath(ctx context.Context, cfg PathConfig) (*Report, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	report := newReport(cfg)
	err := lab.Run(func(l *lab.Lab) error {
		b := builder{lab: l, mtu: cfg.MTU, ipv6: cfg.IPv6}
		planes := make([]*plane, 0, len(cfg.Planes))
		for _, name := range cfg.Planes {
			p, err := b.build(name)
			if err != nil {
				return err
			}
			planes = append(planes, p)
			if err := p.settle(ctx); err != nil {
				return err
			}
		}
		return measureAll(ctx, cfg, planes, report)
	})
	return report, err
}

// settle waits until the plane carries packets: handshakes and neighbour
// discovery are not what is measured.
func (p *plane) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, childPatience)
	defer cancel()
	if err := p.host.Ping(ctx, p.target.Addr(), lab.Ping{}); err != nil {
		return fmt.Errorf("plane %s does not carry packets: %w", p.name, err)
	}
	return nil
}

// measureAll runs the tests one by one: all planes in turn make a round, and
// the turns start with another plane each round.
func measureAll(ctx context.Context, cfg PathConfig, planes []*plane, report *Report) error {
	total := len(cfg.Tests) * cfg.Rounds * len(planes)
	for _, name := range cfg.Tests {
		test, _ := findTest(name)
		for round := range cfg.Rounds {
			for turn := range planes {
				p := planes[(turn+round)%len(planes)]
				m := &measurement{plane: p, congestion: cfg.Congestion, warmup: cfg.Warmup, window: cfg.Window}
				values, err := test.measure(m, ctx)
				if err != nil {
					return fmt.Errorf("%s on %s: %w", name, p.name, err)
				}
				s := Sample{Test: name, Plane: p.name, Round: round, Values: values}
				report.Samples = append(report.Samples, s)
				if cfg.Progress != nil {
					cfg.Progress(len(report.Samples), total, s)
				}
			}
		}
	}
	report.summarise()
	return nil
}

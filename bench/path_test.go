package bench_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ovnd/ovnd/bench"
	"github.com/ovnd/ovnd/bench/lab"
)

func TestMain(m *testing.M) {
	bench.RunChild()
	lab.Main(m)
}

// quick is a run that is long enough to see that everything is measured, and too
// short to measure it well.
func quick() bench.PathConfig {
	return bench.PathConfig{
		Planes: bench.Planes, Tests: bench.TestNames(), Rounds: 1,
		Window: 200 * time.Millisecond, Warmup: 100 * time.Millisecond, MTU: 1500, Congestion: "cubic",
	}
}

func TestRunPath(t *testing.T) {
	report, err := bench.RunPath(t.Context(), quick())
	if err != nil {
		t.Fatal(err)
	}
	checkSamples(t, report)
	checkOutput(t, report)
	if left := children(t); len(left) > 0 {
		t.Errorf("processes left behind: %v", left)
	}
}

func TestRunPathIPv6(t *testing.T) {
	cfg := quick()
	cfg.IPv6, cfg.Tests = true, []string{"tcp1", "ping"}
	report, err := bench.RunPath(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	checkSamples(t, report)
}

// checkSamples checks that everything was measured and has a value that can be.
func checkSamples(t *testing.T, report *bench.Report) {
	t.Helper()
	for _, test := range bench.Tests {
		if !slices.Contains(report.Setup.Tests, test.Name) {
			continue
		}
		for _, plane := range report.Setup.Planes {
			checkSample(t, report, test, plane)
		}
	}
}

func checkSample(t *testing.T, report *bench.Report, test bench.Test, plane string) {
	t.Helper()
	for _, s := range report.Samples {
		if s.Test != test.Name || s.Plane != plane {
			continue
		}
		for _, metric := range test.Metrics {
			value, ok := s.Values[metric]
			kernel := plane == bench.PlaneVeth || plane == bench.PlaneKernel
			switch {
			case !ok:
				t.Errorf("%s on %s: no %s", test.Name, plane, metric)
			case metric == bench.Loss:
				if value < 0 || value > 100 {
					t.Errorf("%s on %s: %s = %g", test.Name, plane, metric, value)
				}
			case kernel && (metric == bench.ProcPerGB || metric == bench.ProcPerPkt || metric == bench.ProcPerCon):
				if value != 0 {
					t.Errorf("%s on %s: %s = %g without a process", test.Name, plane, metric, value)
				}
			case value <= 0:
				t.Errorf("%s on %s: %s = %g", test.Name, plane, metric, value)
			}
		}
		return
	}
	t.Errorf("%s on %s was not measured", test.Name, plane)
}

// checkOutput checks that the table and the JSON hold what was measured.
func checkOutput(t *testing.T, report *bench.Report) {
	t.Helper()
	var table strings.Builder
	if err := report.WriteTable(&table); err != nil {
		t.Fatal(err)
	}
	for _, plane := range report.Setup.Planes {
		if got := strings.Count(table.String(), "\n"+plane+" "); got != len(report.Setup.Tests) {
			t.Errorf("plane %s has %d lines in the table, want %d", plane, got, len(report.Setup.Tests))
		}
	}
	text, err := json.Marshal(report)
	if err != nil {
		t.Fatal(err)
	}
	var back bench.Report
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if len(back.Results) != len(report.Setup.Planes)*len(report.Setup.Tests) || back.Machine != report.Machine {
		t.Errorf("JSON holds %d results of %+v", len(back.Results), back.Machine)
	}
}

// A run that is stopped ends soon, says so and leaves no process.
func TestStop(t *testing.T) {
	cfg := quick()
	cfg.Planes, cfg.Tests, cfg.Window = []string{bench.PlaneKernel, bench.PlaneWireGuard}, []string{"ping-load"}, time.Minute
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	start := time.Now()
	if _, err := bench.RunPath(ctx, cfg); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want the context's", err)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("stopping took %v", took)
	}
	if left := children(t); len(left) > 0 {
		t.Errorf("processes left behind: %v", left)
	}
}

func TestCheck(t *testing.T) {
	for want, change := range map[string]func(*bench.PathConfig){
		"planes":  func(c *bench.PathConfig) { c.Planes = []string{"nonesuch"} },
		"tests":   func(c *bench.PathConfig) { c.Tests = []string{"nonesuch"} },
		"rounds":  func(c *bench.PathConfig) { c.Rounds = 0 },
		"nothing": func(c *bench.PathConfig) { c.Tests = nil },
		"mtu":     func(c *bench.PathConfig) { c.MTU = 68 },
	} {
		cfg := quick()
		change(&cfg)
		if err := cfg.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one about %s", err, want)
		}
	}
}

// children lists the processes whose parent is this one.
func children(t *testing.T) (out []string) {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		// proc_pid_stat(5): the parent follows the name in parentheses and the
		// state.
		var state string
		var parent int
		rest := string(text[strings.LastIndexByte(string(text), ')')+1:])
		if _, err := fmt.Sscan(rest, &state, &parent); err == nil && parent == os.Getpid() {
			out = append(out, strings.TrimSpace(string(text[:40])))
		}
	}
	return out
}

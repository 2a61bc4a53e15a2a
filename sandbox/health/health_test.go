//go:build !race

// Before Go 1.27 the race detector and synctest do not go together.

package health

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// seen is a state, and when it was told of, after the start.
type seen struct {
	at     time.Duration
	status Status
	streak int
}

// script runs cfg with probes that answer with these exit codes, and returns
// what was told. It ends with the script.
func script(t *testing.T, cfg Config, codes ...int) (out []seen) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		probe := func(context.Context) (int, string, error) {
			if len(codes) == 0 {
				cancel()
				return 0, "", nil
			}
			code := codes[0]
			codes = codes[1:]
			return code, "", nil
		}
		err := Run(ctx, cfg, probe, func(s State) {
			out = append(out, seen{time.Since(start), s.Status, s.FailingStreak})
		})
		if err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return out
}

func TestStates(t *testing.T) {
	const s = time.Second
	for _, tc := range []struct {
		name  string
		cfg   Config
		codes []int
		want  []seen
	}{
		{
			"defaults: healthy, three failures, back",
			Config{},
			[]int{0, 1, 1, 0, 1, 2, 3, 0},
			[]seen{
				{0, Starting, 0},
				{30 * s, Healthy, 0},
				{60 * s, Healthy, 1},
				{90 * s, Healthy, 2},
				{120 * s, Healthy, 0},
				{150 * s, Healthy, 1},
				{180 * s, Healthy, 2},
				{210 * s, Unhealthy, 3},
				{240 * s, Healthy, 0},
			},
		},
		{
			"never healthy",
			Config{Interval: s, Retries: 2},
			[]int{1, 1, 1},
			[]seen{{0, Starting, 0}, {s, Starting, 1}, {2 * s, Unhealthy, 2}, {3 * s, Unhealthy, 3}},
		},
		{
			"start period: failures do not count, and the interval is another",
			Config{Interval: 10 * s, StartPeriod: 7 * s, StartInterval: 3 * s, Retries: 1},
			// At 3 and 6 in the period; the last of its intervals is cut to its
			// end, where failures count.
			[]int{1, 1, 1},
			[]seen{{0, Starting, 0}, {3 * s, Starting, 0}, {6 * s, Starting, 0}, {7 * s, Unhealthy, 1}},
		},
		{
			"start period: the first success ends its interval and its mercy",
			Config{Interval: 10 * s, StartPeriod: 60 * s, Retries: 1},
			[]int{1, 0, 1},
			[]seen{{0, Starting, 0}, {5 * s, Starting, 0}, {10 * s, Healthy, 0}, {20 * s, Unhealthy, 1}},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := script(t, tc.cfg, tc.codes...); !slices.Equal(got, tc.want) {
				t.Errorf("got  %v\nwant %v", got, tc.want)
			}
		})
	}
}

// A node that was restarted goes on where the start period is.
func TestStartedEarlier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		start := time.Now()
		cfg := Config{Interval: time.Second, StartPeriod: time.Minute, Retries: 1, Started: start.Add(-2 * time.Minute)}
		var last State
		_ = Run(ctx, cfg, func(context.Context) (int, string, error) { return 1, "", nil }, func(s State) {
			if last = s; s.Status != Starting {
				cancel()
			}
		})
		if last.Status != Unhealthy || time.Since(start) != time.Second {
			t.Errorf("%v after %v, want unhealthy after 1s", last.Status, time.Since(start))
		}
	})
}

// The interval is counted from the end of a probe.
func TestIntervalAfterProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var starts []time.Duration
		start := time.Now()
		_ = Run(ctx, Config{Interval: 10 * time.Second}, func(context.Context) (int, string, error) {
			if starts = append(starts, time.Since(start)); len(starts) == 3 {
				cancel()
			}
			time.Sleep(4 * time.Second)
			return 0, "", nil
		}, func(State) {})
		if want := []time.Duration{10 * time.Second, 24 * time.Second, 38 * time.Second}; !slices.Equal(starts, want) {
			t.Errorf("probes at %v, want %v", starts, want)
		}
	})
}

func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var last State
		_ = Run(ctx, Config{Timeout: 2 * time.Second, Retries: 1}, func(ctx context.Context) (int, string, error) {
			<-ctx.Done()
			return 0, "half a sentence", nil // in vain
		}, func(s State) {
			if last = s; len(s.Log) > 0 {
				cancel()
			}
		})
		r := last.Log[0]
		if last.Status != Unhealthy || r.ExitCode != ExitUnknown || r.End.Sub(r.Start) != 2*time.Second ||
			r.Output != "Health check exceeded timeout (2s): half a sentence" {
			t.Errorf("got %+v", last)
		}
	})
}

// A probe that is under way when Run is to end is told so, waited for, and says
// nothing.
func TestEndDuringProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		ended, states := false, 0
		done := make(chan error)
		go func() {
			done <- Run(ctx, Config{}, func(ctx context.Context) (int, string, error) {
				<-ctx.Done()
				time.Sleep(time.Second) // killing it takes a while
				ended = true
				return 137, "", nil
			}, func(State) { states++ })
		}()
		time.Sleep(DefaultInterval + time.Second)
		cancel()
		if err := <-done; err != nil || !ended || states != 1 {
			t.Errorf("Run: %v, probe ended: %v, states: %d", err, ended, states)
		}
	})
}

func TestLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		n := 0
		var states []State
		_ = Run(ctx, Config{}, func(context.Context) (int, string, error) {
			switch n++; n {
			case 1:
				return 0, strings.Repeat("x", maxOutput+1), nil
			case 2:
				return 0, "", errors.New("no such program")
			}
			return n, "", nil
		}, func(s State) {
			if states = append(states, s); len(states) == 9 {
				cancel()
			}
		})
		if out := states[1].Log[0].Output; len(out) != maxOutput+3 || !strings.HasSuffix(out, "x...") {
			t.Errorf("output of %d bytes", len(out))
		}
		if r := states[2].Log[1]; r.ExitCode != ExitUnknown || r.Output != "no such program" {
			t.Errorf("probe that could not be run: %+v", r)
		}
		last := states[8]
		var codes []int
		for _, r := range last.Log {
			codes = append(codes, r.ExitCode)
		}
		if want := []int{4, 5, 6, 7, 8}; !slices.Equal(codes, want) || len(states[5].Log) != 5 || states[5].Log[0].ExitCode != 0 {
			t.Errorf("log has %v, want %v", codes, want)
		}
	})
}

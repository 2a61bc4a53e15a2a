// Package health runs the health check of a task, with Docker's rules:
//
//	starting ──probe succeeds──► healthy ──Retries failures in a row──► unhealthy
//	    └── Retries failures in a row, ──► unhealthy ──probe succeeds──► healthy
//	        those of the start period
//	        not counted
//
// The first probe comes one interval after the start; each interval is counted
// from the end of the probe before. While a task is starting and its start
// period lasts, the start interval holds instead.
package health

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Docker's defaults.
const (
	DefaultInterval      = 30 * time.Second
	DefaultTimeout       = 30 * time.Second
	DefaultStartInterval = 5 * time.Second
	DefaultRetries       = 3
)

const (
	maxLog    = 5    // results that a State keeps
	maxOutput = 4096 // bytes of a probe's output that a Result keeps
)

// ExitUnknown is the exit code of a probe that has none: it took too long or
// could not be run.
const ExitUnknown = -1

// A Config says when to probe. The zero value has Docker's defaults.
type Config struct {
	Interval      time.Duration // between probes; 0: 30 s
	Timeout       time.Duration // of one probe; 0: 30 s
	StartPeriod   time.Duration // after Started, in which failures do not count; 0: none
	StartInterval time.Duration // between probes in the start period; 0: 5 s
	Retries       int           // failures in a row that make a task unhealthy; 0: 3

	// Started is when the task did; zero: when Run is called. A node that was
	// restarted does not give its tasks a new start period.
	Started time.Time
}

func (c Config) withDefaults() Config {
	set := func(d *time.Duration, to time.Duration) {
		if *d <= 0 {
			*d = to
		}
	}
	set(&c.Interval, DefaultInterval)
	set(&c.Timeout, DefaultTimeout)
	set(&c.StartPeriod, 0)
	set(&c.StartInterval, DefaultStartInterval)
	if c.Retries <= 0 {
		c.Retries = DefaultRetries
	}
	if c.Started.IsZero() {
		c.Started = time.Now()
	}
	return c
}

// A Status is what Docker calls it.
type Status string

// The statuses of a task with a health check.
const (
	Starting  Status = "starting"
	Healthy   Status = "healthy"
	Unhealthy Status = "unhealthy"
)

// A Result is that of one probe.
type Result struct {
	Start, End time.Time
	ExitCode   int // 0: healthy; ExitUnknown if there is none
	Output     string
}

// A State is what the probes so far say.
type State struct {
	Status        Status
	FailingStreak int      // failures in a row
	Log           []Result // the last five, oldest first
}

// Run probes until ctx ends, then returns nil. It calls onChange with the first
// state, which is starting, and after every probe, one call at a time; the state
// is the callee's.
//
// The context of a probe ends with ctx, or when it takes too long, and it has to
// return soon after that: Run waits for it, so that probes do not pile up. Its
// output may be cut. An error means that it could not be run, which is a failure
// too.
func Run(ctx context.Context, cfg Config, probe func(ctx context.Context) (exitCode int, output string, err error), onChange func(State)) error {
	cfg = cfg.withDefaults()
	state := State{Status: Starting}
	onChange(state)
	timer := time.NewTimer(cfg.wait(state.Status))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		result := cfg.probe(ctx, probe)
		if ctx.Err() != nil {
			return nil // the probe was cut short: it says nothing
		}
		state = cfg.next(state, result)
		onChange(state)
		timer.Reset(cfg.wait(state.Status))
	}
}

// wait returns how long to wait for the next probe. It does not go beyond the
// end of the start period, so that a long start interval does not put off the
// regular ones.
func (c Config) wait(status Status) time.Duration {
	left := c.StartPeriod - time.Since(c.Started)
	if status == Starting && left > 0 {
		return min(c.StartInterval, left)
	}
	return c.Interval
}

func (c Config) probe(ctx context.Context, probe func(context.Context) (int, string, error)) Result {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	r := Result{Start: time.Now()}
	code, output, err := probe(ctx)
	r.End = time.Now()
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		r.ExitCode = ExitUnknown
		r.Output = fmt.Sprintf("Health check exceeded timeout (%v)", c.Timeout)
		if output != "" {
			r.Output += ": " + cut(output)
		}
	case err != nil:
		r.ExitCode, r.Output = ExitUnknown, cut(err.Error())
	default:
		r.ExitCode, r.Output = code, cut(output)
	}
	return r
}

func cut(output string) string {
	if len(output) > maxOutput {
		return output[:maxOutput] + "..."
	}
	return output
}

// next returns the state after a result.
func (c Config) next(s State, r Result) State {
	keep := s.Log[max(0, len(s.Log)-maxLog+1):]
	s.Log = append(append(make([]Result, 0, maxLog), keep...), r)
	if r.ExitCode == 0 {
		s.Status, s.FailingStreak = Healthy, 0
		return s
	}
	if s.Status == Starting && r.Start.Sub(c.Started) < c.StartPeriod {
		return s
	}
	s.FailingStreak++
	if s.FailingStreak >= c.Retries {
		s.Status = Unhealthy
	}
	return s
}

// Command returns what a probe executes, from the Test of a Docker health check:
//
//	(nothing), NONE             ok is false: there is no check
//	CMD, program, arguments…    the program
//	CMD-SHELL, command          the command, by /bin/sh -c
func Command(test []string) (args []string, ok bool, err error) {
	if len(test) == 0 {
		return nil, false, nil
	}
	switch kind := test[0]; kind {
	case "NONE":
		if len(test) > 1 {
			return nil, false, errors.New("health check NONE takes no command: drop one of them (--no-healthcheck, --health-cmd)")
		}
		return nil, false, nil
	case "CMD":
		args = append(args, test[1:]...)
	case "CMD-SHELL":
		if len(test) > 1 {
			args = append([]string{"/bin/sh", "-c"}, test[1:]...)
		}
	default:
		return nil, false, fmt.Errorf("health check of kind %q: want NONE, CMD or CMD-SHELL", kind)
	}
	if len(args) == 0 || args[0] == "" {
		return nil, false, fmt.Errorf("health check %s has no command: give one with --health-cmd, or NONE", test[0])
	}
	return args, true, nil
}

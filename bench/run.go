package bench

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/ovnd/ovnd/bench/report"
)

// Timing says how often and how long is measured.
type Timing struct {
	Rounds int
	Window time.Duration // measured part of one measurement
	Warmup time.Duration // traffic before it; 0: a third of the window, at most a second
}

func (t *Timing) check(least time.Duration) error {
	if t.Rounds < 1 || t.Rounds > 1000 || t.Window < least {
		return fmt.Errorf("%d rounds of %v: 1 to 1000 rounds of at least %v are needed", t.Rounds, t.Window, least)
	}
	if t.Warmup == 0 {
		t.Warmup = min(t.Window/3, time.Second)
	}
	return nil
}

// The least windows: of traffic, and of what is measured in memory.
const (
	leastWindow       = 50 * time.Millisecond
	leastMemoryWindow = 5 * time.Millisecond
)

// Progress tells how a run goes on. All its fields may be nil.
type Progress struct {
	// Begin is called before each measurement, of which there are of in all.
	Begin func(done, of int, benchmark, subject string, round int)
	// Interval is called for each part of a window: bytes of TCP payload, or UDP
	// packets, that arrived in it.
	Interval func(from, to time.Duration, bytes, packets uint64)
	// End is called after each measurement.
	End func(b *report.Benchmark, subject string, r *report.Round)
}

// newReport begins a report.
func newReport(command string, t Timing) *report.Report {
	return &report.Report{
		Schema:  report.SchemaV1,
		Run:     report.Run{Version: report.Version(), Command: command, Started: time.Now().UTC().Truncate(time.Second)},
		Machine: report.ThisMachine(),
		Settings: report.Settings{
			Rounds: t.Rounds, WindowSeconds: t.Window.Seconds(), WarmupSeconds: t.Warmup.Seconds(),
		},
	}
}

// finish ends a report. If ctx has ended, the run was not complete.
func finish(ctx context.Context, r *report.Report) {
	r.Run.Seconds = time.Since(r.Run.Started).Round(100 * time.Millisecond).Seconds()
	r.Run.Interrupted = ctx.Err() != nil
	r.Machine.LoadAfter = report.Load()
}

// A series is a set of planes that are measured in turn, test by test.
type series struct {
	timing   Timing
	progress Progress
	group    string
	params   map[string]string // of all its benchmarks
	varies   string            // a parameter of them, or ""
	planes   []*plane
	tests    []test
	report   *report.Report

	done, of int
	failures []error // of ovnd's own planes, and of integrity
}

// run measures: all tests on all planes make a round, and the turns start with
// another plane each round.
func (s *series) run(ctx context.Context) error {
	benchmarks := make([]*report.Benchmark, len(s.tests))
	for i, t := range s.tests {
		benchmarks[i] = s.benchmark(t)
	}
	defer func() {
		for _, b := range benchmarks {
			s.report.Benchmarks = append(s.report.Benchmarks, *b)
		}
	}()
	for round := range s.timing.Rounds {
		for i, t := range s.tests {
			for turn := range s.planes {
				p := s.planes[(turn+round)%len(s.planes)]
				if t.skip != nil && t.skip(p) != "" {
					s.done++
					continue
				}
				if err := s.one(ctx, benchmarks[i], t, p, round); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// benchmark makes the report's entry of a test.
func (s *series) benchmark(t test) *report.Benchmark {
	b := &report.Benchmark{
		Group: s.group, Name: t.name, Title: t.title, Varies: t.varies, Metrics: t.metrics, Params: make(map[string]string),
	}
	for _, params := range []map[string]string{s.params, t.params} {
		maps.Copy(b.Params, params)
	}
	if b.Varies == "" {
		b.Varies = s.varies
	}
	for _, p := range s.planes {
		if t.skip != nil && t.skip(p) != "" {
			continue
		}
		b.Results = append(b.Results, report.Result{Subject: p.subject})
	}
	return b
}

// one makes one measurement. It returns an error only if ctx has ended: a plane
// that cannot be measured does not end the run.
func (s *series) one(ctx context.Context, b *report.Benchmark, t test, p *plane, n int) error {
	if s.progress.Begin != nil {
		s.progress.Begin(s.done, s.of, t.name, p.subject, n)
	}
	m := &measurement{
		plane: p, warmup: s.timing.Warmup, window: s.timing.Window, interval: interval(s.timing.Window), progress: s.progress.Interval,
	}
	round, err := report.Round{}, context.Cause(p.lost)
	if err == nil {
		round, err = t.measure(ctx, m)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	s.done++
	round.Round = n
	if err != nil {
		if p.lost.Err() != nil {
			err = context.Cause(p.lost) // rather than what followed from it
		}
		round = report.Round{Round: n, Failed: oneLine(err.Error())}
		_, wrong := errors.AsType[*IntegrityError](err)
		if sub, _ := findSubject(p.subject); wrong || sub.kind == report.KindOvnd {
			s.failures = append(s.failures, fmt.Errorf("%s, %s, round %d: %w", p.subject, t.name, n+1, err))
		}
	}
	i := slices.IndexFunc(b.Results, func(r report.Result) bool { return r.Subject == p.subject })
	b.Results[i].Rounds = append(b.Results[i].Rounds, round)
	if s.progress.End != nil {
		s.progress.End(b, p.subject, &round)
	}
	return nil
}

// interval divides a window into parts of at most a second.
func interval(window time.Duration) time.Duration {
	return min(max(window/5, 50*time.Millisecond), time.Second)
}

// openAll opens the subjects' planes. A baseline that cannot be had is noted, and
// left out; ovnd itself must be had.
func (s *series) openAll(ctx context.Context, set *setup, names []string) error {
	for _, name := range names {
		sub, _ := findSubject(name)
		if program := sub.missing(); program != "" {
			s.note("%s is not installed here: not measured", program)
			continue
		}
		p, err := open(ctx, set, name)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil && sub.kind == report.KindOvnd:
			return err
		case err != nil:
			s.note("not measured: %v", err)
			continue
		}
		s.planes = append(s.planes, p)
	}
	if len(s.planes) == 0 {
		return errors.New("nothing is left to measure")
	}
	return nil
}

// noteSkipped notes what cannot be measured on which plane.
func (s *series) noteSkipped() {
	for _, t := range s.tests {
		for _, p := range s.planes {
			if t.skip != nil && t.skip(p) != "" {
				s.note("%s, %s: not measured: %s", p.subject, t.name, t.skip(p))
			}
		}
	}
}

// note adds a sentence to the report, once.
func (s *series) note(format string, args ...any) {
	if text := oneLine(fmt.Sprintf(format, args...)); !slices.Contains(s.report.Notes, text) {
		s.report.Notes = append(s.report.Notes, text)
	}
}

// oneLine makes what a program said fit for a report.
func oneLine(text string) string {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, " "))
	if cut := []rune(text); len(cut) > 400 {
		text = string(cut[:200]) + " … " + string(cut[len(cut)-150:])
	}
	return text
}

func (s *series) closeAll() {
	for _, p := range s.planes {
		p.close()
	}
}

// describe adds the planes to the report's subjects.
func (s *series) describe(baselines []string) {
	for _, p := range s.planes {
		sub, _ := findSubject(p.subject)
		if slices.ContainsFunc(s.report.Subjects, func(r report.Subject) bool { return r.Name == p.subject }) {
			continue
		}
		s.report.Subjects = append(s.report.Subjects, report.Subject{
			Name: sub.name, Title: sub.title, Kind: sub.kind, Version: sub.version(), MTU: p.mtu,
			Baseline: slices.Contains(baselines, sub.name), Sealed: sub.sealed,
		})
		if len(s.report.Settings.Offloads) == 0 {
			s.report.Settings.Offloads = p.offloads
		}
	}
}

// noICMP reports whether a plane needs datagrams for round trips, which then all
// use.
func (s *series) noICMP() bool {
	return slices.ContainsFunc(s.planes, func(p *plane) bool { return p.noICMP })
}

func number(n int) string { return strconv.Itoa(n) }

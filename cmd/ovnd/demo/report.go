package demo

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"
	"unicode/utf8"
)

// Report is what a demo did and saw, as `ovnd demo --json` prints it.
type Report struct {
	// OK says that every check passed and every step was done or had a reason
	// not to be.
	OK bool `json:"OK"`
	// Passed and Failed count checks, Skipped counts steps.
	Passed  int `json:"Passed"`
	Failed  int `json:"Failed"`
	Skipped int `json:"Skipped"`
	// Seconds that all of it took.
	Seconds float64 `json:"Seconds"`
	// Program is the services' image.
	Program  string `json:"Program"`
	StateDir string `json:"StateDir"`
	Nodes    []Node `json:"Nodes"`
	Steps    []Step `json:"Steps"`
}

// Node is one of the demo's nodes.
type Node struct {
	Name     string     `json:"Name"`
	Address  netip.Addr `json:"Address"`
	StateDir string     `json:"StateDir"`
}

// Step is one thing that the demo did.
type Step struct {
	Title string `json:"Title"`
	// Commands, as a user types them on the node that the text names first.
	Commands []string `json:"Commands"`
	Checks   []Check  `json:"Checks"`
	// Skipped says why it was not done.
	Skipped string  `json:"Skipped,omitempty"`
	Seconds float64 `json:"Seconds"`
}

// Check is one expectation and what was seen.
type Check struct {
	Expected string `json:"Expected"`
	Seen     string `json:"Seen"`
	OK       bool   `json:"OK"`
}

func (s *Step) failed() bool {
	for _, c := range s.Checks {
		if !c.OK {
			return true
		}
	}
	return false
}

// A step is done by run, which tells stepRun what it sees. An error of run is
// a failed check. Without a needed step the ones behind it make no sense.
type step struct {
	title  string
	needed bool
	run    func(ctx context.Context, s *stepRun) error
}

// A runner does steps one after the other, and prints and reports them.
type runner struct {
	out         io.Writer
	width       int
	began       time.Time
	report      Report
	broken      string // the needed step that failed
	interrupted bool
}

const usualWidth, narrowest = 100, 60 // columns

func newRunner(out io.Writer, width int) *runner {
	if out == nil {
		out = io.Discard
	}
	if width == 0 {
		width = usualWidth
	}
	return &runner{out: out, width: max(width, narrowest), began: time.Now(), report: Report{Steps: []Step{}, Nodes: []Node{}}}
}

// A stepRun collects what one step sees.
type stepRun struct {
	r    *runner
	step *Step
}

// do does one step, unless there is a reason not to.
func (r *runner) do(ctx context.Context, s step) {
	r.report.Steps = append(r.report.Steps, Step{Title: s.title, Commands: []string{}, Checks: []Check{}})
	run := &stepRun{r: r, step: &r.report.Steps[len(r.report.Steps)-1]}
	fmt.Fprintf(r.out, "\n%2d  %s\n", len(r.report.Steps), s.title)
	switch {
	case ctx.Err() != nil:
		r.interrupted = true
		run.skip("interrupted")
		return
	case r.broken != "":
		run.skip(fmt.Sprintf("%q failed", r.broken))
		return
	}
	began := time.Now()
	stepCtx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := s.run(stepCtx, run); err != nil {
		if ctx.Err() != nil {
			r.interrupted = true
			run.skip("interrupted")
			return
		}
		run.check("no error", err.Error(), false)
	}
	run.step.Seconds = seconds(time.Since(began))
	if s.needed && run.step.failed() {
		r.broken = s.title
	}
}

func seconds(d time.Duration) float64 { return float64(d.Milliseconds()) / 1000 }

// command notes a command line that the step runs, on a node.
func (s *stepRun) command(node, line string) { s.note(node + " $ ovnd " + line) }

func (s *stepRun) note(text string) {
	s.step.Commands = append(s.step.Commands, text)
	fmt.Fprintf(s.r.out, "    %s\n", text)
}

// check notes an expectation and what was seen.
func (s *stepRun) check(expected, seen string, ok bool) {
	s.step.Checks = append(s.step.Checks, Check{Expected: expected, Seen: seen, OK: ok})
	mark := "✘"
	if ok {
		mark = "✔"
		s.r.report.Passed++
	} else {
		s.r.report.Failed++
	}
	s.r.row(mark, expected, seen)
}

// equal is check where what is expected is a text.
func (s *stepRun) equal(expected, seen string) { s.check(expected, seen, expected == seen) }

// skip notes why the step is not done.
func (s *stepRun) skip(reason string) {
	s.step.Skipped = reason
	s.r.report.Skipped++
	s.r.row("–", "skipped", reason)
}

// end counts and prints the summary.
func (r *runner) end() Report {
	r.report.Seconds = seconds(time.Since(r.began))
	r.report.OK = r.report.Failed == 0 && r.report.Passed > 0 && !r.interrupted
	fmt.Fprintf(r.out, "\n%d checks passed, %d failed, %d steps skipped, in %.1f s\n", r.report.Passed, r.report.Failed, r.report.Skipped, r.report.Seconds)
	return r.report
}

func (r *runner) header(w *walk) {
	fmt.Fprintf(r.out, "Three nodes on this machine, %s as the program, state in %s\n", w.program.image, w.dir)
	r.row(" ", "EXPECTED", "SEEN")
}

// row prints the two columns beside each other, wrapped.
func (r *runner) row(mark, left, right string) {
	const margin = "    "
	column := (r.width - len(margin) - 5) / 2
	lefts, rights := wrap(left, column), wrap(right, column)
	for i := range max(len(lefts), len(rights)) {
		l, rt := at(lefts, i), at(rights, i)
		pad := strings.Repeat(" ", max(column-utf8.RuneCountInString(l), 0))
		fmt.Fprintln(r.out, strings.TrimRight(margin+mark+" "+l+pad+"   "+rt, " "))
		mark = " "
	}
}

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return ""
}

// wrap breaks text into lines of at most width runes: at spaces where there
// are any, and where the text has line breaks.
func wrap(text string, width int) []string {
	var lines []string
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		runes := []rune(line)
		for len(runes) > width {
			cut := width
			for i := width; i > width/2; i-- {
				if runes[i] == ' ' {
					cut = i
					break
				}
			}
			lines = append(lines, strings.TrimRight(string(runes[:cut]), " "))
			runes = []rune(strings.TrimLeft(string(runes[cut:]), " "))
		}
		lines = append(lines, string(runes))
	}
	return lines
}

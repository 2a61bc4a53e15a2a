package main

import (
	"fmt"
	"io"
	"time"

	"github.com/ovnd/ovnd/bench"
	"github.com/ovnd/ovnd/bench/report"
)

// A benchProgress shows how a benchmark goes on: on a terminal by one line that
// is written over and over, or, if that is asked for, by a line for each interval
// and each result, as iperf3 prints them.
type benchProgress struct {
	w       io.Writer
	line    bool // there is a terminal to write over
	verbose bool
	begun   time.Time

	now   string // what is being measured
	drawn bool
}

func newBenchProgress(w io.Writer, verbose bool) *benchProgress {
	return &benchProgress{w: w, line: !verbose && outStream(w).IsTerminal(), verbose: verbose, begun: time.Now()}
}

func (p *benchProgress) hooks() bench.Progress {
	if !p.line && !p.verbose {
		return bench.Progress{}
	}
	return bench.Progress{Begin: p.begin, Interval: p.interval, End: p.end}
}

// overwrite goes to the start of a terminal's line and empties it.
const overwrite = "\r\x1b[K"

// clear takes the line away.
func (p *benchProgress) clear() {
	if p.drawn {
		fmt.Fprint(p.w, overwrite)
		p.drawn = false
	}
}

func (p *benchProgress) begin(done, of int, benchmark, subject string, round int) {
	p.now = fmt.Sprintf("%d/%d%s  %s on %s, round %d", done+1, of, p.left(done, of), benchmark, subject, round+1)
	p.draw("")
}

// left says how long the rest will take if it goes on as it did.
func (p *benchProgress) left(done, of int) string {
	if p.verbose || done < of/20+2 {
		return ""
	}
	rest := time.Since(p.begun) / time.Duration(done) * time.Duration(of-done)
	return fmt.Sprintf(" (%v left)", rest.Round(time.Second))
}

func (p *benchProgress) draw(figures string) {
	if p.line {
		fmt.Fprint(p.w, overwrite, p.now, figures)
		p.drawn = true
	} else if figures == "" {
		fmt.Fprintln(p.w, p.now)
	}
}

func (p *benchProgress) interval(from, to time.Duration, bytes, packets uint64) {
	seconds := (to - from).Seconds()
	figures := fmt.Sprintf("%5.2f-%-5.2f sec  %s", from.Seconds(), to.Seconds(), amount(bytes, seconds))
	if packets > 0 {
		figures += fmt.Sprintf("  %.1f kpps", float64(packets)/1e3/seconds)
	}
	if p.verbose {
		fmt.Fprintln(p.w, "  "+figures)
	} else {
		p.draw(":  " + figures)
	}
}

// amount prints bytes and their rate as iperf3 does.
func amount(bytes uint64, seconds float64) string {
	return fmt.Sprintf("%6.2f GBytes  %5.2f Gbits/sec", float64(bytes)/(1<<30), float64(bytes)*8/1e9/seconds)
}

func (p *benchProgress) end(b *report.Benchmark, _ string, r *report.Round) {
	if !p.verbose {
		return
	}
	if r.Failed != "" {
		fmt.Fprintln(p.w, "  failed: "+r.Failed)
		return
	}
	fmt.Fprint(p.w, "  ")
	for _, m := range b.Metrics {
		if v, ok := r.Values[m.Name]; ok {
			fmt.Fprintf(p.w, "%s %.4g %s  ", m.Name, v, m.Unit)
		}
	}
	fmt.Fprintln(p.w)
}

package report

import (
	"bytes"
	"fmt"
	"io"
	"strings"
)

// A Comparison sets a run beside an older one.
type Comparison struct {
	Old, New *Report
	// Differences say what of the machine or of the settings is not the same.
	// With any, only ratios made within a run are comparable.
	Differences []string
	Changes     []Change
	// Missing are results that only one of the runs has.
	Missing []string
}

// A Change is what became of one figure.
type Change struct {
	Benchmark *Benchmark // of the new run
	Subject   string
	Metric    *Metric
	// Baseline is empty for a metric's own values. Else the figure is the ratio
	// to that subject, round by round.
	Baseline string
	Old, New Spread
	// P is how likely such a difference is by chance alone.
	P float64
}

// Significant reports whether the figure changed by more than chance.
func (c *Change) Significant() bool { return c.P < Alpha }

// Verdict is "better" or "worse", "changed" for metrics without a direction, and
// "~" for what chance alone may have made.
func (c *Change) Verdict() string {
	switch higher := c.New.Median > c.Old.Median; {
	case !c.Significant() || c.New.Median == c.Old.Median:
		return "~"
	case c.Metric.Better == Informative:
		return "changed"
	case higher == (c.Metric.Better == HigherIsBetter):
		return "better"
	default:
		return "worse"
	}
}

// Delta is by how much of the old median the new one differs; ok is false when
// the old one is 0.
func (c *Change) Delta() (share float64, ok bool) {
	if c.Old.Median == 0 {
		return 0, false
	}
	return c.New.Median/c.Old.Median - 1, true
}

// Compare sets two valid runs side by side: all metrics of what both measured,
// and the ratios of first metrics to baselines, which a faster machine does not
// change. Baselines have no ratios to each other here.
func Compare(was, now *Report) *Comparison {
	c := &Comparison{Old: was, New: now, Differences: differences(was, now)}
	before := make(map[string]*Benchmark, len(was.Benchmarks))
	for i := range was.Benchmarks {
		before[was.Benchmarks[i].Key()] = &was.Benchmarks[i]
	}
	for i := range now.Benchmarks {
		b := &now.Benchmarks[i]
		old := before[b.Key()]
		delete(before, b.Key())
		if old == nil {
			c.Missing = append(c.Missing, b.Key()+" is new")
			continue
		}
		c.benchmark(old, b)
	}
	for i := range was.Benchmarks {
		if key := was.Benchmarks[i].Key(); before[key] != nil {
			c.Missing = append(c.Missing, key+" was measured before only")
		}
	}
	return c
}

func (c *Comparison) benchmark(was, b *Benchmark) {
	for i := range b.Results {
		res := &b.Results[i]
		old := was.result(res.Subject)
		if old == nil {
			c.Missing = append(c.Missing, b.Key()+" on "+res.Subject+" is new")
			continue
		}
		for j := range b.Metrics {
			m := &b.Metrics[j]
			then, _ := old.values(m.Name)
			now, _ := res.values(m.Name)
			c.add(Change{Benchmark: b, Subject: res.Subject, Metric: m}, then, now)
		}
		if c.New.subject(res.Subject).Baseline {
			continue
		}
		m := &b.Metrics[0]
		for _, base := range c.New.Subjects {
			if base.Baseline {
				c.add(Change{Benchmark: b, Subject: res.Subject, Metric: m, Baseline: base.Name},
					old.ratios(was.result(base.Name), m.Name), res.ratios(b.result(base.Name), m.Name))
			}
		}
	}
	for _, old := range was.Results {
		if b.result(old.Subject) == nil {
			c.Missing = append(c.Missing, b.Key()+" on "+old.Subject+" was measured before only")
		}
	}
}

func (c *Comparison) add(change Change, then, now []float64) {
	if len(then) == 0 || len(now) == 0 {
		return
	}
	change.Old, change.New = Summarise(then), Summarise(now)
	change.P = significance(then, now, change.Metric.Exact)
	c.Changes = append(c.Changes, change)
}

// differences names what makes absolute figures of two runs incomparable.
func differences(was, now *Report) []string {
	var out []string
	check := func(what string, a, b any) {
		if x, y := fmt.Sprint(a), fmt.Sprint(b); x != y {
			out = append(out, fmt.Sprintf("%s: %s, was %s", what, y, x))
		}
	}
	check("CPU", was.Machine.CPU, now.Machine.CPU)
	check("cores", was.Machine.Cores, now.Machine.Cores)
	check("kernel", was.Machine.Kernel, now.Machine.Kernel)
	check("governor", was.Machine.Governor, now.Machine.Governor)
	check("virtualisation", was.Machine.Virtualization, now.Machine.Virtualization)
	check("Go", was.Machine.Go, now.Machine.Go)
	check("MTU", was.Settings.MTU, now.Settings.MTU)
	check("underlay", was.Settings.Underlay, now.Settings.Underlay)
	check("congestion control", was.Settings.Congestion, now.Settings.Congestion)
	check("offloads", was.Settings.Offloads, now.Settings.Offloads)
	check("traffic", was.Settings.Generator, now.Settings.Generator)
	check("every byte checked", was.Settings.Integrity, now.Settings.Integrity)
	check("window", was.Settings.WindowSeconds, now.Settings.WindowSeconds)
	return out
}

// WriteTable writes the comparison for people at a terminal.
func (c *Comparison) WriteTable(w io.Writer) error {
	var out bytes.Buffer
	fmt.Fprintf(&out, "old: %s, %s\nnew: %s, %s\n",
		c.Old.Run.program(), c.Old.Run.Started.UTC().Format("2006-01-02 15:04 UTC"),
		c.New.Run.program(), c.New.Run.Started.UTC().Format("2006-01-02 15:04 UTC"))
	for _, part := range c.tables() {
		fmt.Fprintf(&out, "\n%s\n", part.title)
		writeCells(&out, part.rows)
	}
	out.WriteByte('\n')
	writeWrapped(&out, "", c.summary())
	for _, s := range c.Differences {
		writeWrapped(&out, "! not the same ", s)
	}
	for _, s := range c.Missing {
		writeWrapped(&out, "! ", s)
	}
	_, err := w.Write(out.Bytes())
	return err
}

// tables has one table for each benchmark.
func (c *Comparison) tables() []table {
	var out []table
	for i := 0; i < len(c.Changes); {
		b := c.Changes[i].Benchmark
		rows := [][]string{{"subject", "metric", "old", "new", "delta", "p", "verdict"}}
		for ; i < len(c.Changes) && c.Changes[i].Benchmark == b; i++ {
			rows = append(rows, c.row(&c.Changes[i]))
		}
		out = append(out, table{title: b.title(""), rows: rows})
	}
	return out
}

func (c *Comparison) row(change *Change) []string {
	what := change.Metric.label()
	if change.Baseline != "" {
		what = "× " + c.New.subject(change.Baseline).label()
	}
	delta := none
	if share, ok := change.Delta(); ok {
		delta = fmt.Sprintf("%+.1f%%", 100*share)
	}
	p := fmt.Sprintf("%.3f", change.P)
	if change.Metric.Exact {
		p = "exact"
	}
	return []string{
		c.New.subject(change.Subject).label(), what,
		cell(change.Old, change.Metric.Exact), cell(change.New, change.Metric.Exact), delta, p, change.Verdict(),
	}
}

// summary counts the verdicts.
func (c *Comparison) summary() string {
	counts := make(map[string]int)
	for i := range c.Changes {
		counts[c.Changes[i].Verdict()]++
	}
	parts := make([]string, 0, 4)
	for _, v := range []string{"better", "worse", "changed"} {
		if n := counts[v]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, v))
		}
	}
	if len(parts) == 0 {
		parts = append(parts, "nothing changed by more than chance")
	}
	text := fmt.Sprintf("Of %s: %s.", plural(len(c.Changes), "figure"), strings.Join(parts, ", "))
	if n := float64(len(c.Changes)) * Alpha; n >= 1 {
		text += fmt.Sprintf(" About %.0f would seem to have by chance (Mann–Whitney, p < %g).", n, Alpha)
	}
	return text
}

package report

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Lines between which a document has its generated section.
const (
	SectionBegin = "<!-- performance: begin (generated: make performance) -->"
	SectionEnd   = "<!-- performance: end -->"
)

// ReplaceSection returns doc with section between [SectionBegin] and
// [SectionEnd], which stay.
func ReplaceSection(doc, section []byte) ([]byte, error) {
	begin := bytes.Index(doc, []byte(SectionBegin+"\n"))
	end := bytes.Index(doc, []byte(SectionEnd))
	switch {
	case begin < 0 || end < begin:
		return nil, fmt.Errorf("no lines %q and, after it, %q", SectionBegin, SectionEnd)
	case bytes.Count(doc, []byte(SectionBegin)) > 1 || bytes.Count(doc, []byte(SectionEnd)) > 1:
		return nil, errors.New("more than one generated section")
	}
	begin += len(SectionBegin) + 1
	return slices.Concat(doc[:begin], section, doc[end:]), nil
}

// rowMetrics is how many metrics of a benchmark the section has: what is
// reached, and what it costs.
const rowMetrics = 2

// WriteMarkdown writes the report as a section of a README: where and how it was
// made, the command that repeats it, a table for each group, where the kernel
// is faster, and what makes figures doubtful.
func (r *Report) WriteMarkdown(w io.Writer) error {
	var out bytes.Buffer
	fmt.Fprintf(&out, "Measured on %s, %s, by user %d, with\n\n    %s\n\n",
		r.Run.Started.UTC().Format("2006-01-02"), escape(r.Run.program()), r.Machine.UID, r.Run.Command)
	writeWrapped(&out, "", escape(strings.Join(slices.Concat(r.Machine.facts(), r.Settings.facts()), ", "))+".")
	fmt.Fprintf(&out, "\n%s\n", escape(r.markdownLegend()))
	for _, group := range r.groups() {
		out.WriteByte('\n')
		r.writeMarkdownTable(&out, group)
	}
	out.WriteByte('\n')
	r.writeKernelFaster(&out)
	if doubts := slices.Concat(r.Notes, r.Warnings()); len(doubts) > 0 {
		out.WriteString("\nTo know when reading it:\n\n")
		for _, s := range doubts {
			writeWrapped(&out, "- ", escape(s))
		}
	}
	_, err := w.Write(out.Bytes())
	return err
}

func (r *Report) markdownLegend() string {
	return fmt.Sprintf("Medians of %d rounds, ± half the range from least to most. All subjects are measured in turn in each round.",
		r.Settings.Rounds)
}

// groups are the benchmarks by group, in their order.
func (r *Report) groups() [][]*Benchmark {
	var out [][]*Benchmark
	at := make(map[string]int)
	for i := range r.Benchmarks {
		b := &r.Benchmarks[i]
		j, ok := at[b.Group]
		if !ok {
			j = len(out)
			at[b.Group] = j
			out = append(out, nil)
		}
		out[j] = append(out[j], b)
	}
	return out
}

// writeMarkdownTable has a column for each subject that the group ran on.
func (r *Report) writeMarkdownTable(out *bytes.Buffer, group []*Benchmark) {
	var subjects []*Subject
	for i := range r.Subjects {
		s := &r.Subjects[i]
		if slices.ContainsFunc(group, func(b *Benchmark) bool { return b.result(s.Name) != nil }) {
			subjects = append(subjects, s)
		}
	}
	head, rule := "| "+escape(group[0].Group)+" |", "|---|"
	for _, s := range subjects {
		head += " " + escape(s.label()) + " |"
		rule += "--:|"
	}
	out.WriteString(head + "\n" + rule + "\n")
	var simulated []string
	for _, b := range group {
		for i := range min(rowMetrics, len(b.Metrics)) {
			if m := &b.Metrics[i]; m.Better != Informative {
				writeMarkdownRow(out, b, m, subjects)
			}
		}
		if b.Simulated != "" && !slices.Contains(simulated, b.Simulated) {
			simulated = append(simulated, b.Simulated)
		}
	}
	for _, s := range simulated {
		out.WriteByte('\n')
		writeWrapped(out, "", "Simulated: "+escape(s)+".")
	}
}

func writeMarkdownRow(out *bytes.Buffer, b *Benchmark, m *Metric, subjects []*Subject) {
	out.WriteString("| " + escape(b.title("")+": "+m.label()) + " |")
	for _, s := range subjects {
		d := datum{text: none, spread: b.result(s.Name).spread(m.Name), exact: m.Exact}
		out.WriteString(" " + escape(d.short()) + " |")
	}
	out.WriteByte('\n')
}

// writeKernelFaster says by how much, and where it makes no difference.
func (r *Report) writeKernelFaster(out *bytes.Buffer) {
	var faster, even []string
	compared := false
	for i := range r.Benchmarks {
		b := &r.Benchmarks[i]
		m := &b.Metrics[0]
		ours := r.best(b)
		if ours == nil || m.Better == Informative {
			continue
		}
		k := r.besideKernel(b, ours)
		compared = compared || k.compared
		if len(k.slower) > 0 {
			faster = append(faster, fmt.Sprintf("%s: %s is at %s (%s %s beside %s)", b.title(""),
				r.subject(ours.Subject).label(), strings.Join(k.slower, " and "),
				number(ours.spread(m.Name).Median), m.label(), strings.Join(k.figures, " and ")))
		}
		for _, s := range k.same {
			even = append(even, b.title("")+" ("+s+")")
		}
	}
	switch {
	case !compared:
		out.WriteString("This run has nothing of the kernel's to compare with.\n")
	case len(faster) == 0:
		out.WriteString("The kernel is not faster in any of these.\n")
	default:
		out.WriteString("Where the kernel is faster:\n\n")
		for _, s := range faster {
			writeWrapped(out, "- ", escape(s)+".")
		}
	}
	if len(even) > 0 {
		out.WriteByte('\n')
		writeWrapped(out, "", fmt.Sprintf("Not told apart from the kernel (p ≥ %g): %s.", Alpha, escape(strings.Join(even, "; "))))
	}
}

// best returns the result of what of ours does best in the benchmark.
func (r *Report) best(b *Benchmark) *Result {
	var best *Result
	m := &b.Metrics[0]
	for i := range b.Results {
		res := &b.Results[i]
		s := res.spread(m.Name)
		if r.subject(res.Subject).Kind != KindOvnd || s.N == 0 {
			continue
		}
		if best == nil || m.beats(s.Median, best.spread(m.Name).Median) {
			best = res
		}
	}
	return best
}

// beats reports whether a is better than b.
func (m *Metric) beats(a, b float64) bool {
	if m.Better == LowerIsBetter {
		return a < b
	}
	return a > b
}

// A kernelVerdict is how one of ours does beside the kernel's.
type kernelVerdict struct {
	compared bool     // with at least one of them
	slower   []string // the ratios to those that are faster
	figures  []string // what these reach
	same     []string // those that cannot be told apart
}

func (r *Report) besideKernel(b *Benchmark, ours *Result) (k kernelVerdict) {
	m := &b.Metrics[0]
	for i := range r.Subjects {
		s := &r.Subjects[i]
		theirs := b.result(s.Name)
		ratio, ok := ours.ratio(theirs, m)
		if s.Kind != KindKernel || !ok {
			continue
		}
		k.compared = true
		switch {
		case !ratio.Significant():
			k.same = append(k.same, s.label())
		case m.beats(1, ratio.Median):
			k.slower = append(k.slower, number(ratio.Median)+" × "+s.label())
			k.figures = append(k.figures, number(theirs.spread(m.Name).Median))
		}
	}
	return k
}

// escape keeps text from being markup in a table of Markdown.
func escape(s string) string {
	return strings.NewReplacer(`\`, `\\`, "|", `\|`, "<", "&lt;", "*", `\*`, "_", `\_`, "`", "\\`", "[", `\[`).Replace(s)
}

package report

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
	"unicode/utf8"
)

// tableWidth is how wide notes are set; tables are as wide as their cells.
const tableWidth = 100

// WriteTable writes the report for people at a terminal: medians with half
// their range, and the medians of the rounds' ratios to each baseline.
func (r *Report) WriteTable(w io.Writer) error {
	var out bytes.Buffer
	r.writeHead(&out)
	for _, group := range r.tables() {
		fmt.Fprintf(&out, "\n%s\n", group.title)
		writeCells(&out, group.rows)
		if group.simulated != "" {
			writeWrapped(&out, "  simulated: ", group.simulated)
		}
	}
	if len(r.Benchmarks) > 0 {
		out.WriteByte('\n')
		writeWrapped(&out, "", r.legend())
	}
	for _, s := range slices.Concat(r.Notes, r.Warnings()) {
		writeWrapped(&out, "! ", s)
	}
	_, err := w.Write(out.Bytes())
	return err
}

// legend explains the signs in the tables.
func (r *Report) legend() string {
	text := fmt.Sprintf("Medians of %d rounds", r.Settings.Rounds)
	if r.Settings.WindowSeconds > 0 {
		text += fmt.Sprintf(" of %g s", r.Settings.WindowSeconds)
	}
	text += "; ±: half the range from least to most."
	if r.hasBaselines() {
		text += fmt.Sprintf(" ×: median of the rounds' ratios of the first column; ~: not told apart from chance (Mann–Whitney, p ≥ %g).", Alpha)
	}
	return text
}

func (r *Report) hasBaselines() bool {
	return slices.ContainsFunc(r.Subjects, func(s Subject) bool { return s.Baseline })
}

func (r *Report) writeHead(out *bytes.Buffer) {
	fmt.Fprintf(out, "%s, %s, %s\n", r.Run.program(), r.Run.Started.UTC().Format("2006-01-02 15:04 UTC"),
		r.took())
	writeWrapped(out, "", strings.Join(r.Machine.facts(), ", "))
	if facts := r.Settings.facts(); len(facts) > 0 {
		writeWrapped(out, "", strings.Join(facts, ", "))
	}
}

// program is ovnd with its version, as far as it is known.
func (run *Run) program() string {
	if run.Version == "" || run.Version == "unknown" {
		return "ovnd"
	}
	return "ovnd " + run.Version
}

// facts are the machine's, for one line.
func (m *Machine) facts() []string {
	out := []string{m.CPU, plural(m.Cores, "core")}
	if m.MemoryBytes > 0 {
		out = append(out, fmt.Sprintf("%.1f GiB", float64(m.MemoryBytes)/(1<<30)))
	}
	out = append(out, "Linux "+m.Kernel, m.Go+" "+m.Arch)
	if m.Governor != "" {
		out = append(out, "governor "+m.Governor)
	}
	if m.Virtualization != "" && m.Virtualization != "none" {
		out = append(out, "virtual ("+m.Virtualization+")")
	}
	return append(out, fmt.Sprintf("load %.2f", m.LoadBefore))
}

// facts are the settings, for one line.
func (s *Settings) facts() []string {
	var out []string
	if s.Underlay != "" {
		out = append(out, "underlay "+s.Underlay)
	}
	if s.MTU > 0 {
		out = append(out, fmt.Sprintf("MTU %d", s.MTU))
	}
	if s.Congestion != "" {
		out = append(out, s.Congestion)
	}
	if len(s.Offloads) > 0 {
		out = append(out, "offloads "+strings.Join(s.Offloads, " "))
	}
	if s.Generator != "" {
		out = append(out, "traffic by "+s.Generator)
	}
	if s.Integrity {
		out = append(out, "every byte checked")
	}
	return out
}

// A table is what is shown together: one benchmark with a row for each subject,
// or several that differ in one parameter.
type table struct {
	title     string
	simulated string
	rows      [][]string // the first one is the head
}

// families are runs of benchmarks that differ in nothing but what they vary by.
func (r *Report) families() [][]*Benchmark {
	var out [][]*Benchmark
	at := make(map[string]int)
	for i := range r.Benchmarks {
		b := &r.Benchmarks[i]
		if b.Varies == "" {
			out = append(out, []*Benchmark{b})
			continue
		}
		key := b.Varies + " " + b.key(b.Varies)
		if j, ok := at[key]; ok {
			out[j] = append(out[j], b)
			continue
		}
		at[key] = len(out)
		out = append(out, []*Benchmark{b})
	}
	return out
}

func (r *Report) tables() []table {
	families := r.families()
	out := make([]table, 0, len(families))
	for _, family := range families {
		out = append(out, table{title: family[0].title(family[0].Varies), simulated: family[0].Simulated, rows: r.rows(family)})
	}
	return out
}

// title is the benchmark's with its parameters, but for one.
func (b *Benchmark) title(without string) string {
	title := b.Title
	if title == "" {
		title = b.Group + " " + b.Name
	}
	var params []string
	for _, k := range slices.Sorted(maps.Keys(b.Params)) {
		if k != without {
			params = append(params, k+" "+b.Params[k])
		}
	}
	if len(params) > 0 {
		title += " (" + strings.Join(params, ", ") + ")"
	}
	return title
}

// metrics are those of any of the benchmarks, in their order.
func metrics(family []*Benchmark) []*Metric {
	var out []*Metric
	seen := make(map[string]bool)
	for _, b := range family {
		for i := range b.Metrics {
			if m := &b.Metrics[i]; !seen[m.Name] {
				seen[m.Name] = true
				out = append(out, m)
			}
		}
	}
	return out
}

// baselines are those that one of the benchmarks ran on.
func (r *Report) baselines(family []*Benchmark) []*Subject {
	var out []*Subject
	for i := range r.Subjects {
		s := &r.Subjects[i]
		if s.Baseline && slices.ContainsFunc(family, func(b *Benchmark) bool { return b.result(s.Name) != nil }) {
			out = append(out, s)
		}
	}
	return out
}

// A datum is what a cell of a table has: a text, the values of a metric, or the
// ratio to a baseline.
type datum struct {
	text   string
	spread Spread
	exact  bool
	ratio  *Ratio
}

// grid returns a family's table, without its form.
func (r *Report) grid(family []*Benchmark) (head []string, rows [][]datum) {
	columns, bases := metrics(family), r.baselines(family)
	head = []string{"subject"}
	if family[0].Varies != "" {
		head = append(head, family[0].Varies)
	}
	for _, m := range columns {
		head = append(head, m.label())
	}
	for _, base := range bases {
		head = append(head, "× "+base.label())
	}
	for i := range r.Subjects {
		s := &r.Subjects[i]
		for _, b := range family {
			if res := b.result(s.Name); res != nil {
				rows = append(rows, b.gridRow(s, res, columns, bases))
			}
		}
	}
	return head, rows
}

func (b *Benchmark) gridRow(s *Subject, res *Result, columns []*Metric, bases []*Subject) []datum {
	row := []datum{{text: s.label()}}
	if b.Varies != "" {
		row = append(row, datum{text: b.Params[b.Varies]})
	}
	for _, m := range columns {
		row = append(row, datum{text: none, spread: res.spread(m.Name), exact: m.Exact})
	}
	for _, base := range bases {
		d := datum{text: none}
		if ratio, ok := res.ratio(b.result(base.Name), &b.Metrics[0]); ok && base.Name != s.Name {
			d.ratio = &ratio
		}
		row = append(row, d)
	}
	return row
}

const none = "–" // an empty cell

// rows are a family's table for a terminal, the head first.
func (r *Report) rows(family []*Benchmark) [][]string {
	head, grid := r.grid(family)
	rows := make([][]string, 0, 1+len(grid))
	rows = append(rows, head)
	for _, data := range grid {
		row := make([]string, len(data))
		for i, d := range data {
			row[i] = d.short()
		}
		rows = append(rows, row)
	}
	return rows
}

// short is the datum in the form that the legend explains.
func (d *datum) short() string {
	switch {
	case d.ratio != nil && d.ratio.Significant():
		return number(d.ratio.Median)
	case d.ratio != nil:
		return number(d.ratio.Median) + " ~"
	case d.spread.N > 0:
		return cell(d.spread, d.exact)
	}
	return d.text
}

func cell(s Spread, exact bool) string {
	half := 50 * s.Relative()
	if exact || s.N == 1 || half < 0.5 {
		return number(s.Median)
	}
	return fmt.Sprintf("%s ±%.0f%%", number(s.Median), half)
}

// writeCells aligns columns: the first to the left, the others to the right.
// Heads that are wider than what is below them take two lines.
func writeCells(out *bytes.Buffer, rows [][]string) {
	widths := make([]int, len(rows[0]))
	for _, row := range rows[1:] {
		for i, c := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(c))
		}
	}
	upper, lower := make([]string, len(widths)), make([]string, len(widths))
	for i, c := range rows[0] {
		upper[i], lower[i] = splitHead(c, widths[i])
		widths[i] = max(widths[i], utf8.RuneCountInString(upper[i]), utf8.RuneCountInString(lower[i]))
	}
	if strings.Join(upper, "") != "" {
		writeRow(out, upper, widths)
	}
	writeRow(out, lower, widths)
	for _, row := range rows[1:] {
		writeRow(out, row, widths)
	}
}

func writeRow(out *bytes.Buffer, row []string, widths []int) {
	padded := make([]string, len(row))
	for i, c := range row {
		pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(c))
		if i == 0 {
			padded[i] = "  " + c + pad
		} else {
			padded[i] = pad + c
		}
	}
	out.WriteString(strings.TrimRight(strings.Join(padded, "  "), " ") + "\n")
}

// splitHead splits a head that is wider than width at the blank that leaves the
// least width.
func splitHead(head string, width int) (upper, lower string) {
	lower = head
	least := utf8.RuneCountInString(head)
	if least <= width {
		return "", head
	}
	for i, c := range head {
		if c != ' ' {
			continue
		}
		a, b := head[:i], head[i+1:]
		if wide := max(utf8.RuneCountInString(a), utf8.RuneCountInString(b)); wide < least {
			upper, lower, least = a, b, wide
		}
	}
	return upper, lower
}

// writeWrapped writes text in lines of at most tableWidth, where words allow;
// lines after the first are indented by two.
func writeWrapped(out *bytes.Buffer, prefix, text string) {
	line := prefix
	for i, word := range strings.Fields(text) {
		switch {
		case i == 0:
			line += word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > tableWidth:
			out.WriteString(line + "\n")
			line = "  " + word
		default:
			line += " " + word
		}
	}
	out.WriteString(line + "\n")
}

// number prints v with about three digits, large ones in thousands and up as
// 12.4k, 1.21M, 3.02G.
func number(v float64) string {
	a := math.Abs(v)
	switch {
	case a == 0:
		return "0"
	case a >= 1e13 || a < 1e-4:
		return fmt.Sprintf("%.2e", v)
	case a >= 1e9:
		return digits(v/1e9) + "G"
	case a >= 1e6:
		return digits(v/1e6) + "M"
	case a >= 1e5:
		return digits(v/1e3) + "k"
	case a < 0.01:
		return fmt.Sprintf("%.2g", v)
	default:
		return digits(v)
	}
}

func digits(v float64) string {
	switch a := math.Abs(v); {
	case a >= 99.95:
		return fmt.Sprintf("%.0f", v)
	case a >= 9.995:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

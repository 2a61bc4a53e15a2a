package report

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strings"
	"time"
)

//go:embed page.tmpl
var pageText string

// WriteHTML writes the report as one page that needs nothing else: no script,
// no font, no network. old is an older run to compare with, or nil.
func (r *Report) WriteHTML(w io.Writer, old *Report) error {
	// Parsed here, not at the start of every program that has this package.
	tmpl, err := template.New("page").Parse(pageText)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	p, err := r.page(old)
	if err != nil {
		return err
	}
	if err := tmpl.Execute(&out, p); err != nil {
		return err
	}
	_, err = w.Write(out.Bytes())
	return err
}

// A page is what page.tmpl shows.
type page struct {
	Title, Program, Started, Took string
	Machine, Features, Settings   string
	Legend                        string
	FigureCSS                     template.CSS
	Report                        *Report
	Doubts                        []string
	Overview                      pageTable
	Groups                        []pageGroup
	Subjects                      pageTable
	Comparison                    *pageComparison
}

type pageGroup struct {
	name     string // in the report
	Name     string
	Families []pageFamily
}

type pageFamily struct {
	ID, Title, Simulated string
	Figures              []template.HTML
	Table                pageTable
}

type pageTable struct {
	Caption string
	Head    []string
	Rows    [][]pageCell
}

// A pageCell has, below its text, the range of the values in it.
type pageCell struct{ Text, Range string }

type pageComparison struct {
	Summary string
	Doubts  []string
	Tables  []pageTable
}

func (r *Report) page(old *Report) (*page, error) {
	figures, err := r.figures()
	if err != nil {
		return nil, err
	}
	p := &page{
		Title:     "ovnd: benchmarks of " + r.Run.Started.UTC().Format("2006-01-02"),
		Program:   r.Run.program(),
		Started:   r.Run.Started.UTC().Format("2006-01-02 15:04 UTC"),
		Took:      r.took().String(),
		Machine:   strings.Join(r.Machine.facts(), ", "),
		Features:  strings.Join(r.Machine.CPUFeatures, " "),
		Settings:  strings.Join(r.Settings.facts(), ", "),
		Legend:    r.pageLegend(),
		FigureCSS: template.CSS(figureCSS()),
		Report:    r,
		Doubts:    slices.Concat(r.Notes, r.Warnings()),
		Overview:  r.pageOverview(),
		Subjects:  r.pageSubjects(),
	}
	for i, family := range r.families() {
		b := family[0]
		f := pageFamily{
			ID: fmt.Sprintf("benchmark-%d", i), Title: b.title(b.Varies), Simulated: b.Simulated, Table: r.pageTable(family),
		}
		for _, fig := range figures[i] {
			svg, err := fig.svg()
			if err != nil {
				return nil, err
			}
			f.Figures = append(f.Figures, template.HTML(svg)) // all text in it is escaped
		}
		if n := len(p.Groups); n == 0 || p.Groups[n-1].name != b.Group {
			p.Groups = append(p.Groups, pageGroup{name: b.Group, Name: groupTitle(b.Group)})
		}
		g := &p.Groups[len(p.Groups)-1]
		g.Families = append(g.Families, f)
	}
	if old != nil {
		p.Comparison = newPageComparison(Compare(old, r))
	}
	return p, nil
}

// groupTitle is what the page calls a group of benchmarks.
func groupTitle(group string) string {
	titles := map[string]string{
		"path": "Between two nodes", "vip": "Services and their virtual addresses", "dns": "Names",
		"encap": "What a packet costs in memory", "scale": "Large networks",
	}
	if title, ok := titles[group]; ok {
		return title
	}
	return group
}

// pageOverview has the first metric of each benchmark that is measured on several
// subjects. It is empty if there are none.
func (r *Report) pageOverview() pageTable {
	t := pageTable{Caption: "Medians; details and plots are below", Head: []string{"", "unit"}}
	for _, s := range r.Subjects {
		t.Head = append(t.Head, s.label())
	}
	for _, family := range r.families() {
		b := family[0]
		if len(family) > 1 || len(b.Results) < 2 {
			continue
		}
		m := &b.Metrics[0]
		row := make([]pageCell, 0, 2+len(r.Subjects))
		row = append(row, pageCell{Text: b.title("")}, pageCell{Text: m.label() + arrow(m.Better)})
		for _, s := range r.Subjects {
			cell := pageCell{Text: none}
			if res := b.result(s.Name); res != nil {
				if v := res.spread(m.Name); v.N > 0 {
					cell.Text = number(v.Median)
				}
			}
			row = append(row, cell)
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

// arrow says in which direction a metric is better.
func arrow(better string) string {
	switch better {
	case HigherIsBetter:
		return " ↑"
	case LowerIsBetter:
		return " ↓"
	}
	return ""
}

func (r *Report) pageLegend() string {
	text := fmt.Sprintf("Medians of %d rounds", r.Settings.Rounds)
	if r.Settings.WindowSeconds > 0 {
		text += fmt.Sprintf(" of %g s", r.Settings.WindowSeconds)
	}
	text += ", and below them least to most. In plots a dot is a round."
	if r.hasBaselines() {
		text += fmt.Sprintf(" ×: median of the rounds' ratios of the first column, with the p of a Mann–Whitney test: from %g on, chance alone may have made the difference.", Alpha)
	}
	return text
}

// took is how long the run was.
func (r *Report) took() time.Duration {
	return time.Duration(r.Run.Seconds * float64(time.Second)).Round(time.Second)
}

// pageTable is the terminal's table with all there is room for: the range from
// least to most, and p.
func (r *Report) pageTable(family []*Benchmark) pageTable {
	head, grid := r.grid(family)
	t := pageTable{Caption: family[0].title(family[0].Varies) + ": medians, least to most below", Head: head}
	for _, data := range grid {
		row := make([]pageCell, len(data))
		for i, d := range data {
			row[i] = d.pageCell()
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

func (d *datum) pageCell() pageCell {
	switch {
	case d.ratio != nil:
		return pageCell{Text: number(d.ratio.Median), Range: fmt.Sprintf("%s, p %.3f", d.ratio.between(), d.ratio.P)}
	case d.spread.N == 0:
		return pageCell{Text: d.text}
	case d.spread.Min == d.spread.Max:
		return pageCell{Text: number(d.spread.Median)}
	}
	return pageCell{Text: number(d.spread.Median), Range: d.spread.between()}
}

// between is the range from least to most.
func (s Spread) between() string { return number(s.Min) + "–" + number(s.Max) }

func (r *Report) pageSubjects() pageTable {
	t := pageTable{
		Caption: "Subjects, in the order of the tables",
		Head:    []string{"subject", "kind", "encrypts", "MTU inside", "version", "baseline"},
	}
	yes := map[bool]string{true: "yes", false: "no"}
	for _, s := range r.Subjects {
		mtu := none
		if s.MTU > 0 {
			mtu = fmt.Sprint(s.MTU)
		}
		version := s.Version
		if version == "" {
			version = none
		}
		row := []pageCell{{Text: s.label()}}
		for _, text := range []string{s.Kind, yes[s.Sealed], mtu, version, yes[s.Baseline]} {
			row = append(row, pageCell{Text: text})
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

func newPageComparison(c *Comparison) *pageComparison {
	p := &pageComparison{
		Summary: fmt.Sprintf("Old: %s of %s. %s", c.Old.Run.program(), c.Old.Run.Started.UTC().Format("2006-01-02 15:04 UTC"), c.summary()),
	}
	for _, s := range c.Differences {
		p.Doubts = append(p.Doubts, "not the same "+s)
	}
	p.Doubts = append(p.Doubts, c.Missing...)
	for _, part := range c.tables() {
		t := pageTable{Caption: part.title, Head: part.rows[0]}
		for _, cells := range part.rows[1:] {
			row := make([]pageCell, 0, len(cells))
			for _, c := range cells {
				row = append(row, pageCell{Text: c})
			}
			t.Rows = append(t.Rows, row)
		}
		p.Tables = append(p.Tables, t)
	}
	return p
}

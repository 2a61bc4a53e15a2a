package report

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
)

// WritePlots draws all figures into dir, which it makes, each as an SVG and as a
// PNG. It returns the names of the files.
func (r *Report) WritePlots(dir string) ([]string, error) {
	figures, err := r.figures()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return nil, err
	}
	var files []string
	for _, f := range slices.Concat(figures...) {
		svg, err := f.svgFile()
		if err != nil {
			return files, err
		}
		var img bytes.Buffer
		if err := f.writePNG(&img); err != nil {
			return files, fmt.Errorf("%s.png: %w", f.name, err)
		}
		for ext, content := range map[string][]byte{".svg": svg, ".png": img.Bytes()} {
			if err := os.WriteFile(filepath.Join(dir, f.name+ext), content, 0o666); err != nil {
				return files, err
			}
			files = append(files, f.name+ext)
		}
	}
	slices.Sort(files)
	return files, nil
}

// figures are those of each of the families, in their order. Names are unique.
func (r *Report) figures() ([][]figure, error) {
	families := r.families()
	out := make([][]figure, len(families))
	taken := make(map[string]bool)
	for i, family := range families {
		var err error
		if out[i], err = r.figuresOf(family); err != nil {
			return nil, fmt.Errorf("plot of %s: %w", family[0].Key(), err)
		}
		for j := range out[i] {
			name := fileName(out[i][j].name)
			for n := 2; taken[name]; n++ {
				name = fileName(out[i][j].name) + "-" + strconv.Itoa(n)
			}
			taken[name] = true
			out[i][j].name = name
		}
	}
	return out, nil
}

// figuresOf makes those figures of a family that there is something to show in.
func (r *Report) figuresOf(family []*Benchmark) ([]figure, error) {
	var out []figure
	add := func(f *figure, err error) error {
		if err == nil && f != nil {
			out = append(out, *f)
		}
		return err
	}
	b := family[0]
	if b.Varies == "" {
		err := errors.Join(add(r.bars(b)), add(r.percentileCurves(b)), add(r.intervalLines(b)))
		return out, err
	}
	for _, m := range metrics(family) {
		if err := add(r.scaleLines(family, m)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// bars show the first metric of a benchmark.
func (r *Report) bars(b *Benchmark) (*figure, error) {
	m := &b.Metrics[0]
	var bars []bar
	var says []string
	for i := range r.Subjects {
		s := &r.Subjects[i]
		values, _ := b.result(s.Name).values(m.Name)
		if len(values) > 0 && max(slices.Max(values), -slices.Min(values)) < drawable {
			bars = append(bars, bar{s.label(), i, values})
			says = append(says, s.label()+" "+number(Summarise(values).Median))
		}
	}
	if len(bars) == 0 {
		return nil, nil
	}
	f := newFigure(b.Key(), b.title(""))
	f.desc = "Medians in " + m.caption() + ", with the range from least to most: " + strings.Join(says, ", ") + "."
	return &f, f.barChart(m.caption(), bars)
}

// caption is the metric for an axis.
func (m *Metric) caption() string {
	text := m.label()
	if m.Title != "" && !strings.Contains(m.Title, m.Unit) {
		text += " (" + m.Unit + ")"
	}
	if m.Better != Informative {
		text += ", " + m.Better + " is better"
	}
	return text
}

// scaleLines show what a metric does when the family's parameter grows.
func (r *Report) scaleLines(family []*Benchmark, m *Metric) (*figure, error) {
	varies := family[0].Varies
	var lines []line
	for i := range r.Subjects {
		var part plotter.XYs
		for _, b := range family {
			x, err := strconv.ParseFloat(b.Params[varies], 64)
			s := b.result(r.Subjects[i].Name).spread(m.Name)
			if err == nil && s.N > 0 && math.Abs(x) < drawable && math.Abs(s.Median) < drawable {
				part = append(part, plotter.XY{X: x, Y: s.Median})
			}
		}
		if len(part) < 2 {
			continue
		}
		slices.SortFunc(part, func(a, b plotter.XY) int { return cmp.Compare(a.X, b.X) })
		lines = append(lines, line{label: r.Subjects[i].label(), index: i, parts: []plotter.XYs{part}})
	}
	lo, hi := extent(lines)
	if len(lines) == 0 || hi.X-lo.X < 1/drawable {
		return nil, nil
	}
	x := axis{lo: lo.X, hi: hi.X, caption: varies, ticks: ticksAt(lines)}
	if lo.X > 1/drawable && hi.X/lo.X >= 10 {
		x.log = true
	}
	y := linearAxis(m.caption(), lo.Y, hi.Y)
	if lo.Y > 1/drawable && hi.Y/lo.Y >= 20 {
		y = logAxis(m.caption(), lo.Y, hi.Y)
	}
	b := family[0]
	f := newFigure(b.key(varies)+"-"+m.Name, b.title(varies)+": "+m.label())
	f.desc = fmt.Sprintf("Medians of %s over %s from %s to %s.", m.caption(), varies, tickLabel(lo.X), tickLabel(hi.X))
	return &f, f.lineChart(x, y, lines, true)
}

// ticksAt has a tick for each x of the lines; past a dozen it leaves them to
// the axis.
func ticksAt(lines []line) plot.Ticker {
	seen := make(map[float64]bool)
	var out plot.ConstantTicks
	for _, l := range lines {
		for _, p := range slices.Concat(l.parts...) {
			if !seen[p.X] {
				seen[p.X] = true
				out = append(out, plot.Tick{Value: p.X, Label: tickLabel(p.X)})
			}
		}
	}
	if len(out) > 12 {
		return nil
	}
	return out
}

// percentileCurves show round trips by percentile, with as much room for the
// rarest as for the others: the x axis is -log10(1 - p).
func (r *Report) percentileCurves(b *Benchmark) (*figure, error) {
	var lines []line
	for i := range r.Subjects {
		if part := curve(b.result(r.Subjects[i].Name)); len(part) > 1 {
			lines = append(lines, line{label: r.Subjects[i].label(), index: i, parts: []plotter.XYs{part}})
		}
	}
	lo, hi := extent(lines)
	if len(lines) == 0 || lo.Y <= 1/drawable || hi.Y > drawable {
		return nil, nil
	}
	var ticks plot.ConstantTicks
	for _, p := range []float64{50, 90, 99, 99.9, 99.99, 99.999} {
		if nines(p) <= hi.X+0.01 {
			ticks = append(ticks, plot.Tick{Value: nines(p), Label: strconv.FormatFloat(p, 'g', -1, 64) + " %"})
		}
	}
	f := newFigure(b.Key()+"-latency", b.title("")+": latency by percentile")
	f.desc = "Latency in microseconds by percentile, medians of the rounds."
	x := axis{lo: nines(50), hi: hi.X, caption: "percentile", ticks: ticks}
	return &f, f.lineChart(x, logAxis("µs, lower is better", lo.Y, hi.Y), lines, true)
}

func nines(percent float64) float64 { return -math.Log10(1 - percent/100) }

// curve is the median over the rounds of each percentile. The longest time is
// left out: it is one sample.
func curve(res *Result) plotter.XYs {
	if res == nil {
		return nil
	}
	values := make(map[float64][]float64)
	rounds := 0
	for _, round := range res.Rounds {
		if round.Latency == nil {
			continue
		}
		rounds++
		for _, p := range round.Latency.Percentiles {
			if p.Percent >= 50 && p.Percent < 100 {
				values[p.Percent] = append(values[p.Percent], p.Value)
			}
		}
	}
	var out plotter.XYs
	for _, percent := range slices.Sorted(maps.Keys(values)) {
		if len(values[percent]) == rounds && !math.IsInf(nines(percent), 0) {
			out = append(out, plotter.XY{X: nines(percent), Y: Summarise(values[percent]).Median})
		}
	}
	return out
}

// intervalLines show a metric over the time that was measured, the rounds one
// after the other: the first metric that has intervals.
func (r *Report) intervalLines(b *Benchmark) (*figure, error) {
	at := slices.IndexFunc(b.Metrics, func(m Metric) bool { return b.hasIntervals(m.Name) })
	if at < 0 {
		return nil, nil
	}
	m := &b.Metrics[at]
	var lines []line
	for i := range r.Subjects {
		if parts := timeline(b.result(r.Subjects[i].Name), m.Name); len(parts) > 0 {
			lines = append(lines, line{label: r.Subjects[i].label(), index: i, parts: parts})
		}
	}
	lo, hi := extent(lines)
	if len(lines) == 0 || hi.X > drawable || hi.X < 1/drawable || max(hi.Y, -lo.Y) > drawable {
		return nil, nil
	}
	f := newFigure(b.Key()+"-intervals", b.title("")+": over time")
	f.desc = fmt.Sprintf("%s in each interval of the %s.", m.caption(), plural(r.Settings.Rounds, "round"))
	x := axis{lo: 0, hi: hi.X, caption: "seconds measured, rounds one after the other"}
	return &f, f.lineChart(x, linearAxis(m.caption(), lo.Y, hi.Y), lines, false)
}

func (b *Benchmark) hasIntervals(metric string) bool {
	return slices.ContainsFunc(b.Results, func(res Result) bool { return len(timeline(&res, metric)) > 0 })
}

// timeline has a part for each round. A point stands in the middle of its
// interval.
func timeline(res *Result, metric string) []plotter.XYs {
	if res == nil {
		return nil
	}
	var out []plotter.XYs
	start := 0.0
	for _, round := range res.Rounds {
		for _, in := range round.Intervals {
			if in.Metric != metric || len(in.Values) == 0 {
				continue
			}
			part := make(plotter.XYs, len(in.Values))
			for i, v := range in.Values {
				part[i] = plotter.XY{X: start + (float64(i)+0.5)*in.Seconds, Y: v}
			}
			out = append(out, part)
			start += float64(len(in.Values)) * in.Seconds
		}
	}
	return out
}

// fileName makes a name of letters, digits and "-" that no file system
// minds, and that can be an element's id.
func fileName(key string) string {
	name := strings.Map(func(c rune) rune {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
			return c
		}
		return '-'
	}, key)
	if len(name) > 120 {
		name = name[:120]
	}
	return "plot-" + name
}

package report

import (
	"math"
	"slices"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// drawable bounds what figures show, and 1/drawable what they tell apart from
// nothing.
const drawable = 1e30

// A bar is one subject in a bar chart.
type bar struct {
	label  string
	index  int       // of the subject, for its colour
	values []float64 // of the rounds
}

// barChart draws a horizontal bar from 0 to each median, with a whisker from
// least to most and a dot for each round, the first bar at the top.
func (f *figure) barChart(caption string, bars []bar) error {
	const rowHeight = 32
	f.height = 76 + rowHeight*vg.Length(len(bars))
	p := f.plot
	p.X.Label.Text = caption
	p.X.Tick.Marker = ticker{}
	p.Y.Width, p.Y.Tick.Width = 0, 0
	grid := plotter.NewGrid()
	grid.Horizontal.Width = 0
	grid.Vertical.Color, grid.Vertical.Width = inkGrid.light, 0.6
	p.Add(grid)
	names := make([]string, len(bars))
	lo, hi := 0.0, 0.0
	for i, b := range bars {
		names[len(bars)-1-i] = b.label
		lo, hi = min(lo, slices.Min(b.values)), max(hi, slices.Max(b.values))
	}
	p.NominalY(names...)
	for i, b := range bars {
		if err := addBar(p, b, float64(len(bars)-1-i)); err != nil {
			return err
		}
	}
	if hi-lo < 1/drawable {
		hi = lo + 1
	}
	p.X.Min, p.X.Max = lo, hi+0.1*(hi-lo) // with room for the last number
	p.Y.Min, p.Y.Max = -0.6, float64(len(bars))-0.4
	return nil
}

func addBar(p *plot.Plot, b bar, y float64) error {
	s := Summarise(b.values)
	chart, err := plotter.NewBarChart(plotter.Values{s.Median}, 18)
	if err != nil {
		return err
	}
	chart.Horizontal, chart.XMin = true, y
	chart.Color, chart.LineStyle.Width = seriesColour(b.index), 0
	rounds := make(plotter.XYs, len(b.values))
	for i, v := range b.values {
		rounds[i] = plotter.XY{X: v, Y: y}
	}
	whisker, err := plotter.NewLine(plotter.XYs{{X: s.Min, Y: y}, {X: s.Max, Y: y}})
	if err != nil {
		return err
	}
	whisker.Color, whisker.Width = inkText.light, 1.5
	dots, err := plotter.NewScatter(rounds)
	if err != nil {
		return err
	}
	dots.GlyphStyle = draw.GlyphStyle{Color: inkText.light, Radius: 2, Shape: draw.CircleGlyph{}}
	figure, err := plotter.NewLabels(plotter.XYLabels{
		XYs: plotter.XYs{{X: max(s.Max, 0), Y: y}}, Labels: []string{number(s.Median)},
	})
	if err != nil {
		return err
	}
	figure.TextStyle[0].Color, figure.TextStyle[0].Font = inkText.light, sans(12)
	figure.TextStyle[0].YAlign = draw.YCenter
	figure.Offset = vg.Point{X: 8, Y: 1.5}
	p.Add(chart, whisker, dots, figure)
	return nil
}

// A line is one subject in a line chart. Its parts are not joined.
type line struct {
	label string
	index int // of the subject, for colour and marker
	parts []plotter.XYs
}

// An axis has a range, a caption and its ticks.
type axis struct {
	lo, hi  float64
	log     bool
	caption string
	ticks   plot.Ticker
}

func (a *axis) apply(to *plot.Axis) {
	to.Label.Text, to.Tick.Marker = a.caption, a.ticks
	if a.ticks == nil {
		to.Tick.Marker = ticker{log: a.log}
	}
	to.Min, to.Max = a.lo, a.hi
	if a.log {
		to.Scale = plot.LogScale{}
	}
}

// linearAxis reaches from 0, or from lo where that is less, to just above hi.
func linearAxis(caption string, lo, hi float64) axis {
	lo, hi = min(lo, 0), max(hi, 0)
	if hi-lo < 1/drawable {
		hi = lo + 1
	}
	return axis{lo: lo, hi: hi + 0.04*(hi-lo), caption: caption}
}

// logAxis reaches from lo to hi, both above 0, with some room.
func logAxis(caption string, lo, hi float64) axis {
	room := max(math.Pow(hi/lo, 0.05), 1.1)
	return axis{lo: lo / room, hi: hi * room, log: true, caption: caption}
}

// lineChart draws lines, with markers when there are few points.
func (f *figure) lineChart(x, y axis, lines []line, markers bool) error {
	p := f.plot
	grid := plotter.NewGrid()
	grid.Vertical.Width = 0
	grid.Horizontal.Color, grid.Horizontal.Width = inkGrid.light, 0.6
	p.Add(grid)
	for _, l := range lines {
		for i, part := range l.parts {
			drawn, dots, err := plotter.NewLinePoints(part)
			if err != nil {
				return err
			}
			drawn.Color, drawn.Width = seriesColour(l.index), 1.8
			dots.GlyphStyle = draw.GlyphStyle{Color: seriesColour(l.index), Radius: 3.2, Shape: plotShape(l.index)}
			p.Add(drawn)
			if markers {
				p.Add(dots)
			}
			switch {
			case i > 0:
			case markers:
				f.legend.Add(l.label, drawn, dots)
			default:
				f.legend.Add(l.label, drawn)
			}
		}
	}
	x.apply(&p.X)
	y.apply(&p.Y)
	return nil
}

// plotShape is the i-th subject's marker: lines are told apart without colours.
func plotShape(i int) draw.GlyphDrawer {
	shapes := []draw.GlyphDrawer{
		draw.CircleGlyph{}, draw.BoxGlyph{}, draw.PyramidGlyph{}, draw.RingGlyph{}, draw.SquareGlyph{}, draw.TriangleGlyph{}, draw.PlusGlyph{}, draw.CrossGlyph{},
	}
	return shapes[i%len(shapes)]
}

// extent returns the least and the most of both coordinates.
func extent(lines []line) (lo, hi plotter.XY) {
	lo, hi = plotter.XY{X: math.Inf(1), Y: math.Inf(1)}, plotter.XY{X: math.Inf(-1), Y: math.Inf(-1)}
	for _, l := range lines {
		for _, part := range l.parts {
			for _, p := range part {
				lo = plotter.XY{X: min(lo.X, p.X), Y: min(lo.Y, p.Y)}
				hi = plotter.XY{X: max(hi.X, p.X), Y: max(hi.Y, p.Y)}
			}
		}
	}
	return lo, hi
}

// A ticker has ticks at round numbers with labels that people read: 20k, 1M. On
// a logarithmic axis of few decades it has 2 and 5 as well as 1.
type ticker struct{ log bool }

func (t ticker) Ticks(lo, hi float64) []plot.Tick {
	if t.log {
		return logTicks(lo, hi)
	}
	step := math.Pow(10, math.Floor(math.Log10((hi-lo)/4))) // of 4 to 40 in the range
	switch steps := (hi - lo) / step; {
	case steps > 20:
		step *= 5
	case steps > 10:
		step *= 2
	}
	var out []plot.Tick
	for i := math.Ceil(lo / step); i <= math.Floor(hi/step); i++ {
		out = append(out, plot.Tick{Value: i * step, Label: tickLabel(i * step)})
	}
	return out
}

func logTicks(lo, hi float64) []plot.Tick {
	decades := math.Log10(hi / lo)
	steps := []float64{1}
	if decades < 3 {
		steps = []float64{1, 2, 5}
	}
	every := max(1, int(decades/8))
	var out []plot.Tick
	for e := int(math.Floor(math.Log10(lo))); e <= int(math.Ceil(math.Log10(hi))); e += every {
		for _, m := range steps {
			if v := m * math.Pow(10, float64(e)); v >= lo && v <= hi {
				out = append(out, plot.Tick{Value: v, Label: tickLabel(v)})
			}
		}
	}
	return out
}

// tickLabel prints a tick without digits that say nothing.
func tickLabel(v float64) string {
	unit := ""
	switch a := math.Abs(v); {
	case a >= 1e13:
	case a >= 1e9:
		v, unit = v/1e9, "G"
	case a >= 1e6:
		v, unit = v/1e6, "M"
	case a >= 1e4:
		v, unit = v/1e3, "k"
	}
	return strconv.FormatFloat(v, 'g', 4, 64) + unit
}

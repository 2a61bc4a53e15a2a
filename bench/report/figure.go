package report

import (
	"bytes"
	"fmt"
	"html"
	"image/color"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"
)

// A figure is a plot with a title above it and a legend at its right.
type figure struct {
	name   string // of its files, without extension, and of its element in a page
	title  string
	desc   string    // what it shows, for those who do not see it
	height vg.Length // without the title
	plot   *plot.Plot
	legend plot.Legend
}

const (
	figureWidth vg.Length = 760
	margin      vg.Length = 12
	pngDPI                = 144 // two pixels for each unit of a figure
)

// An ink is a colour by its role, which has one value on white and one on black.
type ink struct {
	light color.RGBA
	dark  string
}

var (
	inkPaper = ink{rgb(0xffffff), "#16181d"}
	inkText  = ink{rgb(0x1a1c20), "#e8e8ea"}
	inkFaint = ink{rgb(0x5a5f68), "#a5a9b2"}
	inkGrid  = ink{rgb(0xd9dce1), "#363a42"}
	// inkSeries are the subjects'. They are Okabe and Ito's, which people tell
	// apart who do not see all colours; yellow is darker on white.
	inkSeries = []ink{
		{rgb(0x767676), "#9a9a9a"},
		{rgb(0x0072b2), "#56b4e9"},
		{rgb(0xd55e00), "#f08a3c"},
		{rgb(0x009e73), "#2ccf9f"},
		{rgb(0xb5508a), "#e39bc5"},
		{rgb(0x8a6d00), "#f0e442"},
		{rgb(0x3b3f8f), "#a3a7f5"},
		{rgb(0x7a3b12), "#c98f63"},
	}
)

func rgb(v uint32) color.RGBA {
	return color.RGBA{R: uint8(v >> 16), G: uint8(v >> 8), B: uint8(v), A: 0xff}
}

// seriesColour is the i-th subject's.
func seriesColour(i int) color.Color { return inkSeries[i%len(inkSeries)].light }

// newFigure returns an empty figure with its title.
func newFigure(name, title string) figure {
	f := figure{name: name, title: title, height: 350, plot: plot.New(), legend: plot.NewLegend()}
	p := f.plot
	p.BackgroundColor = nil
	f.legend.TextStyle.Color = inkText.light
	f.legend.TextStyle.Font = sans(12)
	f.legend.Top, f.legend.Left = true, true
	f.legend.Padding = 6
	for _, axis := range []*plot.Axis{&p.X, &p.Y} {
		axis.Color = inkFaint.light
		axis.Label.TextStyle.Color = inkFaint.light
		axis.Label.TextStyle.Font = sans(12)
		axis.Tick.Color = inkFaint.light
		axis.Tick.Label.Color = inkText.light
		axis.Tick.Label.Font = sans(12)
	}
	return f
}

func sans(size font.Length) font.Font {
	return font.Font{Typeface: "Liberation", Variant: "Sans", Size: size}
}

// titleLine is the height of a line of the title.
const titleLine vg.Length = 20

// titleLines breaks the title where it would be wider than the figure.
func (f *figure) titleLines() []string {
	face := font.DefaultCache.Lookup(sans(15), 15)
	var lines []string
	for i, word := range strings.Fields(f.title) {
		if last := len(lines) - 1; i > 0 && face.Width(lines[last]+" "+word) < figureWidth-2*margin {
			lines[last] += " " + word
		} else {
			lines = append(lines, word)
		}
	}
	return lines
}

// size is the height of all of the figure.
func (f *figure) size() vg.Length { return f.height + titleLine*vg.Length(len(f.titleLines())) }

// draw draws the title, the legend, and the plot in what room they leave.
func (f *figure) draw(c draw.Canvas) {
	c = draw.Crop(c, margin, -margin, margin, -margin)
	style := f.plot.Title.TextStyle
	style.Color, style.Font, style.XAlign, style.YAlign = inkText.light, sans(15), draw.XLeft, draw.YTop
	for _, line := range f.titleLines() {
		c.FillText(style, vg.Point{X: c.Min.X, Y: c.Max.Y}, line)
		c.Max.Y -= titleLine
	}
	c.Max.Y -= margin
	room := c
	if wide := f.legend.Rectangle(c).Size().X; wide > 0 {
		room = draw.Crop(c, 0, -wide-2*margin, 0, 0)
		f.legend.Draw(draw.Crop(c, c.Size().X-wide, 0, 0, 0))
	}
	f.plot.Draw(room)
}

// writePNG writes the figure in the colours that belong on white.
func (f *figure) writePNG(w io.Writer) error {
	c := vgimg.PngCanvas{Canvas: vgimg.NewWith(
		vgimg.UseWH(figureWidth, f.size()), vgimg.UseDPI(pngDPI), vgimg.UseBackgroundColor(inkPaper.light))}
	f.draw(draw.New(c))
	_, err := c.WriteTo(w)
	return err
}

// svg returns the figure as an element for a page, which has figureCSS.
func (f *figure) svg() ([]byte, error) { return f.element("") }

// svgFile returns the figure as a file of its own.
func (f *figure) svgFile() ([]byte, error) {
	return f.element("<style>" + figureCSS() + "svg{background:var(" + inkPaper.variable() + "," + inkPaper.hex() + ")}</style>")
}

// element takes the drawing out of the document that vgsvg makes, and gives it
// colours that follow the reader's, a name and a description.
func (f *figure) element(style string) ([]byte, error) {
	c := vgsvg.NewWith(vgsvg.UseWH(figureWidth, f.size()))
	f.draw(draw.New(c))
	var doc bytes.Buffer
	if _, err := c.WriteTo(&doc); err != nil {
		return nil, err
	}
	_, drawing, ok := strings.Cut(doc.String(), "<svg")
	if ok {
		_, drawing, ok = strings.Cut(drawing, ">")
	}
	if !ok {
		return nil, fmt.Errorf("%s: no SVG was made", f.name)
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %[1]d %[2]d" width="%[1]d" height="%[2]d" `+
		`role="img" aria-labelledby="%[3]s-t %[3]s-d"><title id="%[3]s-t">%[4]s</title><desc id="%[3]s-d">%[5]s</desc>%[6]s`,
		int(figureWidth), int(f.size()), f.name, html.EscapeString(f.title), html.EscapeString(f.desc), style)
	out.WriteString(fixWidths(colours().Replace(drawing)))
	return out.Bytes(), nil
}

var svgText = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`<text ([^>]*font-size:([0-9.]+)px[^>]*)>([^<]*)</text>`)
})

// fixWidths makes texts as wide as they were laid out to be, whichever font the
// reader has.
func fixWidths(drawing string) string {
	return svgText().ReplaceAllStringFunc(drawing, func(element string) string {
		part := svgText().FindStringSubmatch(element)
		size, err := strconv.ParseFloat(part[2], 64)
		if err != nil {
			return element
		}
		face := font.DefaultCache.Lookup(sans(vg.Length(size)), vg.Length(size))
		wide := face.Width(html.UnescapeString(part[3]))
		return fmt.Sprintf(`<text textLength="%.1f" lengthAdjust="spacingAndGlyphs" %s>%s</text>`, float64(wide), part[1], part[3])
	})
}

// figureCSS says what colours figures have on black.
func figureCSS() string {
	var dark strings.Builder
	for _, i := range allInks() {
		fmt.Fprintf(&dark, "%s:%s;", i.variable(), i.dark)
	}
	return "@media (prefers-color-scheme:dark){:root{" + dark.String() + "}}"
}

// colours replaces each ink by a variable that falls back to it, and names more
// fonts for those who do not have vgsvg's.
func colours() *strings.Replacer {
	inks := allInks()
	pairs := make([]string, 0, 2+4*len(inks))
	pairs = append(pairs, "font-family:Liberation Sans;", "font-family:Liberation Sans,Arimo,Arial,Helvetica,sans-serif;")
	for _, i := range inks {
		for _, property := range []string{"fill:", "stroke:"} {
			pairs = append(pairs, property+i.hex(), property+"var("+i.variable()+","+i.hex()+")")
		}
	}
	return strings.NewReplacer(pairs...)
}

func allInks() []ink { return slices.Concat([]ink{inkPaper, inkText, inkFaint, inkGrid}, inkSeries) }

// hex is the colour on white as vgsvg prints it.
func (i ink) hex() string { return fmt.Sprintf("#%02X%02X%02X", i.light.R, i.light.G, i.light.B) }

func (i ink) variable() string { return "--ink-" + strings.ToLower(i.hex()[1:]) }

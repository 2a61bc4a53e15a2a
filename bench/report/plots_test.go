package report

import (
	"encoding/xml"
	"errors"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestWritePlots(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	files, err := example().WritePlots(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"plot-path-tcp1-mtu-1500", "plot-path-tcp1-mtu-1500-intervals", "plot-path-udp64-mtu-1500",
		"plot-path-ping-mtu-1500", "plot-path-ping-mtu-1500-latency", "plot-scale-lookup-time", "plot-scale-lookup-allocs",
	} {
		for _, ext := range []string{".svg", ".png"} {
			if !slices.Contains(files, want+ext) {
				t.Errorf("no %s%s in %v", want, ext, files)
			}
		}
	}
	if len(files) != 14 {
		t.Errorf("%d files: %v", len(files), files)
	}
	for _, name := range files {
		if strings.HasSuffix(name, ".png") {
			checkPNG(t, filepath.Join(dir, name))
		} else {
			checkSVG(t, filepath.Join(dir, name))
		}
	}
}

// checkPNG looks for more than a background: text, lines, colours of subjects.
func checkPNG(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img, err := png.Decode(f)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	if wide := img.Bounds().Dx(); wide != 2*int(figureWidth) {
		t.Errorf("%s is %d pixels wide", path, wide)
	}
	seen := make(map[any]int)
	for y := 0; y < img.Bounds().Dy(); y += 2 { // a line of a figure is two pixels thick
		for x := 0; x < img.Bounds().Dx(); x += 2 {
			seen[img.At(x, y)]++
		}
	}
	if seen[inkPaper.light] == 0 || seen[inkText.light] < 50 || len(seen) < 10 {
		t.Errorf("%s: %d colours, %d dark pixels", path, len(seen), seen[inkText.light])
	}
}

// checkSVG looks for well-formed XML with texts and paths.
func checkSVG(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	count := make(map[string]int)
	for dec := xml.NewDecoder(f); ; {
		token, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if start, ok := token.(xml.StartElement); ok {
			count[start.Name.Local]++
		}
	}
	if count["svg"] != 1 || count["title"] != 1 || count["text"] < 3 || count["path"] < 3 {
		t.Errorf("%s has %v", path, count)
	}
}

// Colours are replaced one by one: no ink of a plot is left that dark pages
// would not change, and no two inks are one on white.
func TestColours(t *testing.T) {
	seen := make(map[string]bool)
	for _, i := range allInks() {
		if seen[i.hex()] {
			t.Errorf("%s twice", i.hex())
		}
		seen[i.hex()] = true
	}
	for _, f := range mustFigures(t, example()) {
		svg, err := f.svg()
		if err != nil {
			t.Fatal(err)
		}
		for _, property := range []string{"fill:#", "stroke:#"} {
			if at := strings.Index(string(svg), property); at >= 0 {
				t.Errorf("%s: %s", f.name, svg[at:at+20])
			}
		}
	}
}

// What is too large, too small, negative or alone does no harm.
func TestPlotsOfExtremes(t *testing.T) {
	for i, values := range [][]float64{
		{0}, {-1, -2}, {1e308, 1}, {-1e308, 1e308}, {1e-308, 1e-300}, {5e-324, 5e-324}, {-5e-324}, {-1e-308, 0}, {1e29, 1e-29}, {1, 1 + 1e-15}, {-1e29, 1e29},
	} {
		seconds := []float64{1e-300, 1e300, 1}[i%3]
		r := example()
		r.Benchmarks = append(r.Benchmarks[:1:1], exampleLookup(1), exampleLookup(2))
		for i := range r.Benchmarks {
			b := &r.Benchmarks[i]
			for j := range b.Results {
				b.Results[j].Rounds = rounds(b.Metrics[0].Name, values...)
				first := &b.Results[j].Rounds[0]
				first.Intervals = []Intervals{{Metric: b.Metrics[0].Name, Seconds: seconds, Values: values}}
				first.Latency = &Latency{Count: 2, Percentiles: []Percentile{{50, slices.Min(values)}, {99, slices.Max(values)}}}
			}
		}
		if err := r.Validate(); err != nil {
			t.Fatal(err)
		}
		for _, f := range mustFigures(t, r) {
			if _, err := f.svg(); err != nil {
				t.Errorf("%v: %v", values, err)
			}
		}
	}
}

// Names of files are of letters, digits and hyphens, and of one figure each.
func TestPlotNames(t *testing.T) {
	r := example()
	r.Benchmarks = r.Benchmarks[:1:1]
	for _, name := range []string{"..", "tcp1-mtu", "tcp1:mtu", strings.Repeat("x", 120), "ü\"><b"} {
		b := exampleTCP()
		b.Name = name
		r.Benchmarks = append(r.Benchmarks, b)
	}
	if err := r.Validate(); err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for _, f := range mustFigures(t, r) {
		if seen[f.name] || len(f.name) > 200 || strings.Trim(f.name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") != "" {
			t.Errorf("name %q", f.name)
		}
		seen[f.name] = true
	}
}

package report

import (
	"bytes"
	"strings"
	"testing"

	"golang.org/x/net/html"
	"golang.org/x/net/html/atom"
)

// page parses a page and returns its elements.
func elements(t *testing.T, r, old *Report) []*html.Node {
	t.Helper()
	var out bytes.Buffer
	if err := r.WriteHTML(&out, old); err != nil {
		t.Fatal(err)
	}
	root, err := html.Parse(&out)
	if err != nil {
		t.Fatal(err)
	}
	var all []*html.Node
	for n := range root.Descendants() {
		if n.Type == html.ElementNode {
			all = append(all, n)
		}
	}
	return all
}

func attribute(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

func text(n *html.Node) string {
	var out strings.Builder
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			out.WriteString(d.Data)
		}
	}
	return out.String()
}

// A page loads nothing: no element that fetches, no address outside of it.
func TestPageStandsAlone(t *testing.T) {
	for _, n := range elements(t, example(), faster()) {
		switch n.DataAtom {
		case atom.Script, atom.Iframe, atom.Object, atom.Embed, atom.Img, atom.Form, atom.Base:
			t.Errorf("the page has <%s>", n.Data)
		case atom.Style:
			if css := text(n); strings.Contains(css, "url(") || strings.Contains(css, "@import") {
				t.Error("the style fetches something")
			}
		}
		for _, a := range n.Attr {
			switch {
			case strings.HasPrefix(a.Key, "on"):
				t.Errorf("<%s> has %s", n.Data, a.Key)
			case a.Key == "href" && !strings.HasPrefix(a.Val, "#") && a.Val != "data:,", a.Key == "src":
				t.Errorf("<%s %s=%q>", n.Data, a.Key, a.Val)
			}
		}
	}
}

// What a reader who does not see the page needs: a language, one title, tables
// with captions and heads, plots with a name and a description.
func TestPageIsAccessible(t *testing.T) {
	ids := make(map[string]*html.Node)
	var refs []string
	count := make(map[string]int)
	all := elements(t, example(), faster())
	for _, n := range all {
		count[n.Data]++
		if id := attribute(n, "id"); id != "" {
			if ids[id] != nil {
				t.Errorf("id %q twice", id)
			}
			ids[id] = n
		}
		refs = append(refs, strings.Fields(attribute(n, "aria-labelledby"))...)
		if href := attribute(n, "href"); strings.HasPrefix(href, "#") {
			refs = append(refs, href[1:])
		}
		switch n.Data {
		case "html":
			if attribute(n, "lang") == "" {
				t.Error("no language")
			}
		case "th":
			if attribute(n, "scope") == "" {
				t.Errorf("head of a column or row without scope: %s", text(n))
			}
		case "svg":
			if attribute(n, "role") != "img" || attribute(n, "aria-labelledby") == "" {
				t.Errorf("plot without role or name: %v", n.Attr)
			}
		}
	}
	for _, ref := range refs {
		if n := ids[ref]; n == nil || text(n) == "" {
			t.Errorf("%q names nothing", ref)
		}
	}
	if count["h1"] != 1 || count["main"] != 1 || count["table"] == 0 || count["table"] != count["caption"] {
		t.Errorf("elements: %v", count)
	}
	if figures, err := example().figures(); err != nil || count["svg"] != len(flatten(figures)) {
		t.Errorf("%d plots in the page, %v", count["svg"], err)
	}
}

func flatten(figures [][]figure) (out []figure) {
	for _, f := range figures {
		out = append(out, f...)
	}
	return out
}

// All text of a report is shown as text.
func TestPageEscapes(t *testing.T) {
	const evil = `</title><script>alert(1)</script>"'&`
	r := example()
	r.Run.Version, r.Run.Command, r.Machine.CPU, r.Notes = evil, evil, evil, []string{evil}
	r.Subjects[0].Title, r.Subjects[0].Version = evil, evil
	for i := range r.Benchmarks {
		r.Benchmarks[i].Title, r.Benchmarks[i].Simulated = evil, evil
		r.Benchmarks[i].Metrics[0].Title = evil
	}
	r.Benchmarks[0].Params = map[string]string{"<b>": "\"'><script>"}
	if err := r.Validate(); err != nil {
		t.Fatal(err)
	}
	shown := 0
	for _, n := range elements(t, r, r) {
		if n.DataAtom == atom.Script || n.DataAtom == atom.B {
			t.Errorf("markup in a text became <%s>", n.Data)
		}
		if strings.Contains(text(n), evil) {
			shown++
		}
	}
	if shown == 0 {
		t.Error("the text is not shown")
	}
	for _, f := range mustFigures(t, r) {
		svg, err := f.svgFile()
		if err != nil || strings.Contains(string(svg), "<script") {
			t.Errorf("%s: markup in a text, %v", f.name, err)
		}
	}
}

func mustFigures(t *testing.T, r *Report) []figure {
	t.Helper()
	figures, err := r.figures()
	if err != nil {
		t.Fatal(err)
	}
	return flatten(figures)
}

func TestPageWithoutBenchmarks(t *testing.T) {
	r := example()
	r.Benchmarks, r.Notes = nil, nil
	for _, n := range elements(t, r, nil) {
		if n.Data == "svg" {
			t.Error("a plot of nothing")
		}
	}
}

// The page begins with what came out: a row for each benchmark that is measured on
// several subjects, a column for each of these.
func TestPageBeginsWithAnOverview(t *testing.T) {
	for _, n := range elements(t, example(), nil) {
		if n.DataAtom != atom.Table {
			continue
		}
		got := strings.Join(strings.Fields(text(n)), " ")
		for _, want := range []string{"raw vethkernel VXLANwireguard-go", "TCP, one flow (mtu 1500)Gbit/s ↑36.225.22.6710.48.03 ", "p50 µs ↓33.351.2237165–"} {
			if !strings.Contains(got, want) {
				t.Errorf("no %q in the first table:\n%s", want, got)
			}
		}
		return
	}
	t.Error("no table")
}

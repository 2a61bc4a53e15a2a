package report

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/perf/benchfmt"
)

// WriteBenchstat writes one line for each round, in the format that benchstat
// reads (https://go.dev/design/14313-benchmark-format):
//
//	BenchmarkPath/tcp1/mtu=1500/subject=ovnd-2 1 10.3 Gbit/s 0.98 s/GB
//
// The number at the end of the name is that of the cores. `benchstat -col
// /subject` puts subjects side by side.
func (r *Report) WriteBenchstat(w io.Writer) error {
	var buf bytes.Buffer
	fmt.Fprintf(&buf, "goos: linux\ngoarch: %s\npkg: github.com/ovnd/ovnd\ncpu: %s\nversion: %s\n\n",
		r.Machine.Arch, r.Machine.CPU, r.Run.Version)
	r.writeUnits(&buf)
	out := benchfmt.NewWriter(&buf)
	for i := range r.Benchmarks {
		b := &r.Benchmarks[i]
		for _, res := range b.Results {
			name := fmt.Sprintf("%s/subject=%s-%d", upperFirst(b.Key()), res.Subject, r.Machine.Cores)
			for _, round := range res.Rounds {
				rec := benchfmt.Result{Name: benchfmt.Name(name), Iters: 1}
				for _, m := range b.Metrics {
					if v, ok := round.Values[m.Name]; ok {
						rec.Values = append(rec.Values, benchfmt.Value{Value: v, Unit: m.benchUnit()})
					}
				}
				if len(rec.Values) == 0 {
					continue
				}
				if err := out.Write(&rec); err != nil {
					return err
				}
			}
		}
	}
	_, err := w.Write(buf.Bytes())
	return err
}

// writeUnits says which direction is better, and what is exact.
func (r *Report) writeUnits(out *bytes.Buffer) {
	lines := make(map[string]bool)
	for _, b := range r.Benchmarks {
		for _, m := range b.Metrics {
			line := "Unit " + m.benchUnit()
			if m.Better != Informative {
				line += " better=" + m.Better
			}
			if m.Exact {
				line += " assume=exact"
			}
			if strings.Contains(line, "=") {
				lines[line] = true
			}
		}
	}
	for _, line := range slices.Sorted(maps.Keys(lines)) {
		out.WriteString(line + "\n")
	}
}

// benchUnit makes the metric's unit unique among metrics of the same unit, as
// the format has no other name for them: "proc-s/GB". Go's own units stay what
// they are.
func (m *Metric) benchUnit() string {
	switch m.Unit {
	case "ns/op", "B/op", "allocs/op":
		return m.Unit
	}
	return m.Name + "-" + m.Unit
}

func upperFirst(s string) string {
	c, n := utf8.DecodeRuneInString(s)
	return string(unicode.ToUpper(c)) + s[n:]
}

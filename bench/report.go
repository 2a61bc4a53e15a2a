package bench

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// A Report is the result of one run, as --json prints it.
type Report struct {
	Schema  int       `json:"schema"` // version of this structure
	Time    time.Time `json:"time"`
	Machine Machine   `json:"machine"`
	Setup   Setup     `json:"setup"`

	// Samples are all measurements, in the order in which they were made.
	Samples []Sample `json:"samples"`
	// Results sum them up over the rounds.
	Results []Result `json:"results"`
}

// A Machine says where a run was made.
type Machine struct {
	Kernel  string `json:"kernel"`
	CPU     string `json:"cpu"`
	Cores   int    `json:"cores"`
	Go      string `json:"go"`
	Version string `json:"version"` // revision of ovnd
	UID     int    `json:"uid"`     // of the user, as the lab sees it
}

// A Setup says how a run was made.
type Setup struct {
	Planes        []string `json:"planes"`
	Tests         []string `json:"tests"`
	Rounds        int      `json:"rounds"`
	WindowSeconds float64  `json:"window_seconds"`
	MTU           int      `json:"underlay_mtu"`
	Underlay      string   `json:"underlay"` // "ipv4" or "ipv6"
	Congestion    string   `json:"congestion_control"`
}

// A Sample is one measurement.
type Sample struct {
	Test   string             `json:"test"`
	Plane  string             `json:"plane"`
	Round  int                `json:"round"`
	Values map[Metric]float64 `json:"values"`
}

// A Result is what one test on one plane gave over all rounds.
type Result struct {
	Test    string            `json:"test"`
	Plane   string            `json:"plane"`
	Metrics map[Metric]Spread `json:"metrics"`
	// Ratios compare the test's first metric with that of the named plane:
	// each round's ratio, then their spread.
	Ratios map[string]Spread `json:"ratios"`
}

const reportSchema = 1

func newReport(cfg PathConfig) *Report {
	underlay := "ipv4"
	if cfg.IPv6 {
		underlay = "ipv6"
	}
	return &Report{
		Schema:  reportSchema,
		Time:    time.Now().UTC().Truncate(time.Second),
		Machine: thisMachine(),
		Setup: Setup{
			Planes: cfg.Planes, Tests: cfg.Tests, Rounds: cfg.Rounds, WindowSeconds: cfg.Window.Seconds(),
			MTU: cfg.MTU, Underlay: underlay, Congestion: cfg.Congestion,
		},
	}
}

func thisMachine() Machine {
	m := Machine{Cores: runtime.NumCPU(), Go: runtime.Version(), CPU: "unknown", Version: "unknown", UID: os.Getuid()}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		m.Kernel = string(bytes.TrimRight(name.Release[:], "\x00"))
	}
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(info)) {
			if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
				m.CPU = strings.TrimSpace(value)
				break
			}
		}
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				m.Version = s.Value
			}
		}
	}
	return m
}

// summarise fills in the results from the samples.
func (r *Report) summarise() {
	r.Results = nil
	for _, name := range r.Setup.Tests {
		test, _ := findTest(name)
		for _, plane := range r.Setup.Planes {
			res := Result{Test: name, Plane: plane, Metrics: map[Metric]Spread{}, Ratios: map[string]Spread{}}
			for _, metric := range test.Metrics {
				res.Metrics[metric] = spread(r.values(name, plane, metric))
			}
			for _, base := range r.Setup.Planes {
				if base != plane {
					res.Ratios[base] = spread(r.ratios(test, plane, base))
				}
			}
			r.Results = append(r.Results, res)
		}
	}
}

// values returns one metric of all rounds, in their order.
func (r *Report) values(test, plane string, metric Metric) []float64 {
	var out []float64
	for _, s := range r.Samples {
		if s.Test == test && s.Plane == plane {
			out = append(out, s.Values[metric])
		}
	}
	return out
}

func (r *Report) ratios(test Test, plane, base string) []float64 {
	out := r.values(test.Name, plane, test.Metrics[0])
	for i, v := range r.values(test.Name, base, test.Metrics[0]) {
		out[i] /= v
	}
	return out
}

// WriteTable prints the report for people: medians, least and most of each
// metric, and the median ratio to each other plane.
func (r *Report) WriteTable(w io.Writer) error {
	var out bytes.Buffer
	fmt.Fprintf(&out, "%s, %d cores, Linux %s, %s\n", r.Machine.CPU, r.Machine.Cores, r.Machine.Kernel, r.Machine.Go)
	fmt.Fprintf(&out, "underlay veth, %s, MTU %d; %s; median [least–most] of %d rounds of %gs; "+
		"× is the median of the rounds' ratios\n",
		r.Setup.Underlay, r.Setup.MTU, r.Setup.Congestion, r.Setup.Rounds, r.Setup.WindowSeconds)
	for _, name := range r.Setup.Tests {
		test, _ := findTest(name)
		fmt.Fprintf(&out, "\n%s\n", test.Title)
		table := tabwriter.NewWriter(&out, 0, 0, 3, ' ', 0)
		for _, row := range r.rows(test) {
			if _, err := io.WriteString(table, strings.Join(row, "\t")+"\n"); err != nil {
				return err
			}
		}
		if err := table.Flush(); err != nil {
			return err
		}
	}
	_, err := w.Write(out.Bytes())
	return err
}

// rows returns the cells of one test's table.
func (r *Report) rows(test Test) [][]string {
	bases := r.bases()
	columns := 1 + len(test.Metrics) + len(bases)
	head := append(make([]string, 0, columns), "plane")
	for _, metric := range test.Metrics {
		head = append(head, string(metric))
	}
	for _, base := range bases {
		head = append(head, "× "+base)
	}
	rows := [][]string{head}
	for _, res := range r.Results {
		if res.Test != test.Name {
			continue
		}
		row := append(make([]string, 0, columns), res.Plane)
		for _, metric := range test.Metrics {
			s := res.Metrics[metric]
			row = append(row, fmt.Sprintf("%s [%s–%s]", figure(s.Median), figure(s.Min), figure(s.Max)))
		}
		for _, base := range bases {
			ratio := "–"
			if s, ok := res.Ratios[base]; ok {
				ratio = figure(s.Median)
			}
			row = append(row, ratio)
		}
		rows = append(rows, row)
	}
	return rows
}

// bases are the planes of this run that the table compares others with.
func (r *Report) bases() []string {
	var out []string
	for _, p := range r.Setup.Planes {
		switch p {
		case PlaneOvnd, PlaneVIP:
		case PlaneLocal: // what a VIP's way is compared with
			if slices.Contains(r.Setup.Planes, PlaneVIP) {
				out = append(out, p)
			}
		default:
			out = append(out, p)
		}
	}
	return out
}

// figure prints v with about three digits.
func figure(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

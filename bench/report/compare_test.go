package report

import (
	"bytes"
	"strings"
	"testing"
)

// faster is the example with ovnd a fifth faster in TCP, one allocation more in
// lookups, another kernel, and not the same benchmarks.
func faster() *Report {
	r := example()
	r.Machine.Kernel = "6.19.0"
	for i := range r.Benchmarks {
		b := &r.Benchmarks[i]
		for _, round := range b.result("ovnd").Rounds {
			switch b.Name {
			case "tcp1":
				round.Values["throughput"] *= 1.2
			case "lookup":
				round.Values["allocs"]++
			}
		}
	}
	r.Benchmarks[1].Params = map[string]string{"mtu": "9000"}
	r.Benchmarks[0].Results = r.Benchmarks[0].Results[:4]
	return r
}

func TestCompareTable(t *testing.T) {
	var out bytes.Buffer
	if err := Compare(example(), faster()).WriteTable(&out); err != nil {
		t.Fatal(err)
	}
	golden(t, "compare.txt", out.Bytes())
}

func TestVerdicts(t *testing.T) {
	c := Compare(example(), faster())
	verdicts := make(map[string]string)
	for i := range c.Changes {
		change := &c.Changes[i]
		verdicts[strings.Join([]string{change.Benchmark.Name, change.Subject, change.Metric.Name, change.Baseline}, " ")] = change.Verdict()
	}
	for what, want := range map[string]string{
		"tcp1 ovnd throughput ":             "better",
		"tcp1 ovnd throughput wireguard-go": "better",
		"tcp1 ovnd proc ":                   "~",
		"tcp1 veth throughput ":             "~",
		"lookup ovnd allocs ":               "worse",
		"lookup ovnd time ":                 "~",
	} {
		if got := verdicts[what]; got != want {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	for i := range c.Changes {
		if change := &c.Changes[i]; change.Benchmark.Name == "tcp1" && change.Subject == "ovnd" && change.Metric.Name == "throughput" {
			if share, ok := change.Delta(); !ok || share < 0.15 || share > 0.25 {
				t.Errorf("× %q changed by %g, want 0.2", change.Baseline, share)
			}
		}
	}
	all := strings.Join(append(c.Differences, c.Missing...), "\n")
	for _, want := range []string{
		"kernel: 6.19.0, was 6.18.44", "path/udp64/mtu=9000 is new", "path/udp64/mtu=1500 was measured before only",
		"path/tcp1/mtu=1500 on ovnd-aes-256-gcm was measured before only",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("no %q in:\n%s", want, all)
		}
	}
}

func TestNothingChanged(t *testing.T) {
	c := Compare(example(), example())
	if len(c.Differences)+len(c.Missing) != 0 || !strings.Contains(c.summary(), "nothing changed") {
		t.Errorf("a run differs from itself: %v %v %s", c.Differences, c.Missing, c.summary())
	}
}

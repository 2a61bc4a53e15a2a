package bench_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/ovnd/ovnd/bench"
)

// Every kind of question is answered. How fast is for a quiet machine to say;
// here the resolver has to keep up with a tenth of what it is made for.
func TestRunDNS(t *testing.T) {
	report, err := bench.RunDNS(t.Context(), bench.DNSConfig{Rounds: 1, Window: 300 * time.Millisecond, Rate: 1000})
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Results) != len(bench.DNSTests) {
		t.Fatalf("%d results", len(report.Results))
	}
	for _, r := range report.Results {
		if m := r.Metrics; m[bench.QueryRate].Median <= 0 || m[bench.Unanswered].Median > 10 ||
			m[bench.RTT50].Median <= 0 || m[bench.RTT99].Median < m[bench.RTT50].Median || m[bench.ProcPerQ].Median <= 0 {
			t.Errorf("%s: %v", r.Name, m)
		}
	}
	var table bytes.Buffer
	if err := report.WriteTable(&table); err != nil || strings.Count(table.String(), "\n") != 4+len(bench.DNSTests) {
		t.Errorf("%v:\n%s", err, &table)
	}
	if left := children(t); len(left) > 0 {
		t.Errorf("processes left behind: %v", left)
	}
}

func TestDNSConfigCheck(t *testing.T) {
	good := bench.DNSConfig{Rounds: 1, Window: time.Second, Rate: 10_000}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	for _, cfg := range []bench.DNSConfig{
		{Rounds: 0, Window: time.Second, Rate: 1000},
		{Rounds: 1, Window: time.Millisecond, Rate: 1000},
		{Rounds: 1, Window: time.Second, Rate: 0},
	} {
		if cfg.Check() == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
}

package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func testdata(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// someSteps have one of each ending.
func someSteps() []step {
	return []step{
		{"What works", true, func(_ context.Context, s *stepRun) error {
			s.command("localhost", "node ls")
			s.equal("three nodes", "three nodes")
			return nil
		}},
		{"What cannot be tried", false, func(_ context.Context, s *stepRun) error {
			s.skip("there is no network here")
			return nil
		}},
		{"What differs", false, func(_ context.Context, s *stepRun) error {
			s.equal("a line that is longer than its column is wide", "another one that is longer than its column is wide, by far")
			return errors.New("it broke")
		}},
		{"What is needed", true, func(context.Context, *stepRun) error { return errors.New("it broke") }},
		{"What needs it", false, func(context.Context, *stepRun) error { panic("not reached") }},
	}
}

func TestTable(t *testing.T) {
	var out bytes.Buffer
	r := newRunner(&out, 72)
	for _, s := range someSteps() {
		r.do(t.Context(), s)
	}
	report := r.end()
	got, _, _ := strings.Cut(out.String(), ", in ")
	if want := strings.TrimSuffix(testdata(t, "table.txt"), "\n"); got != want {
		t.Errorf("table:\n%s\nwant:\n%s", got, want)
	}
	if report.OK || report.Passed != 1 || report.Failed != 3 || report.Skipped != 2 {
		t.Errorf("%+v", report)
	}
}

// The names of the report's fields are what scripts rely on.
func TestJSON(t *testing.T) {
	r := newRunner(nil, 0)
	r.report.Program, r.report.StateDir = "nginx", "/tmp/ovnd-demo-1"
	r.report.Nodes = []Node{{Name: "localhost", Address: netip.MustParseAddr("127.0.0.2"), StateDir: "/tmp/ovnd-demo-1/localhost"}}
	for _, s := range someSteps() {
		r.do(t.Context(), s)
	}
	report := r.end()
	report.Seconds = 1.5
	for i := range report.Steps {
		report.Steps[i].Seconds = 0.25
	}
	got, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if want := testdata(t, "report.json"); string(got)+"\n" != want {
		t.Errorf("report:\n%s\nwant:\n%s", got, want)
	}
}

func TestAllIsWell(t *testing.T) {
	r := newRunner(nil, 0)
	for _, s := range someSteps()[:2] {
		r.do(t.Context(), s)
	}
	if report := r.end(); !report.OK {
		t.Errorf("a step that cannot be tried is no failure: %+v", report)
	}
	if report := newRunner(nil, 0).end(); report.OK {
		t.Error("nothing done is no success")
	}
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r := newRunner(nil, 0)
	r.do(ctx, step{"It is interrupted", true, func(ctx context.Context, _ *stepRun) error {
		cancel()
		<-ctx.Done()
		return ctx.Err()
	}})
	r.do(ctx, step{"Too late", true, func(context.Context, *stepRun) error { panic("not reached") }})
	report := r.end()
	if report.OK || report.Failed != 0 || report.Steps[0].Skipped != "interrupted" || report.Steps[1].Skipped != "interrupted" {
		t.Errorf("%+v", report)
	}
}

func TestWrap(t *testing.T) {
	tests := []struct {
		text string
		want []string
	}{
		{"", []string{""}},
		{"ten chars.", []string{"ten chars."}},
		{"ten chars. and more", []string{"ten chars.", "and more"}},
		{"twelve-chars", []string{"twelve-cha", "rs"}},
		{"ä ö ü é è ê a", []string{"ä ö ü é è", "ê a"}},
		{"two\nlines\n", []string{"two", "lines"}},
	}
	for _, tt := range tests {
		if got := wrap(tt.text, 10); !slices.Equal(got, tt.want) {
			t.Errorf("wrap(%q) = %q, want %q", tt.text, got, tt.want)
		}
	}
}

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ovnd/ovnd/bench/report"
)

func TestReplacesTheSectionOnly(t *testing.T) {
	r := &report.Report{
		Schema: report.SchemaV1,
		Run:    report.Run{Version: "0123abc", Command: "ovnd bench path", Started: time.Unix(0, 0)},
	}
	var encoded bytes.Buffer
	if err := r.Write(&encoded); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	results, doc := filepath.Join(dir, "run.json"), filepath.Join(dir, "README.md")
	write(t, results, encoded.String())
	before, after := "# ovnd\n\n"+report.SectionBegin+"\n", report.SectionEnd+"\n\n## More\n"
	write(t, doc, before+"what was there\n"+after)
	for range 2 { // the second time over what the first one wrote
		if err := run([]string{results, doc}); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(doc)
		if err != nil {
			t.Fatal(err)
		}
		section, ok := strings.CutPrefix(string(got), before)
		section, ok2 := strings.CutSuffix(section, after)
		if !ok || !ok2 || strings.Contains(section, "what was there") || !strings.Contains(section, "    ovnd bench path\n") {
			t.Errorf("the document is now:\n%s", got)
		}
	}
}

func TestRefuses(t *testing.T) {
	dir := t.TempDir()
	results, doc := filepath.Join(dir, "run.json"), filepath.Join(dir, "README.md")
	write(t, results, `{"schema":"ovnd-bench/v1"}`)
	for what, content := range map[string]string{
		"no section":       "# ovnd\n",
		"no end":           report.SectionBegin + "\n",
		"the end first":    report.SectionEnd + "\n" + report.SectionBegin + "\n",
		"section twice":    strings.Repeat(report.SectionBegin+"\n"+report.SectionEnd+"\n", 2),
		"no line to begin": "see " + report.SectionBegin + " " + report.SectionEnd + "\n",
	} {
		write(t, doc, content)
		if err := run([]string{results, doc}); err == nil {
			t.Errorf("%s: replaced", what)
		}
		if got, err := os.ReadFile(doc); err != nil || string(got) != content {
			t.Errorf("%s: document changed to %q, %v", what, got, err)
		}
	}
	write(t, doc, report.SectionBegin+"\n"+report.SectionEnd+"\n")
	write(t, results, "{}")
	if err := run([]string{results, doc}); err == nil {
		t.Error("wrote the results of nothing")
	}
	if err := run(nil); err == nil {
		t.Error("runs without arguments")
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

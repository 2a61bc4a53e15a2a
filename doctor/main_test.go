package doctor

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ovnd/ovnd/bench/lab"
)

// Children of the tests examine the host that they are started in, and print
// their report.
const (
	examineEnv = "OVND_DOCTOR_TEST_CONFIG"
	strictEnv  = "OVND_DOCTOR_TEST_STRICT" // with nothing allowed
)

func TestMain(m *testing.M) {
	MaybeProbe()
	if cfg, ok := os.LookupEnv(examineEnv); ok {
		if err := examineMain(cfg); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	lab.Main(m)
}

func examineMain(config string) error {
	var cfg Config
	if err := json.Unmarshal([]byte(config), &cfg); err != nil {
		return err
	}
	if os.Getenv(strictEnv) != "" {
		if err := forbidNamespaces(); err != nil {
			return err
		}
	}
	began := time.Now()
	r := Examine(context.Background(), cfg)
	if d := time.Since(began); d > 4*patience { // of a busy machine
		return fmt.Errorf("the examination took %s", d)
	}
	if err := goleak.Find(); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(r)
}

// examineIn examines a host of the lab, in a process of its own.
func examineIn(t *testing.T, h *lab.Host, cfg Config, env ...string) Report {
	t.Helper()
	text, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var out, errs strings.Builder
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(append(os.Environ(), examineEnv+"="+string(text)), env...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := h.Start(cmd).Wait(); err != nil {
		t.Fatalf("%v: %s", err, errs.String())
	}
	var r Report
	if err := json.Unmarshal([]byte(out.String()), &r); err != nil {
		t.Fatalf("%v: %q", err, out.String())
	}
	r.check(t)
	return r
}

// check holds what is true of every report.
func (r Report) check(t *testing.T) {
	t.Helper()
	var sum Report
	var names []string
	for _, f := range r.Findings {
		sum.add(f)
		if f.Check == "" || f.Found == "" || strings.Contains(f.Found+f.Remedy, "\n") || strings.Contains(f.Found+f.Remedy, "%!") {
			t.Errorf("finding %+v", f)
		}
		if f.Level == Fail && f.Remedy == "" {
			t.Errorf("%s fails without a remedy: %s", f.Check, f.Found)
		}
		if f.Level == OK && f.Remedy != "" {
			t.Errorf("%s is ok and has a remedy: %s", f.Check, f.Remedy)
		}
		if slices.Contains(names, f.Check) {
			t.Errorf("%s is reported twice", f.Check)
		}
		names = append(names, f.Check)
	}
	if sum.Failures != r.Failures || sum.Warnings != r.Warnings || r.OK != (r.Failures == 0) {
		t.Errorf("report says OK %v, %d failures, %d warnings: counted %d and %d", r.OK, r.Failures, r.Warnings, sum.Failures, sum.Warnings)
	}
}

// finding returns the one with this name.
func (r Report) finding(t *testing.T, check string) Finding {
	t.Helper()
	for _, f := range r.Findings {
		if f.Check == check {
			return f
		}
	}
	t.Fatalf("no finding %q in %+v", check, r.Findings)
	return Finding{}
}

func (f Finding) want(t *testing.T, level Level, found, remedy string) {
	t.Helper()
	if f.Level != level || !strings.Contains(f.Found, found) || !strings.Contains(f.Remedy, remedy) || remedy == "" && f.Remedy != "" {
		t.Errorf("%+v\nwant %s with %q and remedy %q", f, level, found, remedy)
	}
}

// tree is a host whose files are laid elsewhere.
func tree(t *testing.T, cfg Config, files map[string]string) *host {
	t.Helper()
	h := &host{cfg: cfg.withDefaults(), root: t.TempDir()}
	for name, text := range files {
		path := h.root + "/" + name
		if err := os.MkdirAll(path[:strings.LastIndexByte(path, '/')], 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

package demo

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/ovnd/ovnd/bench/lab"
)

// limit is what a demo may take, in seconds.
const limit = 60

// The walk-through itself: every step must hold on this machine.
func TestWholeDemo(t *testing.T) { testWholeDemo(t) }

// The same on an encrypted network, which must hold more.
func TestWholeDemoEncrypted(t *testing.T) {
	r := testWholeDemo(t, "--encrypted")
	for _, title := range []string{"Each node has a session with the others", "What the wire carried"} {
		if !slices.ContainsFunc(r.Steps, func(s Step) bool { return s.Title == title && len(s.Checks) > 0 }) {
			t.Errorf("there is no step %q", title)
		}
	}
}

// Where tasks have no namespaces.
func TestWholeDemoWithoutTUN(t *testing.T) { testWholeDemo(t, "--tun", "never") }

func testWholeDemo(t *testing.T, args ...string) (r Report) {
	if testing.Short() {
		t.Skip("it takes most of a minute")
	}
	defer lab.Exclusive()()
	ovnd := filepath.Join(t.TempDir(), "ovnd")
	build := exec.Command("go", "build", "-o", ovnd, "github.com/ovnd/ovnd/cmd/ovnd")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cmd := exec.Command(ovnd, append([]string{"demo", "--json"}, args...)...)
	cmd.Stderr = os.Stderr
	out, runErr := cmd.Output()
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatalf("%v, report %q: %v", runErr, out, err)
	}
	for _, s := range r.Steps {
		if s.Skipped != "" {
			t.Logf("%s: skipped: %s", s.Title, s.Skipped)
		}
		for _, c := range s.Checks {
			if !c.OK {
				t.Errorf("%s: expected\n%s\nand saw\n%s", s.Title, c.Expected, c.Seen)
			}
		}
	}
	if runErr != nil || !r.OK {
		t.Errorf("exit status %v, report %v", runErr, r.OK)
	}
	if r.Seconds > limit {
		t.Errorf("it took %.0f s, more than %d", r.Seconds, limit)
	}
	if _, err := os.Lstat(r.StateDir); !os.IsNotExist(err) {
		t.Errorf("%s is left: %v", r.StateDir, err)
	}
	return r
}

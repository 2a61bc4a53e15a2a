package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func testMachine(t *testing.T, kind string) *machine {
	t.Helper()
	t.Setenv(childEnv, kind)
	t.Setenv("OVND_HOST", "unix:///elsewhere.sock")
	dir := t.TempDir()
	m := &machine{
		name: "hsp1", self: "/proc/self/exe", readyEnv: testReadyEnv, addr: netip.MustParseAddr("127.0.0.3"),
		demoDir: dir, stateDir: filepath.Join(dir, "hsp1"), logFile: filepath.Join(dir, "hsp1.log"),
	}
	t.Cleanup(func() { _ = m.down(0) })
	return m
}

func TestNodeUpAndDown(t *testing.T) {
	m := testMachine(t, "serve")
	if err := m.up(t.Context(), "--join", "TOKEN", "127.0.0.2:2377"); err != nil {
		t.Fatal(err)
	}
	const want = "up: up --foreground --hostname hsp1 --advertise-addr 127.0.0.3 --join TOKEN 127.0.0.2:2377"
	if got := m.lastWords(); got != want {
		t.Errorf("command line %q, want %q", got, want)
	}
	if got := marked(m.demoDir); !slices.Equal(got, []int{m.process.Pid}) {
		t.Errorf("processes %v, want %d", got, m.process.Pid)
	}
	if err := m.down(time.Minute); err != nil {
		t.Error(err)
	}
	if left := marked(m.demoDir); len(left) > 0 {
		t.Errorf("processes %v are left", left)
	}
}

func TestNodeThatDoesNotStart(t *testing.T) {
	m := testMachine(t, "refuse")
	if err := m.up(t.Context()); err == nil || err.Error() != "hsp1: port 4789 is taken" {
		t.Errorf("%v, want the node's own words", err)
	}
	m = testMachine(t, "die")
	if err := m.up(t.Context()); err == nil || !strings.HasPrefix(err.Error(), "hsp1 ended before it was ready: up: up --foreground") {
		t.Errorf("%v, want the end of its log", err)
	}
	m = testMachine(t, "hang")
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := m.up(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

func TestNodeThatDoesNotStop(t *testing.T) {
	m := testMachine(t, "stubborn")
	if err := m.up(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := m.down(10 * time.Millisecond); err == nil || err.Error() != "hsp1 did not stop within 10ms" {
		t.Error(err)
	}
	if err := syscall.Kill(m.process.Pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("process %d is still there: %v", m.process.Pid, err)
	}
}

func TestCommand(t *testing.T) {
	m := testMachine(t, "serve")
	if out, err := m.ovnd(t.Context(), "node", "ls"); err != nil || out != "node ls "+m.stateDir+" \n" {
		t.Errorf("%q, %v", out, err)
	}
	m = testMachine(t, "fail")
	if _, err := m.ovnd(t.Context(), "node", "ls"); err == nil || err.Error() != "it failed" {
		t.Errorf("%v, want what it printed", err)
	}
}

// Whatever fails, no process and no file is left.
func TestStopLeavesNothing(t *testing.T) {
	for _, kind := range []string{"serve", "stubborn", "die"} {
		m := testMachine(t, kind)
		err := m.up(t.Context())
		if (err != nil) != (kind == "die") {
			t.Fatal(err)
		}
		w := &walk{dir: m.demoDir, machines: []*machine{m}, census: make(census)}
		r := newRunner(nil, 0)
		if kind == "stubborn" {
			_ = m.down(0) // as after the patience with it
		}
		r.do(t.Context(), step{"Stop", true, w.stop})
		if report := r.end(); !report.OK || report.Passed != 2 {
			t.Errorf("%s: %+v", kind, report)
		}
		if _, err := os.Lstat(m.demoDir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

// A demo that is killed has a guard, which does what it would have done.
func TestGuard(t *testing.T) {
	m := testMachine(t, "serve")
	if err := m.up(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := guard(strings.NewReader("k"), m.demoDir); err != nil {
		t.Fatal(err)
	}
	if left := marked(m.demoDir); len(left) != 1 {
		t.Errorf("processes %v: the node was to be kept", left)
	}
	ours, theirs := io.Pipe()
	ended := make(chan error)
	go func() { ended <- guard(ours, m.demoDir) }()
	select {
	case err := <-ended:
		t.Fatal("the guard does not wait", err)
	case <-time.After(10 * time.Millisecond):
	}
	theirs.Close()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	<-m.ended
	if _, err := os.Lstat(m.demoDir); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// What a node has started is known when the node is gone.
func TestCensus(t *testing.T) {
	shell := exec.Command("sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!; read x")
	in, err := shell.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := shell.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	var child int
	if _, err := fmt.Fscan(out, &child); err != nil {
		t.Fatal(err)
	}
	c := make(census)
	c.take(shell.Process.Pid)
	in.Close()
	if err := shell.Wait(); err == nil {
		t.Log("read got a line")
	}
	if got := c.left(); !slices.Equal(got, []int{child}) {
		t.Errorf("processes %v, want %d", got, child)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.end(ctx); err == nil || err.Error() != "1 processes had to be killed" {
		t.Error(err)
	}
	for end := time.Now().Add(time.Minute); len(c.left()) > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("processes %v are left", c.left())
		}
	}
}

func TestParseStat(t *testing.T) {
	const rest = " S 7 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 1"
	for _, name := range []string{"(sh)", "(a b) (c)", "(:-)"} {
		if p, err := parseStat("12 " + name + rest); err != nil || p != (process{parent: 7, started: 4242}) {
			t.Errorf("%s: %+v, %v", name, p, err)
		}
	}
	for _, bad := range []string{"", "12 (sh) S 7", "12 (sh) S x" + rest} {
		if p, err := parseStat(bad); err == nil {
			t.Errorf("%q is %+v", bad, p)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add("12 (sh) S 7 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 1 1")
	f.Fuzz(func(_ *testing.T, stat string) { _, _ = parseStat(stat) })
}

func TestPlaces(t *testing.T) {
	w := &walk{dir: "/tmp/ovnd-demo-1"}
	if err := w.choosePlaces(); err != nil {
		t.Fatal(err)
	}
	seen := make(map[netip.Addr]bool)
	for i, m := range w.machines {
		if m.name != names[i] || !m.addr.IsLoopback() || seen[m.addr] || m.stateDir != "/tmp/ovnd-demo-1/"+m.name {
			t.Errorf("machine %d: %+v", i, m)
		}
		seen[m.addr] = true
	}
	if len(w.machines) != 3 || w.port < usualPort {
		t.Errorf("%d machines, port %d", len(w.machines), w.port)
	}
	// What another has is not taken.
	_, stop, err := servePage(netip.AddrPortFrom(w.machines[0].addr, w.port), "")
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	old := w.port
	if err := w.choosePort(); err != nil || w.port <= old {
		t.Errorf("port %d after %d, %v", w.port, old, err)
	}
}

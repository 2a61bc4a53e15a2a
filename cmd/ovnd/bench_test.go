package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"github.com/ovnd/ovnd/bench/report"
)

// benchEnv has this test binary be ovnd: benchmarks start themselves again.
const benchEnv = "OVND_TEST_BENCH"

func init() {
	if os.Getenv(benchEnv) != "" {
		main()
	}
}

// benchCommand is `ovnd bench …` as a process of its own.
func benchCommand(args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", append([]string{"bench"}, args...)...)
	cmd.Env = append(os.Environ(), benchEnv+"=1")
	return cmd
}

// A benchRunning is a benchmark on a terminal of its own, in the middle of its
// work.
type benchRunning struct {
	t        *testing.T
	cmd      *exec.Cmd
	terminal *os.File
	said     chan string // all of it, once the terminal is closed
	pids     map[int]bool
	spaces   map[string]bool // network namespaces
}

// startBench starts a benchmark and waits until it measures.
func startBench(t *testing.T, args ...string) *benchRunning {
	t.Helper()
	b := &benchRunning{t: t, cmd: benchCommand(args...), said: make(chan string, 1)}
	var err error
	if b.terminal, err = pty.Start(b.cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = b.cmd.Process.Kill()
		b.terminal.Close()
	})
	measuring := make(chan struct{})
	go b.listen(measuring)
	select {
	case <-measuring:
	case <-time.After(time.Minute):
		t.Fatal("nothing is measured")
	}
	b.look()
	if len(b.pids) < 6 || len(b.spaces) < 5 {
		t.Fatalf("%d processes in %d network namespaces: the test looks in the wrong place", len(b.pids), len(b.spaces))
	}
	return b
}

func (b *benchRunning) listen(measuring chan struct{}) {
	var said bytes.Buffer
	r := bufio.NewReader(b.terminal)
	for begun := false; ; {
		c, err := r.ReadByte()
		if err != nil {
			break // EIO: the last process has closed its end
		}
		said.WriteByte(c)
		if !begun && bytes.Contains(said.Bytes(), []byte("Gbits/sec")) {
			begun = true
			close(measuring)
		}
	}
	b.said <- said.String()
}

// look notes all processes below the benchmark's, and their network namespaces.
func (b *benchRunning) look() {
	b.pids, b.spaces = map[int]bool{b.cmd.Process.Pid: true}, make(map[string]bool)
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		b.t.Fatal(err)
	}
	for grown := true; grown; {
		grown = false
		for pid, parent := range parents(b.t) {
			if b.pids[parent] && !b.pids[pid] {
				b.pids[pid], grown = true, true
			}
		}
	}
	for pid := range b.pids {
		for _, ns := range namespaces(pid) {
			if ns != own {
				b.spaces[ns] = true
			}
		}
	}
}

// parents returns the parent of each process.
func parents(t *testing.T) map[int]int {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	out := make(map[int]int)
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		var pid, parent int
		var state string
		rest := string(text[bytes.LastIndexByte(text, ')')+1:]) // proc_pid_stat(5)
		if _, err := fmt.Sscan(rest, &state, &parent); err != nil || state == "Z" {
			continue
		}
		if _, err := fmt.Sscan(string(text), &pid); err == nil {
			out[pid] = parent
		}
	}
	return out
}

// namespaces returns the network namespaces of a process' threads.
func namespaces(pid int) (out []string) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/ns/net", pid))
	for _, task := range tasks {
		if ns, err := os.Readlink(task); err == nil {
			out = append(out, ns)
		}
	}
	return out
}

// ended waits for the exit code, and until nothing is left of the benchmark.
func (b *benchRunning) ended() (code int, said string) {
	b.t.Helper()
	exited := make(chan error, 1)
	go func() { exited <- b.cmd.Wait() }()
	select {
	case <-exited:
	case <-time.After(30 * time.Second):
		b.t.Fatal("the benchmark does not end")
	}
	// Who begins later is none of it, though it may have got the number of a
	// namespace that has gone.
	suspects := parents(b.t)
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		left := b.left(suspects)
		if len(left) == 0 {
			break
		}
		if time.Now().After(end) {
			b.t.Fatalf("left behind: %v", left)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(os.TempDir(), "ovnd-lab-*")); len(left) > 0 {
		b.t.Errorf("left behind: %v", left)
	}
	b.terminal.Close()
	return b.cmd.ProcessState.ExitCode(), <-b.said
}

// left returns which of the suspects are still there.
func (b *benchRunning) left(suspects map[int]int) (out []string) {
	for pid := range parents(b.t) {
		if _, ok := suspects[pid]; !ok {
			continue
		}
		if b.pids[pid] {
			out = append(out, fmt.Sprintf("process %d", pid))
		}
		for _, ns := range namespaces(pid) {
			if b.spaces[ns] {
				out = append(out, fmt.Sprintf("process %d in %s", pid, ns))
			}
		}
	}
	return out
}

// A benchmark that is ended in whatever way leaves no process and no namespace,
// and with these no device.
func TestBenchLeavesNothing(t *testing.T) {
	before := ownInterfaces(t)
	for name, c := range map[string]struct {
		end  func(*benchRunning)
		code int // -1: killed
		says string
	}{
		"Ctrl-C":      {func(b *benchRunning) { _, _ = b.terminal.Write([]byte{3}) }, 130, "interrupted"},
		"hang-up":     {func(b *benchRunning) { b.terminal.Close() }, 130, ""},
		"SIGTERM":     {func(b *benchRunning) { _ = b.cmd.Process.Signal(unix.SIGTERM) }, 130, "interrupted"},
		"killed":      {func(b *benchRunning) { _ = b.cmd.Process.Kill() }, -1, ""},
		"lab killed":  {func(b *benchRunning) { b.kill("bench\x00path", "") }, 128 + 9, ""},
		"twice":       {func(b *benchRunning) { _, _ = b.terminal.Write([]byte{3, 3}) }, 130, ""},
		"node killed": {func(b *benchRunning) { b.kill("bench\x00child", `{"switch"`) }, 1, "ovnd data plane on a has ended: signal: killed"},
	} {
		t.Run(strings.ReplaceAll(name, " ", "-"), func(t *testing.T) {
			b := startBench(t, "path", "--baseline", "wireguard", "--subject", "ovnd", "--test", "tcp", "--rounds", "4", "-t", "300ms")
			c.end(b)
			code, said := b.ended()
			if code != c.code || !strings.Contains(said, c.says) {
				t.Errorf("exit code %d, want %d; it said:\n%s", code, c.code, said)
			}
		})
	}
	if after := ownInterfaces(t); !slices.Equal(before, after) {
		t.Errorf("interfaces before %v, after %v", before, after)
	}
}

// ownInterfaces returns the names of the machine's interfaces, sorted, but for
// those of container engines, whose containers come and go beside the test.
func ownInterfaces(t *testing.T) (names []string) {
	t.Helper()
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		if !strings.HasPrefix(i.Name, "veth") && !strings.HasPrefix(i.Name, "br-") {
			names = append(names, i.Name)
		}
	}
	slices.Sort(names)
	return names
}

// kill kills the first process whose arguments and role are like these, other than
// the one that the test started.
func (b *benchRunning) kill(args, role string) {
	b.t.Helper()
	for _, pid := range slices.Sorted(maps.Keys(b.pids)) {
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if pid != b.cmd.Process.Pid && bytes.Contains(line, []byte(args)) && bytes.Contains(env, []byte("OVND_BENCH_CHILD="+role)) == (role != "") {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil {
				b.t.Fatal(err)
			}
			return
		}
	}
	b.t.Fatalf("no process %q with role %q", args, role)
}

// A peer that dies is said, and does not end the others' run.
func TestBenchPeerKilled(t *testing.T) {
	dir := t.TempDir()
	b := startBench(t, "path", "--baseline", "wireguard", "--subject", "ovnd", "--test", "tcp", "--rounds", "4", "-t", "300ms", "--out", dir)
	b.kill("bench\x00child", `{"wireguard"`)
	if code, said := b.ended(); code != 0 {
		t.Fatalf("exit code %d:\n%s", code, said)
	}
	r := readBench(t, filepath.Join(dir, "report.json"))
	for _, res := range r.Benchmarks[0].Results {
		last := res.Rounds[len(res.Rounds)-1]
		if wireguard := res.Subject == "wireguard"; wireguard != strings.Contains(last.Failed, "wireguard-go on a has ended") || len(res.Rounds) != 4 {
			t.Errorf("%s: %+v", res.Subject, last)
		}
	}
}

func readBench(t *testing.T, path string) *report.Report {
	t.Helper()
	r, err := readReport(path)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// The whole of `bench path` on small windows, as other programs call it: JSON on
// the standard output and nothing else anywhere, files in a folder, a comparison.
func TestBenchOutput(t *testing.T) {
	dir := t.TempDir()
	args := []string{"path", "--subject", "ovnd", "--baseline", "kernel", "--test", "tcp,rtt-idle", "--rounds", "2", "-t", "50ms", "--json"}
	cmd := benchCommand(append(args, "--out", dir)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, &errs)
	}
	if errs.Len() > 0 {
		t.Errorf("it said %q", &errs)
	}
	var r report.Report
	if err := json.Unmarshal(out.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	if want := "ovnd bench " + strings.Join(append(args, "--out", dir), " "); r.Run.Command != want {
		t.Errorf("command %q, want %q", r.Run.Command, want)
	}
	for _, name := range []string{"report.json", "report.txt", "report.html", "benchstat.txt"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if plots, _ := filepath.Glob(filepath.Join(dir, "*.svg")); len(plots) == 0 {
		t.Error("no plots")
	}
	show := benchCommand("show", filepath.Join(dir, "report.json"), "--compare", filepath.Join(dir, "report.json"))
	text, err := show.CombinedOutput()
	if err != nil || !strings.Contains(string(text), "kernel VXLAN") {
		t.Errorf("%v: %s", err, text)
	}
	for _, flag := range []string{"--markdown", "--benchstat", "--json"} {
		if text, err := benchCommand("show", filepath.Join(dir, "report.json"), flag).CombinedOutput(); err != nil || len(text) == 0 {
			t.Errorf("%s: %v: %s", flag, err, text)
		}
	}
}

// What is wrong is said before anything is measured.
func TestBenchRefuses(t *testing.T) {
	for want, args := range map[string][]string{
		`unknown baseline "docker"`: {"path", "--baseline", "docker"},
		`unknown test "x"`:          {"path", "--test", "x"},
		"rounds":                    {"encap", "--rounds", "0"},
		"no such file":              {"path", "--compare", "/nonexistent.json"},
		"ovnd's own use":            {"child"},
	} {
		out, err := benchCommand(args...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), want) {
			t.Errorf("%q: %v: %s", args, err, out)
		}
	}
}

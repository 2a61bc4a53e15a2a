package sandbox

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A cli is `ovnd run` as a process of its own.
type cli struct {
	t      *testing.T
	cmd    *exec.Cmd
	in     io.WriteCloser
	lines  *bufio.Reader
	stderr strings.Builder
	wait   func() int // exit code, -1 if killed
}

// command returns the process that runs r. It is not started.
func (r testRun) command(t *testing.T) *exec.Cmd {
	t.Helper()
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), runEnv+"="+string(b))
	return cmd
}

func startCLI(t *testing.T, r testRun) *cli {
	t.Helper()
	cmd := r.command(t)
	// A session of its own, so that no terminal of the tests' caller matters.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return startProcess(t, cmd)
}

func startProcess(t *testing.T, cmd *exec.Cmd) *cli {
	t.Helper()
	c := &cli{t: t, cmd: cmd}
	c.cmd.Stderr = &c.stderr
	in, err := c.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c.in, c.lines = in, bufio.NewReader(out)
	c.wait = sync.OnceValue(func() int {
		if err := c.cmd.Wait(); err != nil {
			if _, ok := errors.AsType[*exec.ExitError](err); !ok {
				t.Error(err)
			}
		}
		return c.cmd.ProcessState.ExitCode()
	})
	t.Cleanup(func() {
		_ = c.cmd.Process.Kill()
		c.wait()
	})
	return c
}

// expect waits for a line of the command's output.
func (c *cli) expect(want string) {
	c.t.Helper()
	line, err := c.lines.ReadString('\n')
	if got := strings.TrimSpace(line); got != want {
		c.t.Fatalf("output %q, error %v, want %q", got, err, want)
	}
}

// waitFor waits for a process of that name in the sandbox.
func (c *cli) waitFor(name string) {
	c.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		for _, pid := range descendants(c.cmd.Process.Pid) {
			comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
			if err == nil && strings.TrimSpace(string(comm)) == name {
				return
			}
		}
	}
	c.t.Fatalf("%s does not start", name)
}

func (c *cli) signal(s syscall.Signal) {
	c.t.Helper()
	if err := c.cmd.Process.Signal(s); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cli) exits(want int) {
	c.t.Helper()
	if got := c.wait(); got != want {
		c.t.Errorf("exit code %d, want %d; stderr:\n%s", got, want, c.stderr.String())
	}
}

// prompt fails the test if f takes as long as a SIGKILL would be away.
func prompt(t *testing.T, f func()) {
	t.Helper()
	start := time.Now()
	f()
	if took := time.Since(start); took >= endGrace {
		t.Errorf("took %v: somebody was killed", took)
	}
}

func TestSignalsReachTheCommand(t *testing.T) {
	n := newFakeNode(t)
	for i, s := range []struct {
		name string
		sig  syscall.Signal
	}{
		{"HUP", unix.SIGHUP},
		{"INT", unix.SIGINT},
		{"QUIT", unix.SIGQUIT},
		{"TERM", unix.SIGTERM},
		{"USR1", unix.SIGUSR1},
		{"USR2", unix.SIGUSR2},
		{"WINCH", unix.SIGWINCH},
	} {
		t.Run(s.name, func(t *testing.T) {
			if signal.Ignored(s.sig) {
				t.Skip("ignored by who started the tests, as nohup does; see TestIgnoredSignalsStayIgnored")
			}
			script := `trap 'echo got; exit 9' ` + s.name + `; echo ready; while :; do sleep 0.02; done`
			c := startCLI(t, testRun{Spec: n.spec(10 + i), Args: []string{"sh", "-c", script}})
			c.expect("ready")
			c.signal(s.sig)
			c.expect("got")
			prompt(t, func() { c.exits(9) })
		})
	}
}

func TestCommandDiesOfSignal(t *testing.T) {
	n := newFakeNode(t)
	c := startCLI(t, testRun{Spec: n.spec(3), Args: []string{"sh", "-c", "echo ready; exec sleep 1000"}})
	c.expect("ready")
	c.signal(unix.SIGTERM)
	c.exits(128 + int(unix.SIGTERM))
}

// SIGINT and SIGQUIT go to all processes that a terminal would send them to.
func TestInterruptReachesTheGroup(t *testing.T) {
	n := newFakeNode(t)
	c := startCLI(t, testRun{Spec: n.spec(3), Args: []string{"sh", "-c", "sleep 1000; exit 7"}})
	// A shell that got it alone would go on after the sleep.
	c.waitFor("sleep")
	c.signal(unix.SIGINT)
	c.exits(128 + int(unix.SIGINT))
}

// ignored reads SigIgn of /proc/PID/status. Signals 32 and 33 belong to the C
// library, and who starts the tests may leave them ignored, as GNU make does.
func ignored(t *testing.T, mask string) uint64 {
	t.Helper()
	set, err := strconv.ParseUint(mask, 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	return set &^ (1<<31 | 1<<32)
}

// nohup, and a script's &, mean it.
func TestIgnoredSignalsStayIgnored(t *testing.T) {
	n := newFakeNode(t)
	r := testRun{Spec: n.spec(3), Args: []string{"sh", "-c", `grep SigIgn /proc/self/status; read x; exit 4`}}
	cmd := r.command(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Path, cmd.Args = "/bin/sh", []string{"sh", "-c", `trap "" HUP; exec "$0"`, self}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	line, _ := bufio.NewReader(out).ReadString('\n')
	if got := strings.Fields(line); len(got) != 2 || ignored(t, got[1]) != 1 {
		t.Errorf("the command ignores other than SIGHUP: %q", line)
	}
	if err := cmd.Process.Signal(unix.SIGHUP); err != nil {
		t.Fatal(err)
	}
	in.Close()
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 4 {
		t.Errorf("%v, want exit code 4", err)
	}
}

func TestKilledCallerEndsEverything(t *testing.T) {
	n := newFakeNode(t)
	s := n.spec(3)
	// Both of them, one after the other, would keep the sandbox.
	c := startCLI(t, testRun{Spec: s, Args: []string{"sh", "-c", "setsid sleep 1000 & echo ready; exec sleep 1000"}})
	c.expect("ready")
	init := n.pid(s.ID)
	prompt(t, func() {
		c.signal(unix.SIGKILL)
		n.wait("detached", func() bool { return n.attached[s.ID] == nil })
		waitGone(t, init)
	})
}

// What is left in the background ends with the key that ends `ovnd run`.
func TestInterruptEndsBackground(t *testing.T) {
	n := newFakeNode(t)
	c := startCLI(t, testRun{Spec: n.spec(3), Args: []string{"sh", "-c", "setsid sleep 1000 & exit 5"}})
	c.waitFor("sleep")
	for len(descendants(c.cmd.Process.Pid)) > 2 { // the init and the sleep
		time.Sleep(5 * time.Millisecond)
	}
	c.signal(unix.SIGINT)
	prompt(t, func() { c.exits(5) })
}

func (n *fakeNode) pid(id string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.pids[id]
}

func waitGone(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(stat), ") Z ") { // its new parent may be slow
			return
		}
	}
	t.Errorf("process %d is still there", pid)
}

// The command's standard files are the caller's own: end of file goes both ways.
func TestPipes(t *testing.T) {
	n := newFakeNode(t)
	c := startCLI(t, testRun{Spec: n.spec(3), Args: []string{"sh", "-c", "cat; echo >&2 bye"}})
	big := strings.Repeat("0123456789abcde\n", 1<<16) // 1 MiB
	go func() {
		_, _ = io.WriteString(c.in, big)
		c.in.Close()
	}()
	got, err := io.ReadAll(c.lines)
	if err != nil || string(got) != big {
		t.Errorf("got %d bytes of %d, error %v", len(got), len(big), err)
	}
	c.exits(0)
	if c.stderr.String() != "bye\n" {
		t.Errorf("stderr: %q", c.stderr.String())
	}
}

package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// A console is a process at a terminal, and who types there.
type console struct {
	t    *testing.T
	cmd  *exec.Cmd
	pty  *os.File
	wait func() int // exit code

	mu   sync.Mutex
	seen string // not yet consumed by expect
	end  bool
}

// atTerminal starts cmd as the session leader of a new terminal.
func atTerminal(t *testing.T, cmd *exec.Cmd) *console {
	t.Helper()
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(cmd.Env, "PS1=prompt> ", "TERM=dumb")
	p, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 24, Cols: 80})
	if err != nil {
		t.Fatal(err)
	}
	c := &console{t: t, cmd: cmd, pty: pollable(t, p)}
	read := make(chan struct{})
	go func() {
		defer close(read)
		c.read()
	}()
	c.wait = sync.OnceValue(func() int {
		if err := cmd.Wait(); err != nil {
			if _, ok := errors.AsType[*exec.ExitError](err); !ok {
				t.Error(err)
			}
		}
		if s := cmd.ProcessState.Sys().(syscall.WaitStatus); s.Signaled() {
			return exitSignal + int(s.Signal())
		}
		return cmd.ProcessState.ExitCode()
	})
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		c.wait()
		c.pty.Close()
		<-read
	})
	return c
}

// pollable returns f so that closing it ends a read. f is closed.
func pollable(t *testing.T, f *os.File) *os.File {
	t.Helper()
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), f.Name())
}

func (c *console) read() {
	buf := make([]byte, 4096)
	for {
		n, err := c.pty.Read(buf)
		c.mu.Lock()
		c.seen += string(buf[:n])
		c.end = err != nil
		c.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (c *console) typeKeys(s string) {
	c.t.Helper()
	if _, err := c.pty.WriteString(s); err != nil {
		c.t.Fatal(err)
	}
}

// expect waits until pattern appears, and returns what came up to its end.
func (c *console) expect(pattern string) string {
	c.t.Helper()
	re := regexp.MustCompile(pattern)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		c.mu.Lock()
		at := re.FindStringIndex(c.seen)
		got, end := c.seen, c.end
		if at != nil {
			got, c.seen = c.seen[:at[1]], c.seen[at[1]:]
		}
		c.mu.Unlock()
		if at != nil {
			return got
		}
		if end || time.Now().After(deadline) {
			c.t.Fatalf("the terminal shows no %q but %q", pattern, got)
		}
	}
}

func (c *console) exits(want int) {
	c.t.Helper()
	if got := c.wait(); got != want {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.t.Errorf("exit code %d, want %d; the terminal shows %q", got, want, c.seen)
	}
}

const (
	ctrlC = "\x03"
	ctrlD = "\x04"
	ctrlZ = "\x1a"
)

// shellAround starts an interactive bash in which $RUN is `ovnd run` with r.
func shellAround(t *testing.T, r testRun) *console {
	t.Helper()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("needs bash as the user's shell")
	}
	run := r.command(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bash, "--norc", "--noprofile", "--noediting", "-i")
	cmd.Env = append(run.Env, "RUN="+self)
	c := atTerminal(t, cmd)
	c.expect("prompt> ")
	return c
}

func TestWindowSize(t *testing.T) {
	n := newFakeNode(t)
	script := `test -t 0 && test -t 1 && test -t 2 && stty size
trap 'stty size; exit 6' WINCH; echo ready; while :; do sleep 0.02; done`
	c := atTerminal(t, testRun{Spec: n.spec(3), Args: []string{"sh", "-c", script}}.command(t))
	c.expect("24 80\r\nready\r\n")
	if err := pty.Setsize(c.pty, &pty.Winsize{Rows: 50, Cols: 132}); err != nil {
		t.Fatal(err)
	}
	c.expect("50 132\r\n")
	c.exits(6)
}

// Ctrl-C reaches the command once, from the terminal and not from Run too.
func TestInterruptKey(t *testing.T) {
	n := newFakeNode(t)
	script := `n=0; trap 'n=$((n+1)); echo interrupt $n' INT; trap 'exit 8' QUIT; echo ready; while :; do sleep 0.02; done`
	c := atTerminal(t, testRun{Spec: n.spec(3), Args: []string{"sh", "-c", script}}.command(t))
	c.expect("ready\r\n")
	for i := range 3 {
		c.typeKeys(ctrlC)
		if got := c.expect(fmt.Sprintf("interrupt %d\r\n", i+1)); strings.Count(got, "interrupt") != 1 {
			t.Errorf("more than one SIGINT for a key: %q", got)
		}
	}
	c.typeKeys("\x1c")
	c.exits(8)
}

func TestInteractiveShells(t *testing.T) {
	for _, shell := range [][]string{{"sh", "-i"}, {"bash", "--norc", "--noprofile", "--noediting", "-i"}} {
		t.Run(shell[0], func(t *testing.T) {
			if _, err := exec.LookPath(shell[0]); err != nil {
				t.Skip(err)
			}
			n := newFakeNode(t)
			c := atTerminal(t, testRun{Spec: n.spec(3), Args: shell}.command(t))
			if got := c.expect("prompt> "); got != "prompt> " {
				t.Errorf("the shell complains: %q", got)
			}
			c.typeKeys("sleep 1000\n")
			c.expect("sleep 1000\r\n")
			c.waitForeground("sleep")
			c.typeKeys(ctrlZ)
			c.expect("(?s)Stopped.*prompt> ")
			c.typeKeys("jobs; fg\n")
			c.expect("(?s)Stopped.*sleep 1000\r\n.*sleep 1000\r\n")
			c.waitForeground("sleep")
			c.typeKeys(ctrlC)
			c.expect("prompt> ")
			c.typeKeys("exit 3\n")
			c.exits(3)
		})
	}
}

// waitForeground waits until a process of that name runs in the terminal's
// foreground.
func (c *console) waitForeground(name string) {
	c.t.Helper()
	c.waitTerminal(name+" does not come to the foreground", func(stat string) bool {
		return strings.Contains(stat, "("+name+") S")
	})
}

// waitNoShell waits until the terminal is somebody else's than the shell's.
func (c *console) waitNoShell() {
	c.t.Helper()
	c.waitTerminal("the shell keeps the terminal", func(stat string) bool {
		return !strings.Contains(stat, "(bash)") && !strings.Contains(stat, "(sh)")
	})
}

// waitTerminal waits until the leader of the terminal's foreground group is as
// wanted, by its /proc/PID/stat.
func (c *console) waitTerminal(otherwise string, wanted func(stat string) bool) {
	c.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(2 * time.Millisecond) {
		var pgrp uint32
		c.ioctl(func(fd int) (err error) {
			pgrp, err = unix.IoctlGetUint32(fd, unix.TIOCGPGRP)
			return err
		})
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pgrp))
		if err == nil && wanted(string(stat)) {
			return
		}
	}
	c.t.Fatal(otherwise)
}

// The user's shell sees a job like any other.
func TestJobControl(t *testing.T) {
	n := newFakeNode(t)
	s := n.spec(3)
	c := shellAround(t, testRun{Spec: s, Args: []string{"sh", "-c", "echo ready; exec sleep 1000"}})
	c.typeKeys("$RUN\n")
	c.expect("ready\r\n")
	c.waitForeground("sleep")
	for range 2 {
		c.typeKeys(ctrlZ)
		c.expect("(?s)Stopped.*prompt> ")
		c.typeKeys("fg\n")
		c.expect("RUN\r\n")
		c.waitForeground("sleep")
	}
	c.typeKeys(ctrlZ)
	c.expect("(?s)Stopped.*prompt> ")
	c.typeKeys("bg\n")
	c.expect("prompt> ")
	c.typeKeys("fg\n")
	c.expect("RUN\r\n")
	c.waitNoShell() // it says what it takes to the front before it does
	c.typeKeys(ctrlC)
	c.expect("prompt> ")
	c.typeKeys("echo code $?\n")
	c.expect("code 130\r\n")
}

// A job in the background may not read from the terminal, until it is in front.
func TestBackgroundJob(t *testing.T) {
	n := newFakeNode(t)
	c := shellAround(t, testRun{Spec: n.spec(3), Args: []string{"sh", "-c", `read x; echo "got $x"; exit 4`}})
	c.typeKeys("$RUN &\n")
	c.expect(`\[1\] \d+`)
	for deadline := time.Now().Add(10 * time.Second); ; {
		c.typeKeys("jobs\n")
		if strings.Contains(c.expect(`\[1\].*RUN`), "Stopped") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the job reads from the background")
		}
		time.Sleep(20 * time.Millisecond)
	}
	c.typeKeys("fg\n")
	c.expect("fg\r\n.*RUN\r\n")
	c.typeKeys("line\n")
	c.expect("got line\r\n")
	c.expect("prompt> ")
	c.typeKeys("echo code $?\n")
	c.expect("code 4\r\n")
}

// In a pipeline others may want the terminal: the command has it on demand.
func TestPipeline(t *testing.T) {
	n := newFakeNode(t)
	c := shellAround(t, testRun{Spec: n.spec(3), Args: []string{"sh", "-c", `echo "first"; read x; echo "got $x"; exec sleep 1000`}})
	c.typeKeys("$RUN | while read line; do echo \"out: $line\"; done\n")
	c.expect("out: first\r\n")
	c.typeKeys("line\n")
	c.expect("out: got line\r\n")
	c.waitForeground("sleep")
	c.typeKeys(ctrlC)
	c.expect("prompt> ")
	c.typeKeys("echo back\n")
	c.expect("back\r\n")
}

// A script goes on at the terminal after `ovnd run`.
func TestScript(t *testing.T) {
	n := newFakeNode(t)
	run := testRun{Spec: n.spec(3), Args: []string{"sh", "-c", `read x; echo "inside $x"`}}.command(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", `"$0"; read x; echo "outside $x"; exit 6`, self)
	cmd.Env = run.Env
	c := atTerminal(t, cmd)
	c.typeKeys("one\n")
	c.expect("inside one\r\n")
	c.typeKeys("two\n")
	c.expect("outside two\r\n")
	c.exits(6)
}

func TestTerminalModeIsRestored(t *testing.T) {
	n := newFakeNode(t)
	s := n.spec(3)
	c := shellAround(t, testRun{Spec: s, Args: []string{"sh", "-c", "stty raw -echo; echo ready; kill -KILL $$"}})
	before := c.mode()
	c.typeKeys("$RUN; stty -a | head -0\n")
	c.expect("ready")
	c.expect("prompt> ")
	if now := c.mode(); now != before {
		t.Errorf("terminal mode is %+v, was %+v", now, before)
	}
}

func (c *console) mode() (m unix.Termios) {
	c.t.Helper()
	c.ioctl(func(fd int) error {
		got, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		if err == nil {
			m = *got
		}
		return err
	})
	return m
}

// ioctl is for what must not set the terminal to blocking, as File.Fd does.
func (c *console) ioctl(f func(fd int) error) {
	c.t.Helper()
	raw, err := c.pty.SyscallConn()
	if err == nil {
		cerr := raw.Control(func(fd uintptr) { err = f(int(fd)) })
		err = errors.Join(err, cerr)
	}
	if err != nil {
		c.t.Fatal(err)
	}
}

// The terminal's window is closed, or its connection is lost.
func TestTerminalGoesAway(t *testing.T) {
	n := newFakeNode(t)
	for _, test := range []struct{ name, script string }{
		{"default", "echo ready; exec sleep 1000"},
		{"SIGHUP ignored", `trap "" HUP; echo ready; exec sleep 1000`},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := n.spec(3)
			c := atTerminal(t, testRun{Spec: s, Args: []string{"sh", "-c", test.script}}.command(t))
			c.expect("ready\r\n")
			n.wait("attached", func() bool { return n.attached[s.ID] != nil })
			init := n.pid(s.ID)
			prompt(t, func() {
				c.pty.Close()
				n.wait("detached", func() bool { return n.attached[s.ID] == nil })
				waitGone(t, init)
			})
		})
	}
}

// A command without standard files of a terminal still finds it, as ssh does
// for passwords.
func TestControllingTerminal(t *testing.T) {
	n := newFakeNode(t)
	c := shellAround(t, testRun{Spec: n.spec(3), Args: []string{"sh", "-c", `read x </dev/tty; echo "got $x" >/dev/tty`}})
	c.typeKeys("$RUN </dev/null >/dev/null 2>&1\n")
	c.expect("2>&1\r\n")
	c.waitForeground("sh")
	c.typeKeys("secret\n")
	c.expect("got secret\r\n")
	c.expect("prompt> ")
}

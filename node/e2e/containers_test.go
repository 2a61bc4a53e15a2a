package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
)

// TestContainers is the stock docker CLI with what runs on a node: a task of a
// service and a process of `ovnd run`.
func TestContainers(t *testing.T) {
	if _, err := exec.LookPath("docker"); err != nil {
		if ci {
			t.Fatal("CI needs the docker CLI")
		}
		t.Skip("no docker command here")
	}
	hosts, addrs := oneMachine(t)
	n := newNode(t, hosts[0], "n1", addrs[0]).up()
	n.must("network", "create", "-d", "overlay", "--attachable", "net")
	n.must("service", "create", "-q", "--name", "talk", "--network", "net", "--env", "A=b", "--stop-signal", "INT",
		"host", "sh", "-c", "trap 'exit 5' INT; echo hello; echo trouble >&2; while :; do sleep 0.05; done")
	box := n.sandbox([]string{"--network", "net", "--name", "box"}, "sh", "-c", "echo up; exec sleep 1000")
	box.waitOutput("up")
	c := containerTest{n, box, strings.TrimSpace(dockerCLI(n, "ps", "--format", "{{.Names}}", "--filter", "is-task=true").stdout)}
	if !strings.HasPrefix(c.task, "talk.1.") {
		t.Fatalf("docker ps shows %q", c.task)
	}
	c.lists()
	c.execs()
	c.terminal()
	c.ends()
}

type containerTest struct {
	n    *node
	box  *sandbox
	task string // its name
}

// expect runs the docker CLI and compares.
func (c containerTest) expect(stdout, stderr string, code int, args ...string) {
	c.n.t.Helper()
	r := dockerCLI(c.n, args...)
	if r.code != code || !strings.Contains(r.stdout, stdout) || !strings.Contains(r.stderr, stderr) || stderr == "" && r.stderr != "" {
		c.n.t.Errorf("docker %s: %+v, want exit %d, stdout %q, stderr %q", strings.Join(args, " "), r, code, stdout, stderr)
	}
}

func (c containerTest) lists() {
	c.expect("sleep|running|box\n", "", 0, "ps", "--filter", "name=box", "--format", "{{.Image}}|{{.State}}|{{.Names}}")
	c.expect("host:latest|", "", 0, "ps", "--filter", "name="+c.task, "--format", "{{.Image}}|{{.Status}}")
	c.expect("talk|true|INT", "", 0, "inspect", "-f", `{{index .Config.Labels "com.docker.swarm.service.name"}}|{{.State.Running}}|{{.Config.StopSignal}}`, c.task)
	c.expect("hello\n", "trouble\n", 0, "logs", c.task)
	c.expect("", "has no log", 1, "logs", "box")
	c.expect("sleep 1000", "", 0, "top", "box")
	c.expect("sleep 0.05", "", 0, "top", c.task)
}

func (c containerTest) execs() {
	c.expect("b c\n", "", 0, "exec", "-e", "C=c", c.task, "sh", "-c", "echo $A $C")
	c.expect("/usr\n", "", 0, "exec", "-w", "/usr", "box", "pwd")
	c.expect("", "bad\n", 7, "exec", c.task, "sh", "-c", "echo bad >&2; exit 7")
	c.expect("", "", 143, "exec", "box", "sh", "-c", "kill $$")
	c.expect("no-such-program", "", 127, "exec", "box", "no-such-program")
	c.expect("", "", 126, "exec", "box", "/etc")
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	cmd := c.docker("exec", "-i", c.task, "cat")
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout = bytes.NewReader(data), &out
	if err := cmd.Run(); err != nil || !bytes.Equal(out.Bytes(), data) {
		c.n.t.Errorf("%d of %d bytes came back through cat: %v", out.Len(), len(data), err)
	}
}

// docker is the stock CLI as this node's user, with its streams free.
func (c containerTest) docker(args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	c.n.t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, "docker", append([]string{"-H", "unix://" + filepath.Join(c.n.stateDir, "run", "ovnd.sock")}, args...)...)
	cmd.Env = append(os.Environ(), "TERM=xterm")
	ordinaryUser(cmd)
	return cmd
}

// terminal is exec -it: a terminal of the client's size, which follows it, job
// control, and the exit status.
func (c containerTest) terminal() {
	t := c.n.t
	cmd := c.docker("exec", "-it", c.task, "sh")
	screen, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 33, Cols: 101})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = screen.Close() }()
	var seen lockedBuffer
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = io.Copy(&seen, screen) // it ends with the command
	}()
	step := func(typed string, want ...string) {
		t.Helper()
		if _, err := io.WriteString(screen, typed); err != nil {
			t.Fatal(err)
		}
		c.n.eventually("the terminal shows "+strings.Join(want, ", "), func() error {
			if s := seen.String(); slices.ContainsFunc(want, func(w string) bool { return !strings.Contains(s, w) }) {
				return fmt.Errorf("it shows %q", s)
			}
			return nil
		})
	}
	step("stty size; tty; hostname; echo rea''dy\n", "33 101", "/dev/pts/", "ready")
	if err := pty.Setsize(screen, &pty.Winsize{Rows: 40, Cols: 120}); err != nil {
		t.Fatal(err)
	}
	step("while [ \"$(stty size)\" != '40 120' ]; do sleep 0.01; done; echo res''ized\n", "resized")
	step("echo slee''ping; sleep 1000\n", "sleeping")
	step("\x03", "^C")
	step("echo status $?\n", "status 130")
	if _, err := io.WriteString(screen, "exit 9\n"); err != nil {
		t.Fatal(err)
	}
	err = cmd.Wait()
	<-read
	if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 9 {
		t.Errorf("exec -it ended with %v, want status 9; it showed %q", err, seen.String())
	}
}

// ends stops both: the one is replaced, the other is gone.
func (c containerTest) ends() {
	wait := c.docker("wait", c.task)
	var codes bytes.Buffer
	wait.Stdout = &codes
	if err := wait.Start(); err != nil {
		c.n.t.Fatal(err)
	}
	c.expect(c.task+"\n", "", 0, "stop", c.task)
	if err := wait.Wait(); err != nil || codes.String() != "5\n" {
		c.n.t.Errorf("docker wait printed %q, %v; want 5", codes.String(), err)
	}
	c.expect("box\n", "", 0, "kill", "box")
	<-c.box.process.Done()
	c.expect("Exited (5) ", "", 0, "ps", "-a", "--filter", "name="+c.task, "--format", "{{.Status}}")
	c.expect("", "container ", 1, "exec", c.task, "true")
	c.expect("", "No such container: box", 1, "logs", "box")
	c.n.eventually("the task is replaced", func() error {
		out := dockerCLI(c.n, "ps", "--format", "{{.Names}}").stdout
		if !strings.HasPrefix(out, "talk.1.") || strings.Contains(out, c.task) {
			return errors.New(out)
		}
		return nil
	})
}

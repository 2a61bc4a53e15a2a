// Package e2e runs real ovnd processes, as a user without capabilities, and
// uses them as a person would: by the command line.
package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ovnd/ovnd/bench/lab"
)

// ci is set where nothing may be skipped.
var ci = os.Getenv("OVND_CI") != ""

// ovndPath is the program under test.
var ovndPath string

func TestMain(m *testing.M) {
	if os.Getenv(agentEnv) != "" {
		agentMain()
	}
	if what := os.Getenv(breakEnv); what != "" {
		breakMain(what)
	}
	lab.Enter()
	lab.Exclusive()
	dir, err := os.MkdirTemp("", "ovnd-e2e-")
	if err != nil {
		fatal(err)
	}
	ovndPath = filepath.Join(dir, "ovnd")
	args := []string{"build", "-o", ovndPath}
	if os.Getenv("OVND_RACE") != "" {
		args = append(args, "-race")
	}
	build := exec.Command("go", append(args, "github.com/ovnd/ovnd/cmd/ovnd")...)
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		fatal(fmt.Errorf("go build: %w", err))
	}
	code := m.Run()
	_ = os.RemoveAll(dir) // in a temporary folder anyway
	os.Exit(code)
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "e2e:", err)
	os.Exit(1)
}

// userID is the user that ovnd runs as: not root, and without a capability in
// the namespaces that it is started in.
const userID = 1000

// ordinaryUser makes cmd run as userID in a user namespace of its own. The
// kernel takes all capabilities away when a user other than root executes a
// program (capabilities(7)), and those over the parent's namespaces it never had.
func ordinaryUser(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
	cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: userID, HostID: os.Getuid(), Size: 1}}
	cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: userID, HostID: os.Getgid(), Size: 1}}
}

// A node is one ovnd with a state folder of its own.
type node struct {
	t        *testing.T
	host     *lab.Host
	name     string
	addr     string // advertised
	stateDir string
	log      string
	process  *lab.Process
}

// newNode prepares a node; it does not start it.
func newNode(t *testing.T, host *lab.Host, name, addr string) *node {
	t.Helper()
	dir, err := os.MkdirTemp("", "ovnd-"+name+"-") //nolint:usetesting // t.TempDir is too long for the sockets in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	n := &node{t: t, host: host, name: name, addr: addr, stateDir: filepath.Join(dir, "s"), log: filepath.Join(dir, "log")}
	t.Cleanup(n.checkLog)
	return n
}

// checkLog fails the test for what a node must never print, and shows the log
// of a test that failed.
func (n *node) checkLog() {
	text, _ := os.ReadFile(n.log) // none, if the node was not started
	for _, bad := range []string{"DATA RACE", "panic: ", "fatal error: "} {
		if strings.Contains(string(text), bad) {
			n.t.Errorf("%s: %s", n.name, bad)
		}
	}
	if n.t.Failed() {
		n.dumpLog()
	}
}

func (n *node) dumpLog() {
	text, err := os.ReadFile(n.log)
	if err != nil {
		return
	}
	lines := strings.Split(string(text), "\n")
	if len(lines) > 60 {
		lines = lines[len(lines)-60:]
	}
	n.t.Logf("log of %s:\n%s", n.name, strings.Join(lines, "\n"))
}

// up starts the node in the foreground, as a process of the test, and waits
// until it answers.
func (n *node) up(args ...string) *node {
	n.t.Helper()
	args = append([]string{"up", "--foreground", "--hostname", n.name, "--advertise-addr", n.addr}, args...)
	n.start(args...)
	n.waitReady()
	return n
}

func (n *node) start(args ...string) {
	n.t.Helper()
	out, err := os.OpenFile(n.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		n.t.Fatal(err)
	}
	defer out.Close()
	cmd := n.command(context.Background(), args...)
	cmd.Stdout, cmd.Stderr = out, out
	n.process = n.host.Start(cmd)
}

func (n *node) waitReady() {
	n.t.Helper()
	n.eventually("node "+n.name+" is ready", func() error {
		select {
		case <-n.process.Done():
			n.t.Fatalf("node %s ended: %v", n.name, n.process.Wait())
		default:
		}
		_, err := n.try("status")
		return err
	})
}

// command is one ovnd command of this node's user.
func (n *node) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, ovndPath, args...)
	home := filepath.Dir(n.stateDir)
	cmd.Dir = home
	cmd.Env = append(os.Environ(), "OVND_STATE_DIR="+n.stateDir, "HOME="+home, "XDG_RUNTIME_DIR=", "OVND_HOST=")
	ordinaryUser(cmd)
	return cmd
}

// A result is what a command printed and how it ended.
type result struct {
	stdout, stderr string
	code           int
}

// run runs a command to its end.
func (n *node) run(args ...string) result {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := n.command(ctx, args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := n.host.Do(func() error { return cmd.Start() })
	if err != nil {
		n.t.Fatalf("%s: %v", args, err)
	}
	_ = cmd.Wait() // the exit code says it
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// try returns standard output, and an error for an exit status other than 0.
func (n *node) try(args ...string) (string, error) {
	n.t.Helper()
	r := n.run(args...)
	if r.code != 0 {
		return r.stdout, fmt.Errorf("ovnd %s on %s: exit %d\n%s%s", strings.Join(args, " "), n.name, r.code, r.stdout, r.stderr)
	}
	return r.stdout, nil
}

// must is try that ends the test on an error; trailing newlines are cut.
func (n *node) must(args ...string) string {
	n.t.Helper()
	out, err := n.try(args...)
	if err != nil {
		n.t.Fatal(err)
	}
	return strings.TrimRight(out, "\n")
}

// eventually waits for a condition, without a fixed sleep in the way of a fast
// machine.
func (n *node) eventually(what string, cond func() error) {
	n.t.Helper()
	n.eventuallyWithin(time.Minute, what, cond)
}

// eventuallyWithin is eventually with another bound than a minute.
func (n *node) eventuallyWithin(patience time.Duration, what string, cond func() error) {
	n.t.Helper()
	deadline := time.Now().Add(patience)
	pause := 5 * time.Millisecond
	for {
		err := cond()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			n.t.Fatalf("not within %v: %s: %v", patience, what, err)
		}
		time.Sleep(pause)
		pause = min(2*pause, 200*time.Millisecond)
	}
}

// kill ends the node as a crash would.
func (n *node) kill() { n.process.Kill() }

// waitLog waits until the node has logged text since it was last ready.
func (n *node) waitLog(text string) {
	n.t.Helper()
	n.eventually("log of "+n.name+" says "+text, func() error {
		log, err := os.ReadFile(n.log)
		if err != nil {
			return err
		}
		ready := bytes.LastIndex(log, []byte("node is ready"))
		if ready < 0 || !bytes.Contains(log[ready:], []byte(text)) {
			return errors.New("not yet")
		}
		return nil
	})
}

// down ends the node as its user would.
func (n *node) down() {
	n.t.Helper()
	n.must("down")
	<-n.process.Done()
}

// token is the join token of a role, read on a manager.
func (n *node) token(role string) string {
	n.t.Helper()
	return n.must("swarm", "join-token", "-q", role)
}

// A sandbox is one `ovnd run` that keeps running.
type sandbox struct {
	node    *node
	process *lab.Process
	stdin   *os.File
	out     *lockedBuffer
}

// sandbox starts a command on the node, attached to networks.
func (n *node) sandbox(runArgs []string, argv ...string) *sandbox {
	n.t.Helper()
	args := append(append([]string{"run"}, runArgs...), append([]string{"--"}, argv...)...)
	return n.attend(n.command(context.Background(), args...))
}

// attend starts a command that is given lines to read.
func (n *node) attend(cmd *exec.Cmd) *sandbox {
	n.t.Helper()
	stdinR, stdinW, err := os.Pipe()
	if err != nil {
		n.t.Fatal(err)
	}
	s := &sandbox{node: n, stdin: stdinW, out: &lockedBuffer{}}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdinR, s.out, s.out
	s.process = n.host.Start(cmd)
	stdinR.Close()
	n.t.Cleanup(func() { stdinW.Close() })
	return s
}

// waitOutput waits for text in what the sandbox printed.
func (s *sandbox) waitOutput(text string) {
	s.node.t.Helper()
	s.node.eventually("sandbox prints "+text, func() error {
		if strings.Contains(s.out.String(), text) {
			return nil
		}
		select {
		case <-s.process.Done():
			s.node.t.Fatalf("sandbox ended (%v) with:\n%s", s.process.Wait(), s.out.String())
		default:
		}
		return fmt.Errorf("printed so far:\n%s", s.out.String())
	})
}

// hostAgent starts an agent beside the node's processes.
func hostAgent(n *node) *sandbox {
	n.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		n.t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), agentEnv+"=1")
	return n.attend(cmd)
}

// writeFile makes a file that anybody may see.
func writeFile(t *testing.T, path string) {
	t.Helper()
	if err := os.Chmod(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // of a test
		t.Fatal(err)
	}
	if err := os.WriteFile(path, nil, 0o644); err != nil { //nolint:gosec // of a test
		t.Fatal(err)
	}
}

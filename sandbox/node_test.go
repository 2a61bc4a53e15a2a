package sandbox

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// join forwards between the single queues of two sandboxes until ctx ends.
func (n *fakeNode) join(ctx context.Context, a, b string) (done func()) {
	n.t.Helper()
	n.mu.Lock()
	fa, fb := dupQueue(n.t, n.attached[a]), dupQueue(n.t, n.attached[b])
	n.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() { forward(ctx, fa, fb) })
	wg.Go(func() { forward(ctx, fb, fa) })
	return func() {
		wg.Wait()
		unix.Close(fa)
		unix.Close(fb)
	}
}

func dupQueue(t *testing.T, devs []Devices) int {
	t.Helper()
	fd := -1
	raw, err := devs[0].Queues[0].SyscallConn()
	if err == nil {
		err = raw.Control(func(old uintptr) { fd, err = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 0) })
	}
	if err != nil || fd < 0 {
		t.Fatalf("duplicate a queue: %v", err)
	}
	return fd
}

// forward copies super-packets with their headers: both ends have the same
// offloads.
func forward(ctx context.Context, from, to int) {
	buf := make([]byte, 1<<16+10)
	for ctx.Err() == nil {
		ready, err := unix.Poll([]unix.PollFd{{Fd: int32(from), Events: unix.POLLIN}}, 20)
		if err != nil || ready == 0 {
			continue
		}
		if n, err := unix.Read(from, buf); err == nil {
			_, _ = unix.Write(to, buf[:n]) // TCP repeats what is lost
		}
	}
}

// The node is killed and started again: devices, addresses, commands and their
// TCP connection are the same.
func TestConnectionOutlivesNode(t *testing.T) {
	n := newFakeNode(t)
	a, b := n.spec(3), n.spec(4)
	serve, talk := helper(t, "serve", "10.10.0.3:7"), helper(t, "talk", "10.10.0.3:7")
	server := startCLI(t, testRun{Spec: a, Args: serve.Args, Env: serve.Env})
	server.expect("listening")
	client := startCLI(t, testRun{Spec: b, Args: talk.Args, Env: talk.Env})
	n.wait("both attached", func() bool { return len(n.attached) == 2 })
	pids := [2]int{n.pid(a.ID), n.pid(b.ID)}

	ctx, cancel := context.WithCancel(t.Context())
	finish := n.join(ctx, a.ID, b.ID)
	next := 0
	hear := func(lines int) {
		t.Helper()
		for range lines {
			client.expect(fmt.Sprint(next))
			next++
		}
	}
	hear(5)
	for range 2 {
		cancel()
		finish()
		n.stop()
		n.wait("detached", func() bool { return len(n.attached) == 0 })
		time.Sleep(firstRetry) // an attempt or two fail
		n.start()
		n.wait("attached again", func() bool { return len(n.attached) == 2 })
		if now := [2]int{n.pid(a.ID), n.pid(b.ID)}; now != pids {
			t.Fatalf("inits are %d, were %d", now, pids)
		}
		ctx, cancel = context.WithCancel(t.Context())
		finish = n.join(ctx, a.ID, b.ID)
		hear(5)
	}
	client.in.Close()
	go func() { // a number may still be on its way
		for {
			if _, err := client.lines.ReadString('\n'); err != nil {
				return
			}
		}
	}()
	client.exits(0)
	server.exits(0)
	cancel()
	finish()
}

func TestGone(t *testing.T) {
	n := newFakeNode(t)
	s := n.spec(3)
	c := startCLI(t, testRun{Spec: s, Args: []string{"sh", "-c", "echo ready; exec sleep 1000"}})
	c.expect("ready")
	n.stop()
	n.mu.Lock()
	n.refuse = fmt.Errorf("attachment was removed: %w", ErrGone)
	n.mu.Unlock()
	n.start()
	prompt(t, func() { c.exits(128 + int(unix.SIGTERM)) })
	if !strings.Contains(c.stderr.String(), "attachment was removed") {
		t.Errorf("stderr does not say why: %q", c.stderr.String())
	}
}

// A node that restarts may refuse for a while: the command knows nothing of it.
func TestRefusedOnReturn(t *testing.T) {
	n := newFakeNode(t)
	s := n.spec(3)
	c := startCLI(t, testRun{Spec: s, Args: []string{"sh", "-c", "echo ready; read x; exit 4"}})
	c.expect("ready")
	n.stop()
	n.mu.Lock()
	n.refuse = os.ErrDeadlineExceeded
	n.mu.Unlock()
	n.start()
	time.Sleep(3 * firstRetry)
	n.mu.Lock()
	n.refuse = nil
	n.mu.Unlock()
	n.wait("attached again", func() bool { return n.count == 2 })
	c.in.Close()
	c.exits(4)
}

// The user need not wait for a node that does not answer.
func TestInterruptBeforeStart(t *testing.T) {
	n := newFakeNode(t)
	asked, answer := make(chan struct{}), make(chan struct{})
	n.mu.Lock()
	n.asked = func() { close(asked); <-answer }
	n.mu.Unlock()
	defer close(answer)
	c := startCLI(t, testRun{Spec: n.spec(3), Args: []string{"true"}})
	<-asked
	c.signal(unix.SIGINT)
	prompt(t, func() { c.exits(128 + int(unix.SIGINT)) })
}

func TestContextEndsSandbox(t *testing.T) {
	n := newFakeNode(t)
	s := n.spec(3)
	ctx, cancel := context.WithCancel(t.Context())
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	go func() {
		n.wait("attached", func() bool { return n.attached[s.ID] != nil })
		cancel()
	}()
	prompt(t, func() {
		code, err := Run(ctx, s, Command{Args: []string{"sleep", "1000"}, Stdin: null, Stdout: null, Stderr: null})
		// Attached is not started yet.
		if code != 128+int(unix.SIGTERM) {
			t.Errorf("exit code %d, error %v", code, err)
		}
	})
}

func TestEnd(t *testing.T) {
	n := newFakeNode(t)
	s := n.spec(3)
	c := startCLI(t, testRun{Spec: s, Args: []string{"sh", "-c", "echo ready; exec sleep 1000"}})
	c.expect("ready")
	n.server.End("0000", "another's")
	n.server.End(s.ID, "the task was shut down")
	prompt(t, func() { c.exits(128 + int(unix.SIGTERM)) })
	if !strings.Contains(c.stderr.String(), "the task was shut down") {
		t.Errorf("stderr does not say why: %q", c.stderr.String())
	}
}

func TestGoodbye(t *testing.T) {
	n := newFakeNode(t)
	script := `trap 'echo got; exit 9' TERM; echo ready; while :; do sleep 0.02; done`
	var boxes []*cli
	for i := range 3 {
		boxes = append(boxes, startCLI(t, testRun{Spec: n.spec(3 + i), Args: []string{"sh", "-c", script}}))
	}
	for _, c := range boxes {
		c.expect("ready")
	}
	prompt(t, n.server.Goodbye)
	n.wait("detached", func() bool { return len(n.attached) == 0 })
	for _, c := range boxes {
		c.expect("got")
		c.exits(9)
		if !strings.Contains(c.stderr.String(), "node is going down") {
			t.Errorf("stderr does not say why: %q", c.stderr.String())
		}
	}
	late := startCLI(t, testRun{Spec: n.spec(9), Args: []string{"true"}})
	late.exits(ExitFailure)
}

// A command that does not listen is killed after ten seconds, no sooner.
func TestGoodbyeKills(t *testing.T) {
	if testing.Short() {
		t.Skip("takes ten seconds")
	}
	t.Parallel()
	n := newFakeNode(t)
	c := startCLI(t, testRun{Spec: n.spec(3), Args: []string{"sh", "-c", `trap "" TERM HUP; echo ready; while :; do sleep 1; done`}})
	c.expect("ready")
	start := time.Now()
	n.server.Goodbye()
	if took := time.Since(start); took < endGrace || took >= goodbyeTimeout {
		t.Errorf("took %v, want %v", took, endGrace)
	}
	c.exits(128 + int(unix.SIGKILL))
}

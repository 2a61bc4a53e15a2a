package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/moby/moby/api/types/container"

	cerrdefs "github.com/containerd/errdefs"
)

// fakeContainers is a ContainerBackend whose commands are children of the
// test: real processes, pipes and terminals without namespaces.
type fakeContainers struct {
	mu    sync.Mutex
	byID  map[string]*fakeContainer
	order []string
	execs []*fakeExec
}

type fakeContainer struct {
	Container
	cmd     *exec.Cmd
	lines   []LogLine
	changed chan struct{} // closed and renewed with each line
	ended   chan struct{}
}

func newFakeContainers() *fakeContainers { return &fakeContainers{byID: map[string]*fakeContainer{}} }

const (
	webID  = "821f692a75de8e94c043bb0e23db2c18c2b169aa19b2dd6686be5e4e5623c381"
	webTwo = "aaf4ea038b2bdda49155564dd8fd43f76ec673637bf8995f1a070f615e8ec55c"
	runID  = "aaf7000000000000000000000000000000000000000000000000000000000000"
)

// task describes a task as the node would.
func task(id, name string) Container {
	return Container{
		ID: id, Name: name, Image: "nginx:latest", Env: []string{"A=b"}, LogPath: "/var/lib/ovnd/x.log",
		Labels: map[string]string{
			"tier": "front", "com.docker.swarm.node.id": managerID, "com.docker.swarm.task": "",
			"com.docker.swarm.service.id": "ivcb6veswzb8lbiguopvgmfyr", "com.docker.swarm.service.name": "my-test",
			"com.docker.swarm.task.id": name[strings.LastIndexByte(name, '.')+1:], "com.docker.swarm.task.name": name,
		},
		Hostname: id[:12], StopSignal: "SIGTERM", StopGrace: 10 * time.Second,
		Created: time.Date(2026, 11, 22, 17, 27, 31, 0, time.UTC),
		Mounts:  []container.MountPoint{{Type: "bind", Source: "/srv", Destination: "/data"}},
		Networks: []ContainerNetwork{{
			Name: "plain_net", NetworkID: usedID, EndpointID: "12af8f7f6c39", Addr: netip.MustParsePrefix("10.20.0.5/16"),
			MAC: [6]byte{2, 0x42, 10, 20, 0, 5}, DNSNames: []string{name, id[:12]}, Static: true,
		}},
		Ports: []ContainerPort{
			{Protocol: "tcp", Target: 80},
			{Protocol: "udp", Target: 53, Published: 5353, HostIP: netip.MustParseAddr("192.0.2.11")},
		},
	}
}

// run starts args as the container c.
func (f *fakeContainers) run(t *testing.T, c Container, args ...string) {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c.Args = args
	c.State = ContainerState{Status: container.StateRunning, PID: cmd.Process.Pid, StartedAt: time.Now()}
	fc := &fakeContainer{Container: c, cmd: cmd, changed: make(chan struct{}), ended: make(chan struct{})}
	f.mu.Lock()
	f.byID[c.ID] = fc
	f.order = append(f.order, c.ID)
	f.mu.Unlock()
	var logs sync.WaitGroup
	logs.Go(func() { f.capture(fc, stdout, false) })
	logs.Go(func() { f.capture(fc, stderr, true) })
	go func() {
		logs.Wait()
		err := cmd.Wait()
		f.mu.Lock()
		defer f.mu.Unlock()
		fc.State.Status, fc.State.PID = container.StateExited, 0
		fc.State.ExitStatus = ExitStatus{Code: exitCode(err), FinishedAt: time.Now()}
		close(fc.ended)
		close(fc.changed)
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-fc.ended
	})
}

// exitCode of a command as a shell has it.
func exitCode(err error) int {
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok {
		return 0
	}
	if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return exit.ExitCode()
}

func (f *fakeContainers) capture(fc *fakeContainer, r io.Reader, stderr bool) {
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			f.mu.Lock()
			for line := range strings.Lines(string(buf[:n])) {
				fc.lines = append(fc.lines, LogLine{Time: time.Now(), Stderr: stderr, Data: []byte(line)})
			}
			close(fc.changed)
			fc.changed = make(chan struct{})
			f.mu.Unlock()
		}
		if err != nil {
			return
		}
	}
}

// killExecs ends what ContainerExec started, and what that started.
func (f *fakeContainers) killExecs() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, x := range f.execs {
		_ = syscall.Kill(-x.cmd.Process.Pid, syscall.SIGKILL)
		<-x.ended
	}
}

func (f *fakeContainers) Containers() []Container {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := make([]Container, 0, len(f.order))
	for _, id := range f.order {
		list = append(list, f.byID[id].Container)
	}
	return list
}

func (f *fakeContainers) get(id string) (*fakeContainer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c := f.byID[id]; c != nil {
		return c, nil
	}
	return nil, cerrdefs.ErrNotFound.WithMessage("No such container: " + id)
}

func (f *fakeContainers) ContainerLogs(ctx context.Context, id string, opts LogOptions, each func(LogLine) error) error {
	c, err := f.get(id)
	if err != nil {
		return err
	}
	f.mu.Lock()
	next := 0
	if opts.Tail >= 0 {
		next = max(0, len(c.lines)-opts.Tail)
	}
	f.mu.Unlock()
	for {
		f.mu.Lock()
		lines, changed, ended := slices.Clone(c.lines[next:]), c.changed, c.State.Status == container.StateExited
		next = len(c.lines)
		f.mu.Unlock()
		for _, l := range lines {
			if l.Time.Before(opts.Since) || !opts.Until.IsZero() && l.Time.After(opts.Until) {
				continue
			}
			if err := each(l); err != nil {
				return err
			}
		}
		if ended || !opts.Follow {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

func (f *fakeContainers) ContainerStop(ctx context.Context, id string, opts StopOptions) error {
	c, err := f.get(id)
	if err != nil {
		return err
	}
	sig, grace := syscall.SIGTERM, c.StopGrace
	if opts.Signal != 0 {
		sig = opts.Signal
	}
	if opts.Grace != nil {
		grace = *opts.Grace
	}
	_ = c.cmd.Process.Signal(sig)
	select {
	case <-c.ended:
		return nil
	case <-time.After(grace):
	}
	return f.ContainerKill(ctx, id, syscall.SIGKILL)
}

func (f *fakeContainers) ContainerKill(_ context.Context, id string, sig syscall.Signal) error {
	c, err := f.get(id)
	if err != nil {
		return err
	}
	if err := c.cmd.Process.Signal(sig); err != nil {
		return err
	}
	if sig == syscall.SIGKILL {
		<-c.ended
	}
	return nil
}

func (f *fakeContainers) ContainerWait(id string, _ container.WaitCondition) (func(context.Context) (ExitStatus, error), error) {
	c, err := f.get(id)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) (ExitStatus, error) {
		select {
		case <-c.ended:
			f.mu.Lock()
			defer f.mu.Unlock()
			return c.State.ExitStatus, nil
		case <-ctx.Done():
			return ExitStatus{}, ctx.Err()
		}
	}, nil
}

func (f *fakeContainers) ContainerProcesses(id string) ([]int, error) {
	c, err := f.get(id)
	if err != nil {
		return nil, err
	}
	return []int{c.cmd.Process.Pid}, nil
}

// fakeExec is a command with its pipes or terminal.
type fakeExec struct {
	cmd         *exec.Cmd
	in          io.WriteCloser
	out, errOut io.Reader
	master      *os.File
	ours        []io.Closer
	ended       chan struct{}
	code        int
}

func (f *fakeContainers) ContainerExec(_ context.Context, id string, e ExecConfig) (ExecProcess, error) {
	if _, err := f.get(id); err != nil {
		return nil, err
	}
	x := &fakeExec{cmd: exec.Command(e.Args[0], e.Args[1:]...), ended: make(chan struct{})}
	x.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	x.cmd.Env, x.cmd.Dir = append(os.Environ(), e.Env...), e.Dir
	theirs, err := x.open(e)
	if err == nil {
		err = x.cmd.Start()
	}
	for _, c := range theirs {
		_ = c.Close()
	}
	if err != nil {
		_ = x.Close()
		return nil, notStarted{err}
	}
	go func() {
		x.code = exitCode(x.cmd.Wait())
		close(x.ended)
	}()
	f.mu.Lock()
	f.execs = append(f.execs, x)
	f.mu.Unlock()
	return x, nil
}

// notStarted is why a command could not be started.
type notStarted struct{ error }

func (e notStarted) ExitCode() int {
	if errors.Is(e.error, fs.ErrNotExist) {
		return 127
	}
	return 126
}

// open makes the streams and returns the command's ends.
func (x *fakeExec) open(e ExecConfig) (theirs []io.Closer, err error) {
	if e.TTY {
		master, slave, err := pty.Open()
		if err != nil {
			return nil, err
		}
		if master, err = pollable(master); err != nil {
			return nil, err
		}
		x.master, x.out, x.ours = master, ptyReader{master}, []io.Closer{master}
		if e.Stdin {
			x.in = master
		}
		x.cmd.Stdin, x.cmd.Stdout, x.cmd.Stderr = slave, slave, slave
		x.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		if e.Rows != 0 {
			_ = x.Resize(e.Rows, e.Columns)
		}
		return []io.Closer{slave}, nil
	}
	for i, want := range []bool{e.Stdin, e.Stdout, e.Stderr} {
		if !want {
			continue
		}
		r, w, err := os.Pipe()
		if err != nil {
			return theirs, err
		}
		switch i {
		case 0:
			x.cmd.Stdin, x.in = r, w
			theirs, x.ours = append(theirs, r), append(x.ours, w)
		case 1:
			x.cmd.Stdout, x.out = w, r
			theirs, x.ours = append(theirs, w), append(x.ours, r)
		case 2:
			x.cmd.Stderr, x.errOut = w, r
			theirs, x.ours = append(theirs, w), append(x.ours, r)
		}
	}
	return theirs, nil
}

// pollable returns f such that closing it ends reads under way.
func pollable(f *os.File) (*os.File, error) {
	fd, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		return nil, err
	}
	syscall.CloseOnExec(fd)
	err = errors.Join(syscall.SetNonblock(fd, true), f.Close())
	return os.NewFile(uintptr(fd), f.Name()), err
}

// ptyReader reads a terminal; Linux reports the end of the other side as EIO.
type ptyReader struct{ *os.File }

func (r ptyReader) Read(p []byte) (int, error) {
	n, err := r.File.Read(p)
	if errors.Is(err, syscall.EIO) {
		err = io.EOF
	}
	return n, err
}

func (x *fakeExec) PID() int              { return x.cmd.Process.Pid }
func (x *fakeExec) Stdin() io.WriteCloser { return x.in }
func (x *fakeExec) Stdout() io.Reader     { return x.out }
func (x *fakeExec) Stderr() io.Reader     { return x.errOut }

func (x *fakeExec) Resize(rows, columns uint16) error {
	if x.master == nil {
		return fmt.Errorf("no terminal")
	}
	return pty.Setsize(x.master, &pty.Winsize{Rows: rows, Cols: columns})
}

func (x *fakeExec) Wait(ctx context.Context) (int, error) {
	select {
	case <-x.ended:
		return x.code, nil
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

func (x *fakeExec) Close() error {
	for _, c := range x.ours {
		_ = c.Close()
	}
	return nil
}

package api

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
)

const (
	// maxExecs bounds the commands remembered, running ones included.
	maxExecs = 1024
	// execKept is how long a command that does not run is remembered: one
	// that has ended, for its exit code, and one that was never started.
	execKept = 5 * time.Minute
)

// execs are the commands that clients run beside those of containers.
type execs struct {
	// ctx ends when the server's streams are to end.
	ctx context.Context

	mu      sync.Mutex
	byID    map[string]*execution
	streams sync.WaitGroup // those that serve clients; they end with ctx
	closed  bool
}

// An execution is one such command, from its creation on.
type execution struct {
	id         string
	container  string // its ID
	req        container.ExecCreateRequest
	detachKeys []byte
	started    chan struct{} // closed when the command runs or could not be started
	ended      chan struct{} // closed when it has ended

	mu      sync.Mutex
	claimed bool
	proc    ExecProcess // nil until it runs
	exit    *int        // set when it has ended
	idle    time.Time   // since when it does not run
}

func newExecs(ctx context.Context) *execs {
	return &execs{ctx: ctx, byID: map[string]*execution{}}
}

func newExecution(containerID string, req container.ExecCreateRequest, detachKeys []byte) *execution {
	var id [32]byte
	_, _ = rand.Read(id[:]) // cannot fail, says its documentation
	return &execution{
		id: hex.EncodeToString(id[:]), container: containerID, req: req, detachKeys: detachKeys,
		started: make(chan struct{}), ended: make(chan struct{}), idle: time.Now(),
	}
}

// spawn runs f, which must end with ctx, in a goroutine that wait waits for.
func (e *execs) spawn(f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		go f() // a request that came too late: f ends at once
		return
	}
	e.streams.Go(f)
}

// wait returns when ctx has ended and with it all that spawn runs.
func (e *execs) wait() {
	<-e.ctx.Done()
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	e.streams.Wait()
}

// add remembers a command, and forgets those that nobody will ask about.
func (e *execs) add(x *execution) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	var oldest *execution
	for id, other := range e.byID {
		since, ok := other.idleSince()
		switch {
		case !ok:
		case time.Since(since) > execKept:
			delete(e.byID, id)
		case oldest == nil || since.Before(oldest.idle):
			oldest = other
		}
	}
	if len(e.byID) >= maxExecs {
		if oldest == nil {
			return cerrdefs.ErrUnavailable.WithMessage(fmt.Sprintf("%d commands run by exec already: end some of them", maxExecs))
		}
		delete(e.byID, oldest.id)
	}
	e.byID[x.id] = x
	return nil
}

func (e *execs) get(id string) (*execution, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if x := e.byID[id]; x != nil {
		return x, nil
	}
	return nil, cerrdefs.ErrNotFound.WithMessage("No such exec instance: " + id)
}

// running returns the IDs of the commands that run in a container, nil if none.
func (e *execs) running(containerID string) []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var ids []string
	for id, x := range e.byID {
		if _, idle := x.idleSince(); x.container == containerID && !idle {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// idleSince is since when the command does not run; ok is false while it does.
func (x *execution) idleSince() (since time.Time, ok bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.idle, !x.claimed || x.exit != nil
}

// claim makes the caller the one who starts the command.
func (x *execution) claim() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case x.exit != nil:
		return cerrdefs.ErrConflict.WithMessage("exec command " + x.id + " has already run")
	case x.claimed:
		return cerrdefs.ErrConflict.WithMessage("exec command " + x.id + " is already running")
	}
	x.claimed = true
	return nil
}

// config is the command as the backend takes it.
func (x *execution) config(req container.ExecStartRequest) ExecConfig {
	cfg := ExecConfig{
		Args: x.req.Cmd, Env: x.req.Env, Dir: x.req.WorkingDir, TTY: x.req.Tty,
		Stdin: x.req.AttachStdin, Stdout: x.req.AttachStdout, Stderr: x.req.AttachStderr,
	}
	if !cfg.TTY {
		return cfg
	}
	cfg.Env = append([]string{"TERM=xterm"}, cfg.Env...)
	size := x.req.ConsoleSize
	if req.ConsoleSize != nil {
		size = req.ConsoleSize
	}
	if size != nil {
		cfg.Rows, cfg.Columns = uint16(min(size[0], math.MaxUint16)), uint16(min(size[1], math.MaxUint16))
	}
	return cfg
}

// run notes that the command runs.
func (x *execution) run(proc ExecProcess) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.proc = proc
	close(x.started)
}

// failed notes that the command could not be started.
func (x *execution) failed(code int) {
	x.end(code)
	close(x.started)
}

// end notes that the command has ended. It is called once.
func (x *execution) end(code int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.exit, x.idle = &code, time.Now()
	close(x.ended)
}

// process returns the command if it runs or has run.
func (x *execution) process() ExecProcess {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.proc
}

func (x *execution) inspect() container.ExecInspectResponse {
	x.mu.Lock()
	defer x.mu.Unlock()
	resp := container.ExecInspectResponse{
		ID: x.id, ContainerID: x.container, Running: x.claimed && x.exit == nil, ExitCode: x.exit,
		ProcessConfig: &container.ExecProcessConfig{
			Tty: x.req.Tty, Entrypoint: x.req.Cmd[0], Arguments: append([]string{}, x.req.Cmd[1:]...),
			Privileged: &x.req.Privileged, User: x.req.User,
		},
		OpenStdin: x.req.AttachStdin, OpenStdout: x.req.AttachStdout, OpenStderr: x.req.AttachStderr,
		CanRemove: x.exit != nil, DetachKeys: x.detachKeys,
	}
	if x.proc != nil {
		resp.Pid = x.proc.PID()
	}
	return resp
}

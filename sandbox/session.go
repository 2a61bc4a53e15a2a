package sandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"syscall"
	"time"
)

const (
	// sendTimeout bounds how long an init that does not read may hold up the
	// node.
	sendTimeout = 5 * time.Second
	// maxExecs bounds the processes that Exec has running in a sandbox.
	maxExecs = 256
)

// ErrDetached is what the methods of a Session and its Processes return once
// the init's connection has ended.
var ErrDetached = errors.New("the sandbox is not attached to this node")

// ErrEnded is what Exec returns if nothing runs in the sandbox any more.
var ErrEnded = errors.New("the sandbox's command has ended")

// A Session is the node's line to an attached init. It lasts until the
// connection ends, which Done tells just before Handler.Detach is called. Its
// methods may be called from any goroutine, but not within Handler.Attach,
// whose answer they wait for.
type Session struct {
	conn      *packetConn
	log       *slog.Logger
	confirmed chan struct{} // closed when the init knows that it is attached
	started   chan struct{}
	exited    chan struct{}
	done      chan struct{}

	mu        sync.Mutex
	pid       int // of the command
	startedAt time.Time
	status    ExitStatus
	lastExec  uint64
	execs     map[uint64]*Process
}

func newSession(conn *packetConn, log *slog.Logger) *Session {
	return &Session{
		conn: conn, log: log,
		confirmed: make(chan struct{}), started: make(chan struct{}),
		exited: make(chan struct{}), done: make(chan struct{}),
		execs: make(map[uint64]*Process),
	}
}

// Command returns the host's process ID of the command, 0 before it started or
// if it ended too soon to tell, and when it started.
func (s *Session) Command() (pid int, started time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pid, s.startedAt
}

// Started is closed once the command runs. A command that cannot be executed
// never starts: it has an ExitStatus with Error.
func (s *Session) Started() <-chan struct{} { return s.started }

// Exited is closed when nothing runs in the sandbox any more. It stays open if
// the connection ends before: see Done.
func (s *Session) Exited() <-chan struct{} { return s.exited }

// ExitStatus returns the command's, once Exited is closed.
func (s *Session) ExitStatus() ExitStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// Done is closed when the connection has ended. If Exited was not by then, the
// init was killed, or this node stops serving it.
func (s *Session) Done() <-chan struct{} { return s.done }

// Signal sends a signal to the command or, if that has ended, to the daemon it
// left: of several to the oldest.
func (s *Session) Signal(sig syscall.Signal) error {
	return s.send(nodeMessage{Kind: nodeSignal, Signal: int(sig)})
}

// Stop sends sig as Signal does, and SIGKILL to every process in the sandbox
// after grace. It does not wait: see Exited. The init sees to it even if this
// node dies meanwhile. A later Stop can only shorten the time.
func (s *Session) Stop(sig syscall.Signal, grace time.Duration) error {
	return s.send(nodeMessage{Kind: nodeStop, Signal: int(sig), Grace: max(grace, 0)})
}

func (s *Session) send(m nodeMessage, fds ...int) error {
	if m.Kind == nodeSignal || m.Kind == nodeStop {
		if m.Signal < 1 || m.Signal > maxSignal {
			return fmt.Errorf("there is no signal %d", m.Signal)
		}
	}
	select {
	case <-s.confirmed:
	case <-s.done:
		return ErrDetached
	}
	if err := s.conn.sendInTime(m, fds...); err != nil {
		if errors.Is(err, errMessageSize) {
			return err
		}
		return fmt.Errorf("%w: %w", ErrDetached, err)
	}
	return nil
}

// An Exec is a process to run in a sandbox beside its command: with the same
// view of files and network, and as little privilege.
type Exec struct {
	Args []string // Args[0] is looked up in PATH
	// Env is added to the environment of the sandbox's command and wins over it.
	Env []string
	Dir string // empty: the command's
	// TTY makes Stdin, the slave of a pty, the controlling terminal.
	TTY bool
	// Lent until Exec returns. Nil: /dev/null.
	Stdin, Stdout, Stderr *os.File
}

// A Process is one that Exec started.
type Process struct {
	session *Session
	id      uint64
	pid     int // written before running is closed
	running chan struct{}
	ended   chan struct{}
	status  ExitStatus // written before ended is closed
}

// Exec starts a process and returns when it runs. If it cannot be executed,
// ExitCode of the error is 126 or 127. If ctx ends first, the process is killed.
func (s *Session) Exec(ctx context.Context, e Exec) (*Process, error) {
	if len(e.Args) == 0 {
		return nil, errors.New("no command given")
	}
	files, done, err := e.files()
	if err != nil {
		return nil, err
	}
	defer done()
	p, err := s.enlist()
	if err != nil {
		return nil, err
	}
	err = s.send(nodeMessage{Kind: nodeExec, Exec: p.id, Command: &execCommand{
		Args: toBytes(e.Args), Env: toBytes(e.Env), Dir: []byte(e.Dir), TTY: e.TTY,
	}}, files...)
	if err != nil {
		s.strike(p.id)
		return nil, err
	}
	select {
	case <-p.running:
		return p, nil
	case <-p.ended:
		return p.start()
	case <-s.done:
		return nil, ErrDetached
	case <-ctx.Done():
		_ = p.Signal(syscall.SIGKILL) // if it does not run yet, it will have come too late for us only
		return nil, ctx.Err()
	}
}

// files returns the descriptors to send, valid until done is called.
func (e *Exec) files() (fds []int, done func(), err error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, nil, err
	}
	files := []*os.File{e.Stdin, e.Stdout, e.Stderr}
	fds = make([]int, len(files))
	for i, f := range files {
		if f == nil {
			f = null
		}
		raw, err := f.SyscallConn() // not Fd, which would make it blocking
		if err == nil {
			err = raw.Control(func(fd uintptr) { fds[i] = int(fd) })
		}
		if err != nil {
			_ = null.Close()
			return nil, nil, fmt.Errorf("standard file %d: %w", i, err)
		}
	}
	return fds, func() { _ = null.Close() }, nil
}

// start returns a process that has ended before Exec saw it running.
func (p *Process) start() (*Process, error) {
	select {
	case <-p.running:
		return p, nil
	default:
		return nil, &exitError{p.status.Code, errors.New(p.status.Error)}
	}
}

func (s *Session) enlist() (*Process, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.execs) >= maxExecs {
		return nil, fmt.Errorf("%d processes were executed in the sandbox and run: wait for some to end", maxExecs)
	}
	s.lastExec++
	p := &Process{session: s, id: s.lastExec, running: make(chan struct{}), ended: make(chan struct{})}
	s.execs[p.id] = p
	return p, nil
}

func (s *Session) strike(id uint64) *Process {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.execs[id]
	delete(s.execs, id)
	return p
}

// PID returns the host's process ID, 0 if the process ended too soon to tell.
func (p *Process) PID() int { return p.pid }

// Signal sends a signal to the process alone. One that has ended gets none.
func (p *Process) Signal(sig syscall.Signal) error {
	return p.session.send(nodeMessage{Kind: nodeSignal, Exec: p.id, Signal: int(sig)})
}

// Wait returns how the process ended, when it has. It may be called by several
// goroutines.
func (p *Process) Wait(ctx context.Context) (ExitStatus, error) {
	select {
	case <-p.ended:
		return p.status, nil
	case <-ctx.Done():
		return ExitStatus{}, ctx.Err()
	case <-p.session.done:
	}
	select {
	case <-p.ended:
		return p.status, nil
	default:
		return ExitStatus{}, ErrDetached
	}
}

// listen handles what the init says until the connection ends.
func (s *Session) listen() {
	defer close(s.done)
	for {
		b, fds, err := s.conn.receive()
		if err != nil {
			return
		}
		m, err := parseInitMessage(b, len(fds))
		if err == nil {
			err = s.handle(m, fds)
		}
		closeAll(fds)
		if err != nil {
			s.log.Warn("sandbox sent an unexpected message", "error", err)
			return
		}
	}
}

var errUnexpected = errors.New("message of an init comes twice, or is about nothing")

func (s *Session) handle(m initMessage, fds []int) error {
	switch m.Kind {
	case eventStarted:
		return s.begin(m.Time, fds[0])
	case eventExited:
		if err := s.end(*m.Exit); err != nil {
			return err
		}
		// The init of an `ovnd run` does not wait for it.
		_ = s.conn.sendInTime(nodeMessage{Kind: nodeAck})
		return nil
	case eventExecuted:
		return s.executed(m.Exec, fds[0])
	case eventExecFailed, eventExecExited:
		if p := s.strike(m.Exec); p != nil {
			p.status = *m.Exit
			close(p.ended)
		}
	}
	return nil
}

// restore takes over what an attachMessage says. pidfd is -1 without one.
func (s *Session) restore(state commandState, pidfd int) error {
	if state.PIDFD || !state.Started.IsZero() {
		if err := s.begin(state.Started, pidfd); err != nil {
			return err
		}
	}
	if state.Exit != nil {
		return s.end(*state.Exit)
	}
	return nil
}

func (s *Session) begin(at time.Time, pidfd int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.startedAt.IsZero() || at.IsZero() {
		return errUnexpected
	}
	s.pid, s.startedAt = hostPID(pidfd), at
	close(s.started)
	return nil
}

func (s *Session) end(status ExitStatus) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.exited:
		return errUnexpected
	default:
	}
	s.status = status
	close(s.exited)
	return nil
}

func (s *Session) executed(id uint64, pidfd int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.execs[id]
	if p == nil {
		return errUnexpected
	}
	select {
	case <-p.running:
		return errUnexpected
	default:
	}
	p.pid = hostPID(pidfd)
	close(p.running)
	return nil
}

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// endGrace is what processes have between SIGTERM and SIGKILL, as with
// `docker stop`.
const endGrace = 10 * time.Second

// killAgain is when SIGKILL is repeated: without a pid namespace one round can
// miss what is just being forked.
const killAgain = 100 * time.Millisecond

// A resident is the second stage of an init: it has no privilege, and stays.
type resident struct {
	cfg     initConfig
	control *packetConn
	tty     *terminal
	link    *nodeLink
	node    *packetConn // attached; nil: none at present
	log     *logWriter  // of a task

	pid     int // of the command
	pidfd   int
	started time.Time
	status  ExitStatus // of the command, once it does not run
	running bool       // the command, not its descendants
	ending  bool
	kill    <-chan time.Time // when those that ended not are killed
	killAt  time.Time        // the same, while it can be told
	orphan  <-chan time.Time // when a task without a node is killed
	execs   map[int]uint64   // what Exec started, by process ID
}

// reside is the second stage of the init. It returns nil when no process is
// left, and an error if the command did not start.
func reside(control *packetConn) error {
	// The command is the user's, as we are: it must neither read the token from
	// our memory nor take the devices by pidfd_getfd(2).
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("clear the dumpable flag: %w", err)
	}
	cfg, err := inheritedConfig()
	if err != nil {
		return err
	}
	_ = unix.Close(initConfigFD)
	fds, err := inheritedQueues(os.Args[3:])
	if err != nil {
		return err
	}
	if !cfg.PIDNS {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("become a subreaper: %w", err)
		}
	}
	r := &resident{cfg: cfg, control: control, pidfd: -1, execs: make(map[int]uint64)}
	r.link = &nodeLink{spec: &r.cfg.Spec, queues: fds, pidfd: -1}
	if cfg.Spec.Resolver {
		split := len(fds) - resolverSockets
		r.link.queues, r.link.resolver = fds[:split:split], fds[split:]
	}
	if cfg.Task != nil {
		return r.runTask()
	}
	r.tty = openTerminal()
	return r.run()
}

func (r *resident) run() error {
	ctx, cancel := context.WithCancel(context.Background())
	var tasks sync.WaitGroup
	defer tasks.Wait()
	// The socket stays open: the caller has a last word to say.
	defer func() { _ = r.control.SetReadDeadline(time.Unix(0, 0)) }()
	defer cancel()

	events := make(chan nodeEvent)
	tasks.Go(func() { r.link.run(ctx, events) })
	orders := make(chan controlMessage)
	tasks.Go(func() { r.receiveOrders(ctx, orders) })
	// Pid 1 is sent only what it handles. The job control signals among these
	// are for commands, and handling them keeps us from stopping.
	signals := make(chan os.Signal, 16)
	notifyUnlessIgnored(signals, forwarded)
	notifyUnlessIgnored(signals, []os.Signal{unix.SIGCONT, unix.SIGTTIN, unix.SIGTTOU})

	if err := r.begin(events, orders); err != nil {
		return err
	}
	children := make(chan childEvent)
	go reap(children) // ends with the last process; run waits for it
	r.attend(children, orders, events, signals)
	r.tellExited()
	return nil
}

// begin waits for the node and starts the command.
func (r *resident) begin(events <-chan nodeEvent, orders <-chan controlMessage) error {
	if err := r.awaitNode(events, orders); err != nil {
		return err
	}
	pid, err := startCommand(&r.cfg, r.tty)
	if err != nil {
		return err
	}
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		pidfd = -1 // nobody is told its number
	}
	r.hasStarted(pid, pidfd)
	releaseStdio()
	return nil
}

// hasStarted notes that the command runs, and tells the node.
func (r *resident) hasStarted(pid, pidfd int) {
	r.pid, r.pidfd, r.running, r.started = pid, pidfd, true, time.Now()
	r.link.set(commandState{Started: r.started}, pidfd)
	if pidfd >= 0 {
		r.tellNode(initMessage{Kind: eventStarted, Time: r.started}, pidfd)
	}
}

// awaitNode returns once the node forwards for the sandbox, or an error if that
// fails or Run does not want to wait.
func (r *resident) awaitNode(events <-chan nodeEvent, orders <-chan controlMessage) error {
	for {
		select {
		case e := <-events:
			closeAll(e.fds)
			if e.m.Kind != nodeAttached {
				return errors.New(e.m.Text)
			}
			r.node = e.conn
			return nil
		case m, ok := <-orders:
			switch {
			case !ok:
				return errors.New("ovnd run has ended")
			case m.Kind == controlEnd:
				return &exitError{exitSignal + int(unix.SIGTERM), errors.New("ended before the command started")}
			case m.Kind == controlSignal && deadly(unix.Signal(m.Signal)):
				return &exitError{exitSignal + m.Signal, errors.New("ended before the command started")}
			}
		}
	}
}

// releaseStdio lets go of the command's standard input and output, whose other
// ends may wait for the last to close them. Standard error stays for traces.
func releaseStdio() {
	null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer func() { _ = unix.Close(null) }()
	for fd := range 2 {
		_ = unix.Dup3(null, fd, 0)
	}
}

func (r *resident) receiveOrders(ctx context.Context, orders chan<- controlMessage) {
	defer close(orders)
	for {
		var m controlMessage
		if err := r.control.receiveInto(&m); err != nil {
			return
		}
		select {
		case orders <- m:
		case <-ctx.Done():
			return
		}
	}
}

// attend lasts until there are no children. Without an `ovnd run`, orders is
// nil.
func (r *resident) attend(children <-chan childEvent, orders <-chan controlMessage, events <-chan nodeEvent, signals <-chan os.Signal) {
	for {
		select {
		case c, ok := <-children:
			if !ok {
				return
			}
			r.child(c)
		case m, ok := <-orders:
			if !ok {
				orders = nil
				r.signal(unix.SIGHUP)
				r.end()
				continue
			}
			r.order(m)
		case e := <-events:
			r.event(e)
		case s := <-signals:
			if s != unix.SIGTTIN && s != unix.SIGTTOU {
				r.signal(s.(syscall.Signal))
			}
		case <-r.kill:
			signalAll(unix.SIGKILL)
			r.kill = time.After(killAgain)
		case <-r.orphan:
			r.orphan = nil
			r.killAll()
		}
	}
}

func (r *resident) child(c childEvent) {
	if id, ok := r.execs[c.pid]; ok {
		r.execEnded(id, c)
		return
	}
	if c.pid != r.pid || !r.running {
		r.endWithoutDaemons()
		return
	}
	if c.status.Stopped() {
		r.tell(controlMessage{Kind: controlStopped, Signal: int(c.status.StopSignal())})
		return
	}
	r.status = exitStatus(c.status)
	r.running = false
	if r.inherit() {
		return
	}
	r.tell(controlMessage{Kind: controlExited, Code: r.status.Code, Signal: r.status.Signal, Terminal: r.holdsTerminal()})
	switch {
	case r.ending, r.cfg.Task != nil && r.status.Code != 0:
		r.killAll() // the rest had its time, or lost its master
	default:
		r.endWithoutDaemons()
	}
}

func exitStatus(s unix.WaitStatus) ExitStatus {
	e := ExitStatus{FinishedAt: time.Now()}
	if s.Signaled() {
		e.Signal = int(s.Signal())
		e.Code = exitSignal + e.Signal
	} else {
		e.Code = s.ExitStatus()
	}
	return e
}

// holdsTerminal reports whether the terminal's foreground is in the sandbox.
func (r *resident) holdsTerminal() bool {
	pgrp := r.tty.foreground()
	if pgrp <= 0 {
		return false
	}
	return r.cfg.PIDNS || pgrp == r.pid || r.tty.abandoned()
}

func (r *resident) order(m controlMessage) {
	switch m.Kind {
	case controlSignal:
		r.signal(unix.Signal(m.Signal))
	case controlResume:
		// Without the terminal a command that wants it would stop again at once.
		if m.Terminal && r.tty.setForeground(r.pid) != nil {
			return
		}
		r.signal(unix.SIGCONT)
	case controlEnd:
		r.end()
	}
}

// event deals with what the node says.
func (r *resident) event(e nodeEvent) {
	defer closeAll(e.fds)
	switch {
	case e.lost:
		if r.node == e.conn {
			r.node = nil
			r.awaitAnother()
		}
		return
	case e.m.Kind == nodeAttached:
		r.attached(e)
		return
	}
	switch e.m.Kind {
	case nodeGone:
		r.tell(controlMessage{Kind: controlNotice, Text: "the sandbox has lost its networks, ending the command: " + e.m.Text})
		r.end()
	case nodeGoodbye:
		r.tell(controlMessage{Kind: controlNotice, Text: "the node is going down, ending the command"})
		r.end()
	case nodeExec:
		r.exec(e)
	case nodeSignal:
		r.signalFor(e.m)
	case nodeStop:
		r.stop(unix.Signal(e.m.Signal), e.m.Grace)
	}
}

// attached takes a new node, and tells it what happened since the state that
// it was told of.
func (r *resident) attached(e nodeEvent) {
	r.node, r.orphan = e.conn, nil
	if e.state.Started.IsZero() && !r.started.IsZero() && r.pidfd >= 0 {
		r.tellNode(initMessage{Kind: eventStarted, Time: r.started}, r.pidfd)
	}
}

// tellNode sends m to the node, if there is one. One that is lost asks for the
// command's state when it is back.
func (r *resident) tellNode(m initMessage, fds ...int) {
	if r.node != nil {
		_ = r.node.sendInTime(m, fds...)
	}
}

func (r *resident) tellExited() {
	r.tellNode(initMessage{Kind: eventExited, Exit: &r.status})
}

// signal sends s to the command: to its process group what terminals send,
// to the process itself the rest. When the command has ended, a signal that
// would have ended it is about what it left behind.
func (r *resident) signal(s unix.Signal) {
	if !r.running {
		if deadly(s) {
			r.end()
		}
		return
	}
	pid := r.pid
	switch s {
	case unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTSTP, unix.SIGCONT, unix.SIGWINCH:
		pid = -pid
	}
	_ = unix.Kill(pid, s) // it may end at any time
}

// end lets the command end, or what it left behind, and has the rest killed.
func (r *resident) end() {
	if r.ending {
		return
	}
	r.killAfter(endGrace)
	if r.running {
		r.signal(unix.SIGTERM)
		r.signal(unix.SIGCONT)
		return
	}
	signalAll(unix.SIGTERM)
	signalAll(unix.SIGCONT)
}

// stop is what a node asks for: the signal, and the end of everything after
// grace.
func (r *resident) stop(s unix.Signal, grace time.Duration) {
	r.killAfter(grace)
	r.signalCommand(s)
	r.signalCommand(unix.SIGCONT)
}

// killAfter has everything killed after grace, or earlier if that was said before.
func (r *resident) killAfter(grace time.Duration) {
	at := time.Now().Add(grace)
	if r.ending && !r.killAt.IsZero() && r.killAt.Before(at) {
		return
	}
	r.ending, r.killAt, r.kill = true, at, time.After(grace)
}

func (r *resident) killAll() { r.killAfter(0) }

// tell sends m to Run. If that is gone, its socket's end says so as well.
func (r *resident) tell(m controlMessage) {
	if r.cfg.Task == nil {
		_ = r.control.send(m)
	}
}

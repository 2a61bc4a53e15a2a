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

	pid     int  // of the command
	running bool // the command, not its descendants
	ending  bool
	kill    <-chan time.Time // when those that ended not are killed
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
	queues, err := inheritedQueues(os.Args[3:])
	if err != nil {
		return err
	}
	if !cfg.PIDNS {
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("become a subreaper: %w", err)
		}
	}
	r := &resident{cfg: cfg, control: control, tty: openTerminal()}
	return r.run(&nodeLink{spec: &r.cfg.Spec, queues: queues})
}

func (r *resident) run(link *nodeLink) error {
	ctx, cancel := context.WithCancel(context.Background())
	var tasks sync.WaitGroup
	defer tasks.Wait()
	// The socket stays open: the caller has a last word to say.
	defer func() { _ = r.control.SetReadDeadline(time.Unix(0, 0)) }()
	defer cancel()

	answers := make(chan nodeMessage)
	tasks.Go(func() { link.run(ctx, answers) })
	orders := make(chan controlMessage)
	tasks.Go(func() { r.receiveOrders(ctx, orders) })
	// Pid 1 is sent only what it handles. The job control signals among these
	// are for commands, and handling them keeps us from stopping.
	signals := make(chan os.Signal, 16)
	notifyUnlessIgnored(signals, forwarded)
	notifyUnlessIgnored(signals, []os.Signal{unix.SIGCONT, unix.SIGTTIN, unix.SIGTTOU})

	if err := r.begin(answers, orders); err != nil {
		return err
	}
	children := make(chan childEvent)
	go reap(children) // ends with the last process; run waits for it
	r.attend(children, orders, answers, signals)
	return nil
}

// begin waits for the node and starts the command.
func (r *resident) begin(answers <-chan nodeMessage, orders <-chan controlMessage) error {
	if err := awaitNode(answers, orders); err != nil {
		return err
	}
	pid, err := startCommand(&r.cfg, r.tty)
	if err != nil {
		return err
	}
	r.pid, r.running = pid, true
	releaseStdio()
	return nil
}

// awaitNode returns once the node forwards for the sandbox, or an error if that
// fails or Run does not want to wait.
func awaitNode(answers <-chan nodeMessage, orders <-chan controlMessage) error {
	for {
		select {
		case m := <-answers:
			if m.Answer != nodeAttached {
				return errors.New(m.Text)
			}
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

// attend lasts until there are no children.
func (r *resident) attend(children <-chan childEvent, orders <-chan controlMessage, answers <-chan nodeMessage, signals <-chan os.Signal) {
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
		case m := <-answers:
			r.answer(m)
		case s := <-signals:
			if s != unix.SIGTTIN && s != unix.SIGTTOU {
				r.signal(s.(syscall.Signal))
			}
		case <-r.kill:
			signalAll(unix.SIGKILL)
			r.kill = time.After(killAgain)
		}
	}
}

func (r *resident) child(c childEvent) {
	if c.pid != r.pid || !r.running {
		return
	}
	m := controlMessage{Kind: controlExited}
	switch {
	case c.status.Stopped():
		r.tell(controlMessage{Kind: controlStopped, Signal: int(c.status.StopSignal())})
		return
	case c.status.Signaled():
		m.Signal = int(c.status.Signal())
		m.Code = exitSignal + m.Signal
	default:
		m.Code = c.status.ExitStatus()
	}
	r.running = false
	m.Terminal = r.holdsTerminal()
	r.tell(m)
	if r.ending {
		r.kill = time.After(0) // the rest had its time
	}
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

func (r *resident) answer(m nodeMessage) {
	switch m.Answer {
	case nodeGone:
		r.tell(controlMessage{Kind: controlNotice, Text: "the sandbox has lost its networks, ending the command: " + m.Text})
		r.end()
	case nodeGoodbye:
		r.tell(controlMessage{Kind: controlNotice, Text: "the node is going down, ending the command"})
		r.end()
	}
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
	r.ending = true
	r.kill = time.After(endGrace)
	if r.running {
		r.signal(unix.SIGTERM)
		r.signal(unix.SIGCONT)
		return
	}
	signalAll(unix.SIGTERM)
	signalAll(unix.SIGCONT)
}

// tell sends m to Run. If that is gone, its socket's end says so as well.
func (r *resident) tell(m controlMessage) { _ = r.control.send(m) }

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// forwarded are the signals that Run passes on. SIGCONT is job control's, see
// attendant.resume; the rest are faults, the Go runtime's own, or about
// children.
var forwarded = []os.Signal{
	unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2,
	unix.SIGALRM, unix.SIGWINCH, unix.SIGPWR, unix.SIGTSTP,
}

const (
	// stopTakesEffect is how long a signal that stops this process may take.
	stopTakesEffect = 100 * time.Millisecond
	// lingerNotice is when the user is told why Run has not returned.
	lingerNotice = time.Second
)

// An attendant is Run's half of a running sandbox: it stands for the command
// before the user's shell, which sees a job of one process.
type attendant struct {
	proc    *exec.Cmd
	control *packetConn
	tty     *terminal
	stderr  *os.File

	messages chan controlMessage // from the init; closed with its socket
	signals  chan os.Signal
	cont     chan os.Signal

	handed bool // the command has had the terminal
	exited bool // the command; others may still run
	linger <-chan time.Time
	code   int
	err    error
}

func newAttendant(tty *terminal, stderr *os.File) *attendant {
	return &attendant{
		tty: tty, stderr: stderr,
		messages: make(chan controlMessage),
		signals:  make(chan os.Signal, 16),
		cont:     make(chan os.Signal, 1),
		code:     ExitFailure,
		err:      errors.New("the sandbox's init was killed"),
	}
}

// run starts the sandbox and returns when it has ended.
func (a *attendant) run(ctx context.Context, cfg initConfig, cmd Command) (code int, err error) {
	notifyUnlessIgnored(a.signals, forwarded)
	defer signal.Stop(a.signals)
	signal.Notify(a.cont, unix.SIGCONT)
	defer signal.Stop(a.cont)
	a.handed = cfg.Foreground
	if a.proc, a.control, err = startInit(cfg, cmd); err != nil {
		return ExitFailure, err
	}

	received := make(chan struct{})
	go func() {
		defer close(received)
		a.receive()
	}()
	a.attend(ctx)
	_ = a.control.Close()
	<-received
	// The status says nothing that the control socket did not.
	if err := a.proc.Wait(); err != nil {
		if _, ok := errors.AsType[*exec.ExitError](err); !ok {
			return ExitFailure, fmt.Errorf("wait for the sandbox's init: %w", err)
		}
	}
	if a.handed && !a.exited && a.tty.abandoned() {
		a.takeTerminal(true)
	}
	return a.code, a.err
}

// notifyUnlessIgnored leaves alone what was ignored when this process began:
// nohup, and the "&" of a script, mean it, and the command inherits it.
func notifyUnlessIgnored(c chan<- os.Signal, signals []os.Signal) {
	for _, s := range signals {
		if !signal.Ignored(s) {
			signal.Notify(c, s)
		}
	}
}

func (a *attendant) receive() {
	defer close(a.messages)
	for {
		var m controlMessage
		if err := a.control.receiveInto(&m); err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
				_ = a.control.Close() // the init must not wait for us
			}
			return
		}
		a.messages <- m
	}
}

// attend lasts until the init closes its socket.
func (a *attendant) attend(ctx context.Context) {
	done := ctx.Done()
	for {
		select {
		case m, ok := <-a.messages:
			if !ok {
				return
			}
			a.message(m)
		case s := <-a.signals:
			a.signal(s.(syscall.Signal))
		case <-a.cont:
			a.resume(a.handed && a.tty.ours())
		case <-a.linger:
			fmt.Fprintln(a.stderr, "ovnd run: the command has ended, its background processes keep the sandbox; Ctrl-C ends them")
		case <-done:
			done = nil
			a.end()
		}
	}
}

func (a *attendant) message(m controlMessage) {
	switch m.Kind {
	case controlNotice:
		fmt.Fprintln(a.stderr, "ovnd run: "+m.Text)
	case controlNoProc:
		a.err = errNoProc
	case controlFailed:
		a.code, a.err = m.Code, errors.New(m.Text)
	case controlStopped:
		a.stopped(syscall.Signal(m.Signal))
	case controlExited:
		a.exited = true
		a.code, a.err = m.Code, nil
		if m.Terminal {
			a.takeTerminal(m.Signal != 0)
		}
		if isTerminal(a.stderr.Fd()) {
			a.linger = time.After(lingerNotice)
		}
	}
}

// signal passes a signal on.
func (a *attendant) signal(s syscall.Signal) {
	a.tell(controlMessage{Kind: controlSignal, Signal: int(s)})
	if s == unix.SIGHUP && a.tty.hungUp() {
		a.end()
	}
}

// deadly reports whether a signal that is passed on ends a process that does
// not handle it.
func deadly(s syscall.Signal) bool {
	return s != unix.SIGWINCH && s != unix.SIGTSTP && s != unix.SIGCONT
}

// stopped deals with a command that has stopped: in the place of a shell's job
// that reads the terminal from the background, or by stopping as it did, so
// that the shell sees it.
func (a *attendant) stopped(s syscall.Signal) {
	if (s == unix.SIGTTIN || s == unix.SIGTTOU) && a.tty.ours() {
		a.handed = true
		a.resume(true)
		return
	}
	pid := 0 // our process group: a script, or the others of a pipeline
	if s == unix.SIGSTOP {
		pid = unix.Getpid() // was meant for the command alone
	}
	withDefaultAction(s, func() {
		_ = unix.Kill(pid, s)
		select {
		case <-a.cont:
		case <-time.After(stopTakesEffect): // an orphaned process group does not stop
		}
	})
	a.resume(a.handed && a.tty.ours())
}

func (a *attendant) resume(foreground bool) {
	a.tell(controlMessage{Kind: controlResume, Terminal: foreground})
}

func (a *attendant) end() { a.tell(controlMessage{Kind: controlEnd}) }

// tell sends m to the init. One that is gone closes its socket as well, which
// is noticed elsewhere.
func (a *attendant) tell(m controlMessage) { _ = a.control.send(m) }

// takeTerminal brings this process back to the terminal's foreground, and the
// terminal to its mode if the command had no chance to.
func (a *attendant) takeTerminal(restore bool) {
	if a.tty.setForeground(unix.Getpgrp()) == nil && restore {
		_ = a.tty.restore()
	}
}

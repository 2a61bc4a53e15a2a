package sandbox

import (
	"context"
	"math"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// runTask is run for a task: nobody waits at the other end of the control
// socket once the sandbox is made, and how the command ended is kept until a
// node has taken it.
func (r *resident) runTask() error {
	var err error
	unix.CloseOnExec(initLogFD)
	if r.log, err = newLogWriter(r.cfg.Task.Log, os.NewFile(initLogFD, "log folder")); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var tasks sync.WaitGroup
	defer tasks.Wait()
	defer cancel()
	events := make(chan nodeEvent)
	tasks.Go(func() { r.link.run(ctx, events) })
	_ = r.control.send(controlMessage{Kind: controlReady}) // the caller may be gone
	_ = r.control.Close()

	signals := make(chan os.Signal, 16)
	notifyUnlessIgnored(signals, forwarded)
	if err := r.awaitNode(events, nil); err != nil {
		return nil // nobody is left to tell: the node knows that nothing ran
	}
	if err := r.beginTask(); err != nil {
		r.status = ExitStatus{Code: exitCode(err), Error: err.Error(), FinishedAt: time.Now()}
	} else {
		children := make(chan childEvent)
		go reap(children) // ends with the last process; attend waits for it
		r.attend(children, nil, events, signals)
	}
	r.log.close()
	r.deliver(events)
	return nil
}

func (r *resident) beginTask() error {
	pid, pidfd, err := startTaskCommand(&r.cfg, r.log)
	if err != nil {
		return err
	}
	r.hasStarted(pid, pidfd)
	return nil
}

// awaitAnother limits how long a task lives without a node.
func (r *resident) awaitAnother() {
	if r.cfg.Task != nil {
		r.orphan = time.After(r.cfg.Task.Orphan)
	}
}

// deliver tells the node how the command ended, or the next one, and returns
// when one has heard it.
func (r *resident) deliver(events <-chan nodeEvent) {
	r.link.set(commandState{Started: r.started, Exit: &r.status}, -1)
	r.tellExited()
	if r.node == nil {
		r.awaitAnother()
	}
	for {
		select {
		case e := <-events:
			closeAll(e.fds)
			switch {
			case e.lost:
				r.node = nil
				r.awaitAnother()
			case e.m.Kind == nodeAttached && e.state.Exit != nil, e.m.Kind == nodeAck, e.m.Kind == nodeGone:
				return
			case e.m.Kind == nodeAttached:
				r.node, r.orphan = e.conn, nil
				r.tellExited()
			}
		case <-r.orphan:
			return
		}
	}
}

// endWithoutDaemons ends a task whose command has ended well and left nothing
// behind but what was executed beside it.
func (r *resident) endWithoutDaemons() {
	if r.cfg.Task == nil || r.running || r.ending || len(r.execs) == 0 {
		return // the last process's end ends the sandbox
	}
	ours := make(map[int]bool, len(r.execs))
	for pid := range r.execs {
		ours[pid] = true
		for _, below := range descendants(pid) {
			ours[below] = true
		}
	}
	for _, pid := range descendants(unix.Getpid()) {
		if !ours[pid] {
			return
		}
	}
	r.killAll()
}

// inherit makes the daemon that a task's command left, when that ended well, the
// command in its place: it gets the signals, and how it ends is how the task
// did. Of several it is the oldest.
func (r *resident) inherit() bool {
	if r.cfg.Task == nil || r.ending || r.status.Code != 0 {
		return false
	}
	oldest := uint64(math.MaxUint64)
	for _, pid := range children(unix.Getpid()) {
		if _, ok := r.execs[pid]; ok {
			continue
		}
		if began := startTicks(pid); began < oldest {
			oldest, r.pid, r.running = began, pid, true
		}
	}
	return r.running
}

// exec runs a process beside the command.
func (r *resident) exec(e nodeEvent) {
	id, cmd := e.m.Exec, e.m.Command
	fail := func(code int, err error) {
		r.tellNode(initMessage{Kind: eventExecFailed, Exec: id, Exit: &ExitStatus{Code: code, Error: err.Error(), FinishedAt: time.Now()}})
	}
	if r.ending || !r.running && r.cfg.Task == nil {
		fail(ExitFailure, ErrEnded)
		return
	}
	env := lastWins(slices.Concat(r.cfg.Env, toStrings(cmd.Env)))
	dir, args := string(cmd.Dir), toStrings(cmd.Args)
	if dir == "" {
		dir = r.cfg.Dir
	}
	path, err := lookPath(args[0], env, dir)
	if err == nil {
		err = checkDir(dir)
	}
	if err != nil {
		fail(exitCode(err), err)
		return
	}
	path, argv := limited(r.cfg.Task, path, args)
	for _, fd := range e.fds {
		_ = unix.SetNonblock(fd, false) // the other side's Go may have set it
	}
	pidfd := -1
	attr := &syscall.ProcAttr{
		Dir: dir, Env: env, Files: []uintptr{uintptr(e.fds[0]), uintptr(e.fds[1]), uintptr(e.fds[2])},
		Sys: &syscall.SysProcAttr{Setsid: true, Setctty: cmd.TTY, PidFD: &pidfd},
	}
	if !r.cfg.PIDNS {
		attr.Sys.Pdeathsig = unix.SIGKILL
	}
	pid, err := syscall.ForkExec(path, argv, attr)
	if err != nil {
		err = execError(args[0], err)
		fail(exitCode(err), err)
		return
	}
	defer closePIDFD(pidfd)
	r.execs[pid] = id
	r.tellNode(initMessage{Kind: eventExecuted, Exec: id}, pidfd)
}

func (r *resident) execEnded(id uint64, c childEvent) {
	if c.status.Stopped() {
		return
	}
	delete(r.execs, c.pid)
	status := exitStatus(c.status)
	r.tellNode(initMessage{Kind: eventExecExited, Exec: id, Exit: &status})
	r.endWithoutDaemons()
}

// signalFor sends a signal to what Exec started, or to the command.
func (r *resident) signalFor(m nodeMessage) {
	s := unix.Signal(m.Signal)
	if m.Exec == 0 {
		r.signalCommand(s)
		return
	}
	for pid, id := range r.execs {
		if id == m.Exec {
			_ = unix.Kill(pid, s) // it may end at any time
		}
	}
}

// signalCommand sends s to the command or, if that has ended, to what it left.
func (r *resident) signalCommand(s unix.Signal) {
	switch {
	case !r.running:
		signalAll(s)
	case r.cfg.Task == nil:
		r.signal(s)
	default:
		_ = unix.Kill(r.pid, s) // it may end at any time
	}
}

package sandbox

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// A terminal is the controlling terminal of this process. The nil *terminal is
// valid and means that there is none.
type terminal struct {
	fd   int
	mode unix.Termios // as found
}

// openTerminal returns the controlling terminal, nil without one.
func openTerminal() *terminal {
	// Not os.OpenFile: its poller would make the terminal non-blocking.
	fd, err := unix.Open("/dev/tty", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	mode, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		_ = unix.Close(fd)
		return nil
	}
	return &terminal{fd: fd, mode: *mode}
}

func (t *terminal) close() {
	if t != nil {
		_ = unix.Close(t.fd)
	}
}

// foreground returns the terminal's foreground process group. It is 0 if the
// group is not visible in this pid namespace, and -1 without terminal.
func (t *terminal) foreground() int {
	if t == nil {
		return -1
	}
	pgrp, err := unix.IoctlGetUint32(t.fd, unix.TIOCGPGRP)
	if err != nil {
		return -1
	}
	return int(pgrp)
}

// ours reports whether this process is in the foreground.
func (t *terminal) ours() bool {
	return t != nil && t.foreground() == unix.Getpgrp()
}

// abandoned reports whether no process is left in the foreground.
func (t *terminal) abandoned() bool {
	pgrp := t.foreground()
	return pgrp > 0 && errors.Is(unix.Kill(-pgrp, 0), unix.ESRCH)
}

// hungUp reports whether there was a terminal which is gone.
func (t *terminal) hungUp() bool {
	if t == nil {
		return false
	}
	_, err := unix.IoctlGetTermios(t.fd, unix.TCGETS)
	return err != nil
}

// setForeground gives the terminal to a process group, from the background too.
func (t *terminal) setForeground(pgrp int) error {
	if t == nil {
		return unix.ENOTTY
	}
	return withoutTTOU(func() error { return unix.IoctlSetPointerInt(t.fd, unix.TIOCSPGRP, pgrp) })
}

// restore gives the terminal the mode in which it was found, after what was
// written has left.
func (t *terminal) restore() error {
	if t == nil {
		return nil
	}
	return withoutTTOU(func() error { return unix.IoctlSetTermios(t.fd, unix.TCSETSW, &t.mode) })
}

// withoutTTOU runs f with SIGTTOU blocked. A background process that sets
// something on its terminal is stopped otherwise, and ignoring the signal
// instead would be inherited by commands.
func withoutTTOU(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var set, old unix.Sigset_t
	set.Val[0] = 1 << (unix.SIGTTOU - 1)
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &set, &old); err != nil {
		return fmt.Errorf("block SIGTTOU: %w", err)
	}
	err := f()
	if uerr := unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil); err == nil {
		err = uerr
	}
	return err
}

func isTerminal(fd uintptr) bool {
	_, err := unix.IoctlGetTermios(int(fd), unix.TCGETS)
	return err == nil
}

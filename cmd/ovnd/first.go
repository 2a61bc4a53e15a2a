package main

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

// passedOn are the signals that the first process of a container gets for the
// program in it: from the engine and from its users.
var passedOn = []os.Signal{
	unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH, unix.SIGCONT,
}

// runAsFirst is what the first process of a PID namespace does, an ovnd in a
// container most often: the kernel gives it all orphans as children, which it has
// to wait for, and by no means may it take the exit status of a child that
// something else in the process waits for. So it runs the command line in a
// second process, passes signals on to it, waits for whatever ends, and ends as
// the command does.
func runAsFirst() int {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, passedOn...)
	pid, err := startSecond()
	if err != nil {
		fmt.Fprintln(os.Stderr, "ovnd:", err)
		return exitOwnFailure
	}
	go func() {
		for s := range signals {
			_ = unix.Kill(pid, s.(syscall.Signal)) // one that has ended needs none
		}
	}()
	for {
		var status unix.WaitStatus
		ended, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			fmt.Fprintln(os.Stderr, "ovnd: wait for the command:", err)
			return exitOwnFailure
		case ended == pid && status.Signaled():
			return 128 + int(status.Signal()) // as a shell has it
		case ended == pid:
			return status.ExitStatus()
		}
	}
}

// startSecond starts this command line again. The signals of a terminal are for
// the command alone: it has the foreground.
func startSecond() (pid int, err error) {
	attr := &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Setpgid: true}}
	if _, err := unix.IoctlGetInt(0, unix.TIOCGPGRP); err == nil {
		attr.Sys.Foreground = true // of the terminal that descriptor 0, Ctty, is
	}
	pid, err = syscall.ForkExec("/proc/self/exe", os.Args, attr)
	if err != nil {
		return 0, fmt.Errorf("start the command as a second process: %w", err)
	}
	return pid, nil
}

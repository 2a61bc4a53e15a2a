package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// insideEnv marks a process that Enter has already moved. Children inherit it:
// what a lab starts is in the lab.
const insideEnv = "OVND_LAB"

// Main runs the tests of m (a *testing.M) inside the lab, with the machine to
// themselves, and exits with their result. It is the whole body of a TestMain.
func Main(m interface{ Run() int }) {
	Enter()
	Exclusive()
	os.Exit(m.Run()) // which also frees the machine
}

// Enter returns in a process that is root in its own user, network and mount
// namespaces. The first call, outside, starts the same program with the same
// arguments and descriptors 0–2 there, forwards signals to it and exits with
// its exit status. Where the machine does not allow that, Enter says what to
// change and exits with status 1: a lab that cannot be built is a failure, not
// a reason to skip.
func Enter() {
	var err error
	if os.Getenv(insideEnv) != "" {
		if err = prepare(); err == nil {
			return
		}
	} else {
		var code int
		if code, err = reexec(); err == nil {
			os.Exit(code)
		}
	}
	fmt.Fprintln(os.Stderr, "lab:", err)
	os.Exit(1)
}

// reexec runs this program in new namespaces and returns its exit status.
func reexec() (int, error) {
	// The kernel ties Pdeathsig to the thread that forked.
	runtime.LockOSThread()
	cmd := &exec.Cmd{
		Path:   "/proc/self/exe",
		Args:   os.Args,
		Env:    append(os.Environ(), insideEnv+"=1"),
		Stdin:  os.Stdin,
		Stdout: os.Stdout,
		Stderr: os.Stderr,
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
			Pdeathsig:   syscall.SIGKILL,
		},
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGHUP)
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("no unprivileged user namespaces here (%w): check that sysctl user.max_user_namespaces "+
			"is not 0, kernel.unprivileged_userns_clone (Debian) is 1, kernel.apparmor_restrict_unprivileged_userns "+
			"(Ubuntu) is 0, and that a container around this process allows them (docker run --security-opt seccomp=unconfined)", err)
	}
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s) // it may have ended already
		}
	}()
	err := cmd.Wait()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		return 0, err
	}
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return cmd.ProcessState.ExitCode(), nil
}

// prepare makes the new namespaces usable and checks that they are.
func prepare() error {
	// Mounts made by tests must not travel, whatever the parent's propagation.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("the user namespace grants no capabilities (making mounts private: %w): "+
			"set sysctl kernel.apparmor_restrict_unprivileged_userns to 0 (Ubuntu)", err)
	}
	tun, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("no TUN devices here (%w): modprobe tun; chmod 0666 /dev/net/tun; "+
			"in a container, pass --device /dev/net/tun", err)
	}
	return tun.Close()
}

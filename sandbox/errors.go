package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Exit codes of Run beside the command's own, as `docker run` has them. A
// command that died by signal n gives 128 + n.
const (
	ExitFailure       = 125 // ovnd itself failed
	ExitNotExecutable = 126
	ExitNotFound      = 127
	exitSignal        = 128
)

// ErrGone is wrapped by a Handler's error if the node will never take the
// sandbox back. Its init then ends the command.
var ErrGone = errors.New("the node no longer knows this sandbox")

// Gone reports whether err says that a sandbox cannot be attached again.
func Gone(err error) bool { return errors.Is(err, ErrGone) }

// An exitError is an error with the exit code that it means.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }
func (e *exitError) Unwrap() error { return e.err }

// ExitCode is what callers outside look for: 126 or 127 of what cannot be executed.
func (e *exitError) ExitCode() int { return e.code }

// exitCode returns the code that err means.
func exitCode(err error) int {
	if e, ok := errors.AsType[*exitError](err); ok {
		return e.code
	}
	return ExitFailure
}

const procSys = "/proc/sys"

// explainNamespaces adds to an error of making namespaces, or of the first
// privileged steps in them, what can be done about it. sys is /proc/sys.
func explainNamespaces(err error, sys string) error {
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(sys, name))
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(b))
	}
	denied := errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES)
	switch {
	case read("user/max_user_namespaces") == "0":
		return fmt.Errorf("user namespaces are switched off here: as root, sysctl -w user.max_user_namespaces=15000: %w", err)
	case errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EUSERS):
		return fmt.Errorf("too many namespaces: as root, raise the limits in %s/user, or nest fewer: %w", sys, err)
	case denied && read("kernel/unprivileged_userns_clone") == "0":
		return fmt.Errorf("user namespaces are kept from ordinary users here: as root, sysctl -w kernel.unprivileged_userns_clone=1: %w", err)
	case denied && read("kernel/apparmor_restrict_unprivileged_userns") == "1":
		return fmt.Errorf("AppArmor restricts user namespaces here: as root, sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, "+
			"or give ovnd an AppArmor profile with the rule \"userns,\": %w", err)
	case denied:
		return fmt.Errorf("user namespaces are not permitted here: in a container, start it with "+
			"--security-opt seccomp=unconfined --security-opt apparmor=unconfined: %w", err)
	case errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("this kernel was built without user, network, mount, pid or UTS namespaces: %w", err)
	}
	return err
}

const tunPath = "/dev/net/tun"

// checkTUN tells what is wrong with the TUN device before anything is made.
func checkTUN(path string) error {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err == nil {
		return unix.Close(fd)
	}
	err = &fs.PathError{Op: "open", Path: path, Err: err}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("no TUN device: as root, modprobe tun; in a container, start it with --device %s: %w", path, err)
	case errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENXIO):
		return fmt.Errorf("the kernel has no TUN driver: as root, modprobe tun: %w", err)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("the TUN device is kept from this container: start it with --device %s: %w", path, err)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("the TUN device is not ours to open: as root, chmod 0666 %s: %w", path, err)
	}
	return err
}

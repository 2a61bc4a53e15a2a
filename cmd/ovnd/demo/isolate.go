package demo

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Whoever listens on a wire needs a capability that an ordinary user has only in
// namespaces of his own. So the demo of an encrypted network moves into such: it
// executes itself there, opens the wire, and executes itself once more, which
// leaves it that descriptor and no capability.

// isolateEnv tells how far that is: prepare, or the descriptor of the wire.
const isolateEnv = "OVND_DEMO_WIRE"

const prepareIsolated = "prepare"

// outsideAddr stands for the world outside, where there is none: a documentation
// address (RFC 5737) of the loopback interface.
var outsideAddr = netip.MustParseAddr("192.0.2.1")

// Isolate returns the wire of this process's own network once it has one; inside
// is then true. Before that it runs the whole command line again in new
// namespaces and returns its exit status.
func Isolate() (wire *os.File, inside bool, code int, err error) {
	switch stage := os.Getenv(isolateEnv); stage {
	case "":
		code, err = enterNamespaces()
		return nil, false, code, err
	case prepareIsolated:
		return nil, false, 1, prepareNamespaces()
	default:
		var fd int
		if _, err := fmt.Sscan(stage, &fd); err != nil {
			return nil, false, 1, fmt.Errorf("demo: %s=%s: %w", isolateEnv, stage, err)
		}
		unix.CloseOnExec(fd)
		return os.NewFile(uintptr(fd), "wire"), true, 0, os.Unsetenv(isolateEnv)
	}
}

// enterNamespaces runs this program again as the same user in a user and a
// network namespace of its own.
func enterNamespaces() (code int, err error) {
	cmd := exec.CommandContext(context.Background(), "/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), isolateEnv+"="+prepareIsolated)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: os.Getuid(), HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: os.Getgid(), HostID: os.Getgid(), Size: 1}},
		AmbientCaps: []uintptr{unix.CAP_NET_ADMIN, unix.CAP_NET_RAW},
	}
	// A terminal's signals reach both; this one waits for the other to clean up.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return 1, fmt.Errorf("demo: namespaces to listen in: %w", err)
	}
	go func() {
		for s := range signals {
			_ = cmd.Process.Signal(s) // it may have ended
		}
	}()
	err = cmd.Wait()
	if _, ended := errors.AsType[*exec.ExitError](err); err != nil && !ended {
		return 1, err
	}
	return cmd.ProcessState.ExitCode(), nil
}

// prepareNamespaces gives the new network its loopback and an address beside it,
// opens the wire and executes this program without capabilities.
func prepareNamespaces() error {
	// The kernel goes by the capabilities of the thread that executes.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("demo: loopback: %w", err)
	}
	fd, err := openWire("lo")
	if err != nil {
		return fmt.Errorf("demo: the wire: %w", err)
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("demo: capabilities: %w", err)
	}
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, isolateEnv+"=") })
	return unix.Exec("/proc/self/exe", os.Args, append(env, fmt.Sprintf("%s=%d", isolateEnv, fd)))
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd) //nolint:errcheck // nothing is lost with it
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		return err
	}
	outside, err := unix.NewIfreq("lo:1")
	if err != nil {
		return err
	}
	if err := outside.SetInet4Addr(outsideAddr.AsSlice()); err != nil {
		return err
	}
	return unix.IoctlIfreq(fd, unix.SIOCSIFADDR, outside)
}

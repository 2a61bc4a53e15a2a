package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// probeName is how the child that tries namespaces is called.
const probeName = "ovnd-doctor"

// A trial is what the child found out in its namespaces. Errors are 0 where
// something worked.
type trial struct {
	Mount unix.Errno // making the mounts private
	Proc  unix.Errno // mounting /proc; of a PID namespace only
	Sys   unix.Errno // writing /proc/sys/net
	TUN   tunTrial
}

// A tunTrial is a TUN device as the node wants it.
type tunTrial struct {
	Open, Create unix.Errno
	VnetHeader   bool // the device takes super-packets
	TSO, USO     bool // for TCP, for UDP
}

// MaybeProbe is the child if this process was started as that, and then does
// not return. It must be called first in main, and first in the TestMain of
// tests that use the package.
func MaybeProbe() {
	if len(os.Args) != 2 || os.Args[0] != probeName {
		return
	}
	t := tryInside(os.Args[1] == "pid")
	if err := json.NewEncoder(os.Stdout).Encode(t); err != nil {
		os.Exit(1) // nobody reads any more
	}
	os.Exit(0)
}

func tryInside(pidns bool) trial {
	var t trial
	// Errors of the kernel are all that these calls return.
	t.Mount = errno(unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""))
	if pidns && t.Mount == 0 {
		t.Proc = errno(unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""))
	}
	t.Sys = errno(os.WriteFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", []byte("0"), 0))
	t.TUN = tryTUN("ovnd-doctor0")
	return t
}

// errno returns the kernel's number behind err: 0 without an error, EIO where
// there is none.
func errno(err error) unix.Errno {
	if err == nil {
		return 0
	}
	if n, ok := errors.AsType[unix.Errno](err); ok {
		return n
	}
	return unix.EIO
}

// tryTUN makes a device in the calling thread's network namespace. It is gone
// when tryTUN returns.
func tryTUN(name string) (t tunTrial) {
	fd, err := unix.Open(tunPath, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Open = errno(err)
		return t
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		t.Create = unix.EINVAL
		return t
	}
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if t.Create = errno(unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)); t.Create != 0 {
		return t
	}
	t.VnetHeader = unix.IoctlIfreq(fd, unix.TUNGETIFF, ifr) == nil && ifr.Uint16()&unix.IFF_VNET_HDR != 0
	const tso = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6
	t.TSO = unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tso) == nil
	t.USO = unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tso|unix.TUN_F_USO4|unix.TUN_F_USO6) == nil
	return t
}

// Namespaces of a sandbox.
const (
	lessNamespaces = unix.CLONE_NEWUSER | unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWUTS
	allNamespaces  = lessNamespaces | unix.CLONE_NEWPID
)

// try runs the child in namespaces of its own, as the init of a sandbox is. An
// error that is a [unix.Errno] is the kernel's refusal to make them.
func try(ctx context.Context, flags uintptr) (t trial, err error) {
	kind := "nopid"
	if flags&unix.CLONE_NEWPID != 0 {
		kind = "pid"
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = []string{probeName, kind}
	cmd.Dir = string(filepath.Separator)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  flags,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: os.Geteuid(), HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: os.Getegid(), HostID: os.Getegid(), Size: 1}},
		AmbientCaps: []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_NET_ADMIN},
	}
	out, err := cmd.Output()
	if err != nil {
		if e, ok := errors.AsType[unix.Errno](err); ok {
			return t, e
		}
		return t, fmt.Errorf("the child of the trial: %w", err)
	}
	if err := json.Unmarshal(out, &t); err != nil {
		return t, fmt.Errorf("the child of the trial printed no result: %w", err)
	}
	return t, nil
}

package sandbox

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// kernelSigaction is the kernel's struct sigaction, of which we need no more
// than that it is all zero for the default action, and its size: handler,
// flags, restorer and an 8-byte mask at most.
type kernelSigaction [4]uint64

// withDefaultAction runs f while s has its default action. signal.Reset does
// not do: it leaves the runtime's handler in place for signals whose default
// is to stop the process.
func withDefaultAction(s unix.Signal, f func()) {
	var dfl, old kernelSigaction
	if sigaction(s, &dfl, &old) == 0 {
		defer sigaction(s, &old, nil)
	}
	f()
}

func sigaction(s unix.Signal, act, old *kernelSigaction) unix.Errno {
	_, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s),
		uintptr(unsafe.Pointer(act)), uintptr(unsafe.Pointer(old)), 8, 0, 0)
	return errno
}

package doctor

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// forbidNamespaces does to this process what the default profile of container
// engines does: no new namespaces, and no clone3, whose flags a filter cannot
// see.
func forbidNamespaces() error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	const (
		load, equal, anyBit, ret = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ, unix.BPF_JMP | unix.BPF_JSET, unix.BPF_RET
		number, firstArg         = 0, 16 // struct seccomp_data
		newAny                   = allNamespaces
		allow                    = 0x7fff0000
		refuse                   = 0x00050000
	)
	filter := []unix.SockFilter{
		{Code: load, K: number},
		{Code: equal, K: unix.SYS_CLONE3, Jf: 1},
		{Code: ret, K: refuse | uint32(unix.ENOSYS)},
		{Code: equal, K: unix.SYS_UNSHARE, Jt: 3},
		{Code: equal, K: unix.SYS_CLONE, Jf: 3},
		{Code: load, K: firstArg},
		{Code: anyBit, K: newAny, Jf: 1},
		{Code: ret, K: refuse | uint32(unix.EPERM)},
		{Code: ret, K: allow},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return os.NewSyscallError("seccomp", errno)
	}
	return nil
}

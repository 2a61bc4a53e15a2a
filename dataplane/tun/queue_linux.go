package tun

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Queue is one queue of a TUN device with IFF_VNET_HDR, read and written
// without blocking. Read and Write may be called at the same time; nothing may
// be called once Close has been.
type Queue struct {
	fd  int
	uso bool
}

// Adopt takes over f, which it closes, and makes the queue non-blocking. The
// mode belongs to the open file description, so it holds for every process
// that shares it.
func Adopt(f *os.File) (*Queue, error) {
	// A duplicate outside the runtime's poller: registered there, each packet
	// would wake a thread of it too.
	fd, err := dupFD(f)
	if err != nil {
		return nil, fmt.Errorf("adopt TUN queue: duplicate descriptor: %w", err)
	}
	if err := f.Close(); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("adopt TUN queue: %w", err)
	}
	if err := check(fd); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	// wireguard/tun has asked for the same, and goes without USO where the
	// kernel, before 6.2, refuses it.
	const offloads = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_USO4 | unix.TUN_F_USO6
	return &Queue{fd: fd, uso: unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, offloads) == nil}, nil
}

// USO reports whether the device takes UDP super-packets.
func (q *Queue) USO() bool { return q.uso }

func check(fd int) error {
	ifr, err := unix.NewIfreq("")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.TUNGETIFF, ifr); err != nil {
		return fmt.Errorf("adopt TUN queue: not a TUN descriptor: %w", err)
	}
	if ifr.Uint16()&unix.IFF_VNET_HDR == 0 {
		return fmt.Errorf("adopt TUN queue of %s: the device was made without IFF_VNET_HDR", ifr.Name())
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return fmt.Errorf("adopt TUN queue of %s: non-blocking mode: %w", ifr.Name(), err)
	}
	return nil
}

func dupFD(f *os.File) (int, error) {
	sc, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	dup, dupErr := -1, error(nil)
	if err := sc.Control(func(fd uintptr) {
		dup, dupErr = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 3)
	}); err != nil {
		return -1, err
	}
	return dup, dupErr
}

// FD returns the descriptor, for epoll. The queue keeps it.
func (q *Queue) FD() int { return q.fd }

// Read reads one super-packet and the virtio_net_hdr before it into b, which
// must have room for pkt.MaxSuper bytes: the kernel cuts off what does not fit
// and does not say so. unix.EAGAIN means that nothing waits.
func (q *Queue) Read(b []byte) (int, error) {
	for {
		n, _, errno := unix.Syscall(unix.SYS_READ, uintptr(q.fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		if errno == 0 {
			return int(n), nil
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}

// Write writes b, a virtio_net_hdr and its super-packet. unix.EINVAL is what
// the kernel says to metadata that does not fit the packet, unix.EIO that the
// device is down.
func (q *Queue) Write(b []byte) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_WRITE, uintptr(q.fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		if errno == 0 {
			return nil
		}
		if errno != unix.EINTR {
			return errno
		}
	}
}

// Writev is Write of one super-packet in pieces, of which the first begins
// with the virtio_net_hdr.
func (q *Queue) Writev(iov []unix.Iovec) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_WRITEV, uintptr(q.fd), uintptr(unsafe.Pointer(&iov[0])), uintptr(len(iov)))
		if errno == 0 {
			return nil
		}
		if errno != unix.EINTR {
			return errno
		}
	}
}

// Close closes the queue's descriptor.
func (q *Queue) Close() error { return unix.Close(q.fd) }

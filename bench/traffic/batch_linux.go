package traffic

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// An mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	header unix.Msghdr
	length uint32 // bytes of this datagram
	_      [4]byte
}

// A batch receives several datagrams by one system call.
type batch struct {
	msgs []mmsghdr
	vecs []unix.Iovec
}

func newBatch(n, size int) *batch {
	b := &batch{msgs: make([]mmsghdr, n), vecs: make([]unix.Iovec, n)}
	for i := range b.msgs {
		b.vecs[i].Base = unsafe.SliceData(make([]byte, size))
		b.vecs[i].SetLen(size)
		b.msgs[i].header.Iov = &b.vecs[i]
		b.msgs[i].header.SetIovlen(1)
	}
	return b
}

// receive fills msgs[:n] with what the socket holds; EAGAIN if that is nothing.
func (b *batch) receive(fd int) (n int, err error) {
	r, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.msgs[0])),
		uintptr(len(b.msgs)), unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(r), nil
}

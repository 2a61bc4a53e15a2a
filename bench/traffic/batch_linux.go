package traffic

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// An mmsghdr is struct mmsghdr of recvmmsg(2) and sendmmsg(2).
type mmsghdr struct {
	header unix.Msghdr
	length uint32 // bytes of this datagram
	_      [4]byte
}

// A batch receives or sends several datagrams by one system call. Its buffers
// are its own.
type batch struct {
	msgs []mmsghdr
	vecs []unix.Iovec
	bufs [][]byte
}

func newBatch(n, size int) *batch {
	b := &batch{msgs: make([]mmsghdr, n), vecs: make([]unix.Iovec, n), bufs: make([][]byte, n)}
	for i := range b.msgs {
		b.bufs[i] = make([]byte, size)
		b.vecs[i].Base = unsafe.SliceData(b.bufs[i])
		b.vecs[i].SetLen(size)
		b.msgs[i].header.Iov = &b.vecs[i]
		b.msgs[i].header.SetIovlen(1)
	}
	return b
}

// receive fills msgs[:n] with what the socket holds; EAGAIN if that is nothing.
func (b *batch) receive(fd int) (n int, err error) {
	return b.call(unix.SYS_RECVMMSG, fd, len(b.msgs), unix.MSG_DONTWAIT)
}

// send sends the first n datagrams to the peer of a connected socket and returns
// how many left before the error.
func (b *batch) send(fd, n int) (sent int, err error) {
	return b.call(unix.SYS_SENDMMSG, fd, n, 0)
}

func (b *batch) call(trap uintptr, fd, n, flags int) (int, error) {
	r, _, errno := unix.Syscall6(trap, uintptr(fd), uintptr(unsafe.Pointer(&b.msgs[0])), uintptr(n), uintptr(flags), 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(r), nil
}

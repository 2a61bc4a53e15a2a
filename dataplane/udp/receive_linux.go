package udp

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// maxMessages is how many messages one system call takes. Senders whose
	// kernel does not hand over many datagrams at once, a kernel VXLAN device
	// say, come a datagram a message.
	maxMessages = 32
	// messageRoom holds what UDP_GRO can put together. Message buffers do not
	// lie a power of two apart, which would put their headers into the same
	// cache sets.
	messageRoom   = 1 << 16
	messageStride = messageRoom + 192
	// bulk is the size in bytes from which a message is worth a system call of
	// its own: more than one would not stay in the cache until it is handled.
	bulk = 1 << 14

	controlRoom = 64 // for UDP_GRO and the ECN field
)

// ErrClosed means that [Underlay.Shutdown] was called.
var ErrClosed = errors.New("udp: underlay closed")

// A Message is what one sender sent: a run of datagrams, SegSize bytes each, the
// last maybe shorter.
type Message struct {
	From      netip.Addr
	Data      []byte
	SegSize   int
	ECN       uint8
	Truncated bool // Data is not all of it
}

// A Receiver receives at one socket. It is for one goroutine.
type Receiver struct {
	fd     int
	closed atomic.Bool
	vlen   int // messages to ask for

	headers  [maxMessages]mmsghdr
	iovs     [maxMessages]unix.Iovec
	names    [maxMessages]unix.RawSockaddrInet6
	controls [maxMessages][controlRoom]byte
	buf      []byte
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

func newReceiver(fd int) *Receiver {
	r := &Receiver{fd: fd, vlen: maxMessages, buf: make([]byte, maxMessages*messageStride)}
	for i := range r.headers {
		r.iovs[i].Base = &r.buf[i*messageStride]
		r.iovs[i].SetLen(messageRoom)
		h := &r.headers[i].hdr
		h.Iov, h.Name, h.Control = &r.iovs[i], (*byte)(unsafe.Pointer(&r.names[i])), &r.controls[i][0]
		h.SetIovlen(1)
	}
	return r
}

// FD returns the descriptor, to wait at. The receiver keeps it.
func (r *Receiver) FD() int { return r.fd }

// Receive takes messages that wait and returns their number; [Receiver.Message]
// gives each, until the next Receive. [unix.EAGAIN] means that none do. Errors
// other than that and [ErrClosed] are of the moment, an ICMP error for something
// sent say.
func (r *Receiver) Receive() (int, error) {
	for i := range r.vlen {
		h := &r.headers[i].hdr
		h.Namelen = unix.SizeofSockaddrInet6
		h.SetControllen(controlRoom)
	}
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(r.fd), uintptr(unsafe.Pointer(&r.headers[0])),
		uintptr(r.vlen), unix.MSG_DONTWAIT, 0, 0)
	if r.closed.Load() {
		return 0, ErrClosed
	}
	if errno != 0 {
		return 0, errno
	}
	r.vlen = maxMessages
	if r.headers[0].len >= bulk {
		r.vlen = 1
	}
	return int(n), nil
}

// Message returns message i of the last Receive. Its Data is the receiver's
// memory and may be written to.
func (r *Receiver) Message(i int) Message {
	h := &r.headers[i]
	at := i * messageStride
	m := Message{
		From:      sourceAddr(&r.names[i]),
		Data:      r.buf[at : at+int(h.len)],
		SegSize:   int(h.len),
		Truncated: h.hdr.Flags&unix.MSG_TRUNC != 0,
	}
	m.readControl(r.controls[i][:h.hdr.Controllen])
	return m
}

// readControl reads the control messages: struct cmsghdr, then data, each
// aligned to eight bytes.
func (m *Message) readControl(b []byte) {
	for len(b) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
		n := int(h.Len)
		if n < unix.SizeofCmsghdr || n > len(b) {
			return
		}
		data := b[unix.SizeofCmsghdr:n]
		switch {
		case h.Level == unix.IPPROTO_UDP && h.Type == unix.UDP_GRO && len(data) >= 4:
			if size := int(binary.NativeEndian.Uint32(data)); size > 0 {
				m.SegSize = size
			}
		case h.Level == unix.SOL_IP && h.Type == unix.IP_TOS && len(data) >= 1:
			m.ECN = data[0] & 3
		case h.Level == unix.SOL_IPV6 && h.Type == unix.IPV6_TCLASS && len(data) >= 4:
			m.ECN = uint8(binary.NativeEndian.Uint32(data)) & 3
		}
		b = b[min(unix.CmsgSpace(len(data)), len(b)):]
	}
}

// Indices of SO_MEMINFO's answer (linux/sock_diag.h).
const (
	skMeminfoRmemAlloc = 0
	skMeminfoDrops     = 8
	skMeminfoVars      = 9
)

// Queued returns what waits in the receive buffer, in bytes of kernel memory.
func (r *Receiver) Queued() int { return int(r.meminfo()[skMeminfoRmemAlloc]) }

// dropped returns the socket's sk_drops.
func (r *Receiver) dropped() uint64 { return uint64(r.meminfo()[skMeminfoDrops]) }

// meminfo is zero if the kernel has none.
func (r *Receiver) meminfo() (info [skMeminfoVars]uint32) {
	size := uint32(unsafe.Sizeof(info))
	_, _, _ = unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(r.fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	return info
}

// shutdown wakes who waits at the descriptor: on an unconnected UDP socket
// shutdown(2) reports ENOTCONN and yet does that.
func (r *Receiver) shutdown() {
	r.closed.Store(true)
	_ = unix.Shutdown(r.fd, unix.SHUT_RD)
}

package udp

import (
	"encoding/binary"
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// MaxSegments is what one send may consist of: UDP_MAX_SEGMENTS of kernels
	// before 6.9. Twice as many gain nothing.
	MaxSegments = 64
	// MaxSend is the largest send in bytes that fits an IPv6 packet as well as
	// an IPv4 one.
	MaxSend = 65535 - 40 - 8

	// gsoRetry is how many sends go without UDP_SEGMENT before it is tried
	// again: routes change.
	gsoRetry = 1 << 12
)

// A Sender sends from an underlay's source ports. It is for one goroutine;
// several senders may share the sockets.
type Sender struct {
	ports []int
	v6    bool

	msg     unix.Msghdr
	iov     unix.Iovec
	control [64]byte
}

// NewSender returns a sender over u's source ports.
func (u *Underlay) NewSender() *Sender {
	s := &Sender{ports: u.ports, v6: u.local.Addr().Is6()}
	s.msg.Iov = &s.iov
	s.msg.SetIovlen(1)
	return s
}

// Ports returns the number of source ports.
func (s *Sender) Ports() int { return len(s.ports) }

// Send sends b, which consists of datagrams of segSize bytes, the last maybe
// shorter, to an address, from source port number port, with ecn in the outer
// header. It returns how many of them left. The error is the [unix.Errno] of
// the last that did not: unix.EMSGSIZE if they do not fit the link.
func (s *Sender) Send(to *Addr, port int, b []byte, segSize int, ecn uint8) (sent int, err error) {
	count := (len(b) + segSize - 1) / segSize
	if count == 1 || to.noGSO.Load() <= 0 {
		err = s.send(to, port, b, segSize, ecn)
		if err == nil {
			return count, nil
		}
		// EIO is the kernel's word for a device without checksum offload and
		// for IPsec, EINVAL an older kernel's for those and for a size that
		// does not fit.
		if count == 1 || !errors.Is(err, unix.EIO) && !errors.Is(err, unix.EINVAL) {
			return 0, err
		}
	}
	err = nil
	for len(b) > 0 {
		n := min(segSize, len(b))
		if e := s.send(to, port, b[:n], n, ecn); e != nil {
			err = e
		} else {
			sent++
		}
		b = b[n:]
	}
	if to.noGSO.Add(-1) < 0 && sent == count {
		to.noGSO.Store(gsoRetry)
	}
	return sent, err
}

func (s *Sender) send(to *Addr, port int, b []byte, segSize int, ecn uint8) error {
	s.iov.Base = &b[0]
	s.iov.SetLen(len(b))
	s.msg.Name, s.msg.Namelen = (*byte)(unsafe.Pointer(&to.raw)), to.len
	n := 0
	if segSize < len(b) {
		n += s.putControl(n, unix.IPPROTO_UDP, unix.UDP_SEGMENT, 2)
		binary.NativeEndian.PutUint16(s.control[unix.SizeofCmsghdr:], uint16(segSize))
	}
	if ecn != 0 {
		level, kind := int32(unix.SOL_IP), int32(unix.IP_TOS)
		if s.v6 {
			level, kind = unix.SOL_IPV6, unix.IPV6_TCLASS
		}
		at := n + unix.SizeofCmsghdr
		n += s.putControl(n, level, kind, 4)
		binary.NativeEndian.PutUint32(s.control[at:], uint32(ecn))
	}
	s.msg.Control = nil
	if n > 0 {
		s.msg.Control = &s.control[0]
	}
	s.msg.SetControllen(n)
	for {
		_, _, errno := unix.Syscall(unix.SYS_SENDMSG, uintptr(s.ports[port]), uintptr(unsafe.Pointer(&s.msg)), 0)
		if errno == 0 {
			return nil
		}
		if errno != unix.EINTR {
			return errno
		}
	}
}

// putControl writes the header of a control message with size bytes of data at
// offset at, and returns the room it takes.
func (s *Sender) putControl(at int, level, kind int32, size int) int {
	h := (*unix.Cmsghdr)(unsafe.Pointer(&s.control[at]))
	h.Level, h.Type = level, kind
	h.SetLen(unix.CmsgLen(size))
	return unix.CmsgSpace(size)
}

package udp

import (
	"encoding/binary"
	"net/netip"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// An Addr is a destination in the form that system calls take. It must not be
// copied, and is safe for concurrent use.
type Addr struct {
	ap  netip.AddrPort
	raw unix.RawSockaddrInet6 // holds a RawSockaddrInet4 for IPv4
	len uint32
	// noGSO is for how many sends more UDP_SEGMENT is not tried, since the
	// route did not take it.
	noGSO atomic.Int32
}

// NewAddr returns the destination ap.
func NewAddr(ap netip.AddrPort) *Addr {
	a := &Addr{ap: ap}
	if ap.Addr().Is4() {
		sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(&a.raw))
		sa.Family, sa.Addr = unix.AF_INET, ap.Addr().As4()
		putPort(&sa.Port, ap.Port())
		a.len = unix.SizeofSockaddrInet4
		return a
	}
	a.raw.Family, a.raw.Addr = unix.AF_INET6, ap.Addr().As16()
	putPort(&a.raw.Port, ap.Port())
	a.len = unix.SizeofSockaddrInet6
	return a
}

// AddrPort returns the destination.
func (a *Addr) AddrPort() netip.AddrPort { return a.ap }

func putPort(field *uint16, port uint16) {
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(field))[:], port)
}

// sourceAddr reads the address that recvmsg wrote.
func sourceAddr(raw *unix.RawSockaddrInet6) netip.Addr {
	if raw.Family == unix.AF_INET {
		return netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(raw)).Addr)
	}
	return netip.AddrFrom16(raw.Addr)
}

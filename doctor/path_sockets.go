package doctor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/ovnd/ovnd/encap"
)

// probeSocket opens a socket that sends with DF set, whatever the kernel knows
// of the path.
func probeSocket(addr netip.Addr, kind, protocol4, protocol6 int) (fd int, err error) {
	family, protocol := unix.AF_INET, protocol4
	level, option, value := unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE
	if addr.Is6() {
		family, protocol = unix.AF_INET6, protocol6
		level, option, value = unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE
	}
	fd, err = unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return -1, err
	}
	if err := unix.SetsockoptInt(fd, level, option, value); err != nil {
		_ = unix.Close(fd) // nothing was sent
		return -1, err
	}
	return fd, nil
}

// headers is what an IP and an ICMP or UDP header take, in bytes.
func headers(addr netip.Addr) int {
	if addr.Is6() {
		return encap.IPv6HeaderLen + encap.UDPHeaderLen
	}
	return encap.IPv4HeaderLen + encap.UDPHeaderLen
}

// An echo probes with ICMP echo requests (RFC 792, RFC 4443 §4.1) over an
// unprivileged socket, for which the kernel fills in identifier and checksum.
type echo struct {
	socket int
	addr   netip.Addr
	buf    []byte
}

func openEcho(addr netip.Addr) (prober, error) {
	fd, err := probeSocket(addr, unix.SOCK_DGRAM, unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6)
	if err != nil {
		return nil, fmt.Errorf("echo socket: %w", err)
	}
	return &echo{socket: fd, addr: addr, buf: make([]byte, largestProbe)}, nil
}

const (
	echoHeaderLen = 8
	echoRequest4  = 8
	echoReply4    = 0
	echoRequest6  = 128
	echoReply6    = 129
)

func (e *echo) send(n, size int) error {
	b := make([]byte, echoHeaderLen+size-headers(e.addr))
	b[0] = echoRequest4
	if e.addr.Is6() {
		b[0] = echoRequest6
	}
	binary.BigEndian.PutUint16(b[6:], uint16(n))
	return unix.Sendto(e.socket, b, 0, sockaddr(netip.AddrPortFrom(e.addr, 0)))
}

func (e *echo) receive() (int, error) {
	n, _, err := unix.Recvfrom(e.socket, e.buf, 0)
	if err != nil {
		if pathError(err) {
			return -1, nil
		}
		return -1, err
	}
	want := byte(echoReply4)
	if e.addr.Is6() {
		want = echoReply6
	}
	if n < echoHeaderLen || e.buf[0] != want {
		return -1, nil
	}
	return int(binary.BigEndian.Uint16(e.buf[6:])), nil
}

// pathError says whether err is a router's word about one packet rather than
// about the socket.
func pathError(err error) bool {
	return errors.Is(err, unix.EMSGSIZE) || errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.ENETUNREACH) ||
		errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.EINTR) || errors.Is(err, unix.EPROTO)
}

func (e *echo) fd() int      { return e.socket }
func (e *echo) close()       { _ = unix.Close(e.socket) } // a socket's has no error to act on
func (e *echo) name() string { return "echo" }
func (e *echo) rounds() int  { return 5 }
func (e *echo) batch() int   { return maxBatch }

// A closedPort probes with UDP datagrams to ports where nobody listens, as
// traceroute does: the peer's ICMP error says that one arrived, and carries the
// port that it was for. Linux sends six such errors at once and then one a
// second (net.ipv4.icmp_ratelimit), so there is one round.
type closedPort struct {
	socket int
	addr   netip.Addr
	buf    []byte
	oob    []byte
}

// firstClosed is traceroute's first port.
const firstClosed = 33434

func openClosedPort(addr netip.Addr) (prober, error) {
	fd, err := probeSocket(addr, unix.SOCK_DGRAM, unix.IPPROTO_UDP, unix.IPPROTO_UDP)
	if err != nil {
		return nil, fmt.Errorf("UDP socket: %w", err)
	}
	level, option := unix.SOL_IP, unix.IP_RECVERR
	if addr.Is6() {
		level, option = unix.SOL_IPV6, unix.IPV6_RECVERR
	}
	if err := unix.SetsockoptInt(fd, level, option, 1); err != nil {
		_ = unix.Close(fd) // nothing was sent
		return nil, fmt.Errorf("UDP socket: %w", err)
	}
	return &closedPort{socket: fd, addr: addr, buf: make([]byte, largestProbe), oob: make([]byte, 512)}, nil
}

func (c *closedPort) send(n, size int) error {
	to := sockaddr(netip.AddrPortFrom(c.addr, firstClosed+uint16(n)))
	var err error
	for range c.batch() {
		err = unix.Sendto(c.socket, make([]byte, size-headers(c.addr)), 0, to)
		if err == nil || !pathError(err) {
			break
		}
		// It may be an earlier one's, and this one was not sent.
	}
	return err
}

func (c *closedPort) receive() (int, error) {
	_, oobn, _, from, err := unix.Recvmsg(c.socket, c.buf, c.oob, unix.MSG_ERRQUEUE)
	if err != nil {
		if pathError(err) {
			return -1, nil
		}
		return -1, err
	}
	if !portUnreachable(c.oob[:oobn]) {
		return -1, nil
	}
	switch sa := from.(type) { // where the packet went that the error is about
	case *unix.SockaddrInet4:
		return sa.Port - firstClosed, nil
	case *unix.SockaddrInet6:
		return sa.Port - firstClosed, nil
	}
	return -1, nil
}

// extendedErrLen is the size of struct sock_extended_err, ip(7).
const extendedErrLen = 16

// portUnreachable says whether the error of a control message is the peer's own
// "port unreachable" (RFC 792, RFC 4443 §3.1) rather than a router's.
func portUnreachable(oob []byte) bool {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return false
	}
	for _, m := range messages {
		if len(m.Data) < extendedErrLen {
			continue
		}
		origin, kind, code := m.Data[4], m.Data[5], m.Data[6]
		switch {
		case m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_RECVERR:
			return origin == unix.SO_EE_ORIGIN_ICMP && kind == 3 && code == 3
		case m.Header.Level == unix.SOL_IPV6 && m.Header.Type == unix.IPV6_RECVERR:
			return origin == unix.SO_EE_ORIGIN_ICMP6 && kind == 1 && code == 4
		}
	}
	return false
}

func (c *closedPort) fd() int      { return c.socket }
func (c *closedPort) close()       { _ = unix.Close(c.socket) } // a socket's has no error to act on
func (c *closedPort) name() string { return "UDP to closed ports" }
func (c *closedPort) rounds() int  { return 1 }
func (c *closedPort) batch() int   { return 6 }

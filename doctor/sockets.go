package doctor

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// wantedBuffer is what a node asks for each of its underlay sockets, in bytes.
const wantedBuffer = 1 << 20

// sockets is what this user's sockets may be and do.
func (h *host) sockets(context.Context) []Finding {
	return []Finding{h.lowPorts(), h.pingRange(), h.buffers(), segmentation()}
}

func (h *host) lowPorts() Finding {
	const name = "net.ipv4.ip_unprivileged_port_start"
	s := h.read("proc/sys/net/ipv4/ip_unprivileged_port_start")
	first, err := strconv.Atoi(s)
	switch {
	case err != nil:
		return warn("low ports", "", "%s cannot be read", name)
	case first > 80 && !h.capable(unix.CAP_NET_BIND_SERVICE):
		return warn("low ports", h.netSysctl(name, "80"), "this user's begin at %d: services cannot be published below", first)
	}
	return ok("low ports", "this user's begin at %d", first)
}

// pingRange says whether echo sockets can be had: egress from networks needs
// them for ICMP, and path MTUs are measured best with them.
func (h *host) pingRange() Finding {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
	if err == nil {
		_ = unix.Close(fd) // nothing was sent
		return ok("ping", "echo sockets are this user's to have")
	}
	allowed := strings.Join(strings.Fields(h.read("proc/sys/net/ipv4/ping_group_range")), " ")
	return warn("ping", h.netSysctl("net.ipv4.ping_group_range", "0 2147483647"),
		"no echo sockets (net.ipv4.ping_group_range is %q): no ping from networks to the world outside, path MTUs are only estimated", allowed)
}

func (h *host) buffers() Finding {
	receive, err1 := bufferSize(unix.SO_RCVBUF)
	send, err2 := bufferSize(unix.SO_SNDBUF)
	if err := errors.Join(err1, err2); err != nil {
		return warn("socket buffers", "", "not found out: %v", err)
	}
	found := fmt.Sprintf("%d KiB to receive, %d KiB to send", receive>>10, send>>10)
	var remedies []string
	if receive < wantedBuffer {
		remedies = append(remedies, "net.core.rmem_max="+strconv.Itoa(wantedBuffer))
	}
	if send < wantedBuffer {
		remedies = append(remedies, "net.core.wmem_max="+strconv.Itoa(wantedBuffer))
	}
	if remedies == nil {
		return ok("socket buffers", "%s, as a node asks", found)
	}
	return warn("socket buffers", h.onHost("sudo sysctl -w %s", strings.Join(remedies, " ")),
		"%s, where a node asks for %d: bursts are dropped", found, wantedBuffer>>10)
}

// bufferSize returns how many bytes of wantedBuffer a socket gets.
func bufferSize(option int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("UDP socket: %w", err)
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was sent
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, wantedBuffer); err != nil {
		return 0, fmt.Errorf("socket buffer: %w", err)
	}
	got, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, option)
	// The kernel doubles it for its own accounting, socket(7).
	return got / 2, err
}

// segmentation tries UDP_SEGMENT and UDP_GRO on loopback: whether one system
// call carries many datagrams.
func segmentation() Finding {
	gso, gro, err := trySegments()
	switch {
	case err != nil:
		return warn("udp offload", "", "not found out: %v", err)
	case !gso:
		return warn("udp offload", "install a kernel from 5.0 on", "no UDP_SEGMENT: each datagram costs a system call")
	case !gro:
		return warn("udp offload", "install a kernel from 5.0 on", "UDP_SEGMENT, no UDP_GRO: each received datagram costs a system call")
	}
	return ok("udp offload", "UDP_SEGMENT and UDP_GRO: one system call carries many datagrams")
}

// A run of datagrams for the trial.
const (
	segmentSize = 1000
	segments    = 4
)

func trySegments() (gso, gro bool, err error) {
	to, at, err := loopbackSocket()
	if err != nil {
		return false, false, err
	}
	defer unix.Close(to) //nolint:errcheck // a trial
	gro = unix.SetsockoptInt(to, unix.IPPROTO_UDP, unix.UDP_GRO, 1) == nil
	from, _, err := loopbackSocket()
	if err != nil {
		return false, gro, err
	}
	defer unix.Close(from) //nolint:errcheck // a trial
	control := make([]byte, unix.CmsgSpace(2))
	head := cmsghdr(control)
	head.Level, head.Type = unix.IPPROTO_UDP, unix.UDP_SEGMENT
	head.SetLen(unix.CmsgLen(2))
	binary.NativeEndian.PutUint16(control[unix.CmsgLen(0):], segmentSize)
	if err := unix.Sendmsg(from, make([]byte, segments*segmentSize), control, at, 0); err != nil {
		if e := errno(err); e == unix.EINVAL || e == unix.EIO || e == unix.EMSGSIZE {
			return false, gro, nil
		}
		return false, gro, fmt.Errorf("send on loopback: %w", err)
	}
	n, err := receiveSoon(to, make([]byte, 2*segments*segmentSize))
	return true, gro && n == segments*segmentSize, err
}

func loopbackSocket() (fd int, at unix.Sockaddr, err error) {
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, nil, fmt.Errorf("UDP socket: %w", err)
	}
	if err = unix.Bind(fd, sockaddr(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0))); err == nil {
		at, err = unix.Getsockname(fd)
	}
	if err != nil {
		_ = unix.Close(fd) // nothing was sent
		return -1, nil, fmt.Errorf("bind on loopback: %w", err)
	}
	return fd, at, nil
}

// receiveSoon receives once, and waits up to a second for it.
func receiveSoon(fd int, b []byte) (int, error) {
	if err := poll(fd, unix.POLLIN, 1000); err != nil {
		return 0, fmt.Errorf("receive on loopback: %w", err)
	}
	n, _, err := unix.Recvfrom(fd, b, 0)
	return n, err
}

// poll waits up to so many milliseconds; unix.EAGAIN means that nothing came.
func poll(fd int, events int16, ms int) error {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: events}}, ms)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return err
		case n == 0:
			return unix.EAGAIN
		default:
			return nil
		}
	}
}

func sockaddr(ap netip.AddrPort) unix.Sockaddr {
	if ap.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(ap.Port()), Addr: ap.Addr().As16()}
}

package proxy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Sizes of sock_diag(7), in bytes, and offsets into an inet_diag_msg.
const (
	diagRequestLen = 8 + 48 // inet_diag_req_v2: the head and the inet_diag_sockid
	diagMessageLen = 4 + 48 + 5*4
	diagIDAt       = 4
	diagUIDAt      = diagMessageLen - 8
	diagInodeAt    = diagMessageLen - 4

	sockDiagByFamily = 20
	diagTimeout      = 2 * time.Second
)

// diagSequence is that of every request: each has a socket of its own.
const diagSequence = 1

var errNoSocket = errors.New("the kernel knows no such socket")

// A diagSocket is a socket as the kernel describes it.
type diagSocket struct {
	uid   int    // its user, in this user namespace
	inode uint32 // of its file; 0: no process has it open
}

// peerSocket describes the socket of this machine that is at remote and speaks to
// local, both of TCP or of UDP. It is asked for by its addresses rather than
// searched for: another socket of the same ports is another user's, maybe.
func peerSocket(local, remote net.Addr) (diagSocket, error) {
	protocol := uint8(unix.IPPROTO_TCP)
	here, there := addrPort(local), addrPort(remote)
	if _, ok := local.(*net.UDPAddr); ok {
		protocol = unix.IPPROTO_UDP
	}
	if !here.IsValid() || !there.IsValid() || here.Addr().Is4() != there.Addr().Is4() {
		return diagSocket{}, errNoSocket
	}
	answer, err := askDiag(diagRequest(protocol, there, here))
	if err != nil {
		return diagSocket{}, fmt.Errorf("sock_diag: %w", err)
	}
	return parseDiag(answer, there)
}

// diagRequest asks for the socket at own that speaks to peer.
func diagRequest(protocol uint8, own, peer netip.AddrPort) []byte {
	b := make([]byte, unix.NLMSG_HDRLEN+diagRequestLen)
	native := binary.NativeEndian
	native.PutUint32(b, uint32(len(b)))
	native.PutUint16(b[4:], sockDiagByFamily)
	native.PutUint16(b[6:], unix.NLM_F_REQUEST)
	native.PutUint32(b[8:], diagSequence)
	r := b[unix.NLMSG_HDRLEN:]
	r[0], r[1] = unix.AF_INET, protocol
	if own.Addr().Is6() {
		r[0] = unix.AF_INET6
	}
	native.PutUint32(r[4:], ^uint32(0)) // all states
	src, dst := own, peer
	if protocol == unix.IPPROTO_UDP {
		src, dst = dst, src // net/ipv4/udp_diag.c: "swapped for historical reasons"
	}
	id := r[8:]
	binary.BigEndian.PutUint16(id, src.Port())
	binary.BigEndian.PutUint16(id[2:], dst.Port())
	copy(id[4:20], src.Addr().AsSlice())
	copy(id[20:36], dst.Addr().AsSlice())
	native.PutUint64(id[40:], ^uint64(0)) // no cookie
	return b
}

// askDiag sends one request and returns what the kernel says.
func askDiag(request []byte) ([]byte, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_INET_DIAG)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	defer func() { _ = unix.Close(fd) }()
	limit := unix.NsecToTimeval(diagTimeout.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		return nil, os.NewSyscallError("setsockopt", err)
	}
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, os.NewSyscallError("sendto", err)
	}
	answer := make([]byte, os.Getpagesize())
	for {
		n, from, err := unix.Recvfrom(fd, answer, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, os.NewSyscallError("recvfrom", err)
		}
		if kernel, ok := from.(*unix.SockaddrNetlink); ok && kernel.Pid == 0 {
			return answer[:n], nil
		}
	}
}

// parseDiag returns the socket at own that the kernel describes.
func parseDiag(b []byte, own netip.AddrPort) (diagSocket, error) {
	native := binary.NativeEndian
	if len(b) < unix.NLMSG_HDRLEN {
		return diagSocket{}, errShort
	}
	kind, body := native.Uint16(b[4:]), b[unix.NLMSG_HDRLEN:]
	if kind == unix.NLMSG_ERROR && len(body) >= 4 {
		if errno := -int32(native.Uint32(body)); errno > 0 && unix.Errno(errno) != unix.ENOENT {
			return diagSocket{}, unix.Errno(errno)
		}
		return diagSocket{}, errNoSocket
	}
	if kind != sockDiagByFamily || len(body) < diagMessageLen {
		return diagSocket{}, errShort
	}
	if binary.BigEndian.Uint16(body[diagIDAt:]) != own.Port() {
		return diagSocket{}, errNoSocket
	}
	return diagSocket{int(native.Uint32(body[diagUIDAt:])), native.Uint32(body[diagInodeAt:])}, nil
}

package netstack

import (
	"errors"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/ovnd/ovnd/encap"
)

// A datagramSocket is a connected socket of the host's, for UDP or ping.
type datagramSocket struct {
	file *os.File
	raw  syscall.RawConn
}

// openDatagram opens one. Ping sockets are what net.ipv4.ping_group_range lets
// the user have; they need no privilege besides.
func openDatagram(protocol uint8, to netip.AddrPort) (*datagramSocket, error) {
	family := unix.AF_INET
	var addr unix.Sockaddr = &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().Unmap().As4()}
	if to.Addr().Is6() {
		family = unix.AF_INET6
		addr = &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(protocol))
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := unix.Connect(fd, addr); err != nil {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("connect", err)
	}
	file := os.NewFile(uintptr(fd), protocolName(protocol))
	raw, err := file.SyscallConn()
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return &datagramSocket{file: file, raw: raw}, nil
}

func protocolName(protocol uint8) string {
	if protocol == encap.ProtocolUDP {
		return "udp"
	}
	return "ping"
}

// send sends one datagram, or says unix.EAGAIN, or os.ErrClosed after close.
func (s *datagramSocket) send(b []byte) error {
	var err error
	if closed := s.raw.Write(func(fd uintptr) bool {
		err = unix.Send(int(fd), b, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		return true
	}); closed != nil {
		return os.ErrClosed
	}
	return err
}

// receive waits for a datagram and lends it to take. The error is os.ErrClosed
// after close.
func (s *datagramSocket) receive(take func([]byte)) error {
	var err error
	if closed := s.raw.Read(func(fd uintptr) bool {
		buf := datagrams.Get().(*[maxDatagram]byte)
		defer datagrams.Put(buf)
		var n int
		n, _, err = unix.Recvfrom(int(fd), buf[:], unix.MSG_DONTWAIT)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			return false
		}
		if err == nil {
			take(buf[:n])
		}
		return true
	}); closed != nil {
		return os.ErrClosed
	}
	return err
}

func (s *datagramSocket) close() { _ = s.file.Close() }

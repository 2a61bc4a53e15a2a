package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// probePing sends two echo requests to an address or a name through a ping
// socket (icmp(7)), which needs no privilege.
func probePing(ctx context.Context, args []string) (any, error) {
	addr, err := netip.ParseAddr(args[0])
	if err != nil {
		addrs, err := (&net.Resolver{PreferGo: true}).LookupNetIP(ctx, "ip4", args[0])
		if err != nil {
			return nil, err
		}
		addr = addrs[0]
	}
	fd, err := pingSocket()
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd) //nolint:errcheck // nothing is lost with it
	answer := pingAnswer{Sent: 2}
	for seq := range answer.Sent {
		if ping(fd, addr.As4(), byte(seq), icmpHeaderLen) == nil {
			answer.Received++
		}
	}
	return answer, nil
}

// probeFit sends one echo request in a packet of SIZE bytes that must not be
// fragmented to ADDR.
func probeFit(_ context.Context, args []string) (any, error) {
	addr, err := netip.ParseAddr(args[0])
	if err != nil {
		return nil, err
	}
	size, err := strconv.Atoi(args[1])
	if err != nil || size < ipv4HeaderLen+icmpHeaderLen {
		return nil, fmt.Errorf("a packet of %q bytes", args[1])
	}
	fd, err := pingSocket()
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd) //nolint:errcheck // nothing is lost with it
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO); err != nil {
		return nil, os.NewSyscallError("setsockopt", err)
	}
	if err := ping(fd, addr.As4(), 0, size-ipv4HeaderLen); err != nil {
		return dialAnswer{Error: err.Error()}, nil
	}
	return dialAnswer{}, nil
}

const ipv4HeaderLen, icmpHeaderLen = 20, 8 // bytes, without options

// pingSocket is a ping socket that waits a second for an answer.
func pingSocket() (fd int, err error) {
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
	if err != nil {
		return -1, fmt.Errorf("ping socket: %w", err)
	}
	timeout := unix.NsecToTimeval(int64(time.Second))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		_ = unix.Close(fd) // nothing was sent on it
		return -1, os.NewSyscallError("setsockopt", err)
	}
	return fd, nil
}

// ping sends one echo request of size bytes (RFC 792) and waits for its answer;
// the kernel fills in identifier and checksum, and gives the socket its own
// answers alone.
func ping(fd int, addr [4]byte, seq byte, size int) error {
	const echoRequest, echoReply = 8, 0
	request := make([]byte, size)
	request[0], request[7] = echoRequest, seq
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrInet4{Addr: addr}); err != nil {
		return err
	}
	buf := make([]byte, size)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		case n != size || buf[0] != echoReply || buf[7] != seq:
			return fmt.Errorf("the answer has %d bytes and is of type %d", n, buf[0])
		}
		return nil
	}
}

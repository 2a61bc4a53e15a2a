package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// ResolverAddr is where the resolver of a sandbox listens, as in Docker.
var ResolverAddr = netip.MustParseAddrPort("127.0.0.11:53")

// resolverSockets is the number of sockets of a Resolver.
const resolverSockets = 2

// A Resolver is the sockets at ResolverAddr inside a sandbox. net.FilePacketConn
// and net.FileListener take duplicates of them; the init keeps the sockets open
// for the next node.
type Resolver struct {
	UDP, TCP *os.File
}

// Close closes both.
func (r *Resolver) Close() error { return errors.Join(r.UDP.Close(), r.TCP.Close()) }

// openResolver opens both sockets in this process's network namespace.
func openResolver() ([]*os.File, error) {
	files, err := openResolverAt(ResolverAddr)
	if err != nil {
		return nil, fmt.Errorf("open the resolver's socket: %w", err)
	}
	return files, nil
}

func openResolverAt(at netip.AddrPort) (files []*os.File, err error) {
	var lc net.ListenConfig
	udp, err := lc.ListenPacket(context.Background(), "udp4", at.String())
	if err != nil {
		return nil, err
	}
	defer func() { _ = udp.Close() }()
	tcp, err := lc.Listen(context.Background(), "tcp4", at.String())
	if err != nil {
		return nil, err
	}
	defer func() { _ = tcp.Close() }()
	for _, c := range []any{udp, tcp} {
		f, err := c.(interface{ File() (*os.File, error) }).File()
		if err != nil {
			closeFiles(files)
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

// check makes sure that the sockets are of the kinds that they are used as.
func (r *Resolver) check() error {
	for _, s := range []struct {
		f    *os.File
		want int
	}{{r.UDP, unix.SOCK_DGRAM}, {r.TCP, unix.SOCK_STREAM}} {
		raw, err := s.f.SyscallConn()
		if err != nil {
			return fmt.Errorf("resolver: %w", err)
		}
		var kind, domain int
		cerr := raw.Control(func(fd uintptr) {
			if kind, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TYPE); err == nil {
				domain, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN)
			}
		})
		if err := errors.Join(cerr, err); err != nil {
			return fmt.Errorf("resolver: descriptor is not a socket: %w", err)
		}
		if kind != s.want || domain != unix.AF_INET {
			return fmt.Errorf("resolver: socket is of family %d and type %d, not %d and %d", domain, kind, unix.AF_INET, s.want)
		}
	}
	return nil
}

package udp

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"
)

// Config says what to open. Local is required.
type Config struct {
	Local       netip.AddrPort // to receive at; not the unspecified address
	Receivers   int            // sockets at Local, between which the kernel spreads flows
	SourcePorts int            // sockets to send from
	RecvBuffer  int            // bytes a socket; net.core.rmem_max caps it
	SendBuffer  int            // bytes a socket; net.core.wmem_max caps it
}

// An Underlay holds the sockets of one VTEP.
type Underlay struct {
	local     netip.AddrPort
	receivers []*Receiver
	ports     []int // descriptors to send from

	probeMu sync.Mutex
	probe   int // a socket that is connected to ask for path MTUs

	closeOnce sync.Once
}

// Listen opens the sockets. Errors name the address and what to do about them.
func Listen(cfg Config) (_ *Underlay, err error) {
	u := &Underlay{local: cfg.Local, probe: -1}
	defer func() {
		if err != nil {
			u.Close()
		}
	}()
	for i := range max(cfg.Receivers, 1) {
		// The first is bound without SO_REUSEPORT, so that another program
		// at this port is an error rather than a competitor.
		fd, err := bound(cfg.Local, cfg, i > 0)
		if err != nil {
			return u, listenError(cfg.Local, err)
		}
		u.receivers = append(u.receivers, newReceiver(fd))
		if err := receiveOptions(fd, cfg); err != nil {
			return u, fmt.Errorf("underlay %s: %w", cfg.Local, err)
		}
	}
	// From here on no further socket may join them.
	for _, r := range u.receivers {
		if err := unix.SetsockoptInt(r.fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 0); err != nil {
			return u, fmt.Errorf("underlay %s: SO_REUSEPORT: %w", cfg.Local, err)
		}
	}
	for range max(cfg.SourcePorts, 1) {
		fd, err := sendOnly(cfg)
		if err != nil {
			return u, fmt.Errorf("underlay %s: source port: %w", cfg.Local, err)
		}
		u.ports = append(u.ports, fd)
	}
	u.probe, err = sendOnly(cfg)
	if err != nil {
		return u, fmt.Errorf("underlay %s: probe socket: %w", cfg.Local, err)
	}
	return u, nil
}

func listenError(local netip.AddrPort, err error) error {
	switch {
	case errors.Is(err, unix.EADDRINUSE):
		return fmt.Errorf("underlay: UDP port %d at %s is taken: stop the program that has it (ss -lunp), a kernel VXLAN device of this port included, or choose another data path port for the swarm: %w", local.Port(), local.Addr(), err)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return fmt.Errorf("underlay: %s is not an address of this machine: choose one that is as data path address: %w", local.Addr(), err)
	case errors.Is(err, unix.EACCES):
		return fmt.Errorf("underlay: UDP port %d is privileged: choose a data path port from 1024 up: %w", local.Port(), err)
	}
	return fmt.Errorf("underlay %s: %w", local, err)
}

// bound returns a blocking socket bound to local.
func bound(local netip.AddrPort, cfg Config, join bool) (fd int, err error) {
	family := unix.AF_INET6
	var sa unix.Sockaddr = &unix.SockaddrInet6{Port: int(local.Port()), Addr: local.Addr().As16()}
	if local.Addr().Is4() {
		family = unix.AF_INET
		sa = &unix.SockaddrInet4{Port: int(local.Port()), Addr: local.Addr().As4()}
	}
	fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.IPPROTO_UDP)
	if err != nil {
		return -1, fmt.Errorf("open socket: %w", err)
	}
	defer func() {
		if err != nil {
			_ = unix.Close(fd)
		}
	}()
	if err := bufferSizes(fd, cfg); err != nil {
		return -1, err
	}
	if family == unix.AF_INET6 {
		if err := unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return -1, fmt.Errorf("IPV6_V6ONLY: %w", err)
		}
	}
	if join {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
			return -1, fmt.Errorf("SO_REUSEPORT: %w", err)
		}
	}
	return fd, unix.Bind(fd, sa)
}

// bufferSizes asks for what cfg has. The kernel gives less without an error
// where net.core.rmem_max or wmem_max is lower, and forcing it takes
// CAP_NET_ADMIN, so less has to do: it costs throughput, not correctness.
func bufferSizes(fd int, cfg Config) error {
	if cfg.RecvBuffer > 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, cfg.RecvBuffer); err != nil {
			return fmt.Errorf("SO_RCVBUF: %w", err)
		}
	}
	if cfg.SendBuffer > 0 {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, cfg.SendBuffer); err != nil {
			return fmt.Errorf("SO_SNDBUF: %w", err)
		}
	}
	return nil
}

func receiveOptions(fd int, cfg Config) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return fmt.Errorf("SO_REUSEPORT: %w", err)
	}
	level, option := unix.SOL_IPV6, unix.IPV6_RECVTCLASS
	if cfg.Local.Addr().Is4() {
		level, option = unix.SOL_IP, unix.IP_RECVTOS
	}
	if err := unix.SetsockoptInt(fd, level, option, 1); err != nil {
		return fmt.Errorf("receive the ECN field: %w", err)
	}
	if !cfg.Local.Addr().Is4() {
		// Tunnels may go without a checksum over IPv6 (RFC 6935, RFC 6936).
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_NO_CHECK6_RX, 1); err != nil {
			return fmt.Errorf("UDP_NO_CHECK6_RX: %w", err)
		}
	}
	// Kernels before 5.0 have no UDP_GRO: datagrams arrive one at a time then.
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_UDP, unix.UDP_GRO, 1); err != nil && !errors.Is(err, unix.ENOPROTOOPT) {
		return fmt.Errorf("UDP_GRO: %w", err)
	}
	return nil
}

// sendOnly returns a socket with a port of the kernel's choice that nothing can
// reach, for it is connected to itself.
func sendOnly(cfg Config) (fd int, err error) {
	fd, err = bound(netip.AddrPortFrom(cfg.Local.Addr(), 0), Config{SendBuffer: cfg.SendBuffer}, false)
	if err != nil {
		return -1, err
	}
	self, err := unix.Getsockname(fd)
	if err == nil {
		err = unix.Connect(fd, self)
	}
	if err == nil {
		// PMTUDISC_INTERFACE: no DF, the link's MTU counts, and what exceeds
		// it is EMSGSIZE.
		if cfg.Local.Addr().Is4() {
			err = unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_INTERFACE)
		} else {
			err = unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_INTERFACE)
		}
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// Local returns the address and port that the underlay receives at.
func (u *Underlay) Local() netip.AddrPort { return u.local }

// Receivers returns the receiving sockets, each for one worker.
func (u *Underlay) Receivers() []*Receiver { return u.receivers }

// Dropped returns how often the kernel dropped what arrived because a receive
// buffer was full. It counts a run of datagrams that arrived as one super-packet,
// over veth say, once.
func (u *Underlay) Dropped() uint64 {
	var n uint64
	for _, r := range u.receivers {
		n += r.dropped()
	}
	return n
}

// MTU returns the MTU in bytes of the way to an address, as far as this machine
// knows it.
func (u *Underlay) MTU(to *Addr) (int, error) {
	u.probeMu.Lock()
	defer u.probeMu.Unlock()
	var sa unix.Sockaddr = &unix.SockaddrInet6{Port: int(to.ap.Port()), Addr: to.ap.Addr().As16()}
	level, option := unix.SOL_IPV6, unix.IPV6_MTU
	if to.ap.Addr().Is4() {
		sa = &unix.SockaddrInet4{Port: int(to.ap.Port()), Addr: to.ap.Addr().As4()}
		level, option = unix.SOL_IP, unix.IP_MTU
	}
	if err := unix.Connect(u.probe, sa); err != nil {
		return 0, fmt.Errorf("MTU of the way to %s: %w", to.ap.Addr(), err)
	}
	mtu, err := unix.GetsockoptInt(u.probe, level, option)
	if err != nil {
		return 0, fmt.Errorf("MTU of the way to %s: %w", to.ap.Addr(), err)
	}
	return mtu, nil
}

// Shutdown makes every receive to come return [ErrClosed], wakes who waits for
// one, and ends sends that wait for room. Close may follow once nobody receives or
// sends any more.
func (u *Underlay) Shutdown() {
	for _, r := range u.receivers {
		r.shutdown()
	}
	for _, fd := range u.ports {
		_ = unix.Shutdown(fd, unix.SHUT_RDWR)
	}
}

// Close closes the sockets.
func (u *Underlay) Close() {
	u.closeOnce.Do(func() {
		for _, r := range u.receivers {
			_ = unix.Close(r.fd)
		}
		for _, fd := range u.ports {
			_ = unix.Close(fd)
		}
		if u.probe >= 0 {
			_ = unix.Close(u.probe)
		}
	})
}

package cluster

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/moby/moby/v2/errdefs"
)

// DefaultPort is the TCP port of SwarmKit's remote API.
const DefaultPort = 2377

// dockerListenAddr is what the docker CLI sends when --listen-addr is not
// given; it then yields to what the node was started with.
const dockerListenAddr = "0.0.0.0:2377"

// ResolveAddr understands what Docker's --listen-addr, --advertise-addr and
// --data-path-addr accept: an IP address or the name of a network interface,
// each with an optional port; defaultPort stands in for a missing one. An
// interface must have one address of a family; IPv4 is preferred.
func ResolveAddr(s string, defaultPort uint16) (netip.AddrPort, error) {
	if addr, err := netip.ParseAddr(s); err == nil {
		return netip.AddrPortFrom(addr.Unmap(), defaultPort), nil
	}
	host, port := s, defaultPort
	if h, p, err := net.SplitHostPort(s); err == nil {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil {
			return netip.AddrPort{}, invalid("address %q: port %q is not a number from 0 to 65535", s, p)
		}
		host, port = h, uint16(n)
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return netip.AddrPortFrom(addr.Unmap(), port), nil
	}
	addr, err := interfaceAddr(host)
	if err != nil {
		return netip.AddrPort{}, errdefs.InvalidParameter(fmt.Errorf("address %q must be an IP address or network interface (with optional port number): %w", s, err))
	}
	return netip.AddrPortFrom(addr, port), nil
}

func interfaceAddr(name string) (netip.Addr, error) {
	ifc, err := net.InterfaceByName(name)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("no interface %q", name)
	}
	addrs, err := ifc.Addrs()
	if err != nil {
		return netip.Addr{}, err
	}
	var v4, v6 netip.Addr
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err != nil || p.Addr().IsLinkLocalUnicast() {
			continue
		}
		seen := &v6
		if p.Addr().Is4() {
			seen = &v4
		}
		if seen.IsValid() {
			return netip.Addr{}, fmt.Errorf("interface %s has more than one address of a family (%s and %s): name one of them", name, seen, p.Addr())
		}
		*seen = p.Addr()
	}
	switch {
	case v4.IsValid():
		return v4, nil
	case v6.IsValid():
		return v6, nil
	}
	return netip.Addr{}, fmt.Errorf("interface %s has no usable IPv4 or IPv6 address", name)
}

// localAddrTowards is the local address from which dst (host:port) is reached.
// Connecting a UDP socket asks the routing table and sends nothing.
func localAddrTowards(dst string) (netip.Addr, error) {
	conn, err := net.Dial("udp", dst)
	if err != nil {
		return netip.Addr{}, err
	}
	defer conn.Close()
	ap, err := netip.ParseAddrPort(conn.LocalAddr().String())
	if err != nil {
		return netip.Addr{}, err
	}
	return ap.Addr().Unmap().WithZone(""), nil
}

// defaultAddr is the address that a node advertises when it was told none:
// the one from which it reaches joinAddr or, for a first node, the default
// route, else loopback, where only nodes of this machine can join.
func defaultAddr(joinAddr string) (netip.Addr, error) {
	if joinAddr != "" {
		addr, err := localAddrTowards(joinAddr)
		if err != nil {
			return netip.Addr{}, fmt.Errorf("no route to the manager %s: %w", joinAddr, err)
		}
		return addr, nil
	}
	// TEST-NET-1 (RFC 5737) and the documentation prefix of RFC 3849: never
	// assigned, so they follow the default route.
	for _, dst := range []string{"192.0.2.1:9", "[2001:db8::1]:9"} {
		if addr, err := localAddrTowards(dst); err == nil && !addr.IsUnspecified() {
			return addr, nil
		}
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1}), nil
}

// withPort appends the default port to a host that has none.
func withPort(hostport string) string {
	if _, _, err := net.SplitHostPort(hostport); err == nil {
		return hostport
	}
	return net.JoinHostPort(strings.Trim(hostport, "[]"), strconv.Itoa(DefaultPort))
}

// completeAddrs fills in what the user did not say: a listen address follows
// the advertised one and the other way round.
func (s *startConfig) completeAddrs() error {
	if !s.AdvertiseAddr.Addr().IsValid() || s.AdvertiseAddr.Addr().IsUnspecified() {
		addr := s.ListenAddr.Addr()
		if !addr.IsValid() || addr.IsUnspecified() {
			var err error
			if addr, err = defaultAddr(s.joinAddr); err != nil {
				return err
			}
		}
		s.AdvertiseAddr = netip.AddrPortFrom(addr, s.AdvertiseAddr.Port())
	}
	if s.AdvertiseAddr.Port() == 0 {
		port := s.ListenAddr.Port()
		if port == 0 {
			port = DefaultPort
		}
		s.AdvertiseAddr = netip.AddrPortFrom(s.AdvertiseAddr.Addr(), port)
	}
	if !s.ListenAddr.Addr().IsValid() {
		s.ListenAddr = netip.AddrPortFrom(s.AdvertiseAddr.Addr(), s.ListenAddr.Port())
	}
	if s.ListenAddr.Port() == 0 {
		s.ListenAddr = netip.AddrPortFrom(s.ListenAddr.Addr(), s.AdvertiseAddr.Port())
	}
	if !s.DataPathAddr.IsValid() {
		s.DataPathAddr = s.AdvertiseAddr.Addr()
	}
	return nil
}

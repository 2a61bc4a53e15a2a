package doctor

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"github.com/ovnd/ovnd/encap"
)

// defaultAddr is the address that a node takes when it is told none: that of
// the default route, else loopback.
func defaultAddr() netip.Addr {
	// TEST-NET-1 (RFC 5737) and the documentation prefix of RFC 3849: never
	// assigned, so they follow the default route.
	for _, dst := range []string{"192.0.2.1:9", "[2001:db8::1]:9"} {
		if addr, err := localAddr(dst); err == nil && !addr.IsUnspecified() {
			return addr
		}
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}

// localAddr is the address from which dst is reached. Connecting a UDP socket
// asks the routing table and sends nothing.
func localAddr(dst string) (netip.Addr, error) {
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

// wantedMTU is the underlay's in bytes for which networks have their default
// MTU, over either family.
var wantedMTU = encap.DefaultMTU + encap.Overhead(false)

// underlay is the interface that carries the overlay.
func (h *host) underlay(context.Context) []Finding {
	name, mtu := interfaceOf(h.cfg.Addr)
	switch {
	case name == "":
		return []Finding{fail("underlay", "name an address of this machine: --advertise-addr ADDR", "%s is no address of this machine", h.cfg.Addr)}
	case h.cfg.Addr.IsLoopback():
		return []Finding{warn("underlay", "connect the machine, or name another address: --advertise-addr ADDR",
			"%s on %s: only nodes of this machine can join", h.cfg.Addr, name)}
	case mtu < wantedMTU:
		return []Finding{warn("underlay", smallerMTU(mtu, h.cfg.Addr.Is6()), "%s on %s, MTU %d: less than networks take by default", h.cfg.Addr, name, mtu)}
	}
	return []Finding{ok("underlay", "%s on %s, MTU %d: networks have %d, encrypted ones %d by default, up to %d if told so", h.cfg.Addr, name, mtu,
		defaultInner(h.cfg.Addr.Is6()), defaultInner(h.cfg.Addr.Is6())-encryptedLess, encap.InnerMTU(mtu, h.cfg.Addr.Is6()))}
}

// encryptedLess is by how much the MTU of an encrypted network is smaller.
const encryptedLess = encap.DefaultMTU - encap.DefaultEncryptedMTU

func defaultInner(v6 bool) int { return encap.InnerMTU(wantedMTU, v6) }

// smallerMTU says how networks are made for an underlay of this MTU.
func smallerMTU(mtu int, v6 bool) string {
	inner := encap.InnerMTU(mtu, v6)
	return fmt.Sprintf("ovnd network create --opt com.docker.network.driver.mtu=%d NAME (%d with --opt encrypted)", inner, inner-encryptedLess)
}

// interfaceOf returns the interface that has an address, and its MTU in bytes.
func interfaceOf(addr netip.Addr) (name string, mtu int) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return "", 0
	}
	for _, i := range interfaces {
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			p, err := netip.ParsePrefix(a.String())
			if err != nil {
				continue
			}
			// All of 127.0.0.0/8 is this machine's.
			if p.Addr().Unmap() == addr || addr.Is4() && addr.IsLoopback() && p.Contains(addr) {
				return i.Name, i.MTU
			}
		}
	}
	return "", 0
}

package encap

import (
	"encoding/binary"
	"net/netip"
)

// NDLen is the size in bytes of the packets that [PutNS] and [PutNA] write: IPv6
// header, message, and one link-layer address option.
const NDLen = IPv6HeaderLen + ndMessageLen + ndOptionLen

const (
	ndMessageLen = 24 // of NS and NA without options (RFC 4861 §4.3, §4.4)
	ndOptionLen  = 8  // of a link-layer address option for Ethernet (RFC 2464 §6)
	ndHopLimit   = 255

	ndOptionSourceMAC = 1 // RFC 4861 §4.6.1
	ndOptionTargetMAC = 2
)

// Types of ICMPv6 messages that resolve addresses.
const (
	ICMPv6NeighborSolicitation  uint8 = 135
	ICMPv6NeighborAdvertisement uint8 = 136
)

// Flags in the first byte of an NA's flag word (RFC 4861 §4.4).
const (
	naRouter    = 0x80
	naSolicited = 0x40
	naOverride  = 0x20
)

// An NS is a neighbour solicitation (RFC 4861 §4.3): it asks for the MAC of
// Target. Src is the unspecified address during duplicate address detection
// (RFC 4862 §5.4).
type NS struct {
	Src, Dst netip.Addr
	Target   netip.Addr
	MAC      MAC // of Src; zero if the message has no such option
}

// An NA is a neighbour advertisement (RFC 4861 §4.4): it says that Target is at
// MAC.
type NA struct {
	Src, Dst  netip.Addr
	Target    netip.Addr
	MAC       MAC // of Target; zero if the message has no such option
	Router    bool
	Solicited bool
	Override  bool
}

// ParseNS reads a neighbour solicitation and validates it as RFC 4861 §7.1.1
// asks. Errors are [ErrND] and [ErrChecksum].
func ParseNS(p IP) (NS, error) {
	msg, err := ndMessage(p, ICMPv6NeighborSolicitation)
	if err != nil {
		return NS{}, err
	}
	ns := NS{Src: p.Src(), Dst: p.Dst(), Target: netip.AddrFrom16([16]byte(msg[8:24]))}
	mac, found, ok := ndLinkAddress(msg[ndMessageLen:], ndOptionSourceMAC)
	if !ok || ns.Target.IsMulticast() {
		return NS{}, ErrND
	}
	if ns.Src.IsUnspecified() && (found || ns.Dst != SolicitedNode(ns.Target)) {
		return NS{}, ErrND
	}
	ns.MAC = mac
	return ns, nil
}

// ParseNA reads a neighbour advertisement and validates it as RFC 4861 §7.1.2
// asks. Errors are [ErrND] and [ErrChecksum].
func ParseNA(p IP) (NA, error) {
	msg, err := ndMessage(p, ICMPv6NeighborAdvertisement)
	if err != nil {
		return NA{}, err
	}
	na := NA{
		Src:       p.Src(),
		Dst:       p.Dst(),
		Target:    netip.AddrFrom16([16]byte(msg[8:24])),
		Router:    msg[4]&naRouter != 0,
		Solicited: msg[4]&naSolicited != 0,
		Override:  msg[4]&naOverride != 0,
	}
	mac, _, ok := ndLinkAddress(msg[ndMessageLen:], ndOptionTargetMAC)
	if !ok || na.Target.IsMulticast() || na.Solicited && na.Dst.IsMulticast() {
		return NA{}, ErrND
	}
	na.MAC = mac
	return na, nil
}

// ndMessage returns p's ICMPv6 message if it is of the type asked for and passes
// the checks that all of them share. The hop limit proves that no router handed
// it on. A message behind extension headers is refused: RFC 6980 §5 asks that for
// the fragment header, even of one that is whole, and others have no use here.
func ndMessage(p IP, icmpType uint8) ([]byte, error) {
	if !p.Is6() || p.Protocol != ProtocolICMPv6 || p.Transport != IPv6HeaderLen {
		return nil, ErrND
	}
	msg := p.Payload()
	if len(msg) < ndMessageLen || msg[0] != icmpType || msg[1] != 0 ||
		IPv6(p.Packet).HopLimit() != ndHopLimit {
		return nil, ErrND
	}
	if !p.TransportChecksumOK() {
		return nil, ErrChecksum
	}
	return msg, nil
}

// ndLinkAddress looks for a link-layer address option of this type. ok is false
// if an option is malformed; unknown ones are skipped (RFC 4861 §4.6).
func ndLinkAddress(options []byte, optionType uint8) (mac MAC, found, ok bool) {
	for len(options) > 0 {
		if len(options) < ndOptionLen {
			return MAC{}, false, false
		}
		n := int(options[1]) * 8
		if n == 0 || n > len(options) {
			return MAC{}, false, false
		}
		if options[0] == optionType && n == ndOptionLen && !found {
			mac, found = MAC(options[2:8]), true
		}
		options = options[n:]
	}
	return mac, found, true
}

// SolicitedNode returns the solicited-node multicast address of an IPv6 address:
// ff02::1:ff00:0 and its low 24 bits (RFC 4291 §2.7.1).
func SolicitedNode(addr netip.Addr) netip.Addr {
	a := addr.As16()
	return netip.AddrFrom16([16]byte{
		0: 0xff, 1: 0x02, 11: 0x01, 12: 0xff, 13: a[13], 14: a[14], 15: a[15],
	})
}

// allNodes is ff02::1 (RFC 4291 §2.7.1).
var allNodes = netip.AddrFrom16([16]byte{0: 0xff, 1: 0x02, 15: 0x01})

// PutNS writes to the first [NDLen] bytes of b the IPv6 packet by which src, at
// mac, asks for target's MAC. It goes to target's solicited-node address, and
// the frame to that one's [MulticastMAC]. Both addresses must be IPv6.
func PutNS(b []byte, mac MAC, src, target netip.Addr) {
	msg := putND(b, src, SolicitedNode(target), ICMPv6NeighborSolicitation, target)
	putNDOption(b, msg, ndOptionSourceMAC, mac)
}

// PutNA writes to the first [NDLen] bytes of b the IPv6 packet that answers ns:
// its target is at mac. It returns the packet's destination, to which the frame
// must go: the asker, or all nodes if the asker has no address yet (RFC 4861
// §7.2.4).
func PutNA(b []byte, ns NS, mac MAC) (dst netip.Addr) {
	dst, flags := ns.Src, byte(naSolicited|naOverride)
	if ns.Src.IsUnspecified() {
		dst, flags = allNodes, naOverride
	}
	msg := putND(b, ns.Target, dst, ICMPv6NeighborAdvertisement, ns.Target)
	msg[4] = flags
	putNDOption(b, msg, ndOptionTargetMAC, mac)
	return dst
}

// putND writes the headers of a message about target, and returns the message,
// flags and checksum zero.
func putND(b []byte, src, dst netip.Addr, icmpType uint8, target netip.Addr) []byte {
	p := PutIPv6(b, src, dst, ProtocolICMPv6, ndHopLimit, ndMessageLen+ndOptionLen)
	msg, t := p.Payload(), target.As16()
	binary.BigEndian.PutUint64(msg, uint64(icmpType)<<56)
	copy(msg[8:24], t[:])
	return msg
}

// putNDOption writes the link-layer address option and, last, the checksum.
func putNDOption(b, msg []byte, optionType uint8, mac MAC) {
	msg[ndMessageLen], msg[ndMessageLen+1] = optionType, ndOptionLen/8
	copy(msg[ndMessageLen+2:], mac[:])
	sum := Checksum(msg, IPv6(b).PseudoSum(ProtocolICMPv6, len(msg)))
	binary.BigEndian.PutUint16(msg[2:], sum)
}

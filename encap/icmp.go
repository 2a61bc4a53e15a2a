package encap

import (
	"encoding/binary"
	"net/netip"
)

// MaxFragNeededLen and MaxPacketTooBigLen are the largest packets that
// [PutFragNeeded] and [PutPacketTooBig] write, in bytes: what every host must be
// able to take (RFC 1812 §4.3.2.3, RFC 4443 §3.2).
const (
	MaxFragNeededLen   = 576
	MaxPacketTooBigLen = MinMTU6
)

const (
	icmpHeaderLen = 8

	icmpUnreachable    = 3
	icmpSourceQuench   = 4
	icmpRedirect       = 5
	icmpTimeExceeded   = 11
	icmpParameter      = 12
	icmpCodeFragNeeded = 4

	icmpv6PacketTooBig   = 2
	icmpv6FirstInfo      = 128 // types below it are errors (RFC 4443 §2.1)
	icmpv6Redirect       = 137
	icmpPrecedenceTOS    = 0xc0 // internetwork control (RFC 1812 §4.3.2.5)
	icmpTooBigMTUOffset4 = 6    // RFC 1191 §4
	icmpTooBigMTUOffset6 = 4
)

// PutFragNeeded writes to dst the IPv4 packet that tells the sender of orig that
// no more than mtu bytes fit: destination unreachable, fragmentation needed (RFC
// 792), with the MTU (RFC 1191 §4). It quotes as much of orig as
// [MaxFragNeededLen] and dst allow. src is the address that the message comes
// from. It returns the size written. Whether orig's DF flag is set is for the
// caller to look at.
//
// It returns 0 where no error may be sent (RFC 1122 §3.2.2, RFC 1812 §4.3.2.7):
// about an ICMP error, a packet to or from a group, broadcast, loopback or no
// address, or a fragment that is not the first; and if orig is not IPv4, src is
// not, or dst has no room for orig's header and eight bytes more.
func PutFragNeeded(dst []byte, orig IP, mtu int, src netip.Addr) (n int) {
	if orig.Is6() || !src.Is4() || !mayAnswer(orig) {
		return 0
	}
	quote := quoted(dst, orig, IPv4HeaderLen, MaxFragNeededLen)
	if quote == nil {
		return 0
	}
	p := PutIPv4(dst, src, orig.Src(), ProtocolICMP, icmpHeaderLen+len(quote))
	p[1] = icmpPrecedenceTOS
	p.UpdateChecksum()
	msg := p.Payload()
	binary.BigEndian.PutUint64(msg, icmpUnreachable<<56|icmpCodeFragNeeded<<48)
	binary.BigEndian.PutUint16(msg[icmpTooBigMTUOffset4:], uint16(min(max(mtu, MinMTU4), MaxMTU)))
	copy(msg[icmpHeaderLen:], quote)
	binary.BigEndian.PutUint16(msg[2:], Checksum(msg, 0))
	return len(p)
}

// PutPacketTooBig is [PutFragNeeded] for IPv6: packet too big (RFC 4443 §3.2),
// of at most [MaxPacketTooBigLen] bytes. An mtu below 1280, which no IPv6 link
// may have (RFC 8200 §5), is written as 1280.
//
// It returns 0 in the same cases (RFC 4443 §2.4(e)). That RFC lets this one error
// answer a multicast packet too; overlay networks do not carry those.
func PutPacketTooBig(dst []byte, orig IP, mtu int, src netip.Addr) (n int) {
	if !orig.Is6() || !src.Is6() || !mayAnswer(orig) {
		return 0
	}
	quote := quoted(dst, orig, IPv6HeaderLen, MaxPacketTooBigLen)
	if quote == nil {
		return 0
	}
	length := icmpHeaderLen + len(quote)
	p := PutIPv6(dst, src, orig.Src(), ProtocolICMPv6, defaultTTL, length)
	msg := p.Payload()
	binary.BigEndian.PutUint64(msg, icmpv6PacketTooBig<<56)
	binary.BigEndian.PutUint32(msg[icmpTooBigMTUOffset6:], uint32(min(max(mtu, MinMTU6), MaxMTU)))
	copy(msg[icmpHeaderLen:], quote)
	binary.BigEndian.PutUint16(msg[2:], Checksum(msg, p.PseudoSum(ProtocolICMPv6, length)))
	return len(p)
}

// quoted returns the front of orig that fits an error of at most limit bytes in
// dst behind an IP header of ipHeader bytes. It is nil if not even orig's own
// header and the eight bytes fit by which the sender finds the connection.
func quoted(dst []byte, orig IP, ipHeader, limit int) []byte {
	room := min(len(dst), limit) - ipHeader - icmpHeaderLen
	if room < min(orig.Transport+8, len(orig.Packet)) {
		return nil
	}
	return orig.Packet[:min(room, len(orig.Packet))]
}

// mayAnswer reports whether an ICMP error about p may be sent to its source.
func mayAnswer(p IP) bool {
	if p.FragmentOffset != 0 || isICMPError(p) {
		return false
	}
	for _, a := range [...]netip.Addr{p.Src(), p.Dst()} {
		if a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a == limitedBroadcast {
			return false
		}
	}
	return true
}

var limitedBroadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// isICMPError reports whether p is an ICMP error or a redirect, or is cut off
// before that can be told.
func isICMPError(p IP) bool {
	if p.Protocol != ProtocolICMP && p.Protocol != ProtocolICMPv6 {
		return false
	}
	msg := p.Payload()
	if len(msg) == 0 {
		return true
	}
	if p.Is6() {
		return msg[0] < icmpv6FirstInfo || msg[0] == icmpv6Redirect
	}
	switch msg[0] {
	case icmpUnreachable, icmpSourceQuench, icmpRedirect, icmpTimeExceeded, icmpParameter:
		return true
	}
	return false
}

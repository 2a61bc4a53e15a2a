package encap

import (
	"encoding/binary"
	"net/netip"
)

// An Unreachable says why a packet did not arrive: the code of an ICMP
// destination unreachable message (RFC 792, RFC 1812 §5.2.7.1).
type Unreachable uint8

// The reasons that ovnd gives.
const (
	NetUnreachable  Unreachable = 0
	HostUnreachable Unreachable = 1
	PortUnreachable Unreachable = 3
	AdminProhibited Unreachable = 13
)

const icmpv6Unreachable = 1

// code6 returns the code of ICMPv6 (RFC 4443 §3.1).
func (u Unreachable) code6() byte {
	switch u {
	case NetUnreachable:
		return 0 // no route to destination
	case PortUnreachable:
		return 4
	case AdminProhibited:
		return 1
	default:
		return 3 // address unreachable
	}
}

// PutUnreachable writes to dst the packet that tells the sender of orig that it
// did not arrive: destination unreachable, from the address src, over IPv4 or
// IPv6 as orig is. It quotes as much of orig as [MaxFragNeededLen], or
// [MaxPacketTooBigLen], and dst allow. It returns the size written, and 0 where
// no error may be sent: see [PutFragNeeded].
func PutUnreachable(dst []byte, orig IP, why Unreachable, src netip.Addr) (n int) {
	if orig.Is6() != src.Is6() || !mayAnswer(orig) {
		return 0
	}
	if orig.Is6() {
		quote := quoted(dst, orig, IPv6HeaderLen, MaxPacketTooBigLen)
		if quote == nil {
			return 0
		}
		length := icmpHeaderLen + len(quote)
		p := PutIPv6(dst, src, orig.Src(), ProtocolICMPv6, defaultTTL, length)
		putUnreachable(p.Payload(), icmpv6Unreachable, why.code6(), quote, p.PseudoSum(ProtocolICMPv6, length))
		return len(p)
	}
	quote := quoted(dst, orig, IPv4HeaderLen, MaxFragNeededLen)
	if quote == nil {
		return 0
	}
	p := PutIPv4(dst, src, orig.Src(), ProtocolICMP, icmpHeaderLen+len(quote))
	p[1] = icmpPrecedenceTOS
	p.UpdateChecksum()
	putUnreachable(p.Payload(), icmpUnreachable, byte(why), quote, 0)
	return len(p)
}

func putUnreachable(msg []byte, kind, code byte, quote []byte, pseudo Sum) {
	binary.BigEndian.PutUint64(msg, uint64(kind)<<56|uint64(code)<<48)
	copy(msg[icmpHeaderLen:], quote)
	binary.BigEndian.PutUint16(msg[2:], Checksum(msg, pseudo))
}

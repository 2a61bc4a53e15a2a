package encap

import (
	"encoding/binary"
	"net/netip"
)

// IPv6HeaderLen is the size of an IPv6 header without extension headers, in
// bytes.
const IPv6HeaderLen = 40

// Extension headers that may precede a transport header (RFC 8200 §4).
const (
	ipv6HopByHop    = 0
	ipv6Routing     = 43
	ipv6Fragment    = 44
	ipv6AH          = 51 // RFC 4302
	ipv6DestOptions = 60

	ipv6ExtensionMinLen = 8
	ipv6FragmentLen     = 8
)

// maxIPv6Extensions bounds the work that one packet can ask for. A packet with
// more extension headers is forwarded by its addresses, its transport unknown.
const maxIPv6Extensions = 8

// An IPv6 is a view of one IPv6 packet (RFC 8200), from the first byte of its
// header to the last of its payload. Only one that [ParseIPv6] or [PutIPv6]
// returned is safe to use.
type IPv6 []byte

// ParseIPv6 returns the packet at the front of b, which it aliases; what follows
// the packet, an Ethernet frame's padding, is cut off. Errors are [ErrShort],
// [ErrVersion] and [ErrLength]. Jumbograms (RFC 2675) are not known: their
// length field of 0 means a packet without payload.
func ParseIPv6(b []byte) (IPv6, error) {
	if len(b) < IPv6HeaderLen {
		return nil, ErrShort
	}
	if b[0]>>4 != 6 {
		return nil, ErrVersion
	}
	total := IPv6HeaderLen + int(binary.BigEndian.Uint16(b[4:]))
	if total > len(b) {
		return nil, ErrLength
	}
	return IPv6(b[:total]), nil
}

// PutIPv6 writes a header to the front of b for a payload of payloadLen bytes and
// returns a view of the whole packet. b must be long enough for both, src and
// dst must be IPv6 addresses. Traffic class and flow label are 0.
func PutIPv6(b []byte, src, dst netip.Addr, nextHeader, hopLimit uint8, payloadLen int) IPv6 {
	p := IPv6(b[:IPv6HeaderLen+payloadLen])
	s, d := src.As16(), dst.As16()
	binary.BigEndian.PutUint32(p, 6<<28)
	p.SetPayloadLen(payloadLen)
	p[6], p[7] = nextHeader, hopLimit
	copy(p[8:24], s[:])
	copy(p[24:40], d[:])
	return p
}

// TrafficClass returns the byte that holds DSCP and ECN.
func (p IPv6) TrafficClass() uint8 { return uint8(binary.BigEndian.Uint16(p) >> 4) }

// DSCP returns the differentiated services code point (RFC 2474 §3).
func (p IPv6) DSCP() uint8 { return p.TrafficClass() >> 2 }

// ECN returns the two bits of explicit congestion notification (RFC 3168 §5).
func (p IPv6) ECN() uint8 { return p.TrafficClass() & ecnMask }

// SetECN changes the ECN bits.
func (p IPv6) SetECN(ecn uint8) { p.setTrafficClass(p.TrafficClass()&^ecnMask | ecn&ecnMask) }

// SetDSCP changes the DSCP.
func (p IPv6) SetDSCP(dscp uint8) { p.setTrafficClass(dscp<<2 | p.ECN()) }

func (p IPv6) setTrafficClass(tc uint8) {
	binary.BigEndian.PutUint16(p, binary.BigEndian.Uint16(p)&0xf00f|uint16(tc)<<4)
}

// PayloadLen returns the payload length field: everything behind the first 40
// bytes.
func (p IPv6) PayloadLen() int { return int(binary.BigEndian.Uint16(p[4:])) }

// SetPayloadLen sets the payload length field.
func (p IPv6) SetPayloadLen(n int) { binary.BigEndian.PutUint16(p[4:], uint16(n)) }

// NextHeader returns the protocol of what follows the first 40 bytes, an
// extension header maybe: [ParseIP] looks behind those.
func (p IPv6) NextHeader() uint8 { return p[6] }

// HopLimit returns the hop limit.
func (p IPv6) HopLimit() uint8 { return p[7] }

// Src returns the source address.
func (p IPv6) Src() netip.Addr { return netip.AddrFrom16([16]byte(p[8:24])) }

// Dst returns the destination address of the header; that of a packet with a
// routing header may not be its last.
func (p IPv6) Dst() netip.Addr { return netip.AddrFrom16([16]byte(p[24:40])) }

// Payload returns what follows the first 40 bytes, which aliases p.
func (p IPv6) Payload() []byte { return p[IPv6HeaderLen:] }

// PseudoSum returns the sum of the pseudo-header of RFC 8200 §8.1 for a transport
// header and payload of length bytes, without a routing header.
func (p IPv6) PseudoSum(protocol uint8, length int) Sum {
	return SumBytes(p[8:40]).AddUint32(uint32(length)).Add(Sum(protocol))
}

// parseExtensions walks the extension headers of p to the first protocol that is
// none.
func (p IPv6) parseExtensions() (IP, error) {
	ip := IP{Packet: p, Transport: IPv6HeaderLen, Protocol: p.NextHeader()}
	for range maxIPv6Extensions {
		// Behind the fragment header of a later fragment there is only data.
		if !isIPv6Extension(ip.Protocol) || ip.FragmentOffset != 0 {
			break
		}
		header := p[ip.Transport:]
		if len(header) < ipv6ExtensionMinLen {
			return IP{}, ErrShort
		}
		n := (int(header[1]) + 1) * 8
		switch ip.Protocol {
		case ipv6Fragment:
			word := binary.BigEndian.Uint16(header[2:])
			ip.FragmentOffset, ip.MoreFragments = int(word&^7), word&1 != 0
			n = ipv6FragmentLen
		case ipv6AH: // counts in words of four bytes (RFC 4302 §2.2)
			n = (int(header[1]) + 2) * 4
		}
		if n > len(header) {
			return IP{}, ErrLength
		}
		ip.Protocol, ip.Transport = header[0], ip.Transport+n
	}
	return ip, nil
}

func isIPv6Extension(protocol uint8) bool {
	switch protocol {
	case ipv6HopByHop, ipv6Routing, ipv6Fragment, ipv6AH, ipv6DestOptions:
		return true
	}
	return false
}

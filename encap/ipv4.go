package encap

import (
	"encoding/binary"
	"net/netip"
)

// IPv4HeaderLen is the size of an IPv4 header without options, in bytes.
const IPv4HeaderLen = 20

// IP protocol numbers (IANA).
const (
	ProtocolICMP   uint8 = 1
	ProtocolTCP    uint8 = 6
	ProtocolUDP    uint8 = 17
	ProtocolICMPv6 uint8 = 58
)

// Flags in the word that also holds the fragment offset (RFC 791 §3.1).
const (
	ipv4DontFragment  = 0x4000
	ipv4MoreFragments = 0x2000
	ipv4OffsetMask    = 0x1fff
)

const (
	defaultTTL = 64 // of the packets this package writes (RFC 1122 §3.2.1.7)
	ecnMask    = 0x03
)

// An IPv4 is a view of one IPv4 packet (RFC 791), from the first byte of its
// header to the last of its payload. Only one that [ParseIPv4] or [PutIPv4]
// returned is safe to use. Except where said, a method that changes a field
// leaves the header's checksum as it is; [IPv4.UpdateChecksum] follows the last
// change.
type IPv4 []byte

// ParseIPv4 returns the packet at the front of b, which it aliases; what follows
// the packet, an Ethernet frame's padding, is cut off. It checks the version and
// both lengths, but not the header checksum: [IPv4.ChecksumOK] does. Errors are
// [ErrShort], [ErrVersion] and [ErrLength].
func ParseIPv4(b []byte) (IPv4, error) {
	if len(b) < IPv4HeaderLen {
		return nil, ErrShort
	}
	if b[0]>>4 != 4 {
		return nil, ErrVersion
	}
	header, total := int(b[0]&0x0f)*4, int(binary.BigEndian.Uint16(b[2:]))
	if header < IPv4HeaderLen || total < header || total > len(b) {
		return nil, ErrLength
	}
	return IPv4(b[:total]), nil
}

// PutIPv4 writes a header without options to the front of b for a payload of
// payloadLen bytes, checksum included, and returns a view of the whole packet. b
// must be long enough for both, src and dst must be IPv4 addresses. The packet
// has TTL 64, may not be fragmented, and for that needs no identification (RFC
// 6864 §4.1).
func PutIPv4(b []byte, src, dst netip.Addr, protocol uint8, payloadLen int) IPv4 {
	p := IPv4(b[:IPv4HeaderLen+payloadLen])
	s, d := src.As4(), dst.As4()
	p[0], p[1] = 4<<4|IPv4HeaderLen/4, 0
	p.SetTotalLen(len(p))
	p.SetID(0)
	binary.BigEndian.PutUint16(p[6:], ipv4DontFragment)
	p[8], p[9] = defaultTTL, protocol
	copy(p[12:16], s[:])
	copy(p[16:20], d[:])
	p.UpdateChecksum()
	return p
}

// HeaderLen returns the size of the header with its options, in bytes.
func (p IPv4) HeaderLen() int { return int(p[0]&0x0f) * 4 }

// TOS returns the byte that holds DSCP and ECN.
func (p IPv4) TOS() uint8 { return p[1] }

// DSCP returns the differentiated services code point (RFC 2474 §3).
func (p IPv4) DSCP() uint8 { return p[1] >> 2 }

// ECN returns the two bits of explicit congestion notification (RFC 3168 §5).
func (p IPv4) ECN() uint8 { return p[1] & ecnMask }

// SetECN changes the ECN bits, and the checksum with them.
func (p IPv4) SetECN(ecn uint8) { p.setTOS(p[1]&^ecnMask | ecn&ecnMask) }

// SetDSCP changes the DSCP, and the checksum with it.
func (p IPv4) SetDSCP(dscp uint8) { p.setTOS(dscp<<2 | p[1]&ecnMask) }

func (p IPv4) setTOS(tos uint8) {
	old := binary.BigEndian.Uint16(p)
	p[1] = tos
	p.SetChecksum(updateChecksum(p.Checksum(), old, binary.BigEndian.Uint16(p)))
}

// TotalLen returns the total length field: header and payload, in bytes.
func (p IPv4) TotalLen() int { return int(binary.BigEndian.Uint16(p[2:])) }

// SetTotalLen sets the total length field.
func (p IPv4) SetTotalLen(n int) { binary.BigEndian.PutUint16(p[2:], uint16(n)) }

// ID returns the identification field.
func (p IPv4) ID() uint16 { return binary.BigEndian.Uint16(p[4:]) }

// SetID sets the identification field.
func (p IPv4) SetID(id uint16) { binary.BigEndian.PutUint16(p[4:], id) }

// DontFragment reports whether routers may not fragment the packet (DF).
func (p IPv4) DontFragment() bool { return p.fragment()&ipv4DontFragment != 0 }

// MoreFragments reports whether fragments of the same datagram follow (MF).
func (p IPv4) MoreFragments() bool { return p.fragment()&ipv4MoreFragments != 0 }

// FragmentOffset returns where in the datagram the payload stands, in bytes.
func (p IPv4) FragmentOffset() int { return int(p.fragment()&ipv4OffsetMask) * 8 }

func (p IPv4) fragment() uint16 { return binary.BigEndian.Uint16(p[6:]) }

// TTL returns the time to live.
func (p IPv4) TTL() uint8 { return p[8] }

// Protocol returns the protocol of the payload.
func (p IPv4) Protocol() uint8 { return p[9] }

// Checksum returns the header's checksum field.
func (p IPv4) Checksum() uint16 { return binary.BigEndian.Uint16(p[10:]) }

// SetChecksum sets the header's checksum field.
func (p IPv4) SetChecksum(sum uint16) { binary.BigEndian.PutUint16(p[10:], sum) }

// ChecksumOK reports whether the header's checksum is right.
func (p IPv4) ChecksumOK() bool { return Checksum(p[:p.HeaderLen()], 0) == 0 }

// UpdateChecksum computes the header's checksum anew.
func (p IPv4) UpdateChecksum() {
	p.SetChecksum(0)
	p.SetChecksum(Checksum(p[:p.HeaderLen()], 0))
}

// Src returns the source address.
func (p IPv4) Src() netip.Addr { return netip.AddrFrom4([4]byte(p[12:16])) }

// Dst returns the destination address.
func (p IPv4) Dst() netip.Addr { return netip.AddrFrom4([4]byte(p[16:20])) }

// Payload returns what follows the header, which aliases p.
func (p IPv4) Payload() []byte { return p[p.HeaderLen():] }

// PseudoSum returns the sum of the pseudo-header of TCP (RFC 9293 §3.1) and UDP
// (RFC 768) for a transport header and payload of length bytes.
func (p IPv4) PseudoSum(protocol uint8, length int) Sum {
	return SumBytes(p[12:20]).AddUint32(uint32(length)).Add(Sum(protocol))
}

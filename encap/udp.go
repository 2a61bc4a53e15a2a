package encap

import "encoding/binary"

// UDPHeaderLen is the size of a UDP header in bytes (RFC 768).
const UDPHeaderLen = 8

// UDPChecksumOffset is the offset of the checksum in a UDP header.
const UDPChecksumOffset = 6

// A UDP is a view of one UDP datagram (RFC 768), header and payload. Only one
// that [ParseUDP] returned is safe to use. Methods that change a field leave the
// checksum as it is.
type UDP []byte

// ParseUDP returns the datagram at the front of b, the payload of an IP packet;
// what b has beyond the datagram's length is cut off. Errors are [ErrShort] and
// [ErrLength].
func ParseUDP(b []byte) (UDP, error) {
	if len(b) < UDPHeaderLen {
		return nil, ErrShort
	}
	n := UDP(b).Length()
	if n < UDPHeaderLen || n > len(b) {
		return nil, ErrLength
	}
	return UDP(b[:n]), nil
}

// SrcPort returns the source port.
func (u UDP) SrcPort() uint16 { return binary.BigEndian.Uint16(u) }

// DstPort returns the destination port.
func (u UDP) DstPort() uint16 { return binary.BigEndian.Uint16(u[2:]) }

// Length returns the length field: header and payload, in bytes.
func (u UDP) Length() int { return int(binary.BigEndian.Uint16(u[4:])) }

// SetLength sets the length field.
func (u UDP) SetLength(n int) { binary.BigEndian.PutUint16(u[4:], uint16(n)) }

// Checksum returns the checksum field; 0 means that there is none.
func (u UDP) Checksum() uint16 { return binary.BigEndian.Uint16(u[UDPChecksumOffset:]) }

// SetChecksum sets the checksum field to sum, which [Sum.Checksum] gave; 0 is
// written as 0xffff, since 0 would say that there is none (RFC 768).
func (u UDP) SetChecksum(sum uint16) {
	binary.BigEndian.PutUint16(u[UDPChecksumOffset:], nonZero(sum))
}

// Payload returns what follows the header, which aliases u.
func (u UDP) Payload() []byte { return u[UDPHeaderLen:] }

package encap

import "encoding/binary"

// TCPHeaderLen is the size of a TCP header without options, in bytes.
const TCPHeaderLen = 20

// TCPChecksumOffset is the offset of the checksum in a TCP header.
const TCPChecksumOffset = 16

// Flags of a TCP header (RFC 9293 §3.1; AE, accurate ECN, RFC 9768).
const (
	TCPFlagFIN uint16 = 1 << iota
	TCPFlagSYN
	TCPFlagRST
	TCPFlagPSH
	TCPFlagACK
	TCPFlagURG
	TCPFlagECE
	TCPFlagCWR
	TCPFlagAE
)

// tcpFlagsMask covers the flags and the reserved bits beside the data offset.
const tcpFlagsMask = 0x0fff

// A TCP is a view of one TCP segment (RFC 9293), header and payload. Only one
// that [ParseTCP] returned is safe to use. Methods that change a field leave the
// checksum as it is.
type TCP []byte

// ParseTCP returns the segment that fills b, the payload of an IP packet. Errors
// are [ErrShort] and [ErrLength].
func ParseTCP(b []byte) (TCP, error) {
	if len(b) < TCPHeaderLen {
		return nil, ErrShort
	}
	if n := TCP(b).HeaderLen(); n < TCPHeaderLen || n > len(b) {
		return nil, ErrLength
	}
	return TCP(b), nil
}

// SrcPort returns the source port.
func (t TCP) SrcPort() uint16 { return binary.BigEndian.Uint16(t) }

// DstPort returns the destination port.
func (t TCP) DstPort() uint16 { return binary.BigEndian.Uint16(t[2:]) }

// Seq returns the sequence number.
func (t TCP) Seq() uint32 { return binary.BigEndian.Uint32(t[4:]) }

// SetSeq sets the sequence number.
func (t TCP) SetSeq(seq uint32) { binary.BigEndian.PutUint32(t[4:], seq) }

// Ack returns the acknowledgment number.
func (t TCP) Ack() uint32 { return binary.BigEndian.Uint32(t[8:]) }

// HeaderLen returns the data offset: the size of the header with its options, in
// bytes.
func (t TCP) HeaderLen() int { return int(t[12]>>4) * 4 }

// Flags returns the flags and, above [TCPFlagAE], the three reserved bits.
func (t TCP) Flags() uint16 { return binary.BigEndian.Uint16(t[12:]) & tcpFlagsMask }

// SetFlags sets the flags and the reserved bits.
func (t TCP) SetFlags(f uint16) {
	word := binary.BigEndian.Uint16(t[12:])
	binary.BigEndian.PutUint16(t[12:], word&^tcpFlagsMask|f&tcpFlagsMask)
}

// Window returns the window field, unscaled.
func (t TCP) Window() uint16 { return binary.BigEndian.Uint16(t[14:]) }

// Checksum returns the checksum field.
func (t TCP) Checksum() uint16 { return binary.BigEndian.Uint16(t[TCPChecksumOffset:]) }

// SetChecksum sets the checksum field.
func (t TCP) SetChecksum(sum uint16) { binary.BigEndian.PutUint16(t[TCPChecksumOffset:], sum) }

// Options returns the header's options, which alias t.
func (t TCP) Options() []byte { return t[TCPHeaderLen:t.HeaderLen()] }

// Payload returns what follows the header, which aliases t.
func (t TCP) Payload() []byte { return t[t.HeaderLen():] }

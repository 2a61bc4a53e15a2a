package crypto

import "encoding/binary"

// Sizes on the wire, in bytes.
const (
	HeaderLen = 12                 // of a transport datagram: type, index, counter
	TagLen    = 16                 // of either AEAD
	Overhead  = HeaderLen + TagLen // around the plaintext of a transport datagram

	// HandshakeLen is the size of an initiation and of a response: the payload
	// of the smallest packet that every IPv6 link carries (RFC 8200 section 5),
	// so that no handshake is cut up and none tells the length of its chain.
	HandshakeLen = 1232
	// MaxHandshakeLen is the size where a certificate chain needs more; there is
	// none in between.
	MaxHandshakeLen = 1400
	// CookieReplyLen is the size of a cookie reply.
	CookieReplyLen = 4 + cookieNonceLen + cookieLen + TagLen

	cookieNonceLen = 24
	cookieLen      = 32
	macLen         = 16
	macsLen        = 2 * macLen

	initiationHeaderLen = 12 // type, sender's index, epoch
	responseHeaderLen   = 8  // type, sender's index, receiver's index, zero
)

// A MessageType is the first byte of a datagram. Bit 0x08, VXLAN's I flag
// (RFC 7348 section 5), is clear in all: a plain VTEP drops them.
type MessageType uint8

// The types of messages.
const (
	Initiation  MessageType = 1 // first message of a handshake
	Response    MessageType = 2 // second and last message of a handshake
	CookieReply MessageType = 3 // asks an initiator to prove its address
	Transport   MessageType = 4 // a sealed datagram
)

// ParseType returns the type of a datagram, by its first byte and its length;
// false when it can be none of them.
func ParseType(b []byte) (MessageType, bool) {
	if len(b) == 0 {
		return 0, false
	}
	switch t := MessageType(b[0]); t {
	case Transport:
		return t, len(b) >= Overhead
	case Initiation, Response:
		return t, len(b) == HandshakeLen || len(b) == MaxHandshakeLen
	case CookieReply:
		return t, len(b) == CookieReplyLen
	}
	return 0, false
}

// Index returns the receiver's index in a transport datagram, which names the
// session that it is for: see [Engine.Receiving]. The datagram has been found to
// be of type [Transport].
func Index(datagram []byte) uint32 { return readIndex(datagram[1:]) }

// readIndex reads the 24 bits of a session index.
func readIndex(b []byte) uint32 {
	return uint32(b[0])<<16 | uint32(b[1])<<8 | uint32(b[2])
}

func putIndex(b []byte, index uint32) {
	b[0], b[1], b[2] = byte(index>>16), byte(index>>8), byte(index)
}

// An initiation aliases a datagram of that type:
//
//	type 1 | sender's index 3 | epoch 8 | Noise message 1 | mac1 16 | mac2 16
type initiation []byte

func (m initiation) sender() uint32 { return readIndex(m[1:]) }
func (m initiation) epoch() uint64  { return binary.BigEndian.Uint64(m[4:]) }
func (m initiation) noise() []byte  { return m[initiationHeaderLen : len(m)-macsLen] }
func (m initiation) mac1() [macLen]byte {
	return [macLen]byte(m[len(m)-macsLen:])
}

func putInitiationHeader(b []byte, sender uint32, epoch uint64) {
	b[0] = byte(Initiation)
	putIndex(b[1:], sender)
	binary.BigEndian.PutUint64(b[4:], epoch)
}

// A response aliases a datagram of that type:
//
//	type 1 | sender's index 3 | receiver's index 3 | 0 | Noise message 2 | mac1 16 | 0 16
type response []byte

func (m response) sender() uint32   { return readIndex(m[1:]) }
func (m response) receiver() uint32 { return readIndex(m[4:]) }
func (m response) noise() []byte    { return m[responseHeaderLen : len(m)-macsLen] }

// hasMAC2 says whether a response has a mac2, which nobody asks for, or anything
// in its reserved byte.
func (m response) hasMAC2() bool { return m[7] != 0 || hasMAC2(m) }

func hasMAC2(m []byte) bool { return [macLen]byte(m[len(m)-macLen:]) != [macLen]byte{} }

func putResponseHeader(b []byte, sender, receiver uint32) {
	b[0] = byte(Response)
	putIndex(b[1:], sender)
	putIndex(b[4:], receiver)
	b[7] = 0
}

// A cookieReply aliases a datagram of that type:
//
//	type 1 | receiver's index 3 | nonce 24 | sealed cookie 48
type cookieReply []byte

func (m cookieReply) receiver() uint32 { return readIndex(m[1:]) }
func (m cookieReply) nonce() []byte    { return m[4 : 4+cookieNonceLen] }
func (m cookieReply) cookie() []byte   { return m[4+cookieNonceLen:] }

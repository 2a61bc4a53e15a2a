package encap

import (
	"encoding/binary"
	"math/bits"
)

// FlowHash returns a hash of the flow that p belongs to, for the choice of an
// outer source port (RFC 7348 §5) or of a worker: of addresses and protocol, and
// of the ports where the transport has ports. Fragments count by addresses
// alone, the first one too, so that a datagram's fragments stay together. All 32
// bits are well mixed. The two directions of a connection differ.
func (p IP) FlowHash() uint32 {
	b := p.Packet
	var h uint64
	if p.Is6() {
		h = mix(binary.BigEndian.Uint64(b[8:])^hashKey0, binary.BigEndian.Uint64(b[16:])^hashKey1)
		h = mix(binary.BigEndian.Uint64(b[24:])^h, binary.BigEndian.Uint64(b[32:])^hashKey2)
	} else {
		h = binary.BigEndian.Uint64(b[12:]) ^ hashKey0
	}
	var tail uint64
	if !p.IsFragment() {
		tail = uint64(p.Protocol)
		if t := p.Payload(); len(t) >= 4 && (p.Protocol == ProtocolTCP || p.Protocol == ProtocolUDP) {
			tail |= uint64(binary.BigEndian.Uint32(t)) << 8
		}
	}
	h = mix(mix(h, tail^hashKey1), hashKey2)
	return uint32(h>>32) ^ uint32(h)
}

// The keys are the fractional digits of pi, as good as any random numbers.
const (
	hashKey0 = 0x243f6a8885a308d3
	hashKey1 = 0x13198a2e03707344
	hashKey2 = 0xa4093822299f31d1
)

// mix multiplies to 128 bits and folds them, which spreads every bit of both.
func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}

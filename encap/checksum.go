package encap

import (
	"encoding/binary"
	"math/bits"
)

// A Sum is an Internet checksum under way (RFC 1071): the one's complement sum
// of the 16-bit big-endian words seen so far, folded to 16 bits and not yet
// complemented. The zero Sum is that of no bytes.
//
// Sums are joined with [Sum.Add]: a plain + loses the carry.
type Sum uint16

// sumBlock is what sumBlocks takes at a time, in bytes.
const sumBlock = 64

// SumBytes returns the sum of b, to which an odd last byte counts as if a zero
// byte followed.
func SumBytes(b []byte) Sum {
	// One's complement addition does not mind the byte order (RFC 1071 §2(B)),
	// so words are loaded in the order that costs nothing on the machines ovnd
	// runs on, and the result is swapped once.
	if len(b) < 8 {
		return sumShort(b)
	}
	last := binary.LittleEndian.Uint64(b[len(b)-8:])
	var acc, carry uint64
	if n := len(b) &^ (sumBlock - 1); n > 0 {
		acc, b = sumBlocks(&b[0], n), b[n:]
	}
	if len(b) >= 32 {
		p := (*[32]byte)(b)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(p[0:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(p[8:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(p[16:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(p[24:]), carry)
		b = b[32:]
	}
	if len(b) >= 16 {
		p := (*[16]byte)(b)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(p[0:]), carry)
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(p[8:]), carry)
		b = b[16:]
	}
	if len(b) >= 8 {
		acc, carry = bits.Add64(acc, binary.LittleEndian.Uint64(b), carry)
		b = b[8:]
	}
	// The last few bytes are the top ones of the word that ends with them.
	if rest := len(b); rest > 0 {
		acc, carry = bits.Add64(acc, last>>(64-8*rest), carry)
	}
	return foldSwapped(acc, carry)
}

// sumShort is SumBytes for fewer than eight bytes.
func sumShort(b []byte) Sum {
	var acc uint64
	for i, c := range b {
		acc |= uint64(c) << (8 * i)
	}
	return foldSwapped(acc, 0)
}

// foldSwapped folds a sum of little-endian words, and its carry, to a Sum.
func foldSwapped(acc, carry uint64) Sum {
	acc, carry = bits.Add64(acc, 0, carry)
	acc += carry
	acc = acc>>32 + acc&0xffffffff // at most 33 bits
	acc = acc>>16 + acc&0xffff     // at most 18 bits
	acc = acc>>16 + acc&0xffff     // at most 17 bits
	acc = acc>>16 + acc&0xffff
	return Sum(bits.ReverseBytes16(uint16(acc)))
}

// Add returns the sum of the bytes of both s and t. Both must have begun at an
// even offset, see [Sum.At].
func (s Sum) Add(t Sum) Sum {
	u := uint32(s) + uint32(t)
	return Sum(u + u>>16)
}

// AddUint32 returns s with the two words of v added.
func (s Sum) AddUint32(v uint32) Sum {
	u := uint64(s) + uint64(v>>16) + uint64(v&0xffff)
	u = u>>16 + u&0xffff
	return Sum(u + u>>16)
}

// At returns what s counts for when its first byte stands at this offset of the
// data to be summed: at an odd one its bytes change places (RFC 1071 §2(B)). So
// the sum of a then b is SumBytes(a).Add(SumBytes(b).At(len(a))).
func (s Sum) At(offset int) Sum {
	if offset&1 != 0 {
		return Sum(bits.ReverseBytes16(uint16(s)))
	}
	return s
}

// Checksum returns the value of a header's checksum field: the complement of s.
func (s Sum) Checksum() uint16 { return ^uint16(s) }

// Checksum returns the Internet checksum of b, for which initial is the sum of
// what precedes it, a pseudo-header say. It is 0 for data that holds its own,
// right checksum.
func Checksum(b []byte, initial Sum) uint16 {
	return initial.Add(SumBytes(b)).Checksum()
}

// CompleteChecksum writes the checksum that a device with checksum offload left
// to be filled in: the two bytes at start+offset of pkt hold the sum of the
// pseudo-header and become the checksum of pkt[start:], as virtio's
// VIRTIO_NET_HDR_F_NEEDS_CSUM has it (virtio 1.2 §5.1.6.2). pkt must end where
// the IP packet ends. A checksum of 0 is written as 0xffff, which UDP needs (RFC
// 768) and which is the same number elsewhere; Linux does so too.
//
// It returns [ErrLength], with pkt untouched, if the field does not lie inside
// pkt, or lies across two of the words to be summed, which that of no protocol
// does.
func CompleteChecksum(pkt []byte, start, offset int) error {
	if start < 0 || offset < 0 || start > len(pkt) || offset > len(pkt)-start-2 || offset&1 != 0 {
		return ErrLength
	}
	b := pkt[start:]
	binary.BigEndian.PutUint16(b[offset:], nonZero(Checksum(b, 0)))
	return nil
}

// nonZero returns sum, or the other way to write zero in one's complement.
func nonZero(sum uint16) uint16 {
	if sum == 0 {
		return 0xffff
	}
	return sum
}

// updateChecksum returns the checksum field hc after a word of the data that it
// covers changed from was to is: equation 3 of RFC 1624, since the plainer ones
// get the two zeros of one's complement wrong.
func updateChecksum(hc, was, is uint16) uint16 {
	return Sum(^hc).Add(Sum(^was)).Add(Sum(is)).Checksum()
}

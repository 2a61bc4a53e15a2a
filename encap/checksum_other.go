//go:build !amd64

package encap

import (
	"encoding/binary"
	"math/bits"
	"unsafe"
)

// sumBlocks returns the sum of the n bytes at b as little-endian words, of any
// width that is a multiple of 16 bits. n is a positive multiple of sumBlock.
func sumBlocks(b *byte, n int) (sum uint64) {
	var carry uint64
	for data := unsafe.Slice(b, n); len(data) > 0; data = data[sumBlock:] {
		p := (*[sumBlock]byte)(data)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(p[0:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(p[8:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(p[16:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(p[24:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(p[32:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(p[40:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(p[48:]), carry)
		sum, carry = bits.Add64(sum, binary.LittleEndian.Uint64(p[56:]), carry)
	}
	sum, carry = bits.Add64(sum, 0, carry)
	return sum + carry
}

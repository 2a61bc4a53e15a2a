package encap

// sumBlocks returns the sum of the n bytes at b as little-endian words, of any
// width that is a multiple of 16 bits. n is a positive multiple of sumBlock and
// less than 1<<32.
//
//go:noescape
func sumBlocks(b *byte, n int) (sum uint64)

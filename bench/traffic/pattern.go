package traffic

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
)

// patternLen is the pattern's length in bytes. It is a prime, so that what is
// shifted by any number of segments or buffers does not look right.
const patternLen = 1<<20 + 7

// pattern has the bytes that verified traffic consists of, twice over and more,
// so that a run which begins anywhere lies in one piece.
var pattern []byte

// Pattern returns n bytes of a fixed pseudo-random pattern of 1,048,583 bytes,
// which repeats, from an offset on. n is at most 128 KiB. The bytes are not the
// caller's.
func Pattern(offset uint64, n int) []byte {
	at := offset % patternLen
	return pattern[at : at+uint64(n)]
}

// PreparePattern makes the pattern. It must be called before verified traffic is
// made or checked; until then the pattern takes no memory.
func PreparePattern() {
	if pattern != nil {
		return
	}
	p := make([]byte, patternLen+bulkBuffer)
	random := rand.NewChaCha8([32]byte{'o', 'v', 'n', 'd'})
	_, _ = random.Read(p[:patternLen]) // never fails
	copy(p[patternLen:], p)
	pattern = p
}

// mismatch returns how many bytes of b differ from the pattern at an offset.
func mismatch(b []byte, offset uint64) (n uint64) {
	want := Pattern(offset, len(b))
	if bytes.Equal(b, want) {
		return 0
	}
	for i := range b {
		if b[i] != want[i] {
			n++
		}
	}
	return n
}

// A TCP flow that is verified begins with the offset of its first byte, eight
// bytes, big endian: each flow has bytes of its own.
const offsetLen = 8

// A checker verifies the stream of one TCP flow.
type checker struct {
	head   [offsetLen]byte
	have   int // bytes in head
	offset uint64
}

// check takes the next bytes of the stream and returns how many are wrong.
func (c *checker) check(b []byte) (wrong uint64) {
	if c.have < offsetLen {
		n := copy(c.head[c.have:], b)
		c.have += n
		b = b[n:]
		if c.have < offsetLen {
			return 0
		}
		c.offset = binary.BigEndian.Uint64(c.head[:])
	}
	wrong = mismatch(b, c.offset)
	c.offset += uint64(len(b))
	return wrong
}

// A datagram begins with a header, big endian:
//
//	| run 4 | flow 4 | sequence number 8 |
//
// and goes on, if it is verified, with the pattern from the offset on that its
// header gives.
const datagramHeaderLen = 16

// MinDatagram is the least UDP payload of a source in bytes.
const MinDatagram = datagramHeaderLen

func putDatagramHeader(b []byte, run, flow uint32, seq uint64) {
	binary.BigEndian.PutUint32(b, run)
	binary.BigEndian.PutUint32(b[4:], flow)
	binary.BigEndian.PutUint64(b[8:], seq)
}

func datagramOffset(flow uint32, seq uint64) uint64 { return uint64(flow)*65537 + seq*2053 }

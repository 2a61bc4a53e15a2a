package crypto

import (
	"encoding/binary"
	"fmt"
)

const (
	// MaxChain is how many certificates a chain may have. A swarm's have one,
	// and two during a rotation of its root.
	MaxChain = 4
	// MaxChainLen bounds a chain's encoding, in bytes.
	MaxChainLen = 4096
)

// checkChain bounds what is parsed and verified.
func checkChain(chain [][]byte) error {
	if n := len(chain); n == 0 || n > MaxChain {
		return fmt.Errorf("%w: a chain of %d certificates, want 1 to %d", ErrIdentity, n, MaxChain)
	}
	if n := ChainLen(chain); n > MaxChainLen {
		return fmt.Errorf("%w: a chain of %d bytes, want at most %d", ErrIdentity, n, MaxChainLen)
	}
	return nil
}

// ChainLen is the size of chain as [AppendChain] writes it, in bytes.
func ChainLen(chain [][]byte) int {
	n := 1
	for _, c := range chain {
		n += 2 + len(c)
	}
	return n
}

// AppendChain appends a chain to b: the number of certificates (1 byte), and
// each after its length (2 bytes, big endian). The chain must keep to
// [MaxChain] and [MaxChainLen].
func AppendChain(b []byte, chain [][]byte) ([]byte, error) {
	if err := checkChain(chain); err != nil {
		return b, err
	}
	b = append(b, byte(len(chain)))
	for _, c := range chain {
		b = binary.BigEndian.AppendUint16(b, uint16(len(c)))
		b = append(b, c...)
	}
	return b, nil
}

// ParseChain reads what AppendChain wrote, and returns what follows it. Both
// alias b.
func ParseChain(b []byte) (chain [][]byte, rest []byte, ok bool) {
	if len(b) == 0 || b[0] == 0 || b[0] > MaxChain {
		return nil, nil, false
	}
	n := int(b[0])
	chain = make([][]byte, 0, n)
	for b = b[1:]; len(chain) < n; {
		c, rest, ok := cutField(b)
		if !ok || len(c) == 0 {
			return nil, nil, false
		}
		chain, b = append(chain, c), rest
	}
	return chain, b, ChainLen(chain) <= MaxChainLen
}

// cutField reads one field after its length (2 bytes, big endian).
func cutField(b []byte) (field, rest []byte, ok bool) {
	if len(b) < 2 {
		return nil, nil, false
	}
	n := int(binary.BigEndian.Uint16(b))
	if b = b[2:]; len(b) < n {
		return nil, nil, false
	}
	return b[:n:n], b[n:], true
}

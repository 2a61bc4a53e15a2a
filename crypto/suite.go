package crypto

import (
	"crypto/aes"
	"crypto/cipher"
	"fmt"

	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/sys/cpu"
)

// A Suite is the AEAD that seals the datagrams of a session. Both have keys of
// 32 bytes, nonces of 12 and tags of 16.
type Suite uint8

const (
	// ChaCha20Poly1305 is the AEAD of RFC 8439.
	ChaCha20Poly1305 Suite = 1 + iota
	// AES256GCM is AES-256 in Galois/Counter Mode, NIST SP 800-38D.
	AES256GCM
)

const keyLen = 32

// String returns the suite's name as users write it.
func (s Suite) String() string {
	switch s {
	case ChaCha20Poly1305:
		return "chacha20-poly1305"
	case AES256GCM:
		return "aes-256-gcm"
	}
	return fmt.Sprintf("suite %d", uint8(s))
}

// aead returns the cipher of s with a key.
func (s Suite) aead(key [keyLen]byte) (cipher.AEAD, error) {
	switch s {
	case ChaCha20Poly1305:
		return chacha20poly1305.New(key[:])
	case AES256GCM:
		block, err := aes.NewCipher(key[:])
		if err != nil {
			return nil, err
		}
		return cipher.NewGCM(block)
	}
	return nil, fmt.Errorf("crypto: unknown %v", s)
}

// limits says how often a key of a suite may be used.
type limits struct {
	rekey   uint64 // datagrams sealed after which new keys are asked for
	refuse  uint64 // datagrams sealed after which none is sealed any more
	forgery uint64 // datagrams that did not open after which the key is retired
}

// limits returns the limits of s. AES-GCM loses its margin with the number of
// blocks sealed (RFC 9001 appendix B.1: 2^23 records of full size), ChaCha20-Poly1305 with
// the number of forgeries tried (RFC 9001 section 6.6: 2^36; AES-GCM 2^52); its
// counters end below 2^64 with room for every goroutine that asks once more.
func (s Suite) limits() limits {
	if s == AES256GCM {
		return limits{rekey: 1 << 22, refuse: 1 << 23, forgery: 1 << 52}
	}
	return limits{rekey: 1 << 60, refuse: 1<<64 - 1<<13, forgery: 1 << 36}
}

// A Policy says which suites a network permits.
type Policy uint8

const (
	// Auto takes AES-256-GCM where both ends have it in hardware, and
	// ChaCha20-Poly1305 elsewhere.
	Auto Policy = iota
	// OnlyChaCha20Poly1305 permits no other suite.
	OnlyChaCha20Poly1305
	// OnlyAES256GCM permits no other suite, in hardware or not.
	OnlyAES256GCM

	policies = iota
)

// String returns the policy's name as users write it.
func (p Policy) String() string {
	switch p {
	case Auto:
		return "auto"
	case OnlyChaCha20Poly1305:
		return ChaCha20Poly1305.String()
	case OnlyAES256GCM:
		return AES256GCM.String()
	}
	return fmt.Sprintf("policy %d", uint8(p))
}

// A suiteSet has bit s-1 set for each suite s in it, as on the wire.
type suiteSet uint8

func (set suiteSet) has(s Suite) bool { return s != 0 && s <= 8 && set&(1<<(s-1)) != 0 }

func suites(list ...Suite) (set suiteSet) {
	for _, s := range list {
		set |= 1 << (s - 1)
	}
	return set
}

// offer returns the suites that a node offers and accepts under policy p.
func (p Policy) offer(hardware bool) suiteSet {
	switch {
	case p == OnlyAES256GCM:
		return suites(AES256GCM)
	case p == Auto && hardware:
		return suites(AES256GCM, ChaCha20Poly1305)
	}
	return suites(ChaCha20Poly1305)
}

// choose returns the suite that a responder takes from what both ends offer,
// and false when they have none in common.
func choose(a, b suiteSet) (Suite, bool) {
	for _, s := range []Suite{AES256GCM, ChaCha20Poly1305} {
		if (a & b).has(s) {
			return s, true
		}
	}
	return 0, false
}

// aesInHardware says whether this processor has instructions for both AES and
// the multiplication of GCM.
func aesInHardware() bool {
	return cpu.X86.HasAES && cpu.X86.HasPCLMULQDQ || cpu.ARM64.HasAES && cpu.ARM64.HasPMULL
}

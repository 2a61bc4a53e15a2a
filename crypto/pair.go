package crypto

import (
	"crypto/rand"
	"net/netip"
	"time"
)

// Pair returns the two ends of an established session with random keys, without
// a handshake: for tests and benchmarks of what carries datagrams. Their peers are
// the nodes "b" and "a", whose Sending gives the session; the index of each is 1.
func Pair(suite Suite) (a, b *Session, err error) {
	var there, back [keyLen]byte
	if _, err = rand.Read(there[:]); err != nil {
		return nil, nil, err
	}
	if _, err = rand.Read(back[:]); err != nil {
		return nil, nil, err
	}
	if a, err = end("b", suite, transportKeys{send: there, receive: back}); err != nil {
		return nil, nil, err
	}
	if b, err = end("a", suite, transportKeys{send: back, receive: there}); err != nil {
		return nil, nil, err
	}
	return a, b, nil
}

func end(peer string, suite Suite, keys transportKeys) (*Session, error) {
	p := &Peer{node: peer}
	s, err := newSession(p, agreed{
		suite: suite, keys: keys, local: 1, remote: 1,
		addr: netip.AddrFrom4([4]byte{127, 0, 0, 1}),
	}, time.Now, Suite.aead)
	if err != nil {
		return nil, err
	}
	p.sending.Store(s)
	return s, nil
}

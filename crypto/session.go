package crypto

import (
	"crypto/cipher"
	"encoding/binary"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/cpu"
	"golang.zx2c4.com/wireguard/replay"
)

// A Session is one pair of transport keys, shared with one peer. All its methods
// may be called from many goroutines at once.
type Session struct {
	// Set before the session is published, and never changed.
	peer      *Peer
	suite     Suite
	limits    limits
	sealer    cipher.AEAD
	opener    cipher.AEAD
	prefix    [4]byte // of the header: type, index at the peer
	local     uint32  // index by which the peer names the session
	epoch     uint64
	initiator bool // whether this end sent the initiation
	created   time.Time
	clock     func() time.Time
	who       Statement // as the handshake has proven

	_      cpu.CacheLinePad // senders and receivers keep off each other's line
	next   atomic.Uint64    // counter of the next datagram to send
	closed atomic.Bool

	_       cpu.CacheLinePad
	pending atomic.Bool  // responder's, and nothing opened yet
	heard   atomic.Int64 // when a datagram was last accepted, in ns after created; 0: never
	addr    atomic.Pointer[netip.Addr]
	failed  atomic.Uint64 // datagrams that did not open

	// Guarded by the engine's lock.
	quietSince time.Time // when the engine last looked whether anything was sent,
	quietNext  uint64    // and the counter of then

	mu       sync.Mutex
	window   replay.Filter // RFC 6479
	received uint64        // datagrams accepted
}

// transportKeys are the keys of the two directions, from this end.
type transportKeys struct{ send, receive [keyLen]byte }

// agreed is what the two ends of a session have agreed on, from one end.
type agreed struct {
	suite         Suite
	keys          transportKeys
	local, remote uint32 // indexes
	epoch         uint64
	initiator     bool
	addr          netip.Addr // of the peer
}

func newSession(p *Peer, a agreed, clock func() time.Time, ciphers newAEAD) (*Session, error) {
	s := &Session{
		peer: p, suite: a.suite, limits: a.suite.limits(),
		local: a.local, epoch: a.epoch, initiator: a.initiator,
		created: clock(), clock: clock,
	}
	var err error
	if s.sealer, err = ciphers(a.suite, a.keys.send); err != nil {
		return nil, err
	}
	if s.opener, err = ciphers(a.suite, a.keys.receive); err != nil {
		return nil, err
	}
	s.prefix[0] = byte(Transport)
	putIndex(s.prefix[1:], a.remote)
	s.addr.Store(&a.addr)
	return s, nil
}

// newAEAD makes the cipher of a suite; tests record keys and nonces with it.
type newAEAD func(Suite, [keyLen]byte) (cipher.AEAD, error)

// Peer returns the peer that the session is shared with.
func (s *Session) Peer() *Peer { return s.peer }

// Addr returns the address at which the peer was last heard from: where to send
// to, at the data port.
func (s *Session) Addr() netip.Addr { return *s.addr.Load() }

// Suite returns the AEAD that seals the session's datagrams.
func (s *Session) Suite() Suite { return s.suite }

// Reserve takes the counters first … first+n-1 for n datagrams. It refuses when
// the session is closed or its key has sealed as much as it may: the datagrams
// must not be sent. Each counter must be given to [Session.Seal] at most once.
func (s *Session) Reserve(n int) (first uint64, ok bool) {
	// The limit is looked at before the addition too, so that the counter stops
	// near it, however often one asks, and never comes round.
	if s.closed.Load() || s.next.Load() >= s.limits.refuse {
		return 0, false
	}
	end := s.next.Add(uint64(n))
	first = end - uint64(n)
	if end > s.limits.refuse {
		return 0, false
	}
	if first < s.limits.rekey && end >= s.limits.rekey {
		s.peer.kick()
	}
	return first, true
}

// Seal seals a datagram in place under a counter from [Session.Reserve]:
//
//	HeaderLen bytes of room | plaintext | TagLen bytes of room
//
// The nonce is the header: constant for the key but for the counter, and the
// bytes are where the AEAD can read them without a copy that would have to live
// on the heap.
func (s *Session) Seal(datagram []byte, counter uint64) {
	copy(datagram, s.prefix[:])
	binary.BigEndian.PutUint64(datagram[4:], counter)
	header := datagram[:HeaderLen]
	plaintext := datagram[HeaderLen : len(datagram)-TagLen]
	s.sealer.Seal(plaintext[:0], header, plaintext, header)
}

// Open opens a datagram of type [Transport] in place. The plaintext aliases it; a
// keepalive's is empty. The counter is not marked as seen: what Open returns must
// not be used before [Session.Accept] has called it fresh. A datagram that does
// not open is spoilt.
func (s *Session) Open(datagram []byte) (plaintext []byte, counter uint64, ok bool) {
	if len(datagram) < Overhead || s.closed.Load() {
		return nil, 0, false
	}
	header, sealed := datagram[:HeaderLen], datagram[HeaderLen:]
	counter = binary.BigEndian.Uint64(header[4:])
	if counter >= s.limits.refuse {
		return nil, 0, false
	}
	plaintext, err := s.opener.Open(sealed[:0], header, sealed, header)
	if err != nil {
		if s.failed.Add(1) >= s.limits.forgery {
			s.close()
			s.peer.kick()
		}
		return nil, 0, false
	}
	return plaintext, counter, true
}

// Accept enters the counters of datagrams that opened in the replay window, and
// sets fresh[i] where counters[i] was not in it and not too old. Both slices have
// the same length.
func (s *Session) Accept(counters []uint64, fresh []bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, counter := range counters {
		fresh[i] = s.window.ValidateCounter(counter, s.limits.refuse)
		if fresh[i] {
			s.received++
		}
	}
}

// Opened says that a datagram from an address opened and was fresh. Call it once
// for each batch and sender, and never for a batch that was all replayed: the
// peer counts as alive, its session as established, and it is sent to at that
// address from now on.
func (s *Session) Opened(from netip.Addr) {
	s.heard.Store(max(1, int64(s.clock().Sub(s.created))))
	if from = from.Unmap(); *s.addr.Load() != from {
		moved := from // escapes, where from does not have to
		s.addr.Store(&moved)
	}
	if s.pending.Load() {
		s.peer.confirm(s)
	}
}

// close ends the session in both directions.
func (s *Session) close() { s.closed.Store(true) }

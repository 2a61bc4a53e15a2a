package vip

import (
	"encoding/binary"
	"sync"

	"github.com/ovnd/ovnd/encap"
)

// maxFragments is how many datagrams in pieces a table follows at a time.
const maxFragments = 64

// ipv6Fragment is the number of IPv6's fragment header, and ipv6FragmentID where
// it has the identification (RFC 8200 §4.5).
const (
	ipv6Fragment   = 44
	ipv6FragmentID = encap.IPv6HeaderLen + 4
)

// fragments remembers which flow the pieces of a datagram belong to: the first
// alone has ports. What comes before it is not translated, and is lost.
type fragments struct {
	mu   sync.Mutex
	ring [maxFragments]fragment
	next int
}

// A fragment is the identity of a datagram in pieces (RFC 791 §3.2), and its flow.
type fragment struct {
	src, dst [2]uint64
	id       uint32
	protocol uint8
	flow     *flow
}

// identity returns what the pieces of a datagram have in common.
func (p *packet) identity() (i fragment, ok bool) {
	i = fragment{protocol: p.protocol}
	i.src, i.dst = p.words()
	switch {
	case !p.v6:
		i.id = uint32(binary.BigEndian.Uint16(p.b[4:]))
	case p.b[6] == ipv6Fragment && len(p.b) >= ipv6FragmentID+4:
		i.id = binary.BigEndian.Uint32(p.b[ipv6FragmentID:])
	default:
		return i, false // behind other headers
	}
	return i, true
}

// note remembers the flow of the datagram that p, which was rewritten, is the
// first piece of: one that the client sends, or gets. The others have the addresses
// from before.
func (s *fragments) note(p *packet, f *flow, sent bool) {
	i, ok := p.identity()
	if !ok {
		return
	}
	i.src, i.dst = f.in.remote, f.in.local
	if sent {
		i.src, i.dst = f.out.local, f.out.remote
	}
	i.flow = f
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ring[s.next] = i
	s.next = (s.next + 1) % maxFragments
}

// find returns the flow of a piece that is not the first.
func (s *fragments) find(p *packet) *flow {
	want, ok := p.identity()
	if !ok {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := range maxFragments { // the latest first
		i := &s.ring[(s.next-1-n+2*maxFragments)%maxFragments]
		if i.flow == nil {
			return nil
		}
		if i.id == want.id && i.src == want.src && i.dst == want.dst && i.protocol == want.protocol {
			return i.flow
		}
	}
	return nil
}

// fragmentOut and fragmentIn handle a piece that is not the first.
func (t *Table) fragmentOut(p *packet) Verdict {
	if t.live.Load() == 0 {
		return Pass
	}
	f := t.fragments.find(p)
	if f == nil {
		return Pass
	}
	f.send.apply(p, true)
	return Translated
}

func (t *Table) fragmentIn(p *packet) Verdict {
	f := t.fragments.find(p)
	if f == nil {
		return Pass
	}
	f.receive.apply(p, false)
	return Translated
}

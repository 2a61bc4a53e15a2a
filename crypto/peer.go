package crypto

import (
	"net/netip"
	"slices"
	"sync/atomic"
	"time"
)

// A PeerInfo says with whom sessions are wanted. Where it comes from need not be
// trusted: who answers must prove to be the node.
type PeerInfo struct {
	NodeID   string
	Static   [32]byte // zero: not known yet, the peer has to begin
	Addr     netip.Addr
	Policies []Policy
}

// A member is a node of the swarm, guarded by the engine's lock.
type member struct {
	id       string
	info     *PeerInfo  // nil: sessions are not wanted now
	verified *Statement // as the last handshake has proven; nil: none has
	news     bool       // gossip's key is newer than that
	peers    [policies]*Peer
}

// verify enters what a handshake has proven.
func (m *member) verify(s Statement) { m.verified, m.news = &s, false }

// maxTargets is how many keys a node may answer under: see targets.
const maxTargets = 2

// targets returns the static keys under which the node may answer, the likeliest
// first: what it has proven, and what gossip says.
func (m *member) targets() (keys [][32]byte) {
	gossip := m.info.Static
	if m.verified != nil {
		keys = append(keys, m.verified.Static)
	}
	if gossip != [32]byte{} && !slices.Contains(keys, gossip) {
		keys = append(keys, gossip)
	}
	if m.news {
		slices.Reverse(keys)
	}
	return keys
}

// A Peer is another node under one policy: a handle that stays the same while
// sessions come and go.
type Peer struct {
	engine  *Engine // nil for the ends of a Pair
	member  *member
	node    string
	policy  Policy
	sending atomic.Pointer[Session]
	wanted  atomic.Bool // something is to be sent

	// Guarded by the engine's lock.
	sessions []*Session // newest first; closed ones are out of it
	try      *attempt   // nil: no initiation under way
	renew    bool       // gossip tells of a new key or address: the session may be dead
	failure  Refusal
	wantedAt time.Time            // when the engine saw wanted
	markers  map[[32]byte]*marker // of the engine's goroutine: by static key, those that the peer may have
}

// An attempt is a row of initiations, until one is answered.
type attempt struct {
	started time.Time
	again   time.Time // when the next initiation is due
	sent    time.Time // when the last one was
	tries   int

	// Of the last initiation.
	index     uint32
	target    [32]byte // static key
	addr      netip.Addr
	offered   suiteSet
	handshake *handshake // nil: it was not sent, or its answer did not do
	cookie    bool       // a cookie has come for it
}

// soon has the next initiation sent soon, but not before the last one can have been
// answered: any member can make news.
func (t *attempt) soon(now time.Time) {
	if at := t.sent.Add(firstRetry); at.After(now) {
		now = at
	}
	if now.Before(t.again) {
		t.again = now
	}
}

// markerFor returns the marker for a static key of the peer, which keeps the cookie of
// that key while the others are tried.
func (p *Peer) markerFor(static [32]byte) *marker {
	if p.markers[static] == nil {
		if p.markers == nil || len(p.markers) >= maxTargets {
			p.markers = make(map[[32]byte]*marker, maxTargets) // the keys have changed
		}
		p.markers[static] = newMarker(static)
	}
	return p.markers[static]
}

// NodeID returns the swarm's id of the node.
func (p *Peer) NodeID() string { return p.node }

// Policy returns the policy that sessions with the peer are under.
func (p *Peer) Policy() Policy { return p.policy }

// Sending returns the session to send with, nil when there is none now.
func (p *Peer) Sending() *Session { return p.sending.Load() }

// Want says that there is something to send and no session: a handshake starts
// unless one is under way. It never blocks, and costs two loads while one is.
func (p *Peer) Want() {
	if p.sending.Load() == nil && !p.wanted.Load() && p.wanted.CompareAndSwap(false, true) {
		p.kick()
	}
}

func (p *Peer) kick() {
	if p.engine != nil {
		p.engine.kick()
	}
}

// named says whether SetPeers names the peer under this policy.
func (p *Peer) named() bool {
	return p.member.info != nil && slices.Contains(p.member.info.Policies, p.policy)
}

// confirm makes a pending session, whose initiator has proven to have the keys,
// the one to send with.
func (p *Peer) confirm(s *Session) {
	e := p.engine
	if e == nil {
		return
	}
	e.mu.Lock()
	ok := !s.closed.Load() && s.pending.CompareAndSwap(true, false)
	if ok {
		e.halfOpen--
		p.establish(s)
	}
	e.mu.Unlock()
	if ok {
		e.changed(p.node)
		e.kick()
	}
}

// establish makes s the session to send with. Only now does what its handshake
// has proven count: an initiation may be of a former run of the peer, kept back
// until now, and nobody confirms its session.
func (p *Peer) establish(s *Session) {
	p.member.verify(s.who)
	p.sending.Store(s)
	p.wanted.Store(false)
	p.wantedAt, p.renew, p.failure = time.Time{}, false, refusedNot
	p.engine.abandon(p)
}

// pendingSession returns the session that the peer has not confirmed yet.
func (p *Peer) pendingSession() *Session {
	for _, s := range p.sessions {
		if s.pending.Load() {
			return s
		}
	}
	return nil
}

package crypto

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Times of the state machine. Those of sessions are WireGuard's.
const (
	rekeyAfter      = 120 * time.Second // the initiator asks for new keys
	rekeyLate       = 165 * time.Second // the responder does, if the initiator has not
	rejectAfter     = 180 * time.Second // a session is closed
	pendingFor      = 20 * time.Second  // a responder's session is kept unconfirmed
	confirmedIn     = 2 * time.Second   // a responder's session, as a rule; until then it does not begin
	crossingFor     = 5 * time.Second   // an attempt of the lower static key goes first
	keepaliveEach   = 5 * time.Second   // of an established session that sends nothing else
	confirmEach     = time.Second       // until the initiator has heard from the responder
	unheardAfter    = 3 * time.Second   // nothing came on an initiator's new session: the peer may have dropped it
	silentAfter     = 15 * time.Second  // a peer that says nothing may have lost its keys
	wantedFor       = 5 * time.Second   // Want lasts
	firstRetry      = time.Second       // doubled each time
	lastRetry       = 5 * time.Second
	renewAfter      = 5 * time.Second // gossip's news of a peer do not end a younger session
	retryJitter     = 333 * time.Millisecond
	maxHalfOpen     = 512
	maxSessions     = 4 // of one Peer: the newest, one pending, and what is still in flight
	maxMembers      = 16384
	messagesBetween = 8 // messages handled after each initiation of a round

	// callsEach bounds the initiations of a second to nodes that gossip tells of
	// and that have proven nothing yet: any member can invent them, at the address
	// of whoever is to be sent initiations.
	callsEach  = 256
	callsPause = 50 * time.Millisecond
)

// Config is what an [Engine] needs.
type Config struct {
	// Identity returns the identity of now; nil: there is none, and no handshake.
	// It is called for each handshake message.
	Identity func() *Identity
	// Send sends a handshake message or a keepalive to an address, at the data
	// port. The datagram is lent. It is called by one goroutine at a time.
	Send func(to netip.Addr, datagram []byte)
	// Changed, if set, says that a session with a node became usable or ended. It is
	// called by whoever caused it, the data plane or the caller of SetPeers among
	// them, so it must not block and take no lock that these hold.
	Changed func(node string)
	// Clock is where the time comes from: time.Now unless set.
	Clock func() time.Time
	// Log gets events of sessions, none of packets; discarded unless set.
	Log *slog.Logger

	ciphers newAEAD   // tests watch keys and nonces
	random  io.Reader // of ephemeral keys; nil: the system's
}

// An Engine makes and keeps the sessions of a node. All its methods may be called
// from many goroutines at once.
type Engine struct {
	cfg     Config
	clock   func() time.Time
	log     *slog.Logger
	queue   chan *message
	cookies chan *message // cookie replies
	spare   sync.Pool     // of *message
	kicks   chan struct{}
	local   atomic.Pointer[local]
	stop    atomic.Bool
	stamps  stamper // of the engine's goroutine
	gate    gate
	calls   pacer // initiations to nodes that have proven nothing

	awaited sync.Map // *expected by the index of the attempt, for goroutines that must not wait for the lock

	receiving atomic.Pointer[map[uint32]*Session] // never changed, but replaced
	refused   [refusals]atomic.Uint64

	mu        sync.Mutex
	epochs    []Epoch // oldest first
	members   map[string]*member
	crowded   bool // members is full, and none of them can be forgotten
	revoked   map[string]bool
	initiated map[uint32]*Peer // attempts by their index
	seen      stampTable
	halfOpen  int
}

// local is the identity of now with what is derived from it.
type local struct {
	id      *Identity
	checker *checker
}

// A message is a handshake message on its way to the engine.
type message struct {
	from   netip.Addr
	n      int
	demand bool // an initiation that gets a cookie and nothing else
	buf    [MaxHandshakeLen]byte
}

// New returns an engine that waits for [Engine.Run].
func New(cfg Config) (*Engine, error) {
	if cfg.Identity == nil || cfg.Send == nil {
		return nil, errors.New("crypto: an engine needs Identity and Send")
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.ciphers == nil {
		cfg.ciphers = Suite.aead
	}
	e := &Engine{
		cfg: cfg, clock: cfg.Clock, log: cfg.Log,
		queue: make(chan *message, queueLen), cookies: make(chan *message, cookiesLen), kicks: make(chan struct{}, 1),
		spare:   sync.Pool{New: func() any { return new(message) }},
		members: make(map[string]*member), revoked: make(map[string]bool),
		initiated: make(map[uint32]*Peer), seen: newStampTable(),
	}
	e.gate.init(e.clock())
	e.receiving.Store(&map[uint32]*Session{})
	return e, nil
}

// Run makes handshakes until the context ends; then it closes all sessions. It
// is called once.
func (e *Engine) Run(ctx context.Context) error {
	defer e.end()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case m := <-e.queue:
			e.receive(m)
			continue
		case m := <-e.cookies:
			e.receive(m)
			continue
		case <-e.kicks:
		case <-timer.C:
		}
		if next := e.round(ctx); !next.IsZero() {
			timer.Reset(max(0, next.Sub(e.clock())))
		} else {
			timer.Stop()
		}
	}
}

// end closes every session: what has no engine has no one to renew its keys.
func (e *Engine) end() {
	e.stop.Store(true)
	e.mu.Lock()
	for _, m := range e.members {
		e.closeMember(m)
	}
	e.mu.Unlock()
}

// Today is the time by which certificates are judged: where the wall clock was set
// back during the run, what it would show without that. Else a wrong clock would end
// the traffic of a node that has been let in. But where this node's own certificate
// is good now, and had ended without that, the clock was set right.
func (e *Engine) Today() time.Time {
	now := e.clock()
	wall, run := now.Round(0), e.gate.start.Add(now.Sub(e.gate.start)).Round(0)
	if id := e.cfg.Identity(); !run.After(wall) || id != nil && id.holds(wall) && run.After(id.until) {
		return wall
	}
	return run
}

func (e *Engine) kick() {
	select {
	case e.kicks <- struct{}{}:
	default:
	}
}

func (e *Engine) changed(node string) {
	if e.cfg.Changed != nil {
		e.cfg.Changed(node)
	}
}

func (e *Engine) refuse(r Refusal) Refusal {
	if r != refusedNot {
		e.refused[r].Add(1)
	}
	return r
}

// identity returns the identity of now, nil when there is none.
func (e *Engine) identity() *local {
	id := e.cfg.Identity()
	if id == nil || e.stop.Load() {
		return nil
	}
	old := e.local.Load()
	if old != nil && old.id == id {
		return old
	}
	l := &local{id: id}
	if old != nil && old.id.state.Static == id.state.Static {
		l.checker = old.checker // keeps the cookies
	} else {
		l.checker = newChecker(id.state.Static)
	}
	e.local.CompareAndSwap(old, l)
	return l
}

// SetEpochs sets the swarm's keys, which the engine copies: the second oldest is
// for handshakes of our own, all are accepted. Sessions stay as they are.
func (e *Engine) SetEpochs(epochs []Epoch) {
	e.mu.Lock()
	e.epochs = sortEpochs(epochs)
	for _, p := range e.all() {
		if p.try != nil && p.try.handshake == nil {
			p.try.again = e.clock() // it may be able to now
		}
	}
	e.mu.Unlock()
	e.kick()
}

// epoch returns the epoch of a tag.
func (e *Engine) epoch(tag uint64) (Epoch, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, epoch := range e.epochs {
		if epoch.Tag == tag {
			return epoch, true
		}
	}
	return Epoch{}, false
}

// SetPeers says with whom sessions are wanted: they are made ahead of need, and
// renewed. Sessions with a node that was named before and is not any more are
// closed. A member that nobody named may begin a session all the same: gossip
// tells the two ends of each other at different times.
func (e *Engine) SetPeers(infos []PeerInfo) {
	named, places := make(map[string]bool, len(infos)), make(map[netip.Addr]bool, len(infos))
	for _, info := range infos {
		if info.Addr.IsValid() {
			named[info.NodeID], places[info.Addr.Unmap()] = true, true
		}
	}
	var gone []string
	e.gate.places.Store(&places)
	e.mu.Lock()
	for id, m := range e.members {
		if m.info != nil && !named[id] {
			m.info, e.crowded = nil, false
			e.closeMember(m)
			gone = append(gone, id)
		}
	}
	for _, info := range infos {
		if m := e.member(info.NodeID); m != nil && info.Addr.IsValid() {
			e.inform(m, info)
		}
	}
	e.mu.Unlock()
	for _, id := range gone {
		e.changed(id)
	}
	e.kick()
}

// inform updates what gossip says of a member.
func (e *Engine) inform(m *member, info PeerInfo) {
	info.Addr = info.Addr.Unmap()
	info.Policies = slices.Clone(info.Policies)
	old := m.info
	m.info = &info
	for _, policy := range info.Policies {
		if policy < policies {
			e.peer(m, policy)
		}
	}
	if old == nil || old.Static == info.Static && old.Addr == info.Addr {
		return
	}
	m.news = m.news || old.Static != info.Static
	for _, p := range m.peers {
		if p == nil {
			continue
		}
		if s := p.sending.Load(); s != nil && (m.verified == nil || m.verified.Static != info.Static || s.Addr() != info.Addr) {
			p.renew = true
		}
		if p.try != nil {
			p.try.soon(e.clock()) // it was to the old key or address
		}
	}
}

// Revoke closes the sessions of nodes that were removed from the swarm, for
// ever: their handshakes are refused from now on.
func (e *Engine) Revoke(nodeIDs ...string) {
	e.mu.Lock()
	for _, id := range nodeIDs {
		e.revoked[id] = true
		e.seen.forget(id)
		if m := e.members[id]; m != nil {
			m.verified = nil
			e.closeMember(m)
		}
	}
	e.mu.Unlock()
	for _, id := range nodeIDs {
		e.changed(id)
	}
}

// Alive says whether the node has authenticated itself within the last 15 s.
func (e *Engine) Alive(nodeID string) bool {
	now := e.clock()
	e.mu.Lock()
	defer e.mu.Unlock()
	m := e.members[nodeID]
	if m == nil {
		return false
	}
	for _, p := range m.peers {
		if p != nil && slices.ContainsFunc(p.sessions, func(s *Session) bool {
			return !s.pending.Load() && now.Sub(s.lastHeard()) < silentAfter
		}) {
			return true
		}
	}
	return false
}

// Verified returns the statement that the node has proven in its last handshake.
func (e *Engine) Verified(nodeID string) (Statement, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if m := e.members[nodeID]; m != nil && m.verified != nil {
		return *m.verified, true
	}
	return Statement{}, false
}

// Peer returns the handle of a node under a policy. It stays the same unless
// gossip has told of more nodes than there can be, and this one never came.
func (e *Engine) Peer(nodeID string, policy Policy) *Peer {
	e.mu.Lock()
	defer e.mu.Unlock()
	m := e.member(nodeID)
	if m == nil || policy >= policies {
		return &Peer{node: nodeID, policy: policy, member: &member{id: nodeID}}
	}
	return e.peer(m, policy)
}

// Receiving returns the session that this node has given an index to; nil: none.
func (e *Engine) Receiving(index uint32) *Session { return (*e.receiving.Load())[index] }

// member returns a node's entry, nil when there are too many. The lock is held.
func (e *Engine) member(id string) *member {
	m := e.members[id]
	if m == nil && id != "" && (len(e.members) < maxMembers || e.forgetMembers()) {
		m = &member{id: id}
		e.members[id] = m
	}
	return m
}

// forgetMembers makes room where gossip has told of more nodes than there can be:
// those that it does not name any more and that never proved to exist are
// forgotten. The lock is held.
func (e *Engine) forgetMembers() (room bool) {
	if e.crowded {
		return false
	}
	maps.DeleteFunc(e.members, func(_ string, m *member) bool {
		return m.info == nil && m.verified == nil && !slices.ContainsFunc(m.peers[:], func(p *Peer) bool {
			return p != nil && len(p.sessions) > 0
		})
	})
	e.crowded = len(e.members) >= maxMembers
	return !e.crowded
}

func (e *Engine) peer(m *member, policy Policy) *Peer {
	if m.peers[policy] == nil {
		m.peers[policy] = &Peer{engine: e, member: m, node: m.id, policy: policy}
	}
	return m.peers[policy]
}

// all returns every Peer. The lock is held.
func (e *Engine) all() (list []*Peer) {
	for _, m := range e.members {
		for _, p := range m.peers {
			if p != nil {
				list = append(list, p)
			}
		}
	}
	return list
}

// closeMember ends all that there is with a node. The lock is held.
func (e *Engine) closeMember(m *member) {
	for _, p := range m.peers {
		if p == nil {
			continue
		}
		e.abandon(p)
		for _, s := range slices.Clone(p.sessions) {
			e.drop(s)
		}
	}
}

// abandon ends the attempt of a Peer. The lock is held.
func (e *Engine) abandon(p *Peer) {
	if p.try != nil {
		e.unawait(p.try.index)
		p.try = nil
	}
}

// await has an answer to the attempt of index be for p. The lock is held.
func (e *Engine) await(index uint32, p *Peer) {
	e.initiated[index] = p
	e.awaited.Store(index, &expected{stranger: p.member.verified == nil})
}

// unawait ends that, if it is so. The lock is held.
func (e *Engine) unawait(index uint32) {
	if e.initiated[index] != nil {
		delete(e.initiated, index)
		e.awaited.Delete(index)
	}
}

// expects returns what is awaited under an index; nil: nothing. It takes no lock.
func (e *Engine) expects(index uint32) *expected {
	a, _ := e.awaited.Load(index)
	awaited, _ := a.(*expected)
	return awaited
}

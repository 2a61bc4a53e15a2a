package crypto

import (
	"bytes"
	"errors"
	"net/netip"
	"time"
)

// HandleHandshake takes a datagram of type [Initiation], [Response] or
// [CookieReply], which it copies. It never blocks, and costs one mac over the
// datagram: what has no mac1 for our static key goes no further, and of the rest no
// more than the engine can answer. A refusal comes with !ok; refusals after the
// queue show in [Engine.Stats] alone, and those are all in there.
func (e *Engine) HandleHandshake(from netip.Addr, b []byte) (why Refusal, ok bool) {
	why = e.enqueue(from.Unmap(), b)
	return e.refuse(why), why == refusedNot
}

func (e *Engine) enqueue(from netip.Addr, b []byte) Refusal {
	kind, ok := ParseType(b)
	if !ok || kind == Transport {
		return RefusedLength
	}
	local := e.identity()
	if local == nil {
		return RefusedNoIdentity
	}
	demand, r := e.judgeMessage(local, kind, from, b)
	if r != refusedNot {
		return r
	}
	queue := e.queue
	if kind == CookieReply {
		queue = e.cookies
	}
	m := e.spare.Get().(*message)
	m.from, m.n, m.demand = from, copy(m.buf[:], b), demand
	select {
	case queue <- m:
		return refusedNot
	default:
		e.spare.Put(m)
		return RefusedQueue
	}
}

// judgeMessage decides whether a message may take the engine's time.
func (e *Engine) judgeMessage(local *local, kind MessageType, from netip.Addr, b []byte) (demand bool, r Refusal) {
	if kind == CookieReply {
		if e.expects(cookieReply(b).receiver()) == nil {
			return false, RefusedUnexpected
		}
		return false, refusedNot
	}
	if !local.checker.checkMAC1(b) {
		return false, RefusedMAC
	}
	now := e.clock()
	if kind == Initiation {
		if len(e.queue) >= loadedQueue {
			e.gate.load(e.gate.at(now))
		}
		r, demand = e.gate.initiation(local.checker, from, b, now)
		return demand, r
	}
	m := response(b)
	awaited := e.expects(m.receiver())
	if awaited == nil || m.hasMAC2() {
		return false, RefusedUnexpected
	}
	return false, e.gate.response(awaited, e.gate.at(now))
}

// receive handles one message of the queue.
func (e *Engine) receive(m *message) {
	b := m.buf[:m.n]
	switch MessageType(b[0]) {
	case Initiation:
		if m.demand {
			e.refuse(e.demandCookie(m.from, b))
		} else {
			e.refuse(e.takeInitiation(m.from, b))
		}
	case Response:
		e.refuse(e.takeResponse(m.from, b))
	case CookieReply:
		e.refuse(e.takeCookieReply(b))
	}
	e.spare.Put(m)
}

// demandCookie answers an initiation whose sender has not proven its address.
func (e *Engine) demandCookie(from netip.Addr, m initiation) Refusal {
	local := e.identity()
	if local == nil {
		return RefusedNoIdentity
	}
	e.cfg.Send(from, local.checker.reply(m, from, e.clock()))
	return RefusedCookie
}

// takeInitiation answers an initiation. Costs rise with what the sender has
// proven: knowledge of our static key, under load its address, its own static key,
// that it is not a replay, and last the certificate. That it has the epoch's key,
// which enters with the second message, its first datagram proves.
func (e *Engine) takeInitiation(from netip.Addr, m initiation) Refusal {
	local := e.identity()
	if local == nil {
		return RefusedNoIdentity
	}
	epoch, ok := e.epoch(m.epoch())
	if !ok {
		return RefusedEpoch
	}
	h, err := newHandshake(local.id, epoch, nil, e.cfg.random)
	if err != nil {
		return RefusedHandshake
	}
	p, err := h.readInitiation(m)
	if err != nil {
		return refusalOf(err)
	}
	e.mu.Lock()
	fresh := e.seen.fresh(h.remote(), p.time)
	e.mu.Unlock()
	if !fresh {
		return RefusedReplay
	}
	who, err := p.sender(local.id, h.remote(), e.Today())
	if err != nil {
		e.log.Debug("handshake refused", "from", from, "err", err)
		return RefusedIdentity
	}
	return e.respond(local, from, m, h, p, who)
}

// respond answers the initiation of a verified member and makes the session,
// which waits for the initiator's first datagram.
func (e *Engine) respond(local *local, from netip.Addr, m initiation, h *handshake, p payload, who Statement) Refusal {
	peer, index, r := e.admit(local, p, who)
	if r != refusedNot {
		return r
	}
	offered := p.policy.offer(aesInHardware())
	suite, ok := choose(offered, p.suites)
	if !ok {
		return RefusedSuite
	}
	answer := payloadOf(local.id, p.policy, offered)
	answer.suite = suite
	size := answer.fit(second)
	if size > len(m) {
		return RefusedChain // a response is never larger than its request
	}
	datagram, keys, err := h.writeResponse(index, m.sender(), answer, size)
	if err != nil {
		return RefusedChain
	}
	newMarker(who.Static).mark(datagram, e.clock())
	s, err := newSession(peer, agreed{
		suite: suite, keys: keys, local: index, remote: m.sender(), epoch: h.epoch, addr: from,
	}, e.clock, e.cfg.ciphers)
	if err != nil {
		return RefusedSuite
	}
	s.pending.Store(true)
	if !e.enter(s, who) {
		return RefusedRevoked
	}
	e.cfg.Send(from, datagram)
	return refusedNot
}

// admit decides about the initiation of a verified member, which from now on
// counts as seen, and gives its session an index.
func (e *Engine) admit(local *local, p payload, who Statement) (*Peer, uint32, Refusal) {
	now := e.clock()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.revoked[who.NodeID] {
		return nil, 0, RefusedRevoked
	}
	if who.NodeID == local.id.state.NodeID {
		return nil, 0, RefusedNode
	}
	e.seen.enter(who.NodeID, who.Static, p.time)
	m := e.member(who.NodeID)
	if m == nil {
		return nil, 0, RefusedHalfOpen
	}
	peer := e.peer(m, p.policy)
	if peer.crosses(local.id.state.Static, who.Static, now) {
		return nil, 0, RefusedCrossing
	}
	if e.halfOpen >= maxHalfOpen && peer.pendingSession() == nil {
		return nil, 0, RefusedHalfOpen
	}
	e.abandon(peer)
	return peer, e.newIndex(), refusedNot
}

// crosses says whether an initiation from a static key crosses an attempt of our
// own that goes first: that of the lower key does, for as long as it takes to be
// answered. An attempt to another key of the peer, an old one, is no match for it.
func (p *Peer) crosses(ours, theirs [32]byte, now time.Time) bool {
	return p.try != nil && p.try.handshake != nil && p.try.target == theirs &&
		now.Sub(p.try.started) < crossingFor && bytes.Compare(ours[:], theirs[:]) < 0
}

// enter makes a responder's session known, in place of one that the peer has not
// confirmed. It fails if the node was removed meanwhile.
func (e *Engine) enter(s *Session, who Statement) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.revoked[who.NodeID] {
		return false
	}
	if old := s.peer.pendingSession(); old != nil {
		e.drop(old)
	}
	s.who = who
	e.halfOpen++
	e.add(s)
	e.kick() // for its end, if nobody confirms it
	return true
}

// takeResponse completes a handshake of our own.
func (e *Engine) takeResponse(from netip.Addr, m response) Refusal {
	local := e.identity()
	if local == nil {
		return RefusedNoIdentity
	}
	e.mu.Lock()
	peer := e.initiated[m.receiver()]
	var try attempt
	if peer != nil {
		try = *peer.try
	}
	e.mu.Unlock()
	if peer == nil {
		return RefusedUnexpected
	}
	p, keys, err := try.handshake.readResponse(m)
	if err != nil {
		r := refusalOf(err)
		if r == RefusedPayload { // else it is not for this handshake, whose answer may still come
			e.fail(peer, try.index, r)
		}
		return r
	}
	who, r := e.judge(local, peer, try, p)
	if r == refusedNot {
		r = e.complete(peer, try, who, agreed{
			suite: p.suite, keys: keys, local: try.index, remote: m.sender(),
			epoch: try.handshake.epoch, initiator: true, addr: from,
		})
	}
	if r != refusedNot {
		e.fail(peer, try.index, r)
	}
	return r
}

// judge checks what a response says against what was asked.
func (e *Engine) judge(local *local, peer *Peer, try attempt, p payload) (Statement, Refusal) {
	who, err := p.sender(local.id, try.target, e.Today())
	switch {
	case err != nil:
		e.log.Debug("handshake refused", "peer", peer.node, "err", err)
		return who, RefusedIdentity
	case who.NodeID != peer.node:
		return who, RefusedNode
	case p.policy != peer.policy || !try.offered.has(p.suite):
		return who, RefusedSuite
	}
	return who, refusedNot
}

// complete makes the initiator's session, which sends at once: first of all a
// keepalive, by which the responder sees that we have the keys.
func (e *Engine) complete(peer *Peer, try attempt, who Statement, a agreed) Refusal {
	s, err := newSession(peer, a, e.clock, e.cfg.ciphers)
	if err != nil {
		return RefusedSuite
	}
	e.mu.Lock()
	if e.revoked[who.NodeID] {
		e.mu.Unlock()
		return RefusedRevoked
	}
	if peer.try == nil || peer.try.index != try.index {
		e.mu.Unlock()
		return RefusedUnexpected // SetPeers or Revoke has ended it
	}
	s.who = who
	e.add(s)
	peer.establish(s)
	e.mu.Unlock()
	e.log.Debug("session established", "peer", peer.node, "suite", s.suite, "epoch", s.epoch, "addr", a.addr)
	e.keepalive(s)
	e.changed(peer.node)
	e.kick() // for its rekeying
	return refusedNot
}

// fail notes that an answered initiation came to nothing; the next one is sent
// when it is due.
func (e *Engine) fail(peer *Peer, index uint32, r Refusal) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.unawait(index)
	if peer.try != nil && peer.try.index == index {
		peer.try.handshake, peer.failure = nil, r
	}
}

// takeCookieReply keeps a cookie and sends the next initiation with it, once at
// once.
func (e *Engine) takeCookieReply(m cookieReply) Refusal {
	e.mu.Lock()
	defer e.mu.Unlock()
	peer := e.initiated[m.receiver()]
	if peer == nil || !peer.markerFor(peer.try.target).take(m, e.clock()) {
		return RefusedUnexpected
	}
	if !peer.try.cookie {
		peer.try.cookie = true
		peer.try.tries-- // the same key at the same address again
		peer.try.again = e.clock()
		e.kick()
	}
	return refusedNot
}

// refusalOf tells messages of unknown form from those of another key.
func refusalOf(err error) Refusal {
	if errors.Is(err, errPayload) {
		return RefusedPayload
	}
	return RefusedHandshake
}

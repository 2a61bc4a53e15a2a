package crypto

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"
)

// A round looks at every Peer once. What takes longer than a look is put off
// until the lock is given back.
type round struct {
	now        time.Time
	next       time.Time // when something is due again; zero: nothing is
	due        []*Peer   // initiations to send
	strangers  []*Peer   // of them, those to nodes that have proven nothing
	keepalives []*Session
	ended      []string // nodes with a session less
}

// by says that something is due at t.
func (r *round) by(t time.Time) {
	if r.next.IsZero() || t.Before(r.next) {
		r.next = t
	}
}

// round does what is due, and returns when to come again; zero: when kicked.
// Messages are handled in between: answers to what is being sent come early.
func (e *Engine) round(ctx context.Context) time.Time {
	r := &round{now: e.clock()}
	e.mu.Lock()
	for _, p := range e.all() {
		e.tend(r, p)
	}
	e.mu.Unlock()
	for _, s := range r.keepalives {
		e.keepalive(s)
	}
	for _, node := range r.ended {
		e.changed(node)
	}
	for _, p := range r.due {
		if ctx.Err() != nil {
			break
		}
		r.by(e.initiate(p))
		e.catchUp(messagesBetween)
	}
	for _, p := range r.strangers {
		if ctx.Err() != nil {
			break
		}
		if now := e.clock(); !e.calls.allow(callsEach, callsEach, e.gate.at(now)) {
			r.by(now.Add(callsPause))
			break
		}
		r.by(e.initiate(p))
		e.catchUp(messagesBetween)
	}
	return r.next
}

// catchUp handles up to n messages that wait.
func (e *Engine) catchUp(n int) {
	for range n {
		select {
		case m := <-e.queue:
			e.receive(m)
		case m := <-e.cookies:
			e.receive(m)
		default:
			return
		}
	}
}

// tend looks at one Peer. The lock is held.
func (e *Engine) tend(r *round, p *Peer) {
	e.expire(r, p)
	if !p.needs(r) {
		e.abandon(p)
	} else if p.try == nil || !r.now.Before(p.try.again) {
		if p.member.verified != nil {
			r.due = append(r.due, p)
		} else {
			r.strangers = append(r.strangers, p)
		}
	} else {
		r.by(p.try.again)
	}
	if s := p.sending.Load(); s != nil && s.quiet(r) {
		r.keepalives = append(r.keepalives, s)
	}
}

// expire closes what has come to its end.
func (e *Engine) expire(r *round, p *Peer) {
	for _, s := range slices.Clone(p.sessions) {
		end := s.created.Add(rejectAfter)
		if s.pending.Load() {
			end = s.created.Add(pendingFor)
		}
		if r.now.Before(end) && !s.closed.Load() {
			r.by(end)
			continue
		}
		confirmed := !s.pending.Load()
		e.drop(s)
		if confirmed {
			r.ended = append(r.ended, p.node)
		}
	}
}

// needs says whether a new session is to be asked for now.
func (p *Peer) needs(r *round) bool {
	if !p.wants(r) {
		return false
	}
	if s := p.pendingSession(); s != nil {
		// The peer has begun, and is about to confirm.
		if t := s.created.Add(confirmedIn); r.now.Before(t) {
			r.by(t)
			return false
		}
	}
	s := p.sending.Load()
	if s == nil || s.next.Load() >= s.limits.rekey {
		return true
	}
	t := s.lastHeard().Add(s.silence())
	if renew := s.created.Add(renewAfter); p.renew && renew.Before(t) {
		t = renew
	}
	if age := s.created.Add(s.rekeyAge()); age.Before(t) {
		t = age
	}
	if r.now.Before(t) {
		r.by(t)
		return false
	}
	return true
}

// wants says whether somebody wants a session with the peer, and anything is
// known about how to reach it.
func (p *Peer) wants(r *round) bool {
	wanted := p.wanted.Load()
	if wanted {
		if p.wantedAt.IsZero() {
			p.wantedAt = r.now
		}
		if t := p.wantedAt.Add(wantedFor); r.now.Before(t) {
			r.by(t)
		} else {
			p.wantedAt = time.Time{}
			p.wanted.Store(false) // whoever still wants it says so again
		}
	}
	return p.member.info != nil && (wanted || p.named())
}

func (s *Session) rekeyAge() time.Duration {
	if s.initiator {
		return rekeyAfter
	}
	return rekeyLate
}

// silence returns how long the peer may say nothing. A responder answers the first
// datagram of a session at once.
func (s *Session) silence() time.Duration {
	if s.initiator && s.heard.Load() == 0 {
		return unheardAfter
	}
	return silentAfter
}

// lastHeard returns when the peer has last authenticated itself: with a datagram,
// or with its response.
func (s *Session) lastHeard() time.Time { return s.created.Add(time.Duration(s.heard.Load())) }

// quiet says whether nothing was sent for so long that a keepalive is due.
func (s *Session) quiet(r *round) bool {
	each := keepaliveEach
	if s.initiator && s.heard.Load() == 0 {
		each = confirmEach // the first one, and with it the session, may be lost
	}
	if t := s.quietSince.Add(each); r.now.Before(t) {
		r.by(t)
		return false
	}
	sent := s.next.Load()
	quiet := sent == s.quietNext
	s.quietSince, s.quietNext = r.now, sent
	if quiet {
		s.quietNext++ // the keepalive's own
	}
	r.by(r.now.Add(each))
	return quiet
}

// keepalive sends a datagram with nothing in it.
func (e *Engine) keepalive(s *Session) {
	if counter, ok := s.Reserve(1); ok {
		datagram := make([]byte, Overhead)
		s.Seal(datagram, counter)
		e.cfg.Send(s.Addr(), datagram)
	}
}

// initiate sends an initiation, and returns when the next one is due.
func (e *Engine) initiate(p *Peer) time.Time {
	now := e.clock()
	local := e.identity()
	e.mu.Lock()
	again, epoch, r := e.prepare(p, local, now)
	if r != refusedNot || p.member.info == nil {
		p.failure = r
		e.mu.Unlock()
		e.refuse(r)
		return again
	}
	try := *p.try
	marker := p.markerFor(try.target)
	e.mu.Unlock()

	h, datagram, r := e.writeInitiation(local.id, epoch, p.policy, try)
	if r != refusedNot {
		e.mu.Lock()
		p.failure = r
		e.mu.Unlock()
		e.refuse(r)
		return again
	}
	marker.mark(datagram, e.clock())
	e.mu.Lock()
	ok := p.try != nil && p.try.index == try.index
	if ok {
		p.try.handshake = h
		e.await(try.index, p)
	}
	e.mu.Unlock()
	if ok {
		e.cfg.Send(try.addr, datagram)
	}
	return again
}

// prepare begins or goes on with an attempt: which epoch, which of the peer's
// keys and addresses this try is for. The lock is held.
func (e *Engine) prepare(p *Peer, local *local, now time.Time) (again time.Time, epoch Epoch, r Refusal) {
	if p.try == nil {
		p.try = &attempt{started: now}
	}
	t := p.try
	e.unawait(t.index)
	t.handshake = nil
	wait := min(lastRetry, firstRetry<<min(t.tries, 8)) + rand.N(retryJitter)
	t.sent, t.again = now, now.Add(wait)
	if local == nil {
		return t.again, Epoch{}, RefusedNoIdentity
	}
	if e.revoked[p.node] {
		return t.again, Epoch{}, RefusedRevoked
	}
	epochs := inTurn(e.epochs)
	if len(epochs) == 0 {
		return t.again, Epoch{}, RefusedNoKey
	}
	if p.member.info == nil {
		return t.again, Epoch{}, refusedNot
	}
	keys := p.member.targets()
	if len(keys) == 0 {
		return t.again, Epoch{}, RefusedNoStaticKey
	}
	addrs := []netip.Addr{p.member.info.Addr}
	if s := p.sending.Load(); s != nil && s.Addr() != addrs[0] {
		addrs = append(addrs, s.Addr()) // it may have moved, and gossip not have told
	}
	// Each key at each address, and that under each epoch.
	turn := t.tries
	t.target, turn = keys[turn%len(keys)], turn/len(keys)
	t.addr, turn = addrs[turn%len(addrs)], turn/len(addrs)
	epoch = epochs[turn%len(epochs)]
	t.tries++
	t.index = e.newIndex()
	t.offered = p.policy.offer(aesInHardware())
	return t.again, epoch, refusedNot
}

// writeInitiation makes the message of a try, but for its macs. About every third is
// as long as may be, so that a responder with a long chain can answer: not in step
// with the keys, addresses and epochs that are tried in turn.
func (e *Engine) writeInitiation(id *Identity, epoch Epoch, policy Policy, try attempt) (*handshake, initiation, Refusal) {
	h, err := newHandshake(id, epoch, try.target[:], e.cfg.random)
	if err != nil {
		return nil, nil, RefusedHandshake
	}
	p := payloadOf(id, policy, try.offered)
	p.time = e.stamps.next(e.clock())
	size := p.fit(first)
	if n := try.tries - 1; (n+n/3)%3 == 2 {
		size = MaxHandshakeLen
	}
	m, err := h.writeInitiation(try.index, p, size)
	if err != nil {
		return nil, nil, RefusedChain
	}
	return h, m, refusedNot
}

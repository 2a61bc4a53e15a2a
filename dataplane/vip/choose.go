package vip

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/ovnd/ovnd/encap"
)

// choose makes the flow to whose turn it is. It returns nil if the flow is the
// balancer's own after all. t.mu is held.
func (t *Table) choose(frame []byte, p *packet, k *key, a Attempt) *flow {
	backend, _ := a.Next()
	if backend == nil {
		return nil
	}
	f := &flow{attempt: a}
	if p.protocol == encap.ProtocolTCP {
		f.isn = p.tcp().Seq()
		f.keep(frame)
	} else {
		f.state.Store(open)
	}
	if f = t.direct(f, *k, backend, false); f == nil {
		return nil
	}
	if !k.isTCP() {
		backend.Opened()
	}
	return f
}

// direct makes a flow like the one that is given, from k to backend, and counts
// that the backend is asked. move has it take another source port than the
// client's. It returns nil if no port is free, or the backend has an address of the
// other family. t.mu is held.
func (t *Table) direct(like *flow, k key, backend Backend, move bool) *flow {
	f := &flow{
		table: t, out: k, backend: backend, attempt: like.attempt, isn: like.isn, syn: like.syn,
		asked: time.Now(), asks: 1, remaps: like.remaps,
	}
	client, service := k.ends()
	to := netip.AddrPortFrom(backend.Addr(), service.Port())
	if to.Addr().Is4() != client.Addr().Is4() {
		return nil
	}
	from, ok := t.source(client, to, k.protocol(), move)
	if !ok {
		return nil
	}
	f.translate(client, service, from, to)
	f.state.Store(like.state.Load() &^ ended)
	f.ack.Store(like.ack.Load())
	f.last.Store(t.all.clock.Load())
	return f
}

// translate has client's packets to service go from from to to.
func (f *flow) translate(client, service, from, to netip.AddrPort) {
	f.in = keyOf(f.out.kind&^outward, from, to)
	f.outHash, f.inHash = f.out.hash(f.table.all.seed), f.in.hash(f.table.all.seed)
	f.send = newChange(netip.AddrPortFrom(service.Addr(), client.Port()), netip.AddrPortFrom(to.Addr(), from.Port()))
	f.receive = newChange(netip.AddrPortFrom(to.Addr(), from.Port()), netip.AddrPortFrom(service.Addr(), client.Port()))
}

// source returns where the packets of a flow of client are to come from: its own
// port, if no other flow to the same place has it.
func (t *Table) source(client, to netip.AddrPort, protocol uint8, move bool) (netip.AddrPort, bool) {
	from := client
	var second netip.AddrPort // to be had if there is nothing better
	for range maxPorts {
		if !move {
			free, heard := t.isFree(from, to, protocol)
			switch {
			case free && !heard:
				return from, true
			case free && from != client:
				second = from
			}
		}
		move = false
		from = netip.AddrPortFrom(client.Addr(), uint16(1024+rand.IntN(1<<16-1024)))
	}
	return second, second.IsValid()
}

// isFree reports whether no flow from one end to the other is known. If there is
// none, heard says that the sandbox may have one of its own all the same: one that
// sends datagrams everywhere has been heard from everywhere.
func (t *Table) isFree(from, to netip.AddrPort, protocol uint8) (free, heard bool) {
	k := keyOf(kind(protocol), from, to)
	hash := k.hash(t.all.seed)
	if f := t.index.Load().find(&k, hash); f != nil {
		return false, false
	}
	return true, !k.isTCP() && t.heardOf(hash)
}

// keep keeps a copy of a SYN. p.b ends with it.
func (f *flow) keep(frame []byte) {
	if f.syn = nil; len(frame) <= maxSYN {
		f.syn = bytes.Clone(frame)
	}
}

// again handles a SYN that the client repeats since nobody has answered it.
func (t *Table) again(f *flow, frame []byte, p *packet) (v Verdict, done bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.find(&f.out) != f {
		return Consumed, true // another backend is asked this moment
	}
	f.keep(frame)
	if !f.failed && time.Since(f.asked) < t.patience(f) {
		return Pass, false
	}
	next, left := t.next(f, true)
	switch {
	case next != nil:
		next.send.apply(p, true)
		return Translated, true
	case left == itself:
		return Pass, true // to the balancer, untranslated
	case left == nobody && !f.failed && f.asks < lastAsks:
		f.asks++
		f.asked = time.Now()
	case left == nobody && t.giveUp(f):
		return Consumed, true
	}
	return Pass, false
}

// patience returns how long f's backend has had at least when it is silent.
func (t *Table) patience(f *flow) time.Duration {
	if held := t.all.held; held != nil && held(t.owner, f.backend.Addr()) {
		return heldAgain
	}
	return askAgain
}

// What is left when there is no next backend for the table.
type left uint8

const (
	nobody left = iota
	itself      // the client's own turn
	answer      // by f's backend, meanwhile
)

// next has the next backend take the place of f's, which has refused or been
// silent. t.mu is held.
func (t *Table) next(f *flow, silent bool) (*flow, left) {
	backend, own := f.attempt.Next()
	switch {
	case backend == nil && !own:
		return nil, nobody
	case f.out.isTCP() && !f.claim():
		return nil, answer
	}
	f.fail(silent)
	f.remaps = 0
	if backend != nil {
		if next := t.direct(f, f.out, backend, false); next != nil {
			t.replace(f, next)
			return next, nobody
		}
	}
	t.drop(f)
	return nil, itself
}

// fail counts, once, that the backend has not taken the flow.
func (f *flow) fail(silent bool) {
	if !f.failed {
		f.failed = true
		f.backend.Failed(silent)
	}
}

// giveUp ends a flow that no backend has taken, and has the client told. It
// reports false if one has meanwhile. t.mu is held.
func (t *Table) giveUp(f *flow) bool {
	if !f.claim() {
		return false
	}
	f.fail(true)
	f.attempt.Exhausted()
	t.drop(f)
	select {
	case t.all.jobs <- Job{flow: f, why: exhausted}:
	default: // the client asks again
	}
	return true
}

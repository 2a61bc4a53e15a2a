package vip

import (
	"sync/atomic"

	"github.com/ovnd/ovnd/encap"
)

// heard holds values of [Tables]' clock.
type heard [4096]atomic.Uint32

// outPast handles what goes to an endpoint. It is translated only where its flow
// could not be told from one to a VIP.
func (t *Table) outPast(frame []byte, p *packet, k *key) Verdict {
	tcp := p.protocol == encap.ProtocolTCP
	same := *k
	same.kind &^= outward
	hash := same.hash(t.all.seed)
	if !tcp {
		t.hear(hash)
	}
	if t.live.Load() == 0 {
		return Pass
	}
	if t.others.Load() > 0 {
		if f := t.find(k); f != nil {
			return t.outKnown(f, frame, p, nil)
		}
	}
	if tcp && p.tcp().Flags()&(encap.TCPFlagSYN|encap.TCPFlagACK) != encap.TCPFlagSYN {
		return Pass
	}
	if f := t.index.Load().find(&same, hash); f != nil {
		return t.sidestep(f, p, k)
	}
	return Pass
}

// sidestep translates what begins a flow that f, which is to a VIP, is like once
// it is rewritten: it comes from another source port.
func (t *Table) sidestep(f *flow, p *packet, k *key) Verdict {
	if f.state.Load()&over != 0 || f.life() == closedLife {
		t.end(f)
		return Pass
	}
	tcp := k.isTCP()
	t.mu.Lock()
	defer t.mu.Unlock()
	g := t.find(k)
	if g == nil {
		if t.closed || !t.all.reserve(t, tcp) {
			return Full
		}
		client, to := k.ends()
		from, ok := t.source(client, to, k.protocol(), true)
		if !ok {
			t.all.release(t, tcp)
			return Full
		}
		g = &flow{table: t, out: *k}
		g.translate(client, to, from, to)
		if tcp {
			g.isn = p.tcp().Seq()
		} else {
			g.state.Store(open)
		}
		g.last.Store(t.all.clock.Load())
		t.insert(g)
	}
	g.send.apply(p, true)
	if p.more {
		t.fragments.note(p, g, true)
	}
	return Translated
}

// hear notes that the sandbox sends datagrams past the VIPs, by the hash of the
// key under which the answers come. Two flows that share a place make each other
// seem younger, never older.
func (t *Table) hear(hash uint32) {
	h := t.heard.Load()
	if h == nil {
		t.heard.CompareAndSwap(nil, new(heard))
		h = t.heard.Load()
	}
	at, now := &h[hash%uint32(len(h))], t.all.clock.Load()
	if at.Load() != now {
		at.Store(now)
	}
}

// heardOf reports whether there may be such a flow.
func (t *Table) heardOf(hash uint32) bool {
	h := t.heard.Load()
	if h == nil {
		return false
	}
	at := h[hash%uint32(len(h))].Load()
	return at != 0 && t.all.clock.Load()-at <= udpIdleLife
}

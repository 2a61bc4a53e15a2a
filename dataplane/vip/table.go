package vip

import (
	"sync"
	"sync/atomic"

	"github.com/ovnd/ovnd/encap"
)

// A Table is the flows of one port. All methods are safe for concurrent use.
type Table struct {
	all    *Tables
	owner  any
	index  atomic.Pointer[index]
	live   atomic.Int32 // flows
	udp    atomic.Int32 // of them, UDP's
	others atomic.Int32 // of them, those that are not to a VIP
	// heard tells when the sandbox has last sent datagrams to no VIP, by a hash of
	// addresses and ports; nil: never.
	heard     atomic.Pointer[heard]
	fragments fragments

	mu     sync.Mutex // guards changes
	closed bool
}

// Live reports whether there are flows: without, nothing that the port gets is of
// one.
func (t *Table) Live() bool { return t.live.Load() != 0 }

// Close ends all flows; from now on there are no new ones.
func (t *Table) Close() {
	t.all.mu.Lock()
	delete(t.all.tables, t)
	t.all.mu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	t.index.Load().each(t.remove)
	t.index.Store(nil)
}

func (t *Table) find(k *key) *flow { return t.index.Load().find(k, k.hash(t.all.seed)) }

// Out takes a super-packet behind its metadata, ip, that the port's sandbox
// sends: to a VIP that b balances, or with b nil to something else, of which known
// says whether it is an endpoint. It may rewrite the packet.
func (t *Table) Out(frame []byte, ip encap.IP, b Balancer, known bool) Verdict {
	p := of(frame, &ip)
	switch {
	case p.protocol == encap.ProtocolICMP || p.protocol == encap.ProtocolICMPv6:
		return t.errorOut(&p)
	case p.offset != 0:
		return t.fragmentOut(&p)
	case !p.isFlow() || p.protocol == encap.ProtocolTCP && p.tcp().HeaderLen() < encap.TCPHeaderLen:
		return Pass
	}
	k := p.outKey()
	if b == nil && known {
		return t.outPast(frame, &p, &k)
	}
	f := t.find(&k)
	switch {
	case f != nil:
		return t.outKnown(f, frame, &p, b)
	case b == nil:
		return Pass // it was a VIP, maybe
	}
	return t.begin(frame, &p, &k, b)
}

// outKnown handles what the client sends on a flow.
func (t *Table) outKnown(f *flow, frame []byte, p *packet, b Balancer) Verdict {
	if p.protocol == encap.ProtocolTCP {
		tcp := p.tcp()
		flags := tcp.Flags()
		if flags&(encap.TCPFlagSYN|encap.TCPFlagFIN|encap.TCPFlagRST) != 0 {
			switch {
			case flags&(encap.TCPFlagSYN|encap.TCPFlagACK) == encap.TCPFlagSYN:
				if v, done := t.outSYN(f, frame, p, b); done {
					return v
				}
			case flags&encap.TCPFlagRST != 0:
				f.set(reset)
			case flags&encap.TCPFlagFIN != 0:
				f.outEnd.Store(p.end())
				f.set(finOut)
			}
		}
		if ack := tcp.Ack(); f.ack.Load() != ack {
			f.ack.Store(ack)
		}
	}
	f.touch()
	f.send.apply(p, true)
	if p.more {
		t.fragments.note(p, f, true)
	}
	return Translated
}

// outSYN handles a SYN of the client on a flow. done is false for one that goes
// where the flow does.
func (t *Table) outSYN(f *flow, frame []byte, p *packet, b Balancer) (v Verdict, done bool) {
	if p.tcp().Seq() == f.isn {
		if f.backend == nil || f.state.Load()&^finOut != 0 {
			return Pass, false // it has answered
		}
		return t.again(f, frame, p)
	}
	// The client has no connection there any more, or it would not begin another.
	k := f.out
	t.end(f)
	if b == nil {
		return t.outPast(frame, p, &k), true
	}
	return t.begin(frame, p, &k, b), true
}

// begin begins a flow with its first packet.
func (t *Table) begin(frame []byte, p *packet, k *key, b Balancer) Verdict {
	tcp := p.protocol == encap.ProtocolTCP
	if tcp && !p.begins() {
		return Pass
	}
	client, service := k.ends()
	a := b.Begin(p.protocol, client, service) // takes the balancer's locks: not under t.mu
	if a == nil {
		return Pass
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.find(k) // by another queue
	if f == nil {
		if t.closed || !t.all.reserve(t, tcp) {
			return Pass
		}
		f = t.choose(frame, p, k, a)
		if f == nil {
			t.all.release(t, tcp)
			return Pass
		}
		t.insert(f)
	}
	f.send.apply(p, true)
	if p.more {
		t.fragments.note(p, f, true)
	}
	return Translated
}

// insert enters f, for which there is room. t.mu is held.
func (t *Table) insert(f *flow) {
	x := t.index.Load()
	if x == nil {
		x = newIndex(minBuckets)
	}
	x = x.grown()
	x.add(f.in, f.inHash, f)
	x.add(f.out, f.outHash, f)
	t.index.Store(x)
	if f.backend == nil {
		t.others.Add(1)
	}
}

// replace enters next in the place of f. t.mu is held.
func (t *Table) replace(f, next *flow) {
	t.insert(next)
	t.unlink(f)
	f.dropped = true // its room is next's
	f.set(ended)
}

func (t *Table) unlink(f *flow) {
	if x := t.index.Load(); x != nil {
		x.remove(&f.out, f.outHash, f)
		x.remove(&f.in, f.inHash, f)
	}
}

// drop takes f out and gives its room back. A second time it does nothing. t.mu
// is held.
func (t *Table) drop(f *flow) {
	if !f.dropped {
		t.unlink(f)
		t.remove(f)
	}
}

// remove gives the room of f back, which is in the index no more, or not for
// long. t.mu is held.
func (t *Table) remove(f *flow) {
	f.dropped = true
	if was := f.state.Or(ended); f.backend == nil {
		t.others.Add(-1)
	} else if was&(open|ended) == open { // an answer after claim opens nothing
		f.backend.Closed()
	}
	t.all.release(t, f.out.isTCP())
}

// end is drop by who does not hold t.mu.
func (t *Table) end(f *flow) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drop(f)
}

package vip

import (
	"encoding/binary"

	"github.com/ovnd/ovnd/encap"
)

// icmpHeader is how many bytes of an ICMP error precede what it quotes.
const icmpHeader = 8

// quoted returns the packet that an ICMP error is about, if p is one that is
// intact. It may be cut off behind its ports.
func (p *packet) quoted() (q packet, ok bool) {
	msg := p.b[p.at:]
	if p.isFragment() || p.partial || len(msg) < icmpHeader || !p.isError() || !p.icmpIntact() {
		return q, false
	}
	if !q.parse(msg[icmpHeader:]) || q.v6 != p.v6 || q.offset != 0 || len(q.b) < q.at+4 {
		return q, false
	}
	return q, q.protocol == encap.ProtocolTCP || q.protocol == encap.ProtocolUDP
}

// isError reports whether p is an error that quotes a packet: unreachable, source
// quench, time exceeded, parameter problem (RFC 792), or any of ICMPv6's (RFC
// 4443 §2.1).
func (p *packet) isError() bool {
	kind := p.b[p.at]
	if p.v6 {
		return p.protocol == encap.ProtocolICMPv6 && kind < 128
	}
	return p.protocol == encap.ProtocolICMP && (kind == 3 || kind == 4 || kind == 11 || kind == 12)
}

// isFrom reports whether a quoted TCP segment has a sequence number, which is among
// the eight bytes that every error quotes (RFC 792): who makes one up has to guess
// (RFC 5927 §4.1).
func (p *packet) isFrom(seq uint32) bool {
	return len(p.b) >= p.at+8 && binary.BigEndian.Uint32(p.b[p.at+4:]) == seq
}

// isUnreachable reports whether the error means that nobody takes the packet,
// which "fragmentation needed" does not.
func (p *packet) isUnreachable() bool {
	kind, code := p.b[p.at], p.b[p.at+1]
	if p.v6 {
		return kind == 1
	}
	return kind == 3 && code != 4
}

// icmpSum returns the checksum of an ICMP message, 0 if it is right.
func (p *packet) icmpSum() uint16 {
	ip := encap.IP{Packet: p.b, Transport: p.at, Protocol: p.protocol}
	if p.v6 {
		return encap.Checksum(p.b[p.at:], ip.PseudoSum(len(p.b)-p.at))
	}
	return encap.Checksum(p.b[p.at:], 0)
}

// icmpIntact reports whether all of the message is there, and is right.
func (p *packet) icmpIntact() bool {
	ip, err := encap.ParseIP(p.b)
	if err != nil {
		return false
	}
	p.b = ip.Packet
	return p.icmpSum() == 0
}

// seal computes the checksum of an ICMP message anew.
func (p *packet) seal() {
	sum := p.b[p.at+2 : p.at+4]
	sum[0], sum[1] = 0, 0
	binary.BigEndian.PutUint16(sum, p.icmpSum())
}

// errorIn handles ICMP to the sandbox: an error about what was rewritten is made
// one about what the client has sent.
func (t *Table) errorIn(p *packet) Verdict {
	q, ok := p.quoted()
	if !ok {
		return Pass
	}
	// What is quoted went out, so its key is that of the answer turned round.
	k := q.outKey()
	k.kind &^= outward
	f := t.find(&k)
	if f == nil {
		return Pass
	}
	if f.backend != nil && p.isUnreachable() {
		switch {
		case !f.out.isTCP():
			if t.unreachable(f) {
				return Consumed
			}
		case f.state.Load()&open == 0 && q.isFrom(f.isn):
			f.report(refused)
			return Consumed
		}
	}
	if src, _ := p.words(); src == f.in.remote {
		f.receive.from(p) // who says so is the backend itself
	}
	f.receive.apply(&q, true)
	p.seal()
	return Translated
}

// errorOut handles ICMP from the sandbox: an error about what it got from a VIP is
// made one about what the backend has sent.
func (t *Table) errorOut(p *packet) Verdict {
	if t.live.Load() == 0 {
		return Pass
	}
	q, ok := p.quoted()
	if !ok {
		return Pass
	}
	k := q.inKey()
	k.kind |= outward
	f := t.find(&k)
	if f == nil {
		return Pass
	}
	f.send.to(p)
	f.send.apply(&q, false)
	p.seal()
	return Translated
}

// from and to rewrite the source or the destination alone, without the transport
// header.
func (c *change) from(p *packet) { c.address(p, 0) }
func (c *change) to(p *packet)   { c.address(p, 1) }

func (c *change) address(p *packet, which int) {
	at, size := p.addrs()
	at += which * size
	copy(p.b[at:at+size], c.addr[:size])
	if !p.v6 {
		h := encap.IPv4(p.b)
		h.SetChecksum(adjust(h.Checksum(), c.pseudo))
	}
}

// unreachable has the next backend take over a UDP flow whose backend is not
// there, from the client's next datagram on. It reports false if there is none:
// then the client is told.
func (t *Table) unreachable(f *flow) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if f.dropped {
		return true
	}
	next, left := t.next(f, false)
	switch {
	case next != nil:
		f.backend.Closed() // and its place is next's
		next.backend.Opened()
		return true
	case left == nobody:
		f.attempt.Exhausted()
		f.fail(false)
		t.drop(f)
		return false
	}
	return true // the next datagram is the balancer's
}

package vip

import (
	"encoding/binary"

	"github.com/ovnd/ovnd/dataplane/pkt"
	"github.com/ovnd/ovnd/encap"
)

// A cause is why a flow needs looking after.
type cause uint8

const (
	refused   cause = iota // its backend has refused it, or cannot be reached
	collided               // the client has another like it
	exhausted              // nobody is left
)

// A Job is something that has to be done about a flow outside of a packet's way.
type Job struct {
	flow *flow
	why  cause
}

// Owner returns what the flow's table was made for.
func (j Job) Owner() any { return j.flow.table.owner }

// Run does the job. It returns a packet behind its metadata to be sent, nil if
// there is none: a SYN on its way out, or with toClient a reset to the port's
// sandbox.
func (j Job) Run() (frame []byte, toClient bool) {
	f, t := j.flow, j.flow.table
	t.mu.Lock()
	defer t.mu.Unlock()
	if j.why == exhausted {
		return f.refusal(), true
	}
	f.reported.Store(false)
	if f.dropped || f.backend == nil || f.state.Load()&(open|ended) != 0 {
		return nil, false
	}
	if j.why == collided && f.remaps < maxRemaps {
		return t.move(f), false
	}
	syn := f.syn
	next, left := t.next(f, false)
	switch {
	case next != nil:
		return next.ask(), false
	case left == itself:
		return syn, false // to the balancer
	case left == nobody && f.claim():
		f.fail(false)
		f.attempt.Exhausted()
		t.drop(f)
		return f.refusal(), true
	}
	return nil, false
}

// move has a flow ask the same backend from another port. t.mu is held.
func (t *Table) move(f *flow) []byte {
	next := t.direct(f, f.out, f.backend, true)
	if next == nil || !f.claim() {
		return nil // the client asks again
	}
	next.remaps++
	t.replace(f, next)
	return next.ask()
}

// ask returns the client's SYN as the backend is to get it, nil if it was too long
// to be kept: then the client's next one goes there. The copy is not needed again
// before that.
func (f *flow) ask() []byte {
	if f.syn == nil {
		return nil
	}
	frame := append([]byte(nil), f.syn...)
	p, ok := locate(frame)
	if !ok || !p.isFlow() {
		return nil
	}
	f.send.apply(&p, true)
	return frame
}

// refusal returns the reset that answers the client's SYN (RFC 9293 §3.10.7.1).
func (f *flow) refusal() []byte {
	return f.segment(encap.TCPFlagRST|encap.TCPFlagACK, 0, f.isn+1)
}

// abort returns a reset of an established connection. A client that has not
// acknowledged all answers with an ACK (RFC 5961 §3.2), for which there is no flow
// any more: then the balancer's stack resets it.
func (f *flow) abort() []byte { return f.segment(encap.TCPFlagRST, f.ack.Load(), 0) }

// segment returns a segment without data from the VIP to the client, behind its
// metadata.
func (f *flow) segment(flags uint16, seq, ack uint32) []byte {
	client, service := f.out.ends()
	v6 := client.Addr().Is6()
	header := encap.IPv4HeaderLen
	if v6 {
		header = encap.IPv6HeaderLen
	}
	frame := make([]byte, pkt.MetaLen+header+encap.TCPHeaderLen)
	packet := frame[pkt.MetaLen:]
	if v6 {
		encap.PutIPv6(packet, service.Addr(), client.Addr(), encap.ProtocolTCP, 64, encap.TCPHeaderLen)
	} else {
		encap.PutIPv4(packet, service.Addr(), client.Addr(), encap.ProtocolTCP, encap.TCPHeaderLen)
	}
	t := encap.TCP(packet[header:])
	binary.BigEndian.PutUint16(t, service.Port())
	binary.BigEndian.PutUint16(t[2:], client.Port())
	t.SetSeq(seq)
	binary.BigEndian.PutUint32(t[8:], ack)
	t[12] = encap.TCPHeaderLen / 4 << 4
	t.SetFlags(flags)
	ip := encap.IP{Packet: packet, Transport: header, Protocol: encap.ProtocolTCP}
	t.SetChecksum(encap.Checksum(t, ip.PseudoSum(len(t))))
	return frame
}

// look ends what has been silent for too long, or has no backend any more. It
// holds up nobody while it looks at what goes on.
func (t *Table) look(now uint32, o Owner) {
	var over, orphans []*flow
	t.index.Load().each(func(f *flow) {
		switch {
		case now-f.last.Load() > f.life() || f.backend != nil && !f.out.isTCP() && !f.backend.Serving():
			over = append(over, f)
		case f.isOrphan(now, t.owner, o):
			orphans = append(orphans, f)
		}
	})
	for _, frame := range t.dropAll(over, orphans) {
		o.Reset(t.owner, frame)
	}
}

// dropAll takes flows out, and returns resets for those that are orphans.
func (t *Table) dropAll(over, orphans []*flow) (resets [][]byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, f := range over {
		t.drop(f)
	}
	for _, f := range orphans {
		if !f.dropped {
			resets = append(resets, f.abort())
			t.drop(f)
		}
	}
	if t.live.Load() == 0 {
		t.index.Store(nil)
	}
	return resets
}

// isOrphan reports whether an established connection has had no endpoint for a
// while. It is for who looks.
func (f *flow) isOrphan(now uint32, owner any, o Owner) bool {
	if f.backend == nil || !f.out.isTCP() || f.state.Load()&(open|reset) != open {
		return false
	}
	has, known := o.Has(owner, f.backend.Addr(), f.backend.EndpointID())
	switch {
	case has || !known:
		f.missing = 0
	case f.missing == 0:
		f.missing = now
	}
	return f.missing != 0 && now-f.missing >= goneGrace
}

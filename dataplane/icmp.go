package dataplane

import (
	"bytes"
	"net/netip"
	"time"

	"github.com/ovnd/ovnd/dataplane/pkt"
	"github.com/ovnd/ovnd/encap"
)

// icmpInterval is the least time between two ICMP errors of a kind and worker
// (RFC 1812 §4.3.2.8). Senders that heed one need no second.
const icmpInterval = time.Millisecond

// An icmpError is a worker's state for errors of one kind.
type icmpError struct {
	last time.Time
	buf  [pkt.MetaLen + encap.MaxPacketTooBigLen]byte
}

// due reports whether there may be an error again, which then counts as sent.
func (e *icmpError) due() bool {
	now := time.Now()
	if now.Sub(e.last) < icmpInterval {
		return false
	}
	e.last = now
	return true
}

// answer delivers the ICMP error of size bytes in e.buf to the port p. With size
// 0 there is none.
func (t *transmitter) answer(n *network, p *Port, e *icmpError, size int) {
	if size == 0 {
		return
	}
	n.ledgers[t.worker].originated.add(1, size)
	frame := e.buf[:pkt.MetaLen+size]
	pkt.Meta{}.Put(frame)
	if t.defers && p.stack != nil {
		select {
		case t.sw.late <- lateFrame{to: p, frame: bytes.Clone(frame)}:
			p.writers[t.worker].count(nil, 1, size)
		default:
			n.ledgers[t.worker].drop(DropNoBuffers, 1)
		}
		return
	}
	p.writers[t.worker].write(frame, 1, size)
}

const (
	// maxAbsent is how many addresses that nobody has a worker remembers.
	maxAbsent = 64
	// An address must be absent for absentWait before a sender is told so: DNS
	// may have heard of a new endpoint a moment before the switch. Then it is
	// told when TCP sends its SYN again, after a second, instead of when it
	// gives up, after two minutes. After absentLife the wait begins anew.
	absentWait = 700 * time.Millisecond
	absentLife = 10 * time.Second
)

// absentees are addresses that packets were for and that nobody had. Two that
// fall into one slot take it from each other: then senders wait as long as if
// nobody told them.
type absentees [maxAbsent]struct {
	addr  netip.Addr
	net   string
	since time.Time
}

// waited notes that nobody has addr, and reports whether that has been so for
// long enough.
func (a *absentees) waited(n *network, addr netip.Addr, now time.Time) bool {
	b := addr.As16()
	e := &a[(int(b[14])<<8|int(b[15]))%maxAbsent]
	if e.addr != addr || e.net != n.snap.ID || now.Sub(e.since) > absentLife {
		e.addr, e.net, e.since = addr, n.snap.ID, now
		return false
	}
	return now.Sub(e.since) >= absentWait
}

// answerAbsent tells the sender of orig, at the port p, that nobody has the
// address: ICMP host unreachable, as a router says when ARP gets no answer.
func (t *transmitter) answerAbsent(n *network, p *Port, orig encap.IP) {
	src, dst := orig.Src(), orig.Dst()
	if !t.absent.waited(n, dst, time.Now()) || !t.unreachable.due() {
		return
	}
	t.answer(n, p, &t.unreachable,
		encap.PutUnreachable(t.unreachable.buf[pkt.MetaLen:], orig, encap.HostUnreachable, n.gateway(src, dst)))
}

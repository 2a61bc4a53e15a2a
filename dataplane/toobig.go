package dataplane

import (
	"bytes"
	"time"

	"github.com/ovnd/ovnd/dataplane/pkt"
	"github.com/ovnd/ovnd/encap"
)

// tooBigInterval is the least time between two ICMP errors of a worker (RFC 1812
// §4.3.2.8). Senders that heed one need no second.
const tooBigInterval = time.Millisecond

// tooBig is a worker's state for answering packets that do not fit.
type tooBig struct {
	last time.Time
	buf  [pkt.MetaLen + encap.MaxPacketTooBigLen]byte
}

// answerTooBig tells the sender of orig, at the port p, that no more than mtu
// bytes fit: ICMP fragmentation needed (RFC 1191) or packet too big (RFC 8201).
// It does so without DF too. Then the sender's kernel fragments, since a VTEP
// must not (RFC 7348 §4.3).
func (t *transmitter) answerTooBig(n *network, p *Port, orig encap.IP, mtu int) {
	now := time.Now()
	if now.Sub(t.toobig.last) < tooBigInterval {
		return
	}
	src, dst := orig.Src(), orig.Dst()
	from := n.gateway(src, dst)
	frame := t.toobig.buf[:]
	var size int
	if orig.Is6() {
		size = encap.PutPacketTooBig(frame[pkt.MetaLen:], orig, mtu, from)
	} else {
		size = encap.PutFragNeeded(frame[pkt.MetaLen:], orig, mtu, from)
	}
	if size == 0 {
		return
	}
	t.toobig.last = now
	n.ledgers[t.worker].originated.add(1, size)
	pkt.Meta{}.Put(frame)
	frame = frame[:pkt.MetaLen+size]
	if t.defers && p.stack != nil {
		p.writers[t.worker].count(nil, 1, size)
		t.deferred = append(t.deferred, deferredFrame{to: p, frame: bytes.Clone(frame)})
		return
	}
	p.writers[t.worker].write(frame, 1, size)
}

// tooBigForUnderlay answers the sender of the first packet in a batch that does
// not fit the link to its peer.
func (t *transmitter) tooBigForUnderlay(b *batch) {
	link, err := t.sw.under.MTU(b.peer.addr)
	if err != nil {
		t.sw.log.Warn("underlay refuses packets as too big", "peer", b.peer.addr.AddrPort(), "err", err)
		return
	}
	orig, err := encap.ParseIP(b.buf[prefixLen:min(b.size, b.n)])
	if err != nil {
		return
	}
	// The packet came from a port of this worker's table, which is still in use.
	if r := b.net.fib[orig.Src()]; r.port != nil {
		t.answerTooBig(b.net, r.port, orig, encap.InnerMTU(link, isIPv6(b.peer)))
	}
}

func isIPv6(p *peer) bool { return p.addr.AddrPort().Addr().Is6() }

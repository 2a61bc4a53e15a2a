package dataplane

import (
	"time"

	"github.com/ovnd/ovnd/dataplane/pkt"
	"github.com/ovnd/ovnd/encap"
)

// answerTooBig tells the sender of orig, at the port p, that no more than mtu
// bytes fit: ICMP fragmentation needed (RFC 1191) or packet too big (RFC 8201).
// It does so without DF too. Then the sender's kernel fragments, since a VTEP
// must not (RFC 7348 §4.3).
func (t *transmitter) answerTooBig(n *network, p *Port, orig encap.IP, mtu int) {
	if !t.toobig.due() {
		return
	}
	src, dst := orig.Src(), orig.Dst()
	from, packet := n.gateway(src, dst), t.toobig.buf[pkt.MetaLen:]
	if orig.Is6() {
		t.answer(n, p, &t.toobig, encap.PutPacketTooBig(packet, orig, mtu, from))
	} else {
		t.answer(n, p, &t.toobig, encap.PutFragNeeded(packet, orig, mtu, from))
	}
}

// tooBigForUnderlay answers the sender of the first packet in a batch that does
// not fit the link to its peer.
func (t *transmitter) tooBigForUnderlay(b *batch) {
	link, err := t.sw.under.MTU(b.to)
	if err != nil {
		t.sw.log.Warn("underlay refuses packets as too big", "peer", b.to.AddrPort(), "err", err)
		return
	}
	v6 := b.to.AddrPort().Addr().Is6()
	if b.session != nil {
		// The packet cannot be read any more. The next one is told before it is
		// sealed.
		b.node.limit(encap.EncryptedInnerMTU(link, v6), time.Now())
		return
	}
	orig, err := encap.ParseIP(b.buf[b.prefix:min(b.size, b.n)])
	if err != nil {
		return
	}
	// The packet came from a port of this worker's table, which is still in use.
	if r := b.net.fib.At(orig.Src()); r.port != nil {
		t.answerTooBig(b.net, r.port, orig, encap.InnerMTU(link, v6))
	}
}

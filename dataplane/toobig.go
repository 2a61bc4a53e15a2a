package dataplane

import (
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

package dataplane

import (
	"net/netip"

	"github.com/ovnd/ovnd/dataplane/pkt"
	"github.com/ovnd/ovnd/encap"
)

// A forwarder takes what ports send to where it belongs. It is for one goroutine
// at a time.
type forwarder struct {
	sw      *Switch
	worker  int
	section *section
	tx      *transmitter
}

func newForwarder(s *Switch, worker int) forwarder {
	return forwarder{sw: s, worker: worker, section: &s.sections[worker], tx: newTransmitter(s, worker)}
}

// forward takes one super-packet, behind its metadata, from a port to where it
// belongs.
func (f *forwarder) forward(e *entry, frame []byte) {
	p, l := e.port, &e.port.account.ledgers[f.worker]
	plan, ip, err := parse(frame)
	packets, bytes := 1, len(frame)
	if err == nil {
		packets, bytes = plan.Count(), plan.WireLen()
	}
	l.portIn.add(packets, bytes)
	p.traffic[f.worker].in.add(packets, bytes)
	if err != nil {
		f.drop(p, DropMalformed, packets)
		return
	}
	n := e.net
	if n == nil {
		f.drop(p, DropNoNetwork, packets)
		return
	}
	src, dst := ip.Src(), ip.Dst()
	r, known := n.fib.Get(dst)
	switch {
	case r.group || isGroup(dst):
		f.drop(p, DropMulticast, packets)
	case !p.has(src) && !p.mayBorrow(n, src):
		f.drop(p, DropSpoofed, packets)
	case plan.Len() > n.mtu:
		f.drop(p, DropTooBig, packets)
		f.tx.answerTooBig(n, p, ip, n.mtu)
	case p.mayTranslate(n, r, ip):
		f.translate(n, p, r, known, ip, plan, frame)
	default:
		f.route(n, p, r, known, ip, plan, frame)
	}
}

// route takes one super-packet of the port p to r, where its destination is if
// that is known.
func (f *forwarder) route(n *network, p *Port, r route, known bool, ip encap.IP, plan pkt.Plan, frame []byte) {
	switch {
	case n.star && p != n.hub:
		f.toHub(n, p, ip, plan, frame)
	case r.port != nil && r.port.stack != nil && p.stack != nil:
		f.toStack(p, r.port, frame[:pkt.MetaLen+len(ip.Packet)], plan.Count(), plan.WireLen())
	case r.port != nil:
		plan.PutHeaderLen(frame)
		r.port.writers[f.worker].write(frame[:pkt.MetaLen+len(ip.Packet)], plan.Count(), plan.WireLen())
	case r.behind.vtep != nil:
		f.tx.addPlain(n, r.behind.vtep, r.mac, p.cfg.MAC, ip, plan)
	case r.behind.node != nil:
		f.toNode(n, p, r, ip, plan, frame)
	case known:
		f.drop(p, DropNoEndpoint, plan.Count())
	case !n.snap.Contains(ip.Dst()):
		f.drop(p, DropNoRoute, plan.Count())
	default:
		f.toNeighbour(n, p, ip, plan, frame)
	}
}

func (f *forwarder) drop(p *Port, why Drop, packets int) {
	p.account.ledgers[f.worker].drop(why, packets)
	p.dropped.Add(uint64(packets))
}

// toHub delivers to the one port that the others of a star network reach.
func (f *forwarder) toHub(n *network, p *Port, ip encap.IP, plan pkt.Plan, frame []byte) {
	if n.hub == nil {
		f.drop(p, DropNoHub, plan.Count())
		return
	}
	n.hub.writers[f.worker].write(frame[:pkt.MetaLen+len(ip.Packet)], plan.Count(), plan.WireLen())
}

// toNeighbour sends to an address that is not in the directory, but may have
// been heard of, or be behind a VTEP that is learned from.
func (f *forwarder) toNeighbour(n *network, p *Port, ip encap.IP, plan pkt.Plan, frame []byte) {
	src, dst := ip.Src(), ip.Dst()
	if !n.snap.Encrypted { // where nothing is learned
		if mac, to, ok := n.neighbours.lookup(dst); ok {
			f.tx.addPlain(n, to, mac, p.cfg.MAC, ip, plan)
			return
		}
	}
	if n.snap.Encrypted || len(n.learn) == 0 {
		f.drop(p, DropNoEndpoint, plan.Count())
		f.tx.answerAbsent(n, p, ip)
		return
	}
	held, ask := n.neighbours.hold(dst, src, p.cfg.MAC, frame, plan.Count())
	if !held {
		f.drop(p, DropHoldFull, plan.Count())
	}
	if ask {
		f.tx.solicit(n, src, p.cfg.MAC, dst)
		f.sw.keeper.wakeUp()
	}
}

// parse reads a super-packet behind its metadata. It checks what the kernel
// gave no more than memory safety needs.
func parse(frame []byte) (pkt.Plan, encap.IP, error) {
	if len(frame) < pkt.MetaLen {
		return pkt.Plan{}, encap.IP{}, encap.ErrShort
	}
	ip, err := encap.ParseIP(frame[pkt.MetaLen:])
	if err != nil {
		return pkt.Plan{}, encap.IP{}, err
	}
	plan, err := pkt.NewPlan(pkt.ParseMeta(frame), ip)
	return plan, ip, err
}

// isGroup reports whether a is a multicast address or the limited broadcast
// address.
func isGroup(a netip.Addr) bool {
	return a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

package dataplane

import (
	"net/netip"

	"github.com/ovnd/ovnd/encap"
)

// solicit asks every VTEP of n that is learned from for the MAC of target, in
// the name of the endpoint src at mac: ARP (RFC 826) or a neighbour
// solicitation (RFC 4861 §7.2.2), one copy each, since there is no multicast
// below (head-end replication).
func (t *transmitter) solicit(n *network, src netip.Addr, mac encap.MAC, target netip.Addr) {
	size := plainPrefix + encap.ARPLen
	if target.Is4() {
		t.putPrefix(n, encap.BroadcastMAC, mac, encap.EtherTypeARP)
		encap.PutARPRequest(t.frame[plainPrefix:], mac, src, target)
	} else {
		t.putPrefix(n, encap.MulticastMAC(encap.SolicitedNode(target)), mac, encap.EtherTypeIPv6)
		encap.PutNS(t.frame[plainPrefix:], mac, src, target)
		size = plainPrefix + encap.NDLen
	}
	for _, p := range n.learn {
		t.originate(n, p, size)
	}
}

func (t *transmitter) putPrefix(n *network, dst, src encap.MAC, etherType uint16) {
	putPlainPrefix(t.frame[:], n, dst, src, etherType)
}

// arp handles an ARP packet from a peer: it answers for the endpoints that are
// here, and learns where the peer may be learned from.
func (t *transmitter) arp(n *network, from vtep, payload []byte) (why Drop, ok bool) {
	a, err := encap.ParseARP(payload)
	if err != nil || a.Op != encap.ARPRequest && a.Op != encap.ARPReply {
		return DropMalformed, false
	}
	// A probe has no sender (RFC 5227 §2.1.1).
	if !a.Sender.IsUnspecified() {
		if why, ok := t.heard(n, from, a.Sender, a.SenderMAC); !ok {
			return why, false
		}
	}
	if r := n.fib.At(a.Target); a.Op == encap.ARPRequest && n.answers(r) && !a.SenderMAC.IsMulticast() {
		t.putPrefix(n, a.SenderMAC, r.mac, encap.EtherTypeARP)
		encap.PutARPReply(t.frame[plainPrefix:], a, r.mac)
		t.originate(n, from.peer, plainPrefix+encap.ARPLen)
	}
	return 0, true
}

// neighbourDiscovery handles a neighbour solicitation or advertisement from a
// peer, as arp does.
func (t *transmitter) neighbourDiscovery(n *network, from vtep, ip encap.IP) (why Drop, ok bool) {
	if na, err := encap.ParseNA(ip); err == nil {
		return t.heard(n, from, na.Target, na.MAC)
	}
	ns, err := encap.ParseNS(ip)
	if err != nil {
		return DropMalformed, false
	}
	if !ns.Src.IsUnspecified() && ns.MAC != (encap.MAC{}) {
		if why, ok := t.heard(n, from, ns.Src, ns.MAC); !ok {
			return why, false
		}
	}
	if r := n.fib.At(ns.Target); n.answers(r) {
		dst := encap.PutNA(t.frame[plainPrefix:], ns, r.mac)
		to := ns.MAC
		if dst.IsMulticast() {
			to = encap.MulticastMAC(dst)
		}
		if to != (encap.MAC{}) {
			t.putPrefix(n, to, r.mac, encap.EtherTypeIPv6)
			t.originate(n, from.peer, plainPrefix+encap.NDLen)
		}
	}
	return 0, true
}

// answers reports whether this node says on the wire where an address is: it is
// at a port of its own, and a VIP's at those of all nodes.
func (n *network) answers(r route) bool { return r.port != nil && (!r.vip || n.speaks) }

// heard checks a claim that addr is at mac behind a peer, learns it if the
// directory does not know better, and sends what waited for it.
func (t *transmitter) heard(n *network, from vtep, addr netip.Addr, mac encap.MAC) (why Drop, ok bool) {
	if why, ok := n.mayComeFrom(addr, place{vtep: from.peer}); !ok {
		return why, false
	}
	if _, known := n.fib.Get(addr); known || mac.IsMulticast() || mac == (encap.MAC{}) {
		return 0, true
	}
	life := earlyLife
	if from.learn {
		life = neighbourLife
	}
	for _, f := range n.neighbours.learn(addr, mac, from.peer, life) {
		plan, ip, err := parse(f.frame)
		if err == nil { // it was read before it was held
			t.addPlain(n, from.peer, mac, f.mac, ip, plan)
		}
	}
	return 0, true
}

// isNeighbourDiscovery reports whether ip is a neighbour solicitation or
// advertisement.
func isNeighbourDiscovery(ip encap.IP) bool {
	if ip.Protocol != encap.ProtocolICMPv6 || len(ip.Payload()) == 0 {
		return false
	}
	kind := ip.Payload()[0]
	return kind == encap.ICMPv6NeighborSolicitation || kind == encap.ICMPv6NeighborAdvertisement
}

package dataplane

import (
	"net/netip"
	"sync/atomic"

	"github.com/ovnd/ovnd/crypto"
	"github.com/ovnd/ovnd/dataplane/udp"
	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/encap"
)

// A table is everything that workers look up. It never changes once stored.
type table struct {
	networks map[string]*network    // by ID
	byVNI    map[encap.VNI]*network // those on the wire in clear text
	sealed   map[encap.VNI]*network // encrypted ones
	ports    []entry                // by slot; a free one has no port
}

// An entry is a port and the current version of its network, nil if unknown.
type entry struct {
	port *Port
	net  *network
}

// A network is one version of a network, compiled for forwarding.
type network struct {
	*account
	snap *directory.Snapshot
	mtu  int    // bytes, inner IP packet
	mss4 uint16 // the largest TCP MSS that fits mtu
	mss6 uint16
	// Of a plain network alone: an encrypted one knows no VTEPs, so there is no
	// address to which it could be sent in clear text.
	peers map[netip.Addr]vtep // who may send, by underlay address
	learn []*peer             // VTEPs behind which addresses are learned
	// Of an encrypted network alone.
	nodes map[*crypto.Peer]*sealedPeer // who may send

	fib directory.Map[netip.Addr, route] // inner address → where it is
	// star marks a network that is not on the wire: what its ports send goes to
	// the hub, nil if there is none, and what that sends to them.
	star bool
	hub  *Port
	// speaks is set on the one node that answers for the VIPs on the wire.
	speaks bool

	from sources // of fib; for who compiles the next version
}

// A vtep is a peer's part in one network.
type vtep struct {
	peer   *peer
	learn  bool
	static bool // outside the cluster
}

// A route says where an inner address is: at a local port, behind another node
// or VTEP, or, if there is neither, here but without a port.
type route struct {
	port   *Port
	behind place
	mac    encap.MAC
	// group marks a subnet's broadcast address.
	group bool
	// vip marks a service's address, which every node has.
	vip bool
}

// A place is where frames come from and go to: a VTEP on a plain network, a node
// on an encrypted one.
type place struct {
	vtep *peer
	node *sealedPeer
}

// A peer is another VTEP. It is shared by all plain networks.
type peer struct {
	addr    *udp.Addr
	traffic []traffic // by worker
}

// An account is what outlives a network's versions: its counters and what was
// learned.
type account struct {
	ledgers    []ledger // by worker
	neighbours neighbours
	unclaimed  waiting
	held       atomic.Int64 // wire packets that wait for a session or a claim
}

// waits returns how many wire packets wait for anything.
func (a *account) waits() int { return a.neighbours.waiting() + int(a.held.Load()) }

// isStar reports whether a network never leaves the node: VNI 0 is for those.
func isStar(snap *directory.Snapshot) bool { return snap.VNI == 0 }

// isLowest reports whether this node has the lowest underlay address of those on
// a network, so that one node answers for the VIPs that all of them have. That a
// node is Docker's, which answers nobody, cannot be told from its records: where
// a VTEP outside the cluster is to reach VIPs, ovnd's has to be the lowest.
func (s *Switch) isLowest(snap *directory.Snapshot) bool {
	for addr := range snap.Peers {
		if s.foreign(addr) && addr.Less(s.local.Addr()) {
			return false
		}
	}
	return true
}

// foreign reports whether addr can be another VTEP's: it is not this one's, and
// of the underlay's family.
func (s *Switch) foreign(addr netip.Addr) bool {
	return addr.IsValid() && addr != s.local.Addr() && addr.Is4() == s.local.Addr().Is4()
}

// broadcast returns the directed broadcast address of an IPv4 subnet.
func broadcast(p netip.Prefix) (netip.Addr, bool) {
	if !p.Addr().Is4() || p.Bits() > 30 {
		return netip.Addr{}, false
	}
	a := p.Masked().Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		a[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(a), true
}

// gateway returns the address that ICMP errors to src come from: the gateway of
// its subnet, or else dst.
func (n *network) gateway(src, dst netip.Addr) netip.Addr {
	for _, sub := range n.snap.Subnets {
		if sub.Prefix.Contains(src) && sub.Gateway.IsValid() {
			return sub.Gateway
		}
	}
	return dst
}

// mayComeFrom reports why a packet with the inner source src must not come from
// p: the directory gives the address to another, or it is not in the network at
// all. One that nobody is known to have is let in, since gossip may lag behind a
// new endpoint's first packet.
func (n *network) mayComeFrom(src netip.Addr, p place) (why Drop, ok bool) {
	if r, known := n.fib.Get(src); known {
		return DropStolenSource, r.behind == p && p != place{}
	}
	return DropForeignSource, n.snap.Contains(src)
}

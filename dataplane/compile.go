package dataplane

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/encap"
)

// sources are what a forwarding table is compiled from, beside the snapshot.
type sources struct {
	ports    map[netip.Addr]*Port // of this node, by address
	balancer *Port                // that has the VIPs, nil if none does
	owners   map[string]*sealedPeer
	// behind counts the routes to each peer. The next version takes it over.
	behind map[*peer]int
}

// compile builds the forwarding state of snap. From an earlier version it takes
// over all routes that cannot have changed, so that a change of an endpoint costs
// no more in a large network than in a small one. old is nil if there is none.
// s.mu is held.
func (s *Switch) compile(snap *directory.Snapshot, old *network) *network {
	n := &network{
		account: s.account(snap.ID),
		snap:    snap,
		star:    isStar(snap),
		mtu:     snap.MTU,
		peers:   make(map[netip.Addr]vtep, len(snap.Peers)+len(snap.StaticVTEPs)),
	}
	if n.mtu <= 0 {
		n.mtu = encap.DefaultMTU
	}
	n.mss4, n.mss6 = uint16(encap.MSS(n.mtu, false)), uint16(encap.MSS(n.mtu, true))
	n.addPorts(s)
	switch {
	case n.star:
	case snap.Encrypted:
		n.addNodes(s)
	default:
		n.addPeers(s)
	}
	c := compilation{Switch: s, network: n}
	if old != nil && n.resembles(old) {
		c.update(old)
	} else {
		c.all()
	}
	n.fib = c.fib.Map()
	return n
}

// addPorts notes which addresses are at ports of this node. One that several
// ports have is at the last.
func (n *network) addPorts(s *Switch) {
	n.from.ports = make(map[netip.Addr]*Port)
	for _, p := range s.ports {
		if p == nil || p.cfg.NetworkID != n.snap.ID {
			continue
		}
		for _, a := range p.cfg.Addrs {
			n.from.ports[a] = p
		}
		if p.stack != nil && p.stack.vips && n.from.balancer == nil {
			n.from.balancer = p
		}
		if p.stack != nil && p.stack.hub {
			n.hub = p
		}
	}
}

// addPeers notes which VTEPs may send.
func (n *network) addPeers(s *Switch) {
	add := func(addr netip.Addr, static, learn bool) {
		if !s.foreign(addr) {
			return
		}
		e := n.peers[addr]
		e.peer, e.static, e.learn = s.peer(addr), e.static || static, e.learn || learn
		n.peers[addr] = e
		if learn {
			n.learn = append(n.learn, e.peer)
		}
	}
	for addr := range n.snap.Peers {
		add(addr, false, false)
	}
	for _, v := range n.snap.StaticVTEPs {
		add(v.VTEP, true, v.Learn)
	}
	n.speaks = s.isLowest(n.snap)
}

// resembles reports whether the routes of the network differ from those of an
// earlier version where its endpoints, its VIPs or its ports do, and nowhere else.
func (n *network) resembles(old *network) bool {
	return n.star == old.star && n.snap.Encrypted == old.snap.Encrypted &&
		slices.Equal(n.snap.Subnets, old.snap.Subnets) &&
		slices.Equal(n.snap.StaticVTEPs, old.snap.StaticVTEPs) &&
		n.from.balancer == old.from.balancer &&
		maps.Equal(n.from.owners, old.from.owners)
}

// A compilation makes the routes of a network.
type compilation struct {
	*Switch
	*network
	fib *directory.Editor[netip.Addr, route]
}

// all makes all routes.
func (c *compilation) all() {
	c.fib = directory.NewEditor[netip.Addr, route](c.snap.Endpoints.Len() + c.snap.VIPs.Len())
	c.from.behind = make(map[*peer]int)
	for addr := range c.snap.Endpoints.All() {
		c.set(addr)
	}
	for vip := range c.snap.VIPs.All() {
		c.set(vip)
	}
	for addr := range c.from.ports {
		c.set(addr)
	}
	for _, sub := range c.snap.Subnets {
		if b, ok := broadcast(sub.Prefix); ok {
			c.set(b)
		}
	}
	for _, v := range c.snap.StaticVTEPs {
		if !v.Learn {
			c.set(v.Addr)
		}
	}
}

// update makes the routes that are others than in an earlier version, and takes
// that one's accounts over.
func (c *compilation) update(old *network) {
	c.fib = old.fib.Edit()
	c.from.behind = old.from.behind
	for addr := range c.snap.Endpoints.Changes(&old.snap.Endpoints, samePlace) {
		c.set(addr)
	}
	anyService := func(_, _ *directory.Service) bool { return true }
	for vip := range c.snap.VIPs.Changes(&old.snap.VIPs, anyService) {
		c.set(vip)
	}
	for addr, p := range c.from.ports {
		if old.from.ports[addr] != p {
			c.set(addr)
		}
	}
	for addr := range old.from.ports {
		if c.from.ports[addr] == nil {
			c.set(addr)
		}
	}
}

// samePlace reports whether two endpoints at one address have the same route.
func samePlace(a, b *directory.Endpoint) bool {
	return a == b || a.VTEP == b.VTEP && a.MAC == b.MAC && a.Owner == b.Owner
}

// set makes the route to an address, or takes it out if there is none.
func (c *compilation) set(addr netip.Addr) {
	if was, ok := c.fib.Get(addr); ok && was.behind.vtep != nil {
		if c.from.behind[was.behind.vtep]--; c.from.behind[was.behind.vtep] == 0 {
			delete(c.from.behind, was.behind.vtep)
		}
	}
	r, ok := c.route(addr)
	if !ok {
		c.fib.Delete(addr)
		return
	}
	if r.behind.vtep != nil {
		c.from.behind[r.behind.vtep]++
	}
	c.fib.Set(addr, r)
}

// route finds out where an address is. Ports come first: what is here is here,
// whatever gossip says of it.
func (c *compilation) route(addr netip.Addr) (r route, ok bool) {
	if p := c.from.ports[addr]; p != nil {
		return route{port: p, mac: p.cfg.MAC}, true
	}
	if _, ok := c.snap.VIPs.Get(addr); ok {
		if b := c.from.balancer; b != nil {
			return route{port: b, mac: b.cfg.MAC, vip: true}, true
		}
		return route{vip: true}, true
	}
	for _, sub := range c.snap.Subnets {
		if b, ok := broadcast(sub.Prefix); ok && b == addr {
			return route{group: true}, true
		}
	}
	if c.star {
		return route{}, false
	}
	if ep, ok := c.snap.Endpoints.Get(addr); ok {
		return c.behind(ep)
	}
	return c.static(addr)
}

// behind returns the route to an endpoint. On an encrypted network one whose owner
// is not known has none.
func (c *compilation) behind(ep *directory.Endpoint) (r route, ok bool) {
	r.mac = ep.MAC
	switch {
	case !c.foreign(ep.VTEP):
	case c.snap.Encrypted:
		r.behind.node = c.from.owners[ep.Owner]
		return r, r.behind.node != nil
	default:
		r.behind.vtep = c.peer(ep.VTEP)
	}
	return r, true
}

// static returns the route to the one address behind a VTEP outside the cluster.
func (c *compilation) static(addr netip.Addr) (r route, ok bool) {
	if c.snap.Encrypted {
		return r, false
	}
	for _, v := range c.snap.StaticVTEPs {
		if !v.Learn && v.Addr == addr && c.foreign(v.VTEP) {
			r, ok = route{behind: place{vtep: c.peer(v.VTEP)}, mac: v.MAC}, true
		}
	}
	return r, ok
}

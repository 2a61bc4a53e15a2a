package discovery

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/ovnd/ovnd/discovery/directory"
)

// A claim is a remote endpoint that would have its address in the snapshot.
type claim struct {
	ep        *directory.Endpoint
	confirmed bool // by gossip in this run
	live      bool // its VTEP is a member of the network

	// On an encrypted network:
	protected bool // has the address, and nobody can take it away
	rank      int  // of its owner
	holder    bool // had the address in the last snapshot
}

// counts returns the place of an endpoint that counts, nil if it has none.
func (n *network) counts(r remote) *place {
	if n.opts.Encrypted {
		return r.held
	}
	return r.place
}

// elect chooses among the remote endpoints that claim one address, and counts
// those that are not chosen. o is nil on a plain network.
func (n *network) elect(o *owners) (chosen map[netip.Addr]claim, conflicts int) {
	chosen = make(map[netip.Addr]claim, len(n.remote))
	for id, r := range n.remote {
		p := n.counts(r)
		if _, ours := n.local[id]; ours || p == nil {
			continue
		}
		c := n.claim(id, p, r.naming)
		if o != nil {
			n.own(o, &c, p)
		}
		if rival, taken := chosen[c.ep.Addr]; taken {
			conflicts++
			if rival.beats(c) {
				continue
			}
		}
		chosen[c.ep.Addr] = c
	}
	return chosen, conflicts
}

// own completes the claim of an endpoint on an encrypted network.
func (n *network) own(o *owners, c *claim, p *place) {
	c.ep.Owner = p.claim.Owner
	if i := o.chosen[c.ep.Owner]; i != nil && o.members[i.Name] {
		c.ep.NodeID = i.Name
	}
	c.rank = o.of(c.ep.Owner).rank()
	c.holder = n.holders[p.addr] == holder{c.ep.ID, c.ep.Owner}
	c.protected = c.holder && n.protected(o, p)
}

func (n *network) claim(id string, p *place, nm *naming) claim {
	ep := &directory.Endpoint{Name: "lb-" + n.cfg.Name, Kind: directory.LoadBalancer}
	// A name that came with another address than the place has belongs to what
	// had this ID before or will have it in a moment: not to what is here now.
	if nm != nil && nm.ep.Addr == p.addr {
		named := nm.ep
		if !n.isLoadBalancer(named.Name) {
			ep = &named
		}
		if n.bits(ep.VIP) < 0 {
			ep.VIP = netip.Addr{}
		}
		if !n.cfg.Ingress {
			ep.Ports = nil
		}
	}
	name, live := n.members[p.vtep]
	ep.ID = id
	ep.Addr, ep.MAC, ep.VTEP = p.addr, p.mac, p.vtep
	ep.NodeID = name
	return claim{ep: ep, confirmed: !p.cached, live: live}
}

// isLoadBalancer reports whether an endpoint of that name is the balancer of a
// node. Docker gossips no name for it today, but did until version 25.
func (n *network) isLoadBalancer(name string) bool {
	return slices.Contains([]string{"lb-" + n.cfg.Name, n.cfg.Name + "-endpoint", n.cfg.Name + "-sbox"}, name)
}

// beats decides which of two remote endpoints has the address that both claim;
// the package comment gives the rule. It depends on nothing but the claims.
func (c claim) beats(o claim) bool {
	return cmp.Or(
		trueFirst(c.protected, o.protected),
		cmp.Compare(o.rank, c.rank),
		trueFirst(c.holder, o.holder),
		trueFirst(c.confirmed, o.confirmed),
		trueFirst(c.live, o.live),
		trueFirst(!c.ep.Disabled, !o.ep.Disabled),
		cmp.Compare(c.ep.ID, o.ep.ID),
	) < 0
}

func trueFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	default:
		return 1
	}
}

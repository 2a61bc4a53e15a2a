package discovery

import (
	"net/netip"
	"slices"

	"github.com/ovnd/ovnd/discovery/directory"
)

// A picture is what a network keeps from one snapshot to the next. On a plain
// network a snapshot costs what has changed since the last one; who owns what on
// an encrypted one is found out anew, since proofs, absences and time count there.
type picture struct {
	builder *directory.Builder
	// Of a plain network: the endpoints that claim an address, this node's own
	// among them, and what each claims.
	at      map[netip.Addr][]string
	claimed map[string]netip.Addr

	// Since the last snapshot:
	changed map[string]struct{} // endpoints that something was learned of
	stale   bool                // anything may have changed
}

func newPicture() picture {
	return picture{builder: directory.NewBuilder(0), changed: make(map[string]struct{}), stale: true}
}

// noteChange notes that the endpoint id is not what it was.
func (p *picture) noteChange(id string) {
	if !p.stale {
		p.changed[id] = struct{}{}
	}
}

// noteAll notes that any endpoint may not be what it was.
func (p *picture) noteAll() {
	p.stale = true
	clear(p.changed)
}

// draw brings the endpoints up to date. It returns those of other nodes that were
// chosen, if the network is an encrypted one, and counts the endpoints that are not
// there because another one has their address or ID. o is nil on a plain network.
func (n *network) draw(o *owners) (chosen map[netip.Addr]claim, conflicts int) {
	if o != nil || n.stale {
		chosen, conflicts = n.drawAll(o)
		if o == nil {
			n.index()
		}
	} else {
		n.drawChanged()
		conflicts = len(n.claimed) - len(n.at)
	}
	n.stale = false
	clear(n.changed)
	return chosen, conflicts
}

func (n *network) drawAll(o *owners) (chosen map[netip.Addr]claim, conflicts int) {
	chosen, conflicts = n.elect(o)
	all := make(map[netip.Addr]*directory.Endpoint, len(chosen)+len(n.local))
	for addr, c := range chosen {
		all[addr] = c.ep
	}
	for _, ep := range n.local {
		if _, taken := all[ep.Addr]; taken {
			conflicts++
		}
		all[ep.Addr] = &ep
	}
	n.builder.Replace(all)
	return chosen, conflicts
}

// index notes who claims which address.
func (n *network) index() {
	n.at = make(map[netip.Addr][]string, len(n.remote)+len(n.local))
	n.claimed = make(map[string]netip.Addr, len(n.remote)+len(n.local))
	for id := range n.local {
		n.reindex(id)
	}
	for id := range n.remote {
		n.reindex(id)
	}
}

// reindex notes what an endpoint claims now, and returns what it did before; the
// zero Addr stands for nothing.
func (n *network) reindex(id string) (before, now netip.Addr) {
	if r := n.remote[id]; r.place != nil {
		now = r.place.addr
	}
	if ep, ours := n.local[id]; ours {
		now = ep.Addr
	}
	if before = n.claimed[id]; before == now {
		return before, now
	}
	if before.IsValid() {
		n.at[before] = slices.DeleteFunc(n.at[before], func(other string) bool { return other == id })
		if len(n.at[before]) == 0 {
			delete(n.at, before)
		}
	}
	if now.IsValid() {
		n.at[now] = append(n.at[now], id)
		n.claimed[id] = now
	} else {
		delete(n.claimed, id)
	}
	return before, now
}

// drawChanged brings the addresses up to date that the changed endpoints of a plain
// network claim or claimed.
func (n *network) drawChanged() {
	stirred := make(map[netip.Addr]struct{}, len(n.changed))
	for id := range n.changed {
		before, now := n.reindex(id)
		stirred[before], stirred[now] = struct{}{}, struct{}{}
	}
	delete(stirred, netip.Addr{})
	for addr := range stirred {
		if ep := n.winner(addr); ep == nil {
			n.builder.Delete(addr)
		} else {
			n.builder.Set(ep)
		}
	}
}

// winner returns the endpoint that has an address of a plain network: this node's
// own, or the one that [network.elect] would choose.
func (n *network) winner(addr netip.Addr) *directory.Endpoint {
	var best claim
	for _, id := range n.at[addr] {
		if ep, ours := n.local[id]; ours {
			return &ep
		}
		r := n.remote[id]
		if c := n.claim(id, r.place, r.naming); best.ep == nil || c.beats(best) {
			best = c
		}
	}
	return best.ep
}

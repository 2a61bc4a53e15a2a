package discovery

import (
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/moby/moby/v2/daemon/libnetwork/networkdb"
)

// returnTime is how long the records of a node stand after it has left gossip
// without withdrawing them. A node that was killed and is back says goodbye for
// its last run before its new one may say anything, about a second on an idle
// machine; its sandboxes have lived on all the while, and so should their names
// and routes.
const returnTime = 3 * time.Second

// maxFailed bounds the nodes that are remembered to have gone silent.
const maxFailed = 1 << 12

// departures is what is known of nodes that went, by VTEP.
type departures struct {
	gone   map[netip.Addr]time.Time // when a node was last seen to leave, or to be replaced by its next run
	waits  map[string]time.Time     // by endpoint ID: until when records stand that gossip has deleted
	strays map[string]time.Time     // by gossip name: the same of identities
}

func newDepartures() departures {
	return departures{
		gone:   make(map[netip.Addr]time.Time),
		waits:  make(map[string]time.Time),
		strays: make(map[string]time.Time),
	}
}

// noteMembers takes in who is on the network now, before it is stored.
func (n *network) noteMembers(members map[netip.Addr]string, now time.Time) {
	for addr, name := range n.members {
		if members[addr] != name {
			n.gone[addr] = now
		}
	}
	maps.DeleteFunc(n.gone, func(_ netip.Addr, at time.Time) bool { return now.Sub(at) > returnTime })
}

// linger reports whether a record that gossip has deleted is to stand for a
// while, since its node has left gossip and may be about to come back. active
// tells who is in gossip, and failed which nodes went silent there: these are
// not coming back soon.
func (n *network) linger(table, id string, active func(name string) bool, failed map[netip.Addr]bool, now time.Time) bool {
	var vtep netip.Addr
	r := n.remote[id]
	switch {
	case table == identityTable:
		if i := n.identities[id]; i != nil {
			vtep = i.VTEP
		}
	case table != peerTable && table != endpointTable:
		return false
	case r.place != nil:
		vtep = r.place.vtep
	case r.held != nil:
		vtep = r.held.vtep
	}
	if !vtep.IsValid() || failed[vtep] {
		return false
	}
	if at, ok := n.gone[vtep]; !ok || now.Sub(at) > returnTime {
		name, member := n.members[vtep]
		if !member || active(name) {
			return false
		}
		n.gone[vtep] = now
	}
	if table == identityTable {
		n.strays[id] = now.Add(returnTime)
	} else {
		n.waits[id] = now.Add(returnTime)
	}
	return true
}

// expire forgets the records whose nodes have not come back in time. confirmed
// says whether gossip has an entry, by table and ID. It reports whether any was
// forgotten.
func (n *network) expire(now time.Time, confirmed func(table, id string) bool) (changed bool) {
	for id, until := range n.waits {
		if now.Before(until) {
			continue
		}
		delete(n.waits, id)
		for _, table := range []string{endpointTable, peerTable} {
			if !confirmed(table, id) {
				was, _ := n.learn(table, id, nil)
				changed = was || changed
			}
		}
	}
	for name, until := range n.strays {
		if now.Before(until) {
			continue
		}
		delete(n.strays, name)
		if !confirmed(identityTable, name) {
			was, _ := n.learnIdentity(name, nil)
			changed = was || changed
		}
	}
	return changed
}

// noteNode takes in that memberlist has seen a node come or go. One that says
// goodbye is gone from NetworkDB before that.
func (l *loop) noteNode(ev networkdb.WatchEvent) {
	value := ev.Value
	if value == nil {
		value = ev.Prev
	}
	var node networkdb.NodeAddr
	if json.Unmarshal(value, &node) != nil {
		return
	}
	addr, ok := netip.AddrFromSlice(node.Addr)
	if !ok {
		return
	}
	if addr = addr.Unmap(); ev.Value == nil {
		if len(l.failed) >= maxFailed {
			clear(l.failed)
		}
		l.failed[addr] = true
	} else {
		delete(l.failed, addr)
	}
}

// lingers reports whether a deletion is put off; see [network.linger]. The caller
// holds the lock.
func (l *loop) lingers(n *network, ev networkdb.WatchEvent) bool {
	if ev.Value != nil {
		return false
	}
	active := func(name string) bool {
		return slices.ContainsFunc(l.gossip.db.ClusterPeers(), func(p networkdb.PeerInfo) bool { return p.Name == name })
	}
	return n.linger(ev.Table, ev.Key, active, l.failed, time.Now())
}

// inGossip reports whether gossip has an entry of a network now.
func (g *gossip) inGossip(networkID string) func(table, id string) bool {
	return func(table, id string) bool {
		_, err := g.db.GetEntry(table, networkID, id)
		return err == nil
	}
}

package discovery

import (
	"bytes"
	"maps"
	"time"

	"github.com/moby/moby/v2/daemon/libnetwork/networkdb"
)

// NetworkDB takes any member's word for any entry, on an encrypted network too.
// What the owner of an endpoint can do about it is here: to say again what
// another node has changed, to contradict old claims of its own that are repeated,
// and to say that it has released an endpoint in a way that nobody misses.

const (
	// maxDefended bounds the entries of one network that are said again at a time,
	// every lookInterval, so that a quarrel does not fill the gossip.
	maxDefended = 16
	// partTime is the least time between the release of this node's endpoints and
	// its leaving a network, after which the others take no word of it any more.
	// Gossip carries some partRate records a second.
	partTime = time.Second
	partRate = 25
	maxPart  = 5 * time.Second
	// closeTime is what a farewell spends on it: two rounds of gossip.
	closeTime = 500 * time.Millisecond
	// walkInterval is how often the deleted entries are looked through for releases
	// of endpoints whose claims stand without an entry.
	walkInterval = 5 * time.Second
)

// contest notes that another node has changed an entry, if it is one of this
// node's. It reports whether it is.
func (g *gossip) contest(ev networkdb.WatchEvent) (ours bool) {
	m := g.networks[ev.NetworkID]
	if m == nil {
		return false
	}
	for _, r := range m.entries[ev.Key].tables() {
		if r.table != ev.Table || r.value == nil {
			continue
		}
		if !bytes.Equal(r.value, ev.Value) {
			m.contested[ev.Key] = struct{}{}
		}
		return true
	}
	return false
}

// defend says again what others have changed.
func (g *gossip) defend() {
	for id, m := range g.networks {
		budget := maxDefended
		for key := range m.contested {
			if budget--; budget < 0 {
				break
			}
			delete(m.contested, key)
			g.replace(id, key, entry{}, m.entries[key])
		}
	}
}

// retract contradicts an old claim of this node: released is newer.
func (g *gossip) retract(id, ep string, released []byte) {
	if g.networks[id] == nil {
		return
	}
	if _, ours := g.networks[id].entries[ep]; ours {
		return // still being withdrawn, or said again
	}
	g.replace(id, ep, entry{place: []byte{0}, released: released}, entry{})
}

// part leaves a network, an encrypted one after its endpoints have been released
// and the others had the time to hear of it. It reports whether that is done.
func (g *gossip) part(id string, m *membership) bool {
	if released := g.releaseOf(id, m); released > 0 {
		m.until = time.Now().Add(min(partTime+time.Duration(released)*time.Second/partRate, maxPart))
	}
	if time.Now().Before(m.until) {
		return false
	}
	g.leave(id)
	return true
}

// releaseOf withdraws the endpoints of an encrypted network, and returns how many
// there were.
func (g *gossip) releaseOf(id string, m *membership) (released int) {
	for ep, e := range m.entries {
		if e.released != nil {
			g.replace(id, ep, e, entry{})
			delete(m.entries, ep)
			released++
		}
	}
	return released
}

// releaseAll does it on all networks, before the cluster is left.
func (g *gossip) releaseAll() {
	released := 0
	for id, m := range g.networks {
		released += g.releaseOf(id, m)
	}
	if released > 0 && g.clustered() {
		time.Sleep(closeTime)
	}
}

// defend keeps what this node says of its endpoints true on encrypted networks,
// and looks for what others have released.
func (l *loop) defend() {
	l.gossip.defend()
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, n := range l.networks {
		for ep, p := range n.replayed {
			claim := p.claim.EndpointClaim
			claim.Released = true
			if released, err := l.trust.putSigned(claim); err == nil {
				l.gossip.retract(id, ep, released)
			}
		}
		clear(n.replayed)
		if n.stirs() {
			l.unsaved = true
			l.markDirty(id)
		}
	}
	if time.Since(l.walked) >= walkInterval {
		l.learnReleases()
	}
}

// learnReleases finds out which endpoints, of those whose claims stand without
// an entry in gossip, their owners have released: NetworkDB keeps an entry that
// was deleted with its last value for half an hour, and tells of the deletion
// without it. The caller holds the lock.
func (l *loop) learnReleases() {
	l.walked, l.deletions = time.Now(), false
	orphans := make(map[string]map[string]bool)
	for id, n := range l.networks {
		if n.opts.Encrypted {
			orphans[id] = n.orphaned()
		}
	}
	maps.DeleteFunc(orphans, func(_ string, ids map[string]bool) bool { return len(ids) == 0 })
	if len(orphans) == 0 {
		return
	}
	_ = l.gossip.db.WalkTable(peerTable, func(id, ep string, value []byte, deleted bool) bool {
		if deleted && orphans[id][ep] && l.networks[id].learnDeleted(ep, value) {
			l.unsaved = true
			l.markDirty(id)
		}
		return false
	})
}

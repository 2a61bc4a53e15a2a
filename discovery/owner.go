package discovery

import (
	"bytes"
	"hash/maphash"
	"maps"
	"net/netip"
	"time"

	"github.com/ovnd/ovnd/discovery/directory"
)

const (
	// provingTime is how long the first claim of an address stands against one of
	// a node that has proved who it is before the claimant has done so itself:
	// longer than it takes two nodes to shake hands.
	provingTime = 15 * time.Second
	// maxReleases bounds the endpoints of one network that are remembered to have
	// been released. Who released one that is forgotten contradicts its old record.
	maxReleases = 1 << 12
	// maxReplayed bounds the old claims that this node contradicts at a time.
	maxReplayed = 64
)

// A release is the last word of an owner about an endpoint.
type release struct {
	key      [32]byte // with which it was signed
	sequence uint64
}

// A holder is an endpoint and its owner.
type holder struct{ id, owner string }

// rule is what the ownership rule of an encrypted network remembers from one
// snapshot to the next, and what it found.
type rule struct {
	identities map[string]*identity  // by gossip name, as gossiped or remembered
	proven     map[string]*identity  // by node ID, those that a handshake has confirmed
	arrivals   uint64                // of identities
	lots       maphash.Seed          // whose turn it is, of those with one node ID
	crowded    time.Time             // when room was last looked for among identities
	holders    map[netip.Addr]holder // who had the address in the last snapshot
	releases   map[string]release    // by endpoint ID
	replayed   map[string]*place     // by endpoint ID, old claims of this node that came back

	chosen   map[string]*identity // by node ID
	called   map[string]*identity // by node ID, for the snapshot
	seen     map[string]owner     // as of the last look at them
	unproven int                  // records without a valid signature
	disputes int                  // endpoints whose address another one has
	waiting  int                  // claims of endpoint IDs that another owner holds
	orphans  int                  // claims that stand without a record in gossip

	ownIdentity []byte // this node's record; nil: to be made
	work        work
}

func newRule() rule {
	return rule{
		identities: make(map[string]*identity),
		proven:     make(map[string]*identity),
		releases:   make(map[string]release),
		replayed:   make(map[string]*place),
		lots:       maphash.MakeSeed(),
		work:       work{owners: make(map[string]*budget)},
	}
}

// settle finds out which claims of an encrypted network count now. It reports
// whether any are others than before. On a plain network o is nil.
func (n *network) settle() (o *owners, changed bool) {
	if !n.opts.Encrypted {
		return nil, false
	}
	o = n.owners()
	n.unproven, n.waiting, n.orphans, n.work.deferred = 0, 0, 0, 0
	n.work.look(len(n.remote))
	for id, r := range n.remote {
		held := n.standing(o, id, r)
		if held != nil && held != r.place {
			n.orphans++
		}
		if held != r.held {
			r.held, changed = held, true
			n.keep(id, r)
		}
	}
	if !o.asBefore() {
		n.chosen, n.called, changed = o.chosen, o.called, true
	}
	clear(n.proven)
	for id, i := range n.chosen {
		if n.self.trust.shookHands(i) {
			n.proven[id] = i
		}
	}
	n.seen = make(map[string]owner, len(n.chosen))
	for id := range n.chosen {
		n.seen[id] = o.of(id)
	}
	n.work.last, n.work.at, n.work.news = o, n.self.trust.time(), false
	n.work.forget(o)
	return o, changed
}

// present takes in who has which address in a snapshot that is being made, and
// returns the identities for it.
func (n *network) present(chosen map[netip.Addr]claim) map[string]directory.Identity {
	n.holders = make(map[netip.Addr]holder, len(chosen))
	for addr, c := range chosen {
		n.holders[addr] = holder{c.ep.ID, c.ep.Owner}
	}
	ids := make(map[string]directory.Identity, len(n.called))
	for id, i := range n.called {
		ids[id] = i.Identity
	}
	return ids
}

// settleBefore settles endpoint id before its record is replaced, in case that has
// not been looked at yet: it may be the first claim, or the newest of its owner.
func (n *network) settleBefore(id string, r *remote) {
	if n.opts.Encrypted && r.place != nil && r.place != r.held {
		r.held = n.standing(n.glance(), id, *r)
	}
}

// standing returns the claim of endpoint id that counts: the first valid one,
// until its owner makes a newer one or releases it, or is gone. What is not
// verified yet changes nothing.
func (n *network) standing(o *owners, id string, r remote) *place {
	held, p := r.held, r.place
	if held != nil && o.judge(held) == wrong {
		held = nil // its owner has other keys by now
	}
	if held != nil && held != p && !held.cached && !o.of(held.claim.Owner).alive {
		held = nil
	}
	if p == nil || p == held {
		return held
	}
	switch o.judge(p) {
	case unknown:
		return held
	case wrong:
		n.unproven++
		return held
	}
	switch {
	case held != nil && bytes.Equal(held.raw, p.raw):
		p.claim.since = held.claim.since
		return p
	case held != nil && held.claim.Owner == p.claim.Owner && held.claim.Sequence >= p.claim.Sequence:
		n.unproven++ // a replay
		return held
	case p.claim.Released:
		n.release(id, p)
		if held != nil && held.claim.Owner == p.claim.Owner {
			return nil
		}
		return held
	case n.outdated(id, p):
		n.unproven++
		return held
	case held != nil && held.claim.Owner != p.claim.Owner && n.stands(o, held, p):
		n.waiting++
		return held
	}
	p.claim.since = n.self.trust.time()
	return p
}

// stands reports whether a claim that counts does so against one of another
// owner.
func (n *network) stands(o *owners, held, rival *place) bool {
	return n.protected(o, held) || o.of(held.claim.Owner).rank() >= o.of(rival.claim.Owner).rank()
}

// protected reports whether a claim that counts does so against any other: its
// owner lives and has proved who it is or may still do so, or nobody has been
// heard of yet since the start.
func (n *network) protected(o *owners, held *place) bool {
	w := o.of(held.claim.Owner)
	young := n.self.trust.time().Sub(held.claim.since) < provingTime
	return held.cached || w.alive && (w.proven || young)
}

func (t *trust) time() time.Time {
	if t == nil || t.now == nil {
		return time.Now()
	}
	return t.now()
}

// release remembers that the owner of a claim has released its endpoint.
func (n *network) release(id string, p *place) {
	if was, ok := n.releases[id]; ok && was.key == p.claim.key && was.sequence >= p.claim.Sequence {
		return
	}
	if _, ok := n.releases[id]; !ok && len(n.releases) >= maxReleases {
		for other := range n.releases {
			delete(n.releases, other)
			break
		}
	}
	n.releases[id] = release{key: p.claim.key, sequence: p.claim.Sequence}
}

// outdated reports whether the endpoint was released after its owner made this
// claim.
func (n *network) outdated(id string, p *place) bool {
	r, ok := n.releases[id]
	return ok && r.key == p.claim.key && r.sequence >= p.claim.Sequence
}

// learnDeleted takes in the value with which the entry of an endpoint was
// deleted. It reports whether the endpoint has gone by that.
func (n *network) learnDeleted(id string, value []byte) bool {
	r, ok := n.remote[id]
	if !ok || r.held == nil || r.place != nil && !r.held.cached {
		return false
	}
	p, err := n.parsePlace(id, value)
	if err != nil || p == nil || !p.claim.Released || p.claim.Owner != r.held.claim.Owner ||
		p.claim.Sequence <= r.held.claim.Sequence || n.glance().judge(p) != right {
		return false
	}
	n.release(id, p)
	if r.place == r.held {
		r.place = nil
	}
	r.held = nil
	n.keep(id, r)
	return true
}

// orphaned returns the endpoints whose claims stand without a record in gossip.
func (n *network) orphaned() map[string]bool {
	ids := make(map[string]bool, n.orphans)
	for id, r := range n.remote {
		if r.held != nil && (r.place == nil || r.held.cached) {
			ids[id] = true
		}
	}
	return ids
}

// stirs reports whether what is known of the owners, or time, has made the last
// snapshot out of date.
func (n *network) stirs() bool {
	if !n.opts.Encrypted || n.rests() || n.waiting+n.disputes+n.work.deferred == 0 && !n.newsOfOwners() {
		return false
	}
	o, changed := n.settle()
	chosen, _ := n.elect(o)
	for addr, c := range chosen {
		if n.holders[addr] != (holder{c.ep.ID, c.ep.Owner}) {
			changed = true
		}
	}
	return changed
}

// newsOfOwners reports whether a node has proved itself, come or gone since the
// last look.
func (n *network) newsOfOwners() bool {
	o := n.owners()
	for id, was := range n.seen {
		if o.of(id) != was {
			return true
		}
	}
	return !o.asBefore()
}

// asBefore reports whether the identities of nodes are those of the last look.
func (o *owners) asBefore() bool {
	return maps.Equal(o.n.chosen, o.chosen) && maps.Equal(o.n.called, o.called)
}

// noteReplay notes an old claim of this node's own that is about in gossip again.
func (n *network) noteReplay(id string, p *place) {
	t := n.self.trust
	_, ours := n.local[id]
	if ours || p.claim.Released || p.claim.Owner == "" || p.claim.Owner != t.nodeID() || len(n.replayed) >= maxReplayed ||
		t.sign == nil || !n.work.pay(&n.work.own, ownerChecks, ownerBurst, t.time()) || !p.claim.signedBy(t.own.Record) {
		return
	}
	n.replayed[id] = p
}

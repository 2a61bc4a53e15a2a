package discovery

import (
	"maps"
	"time"
)

// What other nodes say of an encrypted network makes this one work: a signature to
// verify for each claim of each key that it may be signed with, and a look at all
// that is known when an owner comes or goes. Any member may say as much as it
// likes, and one identity that changes puts all claims of its node in doubt. So the
// work has bounds, and what is beyond them waits: claims that count go on counting
// until they are looked at, new ones do not count yet.
const (
	// ownerChecks is how many claims in the name of a node that has proved who it is
	// are verified a second, and ownerBurst how many at once.
	ownerChecks, ownerBurst = 256, 1 << 12
	// otherChecks and otherBurst are that for the claims of all other nodes together.
	otherChecks, otherBurst = 256, 1 << 14
	// looksRate is how many records and nodes are looked at a second, each time that
	// anything has changed: about a tenth of a processor's time. looksBurst is a look
	// at the largest network.
	looksRate, looksBurst = 50_000, maxEndpoints
	// glanceTime is for how long a look at the owners is good for claims that are
	// replaced before they could be looked at.
	glanceTime = 100 * time.Millisecond
)

// A budget bounds work: so much a second, and so much at once. Work that takes more
// than there is left is done, and paid for before the next.
type budget struct {
	left float64
	last time.Time
}

// ready reports whether there is something left at a time.
func (b *budget) ready(rate, burst float64, now time.Time) bool {
	if b.last.IsZero() {
		b.left = burst
	} else if d := now.Sub(b.last); d > 0 {
		b.left = min(burst, b.left+rate*d.Seconds())
	}
	b.last = now
	return b.left > 0
}

// work is what an encrypted network has cost lately.
type work struct {
	looks  budget
	owners map[string]*budget // by node ID, of those that have proved who they are
	others budget
	own    budget // claims in this node's name

	deferred int // claims that wait to be verified
	verified int // signatures in all
	looked   int // records and nodes in all

	last *owners // the last look at the owners,
	at   time.Time
	news bool // and whether something was said of them since
}

// look pays for a look at so many records and nodes.
func (w *work) look(items int) {
	w.looks.left -= float64(items)
	w.looked += items
}

// mayVerify reports whether another claim of an owner may be verified now, and
// pays for it.
func (w *work) mayVerify(nodeID string, proven bool, now time.Time) bool {
	b, rate, burst := &w.others, otherChecks, otherBurst
	if proven {
		rate, burst = ownerChecks, ownerBurst
		if b = w.owners[nodeID]; b == nil {
			b = new(budget)
			w.owners[nodeID] = b
		}
	}
	return w.pay(b, float64(rate), float64(burst), now)
}

func (w *work) pay(b *budget, rate, burst float64, now time.Time) bool {
	if !b.ready(rate, burst, now) {
		w.deferred++
		return false
	}
	b.left--
	w.verified++
	return true
}

// forget drops the budgets of owners that have proved nothing any more.
func (w *work) forget(o *owners) {
	maps.DeleteFunc(w.owners, func(id string, _ *budget) bool { return !o.of(id).proven })
}

// rests reports whether the network has cost so much lately that what is new has to
// wait.
func (n *network) rests() bool {
	return n.opts.Encrypted && !n.work.looks.ready(looksRate, looksBurst, n.self.trust.time())
}

// glance is owners from a short while ago, if need be.
func (n *network) glance() *owners {
	w, now := &n.work, n.self.trust.time()
	if w.last == nil || (w.news || now.Sub(w.at) >= glanceTime) && !n.rests() {
		w.last, w.at, w.news = n.owners(), now, false
	}
	return w.last
}

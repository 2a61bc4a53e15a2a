package discovery

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/v2/daemon/libnetwork/networkdb"

	"github.com/ovnd/ovnd/crypto"
)

// revocationTable is the NetworkDB table of revocations as package crypto encodes
// them. It is on the ingress network, which every node is on, and its keys are
// <ID of the removed node>.<ID of the manager that says so>.
const revocationTable = "ovnd_revocation_table"

const (
	// maxRevocations bounds the removed nodes that are remembered.
	maxRevocations = 1 << 12
	// maxPending bounds the revocations that wait for something to verify them by.
	maxPending = 256
	// maxRevocation bounds an encoded one, in bytes.
	maxRevocation = crypto.MaxChainLen + crypto.MaxSignatureLen + crypto.MaxIDLen + 16
)

// revocations are the nodes that managers say they have removed. Discovery's lock
// guards it.
type revocations struct {
	verify  func(crypto.Revocation) (signer string, err error) // nil: nothing to do it with yet
	revoked func(nodeIDs []string)

	reread  bool              // gossip's are to be looked through: verify is another now
	known   map[string][]byte // encoded and verified, by removed node
	pending map[string][]byte // encoded and not verified yet, by key of the table
	mine    map[string][]byte // encoded, by removed node: those that this node publishes
}

func (d *Discovery) restoreRevocations() {
	known := make(map[string][]byte)
	if err := load(d.path(revocationsFile), &known); err != nil {
		d.cfg.Log.Warn("the list of removed nodes is lost until a manager repeats it", "error", err)
		clear(known)
	}
	// Verified when they came: the certificates may have expired since.
	maps.DeleteFunc(known, func(id string, b []byte) bool {
		r, err := crypto.ParseRevocation(b)
		return err != nil || r.NodeID != id
	})
	d.revoked.known, d.revoked.pending = known, make(map[string][]byte)
}

// OnRevocations says how a revocation is verified, and whom to tell of nodes that
// were removed: at once of those known from former runs, later of each that comes.
// It may be called again, when the swarm's roots have changed: what could not be
// verified is tried again. verify is called under a lock, revoked is not; neither
// may wait for Discovery.
func (d *Discovery) OnRevocations(verify func(crypto.Revocation) (signer string, err error), revoked func(nodeIDs []string)) {
	d.mu.Lock()
	d.revoked.verify, d.revoked.revoked = verify, revoked
	for key, b := range maps.Clone(d.revoked.pending) {
		if _, err := d.takeRevocation(key, b); err == nil {
			delete(d.revoked.pending, key)
		}
	}
	ids := slices.Sorted(maps.Keys(d.revoked.known))
	d.saveRevocations()
	d.revoked.reread = true
	d.mu.Unlock()
	if len(ids) > 0 {
		revoked(ids)
	}
}

// PublishRevocations has this node, a manager, tell all nodes which others were
// removed: these and no others, the first 4,096 of them. It takes them for
// verified.
func (d *Discovery) PublishRevocations(list []crypto.Revocation) error {
	list = list[:min(len(list), maxRevocations)]
	mine := make(map[string][]byte, len(list))
	for _, r := range list {
		b, err := r.AppendBinary(nil)
		if err == nil {
			err = checkNodeID(r.NodeID)
		}
		if err != nil {
			return fmt.Errorf("revocation of node %s: %w", r.NodeID, err)
		}
		mine[r.NodeID] = b
	}
	d.mu.Lock()
	d.revoked.mine = mine
	var news []string
	for id, b := range mine {
		if _, known := d.revoked.known[id]; !known {
			d.revoked.know(id, b)
			news = append(news, id)
		}
	}
	revoked := d.revoked.revoked
	if len(news) > 0 {
		d.saveRevocations()
	}
	signal(d.wake)
	d.mu.Unlock()
	if len(news) > 0 && revoked != nil {
		revoked(news)
	}
	return nil
}

// Revoked returns the swarm's IDs of the nodes that are known to be removed,
// sorted.
func (d *Discovery) Revoked() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Sorted(maps.Keys(d.revoked.known))
}

// addRevocations adds what this node publishes to the entries of the ingress
// network. The caller holds the lock.
func (d *Discovery) addRevocations(entries map[string]entry) {
	signer := d.trust.own.NodeID
	if signer == "" {
		return
	}
	for id, b := range d.revoked.mine {
		entries[id+"."+signer] = entry{revocation: b}
	}
}

// takeRevocation takes in an entry of revocationTable. It returns the node that
// was removed, "" if that is no news. The caller holds the lock.
func (d *Discovery) takeRevocation(key string, b []byte) (nodeID string, err error) {
	r, err := parseRevocation(key, b)
	if err != nil {
		return "", err
	}
	v := &d.revoked
	if _, known := v.known[r.NodeID]; known {
		return "", nil
	}
	err = errNoVerifier
	if v.verify != nil {
		var signer string
		if signer, err = v.verify(r); err == nil {
			if _, removed := v.known[signer]; removed {
				return "", fmt.Errorf("revocation of node %s by node %s, which was removed itself", r.NodeID, signer)
			}
			v.know(r.NodeID, b)
			return r.NodeID, nil
		}
	}
	// Roots and certificates change: it may be good another time.
	if len(v.pending) < maxPending {
		v.pending[key] = b
	}
	return "", err
}

// know remembers a verified revocation, in place of the oldest if there are too
// many: the certificate of a node that was removed so long ago has ended by now,
// or does so next.
func (v *revocations) know(nodeID string, b []byte) {
	if len(v.known) >= maxRevocations {
		var oldest string
		var since time.Time
		for id, b := range v.known {
			if r, err := crypto.ParseRevocation(b); err != nil || oldest == "" || r.Time.Before(since) {
				oldest, since = id, r.Time
			}
		}
		delete(v.known, oldest)
	}
	v.known[nodeID] = b
}

var errNoVerifier = errors.New("no roots yet to verify a revocation by")

// parseRevocation reads and checks an entry of revocationTable but for its
// signature. The result keeps b.
func parseRevocation(key string, b []byte) (crypto.Revocation, error) {
	if len(b) > maxRevocation {
		return crypto.Revocation{}, fmt.Errorf("revocation of %d bytes", len(b))
	}
	r, err := crypto.ParseRevocation(b)
	if err != nil {
		return r, err
	}
	if err := checkNodeID(r.NodeID); err != nil {
		return r, fmt.Errorf("revocation: node: %w", err)
	}
	if removed, _, _ := strings.Cut(key, "."); removed != r.NodeID {
		return r, fmt.Errorf("revocation of node %s under the key %q", r.NodeID, key)
	}
	return r, nil
}

// saveRevocations keeps what is known for the next start. The caller holds the
// lock.
func (d *Discovery) saveRevocations() {
	if err := save(d.path(revocationsFile), d.revoked.known, false); err != nil {
		d.cfg.Log.Warn("cannot keep the list of removed nodes for the next start", "error", err)
	}
}

// learnRevocation takes in an event of revocationTable. That an entry has gone
// means nothing: a node that was removed stays so.
func (l *loop) learnRevocation(ev networkdb.WatchEvent) {
	l.mu.Lock()
	n := l.networks[ev.NetworkID]
	if n == nil || !n.cfg.Ingress {
		l.mu.Unlock()
		return
	}
	l.gossip.contest(ev)
	if ev.Value == nil {
		l.mu.Unlock()
		return
	}
	id, err := l.takeRevocation(ev.Key, ev.Value)
	if err != nil && !errors.Is(err, errNoVerifier) {
		l.refused(n, ev.Key, err)
	}
	l.mu.Unlock()
	if id != "" {
		l.tellRevoked(id)
	}
}

// tellRevoked keeps and passes on that nodes were removed.
func (l *loop) tellRevoked(ids ...string) {
	l.mu.Lock()
	l.saveRevocations()
	revoked := l.revoked.revoked
	l.mu.Unlock()
	l.cfg.Log.Info("nodes removed from the swarm: their sessions end", "nodes", ids)
	if revoked != nil {
		revoked(ids)
	}
}

// rereadRevocations looks through what gossip holds, after there is something
// else to verify it by: not all of what came before may have been kept.
func (l *loop) rereadRevocations() {
	l.mu.Lock()
	if !l.revoked.reread {
		l.mu.Unlock()
		return
	}
	l.revoked.reread = false
	ingress := make(map[string]bool)
	for id, n := range l.networks {
		ingress[id] = n.cfg.Ingress
	}
	var ids []string
	_ = l.gossip.db.WalkTable(revocationTable, func(network, key string, value []byte, _ bool) bool {
		if ingress[network] {
			if id, err := l.takeRevocation(key, value); err == nil && id != "" {
				ids = append(ids, id)
			}
		}
		return false
	})
	l.mu.Unlock()
	if len(ids) > 0 {
		l.tellRevoked(ids...)
	}
}

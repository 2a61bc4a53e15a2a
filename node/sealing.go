package node

import (
	"cmp"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ovnd/ovnd/cluster"
	"github.com/ovnd/ovnd/crypto"
	"github.com/ovnd/ovnd/dataplane"
	"github.com/ovnd/ovnd/discovery"
	"github.com/ovnd/ovnd/discovery/directory"
)

// sealing is what encrypted networks need of a member: who this node is, the
// swarm's data-plane keys, and sessions with the nodes on such networks. Without
// any of these their packets are dropped; there is nothing else to be done with
// them.
type sealing struct {
	log    *slog.Logger
	store  *directory.Store
	file   string // of the data-plane keys
	keys   *crypto.Keys
	engine *crypto.Engine
	sw     *dataplane.Switch
	disc   *discovery.Discovery

	identity atomic.Pointer[crypto.Identity] // nil: no credentials yet

	// Of the goroutine that runs the membership: the nodes that managers remember
	// as removed, with the end of the certificate of each, and what this node has
	// signed of that.
	managers map[string]time.Time
	signed   map[string]crypto.Revocation
	told     *crypto.Credentials // by the swarm, last

	mu      sync.Mutex
	trouble error           // why there is no identity
	epochs  []savedEpoch    // oldest first
	removed map[string]bool // nodes that were removed from the swarm
}

// A savedEpoch is one of the swarm's data-plane keys, as the node keeps them for
// a start without managers.
type savedEpoch struct {
	Tag uint64 `json:"tag"` // Lamport time at which a manager made it
	Key []byte `json:"key"` // 16 bytes
}

// newSealing makes the keys of this run. The sessions begin once the parts are
// connected and the engine runs.
func (n *Node) newSealing() (*sealing, error) {
	keys, err := crypto.NewKeys()
	if err != nil {
		return nil, fmt.Errorf("encrypted networks: %w", err)
	}
	s := &sealing{
		log: n.log, store: n.store, file: filepath.Join(n.gossipDir(), "sealing.json"), keys: keys,
		signed: make(map[string]crypto.Revocation), removed: make(map[string]bool),
	}
	s.engine, err = crypto.New(crypto.Config{
		Identity: s.identity.Load,
		Send:     func(to netip.Addr, b []byte) { s.sw.SendControl(to, b) },
		Changed:  func(string) { s.sw.SessionsChanged() },
		Log:      n.log,
	})
	return s, err
}

// connect joins the sessions to who carries their packets and to who knows the
// other nodes, and begins with what the last run knew.
func (s *sealing) connect(sw *dataplane.Switch, disc *discovery.Discovery, credentials func() (crypto.Credentials, error)) {
	s.sw, s.disc = sw, disc
	disc.SetLiveness(s.engine.Alive)
	disc.SetVerified(func(nodeID string) (static, record [32]byte, ok bool) {
		st, ok := s.engine.Verified(nodeID)
		return st.Static, st.Record, ok
	})
	s.restore()
	cred, err := credentials()
	if err != nil {
		s.setTrouble(err) // until they come
		return
	}
	s.setCredentials(cred)
}

// restore takes the keys that the last run knew, until the swarm says more.
func (s *sealing) restore() {
	var saved []savedEpoch
	if err := loadJSON(s.file, &saved); err != nil {
		s.log.Warn("the swarm's data-plane keys are lost until a manager answers", "error", err)
		return
	}
	s.useEpochs(saved)
}

// setKeys takes the swarm's keys, those for other uses included, and keeps them
// for the next start.
func (s *sealing) setKeys(keys []cluster.Key) {
	var epochs []savedEpoch
	for _, k := range keys {
		if k.Subsystem == cluster.SubsystemIPsec {
			epochs = append(epochs, savedEpoch{Tag: k.Tag, Key: k.Key})
		}
	}
	if !s.useEpochs(epochs) {
		return
	}
	// Without the file the next start waits for a manager.
	if err := saveJSON(s.file, epochs); err != nil {
		s.log.Warn("the swarm's data-plane keys are not kept", "error", err)
	}
}

// useEpochs tells whether the epochs are news. None are not: what this node has
// goes on.
func (s *sealing) useEpochs(epochs []savedEpoch) (news bool) {
	slices.SortFunc(epochs, func(a, b savedEpoch) int { return cmp.Compare(a.Tag, b.Tag) })
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(epochs) == 0 || slices.EqualFunc(s.epochs, epochs, savedEpoch.equal) {
		return false
	}
	s.epochs = epochs
	given := make([]crypto.Epoch, len(epochs))
	for i, e := range epochs {
		given[i] = crypto.Epoch{Tag: e.Tag, Key: e.Key}
	}
	s.engine.SetEpochs(given)
	return true
}

func (e savedEpoch) equal(o savedEpoch) bool { return e.Tag == o.Tag && string(e.Key) == string(o.Key) }

// renewCredentials takes what the swarm told last, unless it is no news.
func (s *sealing) renewCredentials(cred *crypto.Credentials) {
	if cred == nil || cred == s.told {
		return
	}
	s.told = cred
	s.setCredentials(*cred)
}

// setCredentials states the keys of this run with the node's certificate.
func (s *sealing) setCredentials(cred crypto.Credentials) {
	id, err := s.keys.Identify(cred)
	if err == nil {
		s.identity.Store(id)
		// Who comes later verifies what was signed by the certificate of now: that of
		// then may have ended, or its root be gone.
		clear(s.signed)
		st := id.Statement()
		err = s.disc.SetIdentity(directory.Identity{
			NodeID: st.NodeID, Static: st.Static, Record: st.Record, Signature: st.Signature,
		}, id.SignEndpoint)
	}
	s.setTrouble(err)
	if err != nil {
		s.log.Error("no identity for encrypted networks", "error", err)
		return
	}
	s.disc.OnRevocations(func(r crypto.Revocation) (signer string, err error) {
		return r.Verify(cred.ClusterID, cred.Roots, s.engine.Today())
	}, s.revoke)
	s.signRemovals() // it may be a manager now
}

func (s *sealing) setTrouble(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trouble = err
}

// setRemoved takes the nodes that were removed from the swarm, which managers
// alone are told, and has the others know.
func (s *sealing) setRemoved(nodes map[string]time.Time) {
	if maps.Equal(nodes, s.managers) {
		return
	}
	s.managers = nodes
	s.revoke(slices.Collect(maps.Keys(nodes)))
	s.signRemovals()
}

// signRemovals publishes what managers remember, if this node is one: their word
// alone counts.
func (s *sealing) signRemovals() {
	id := s.identity.Load()
	if id == nil || len(s.managers) == 0 {
		return
	}
	now := time.Now()
	var list []crypto.Revocation
	for _, node := range s.removals() {
		end := s.managers[node]
		if !end.IsZero() && now.After(end) {
			continue // its certificate is good for nothing any more
		}
		r, ok := s.signed[node]
		if !ok {
			var err error
			if r, err = crypto.SignRevocation(id.Credentials(), node, now); err != nil {
				s.log.Warn("removal of a node not signed", "node", node, "error", err)
				continue
			}
			s.signed[node] = r
		}
		list = append(list, r)
	}
	if err := s.disc.PublishRevocations(list); err != nil {
		s.log.Error("removals of nodes not published", "error", err)
	}
}

// removals returns the nodes that managers remember, first those whose
// certificates end last: if there are too many to tell of, it is of these.
func (s *sealing) removals() []string {
	return slices.SortedFunc(maps.Keys(s.managers), func(a, b string) int {
		ea, eb := s.managers[a], s.managers[b]
		switch {
		case ea.IsZero() && !eb.IsZero(): // nobody knows when it ends
			return -1
		case eb.IsZero() && !ea.IsZero():
			return 1
		}
		return cmp.Or(eb.Compare(ea), cmp.Compare(a, b))
	})
}

// revoke closes the sessions with removed nodes, for ever.
func (s *sealing) revoke(nodeIDs []string) {
	s.mu.Lock()
	news := slices.DeleteFunc(slices.Clone(nodeIDs), func(id string) bool { return s.removed[id] })
	for _, id := range news {
		s.removed[id] = true
	}
	s.mu.Unlock()
	if len(news) == 0 {
		return
	}
	s.engine.Revoke(news...)
	s.log.Info("removed nodes get no session", "nodes", news)
	s.meet()
}

// meet wants sessions with the nodes on the encrypted networks that this node is
// on now, ahead of need.
func (s *sealing) meet() {
	peers := make(map[string]*crypto.PeerInfo)
	for _, snap := range s.store.Networks() {
		if !snap.Encrypted {
			continue
		}
		for id, identity := range snap.Identities {
			s.want(peers, id, identity, dataplane.PolicyOf(snap.Cipher))
		}
	}
	s.mu.Lock()
	list := make([]crypto.PeerInfo, 0, len(peers))
	for _, id := range slices.Sorted(maps.Keys(peers)) {
		if !s.removed[id] {
			list = append(list, *peers[id])
		}
	}
	s.mu.Unlock()
	s.engine.SetPeers(list)
}

// want adds what one network says of a node. Networks hear of its restart one
// after the other: the key that it has not proven yet is the newer one, and the
// other is tried all the same.
func (s *sealing) want(peers map[string]*crypto.PeerInfo, id string, said directory.Identity, policy crypto.Policy) {
	p := peers[id]
	if p == nil {
		p = &crypto.PeerInfo{NodeID: id, Static: said.Static, Addr: said.VTEP}
		peers[id] = p
	}
	if !slices.Contains(p.Policies, policy) {
		p.Policies = append(p.Policies, policy)
	}
	if p.Static == said.Static {
		return
	}
	if proven, ok := s.engine.Verified(id); ok && proven.Static == p.Static {
		p.Static, p.Addr = said.Static, said.VTEP
	}
}

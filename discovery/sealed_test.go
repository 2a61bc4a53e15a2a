package discovery

import (
	"bytes"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ovnd/ovnd/crypto"
	"github.com/ovnd/ovnd/discovery/directory"
)

// sessions stands for the crypto engine: who has shaken hands, and is there.
type sessions struct {
	mu     sync.Mutex
	proven map[string]directory.Identity
}

func (s *sessions) alive(id string) bool {
	_, _, ok := s.verified(id)
	return ok
}

func (s *sessions) verified(id string) (static, record [32]byte, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.proven[id]
	return i.Static, i.Record, ok
}

func (s *sessions) end(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.proven, id)
}

// identify gives a node its place in the swarm; all that share s are in session.
func (n *testNode) identify(swarm *testSwarm, node string, s *sessions) *member {
	n.t.Helper()
	m := swarm.member(node, n.Name(), n.addr().String())
	if err := n.SetIdentity(m.identity(), m.id.SignEndpoint); err != nil {
		n.t.Fatal(err)
	}
	n.SetLiveness(s.alive)
	n.SetVerified(s.verified)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proven == nil {
		s.proven = make(map[string]directory.Identity)
	}
	s.proven[node] = m.identity()
	return m
}

func (n *testNode) joinSealed(i int) {
	n.t.Helper()
	if err := n.JoinNetwork(sealedNet(i)); err != nil {
		n.t.Fatal(err)
	}
}

// waitOwned waits until endpoint host of network i is that of a node, "" for no
// endpoint.
func (n *testNode) waitOwned(i, host int, owner string) {
	n.t.Helper()
	wait(n.t, soon, "owner of the endpoint: "+owner, func() bool {
		ep := n.find(i, host)
		return ep == nil && owner == "" || ep != nil && ep.Owner == owner
	})
}

// Three nodes say who they are and whose their endpoints are, before or after they
// have joined. What one releases is free at once, although it is still there.
func TestSealedNetwork(t *testing.T) {
	t.Parallel()
	swarm, s := newTestSwarm(t), new(sessions)
	nodes := startNodes(t, 3)
	ids := []string{"node0", "node1", "node2"}
	nodes[0].identify(swarm, ids[0], s)
	for i, n := range nodes {
		n.joinSealed(0)
		n.add(0, i+1)
	}
	time.Sleep(lookInterval)
	if nodes[0].find(0, 2) != nil {
		t.Error("an endpoint that nobody signed for")
	}
	nodes[1].identify(swarm, ids[1], s)
	nodes[2].identify(swarm, ids[2], s)
	for i, n := range nodes {
		for j, owner := range ids {
			n.waitOwned(0, j+1, owner)
			n.waitNamed(0, j+1)
			wait(t, soon, "the owner's names", func() bool {
				ep := n.find(0, j+1)
				return ep.NodeID == nodes[j].Name() && ep.VTEP == nodes[j].addr()
			})
		}
		snap := n.store.Load(testNet(0).ID)
		if len(snap.Identities) != 2 || snap.Identities[ids[i]].NodeID != "" {
			t.Errorf("node %d knows %v", i, snap.Identities)
		}
		for id, known := range snap.Identities {
			if j := slices.Index(ids, id); known.Static != s.proven[id].Static || known.VTEP != nodes[j].addr() || known.Name != nodes[j].Name() {
				t.Errorf("node %d knows %s as %+v", i, id, known)
			}
		}
		if st := n.Status(); st.Unproven != 0 || st.Conflicts != 0 || st.BadRecords != 0 {
			t.Errorf("node %d: %+v", i, st)
		}
	}

	// One endpoint ends, and its address goes to another node.
	if err := nodes[1].RemoveEndpoint(testNet(0).ID, testEP(0, 2).ID); err != nil {
		t.Fatal(err)
	}
	for _, n := range []*testNode{nodes[0], nodes[2]} {
		n.waitOwned(0, 2, "")
	}
	moved := testEP(0, 2)
	moved.ID = "moved"
	if err := nodes[2].AddEndpoint(testNet(0).ID, moved); err != nil {
		t.Fatal(err)
	}
	nodes[0].waitOwned(0, 2, ids[2])
	nodes[1].waitOwned(0, 2, ids[2])

	// It leaves the network without having ended its endpoints, and stays in session.
	nodes[2].LeaveNetwork(testNet(0).ID)
	for _, n := range nodes[:2] {
		n.waitOwned(0, 2, "")
		n.waitOwned(0, 3, "")
	}
	// And comes back.
	nodes[2].joinSealed(0)
	nodes[2].add(0, 3)
	nodes[0].waitOwned(0, 3, ids[2])

	// A new certificate changes nothing but the statement.
	renewed := s.proven[ids[2]]
	renewed.Signature = bytes.Repeat([]byte{1}, 70)
	sign := nodes[2].trust.sign
	if err := nodes[2].SetIdentity(renewed, sign); err != nil {
		t.Fatal(err)
	}
	wait(t, soon, "the new statement", func() bool {
		return bytes.Equal(nodes[0].store.Load(testNet(0).ID).Identities[ids[2]].Signature, renewed.Signature)
	})
	nodes[0].waitOwned(0, 3, ids[2])

	nodes[2].stop()
	nodes[0].waitOwned(0, 3, "")
}

// A member of the gossip overwrites, deletes and repeats records of others: none
// of it diverts an endpoint, and their owner sets it right for newcomers.
func TestForgerInGossip(t *testing.T) {
	t.Parallel()
	swarm, s := newTestSwarm(t), new(sessions)
	nodes := startNodes(t, 2)
	owner, watcher := nodes[0], nodes[1]
	owner.identify(swarm, "owner", s)
	watcher.identify(swarm, "watcher", s)
	for i, n := range nodes {
		n.joinSealed(0)
		n.add(0, i+1)
	}
	watcher.waitOwned(0, 1, "owner")

	forger := silentNode(t, owner)
	id, ep := testNet(0).ID, testEP(0, 1)
	mallory := swarm.member("mallory", forger.self, "127.9.9.9")
	s.mu.Lock()
	s.proven["mallory"] = mallory.identity()
	s.mu.Unlock()
	var old []byte
	wait(t, soon, "the owner's record at the forger", func() (ok bool) {
		var err error
		old, err = forger.db.GetEntry(peerTable, id, ep.ID)
		return err == nil && len(forger.nodesOf(id)) == 3
	})
	forge := func(table, key string, value []byte) {
		t.Helper()
		forger.set(table, id, key, []byte{0}, value)
	}
	restored := func(want []byte) func() bool {
		return func() bool {
			got, err := forger.db.GetEntry(peerTable, id, ep.ID)
			return err == nil && bytes.Equal(got, want)
		}
	}
	forge(identityTable, mallory.name, mallory.entry(id))
	forge(peerTable, "a", mallory.claim("a", ep.Addr.String())) // the smaller ID
	wait(t, soon, "the claim that waits", func() bool { return watcher.Status().Conflicts == 1 })

	forge(peerTable, ep.ID, mallory.claim(ep.ID, ep.Addr.String()))
	wait(t, soon, "the owner's record back after a forgery", restored(old))
	forge(peerTable, ep.ID, nil)
	wait(t, soon, "the owner's record back after its deletion", restored(old))
	// What changes hands is the record, never the endpoint.
	watcher.waitOwned(0, 1, "owner")
	forge(identityTable, owner.Name(), mallory.entry(id, func(i *directory.Identity) { i.Name = owner.Name() }))
	wait(t, soon, "the owner's identity back", func() bool {
		got, err := forger.db.GetEntry(identityTable, id, owner.Name())
		return err == nil && !bytes.Equal(got, mallory.entry(id, func(i *directory.Identity) { i.Name = owner.Name() }))
	})
	watcher.waitOwned(0, 1, "owner")

	// The owner releases the endpoint, and the forger repeats the old claim.
	if err := owner.RemoveEndpoint(id, ep.ID); err != nil {
		t.Fatal(err)
	}
	watcher.waitOwned(0, 1, "mallory")
	forge(peerTable, "a", mallory.claim("a", ep.Addr.String(), released))
	watcher.waitOwned(0, 1, "")
	forge(peerTable, ep.ID, old)
	newcomer := startNode(t, freshAddr(), t.TempDir())
	if err := newcomer.SetKeys(testKeys(1, 2, 3)); err != nil {
		t.Fatal(err)
	}
	newcomer.Join([]string{watcher.addr().String()})
	newcomer.identify(swarm, "newcomer", s)
	newcomer.joinSealed(0)
	newcomer.waitOwned(0, 2, "watcher")
	wait(t, soon, "the old claim contradicted", func() bool {
		_, err := forger.db.GetEntry(peerTable, id, ep.ID)
		return err != nil
	})
	newcomer.waitOwned(0, 1, "")
	watcher.waitOwned(0, 1, "")
}

// An owner that is killed loses its endpoint when its session ends, not before.
func TestOwnerKilled(t *testing.T) {
	t.Parallel()
	swarm, s := newTestSwarm(t), new(sessions)
	nodes := startNodes(t, 2)
	for i, n := range nodes {
		n.identify(swarm, []string{"node0", "node1"}[i], s)
		n.joinSealed(0)
	}
	dying := swarm.member("dying", "eeeeeeeeeeee", freshAddr().String())
	addr := dying.vtep
	ring, err := gossipKeys(testKeys(1, 2, 3))
	if err != nil {
		t.Fatal(err)
	}
	g, err := startGossip(&Config{BindAddr: addr, AdvertiseAddr: addr, Port: DefaultPort, Log: nodes[0].cfg.Log}, dying.name, ring)
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.proven["dying"] = dying.identity()
	s.mu.Unlock()
	if err := g.join([]string{nodes[0].addr().String()}, DefaultPort); err != nil {
		t.Fatal(err)
	}
	id := testNet(0).ID
	g.apply(map[string]map[string]entry{id: {
		"ep":       {place: dying.claim("ep", testEP(0, 7).Addr.String()), released: dying.claim("ep", testEP(0, 7).Addr.String(), released)},
		dying.name: {identity: dying.entry(id)},
	}})
	for _, n := range nodes {
		n.waitOwned(0, 7, "dying")
	}
	g.close() // as when gossip starts anew: it says goodbye, but releases nothing
	on := func(n *testNode) bool { _, ok := n.store.Load(id).Peers[addr]; return ok }
	for _, n := range nodes {
		wait(t, soon, "gone from gossip", func() bool {
			return !slices.ContainsFunc(n.Status().Nodes, func(o Node) bool { return o.Addr == addr })
		})
		if n.find(0, 7) == nil || !on(n) {
			t.Error("an endpoint whose owner is in session has gone")
		}
		if _, known := n.store.Load(id).Identities["dying"]; !known {
			t.Error("the identity of a node in session has gone")
		}
	}
	s.end("dying")
	for _, n := range nodes {
		n.waitOwned(0, 7, "")
		if on(n) {
			t.Error("its VTEP is still a peer")
		}
	}
}

// A worker that restarts while no manager answers knows whom to shake hands with,
// and whose the endpoints are.
func TestSealedRestart(t *testing.T) {
	t.Parallel()
	swarm, s := newTestSwarm(t), new(sessions)
	nodes := startNodes(t, 2)
	dir := t.TempDir()
	nodes[0].identify(swarm, "node0", s)
	nodes[0].joinSealed(0)
	nodes[0].add(0, 1)
	nodes[1].stop()
	worker := startNode(t, freshAddr(), dir)
	if err := worker.SetKeys(testKeys(1, 2, 3)); err != nil {
		t.Fatal(err)
	}
	worker.Join([]string{nodes[0].addr().String()})
	worker.identify(swarm, "worker", s)
	worker.joinSealed(0)
	worker.waitOwned(0, 1, "node0")
	worker.stop()

	worker = startNode(t, worker.addr(), dir, func(d *Discovery) { d.keys = nil }) // gossip is away too
	worker.joinSealed(0)
	worker.waitOwned(0, 1, "node0")
	if i := worker.store.Load(testNet(0).ID).Identities["node0"]; i.Static != s.proven["node0"].Static || i.VTEP != nodes[0].addr() {
		t.Errorf("remembers %+v", i)
	}
	if worker.Status().Remembered != 1 {
		t.Errorf("%+v", worker.Status())
	}
}

func TestSetIdentityRefuses(t *testing.T) {
	n := startNode(t, freshAddr(), t.TempDir())
	sign := func(crypto.EndpointClaim) []byte { return nil }
	for what, id := range map[string]directory.Identity{
		"no ID":        {Signature: []byte{1}},
		"odd ID":       {NodeID: "a/b", Signature: []byte{1}},
		"no signature": {NodeID: "node", VTEP: netip.MustParseAddr("192.0.2.1")},
	} {
		if err := n.SetIdentity(id, sign); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
}

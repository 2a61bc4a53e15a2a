package discovery

import (
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/ovnd/ovnd/crypto"
	"github.com/ovnd/ovnd/discovery/directory"
)

// namesake is a node that says it were another one: its own keys, its own place in
// gossip, the other's ID.
func namesake(t *testing.T, of, name, vtep string) *member {
	t.Helper()
	return newTestSwarm(t).member(of, name, vtep)
}

// identities lets time pass and collects the static keys with which a node is to
// be called.
func (v *view) identities(node string, d time.Duration) map[[32]byte]bool {
	keys := make(map[[32]byte]bool)
	for end := v.now.Add(d); v.now.Before(end); v.now = v.now.Add(200 * time.Millisecond) {
		if v.stirs() {
			v.snapshot(1)
		}
		keys[v.called[node].Static] = true
	}
	return keys
}

// Another member says first that it were the owner. As long as nobody has proved
// it, each of the two is called in turn; then the one that has.
func TestNamesake(t *testing.T) {
	owner, mallory, _ := trio(t)
	v := newView(t)
	fakes := []*member{namesake(t, owner.node, "eeeeeeeeeeee", "192.0.2.66"), namesake(t, owner.node, "000000000000", "192.0.2.67")}
	v.joins(mallory)
	v.joins(fakes...)
	v.joins(owner)
	v.snapshot(1)
	if !v.identities(owner.node, 3*time.Minute)[owner.identity().Static] {
		t.Error("the owner is never called")
	}
	v.shakes(owner)
	v.stirs()
	v.snapshot(1)
	if keys := v.identities(owner.node, 3*time.Minute); len(keys) != 1 || !keys[owner.identity().Static] {
		t.Errorf("in session with the owner %d are called", len(keys))
	}

	// It restarts, while its old record is about still.
	delete(v.alive, owner.node)
	again := newTestSwarm(t).member(owner.node, "ffffffffffff", "192.0.2.11")
	v.joins(again)
	if !v.identities(owner.node, 3*time.Minute)[again.identity().Static] {
		t.Error("the owner is never called after its restart")
	}
}

// Another member says that there were more nodes than there can be.
func TestManyNamesakes(t *testing.T) {
	owner, mallory, _ := trio(t)
	v := newView(t)
	v.joins(mallory)
	for i := range maxNodes - 1 {
		name := fmt.Sprintf("%012x", i)
		v.addIdentity(&identity{Identity: directory.Identity{NodeID: "n" + name, Name: name, VTEP: mallory.vtep}})
	}
	v.joins(owner)
	if snap, _ := v.snapshot(1); snap.Identities[owner.node].Static != owner.identity().Static {
		t.Errorf("no room for a real one beside %d", len(v.network.identities))
	}
}

func quiet(t *testing.T) *Discovery {
	t.Helper()
	d, err := New(Config{AdvertiseAddr: freshAddr(), StateDir: t.TempDir(), Store: directory.NewStore(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// The list of removed nodes is full: the latest removal counts all the same.
func TestManyRevocations(t *testing.T) {
	swarm, d := newTestSwarm(t), quiet(t)
	d.OnRevocations(swarm.verify, func([]string) {})
	now := time.Now()
	for i := range maxRevocations {
		id := fmt.Sprint("node", i)
		b, err := crypto.Revocation{NodeID: id, Time: now.Add(time.Duration(i-maxRevocations) * time.Second), Chain: [][]byte{{1}}}.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		d.revoked.known[id] = b
	}
	last := "latest"
	b, err := swarm.revocation("manager", last).AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	d.mu.Lock()
	_, err = d.takeRevocation(last+".manager", b)
	d.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	ids := d.Revoked()
	if !slices.Contains(ids, last) || slices.Contains(ids, "node0") || len(ids) != maxRevocations {
		t.Errorf("%d removed nodes are known", len(ids))
	}
}

// More nodes were removed than are told of: the others are told of the first.
func TestPublishTooMany(t *testing.T) {
	swarm, d := newTestSwarm(t), quiet(t)
	one := swarm.revocation("manager", "removed")
	list := make([]crypto.Revocation, maxRevocations+10)
	for i := range list {
		list[i] = one
		list[i].NodeID = fmt.Sprint("node", i)
	}
	if err := d.PublishRevocations(list); err != nil || len(d.revoked.mine) != maxRevocations || d.revoked.mine["node0"] == nil {
		t.Errorf("%v: %d", err, len(d.revoked.mine))
	}
}

// A member fills what waits to be verified, before this node has the swarm's
// roots: a true revocation counts once it has.
func TestPendingRevocationsFull(t *testing.T) {
	t.Parallel()
	swarm, s := newTestSwarm(t), new(sessions)
	nodes := startNodes(t, 2)
	manager, worker := nodes[0], nodes[1]
	manager.identify(swarm, "manager", s)
	worker.mu.Lock()
	for i := range maxPending {
		id := fmt.Sprint("junk", i)
		b, err := crypto.Revocation{NodeID: id, Chain: [][]byte{{1}}, Signature: []byte{1}}.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := worker.takeRevocation(id+".x", b); err == nil {
			t.Fatal("believed")
		}
	}
	worker.mu.Unlock()
	for _, n := range nodes {
		if err := n.JoinNetwork(ingress()); err != nil {
			t.Fatal(err)
		}
	}
	if err := manager.PublishRevocations([]crypto.Revocation{swarm.revocation("manager", "removed")}); err != nil {
		t.Fatal(err)
	}
	// The manager's removal has come to the worker when a name of it has.
	manager.add(0, 1)
	worker.waitNamed(0, 1)
	time.Sleep(settlePauses[0] + settlePauses[1] + 2*settleTime) // it is not said again
	var told blacklist
	worker.OnRevocations(swarm.verify, told.add)
	wait(t, soon, "the revocation", func() bool { return slices.Contains(told.get(), "removed") })
}

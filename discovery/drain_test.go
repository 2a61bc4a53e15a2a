package discovery

import (
	"context"
	"errors"
	"iter"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/ovnd/ovnd/discovery/directory"
)

// follow has a node apply each version after a while, until the test ends.
func follow(n *testNode, after time.Duration) {
	changes, cancel := n.store.Subscribe()
	n.t.Cleanup(cancel)
	go func() {
		for id := range changes {
			if snap := n.store.Load(id); snap != nil {
				time.Sleep(after)
				n.Applied(id, snap.Version)
			}
		}
	}()
}

// draining has n drain its endpoint and reports how long that took.
func draining(ctx context.Context, t *testing.T, n *testNode, host int) (time.Duration, error) {
	t.Helper()
	start := time.Now()
	err := n.Drain(ctx, testNet(0).ID, testEP(0, host).ID)
	took := time.Since(start)
	t.Logf("drained after %s: %v", took.Round(time.Millisecond), err)
	return took, err
}

// threeOnNetwork starts three nodes with an endpoint each, host 1 to 3, which all
// of them know by name.
func threeOnNetwork(t *testing.T) []*testNode {
	t.Helper()
	nodes := startNodes(t, 3)
	for i, n := range nodes {
		n.join(0)
		n.add(0, i+1)
	}
	for _, n := range nodes {
		for host := 1; host <= 3; host++ {
			n.waitNamed(0, host)
		}
	}
	return nodes
}

// waitSpeakers waits until n has the record of each of the others.
func (n *testNode) waitSpeakers(count int) {
	n.t.Helper()
	wait(n.t, soon, "records of the other nodes", func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return len(n.networks[testNet(0).ID].acks.others) == count
	})
}

// nobodyDrains reports whether none of the others says that something drains.
func (n *testNode) nobodyDrains() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, draining := range n.networks[testNet(0).ID].acks.others {
		if len(draining) > 0 {
			return false
		}
	}
	return true
}

// Drain returns when the others have applied that an endpoint takes no new
// connections, and soon.
func TestDrain(t *testing.T) {
	t.Parallel()
	nodes := threeOnNetwork(t)
	for _, n := range nodes {
		follow(n, 10*time.Millisecond)
	}
	nodes[0].waitSpeakers(2)
	best := time.Minute
	for round := range 3 {
		if round > 0 {
			nodes[0].add(0, 1)
			wait(t, soon, "back in use everywhere", nodes[0].nobodyDrains)
		}
		took, err := draining(t.Context(), t, nodes[0], 1)
		if err != nil {
			t.Fatal(err)
		}
		best = min(best, took)
		for i, n := range nodes {
			if !n.find(0, 1).Disabled {
				t.Errorf("node %d may still choose the endpoint", i)
			}
		}
	}
	if best > silentTime {
		t.Errorf("at best %s: nobody said that it has applied it", best)
	}
}

// A node that is slow to apply a version is waited for.
func TestDrainWaits(t *testing.T) {
	t.Parallel()
	nodes := threeOnNetwork(t)
	follow(nodes[0], 0)
	follow(nodes[1], 0)
	nodes[0].waitSpeakers(2)
	ctx, cancel := context.WithTimeout(t.Context(), silentTime+time.Second)
	defer cancel()
	if took, err := draining(ctx, t, nodes[0], 1); !errors.Is(err, context.DeadlineExceeded) || took < silentTime {
		t.Errorf("did not wait for a node that has not applied it: %v after %s", err, took)
	}
	if !nodes[0].find(0, 1).Disabled {
		t.Error("the endpoint is not draining")
	}
	follow(nodes[2], 0)
	if _, err := draining(t.Context(), t, nodes[0], 1); err != nil {
		t.Error(err)
	}
}

// Nobody else on the network, a node that never speaks as Docker's, and one that
// leaves meanwhile: none of them holds it up for long.
func TestDrainWithoutAnswers(t *testing.T) {
	t.Parallel()
	alone := startNodes(t, 1)[0]
	alone.join(0)
	alone.add(0, 1)
	if took, err := draining(t.Context(), t, alone, 1); err != nil || took > silentTime/2 {
		t.Errorf("alone: %v after %s", err, took)
	}

	silent := silentNode(t, alone)
	wait(t, soon, "the silent node on the network", func() bool {
		return len(alone.store.Load(testNet(0).ID).Peers) == 2 && len(silent.nodesOf(testNet(0).ID)) == 2
	})
	took, err := draining(t.Context(), t, alone, 1)
	if err != nil || took < silentTime || took >= drainTime {
		t.Errorf("with a silent node: %v after %s, want about %s", err, took, silentTime)
	}

	nodes := threeOnNetwork(t)
	follow(nodes[1], 0)
	nodes[0].waitSpeakers(2)
	time.AfterFunc(100*time.Millisecond, func() { nodes[2].LeaveNetwork(testNet(0).ID) })
	if took, err := draining(t.Context(), t, nodes[0], 1); err != nil || took >= drainTime {
		t.Errorf("with a node that leaves: %v after %s", err, took)
	}
}

// silentNode starts a node that gossips on network 0 as Docker's do, and has
// joined n.
func silentNode(t *testing.T, n *testNode) *gossip {
	t.Helper()
	addr := freshAddr()
	ring, err := gossipKeys(testKeys(1, 2, 3))
	if err != nil {
		t.Fatal(err)
	}
	g, err := startGossip(&Config{BindAddr: addr, AdvertiseAddr: addr, Port: DefaultPort, Log: n.cfg.Log}, newName(), ring)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.close() })
	if err := g.join([]string{n.addr().String()}, DefaultPort); err != nil {
		t.Fatal(err)
	}
	if !g.apply(map[string]map[string]entry{testNet(0).ID: {}}) {
		t.Fatal("cannot join the network")
	}
	return g
}

func TestDrainRefuses(t *testing.T) {
	n := startNode(t, freshAddr(), t.TempDir())
	if n.Drain(t.Context(), "nowhere", "x") == nil {
		t.Error("drains on a network that was not joined")
	}
	n.join(0)
	if n.Drain(t.Context(), testNet(0).ID, "x") == nil {
		t.Error("drains an endpoint that is none of this node's")
	}
}

// What a node says it has applied is what was draining in the newest version
// that it applied.
func TestAcks(t *testing.T) {
	disabled := func(draining ...string) iter.Seq[*directory.Endpoint] {
		var eps []*directory.Endpoint
		for i, id := range draining {
			ep := testEP(0, i+1)
			ep.ID, ep.Disabled, ep.NodeID = id, true, "other"
			eps = append(eps, &ep)
		}
		own := testEP(0, 1000)
		own.Disabled, own.NodeID = true, "self"
		return slices.Values(append(eps, &own))
	}
	var a acks
	for v, draining := range [][]string{nil, {"a"}, {"a"}, {"a", "b"}, nil} {
		a.note(uint64(v+1), disabled(draining...), "self")
	}
	want := func(ids ...string) (set []uint64) {
		for _, id := range ids {
			set = append(set, drainID(id))
		}
		slices.Sort(set)
		return set
	}
	for _, step := range []struct {
		version uint64
		changed bool
		want    []uint64
	}{{1, false, nil}, {3, true, want("a")}, {4, true, want("a", "b")}, {4, false, want("a", "b")}, {9, true, want()}} {
		if changed := a.apply(step.version); changed != step.changed || !slices.Equal(a.applied, step.want) {
			t.Errorf("version %d: changed %t, applied %x, want %x", step.version, changed, a.applied, step.want)
		}
	}
	for v := range uint64(10 * maxMarks) {
		a.note(100+v, disabled(testEP(0, int(v)).ID), "self")
	}
	if len(a.marks) != maxMarks {
		t.Errorf("%d versions kept, want %d", len(a.marks), maxMarks)
	}
}

// FuzzAppliedRecord checks that what is accepted is bounded and the same after
// having been encoded again.
func FuzzAppliedRecord(f *testing.F) {
	for _, set := range [][]uint64{nil, {drainID("a")}, make([]uint64, maxDraining)} {
		b, err := putApplied(set)
		if err != nil || len(b) == 0 || len(b) > 1200 {
			f.Fatalf("%d endpoints: %d bytes, %v", len(set), len(b), err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		set, err := parseApplied(b)
		if err != nil {
			return
		}
		if len(set) > maxDraining {
			t.Fatalf("accepted %d endpoints", len(set))
		}
		again, err := putApplied(set)
		if err != nil {
			t.Fatal(err)
		}
		if m, err := parseApplied(again); err != nil || !reflect.DeepEqual(m, set) {
			t.Fatalf("%x became %x, %v", set, m, err)
		}
	})
}

package discovery

import (
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/ovnd/ovnd/discovery/directory"
)

// Keys rotate while endpoints come and go: node by node, as the managers'
// dispatchers hand them out, so that for a while the nodes send with different
// keys. Nothing is lost and nobody leaves.
func TestKeyRotation(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, 3)
	for i, n := range nodes {
		n.join(0)
		n.add(0, i+1)
	}
	host := 10
	for rotation := range uint64(4) {
		tags := []uint64{rotation + 2, rotation + 3, rotation + 4}
		for i, n := range nodes {
			if err := n.SetKeys(testKeys(tags...)); err != nil {
				t.Fatal(err)
			}
			host++
			nodes[(i+1)%len(nodes)].add(0, host)
			for _, o := range nodes {
				o.waitFor(soon, 0, host)
			}
		}
	}
	for i, n := range nodes {
		if got := len(n.Status().Nodes); got != 3 {
			t.Errorf("node %d has %d nodes in gossip", i, got)
		}
		for h := 1; h <= 3; h++ {
			if n.find(0, h) == nil {
				t.Errorf("node %d lost endpoint %d", i, h)
			}
		}
	}

	// A node that has the first keys alone is one of another swarm by now.
	stranger := startNode(t, freshAddr(), t.TempDir())
	if err := stranger.SetKeys(testKeys(1)); err != nil {
		t.Fatal(err)
	}
	stranger.Join([]string{nodes[0].addr().String()})
	stranger.join(0)
	time.Sleep(time.Second) // a time in which the others took three steps
	if stranger.find(0, 1) != nil || len(nodes[0].Status().Nodes) != 3 {
		t.Error("a key that was removed still opens gossip")
	}
}

// All nodes join a network and add an endpoint at the same moment.
func TestJoinAtOnce(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, 3)
	for round := range 5 {
		for i, n := range nodes {
			n.join(round)
			n.add(round, i+1)
		}
		for _, n := range nodes {
			for h := 1; h <= 3; h++ {
				n.waitFor(soon, round, h)
			}
		}
	}
}

// Two nodes join a network and have said all that they have to say before they
// hear of each other. This is below Discovery, which would not let them be alone.
func TestCrossed(t *testing.T) {
	t.Parallel()
	const id = "net"
	routeLogs(slog.New(slog.DiscardHandler))
	var pair []*gossip
	for i := range 2 {
		addr := freshAddr()
		ring, err := gossipKeys(testKeys(1, 2, 3))
		if err != nil {
			t.Fatal(err)
		}
		cfg := &Config{BindAddr: addr, AdvertiseAddr: addr, Port: DefaultPort, Log: slog.New(slog.DiscardHandler)}
		g, err := startGossip(cfg, newName(), ring)
		if err != nil {
			t.Fatal(err)
		}
		defer g.close()
		mine := fmt.Sprint("ep", i)
		if !g.apply(map[string]map[string]entry{id: {mine: {place: []byte(mine), naming: []byte(mine)}}}) {
			t.Fatal("cannot publish an entry")
		}
		pair = append(pair, g)
	}
	time.Sleep(time.Second) // five rounds of gossip, of which an entry takes part in four
	if err := pair[0].join([]string{pair[1].addr()}, DefaultPort); err != nil {
		t.Fatal(err)
	}
	wait(t, soon, "both entries at both nodes", func() bool {
		complete := true
		for _, g := range pair {
			g.crossed()
			for _, table := range []string{peerTable, endpointTable} {
				complete = complete && len(g.db.GetTableByNetwork(table, id)) == 2
			}
		}
		return complete
	})
}

// addr returns the address at which g is reached.
func (g *gossip) addr() string {
	for _, p := range g.db.ClusterPeers() {
		if p.Name == g.self {
			return p.IP.String()
		}
	}
	return ""
}

// Two nodes have run alone, with endpoints, before the first reaches the second.
func TestManagerComesLate(t *testing.T) {
	t.Parallel()
	manager, worker := startNode(t, freshAddr(), t.TempDir()), startNode(t, freshAddr(), t.TempDir())
	for i, n := range []*testNode{manager, worker} {
		if err := n.SetKeys(testKeys(1, 2, 3)); err != nil {
			t.Fatal(err)
		}
		n.join(0)
		n.add(0, i+1)
		n.waitNodes(1)
	}
	// Long enough for what they gossiped to be forgotten, and for none to think
	// that they came at the same moment.
	time.Sleep(crossingWindow + time.Second)
	worker.Join([]string{manager.addr().String()})
	worker.waitFor(soon, 0, 1)
	manager.waitFor(soon, 0, 2)
}

// What is remembered counts while nobody can contradict it, and goes when gossip
// is there and does not confirm it.
func TestRememberedDropped(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	nodes := startNodes(t, 2)
	worker := startNode(t, freshAddr(), dir)
	if err := worker.SetKeys(testKeys(1, 2, 3)); err != nil {
		t.Fatal(err)
	}
	worker.Join([]string{nodes[0].addr().String()})
	worker.join(0)
	for i, n := range nodes {
		n.join(0)
		n.add(0, i+1)
		worker.waitFor(soon, 0, i+1)
	}
	worker.stop()
	nodes[1].stop()

	shorten := func(d *Discovery) { d.unconfirmedFor = 3 * time.Second }
	worker = startNode(t, worker.addr(), dir, shorten)
	worker.join(0)
	if worker.find(0, 1) == nil || worker.find(0, 2) == nil || worker.Status().Remembered != 2 {
		t.Fatal("the endpoints of the last run are not remembered")
	}
	if name := worker.find(0, 1).Name; name != "ep1" {
		t.Errorf("name %q, want ep1", name)
	}
	worker.waitNodes(2) // by the nodes that it remembers
	worker.waitGone(soon, 0, 2)
	wait(t, soon, "the endpoint that gossip confirms", func() bool {
		return worker.find(0, 1) != nil && worker.Status().Remembered == 0
	})
}

func TestWithdrawnIsNotRemembered(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	nodes := startNodes(t, 1)
	worker := startNode(t, freshAddr(), dir)
	if err := worker.SetKeys(testKeys(1, 2, 3)); err != nil {
		t.Fatal(err)
	}
	worker.Join([]string{nodes[0].addr().String()})
	worker.join(0)
	nodes[0].join(0)
	nodes[0].add(0, 1)
	worker.waitFor(soon, 0, 1)
	nodes[0].stop()
	worker.waitGone(soon, 0, 1)
	worker.stop()

	worker = startNode(t, worker.addr(), dir)
	worker.join(0)
	if worker.find(0, 1) != nil {
		t.Error("an endpoint that was withdrawn is remembered")
	}
}

// A thousand endpoints, half of them there before the second node comes and half
// added while it is there. The first come by bulk sync; the others at the pace
// of NetworkDB's gossip, some seven records in 200 ms, until the next periodic
// bulk sync, which comes within 60 s, brings the rest.
func TestThousandEndpoints(t *testing.T) {
	if testing.Short() {
		t.Skip("takes up to a minute")
	}
	t.Parallel()
	const half = 500
	nodes := startNodes(t, 2)
	nodes[0].join(0)
	for h := range half {
		nodes[0].add(0, h+1)
	}
	time.Sleep(time.Second) // for the second to hear that the first is on the network
	named := func(count int) func() bool {
		return func() bool {
			found := 0
			for _, ep := range nodes[1].store.Load(testNet(0).ID).Endpoints.All() {
				if ep.Kind == directory.Task {
					found++
				}
			}
			return found == count
		}
	}
	nodes[1].join(0)
	wait(t, 3*soon, "500 endpoints by bulk sync", named(half))

	first := nodes[1].store.Load(testNet(0).ID).Version
	for h := range half {
		nodes[0].add(0, half+h+1)
	}
	wait(t, 3*soon, "1,000 endpoints", named(2*half))
	for h := 1; h <= 2*half; h++ {
		if ep := nodes[1].find(0, h); ep == nil || ep.Name != fmt.Sprintf("ep%d", h) {
			t.Fatalf("endpoint %d: %+v", h, ep)
		}
	}
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	t.Logf("%d versions; heap of both nodes %d KiB", nodes[1].store.Load(testNet(0).ID).Version-first, m.HeapAlloc>>10)
}

// When Run has returned, nothing that it started is left: neither sockets nor,
// once NetworkDB's calls have run into their time limits, goroutines.
func TestNothingLeft(t *testing.T) {
	before := goroutines()
	addrs := []netip.Addr{freshAddr(), freshAddr()}
	swarm, s := newTestSwarm(t), new(sessions)
	for range 2 {
		var nodes []*testNode
		for i, addr := range addrs {
			n := startNode(t, addr, t.TempDir())
			if err := n.SetKeys(testKeys(1, 2, 3)); err != nil {
				t.Fatal(err)
			}
			n.Join([]string{addrs[0].String()})
			n.identify(swarm, fmt.Sprint("node", i), s)
			n.joinSealed(0)
			n.add(0, i+1)
			nodes = append(nodes, n)
		}
		nodes[0].waitFor(soon, 0, 2)
		nodes[1].waitFor(soon, 0, 1)
		if goroutines() <= before {
			t.Fatal("the count of goroutines misses NetworkDB's")
		}
		for i, n := range nodes {
			n.stop()
			if err := checkPort(addrs[i], DefaultPort); err != nil {
				t.Fatal(err)
			}
		}
	}
	wait(t, soon, "as many goroutines as before", func() bool { return goroutines() <= before })
}

// goroutines counts those that run code of this package's dependencies.
func goroutines() (n int) {
	buf := make([]byte, 4<<20)
	for g := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
		if strings.Contains(g, "memberlist") || strings.Contains(g, "networkdb") || strings.Contains(g, "go-events") {
			n++
		}
	}
	return n
}

package discovery

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/encap"
)

// soon is how long a test waits for what takes less than a second on a machine
// with nothing else to do; the logs say how long it took.
const soon = 60 * time.Second

// lastHost is the loopback address given out last. The tests have a network
// namespace of their own, so nobody else uses them.
var lastHost atomic.Uint32

func freshAddr() netip.Addr {
	n := lastHost.Add(1)
	return netip.AddrFrom4([4]byte{127, 1, byte(n >> 8), byte(n)})
}

// testKeys returns gossip keys with the given tags, each with other bytes.
func testKeys(tags ...uint64) []Key {
	var keys []Key
	for _, t := range tags {
		keys = append(keys,
			Key{Subsystem: "networking:ipsec", Tag: t, Key: bytes.Repeat([]byte{0xee}, 16)},
			Key{Subsystem: SubsystemGossip, Tag: t, Key: bytes.Repeat([]byte{byte(t)}, 16)})
	}
	return keys
}

// testNet is network number i.
func testNet(i int) NetworkConfig {
	return NetworkConfig{
		ID:         fmt.Sprintf("net%022d", i),
		Name:       fmt.Sprintf("net%d", i),
		VNI:        encap.VNI(4097 + i),
		Subnets:    []directory.Subnet{{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(10 + i), 0, 0}), 16)}},
		Attachable: true,
	}
}

// testEP is an endpoint with the host part host on network number i.
func testEP(i, host int) directory.Endpoint {
	return directory.Endpoint{
		ID:   fmt.Sprintf("%032d%032d", i, host),
		Name: fmt.Sprintf("ep%d", host),
		Addr: netip.AddrFrom4([4]byte{10, byte(10 + i), byte(host >> 8), byte(host)}),
	}
}

// A testNode is a running Discovery.
type testNode struct {
	*Discovery
	t     *testing.T
	cfg   Config
	stop  func() // ends Run and waits for it
	store *directory.Store
}

func (n *testNode) addr() netip.Addr { return n.cfg.AdvertiseAddr }

// startNode runs a node at addr with its state in dir. tune may change it before
// it runs.
func startNode(t *testing.T, addr netip.Addr, dir string, tune ...func(*Discovery)) *testNode {
	t.Helper()
	store := directory.NewStore()
	var logged testLog
	cfg := Config{
		BindAddr: addr, AdvertiseAddr: addr, StateDir: dir, Store: store,
		Log: slog.New(slog.NewTextHandler(&logged, nil)),
	}
	d, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range tune {
		f(d)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	n := &testNode{Discovery: d, t: t, cfg: cfg, store: store}
	stopped := false
	n.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(soon):
			t.Error("Run does not end")
		}
		if t.Failed() {
			t.Logf("log of %s:\n%s", addr, logged.String())
		}
	}
	t.Cleanup(n.stop)
	return n
}

// startNodes runs count nodes with the same keys, all joined through the first.
func startNodes(t *testing.T, count int) []*testNode {
	t.Helper()
	var nodes []*testNode
	for i := range count {
		n := startNode(t, freshAddr(), t.TempDir())
		if err := n.SetKeys(testKeys(1, 2, 3)); err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			n.Join([]string{nodes[0].addr().String() + ":2377"})
		}
		nodes = append(nodes, n)
	}
	for _, n := range nodes {
		n.waitNodes(count)
	}
	return nodes
}

func (n *testNode) waitNodes(count int) {
	n.t.Helper()
	wait(n.t, soon, fmt.Sprintf("%d nodes in gossip at %s", count, n.addr()), func() bool {
		return len(n.Status().Nodes) == count
	})
}

func (n *testNode) join(i int) {
	n.t.Helper()
	if err := n.JoinNetwork(testNet(i)); err != nil {
		n.t.Fatal(err)
	}
}

func (n *testNode) add(i, host int) {
	n.t.Helper()
	if err := n.AddEndpoint(testNet(i).ID, testEP(i, host)); err != nil {
		n.t.Fatal(err)
	}
}

// find returns the endpoint host of network i in n's snapshot, nil if absent.
func (n *testNode) find(i, host int) *directory.Endpoint {
	snap := n.store.Load(testNet(i).ID)
	if snap == nil {
		return nil
	}
	ep, _ := snap.Lookup(testEP(i, host).Addr)
	return ep
}

func (n *testNode) waitFor(within time.Duration, i, host int) *directory.Endpoint {
	n.t.Helper()
	wait(n.t, within, fmt.Sprintf("endpoint %d of network %d at %s", host, i, n.addr()), func() bool {
		return n.find(i, host) != nil
	})
	return n.find(i, host)
}

// waitNamed waits for both records of an endpoint.
func (n *testNode) waitNamed(i, host int) {
	n.t.Helper()
	wait(n.t, soon, fmt.Sprintf("endpoint %d of network %d by name at %s", host, i, n.addr()), func() bool {
		ep := n.find(i, host)
		return ep != nil && ep.Kind == directory.Task
	})
}

func (n *testNode) waitGone(within time.Duration, i, host int) {
	n.t.Helper()
	wait(n.t, within, fmt.Sprintf("no endpoint %d of network %d at %s", host, i, n.addr()), func() bool {
		return n.find(i, host) == nil
	})
}

func wait(t *testing.T, within time.Duration, what string, cond func() bool) {
	t.Helper()
	start := time.Now()
	for !cond() {
		if time.Since(start) > within {
			t.Fatalf("after %s still not: %s", within, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Logf("%s after %s", what, time.Since(start).Round(time.Millisecond))
}

func TestEndpointsSeen(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, 3)
	for i, n := range nodes {
		n.join(0)
		n.add(0, i+1)
		if n.find(0, i+1) == nil {
			t.Fatal("a local endpoint is not in the snapshot at once")
		}
	}
	for i, n := range nodes {
		for j, owner := range nodes {
			ep := n.waitFor(soon, 0, j+1)
			if ep.VTEP != owner.addr() || ep.MAC != encap.EndpointMAC(ep.Addr) || ep.Name != fmt.Sprintf("ep%d", j+1) {
				t.Errorf("node %d sees %+v", i, ep)
			}
		}
	}

	// Once the network is known everywhere, a new endpoint is seen at once.
	nodes[1].add(0, 9)
	for _, n := range nodes {
		n.waitFor(soon, 0, 9)
		ep := n.find(0, 9)
		wait(t, soon, "its name", func() bool { ep = n.find(0, 9); return ep.Name == "ep9" && ep.Kind == directory.Task })
		if ep.NodeID != nodes[1].Name() {
			t.Errorf("owner %q, want %q", ep.NodeID, nodes[1].Name())
		}
		snap := n.store.Load(testNet(0).ID)
		for _, o := range nodes {
			if name := snap.Peers[o.addr()]; name != o.Name() {
				t.Errorf("peer %s is called %q, want %q", o.addr(), name, o.Name())
			}
		}
		if len(snap.Peers) != len(nodes) {
			t.Errorf("peers %v", snap.Peers)
		}
	}

	if err := nodes[1].RemoveEndpoint(testNet(0).ID, testEP(0, 9).ID); err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		n.waitGone(soon, 0, 9)
	}
}

func TestGracefulLeave(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, 3)
	for i, n := range nodes {
		n.join(0)
		n.add(0, i+1)
	}
	for _, n := range nodes {
		for host := 1; host <= 3; host++ {
			n.waitFor(soon, 0, host)
		}
	}
	start := time.Now()
	nodes[2].stop()
	t.Logf("leaving took %s", time.Since(start).Round(time.Millisecond))
	for _, n := range nodes[:2] {
		n.waitGone(soon, 0, 3)
		wait(t, soon, "the peer gone", func() bool {
			_, ok := n.store.Load(testNet(0).ID).Peers[nodes[2].addr()]
			return !ok
		})
	}
}

func TestNetworksAreIsolated(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, 3)
	nodes[0].join(0)
	nodes[0].join(1)
	nodes[1].join(0)
	nodes[2].join(1)
	nodes[0].add(0, 1)
	nodes[0].add(1, 1)
	nodes[1].add(0, 2)
	nodes[2].add(1, 3)
	nodes[0].waitFor(soon, 0, 2)
	nodes[0].waitFor(soon, 1, 3)
	nodes[1].waitFor(soon, 0, 1)
	nodes[2].waitFor(soon, 1, 1)

	if nodes[1].store.Load(testNet(1).ID) != nil || nodes[2].store.Load(testNet(0).ID) != nil {
		t.Error("a node has a network that it did not join")
	}
	if _, ok := nodes[1].store.Load(testNet(0).ID).Peers[nodes[2].addr()]; ok {
		t.Error("a node that is not on the network is a peer of it")
	}
	nodes[0].LeaveNetwork(testNet(1).ID)
	if nodes[0].store.Load(testNet(1).ID) != nil {
		t.Error("a network that was left is still there")
	}
	nodes[2].waitGone(soon, 1, 1)
	if nodes[1].find(0, 1) == nil {
		t.Error("leaving one network took an endpoint off another")
	}
}

func TestPortTaken(t *testing.T) {
	addr := freshAddr()
	l, err := net.Listen("tcp", netip.AddrPortFrom(addr, DefaultPort).String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = New(Config{AdvertiseAddr: addr, StateDir: t.TempDir(), Store: directory.NewStore()})
	if err == nil {
		t.Fatal("New took a port that another has")
	}
	for _, want := range []string{addr.String(), "7946", "--listen-addr"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not say %q", err, want)
		}
	}
}

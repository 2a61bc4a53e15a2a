package discovery

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"github.com/ovnd/ovnd/discovery/directory"
)

// A gossiper makes up what happens on a plain network: records in any order, of
// few endpoints that claim few addresses, members that come and go, endpoints of
// this node, another run.
type gossiper struct {
	*rand.Rand
	t *testing.T
}

func (g gossiper) addr() netip.Addr { return netip.AddrFrom4([4]byte{10, 10, 0, byte(2 + g.IntN(12))}) }

func (g gossiper) vtep() netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(20 + g.IntN(4))}) }

func (g gossiper) endpoint() directory.Endpoint {
	ep := directory.Endpoint{
		ID: fmt.Sprint("ep-", g.IntN(12)), Addr: g.addr(), MAC: [6]byte{2, 5: byte(g.IntN(2))}, VTEP: g.vtep(),
		Disabled: g.IntN(4) == 0, Pending: g.IntN(6) == 0,
	}
	ep.Name = "task-" + ep.ID
	if service := g.IntN(4); service > 0 {
		ep.ServiceID, ep.ServiceName = fmt.Sprint("id-", service), fmt.Sprint("name-", service)
		ep.VIP = netip.AddrFrom4([4]byte{10, 10, 1, byte(service)})
	}
	return ep
}

// event returns something that happens, to be applied to several networks alike.
func (g gossiper) event() func(*network) {
	ep := g.endpoint()
	place, err := putPlace(&ep, 16)
	if err != nil {
		g.t.Fatal(err)
	}
	naming, err := putNaming(&ep)
	if err != nil {
		g.t.Fatal(err)
	}
	learn := func(table string, value []byte) func(*network) {
		return func(n *network) {
			if _, err := n.learn(table, ep.ID, value); err != nil {
				g.t.Fatal(err)
			}
		}
	}
	switch g.IntN(16) {
	case 0, 1, 2, 3:
		return learn(peerTable, place)
	case 4, 5, 6:
		return learn(endpointTable, naming)
	case 7:
		return learn(peerTable, nil)
	case 8:
		return learn(endpointTable, nil)
	case 9:
		return func(n *network) { n.remember(ep.ID, place, naming) }
	case 10, 11:
		return func(n *network) { _ = n.add(ep) } // refused if another of this node's has the address
	case 12, 13:
		return func(n *network) { n.remove(ep.ID) }
	case 14:
		members := map[netip.Addr]string{g.vtep(): "bbbbbbbbbbbb", g.vtep(): "cccccccccccc"}
		return func(n *network) { n.setMembers(members) }
	default:
		switch name := fmt.Sprintf("%012d", g.IntN(3)); g.IntN(6) {
		case 0:
			return func(n *network) { n.rename(name) }
		case 1:
			return func(n *network) { n.forgetUnconfirmed() }
		}
		return func(*network) {}
	}
}

// A network that brings its picture up to date has the one that it would have if
// it looked at everything.
func TestDrawChanged(t *testing.T) {
	for seed := range uint64(40) {
		g := gossiper{rand.New(rand.NewPCG(seed, 4)), t}
		n, whole := newTestNetwork(t), newTestNetwork(t)
		for step := range 200 {
			for range g.IntN(4) {
				event := g.event()
				event(n)
				event(whole)
			}
			whole.noteAll()
			got, conflicts := n.snapshot(1)
			want, wantConflicts := whole.snapshot(1)
			if a, b := listed(got), listed(want); !reflect.DeepEqual(a, b) || conflicts != wantConflicts {
				t.Fatalf("seed %d, step %d: %d conflicts:\n%v\nwant %d:\n%v", seed, step, conflicts, a, wantConflicts, b)
			}
			if !reflect.DeepEqual(got.Peers, want.Peers) || !reflect.DeepEqual(summary(got), summary(want)) {
				t.Fatalf("seed %d, step %d: peers %v, services %v\nwant %v, %v", seed, step, got.Peers, summary(got), want.Peers, summary(want))
			}
		}
	}
}

func listed(snap *directory.Snapshot) (eps []string) {
	for ep := range snap.Endpoints.Values() {
		eps = append(eps, fmt.Sprintf("%+v\n", *ep))
	}
	slices.Sort(eps)
	return eps
}

// largeNetwork has heard of n endpoints of other nodes.
func largeNetwork(tb testing.TB, n int) (*network, func(i int, disabled bool)) {
	net, err := newNetwork(testNet(0), self{name: "aaaaaaaaaaaa", vtep: ownVTEP})
	if err != nil {
		tb.Fatal(err)
	}
	hear := func(i int, disabled bool) {
		ep := directory.Endpoint{
			ID: fmt.Sprint("ep-", i), Name: fmt.Sprint("task-", i), Addr: netip.AddrFrom4([4]byte{10, 10, byte(i >> 8), byte(i)}),
			VTEP: netip.AddrFrom4([4]byte{192, 0, 2, byte(20 + i%100)}), MAC: [6]byte{2, 4: byte(i >> 8), 5: byte(i)},
			ServiceID: fmt.Sprint("id-", i/10), ServiceName: fmt.Sprint("web-", i/10), Disabled: disabled,
		}
		place, err := putPlace(&ep, 16)
		if err != nil {
			tb.Fatal(err)
		}
		naming, err := putNaming(&ep)
		if err != nil {
			tb.Fatal(err)
		}
		for table, value := range map[string][]byte{peerTable: place, endpointTable: naming} {
			if _, err := net.learn(table, ep.ID, value); err != nil {
				tb.Fatal(err)
			}
		}
	}
	for i := range n {
		hear(i+2, false)
	}
	net.snapshot(1)
	return net, hear
}

// What one record costs does not depend on how many there are.
func TestSnapshotAllocations(t *testing.T) {
	var small float64
	for _, n := range []int{500, 50_000} {
		net, hear := largeNetwork(t, n)
		i := 0
		allocs := testing.AllocsPerRun(100, func() {
			i++
			hear(i%n+2, i%2 == 0)
			snap, _ := net.snapshot(1)
			net.acks.note(1, net.builder.Disabled(), "aaaaaaaaaaaa")
			if snap.Endpoints.Len() != n {
				t.Fatalf("%d endpoints", snap.Endpoints.Len())
			}
		})
		if small == 0 {
			small = allocs
		}
		if allocs > 250 || allocs > 1.5*small {
			t.Errorf("%d endpoints: a change costs %g allocations, among 500 %g", n, allocs, small)
		}
	}
}

func BenchmarkSnapshotOfMany(b *testing.B) {
	for _, n := range []int{500, 50_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			net, hear := largeNetwork(b, n)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				hear(i%n+2, i%2 == 0)
				net.snapshot(1)
			}
		})
	}
}

package discovery

import (
	"fmt"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"github.com/ovnd/ovnd/discovery/directory"
)

const (
	manyServices = 50
	tasksEach    = 3
)

// serviceEP is one task of a service on network 0.
func serviceEP(service, task int) directory.Endpoint {
	ep := testEP(0, 1000+service*tasksEach+task)
	ep.Name = fmt.Sprintf("s%d.%d", service, task+1)
	ep.ServiceID, ep.ServiceName = fmt.Sprintf("id%023d", service), fmt.Sprintf("s%d", service)
	ep.VIP = netip.AddrFrom4([4]byte{10, 10, 1, byte(service)})
	ep.Aliases = []string{"alias-" + ep.ServiceName}
	return ep
}

// summary is what the services of a snapshot come to, without what only the owner
// of an endpoint knows.
func summary(snap *directory.Snapshot) map[string]any {
	m := make(map[string]any)
	for _, s := range snap.SortedServices() {
		var addrs []netip.Addr
		for _, ep := range s.Backends {
			addrs = append(addrs, ep.Addr)
		}
		m[s.ID] = []any{s.Name, s.VIP, s.Aliases, s.Ports, addrs, len(s.Draining), snap.VIPs.At(s.VIP) == s}
	}
	return m
}

// Fifty services of three tasks, one task on each node: all nodes derive the same
// services, and lose a task that goes.
func TestServicesEqual(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, tasksEach)
	for i, n := range nodes {
		n.join(0)
		for s := range manyServices {
			if err := n.AddEndpoint(testNet(0).ID, serviceEP(s, i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	complete := func() bool {
		for _, n := range nodes {
			snap := n.store.Load(testNet(0).ID)
			if snap.Services.Len() != manyServices {
				return false
			}
			for _, s := range snap.Services.All() {
				if len(s.Backends) != tasksEach {
					return false
				}
			}
		}
		return true
	}
	wait(t, 2*soon, "all services complete on all nodes", complete)
	first := summary(nodes[0].store.Load(testNet(0).ID))
	for i, n := range nodes[1:] {
		if got := summary(n.store.Load(testNet(0).ID)); !reflect.DeepEqual(got, first) {
			t.Errorf("node %d derives %v\nnode 0 %v", i+1, got, first)
		}
	}

	gone := serviceEP(7, 1)
	if err := nodes[1].RemoveEndpoint(testNet(0).ID, gone.ID); err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		wait(t, soon, "the task out of its service", func() bool {
			return len(n.store.Load(testNet(0).ID).Services.At(gone.ServiceID).Backends) == tasksEach-1
		})
	}
}

// BenchmarkSnapshot is what one change costs on a network with 50 services of
// three tasks, of which a third are this node's.
func BenchmarkSnapshot(b *testing.B) {
	n, err := newNetwork(testNet(0), self{name: "aaaaaaaaaaaa", vtep: ownVTEP})
	if err != nil {
		b.Fatal(err)
	}
	for s := range manyServices {
		for task := range tasksEach {
			ep := serviceEP(s, task)
			if task == 0 {
				if err := n.add(ep); err != nil {
					b.Fatal(err)
				}
				continue
			}
			ep.VTEP, ep.MAC = netip.AddrFrom4([4]byte{192, 0, 2, byte(20 + task)}), [6]byte{2, 0, 0, 0, 0, byte(task)}
			place, err := putPlace(&ep, 16)
			if err != nil {
				b.Fatal(err)
			}
			naming, err := putNaming(&ep)
			if err != nil {
				b.Fatal(err)
			}
			for table, value := range map[string][]byte{peerTable: place, endpointTable: naming} {
				if _, err := n.learn(table, ep.ID, value); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		snap, _ := n.snapshot(1)
		n.acks.note(snap.Version, n.builder.Disabled(), "aaaaaaaaaaaa")
		if snap.Services.Len() != manyServices {
			b.Fatalf("%d services", snap.Services.Len())
		}
	}
}

// Removing an endpoint reaches the others within half a second on a machine that
// is not busy; the log says how long it took.
func TestRemovalIsFast(t *testing.T) {
	t.Parallel()
	nodes := startNodes(t, 3)
	for i, n := range nodes {
		n.join(0)
		n.add(0, i+1)
	}
	for _, n := range nodes {
		n.waitNamed(0, 1)
		n.waitNamed(0, 2)
		n.waitNamed(0, 3)
	}
	best := time.Hour
	for host := 10; host < 15; host++ {
		nodes[0].add(0, host)
		for _, n := range nodes {
			n.waitNamed(0, host)
		}
		start := time.Now()
		if err := nodes[0].RemoveEndpoint(testNet(0).ID, testEP(0, host).ID); err != nil {
			t.Fatal(err)
		}
		for _, n := range nodes {
			n.waitGone(soon, 0, host)
		}
		best = min(best, time.Since(start))
	}
	t.Logf("at best %s for three nodes", best.Round(time.Millisecond))
	if best > 10*time.Second {
		t.Errorf("a removal takes %s: it waited for a bulk sync", best)
	}
}

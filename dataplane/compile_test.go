package dataplane

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/ovnd/ovnd/crypto"
	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/encap"
)

// tables is a switch without sockets: enough to compile forwarding tables.
func tables(t testing.TB) *Switch {
	engine, err := crypto.New(crypto.Config{
		Identity: func() *crypto.Identity { return nil },
		Send:     func(netip.Addr, []byte) {},
		Changed:  func(string) {},
	})
	if err != nil {
		t.Fatal(err)
	}
	s := &Switch{
		services: &services{},
		local:    netip.MustParseAddrPort("192.0.2.1:4789"),
		sections: make([]section, 2),
		nets:     make(map[string]*directory.Snapshot),
		accounts: make(map[string]*account),
		peers:    make(map[netip.Addr]*peer),
		nodes:    make(map[*crypto.Peer]*sealedPeer),
		sessions: engine,
	}
	s.keeper = &keeper{ready: make(chan struct{}, 1)}
	s.table.Store(&table{})
	return s
}

// A churn is a network that changes at random. Its addresses are few, so that
// endpoints, VIPs, ports, a static VTEP's address and the broadcast address
// contend for them in all ways.
type churn struct {
	*rand.Rand
	snap *directory.Snapshot
	s    *Switch
}

func (c *churn) addr() netip.Addr { return netip.AddrFrom4([4]byte{10, 10, 0, byte(c.IntN(32))}) }

// vtep is this node's, another's, or of the other family.
func (c *churn) vtep() netip.Addr {
	if c.IntN(20) == 0 {
		return netip.MustParseAddr("fd00::1")
	}
	return netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + c.IntN(4))})
}

func (c *churn) step() {
	next := *c.snap
	next.Version++
	for range c.IntN(4) {
		a := c.addr()
		if c.IntN(3) == 0 {
			next.Endpoints = next.Endpoints.Without(a)
			continue
		}
		ep := &directory.Endpoint{Addr: a, MAC: encap.EndpointMAC(c.addr()), VTEP: c.vtep(), Owner: fmt.Sprint("node-", c.IntN(4))}
		next.Endpoints = next.Endpoints.With(a, ep)
	}
	switch vip := c.addr(); c.IntN(6) {
	case 0:
		next.VIPs = next.VIPs.With(vip, &directory.Service{VIP: vip})
	case 1:
		next.VIPs = next.VIPs.Without(vip)
	}
	switch c.IntN(20) {
	case 0:
		next.StaticVTEPs = []directory.StaticVTEP{{VTEP: c.vtep(), Addr: c.addr(), Learn: c.IntN(2) == 0, MAC: encap.EndpointMAC(c.addr())}}
	case 1:
		next.Subnets = []directory.Subnet{{Prefix: netip.PrefixFrom(netip.MustParseAddr("10.10.0.0"), 27+c.IntN(2))}}
	case 2:
		next.Identities = map[string]directory.Identity{}
		for i := range 4 {
			if c.IntN(2) == 0 {
				next.Identities[fmt.Sprint("node-", i)] = directory.Identity{VTEP: c.vtep()}
			}
		}
	case 3:
		next.Peers = map[netip.Addr]string{c.vtep(): "", c.vtep(): ""}
	}
	c.snap = &next
	c.ports()
}

// ports adds a port, or removes one.
func (c *churn) ports() {
	switch c.IntN(8) {
	case 0:
		p := &Port{cfg: PortConfig{NetworkID: "net", Addrs: []netip.Addr{c.addr()}, MAC: encap.EndpointMAC(c.addr())}}
		if c.IntN(2) == 0 {
			p.stack = &stackEnd{vips: true}
		}
		if c.s.mayAdd(p) == nil {
			c.s.ports = append(c.s.ports, p)
		}
	case 1:
		if n := len(c.s.ports); n > 0 {
			c.s.ports[c.IntN(n)] = nil
		}
	}
}

// A table that took over what had not changed is the one that is made from
// nothing, and so are its accounts.
func TestUpdateIsACompile(t *testing.T) {
	for seed := range uint64(60) {
		s := tables(t)
		c := &churn{Rand: rand.New(rand.NewPCG(seed, 3)), s: s}
		c.snap = &directory.Snapshot{
			ID: "net", VNI: 4097, MTU: 1450, Encrypted: seed%3 == 1,
			Subnets: []directory.Subnet{{Prefix: netip.MustParsePrefix("10.10.0.0/27")}},
		}
		if seed%3 == 2 {
			c.snap.VNI = 0 // a star
		}
		for step := range 200 {
			c.step()
			s.SetNetwork(c.snap)
			got, want := s.table.Load().networks["net"], s.compile(c.snap, nil)
			if a, b := maps.Collect(got.fib.All()), maps.Collect(want.fib.All()); !maps.Equal(a, b) {
				t.Fatalf("seed %d, step %d: %v\nwant %v", seed, step, a, b)
			}
			if !maps.Equal(got.from.behind, want.from.behind) {
				t.Fatalf("seed %d, step %d: routes by peer %v, want %v", seed, step, got.from.behind, want.from.behind)
			}
			for _, p := range s.peers {
				if v := got.peers[p.addr.AddrPort().Addr()]; v.peer != p && got.from.behind[p] == 0 {
					t.Fatalf("seed %d, step %d: a peer is kept that nothing leads to", seed, step)
				}
			}
		}
	}
}

// many is a network of n endpoints behind 100 VTEPs.
func many(n int) *directory.Snapshot {
	b := directory.NewBuilder(n)
	for i := range n {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		b.Set(&directory.Endpoint{Addr: a, MAC: encap.EndpointMAC(a), VTEP: netip.AddrFrom4([4]byte{192, 0, 2, byte(100 + i%100)})})
	}
	snap := &directory.Snapshot{ID: "net", VNI: 4097, MTU: 1450, Subnets: []directory.Subnet{{Prefix: netip.MustParsePrefix("10.0.0.0/8")}}}
	b.Fill(snap)
	return snap
}

func moved(snap *directory.Snapshot, i int) *directory.Snapshot {
	next := *snap
	next.Version++
	a := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
	next.Endpoints = next.Endpoints.With(a, &directory.Endpoint{Addr: a, VTEP: netip.AddrFrom4([4]byte{192, 0, 2, byte(100 + i%100)})})
	return &next
}

// A change costs the same in a large network as in a small one.
func TestUpdateAllocations(t *testing.T) {
	var small float64
	for _, n := range []int{1000, 100_000} {
		s, snap := tables(t), many(n)
		s.SetNetwork(snap)
		i := 0
		allocs := testing.AllocsPerRun(100, func() {
			i++
			snap = moved(snap, i)
			s.SetNetwork(snap)
		})
		if small == 0 {
			small = allocs
		}
		if allocs > 80 || allocs > 1.5*small {
			t.Errorf("%d endpoints: a change costs %g allocations, among a thousand %g", n, allocs, small)
		}
	}
}

// While a network changes all the time, what is sent over it arrives.
func TestUpdateUnderTraffic(t *testing.T) {
	w := twoNodes(t, 1500, false)
	w.network("net", 4097, 1450, "10.10.0.0/16")
	addrs := []netip.Addr{netip.MustParseAddr("10.10.0.5"), netip.MustParseAddr("10.10.0.6")}
	var stacks []*echoStack
	for _, a := range addrs {
		stacks = append(stacks, w.nodes[0].stack(StackPortConfig{NetworkID: "net", Addrs: []netip.Addr{a}}, false))
	}
	const pings = 2000
	var sending sync.WaitGroup
	const ahead = 100 // far fewer than wait for a stack before some are dropped
	for i, s := range stacks {
		sending.Go(func() {
			for sent := range pings {
				for sent-stacks[1-i].count(addrs[1-i].String()) > ahead && t.Context().Err() == nil {
					time.Sleep(100 * time.Microsecond)
				}
				s.port.Inject([][]byte{echoRequest(addrs[i], addrs[1-i])})
			}
		})
	}
	sent := make(chan struct{})
	go func() { sending.Wait(); close(sent) }()
	random := rand.New(rand.NewPCG(1, 1))
	for changing := true; changing; {
		select {
		case <-sent:
			changing = false
		default:
		}
		w.publish("net", func(s *directory.Snapshot) {
			for range 50 {
				a := netip.AddrFrom4([4]byte{10, 10, 1, byte(random.IntN(256))})
				s.Endpoints = s.Endpoints.With(a, &directory.Endpoint{Addr: a, VTEP: netip.AddrFrom4([4]byte{192, 0, 2, byte(50 + random.IntN(4))})})
			}
		})
	}
	total := w.nodes[0].sw.Stats().Total
	for i, s := range stacks {
		for began := time.Now(); s.count(addrs[i].String()) < pings; time.Sleep(time.Millisecond) {
			if time.Since(began) > 10*time.Second {
				t.Fatalf("stack %d heard %d packets of %d; drops %v", i, s.count(addrs[i].String()), pings, total.Drops)
			}
		}
	}
	w.closed()
}

func BenchmarkUpdate(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s, snap := tables(b), many(n)
			s.SetNetwork(snap)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				snap = moved(snap, i%1000)
				s.SetNetwork(snap)
			}
		})
	}
}

package dataplane

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ovnd/ovnd/bench/lab"
	"github.com/ovnd/ovnd/dataplane/pkt"
	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/encap"
)

// An echoStack is a stack that answers pings to any address that it gets, from
// the worker that delivers them or from a goroutine of its own.
type echoStack struct {
	t    *testing.T
	port *StackPort
	own  bool // answers from a goroutine of its own

	mu      sync.Mutex
	heard   map[netip.Addr]int // wire packets by destination
	largest int                // bytes of the largest frame's packet
	errors  []byte             // ICMP types and codes of errors
	sending atomic.Bool        // a goroutine sends, with locks that errors need
	wg      sync.WaitGroup
}

// stack attaches an echoStack.
func (n *node) stack(cfg StackPortConfig, own bool) *echoStack {
	n.w.t.Helper()
	e := &echoStack{t: n.w.t, own: own, heard: make(map[netip.Addr]int)}
	cfg.Deliver = e.deliver
	if cfg.Name == "" {
		cfg.Name = "stack"
	}
	cfg.MAC = encap.EndpointMAC(cfg.Addrs[0])
	e.mu.Lock() // deliver is called before this returns
	var err error
	e.port, err = n.sw.AddStackPort(cfg)
	e.mu.Unlock()
	if err != nil {
		n.w.t.Fatal(err)
	}
	n.w.t.Cleanup(func() {
		_ = e.port.Close()
		e.wg.Wait()
	})
	return e
}

func (e *echoStack) deliver(frame []byte, packets int) {
	ip, err := encap.ParseIP(frame[pkt.MetaLen:])
	if err != nil {
		e.t.Errorf("delivered %x: %v", frame, err)
		return
	}
	plan, err := pkt.NewPlan(pkt.ParseMeta(frame), ip)
	if err != nil || plan.Count() != packets {
		e.t.Errorf("delivered %d packets as %d: %v", plan.Count(), packets, err)
	}
	e.mu.Lock()
	e.heard[ip.Dst()] += packets
	e.largest = max(e.largest, len(ip.Packet))
	if b := ip.Payload(); ip.Protocol == encap.ProtocolICMP && b[0] != 8 {
		e.errors = append(e.errors, b[0], b[1])
		for began := time.Now(); e.sending.Load(); time.Sleep(time.Millisecond) {
			if time.Since(began) > 2*time.Second {
				e.t.Error("an error is delivered by the goroutine that sends")
				break
			}
		}
	}
	port := e.port
	e.mu.Unlock()
	reply := echoReply(frame, ip)
	switch {
	case reply == nil:
	case e.own:
		e.wg.Go(func() { port.Inject([][]byte{reply}) })
	default:
		port.Inject([][]byte{reply})
	}
}

// count returns how many wire packets were for a.
func (e *echoStack) count(a string) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.heard[netip.MustParseAddr(a)]
}

// echoReply answers an ICMP echo request, and nothing else.
func echoReply(frame []byte, ip encap.IP) []byte {
	if ip.Protocol != encap.ProtocolICMP || ip.IsFragment() || ip.Payload()[0] != 8 {
		return nil
	}
	b := bytes.Clone(frame[:pkt.MetaLen+len(ip.Packet)])
	pkt.Meta{}.Put(b)
	p := encap.IPv4(b[pkt.MetaLen:])
	src, dst := ip.Src().As4(), ip.Dst().As4()
	copy(p[12:], dst[:])
	copy(p[16:], src[:])
	p.UpdateChecksum()
	icmp := p.Payload()
	icmp[0], icmp[2], icmp[3] = 0, 0, 0
	binary.BigEndian.PutUint16(icmp[2:], encap.Checksum(icmp, 0))
	return b
}

const starID = "docker_gwbridge"

// newStar makes a star network with two sandboxes on the first node, which have
// a default route.
func newStar(t *testing.T) (w *world, a, b *sandbox) {
	t.Helper()
	w = twoNodes(t, 1500, false)
	w.network(starID, 0, 1500, "172.18.0.0/16")
	a = w.nodes[0].sandbox("sa", starID, "172.18.0.2/16")
	b = w.nodes[0].sandbox("sb", starID, "172.18.0.3/16")
	for _, sb := range []*sandbox{a, b} {
		sb.host.Route("0.0.0.0/0", "eth0", netip.MustParseAddr("172.18.0.1"))
	}
	return w, a, b
}

// TestStar: sandboxes reach the hub at any address, and never each other.
func TestStar(t *testing.T) {
	for _, own := range []bool{false, true} {
		w, a, b := newStar(t)
		if err := a.tryPing(netip.MustParseAddr("172.18.0.1"), lab.Ping{}, 300*time.Millisecond); err == nil {
			t.Error("a star without a hub answered")
		}
		w.nodes[0].drops(DropNoHub, 1)
		hub := w.nodes[0].stack(StackPortConfig{NetworkID: starID, Addrs: []netip.Addr{netip.MustParseAddr("172.18.0.1")}, Hub: true}, own)
		for _, to := range []string{"172.18.0.1", "198.51.100.7", "10.1.2.3"} {
			if err := a.tryPing(netip.MustParseAddr(to), lab.Ping{Size: 1500, DF: true}, 2*time.Second); err != nil {
				t.Errorf("ping %s: %v", to, err)
			}
		}
		if err := a.tryPing(b.addr, lab.Ping{}, 300*time.Millisecond); err == nil {
			t.Error("a sandbox reached another")
		}
		if hub.count(b.addr.String()) == 0 {
			t.Error("what a sandbox sends to another does not go to the hub")
		}
		w.nodes[0].drops(DropSpoofed, 1) // the hub's answer in the other's name
		st := w.nodes[0].sw.Stats()
		for _, p := range st.Ports {
			if p.Name == "sb" && p.In.Packets != 0 {
				t.Errorf("%d packets delivered to the other sandbox", p.In.Packets)
			}
		}
		if st.Total.WireOut.Packets != 0 {
			t.Errorf("%d packets of a star on the wire", st.Total.WireOut.Packets)
		}
		w.closed()
	}
}

// TestStarNotOnTheWire: VNI 0 from a peer is no star.
func TestStarNotOnTheWire(t *testing.T) {
	w, a, _ := newStar(t)
	forge(t, w.nodes[1].host, "192.0.2.2", w.nodes[0]).send(datagram(0, encap.EndpointMAC(a.addr), "172.18.0.1", "172.18.0.2"))
	w.nodes[0].drops(DropUnknownVNI, 1)
	w.closed()
}

// TestVIP: every node's stack has the VIPs of the snapshot, as long as they are
// in it, and sends to sandboxes of both nodes.
func TestVIP(t *testing.T) {
	w := twoNodes(t, 1500, false)
	w.network("net", 4097, 1450, "10.10.0.0/16")
	a := w.nodes[0].sandbox("sa", "net", "10.10.0.3/16")
	b := w.nodes[1].sandbox("sb", "net", "10.10.0.4/16")
	vip := netip.MustParseAddr("10.10.0.9")
	serve := func(s *directory.Snapshot) {
		s.VIPs = directory.MapOf(map[netip.Addr]*directory.Service{vip: {ID: "s", Name: "s", VIP: vip}})
	}
	w.publish("net", serve)
	if err := a.tryPing(vip, lab.Ping{}, 300*time.Millisecond); err == nil {
		t.Error("a VIP without a stack answered")
	}
	lb0 := w.nodes[0].stack(StackPortConfig{NetworkID: "net", Name: "lb0", Addrs: []netip.Addr{netip.MustParseAddr("10.10.0.5")}, VIPs: true}, true)
	lb1 := w.nodes[1].stack(StackPortConfig{NetworkID: "net", Name: "lb1", Addrs: []netip.Addr{netip.MustParseAddr("10.10.0.6")}, VIPs: true}, false)
	w.publish("net", func(s *directory.Snapshot) {
		for i, lb := range []string{"10.10.0.5", "10.10.0.6"} {
			addr := netip.MustParseAddr(lb)
			s.Endpoints = s.Endpoints.With(addr, &directory.Endpoint{
				Name: "lb-net", Kind: directory.LoadBalancer, Addr: addr, MAC: encap.EndpointMAC(addr), VTEP: w.nodes[i].addr,
			})
		}
	})
	for _, sb := range []*sandbox{a, b} {
		for _, to := range []string{"10.10.0.9", "10.10.0.5", "10.10.0.6"} {
			if err := sb.tryPing(netip.MustParseAddr(to), lab.Ping{Size: 1450, DF: true}, 2*time.Second); err != nil {
				t.Errorf("ping %s → %s: %v", sb.addr, to, err)
			}
		}
	}
	if lb0.count("10.10.0.9") == 0 || lb1.count("10.10.0.9") == 0 {
		t.Error("a VIP was not answered on the client's own node")
	}
	w.publish("net", func(s *directory.Snapshot) { s.VIPs = directory.Map[netip.Addr, *directory.Service]{} })
	if err := a.tryPing(vip, lab.Ping{}, 300*time.Millisecond); err == nil {
		t.Error("a VIP that is gone answered")
	}
	w.publish("net", serve)
	_ = lb0.port.Close()
	if err := a.tryPing(vip, lab.Ping{}, 300*time.Millisecond); err == nil {
		t.Error("a stack port that is closed answered")
	}
	lb0.port.Inject([][]byte{make([]byte, 60)}) // does nothing
	w.closed()
}

// TestVIPOnTheWire: who may use VIPs and load balancers' addresses on the wire,
// and which node answers for them.
func TestVIPOnTheWire(t *testing.T) {
	w := twoNodes(t, 1500, false)
	w.network("net", 4097, 1450, "10.10.0.0/16")
	vip, lb := netip.MustParseAddr("10.10.0.9"), netip.MustParseAddr("10.10.0.5")
	client := netip.MustParseAddr("10.10.0.200")
	w.publish("net", func(s *directory.Snapshot) {
		s.VIPs = directory.MapOf(map[netip.Addr]*directory.Service{vip: {ID: "s", Name: "s", VIP: vip}})
		s.Endpoints = s.Endpoints.With(lb, &directory.Endpoint{Kind: directory.LoadBalancer, Addr: lb, MAC: encap.EndpointMAC(lb), VTEP: w.nodes[1].addr})
		s.StaticVTEPs = []directory.StaticVTEP{{Name: "x", VTEP: netip.MustParseAddr("192.0.2.9"), Addr: client, MAC: encap.EndpointMAC(client)}}
	})
	w.nodes[0].sandbox("sa", "net", "10.10.0.3/16")
	stacks := make([]*echoStack, 2)
	for i, n := range w.nodes {
		addr := netip.AddrFrom4([4]byte{10, 10, 0, byte(20 + i)})
		stacks[i] = n.stack(StackPortConfig{NetworkID: "net", Addrs: []netip.Addr{addr}, VIPs: true}, false)
	}
	w.nodes[1].host.Addr("eth0", "192.0.2.9/24")
	peer := forge(t, w.nodes[1].host, "192.0.2.2", w.nodes[0])
	foreign := forge(t, w.nodes[1].host, "192.0.2.9", w.nodes[0])

	mac := encap.EndpointMAC(netip.MustParseAddr("10.10.0.20"))
	to := encap.EndpointMAC(netip.MustParseAddr("10.10.0.3"))
	peer.send(datagram(4097, mac, "10.10.0.7", "10.10.0.9"))
	w.nodes[0].drops(DropForeignVIP, 1)
	peer.send(datagram(4097, to, "10.10.0.9", "10.10.0.3")) // from the VIP
	w.nodes[0].drops(DropStolenSource, 1)
	foreign.send(datagram(4097, to, "10.10.0.9", "10.10.0.3"))
	w.nodes[0].drops(DropStolenSource, 2)
	foreign.send(datagram(4097, to, "10.10.0.5", "10.10.0.3")) // from the peer's lb
	w.nodes[0].drops(DropStolenSource, 3)
	peer.send(datagram(4097, to, "10.10.0.5", "10.10.0.3"))
	w.nodes[0].delivered(1)
	foreign.send(datagram(4097, mac, "10.10.0.200", "10.10.0.9"))
	w.nodes[0].delivered(2)
	if n := stacks[0].count("10.10.0.9"); n != 1 {
		t.Errorf("%d packets to the VIP delivered, want the foreign one", n)
	}

	for i, n := range w.nodes {
		f := forge(t, w.nodes[1].host, "192.0.2.9:4790", n)
		was := n.sw.Stats().Total
		f.send(arpRequest(4097, client, vip))
		f.send(arpRequest(4097, client, netip.AddrFrom4([4]byte{10, 10, 0, byte(20 + i)})))
		for n.sw.Stats().Total.Consumed.Packets < was.Consumed.Packets+2 {
			time.Sleep(5 * time.Millisecond)
		}
		// The stack's own address is answered by its node, the VIP by one.
		if got, want := n.sw.Stats().Total.Originated.Packets-was.Originated.Packets, uint64(2-i); got != want {
			t.Errorf("%s: %d ARP answers, want %d", n.host.Name(), got, want)
		}
		_ = f.conn.Close()
	}
	w.closed()
}

// arpRequest is VXLAN, Ethernet and a question for target.
func arpRequest(vni encap.VNI, src, target netip.Addr) []byte {
	b := make([]byte, plainPrefix+encap.ARPLen)
	encap.PutVXLAN(b, vni)
	encap.PutEthernet(b[encap.VXLANHeaderLen:], encap.BroadcastMAC, encap.EndpointMAC(src), encap.EtherTypeARP)
	encap.PutARPRequest(b[plainPrefix:], encap.EndpointMAC(src), src, target)
	return b
}

// TestStackTooBig tells a stack, too, what the underlay does not carry, from its
// own call of Inject.
func TestStackTooBig(t *testing.T) {
	w := twoNodes(t, 1400, false)
	w.network("net", 4097, 1450, "10.10.0.0/16")
	b := w.nodes[1].sandbox("sb", "net", "10.10.0.4/16")
	addr := netip.MustParseAddr("10.10.0.5")
	e := w.nodes[0].stack(StackPortConfig{NetworkID: "net", Addrs: []netip.Addr{addr}}, false)
	frame := make([]byte, pkt.MetaLen+1450)
	encap.PutIPv4(frame[pkt.MetaLen:], addr, b.addr, encap.ProtocolUDP, 1430)
	e.sending.Store(true)
	e.port.Inject([][]byte{frame})
	e.sending.Store(false)
	e.hears(3, 4)
	w.closed()
}

// TestStackAbsent tells a stack that nobody has the address that it sends to.
func TestStackAbsent(t *testing.T) {
	w := twoNodes(t, 1500, false)
	w.network("net", 4097, 1450, "10.10.0.0/16")
	addr := netip.MustParseAddr("10.10.0.5")
	e := w.nodes[0].stack(StackPortConfig{NetworkID: "net", Addrs: []netip.Addr{addr}}, false)
	frame := tcpSuper(addr, netip.MustParseAddr("10.10.0.77"), 100)
	// Injectors remember on their own.
	for began := time.Now(); time.Since(began) < absentWait+100*time.Millisecond; time.Sleep(50 * time.Millisecond) {
		e.sending.Store(true)
		e.port.Inject([][]byte{frame})
		e.sending.Store(false)
	}
	e.hears(3, 1)
	w.closed()
}

// hears waits for an ICMP error.
func (e *echoStack) hears(kind, code byte) {
	e.t.Helper()
	for range 300 {
		e.mu.Lock()
		got := bytes.Clone(e.errors)
		e.mu.Unlock()
		if len(got) >= 2 && got[0] == kind && got[1] == code {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	e.t.Errorf("no ICMP error %d/%d", kind, code)
}

// TestStackRules: what a stack port must not do.
func TestStackRules(t *testing.T) {
	w := twoNodes(t, 1500, false)
	w.network("net", 4097, 1450, "10.10.0.0/16")
	a := w.nodes[0].sandbox("sa", "net", "10.10.0.3/16")
	sw := w.nodes[0].sw
	ownAddr, otherAddr := netip.MustParseAddr("10.10.0.5"), netip.MustParseAddr("10.10.0.6")
	one := w.nodes[0].stack(StackPortConfig{NetworkID: "net", Addrs: []netip.Addr{ownAddr}, VIPs: true}, false)
	w.nodes[0].stack(StackPortConfig{NetworkID: "net", Addrs: []netip.Addr{otherAddr}}, false)
	ignore := func([]byte, int) {}
	for _, cfg := range []StackPortConfig{
		{NetworkID: "net", Addrs: []netip.Addr{a.addr}, Deliver: ignore},
		{NetworkID: "net", Addrs: []netip.Addr{netip.MustParseAddr("10.10.0.7")}, VIPs: true, Deliver: ignore},
		{NetworkID: "net", Deliver: ignore},
		{NetworkID: "net", Addrs: []netip.Addr{netip.MustParseAddr("10.10.0.7")}},
	} {
		if p, err := sw.AddStackPort(cfg); err == nil {
			t.Errorf("%+v was accepted", cfg)
			_ = p.Close()
		}
	}
	from := func(src, dst netip.Addr) []byte {
		b := make([]byte, pkt.MetaLen+28)
		encap.PutIPv4(b[pkt.MetaLen:], src, dst, encap.ProtocolUDP, 8)
		return b
	}
	one.port.Inject([][]byte{
		from(netip.MustParseAddr("10.10.0.9"), a.addr), // no VIP
		from(ownAddr, otherAddr),
		from(ownAddr, ownAddr),
		nil,
		from(ownAddr, a.addr),
	})
	w.nodes[0].drops(DropSpoofed, 1)
	w.nodes[0].drops(DropStackLoop, 1)
	w.nodes[0].drops(DropMalformed, 1)
	w.nodes[0].delivered(2)
	w.closed()
}

// TestStackSuper has the bulk of a TCP stream delivered to a stack as
// super-packets, from this node and from another, and many goroutines inject
// while networks and ports change.
func TestStackSuper(t *testing.T) {
	w := twoNodes(t, 1500, false)
	w.network("net", 4097, 1450, "10.10.0.0/16")
	a := w.nodes[0].sandbox("sa", "net", "10.10.0.3/16")
	addr := netip.MustParseAddr("10.10.0.5")
	e := w.nodes[1].stack(StackPortConfig{NetworkID: "net", Addrs: []netip.Addr{addr}}, false)
	w.publish("net", func(s *directory.Snapshot) {
		s.Endpoints = s.Endpoints.With(addr, &directory.Endpoint{Addr: addr, MAC: encap.EndpointMAC(addr), VTEP: w.nodes[1].addr})
	})
	sender := w.nodes[0].stack(StackPortConfig{NetworkID: "net", Addrs: []netip.Addr{netip.MustParseAddr("10.10.0.6")}}, false)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				sender.port.Inject([][]byte{
					tcpSuper(netip.MustParseAddr("10.10.0.6"), addr, 40000),
					tcpSuper(netip.MustParseAddr("10.10.0.6"), a.addr, 3000),
				})
			}
		})
	}
	for i := range 20 {
		w.publish("net", func(s *directory.Snapshot) { s.Name = string(rune('a' + i)) })
		p, err := w.nodes[0].sw.AddStackPort(StackPortConfig{
			NetworkID: "net", Addrs: []netip.Addr{netip.MustParseAddr("10.10.0.8")}, Deliver: func([]byte, int) {},
		})
		if err != nil {
			t.Fatal(err)
		}
		_ = p.Close()
	}
	wg.Wait()
	largest := 0
	for deadline := time.Now().Add(10 * time.Second); largest < 2*1450 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		e.mu.Lock()
		largest = e.largest
		e.mu.Unlock()
	}
	if largest < 2*1450 {
		t.Errorf("the largest packet delivered has %d bytes: nothing was joined; %+v", largest, w.nodes[1].sw.Stats().Total)
	}
	w.closed()
}

// tcpSuper is a TCP super-packet with n bytes of payload.
func tcpSuper(src, dst netip.Addr, n int) []byte {
	b := make([]byte, pkt.MetaLen+encap.IPv4HeaderLen+encap.TCPHeaderLen+n)
	p := encap.PutIPv4(b[pkt.MetaLen:], src, dst, encap.ProtocolTCP, encap.TCPHeaderLen+n)
	seg := p.Payload()
	seg[12], seg[13] = 5<<4, 0x10 // ACK
	binary.BigEndian.PutUint16(seg[16:], uint16(p.PseudoSum(encap.ProtocolTCP, len(seg))))
	pkt.Meta{
		Flags: pkt.NeedsChecksum, GSO: pkt.GSOTCPv4, GSOSize: 1400,
		CsumStart: encap.IPv4HeaderLen, CsumOffset: encap.TCPChecksumOffset,
	}.Put(b)
	return b
}

// TestInjectAllocs: sending through a stack port allocates nothing.
func TestInjectAllocs(t *testing.T) {
	w := twoNodes(t, 1500, false)
	w.network("net", 4097, 1450, "10.10.0.0/16")
	b := w.nodes[1].sandbox("sb", "net", "10.10.0.4/16")
	src := netip.MustParseAddr("10.10.0.6")
	e := w.nodes[0].stack(StackPortConfig{NetworkID: "net", Addrs: []netip.Addr{src}}, false)
	frames := [][]byte{tcpSuper(src, b.addr, 30000)}
	if n := testing.AllocsPerRun(200, func() { e.port.Inject(frames) }); n >= 1 {
		t.Errorf("%v allocations a call", n)
	}
	w.closed()
}

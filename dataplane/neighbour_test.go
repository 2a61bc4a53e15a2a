package dataplane

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/ovnd/ovnd/bench/lab"
	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/encap"
)

// A foreign VTEP made of one socket.
type foreign struct {
	*forger
	mac encap.MAC
}

// learned makes a node, a network that learns from a foreign VTEP, and that.
func learned(t *testing.T) (*world, *sandbox, *foreign) {
	w := &world{t: t, Lab: lab.New(t), snaps: make(map[string]*directory.Snapshot)}
	a, b := w.Host("a"), w.Host("b")
	w.Veth(1500,
		lab.End{Host: a, Name: "eth0", Addrs: []string{"192.0.2.1/24"}},
		lab.End{Host: b, Name: "eth0", Addrs: []string{"192.0.2.2/24"}})
	n := w.node(a, "192.0.2.1", Config{})
	w.network("net", 4097, 1450, "10.10.0.0/16", "fd00:10::/64")
	w.publish("net", func(s *directory.Snapshot) {
		s.StaticVTEPs = []directory.StaticVTEP{{Name: "x", VTEP: netip.MustParseAddr("192.0.2.2"), Learn: true}}
	})
	sb := n.sandbox("sa", "net", "10.10.0.3/16")
	f := &foreign{forger: forge(t, b, "192.0.2.2:4789", n), mac: encap.MAC{2, 0, 0, 0, 0, 9}}
	return w, sb, f
}

// next returns the frame of the next datagram with this EtherType.
func (f *foreign) next(etherType uint16) []byte {
	f.t.Helper()
	b := make([]byte, 2048)
	_ = f.conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	for {
		n, err := f.conn.Read(b)
		if err != nil {
			f.t.Fatal(err)
		}
		vni, frame, err := encap.ParseVXLAN(b[:n], encap.ReservedDrop)
		if err == nil && vni == 4097 && binary.BigEndian.Uint16(frame[12:]) == etherType {
			return frame
		}
	}
}

// frame sends an Ethernet frame with this payload.
func (f *foreign) frame(dst encap.MAC, etherType uint16, payload []byte) {
	f.t.Helper()
	b := make([]byte, plainPrefix, plainPrefix+len(payload))
	encap.PutVXLAN(b, 4097)
	encap.PutEthernet(b[encap.VXLANHeaderLen:], dst, f.mac, etherType)
	f.send(append(b, payload...))
}

// TestLearn resolves an address behind a foreign VTEP: the first packets wait
// for the answer, later ones do not.
func TestLearn(t *testing.T) {
	w, sb, f := learned(t)
	var conn net.Conn
	if err := sb.host.Do(func() (err error) {
		conn, err = net.Dial("udp", "10.10.0.99:9")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for range 3 {
		_, _ = conn.Write([]byte("held"))
	}
	ask, err := encap.ParseARP(f.next(encap.EtherTypeARP)[14:])
	if err != nil || ask.Op != encap.ARPRequest || ask.Sender != sb.addr || ask.Target.String() != "10.10.0.99" {
		t.Fatalf("asked %+v, %v", ask, err)
	}
	reply := make([]byte, encap.ARPLen)
	encap.PutARPReply(reply, ask, f.mac)
	f.frame(ask.SenderMAC, encap.EtherTypeARP, reply)
	for i := range 4 {
		if i == 3 {
			_, _ = conn.Write([]byte("known"))
		}
		if dst := encap.MAC(f.next(encap.EtherTypeIPv4)[:6]); dst != f.mac {
			t.Errorf("packet %d went to %s, want %s", i, dst, f.mac)
		}
	}

	// It asks for the sandbox, and is answered; for another, and is not.
	request := make([]byte, encap.ARPLen)
	encap.PutARPRequest(request, f.mac, netip.MustParseAddr("10.10.0.99"), netip.MustParseAddr("10.10.0.50"))
	f.frame(encap.BroadcastMAC, encap.EtherTypeARP, request)
	encap.PutARPRequest(request, f.mac, netip.MustParseAddr("10.10.0.99"), sb.addr)
	f.frame(encap.BroadcastMAC, encap.EtherTypeARP, request)
	got, err := encap.ParseARP(f.next(encap.EtherTypeARP)[14:])
	if err != nil || got.Op != encap.ARPReply || got.Sender != sb.addr || got.SenderMAC != encap.EndpointMAC(sb.addr) {
		t.Errorf("answer %+v, %v", got, err)
	}

	// What the directory has is not overridden.
	w.publish("net", func(s *directory.Snapshot) {
		a := netip.MustParseAddr("10.10.0.77")
		s.Endpoints = s.Endpoints.With(a, &directory.Endpoint{Addr: a, VTEP: netip.MustParseAddr("192.0.2.44")})
	})
	encap.PutARPRequest(request, f.mac, netip.MustParseAddr("10.10.0.77"), sb.addr)
	f.frame(encap.BroadcastMAC, encap.EtherTypeARP, request)
	w.nodes[0].drops(DropStolenSource, 1)
	w.closed()
}

// TestEarlyPacket has a new endpoint send before gossip has announced it: its
// first packet is answered. What gossip says then is what counts.
func TestEarlyPacket(t *testing.T) {
	w, sb, f := learned(t)
	other := netip.MustParseAddr("10.10.0.60")
	w.publish("net", func(s *directory.Snapshot) {
		s.StaticVTEPs = nil
		s.Peers[netip.MustParseAddr("192.0.2.2")] = "x"
	})
	ping := func() {
		b := make([]byte, encap.IPv4HeaderLen+8)
		encap.PutIPv4(b, other, sb.addr, encap.ProtocolICMP, 8)
		icmp := b[encap.IPv4HeaderLen:]
		icmp[0] = 8 // echo request, RFC 792
		binary.BigEndian.PutUint16(icmp[2:], encap.Checksum(icmp, 0))
		f.frame(encap.EndpointMAC(sb.addr), encap.EtherTypeIPv4, b)
	}
	ping()
	if dst := encap.MAC(f.next(encap.EtherTypeIPv4)[:6]); dst != f.mac {
		t.Errorf("the answer went to %s, want %s", dst, f.mac)
	}
	w.publish("net", func(s *directory.Snapshot) {
		s.Endpoints = s.Endpoints.With(other, &directory.Endpoint{Addr: other, VTEP: netip.MustParseAddr("192.0.2.44")})
	})
	ping()
	w.nodes[0].drops(DropStolenSource, 1)
	w.closed()
}

// TestNeighbourDiscovery is the same question in IPv6.
func TestNeighbourDiscovery(t *testing.T) {
	w, _, f := learned(t)
	addr, asker := netip.MustParseAddr("fd00:10::3"), netip.MustParseAddr("fd00:10::99")
	w.nodes[0].attach(w.Host("s6"), "eth0", "net", "fd00:10::3/64", 1)
	ns := make([]byte, encap.NDLen)
	encap.PutNS(ns, f.mac, asker, addr)
	f.frame(encap.MulticastMAC(encap.SolicitedNode(addr)), encap.EtherTypeIPv6, ns)
	ip, err := encap.ParseIP(f.next(encap.EtherTypeIPv6)[14:])
	if err != nil {
		t.Fatal(err)
	}
	na, err := encap.ParseNA(ip)
	if err != nil || na.Target != addr || na.MAC != encap.EndpointMAC(addr) {
		t.Errorf("answer %+v, %v", na, err)
	}
	w.closed()
}

// TestNobodyAnswers asks three times, then gives up what it holds; and holds no
// more than it may.
func TestNobodyAnswers(t *testing.T) {
	w, sb, f := learned(t)
	var conn *net.UDPConn
	if err := sb.host.Do(func() (err error) {
		conn, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(10, 10, 0, 3)})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for range maxHeldEach + 2 {
		_, _ = conn.WriteTo([]byte("x"), &net.UDPAddr{IP: net.IPv4(10, 10, 0, 99), Port: 9})
	}
	w.nodes[0].drops(DropHoldFull, 2)
	for range maxAsk {
		f.next(encap.EtherTypeARP)
	}
	w.closed() // held packets count too
	for i := range 2 * maxQuestions {
		_, _ = conn.WriteTo([]byte("x"), &net.UDPAddr{IP: net.IPv4(10, 10, 1, byte(i)), Port: 9})
	}
	w.nodes[0].drops(DropHoldFull, 2+maxQuestions)
	deadline := time.Now().Add(3 * maxAsk * askInterval)
	for w.nodes[0].sw.Stats().Total.Held > 0 && time.Now().Before(deadline) {
		time.Sleep(20 * time.Millisecond)
	}
	if st := w.nodes[0].sw.Stats().Total; st.Held != 0 || st.Drops[DropNoNeighbour.String()] < maxHeldEach {
		t.Errorf("held %d, drops %v", st.Held, st.Drops)
	}
	w.closed()
}

// TestNeighbourTable: the table stays within its bound and forgets the oldest.
func TestNeighbourTable(t *testing.T) {
	var table neighbours
	p := &peer{}
	addr := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 10, byte(i >> 8), byte(i)}) }
	for i := range maxNeighbours {
		table.learn(addr(i), encap.MAC{byte(i)}, p, neighbourLife)
		table.known[addr(i)].seen.Add(int64(i) - maxNeighbours/8)
	}
	table.learn(addr(maxNeighbours), encap.MAC{}, p, neighbourLife)
	if len(table.known) != maxNeighbours {
		t.Errorf("%d entries, want %d", len(table.known), maxNeighbours)
	}
	if _, _, ok := table.lookup(addr(0)); ok {
		t.Error("the oldest entry is still there")
	}
	if mac, _, ok := table.lookup(addr(5)); !ok || mac != (encap.MAC{5}) {
		t.Errorf("lookup: %s, %t", mac, ok)
	}
	table.known[addr(5)].seen.Add(-int64(neighbourLife / time.Second))
	if _, _, ok := table.lookup(addr(5)); ok {
		t.Error("an entry outlived its time")
	}
}

package dataplane_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ovnd/ovnd/bench/lab"
	"github.com/ovnd/ovnd/crypto"
	"github.com/ovnd/ovnd/crypto/swarmtest"
	"github.com/ovnd/ovnd/dataplane"
	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/encap"
)

const sealedVNI = encap.VNI(4099)

var epoch = []crypto.Epoch{{Tag: 7, Key: []byte("sixteen byte key")}}

// A sealedNode is a node with sessions, and a task on each of its networks.
type sealedNode struct {
	id       string
	host     *lab.Host
	addr     netip.Addr
	sw       *dataplane.Switch
	engine   *crypto.Engine
	identity *crypto.Identity
}

// A sealedWorld is nodes of one swarm on one Ethernet.
type sealedWorld struct {
	t     *testing.T
	v6    bool
	lab   *lab.Lab
	ca    *swarmtest.CA
	nodes []*sealedNode
	snap  *directory.Snapshot
	wire  *lab.Wire    // the first node's
	ahead atomic.Int64 // how far the engines' clock is ahead, in nanoseconds
}

// sealed makes n nodes that know each other, on an encrypted network without
// endpoints. tune may change them before they hear of each other, from when on they
// shake hands.
func sealed(t *testing.T, n int, v6 bool, tune ...func(*sealedWorld)) *sealedWorld {
	t.Helper()
	names := []string{"n1", "n2", "n3"}[:n]
	l, hosts := star(t, names...)
	ca, err := swarmtest.New("cluster")
	if err != nil {
		t.Fatal(err)
	}
	w := &sealedWorld{t: t, v6: v6, lab: l, ca: ca}
	for i, h := range hosts {
		w.start(names[i], h, under(i+1, v6))
	}
	w.snap = network("net", sealedVNI, v6)
	w.snap.Encrypted, w.snap.MTU = true, encap.DefaultEncryptedMTU
	if v6 {
		w.snap.MTU = encap.DefaultEncryptedMTU6
	}
	w.snap.Identities = make(map[string]directory.Identity)
	for _, n := range w.nodes {
		w.snap.Identities[n.id] = directory.Identity{NodeID: n.id, Static: n.identity.Statement().Static, VTEP: n.addr}
		w.snap.Peers[n.addr] = n.id
	}
	w.wire = hosts[0].Wire("eth0")
	for _, f := range tune {
		f(w)
	}
	w.publish(func(*directory.Snapshot) {})
	return w
}

// start makes a node and runs it until the test ends.
func (w *sealedWorld) start(id string, h *lab.Host, addr netip.Addr) *sealedNode {
	w.t.Helper()
	n := &sealedNode{id: id, host: h, addr: addr}
	cred, err := w.ca.Worker(id)
	if err != nil {
		w.t.Fatal(err)
	}
	keys, err := crypto.NewKeys()
	if err != nil {
		w.t.Fatal(err)
	}
	if n.identity, err = keys.Identify(cred); err != nil {
		w.t.Fatal(err)
	}
	n.engine, err = crypto.New(crypto.Config{
		Identity: func() *crypto.Identity { return n.identity },
		Send:     func(to netip.Addr, b []byte) { n.sw.SendControl(to, b) },
		Changed:  func(string) { n.sw.SessionsChanged() },
		Clock:    func() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) },
	})
	if err != nil {
		w.t.Fatal(err)
	}
	n.engine.SetEpochs(epoch)
	if err := h.Do(func() (err error) {
		n.sw, err = dataplane.New(dataplane.Config{Underlay: netip.AddrPortFrom(addr, encap.VXLANPort), Sessions: n.engine})
		return err
	}); err != nil {
		w.t.Fatal(err)
	}
	run(w.t, "sessions", n.engine.Run)
	run(w.t, "switch", n.sw.Run)
	w.nodes = append(w.nodes, n)
	return n
}

// run runs a part until the test ends.
func run(t *testing.T, name string, part func(context.Context) error) {
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- part(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("%s: %v", name, err)
		}
	})
}

// publish gives a changed copy of the network to every node.
func (w *sealedWorld) publish(change func(*directory.Snapshot)) {
	next := *w.snap
	next.Version++
	change(&next)
	w.snap = &next
	for _, n := range w.nodes {
		n.sw.SetNetwork(w.snap)
		n.meet(w)
	}
}

// meet has a node make sessions with the others.
func (n *sealedNode) meet(w *sealedWorld) {
	var peers []crypto.PeerInfo
	for _, o := range w.nodes {
		if _, on := w.snap.Identities[o.id]; on && o != n {
			peers = append(peers, crypto.PeerInfo{
				NodeID: o.id, Static: o.identity.Statement().Static, Addr: o.addr, Policies: []crypto.Policy{crypto.Auto},
			})
		}
	}
	n.engine.SetPeers(peers)
}

// claim says that an endpoint is at n.
func (n *sealedNode) claim(addr netip.Addr) netOption {
	return func(s *directory.Snapshot) {
		s.Endpoints = s.Endpoints.With(addr, &directory.Endpoint{
			ID: "ep-" + addr.String(), Addr: addr, MAC: encap.EndpointMAC(addr), VTEP: n.addr, Owner: n.id,
		})
	}
}

// task puts a process' worth of network on a node.
func (w *sealedWorld) task(n *sealedNode, addr string) *lab.Host {
	w.t.Helper()
	h, a := w.lab.Host("task"+addr[len(addr)-1:]), netip.MustParseAddr(addr)
	plug(w.t, n.sw, h, "eth0", w.snap, a)
	w.publish(n.claim(a))
	return h
}

func ping(t *testing.T, from *lab.Host, to string, p lab.Ping, d time.Duration) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	return from.Ping(ctx, netip.MustParseAddr(to), p)
}

// session waits for a session from one node to another.
func (w *sealedWorld) session(from, to *sealedNode) *crypto.Session {
	w.t.Helper()
	var s *crypto.Session
	w.until("a session from "+from.id+" to "+to.id, func() bool {
		s = from.engine.Peer(to.id, crypto.Auto).Sending()
		return s != nil
	})
	return s
}

func (w *sealedWorld) until(what string, ok func() bool) {
	w.t.Helper()
	for ctx := limited(w.t); !ok(); time.Sleep(time.Millisecond) {
		if ctx.Err() != nil {
			var all string
			for _, n := range w.nodes {
				all += fmt.Sprintf("\n%s: %v, sessions %+v", n.id, drops(n.sw), n.engine.Stats())
			}
			w.t.Fatalf("not in %v: %s%s", patience, what, all)
		}
	}
}

// dropped waits until a node has dropped packets for a reason.
func (w *sealedWorld) dropped(n *sealedNode, why dataplane.Drop, want uint64) {
	w.t.Helper()
	w.until(fmt.Sprintf("%d packets dropped as %s", want, why), func() bool { return drops(n.sw)[why.String()] >= want })
}

// nothingClear looks through what was on the wire: no VXLAN frame, no canary.
func (w *sealedWorld) nothingClear(canary []byte) {
	w.t.Helper()
	datagrams := 0
	ctx, cancel := context.WithTimeout(w.t.Context(), 200*time.Millisecond)
	defer cancel()
	for {
		f, err := w.wire.Next(ctx)
		if err != nil {
			break
		}
		if bytes.Contains(f.Data, canary) {
			w.t.Fatalf("clear text on the wire: %q", f.Data)
		}
		if p, ok := udpPayload(f.Data, encap.VXLANPort); ok {
			datagrams++
			if _, _, err := encap.ParseVXLAN(p, encap.ReservedIgnore); err == nil {
				w.t.Fatalf("VXLAN on the wire: % x", p[:min(len(p), 40)])
			}
		}
	}
	if datagrams == 0 {
		w.t.Error("nothing was seen on the wire: the test shows nothing")
	}
}

// udpPayload returns the payload of an Ethernet frame's UDP datagram for a port.
func udpPayload(frame []byte, port uint16) ([]byte, bool) {
	_, _, _, payload, err := encap.ParseEthernet(frame)
	if err != nil {
		return nil, false
	}
	ip, err := encap.ParseIP(payload)
	if err != nil || ip.Protocol != encap.ProtocolUDP || len(ip.Payload()) < encap.UDPHeaderLen {
		return nil, false
	}
	u := ip.Payload()
	return u[encap.UDPHeaderLen:], uint16(u[2])<<8|uint16(u[3]) == port
}

// TestSealed: packets of the exact MTU pass, one byte more is answered, TCP comes
// through unharmed, and the wire shows none of it. Ping's first packet is not
// lost, though there is no session yet.
func TestSealed(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		t.Run(fmt.Sprintf("underlay6=%t", v6), func(t *testing.T) {
			w := sealed(t, 2, v6)
			a, b := w.task(w.nodes[0], "10.0.0.1"), w.task(w.nodes[1], "10.0.0.2")
			mtu := map[bool]int{false: 1424, true: 1404}[v6]
			if w.snap.MTU != mtu {
				t.Fatalf("MTU %d, want %d", w.snap.MTU, mtu)
			}
			if err := ping(t, a, "10.0.0.2", lab.Ping{Size: mtu, DF: true}, patience); err != nil {
				t.Fatalf("ping of %d bytes: %v", mtu, err)
			}
			if err := ping(t, a, "10.0.0.2", lab.Ping{Size: mtu + 1, DF: true}, time.Second); !errors.Is(err, unix.EMSGSIZE) {
				t.Errorf("ping of %d bytes: %v, want EMSGSIZE", mtu+1, err)
			}
			transfer(t, a, b, netip.MustParseAddr("10.0.0.2"), 4<<20)
			w.nothingClear(noise(4<<20, 1)[1000:1032])
			for _, n := range w.nodes {
				closes(t, n.sw)
				if p := n.sw.Stats().Peers; len(p) != 1 || p[0].Out.Bytes < 4<<20 || p[0].In.Bytes < 4<<20 {
					t.Errorf("%s counts the traffic with its peer as %+v", n.id, p)
				}
				d := drops(n.sw)
				delete(d, dataplane.DropMulticast.String()) // routers that the kernel looks for
				delete(d, dataplane.DropTooBig.String())
				delete(d, dataplane.DropQueue.String()) // TCP fills the receive buffer
				if len(d) > 0 {
					t.Errorf("%s dropped %v", n.id, d)
				}
			}
		})
	}
}

// TestClearFrameRefused: a VXLAN frame of an encrypted network is dropped,
// whoever sends it, and one that is sealed for nobody too.
func TestClearFrameRefused(t *testing.T) {
	w := sealed(t, 2, false)
	w.task(w.nodes[0], "10.0.0.1")
	w.task(w.nodes[1], "10.0.0.2")
	w.session(w.nodes[0], w.nodes[1])
	conn := w.from(w.nodes[1].host, under4(2))
	open := frame{vni: sealedVNI, from: netip.MustParseAddr("10.0.0.2"), to: netip.MustParseAddr("10.0.0.1")}.marshal()
	before := w.nodes[0].sw.Stats().Total.PortOut.Packets
	for range 5 {
		w.send(conn, w.nodes[0], open)
	}
	w.dropped(w.nodes[0], dataplane.DropClearText, 5)
	stray := append([]byte{byte(crypto.Transport), 0xff, 0xff, 0xfe}, make([]byte, 100)...)
	w.send(conn, w.nodes[0], stray)
	w.dropped(w.nodes[0], dataplane.DropUnknownSession, 1)
	if after := w.nodes[0].sw.Stats().Total.PortOut.Packets; after != before {
		t.Errorf("%d packets delivered", after-before)
	}
	closes(t, w.nodes[0].sw)
}

// from opens a socket with a node's own address, at another port.
func (w *sealedWorld) from(h *lab.Host, addr netip.Addr) *net.UDPConn {
	w.t.Helper()
	var conn *net.UDPConn
	if err := h.Do(func() (err error) {
		conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)))
		return err
	}); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (w *sealedWorld) send(conn *net.UDPConn, to *sealedNode, b []byte) {
	w.t.Helper()
	if _, err := conn.WriteToUDPAddrPort(b, to.sw.UnderlayAddr()); err != nil {
		w.t.Fatal(err)
	}
}

// sealBy seals an inner packet as a node would, and sends it.
func (w *sealedWorld) sealBy(n, to *sealedNode, src, dst string) []byte {
	w.t.Helper()
	vx := frame{vni: sealedVNI, from: netip.MustParseAddr(src), to: netip.MustParseAddr(dst), payload: []byte("payload")}.marshal()
	b := make([]byte, crypto.HeaderLen, 200)
	b = append(b, vx[4], vx[5], vx[6], 0)
	b = append(b, vx[encap.VXLANHeaderLen:]...)
	b = append(b, make([]byte, crypto.TagLen)...)
	s := w.session(n, to)
	counter, ok := s.Reserve(1)
	if !ok {
		w.t.Fatal("the session seals nothing")
	}
	s.Seal(b, counter)
	return b
}

// TestSealedRules: what a node may not seal is dropped under its reason.
func TestSealedRules(t *testing.T) {
	w := sealed(t, 3, false)
	n1, n2, n3 := w.nodes[0], w.nodes[1], w.nodes[2]
	w.task(n1, "10.0.0.1")
	w.task(n2, "10.0.0.2")
	w.publish(n3.claim(netip.MustParseAddr("10.0.0.3")))
	conn := w.from(n2.host, n2.addr)

	w.send(conn, n1, w.sealBy(n2, n1, "10.0.0.3", "10.0.0.1"))
	w.dropped(n1, dataplane.DropStolenSource, 1)
	w.send(conn, n1, w.sealBy(n2, n1, "192.0.2.77", "10.0.0.1"))
	w.dropped(n1, dataplane.DropForeignSource, 1)
	w.send(conn, n1, w.sealBy(n2, n1, "10.0.0.2", "10.0.0.9"))
	w.dropped(n1, dataplane.DropNoEndpoint, 1)
	w.send(conn, n1, w.sealBy(n2, n1, "10.0.0.2", "10.0.0.3"))
	w.dropped(n1, dataplane.DropSplitHorizon, 1)

	damaged := w.sealBy(n2, n1, "10.0.0.2", "10.0.0.1")
	damaged[40] ^= 1
	w.send(conn, n1, damaged)
	w.dropped(n1, dataplane.DropBadSealed, 1)

	again := w.sealBy(n2, n1, "10.0.0.2", "10.0.0.1")
	before := n1.sw.Stats().Total.PortOut.Packets
	for range 10 {
		w.send(conn, n1, bytes.Clone(again))
	}
	w.dropped(n1, dataplane.DropReplayed, 9)
	if got := n1.sw.Stats().Total.PortOut.Packets - before; got != 1 {
		t.Errorf("a datagram sent ten times was delivered %d times", got)
	}

	// A member of the swarm that is not on the network, by its identity.
	s3 := w.sealBy(n3, n1, "10.0.0.3", "10.0.0.1")
	w.publish(func(s *directory.Snapshot) {
		s.Identities = map[string]directory.Identity{n1.id: s.Identities[n1.id], n2.id: s.Identities[n2.id]}
	})
	w.send(w.from(n3.host, n3.addr), n1, s3)
	w.until("n3's packet is refused", func() bool {
		d := drops(n1.sw)
		return d[dataplane.DropForeignNode.String()]+d[dataplane.DropUnknownSession.String()]+d[dataplane.DropBadSealed.String()] >= 2
	})
	closes(t, n1.sw)
}

// TestUnclaimedSource: a packet from an endpoint that gossip has not told of waits
// for that, and is delivered, or dropped when nothing comes.
func TestUnclaimedSource(t *testing.T) {
	w := sealed(t, 2, false)
	n1, n2 := w.nodes[0], w.nodes[1]
	w.task(n1, "10.0.0.1")
	w.task(n2, "10.0.0.2")
	conn := w.from(n2.host, n2.addr)
	before := n1.sw.Stats().Total.PortOut.Packets

	w.send(conn, n1, w.sealBy(n2, n1, "10.0.0.7", "10.0.0.1"))
	w.until("the packet is held", func() bool { return n1.sw.Stats().Total.Held == 1 })
	w.publish(n2.claim(netip.MustParseAddr("10.0.0.7")))
	w.until("the packet is delivered", func() bool { return n1.sw.Stats().Total.PortOut.Packets == before+1 })

	w.send(conn, n1, w.sealBy(n2, n1, "10.0.0.8", "10.0.0.1"))
	w.dropped(n1, dataplane.DropUnclaimed, 1)

	w.send(conn, n1, w.sealBy(n2, n1, "10.0.0.9", "10.0.0.1"))
	w.until("the packet is held", func() bool { return n1.sw.Stats().Total.Held == 1 })
	w.publish(n1.claim(netip.MustParseAddr("10.0.0.9")))
	w.dropped(n1, dataplane.DropStolenSource, 1)
	closes(t, n1.sw)
}

// TestNoSession: without a common key nothing is sent, and what waited is
// counted.
func TestNoSession(t *testing.T) {
	w := sealed(t, 2, false, func(w *sealedWorld) {
		w.nodes[1].engine.SetEpochs([]crypto.Epoch{{Tag: 7, Key: []byte("another key....!")}})
	})
	a := w.task(w.nodes[0], "10.0.0.1")
	w.task(w.nodes[1], "10.0.0.2")
	if err := ping(t, a, "10.0.0.2", lab.Ping{}, 500*time.Millisecond); err == nil {
		t.Fatal("nodes with different keys reach each other")
	}
	w.dropped(w.nodes[0], dataplane.DropNoSession, 1)
	w.nothingClear([]byte("no canary"))
	closes(t, w.nodes[0].sw)
}

// TestSealedSmallUnderlay has an underlay that does not carry the network's MTU:
// senders are told, and adapt.
func TestSealedSmallUnderlay(t *testing.T) {
	w := sealed(t, 2, false)
	for _, n := range w.nodes {
		link, err := n.host.Netlink().LinkByName("eth0")
		if err == nil {
			err = n.host.Netlink().LinkSetMTU(link, 1400)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	a, b := w.task(w.nodes[0], "10.0.0.1"), w.task(w.nodes[1], "10.0.0.2")
	const passes = 1400 - 74 // outer IP and UDP 28, header 12, shim 4, Ethernet 14, tag 16
	fits := encap.EncryptedInnerMTU(1400, false)
	if err := ping(t, a, "10.0.0.2", lab.Ping{Size: passes, DF: true}, patience); err != nil {
		t.Fatal(err)
	}
	_ = ping(t, a, "10.0.0.2", lab.Ping{Size: passes + 1, DF: true}, time.Second) // lost, since it is sealed when it does not fit
	w.until("the sender is told", func() bool {
		return errors.Is(ping(t, a, "10.0.0.2", lab.Ping{Size: fits + 1, DF: true}, time.Second), unix.EMSGSIZE)
	})
	transfer(t, a, b, netip.MustParseAddr("10.0.0.2"), 2<<20)
	for _, n := range w.nodes {
		closes(t, n.sw)
	}
}

// TestOneFileWritesVXLAN: what could put an encrypted network in clear text is in
// one file, which encrypted networks do not reach.
func TestOneFileWritesVXLAN(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d files: %v", len(files), err)
	}
	found := false
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		uses := bytes.Contains(src, []byte("encap.PutVXLAN")) || bytes.Contains(src, []byte("encap.ParseVXLAN"))
		if uses && name != "plain.go" {
			t.Errorf("%s writes or reads VXLAN; plain.go alone does", name)
		}
		found = found || uses
	}
	if !found {
		t.Error("no file writes VXLAN: the test shows nothing")
	}
}

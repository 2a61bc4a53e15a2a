package dataplane_test

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/ovnd/ovnd/bench/lab"
	"github.com/ovnd/ovnd/crypto"
	"github.com/ovnd/ovnd/dataplane"
	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/encap"
)

// TestFormerlyPlain gives an encrypted network the ID of one that was not: what
// was learned there is no way to the wire, and nothing that waited there leaves.
func TestFormerlyPlain(t *testing.T) {
	w := sealed(t, 2, false)
	n1, n2 := w.nodes[0], w.nodes[1]
	plain := func(s *directory.Snapshot) {
		s.Encrypted, s.Identities = false, nil
		s.StaticVTEPs = []directory.StaticVTEP{{Name: "n2", VTEP: n2.addr, Learn: true}}
	}
	was := w.snap
	w.publish(plain)
	a := w.task(n1, "10.0.0.1")
	w.publish(n2.claim(netip.MustParseAddr("10.0.0.2")))
	b := w.lab.Host("b")
	plug(t, n2.sw, b, "eth0", w.snap, netip.MustParseAddr("10.0.0.2"))
	// A clear frame from an address that n1 does not know, as of a new task.
	early := frame{vni: sealedVNI, from: netip.MustParseAddr("10.0.0.7"), to: netip.MustParseAddr("10.0.0.1")}
	w.send(w.from(n2.host, n2.addr), n1, early.marshal())
	w.until("the frame is delivered", func() bool { return n1.sw.Stats().Total.PortOut.Packets > 0 })
	// And something that waits for an answer by ARP.
	_ = ping(t, a, "10.0.0.8", lab.Ping{}, 100*time.Millisecond)

	w.publish(func(s *directory.Snapshot) {
		s.Encrypted, s.Identities, s.StaticVTEPs = true, was.Identities, nil
	})
	w.wire = n1.host.Wire("eth0") // from now on
	_ = ping(t, a, "10.0.0.7", lab.Ping{}, 300*time.Millisecond)
	if err := ping(t, a, "10.0.0.2", lab.Ping{}, patience); err != nil {
		t.Error(err)
	}
	time.Sleep(2 * time.Second) // the keeper comes by
	w.nothingClear([]byte("no canary"))
	w.until("nothing waits", func() bool { return n1.sw.Stats().Total.Held == 0 })
	closes(t, n1.sw)
}

// TestSealedGarbage has a member of the network seal whatever comes to mind: each
// packet is delivered or counted, and nothing breaks.
func TestSealedGarbage(t *testing.T) {
	w := sealed(t, 2, false)
	n1, n2 := w.nodes[0], w.nodes[1]
	a := w.task(n1, "10.0.0.1")
	w.task(n2, "10.0.0.2")
	s := w.session(n2, n1)
	conn := w.from(n2.host, n2.addr)
	rng := rand.New(rand.NewPCG(1, 2))
	good := w.inner("10.0.0.2", "10.0.0.1")
	n := 4000
	for i := range n {
		var text []byte
		switch i % 4 {
		case 0:
			text = make([]byte, rng.IntN(100))
			for j := range text {
				text[j] = byte(rng.Uint32())
			}
		case 1:
			text = append([]byte(nil), good[:rng.IntN(len(good)+1)]...)
		default:
			text = append([]byte(nil), good...)
			for range 1 + rng.IntN(4) {
				text[rng.IntN(len(text))] ^= 1 << rng.IntN(8)
			}
			if i%8 == 3 {
				text[3] |= 1
			}
		}
		b := make([]byte, crypto.Overhead+len(text))
		copy(b[crypto.HeaderLen:], text)
		counter, ok := s.Reserve(1)
		if !ok {
			t.Fatal("the session seals nothing")
		}
		s.Seal(b, counter)
		w.send(conn, n1, b)
		if i%50 == 0 {
			time.Sleep(time.Millisecond)
		}
	}
	if err := ping(t, a, "10.0.0.2", lab.Ping{}, patience); err != nil {
		t.Error(err)
	}
	w.until("nothing waits", func() bool { return n1.sw.Stats().Total.Held == 0 })
	closes(t, n1.sw)
	t.Log(drops(n1.sw))
}

// inner is what is sealed: the shim, and a UDP packet.
func (w *sealedWorld) inner(src, dst string) []byte {
	vx := frame{vni: sealedVNI, from: netip.MustParseAddr(src), to: netip.MustParseAddr(dst), payload: []byte("payload")}.marshal()
	b := binary.BigEndian.AppendUint32(nil, uint32(sealedVNI)<<8)
	return append(b, vx[encap.VXLANHeaderLen:]...)
}

// TestOtherPolicy has a member seal for a network under another policy than the
// network's.
func TestOtherPolicy(t *testing.T) {
	w := sealed(t, 2, false)
	n1, n2 := w.nodes[0], w.nodes[1]
	w.task(n1, "10.0.0.1")
	w.task(n2, "10.0.0.2")
	n2.engine.SetPeers([]crypto.PeerInfo{{
		NodeID: n1.id, Static: n1.identity.Statement().Static, Addr: n1.addr,
		Policies: []crypto.Policy{crypto.OnlyChaCha20Poly1305},
	}})
	var s *crypto.Session
	w.until("a session under another policy", func() bool {
		s = n2.engine.Peer(n1.id, crypto.OnlyChaCha20Poly1305).Sending()
		return s != nil
	})
	text := w.inner("10.0.0.2", "10.0.0.1")
	b := make([]byte, crypto.Overhead+len(text))
	copy(b[crypto.HeaderLen:], text)
	counter, _ := s.Reserve(1)
	s.Seal(b, counter)
	before := n1.sw.Stats().Total.PortOut.Packets
	w.send(w.from(n2.host, n2.addr), n1, b)
	w.dropped(n1, dataplane.DropForeignNode, 1)
	if after := n1.sw.Stats().Total.PortOut.Packets; after != before {
		t.Error("delivered")
	}
	closes(t, n1.sw)
}

// TestUnclaimedShare has one member send from addresses that nobody claims: what
// another one sends before gossip told of it still waits for that.
func TestUnclaimedShare(t *testing.T) {
	w := sealed(t, 3, false)
	n1, n2, n3 := w.nodes[0], w.nodes[1], w.nodes[2]
	w.task(n1, "10.0.0.1")
	w.task(n2, "10.0.0.2")
	conn2, conn3 := w.from(n2.host, n2.addr), w.from(n3.host, n3.addr)
	late := w.sealBy(n3, n1, "10.0.0.30", "10.0.0.1")
	for range 200 {
		w.send(conn2, n1, w.sealBy(n2, n1, "10.0.0.77", "10.0.0.1"))
	}
	w.dropped(n1, dataplane.DropHoldFull, 1)
	before := n1.sw.Stats().Total.PortOut.Packets
	held := n1.sw.Stats().Total.Held
	w.send(conn3, n1, late)
	w.until("the packet is held", func() bool { return n1.sw.Stats().Total.Held > held })
	w.publish(n3.claim(netip.MustParseAddr("10.0.0.30")))
	w.until("the packet is delivered", func() bool { return n1.sw.Stats().Total.PortOut.Packets == before+1 })
	closes(t, n1.sw)
}

// TestOneVNI has the managers give a plain and an encrypted network one VNI: the
// second is refused, in either order, and nothing of the encrypted one is on the
// wire or taken from it in clear.
func TestOneVNI(t *testing.T) {
	for _, first := range []bool{false, true} {
		w := sealed(t, 2, false)
		n1, n2 := w.nodes[0], w.nodes[1]
		plain := network("plain", sealedVNI, false)
		plain.Peers[n1.addr], plain.Peers[n2.addr] = n1.id, n2.id
		if first {
			for _, n := range w.nodes {
				n.sw.RemoveNetwork(w.snap.ID)
				n.sw.SetNetwork(plain)
			}
			w.publish(func(*directory.Snapshot) {})
		}
		a := w.task(n1, "10.0.0.1")
		w.task(n2, "10.0.0.2")
		for _, n := range w.nodes {
			n.sw.SetNetwork(plain)
		}
		if err := ping(t, a, "10.0.0.2", lab.Ping{}, time.Second); first == (err == nil) {
			t.Errorf("the plain one first %v: ping: %v", first, err)
		}
		w.nothingClear([]byte("no canary"))
		before := n1.sw.Stats().Total.PortOut.Packets
		open := frame{vni: sealedVNI, from: netip.MustParseAddr("10.0.0.2"), to: netip.MustParseAddr("10.0.0.1")}
		w.send(w.from(n2.host, n2.addr), n1, open.marshal())
		why := dataplane.DropClearText
		if first {
			why = dataplane.DropNoEndpoint // of the plain one
		}
		w.dropped(n1, why, 1)
		if n1.sw.Stats().Total.PortOut.Packets != before {
			t.Error("delivered")
		}
		for _, n := range w.nodes {
			closes(t, n.sw)
		}
	}
}

package crypto

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// TestRestarts starts a node again and again, with the same certificate and a
// clock that goes back each time; the recorder panics at a nonce used twice.
func TestRestarts(t *testing.T) {
	restarts := size(1000, 200, 50)
	s := newSim(t, "a", "b")
	a, b := s.nodes[0], s.nodes[1]
	s.meet()
	var old *Session
	for i := range restarts {
		s.until(time.Minute, "a new session", func() bool {
			return a.sending(b) != old && a.sending(b) != nil && b.sending(a) != nil
		})
		old = a.sending(b)
		text := fmt.Sprint(i)
		if !a.send(b, Auto, text) || !b.send(a, Auto, text) {
			t.Fatalf("run %d: no session", i)
		}
		s.run(10 * time.Millisecond)
		if a.got[text] != 1 || b.got[text] != 1 {
			t.Fatalf("run %d: %d and %d came", i, a.got[text], b.got[text])
		}
		b.skew -= 3 * time.Second // more than passes in a run
		b.start()
		// Gossip tells a of the new key only later: b has to begin.
		b.engine.SetPeers(s.infos(b, []Policy{Auto}))
		if i%2 == 0 {
			a.engine.SetPeers(s.infos(a, []Policy{Auto}))
		}
	}
	if len(s.keys) < 2*restarts {
		t.Errorf("%d keys in %d runs", len(s.keys), restarts)
	}
	t.Logf("%d keys, %d nonces", len(s.keys), s.keys.sealed())
}

// TestRestartTold has gossip tell of a peer's new key before the peer itself does.
func TestRestartTold(t *testing.T) {
	s := newSim(t, "a", "b")
	s.meet()
	s.connected(Auto)
	a, b := s.nodes[0], s.nodes[1]
	s.run(renewAfter)
	old := a.sending(b)
	b.start()
	a.engine.SetPeers(s.infos(a, []Policy{Auto}))
	s.until(100*time.Millisecond, "a new session", func() bool { return a.sending(b) != old && b.sending(a) != nil })
}

// TestRestartUnnoticed has a peer that loses its sessions and does not know whom
// to tell: silence does.
func TestRestartUnnoticed(t *testing.T) {
	s := newSim(t, "a", "b")
	s.meet()
	s.connected(Auto)
	a, b := s.nodes[0], s.nodes[1]
	b.startWith(Config{}) // the same static key, as after losing the sessions alone
	s.until(silentAfter+2*time.Second, "a session again", func() bool { return b.sending(a) != nil })
}

func TestRoaming(t *testing.T) {
	s := newSim(t, "a", "b")
	s.meet()
	s.connected(Auto)
	a, b := s.nodes[0], s.nodes[1]
	s.run(time.Second)
	session, old := a.sending(b), b.addr
	b.addr = netip.MustParseAddr("2001:db8::2")
	if !b.send(a, Auto, "from elsewhere") {
		t.Fatal("no session")
	}
	s.run(10 * time.Millisecond)
	if a.sending(b) != session || session.Addr() != b.addr {
		t.Errorf("a sends to %v", a.sending(b).Addr())
	}
	a.send(b, Auto, "to elsewhere")
	s.run(10 * time.Millisecond)
	if b.got["to elsewhere"] != 1 {
		t.Error("nothing came to the new address")
	}
	// Rekeying finds the peer there too, though gossip has the old address.
	s.run(rekeyLate + 20*time.Second)
	if now := a.sending(b); now == session || now.Addr() != b.addr {
		t.Errorf("after rekeying: %v, was %v", now.Addr(), old)
	}
}

// TestRoamingResponder moves a peer that never begins a handshake: gossip has its
// old address, and a finds it for rekeying where it was last heard from.
func TestRoamingResponder(t *testing.T) {
	s := newSim(t, "a", "b")
	a, b := s.nodes[0], s.nodes[1]
	a.engine.SetPeers(s.infos(a, []Policy{Auto}))
	s.connected(Auto)
	b.addr = netip.MustParseAddr("192.0.2.99")
	f := &traffic{sim: s}
	f.run(2*rejectAfter, time.Second)
	if f.lost > 0 || a.sending(b).Addr() != b.addr {
		t.Errorf("%d of %d texts had no session", f.lost, f.sent)
	}
}

// TestLieToInitiator has gossip lie about the key of a peer that never begins a
// handshake, after it has proven it.
func TestLieToInitiator(t *testing.T) {
	s := newSim(t, "a", "b")
	a := s.nodes[0]
	infos := s.infos(a, []Policy{Auto})
	a.engine.SetPeers(infos)
	s.connected(Auto)
	infos[0].Static = [32]byte{9}
	a.engine.SetPeers(infos)
	f := &traffic{sim: s}
	f.run(2*rejectAfter, time.Second)
	f.check(t)
}

// TestMovedSilently has gossip tell of a new address before the peer itself does.
func TestMovedSilently(t *testing.T) {
	s := newSim(t, "a", "b")
	s.meet()
	s.connected(Auto)
	a, b := s.nodes[0], s.nodes[1]
	s.run(renewAfter)
	b.addr = netip.MustParseAddr("192.0.2.99")
	b.engine.SetPeers(nil) // says nothing on its own
	a.engine.SetPeers(s.infos(a, []Policy{Auto}))
	s.until(2*time.Second, "a session at the new address", func() bool {
		return a.sending(b) != nil && a.sending(b).Addr() == b.addr
	})
}

// TestGossipLies has gossip give c's static key for b: who answers is not b, and
// b itself is reached all the same, because it begins.
func TestGossipLies(t *testing.T) {
	s := newSim(t, "a", "b", "c")
	a, b, c := s.nodes[0], s.nodes[1], s.nodes[2]
	lie := PeerInfo{NodeID: "b", Static: c.identity.state.Static, Addr: c.addr, Policies: []Policy{Auto}}
	a.engine.SetPeers([]PeerInfo{lie})
	s.run(10 * time.Second)
	if a.sending(b) != nil || a.refusals(RefusedNode) == 0 {
		t.Fatal("c speaks as b")
	}
	if _, ok := a.engine.Verified("b"); ok {
		t.Fatal("b is verified")
	}
	b.engine.SetPeers(s.infos(b, []Policy{Auto}))
	s.until(10*time.Second, "b", func() bool { return a.sending(b) != nil })
	if st, _ := a.engine.Verified("b"); st.Static != b.identity.state.Static {
		t.Error("verified is another key")
	}
	// A lie told later closes nothing.
	session := a.sending(b)
	lie.Static = [32]byte{9}
	a.engine.SetPeers([]PeerInfo{lie})
	if a.sending(b) != session || session.closed.Load() {
		t.Error("gossip closes a session")
	}
	s.run(size(time.Hour, 10*time.Minute, 7*time.Minute))
	if a.sending(b) == nil {
		t.Error("gossip has prevented rekeying")
	}
}

func TestRevoke(t *testing.T) {
	s := newSim(t, "a", "b", "c")
	s.meet()
	s.connected(Auto)
	a, b, c := s.nodes[0], s.nodes[1], s.nodes[2]
	toB, toC := a.sending(b), a.sending(c)
	for _, n := range []*simNode{a, c} {
		n.engine.Revoke("b")
	}
	if !toB.closed.Load() || toC.closed.Load() || a.sending(b) != nil || a.engine.Alive("b") {
		t.Error("not b's session is closed, and it alone")
	}
	if _, ok := a.engine.Verified("b"); ok {
		t.Error("b still counts as verified")
	}
	s.run(rejectAfter)
	if a.sending(b) != nil || c.sending(b) != nil || b.sending(a) != nil {
		t.Error("a new session with a removed node")
	}
	if a.refusals(RefusedRevoked) == 0 {
		t.Error("not counted")
	}
	b.start() // not by starting anew either
	s.meet()
	s.run(time.Minute)
	if a.sending(b) != nil || b.sending(a) != nil {
		t.Error("a new session with a removed node")
	}
}

// TestRevokeHalfway removes a node between its initiation and its first datagram,
// and between our initiation and its response.
func TestRevokeHalfway(t *testing.T) {
	for _, kind := range []MessageType{Initiation, Response} {
		s := newSim(t, "a", "b")
		a, b := s.nodes[0], s.nodes[1]
		s.tap = func(from, _ netip.Addr, d []byte) bool {
			if MessageType(d[0]) == kind && from == b.addr {
				s.tap = nil
				s.inject(5*time.Millisecond, a.addr, a.addr, nil) // time passes
				a.engine.Revoke("b")
			}
			return true
		}
		if kind == Initiation {
			b.engine.SetPeers(s.infos(b, []Policy{Auto}))
		} else {
			a.engine.SetPeers(s.infos(a, []Policy{Auto}))
		}
		s.run(time.Minute)
		if a.sending(b) != nil || b.sending(a) != nil {
			t.Errorf("type %d: a session with a removed node", kind)
		}
	}
}

func TestStopped(t *testing.T) {
	s := newSim(t, "a", "b")
	s.meet()
	s.connected(Auto)
	a, b := s.nodes[0], s.nodes[1]
	session := a.sending(b)
	a.engine.end()
	if a.sending(b) != nil || !session.closed.Load() || a.engine.Receiving(session.local) != nil {
		t.Error("an engine that has ended has sessions")
	}
	if why, ok := a.engine.HandleHandshake(b.addr, make([]byte, HandshakeLen)); ok || why != RefusedLength {
		if why != RefusedNoIdentity && why != RefusedLength {
			t.Errorf("refused: %v", why)
		}
	}
}

// TestUnwelcome are members that must not get a session: expired, of another
// swarm, and one that says to be this node itself.
func TestUnwelcome(t *testing.T) {
	s := newSim(t, "a", "b")
	a, b := s.nodes[0], s.nodes[1]
	other := newTestCA(t)
	for name, c := range map[string]Credentials{
		"another root": other.credentials(t, "b", roleWorker),
		"myself":       s.ca.credentials(t, "a", roleWorker),
	} {
		b.cred = c
		b.start()
		b.engine.SetPeers([]PeerInfo{{NodeID: "a", Static: a.identity.state.Static, Addr: a.addr, Policies: []Policy{Auto}}})
		s.run(10 * time.Second)
		if b.sending(a) != nil {
			t.Errorf("%s: a session", name)
		}
	}
	if a.refusals(RefusedIdentity) == 0 || a.refusals(RefusedNode) == 0 {
		t.Errorf("not counted: %v", a.engine.Stats().Refused)
	}
	b.cred = s.ca.credentials(t, "b", roleWorker)
	b.start()
	s.now = s.now.Add(100 * 24 * time.Hour) // the certificates have expired
	s.meet()
	s.run(10 * time.Second)
	if a.sending(b) != nil || b.sending(a) != nil {
		t.Error("a session by an expired certificate")
	}
}

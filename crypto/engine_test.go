package crypto

import (
	"fmt"
	"net/netip"
	"testing"
	"time"
)

func TestSessionBothWays(t *testing.T) {
	for _, policy := range []Policy{Auto, OnlyChaCha20Poly1305, OnlyAES256GCM} {
		s := newSim(t, "a", "b")
		a, b := s.nodes[0], s.nodes[1]
		s.meet(policy)
		s.connected(policy)
		for i := range 10 {
			a.send(b, policy, fmt.Sprint("to b ", i))
			b.send(a, policy, fmt.Sprint("to a ", i))
		}
		s.run(time.Second)
		if len(a.got) != 10 || len(b.got) != 10 {
			t.Fatalf("%v: %d and %d of 10 texts came", policy, len(a.got), len(b.got))
		}
		want := AES256GCM
		if policy == OnlyChaCha20Poly1305 || policy == Auto && !aesInHardware() {
			want = ChaCha20Poly1305
		}
		if got := a.engine.Peer("b", policy).Sending().Suite(); got != want {
			t.Errorf("%v: suite %v", policy, got)
		}
		if !a.engine.Alive("b") || a.engine.Alive("c") {
			t.Error("who is alive is wrong")
		}
		if st, ok := a.engine.Verified("b"); !ok || st.Static != b.identity.state.Static || st.Record != b.identity.state.Record {
			t.Error("the statement is not b's")
		}
	}
}

// traffic is a number of texts a second between all nodes, each told apart.
type traffic struct {
	sim  *sim
	sent int
	lost int // there was nothing to seal them with
}

func (f *traffic) run(d time.Duration, every time.Duration) {
	for end := f.sim.now.Add(d); f.sim.now.Before(end); f.sim.run(every) {
		for _, a := range f.sim.nodes {
			for _, b := range f.sim.nodes {
				if a == b {
					continue
				}
				f.sent++
				if !a.send(b, Auto, fmt.Sprint("text ", f.sent)) {
					f.lost++
				}
			}
		}
	}
}

// check wants each text to have come, once.
func (f *traffic) check(t *testing.T) {
	t.Helper()
	f.sim.run(time.Second)
	if f.lost > 0 {
		t.Errorf("%d of %d texts had no session", f.lost, f.sent)
	}
	came := 0
	for _, n := range f.sim.nodes {
		for text, times := range n.got {
			if came++; times != 1 {
				t.Errorf("%q came %d times", text, times)
			}
		}
	}
	if came+f.lost != f.sent {
		t.Errorf("%d of %d texts came", came, f.sent)
	}
}

// TestRotations changes epochs a hundred times, each node a step behind the one
// before, while sessions are rekeyed and datagrams overtake each other and come
// twice.
func TestRotations(t *testing.T) {
	s := newSim(t, "a", "b", "c")
	s.jitter, s.duplicate = 80*time.Millisecond, 0.1
	s.meet()
	s.connected(Auto)
	f := &traffic{sim: s}
	rotations := size[uint64](100, 100, 20)
	every := size(500*time.Millisecond, 2*time.Second, 2*time.Second)
	for epoch := range rotations {
		for i, n := range s.nodes {
			n.engine.SetEpochs(testEpochs(epoch+1, epoch+2, epoch+3))
			f.run(time.Duration(40+i)*time.Second, every)
		}
	}
	f.check(t)
	for _, n := range s.nodes {
		for _, p := range n.engine.Stats().Peers {
			if epoch := p.Sessions[0].Epoch; epoch < rotations {
				t.Errorf("%s to %s: a session of epoch %d", n.id, p.Node, epoch)
			}
		}
	}
	t.Logf("%d texts, %d keys, %d nonces", f.sent, len(s.keys), s.keys.sealed())
}

// TestSkippedEpochs has an initiator whose primary epoch is one that the
// responder has dropped.
func TestSkippedEpochs(t *testing.T) {
	s := newSim(t, "a", "b")
	s.nodes[0].engine.SetEpochs(testEpochs(1, 2, 3))
	s.nodes[1].engine.SetEpochs(testEpochs(3, 4, 5))
	s.meet()
	s.connected(Auto)
	if s.nodes[0].refusals(RefusedEpoch)+s.nodes[1].refusals(RefusedEpoch) == 0 {
		t.Error("nobody has refused an epoch")
	}
}

func TestNoCommonEpoch(t *testing.T) {
	other := []Epoch{{Tag: 1, Key: []byte("another key.....")}, {Tag: 2, Key: []byte("another key, too")}}
	for name, epochs := range map[string][]Epoch{"tag": testEpochs(7, 8, 9), "key": other, "none": nil} {
		s := newSim(t, "a", "b")
		s.nodes[1].engine.SetEpochs(epochs)
		s.meet()
		s.run(time.Minute)
		for _, n := range s.nodes {
			if st := n.engine.Stats().Peers[0]; len(st.Sessions) > 0 && st.Sessions[0].Established {
				t.Errorf("%s: a session is established", name)
			}
		}
		a, b := s.nodes[0], s.nodes[1]
		want := map[string]uint64{
			"tag": b.refusals(RefusedEpoch), "none": b.refusals(RefusedNoKey),
			"key": a.refusals(RefusedHandshake) + b.refusals(RefusedHandshake),
		}
		if want[name] == 0 {
			t.Errorf("%s: not counted: %v %v", name, a.engine.Stats().Refused, b.engine.Stats().Refused)
		}
		// Once the keys are right, a session follows.
		b.engine.SetEpochs(testEpochs(1, 2, 3))
		s.connected(Auto)
	}
}

func TestNoIdentityYet(t *testing.T) {
	s := newSim(t, "a", "b")
	a := s.nodes[0]
	s.meet()
	identity := a.identity
	a.identity = nil
	s.run(10 * time.Second)
	if a.refusals(RefusedNoIdentity) == 0 || a.sending(s.nodes[1]) != nil {
		t.Fatal("a handshake without an identity")
	}
	a.identity = identity
	s.connected(Auto)
}

// TestLossyNetwork wants sessions and rekeying in spite of every fifth datagram
// lost, and none delivered twice.
func TestLossyNetwork(t *testing.T) {
	s := newSim(t, "a", "b", "c")
	s.jitter, s.duplicate, s.loss = 300*time.Millisecond, 0.2, 0.2
	s.meet()
	s.connected(Auto)
	f := &traffic{sim: s}
	f.run(size(time.Hour, time.Hour, 6*time.Minute), time.Second)
	if f.lost > 0 {
		t.Errorf("%d of %d texts had no session", f.lost, f.sent)
	}
	came := 0
	for _, n := range s.nodes {
		for text, times := range n.got {
			if came++; times != 1 {
				t.Errorf("%q came %d times", text, times)
			}
		}
	}
	if want := f.sent * 7 / 10; came < want {
		t.Errorf("%d of %d texts came, want %d", came, f.sent, want)
	}
}

// TestCrossing wants two nodes that begin at once to end with one session.
func TestCrossing(t *testing.T) {
	s := newSim(t, "a", "b")
	kinds := map[MessageType]int{}
	s.tap = func(_, _ netip.Addr, b []byte) bool { kinds[MessageType(b[0])]++; return true }
	s.meet()
	s.connected(Auto)
	s.run(10 * time.Second)
	if kinds[Initiation] != 2 || kinds[Response] != 1 {
		t.Errorf("messages: %v", kinds)
	}
	if n := s.nodes[0].refusals(RefusedCrossing) + s.nodes[1].refusals(RefusedCrossing); n != 1 {
		t.Errorf("%d crossing initiations refused", n)
	}
}

// TestOneWayForInitiations loses all initiations of the node that goes first when
// they cross: the other's are answered after a while.
func TestOneWayForInitiations(t *testing.T) {
	s := newSim(t, "a", "b")
	a, b := s.nodes[0], s.nodes[1]
	if string(a.identity.state.Static[:]) > string(b.identity.state.Static[:]) {
		a, b = b, a
	}
	s.tap = func(from, _ netip.Addr, d []byte) bool {
		return from != a.addr || MessageType(d[0]) != Initiation
	}
	s.meet()
	start := s.now
	s.connected(Auto)
	if waited := s.now.Sub(start); waited > 12*time.Second {
		t.Errorf("a session only after %v", waited)
	}
	_ = b
}

func TestRekeyTimes(t *testing.T) {
	for _, tt := range []struct {
		name    string
		blocked bool // the initiator's initiations
		want    time.Duration
	}{{"initiator", false, rekeyAfter}, {"responder", true, rekeyLate}} {
		s := newSim(t, "a", "b")
		s.meet()
		s.connected(Auto)
		s.run(10 * time.Second)
		a, b := s.nodes[0], s.nodes[1]
		if !a.sending(b).initiator {
			a, b = b, a
		}
		old, created := a.sending(b), a.sending(b).created
		if tt.blocked {
			s.tap = func(from, _ netip.Addr, d []byte) bool {
				return from != a.addr || MessageType(d[0]) != Initiation
			}
		}
		s.until(rejectAfter, "a new session", func() bool { return a.sending(b) != old && b.sending(a) != nil })
		if got := s.now.Sub(created); got < tt.want || got > tt.want+2*time.Second {
			t.Errorf("%s: rekeyed after %v", tt.name, got)
		}
		s.run(time.Second)
		if old.closed.Load() {
			t.Errorf("%s: the old session is closed while datagrams may be in flight", tt.name)
		}
		s.run(rejectAfter - tt.want)
		if !old.closed.Load() || a.engine.Receiving(old.local) != nil {
			t.Errorf("%s: the old session is still there", tt.name)
		}
	}
}

// TestCutOff wants a session to end after 180 s if no rekeying comes through, and
// to be back when the network is.
func TestCutOff(t *testing.T) {
	s := newSim(t, "a", "b")
	s.meet()
	s.connected(Auto)
	a, b := s.nodes[0], s.nodes[1]
	old, created, changed := a.sending(b), a.sending(b).created, a.changed
	s.tap = func(netip.Addr, netip.Addr, []byte) bool { return false }
	s.run(silentAfter + time.Second)
	if a.engine.Alive("b") {
		t.Error("b is alive")
	}
	s.until(rejectAfter, "the end of the session", func() bool { return a.sending(b) == nil })
	if got := s.now.Sub(created).Round(10 * time.Millisecond); got != rejectAfter {
		t.Errorf("closed after %v", got)
	}
	if _, ok := old.Reserve(1); ok {
		t.Error("a closed session sends")
	}
	if a.changed == changed {
		t.Error("nobody was told")
	}
	s.tap = nil
	s.connected(Auto)
}

func TestPeersGone(t *testing.T) {
	s := newSim(t, "a", "b", "c")
	s.meet()
	s.connected(Auto)
	a, b, c := s.nodes[0], s.nodes[1], s.nodes[2]
	toB, toC := a.sending(b), a.sending(c)
	handle := a.engine.Peer("b", Auto)
	b.engine.SetPeers(nil)
	a.engine.SetPeers(s.infos(a, []Policy{Auto})[1:]) // c alone
	if a.sending(b) != nil || !toB.closed.Load() || toC.closed.Load() {
		t.Error("not b's session is closed, and it alone")
	}
	handle.Want()
	s.run(time.Minute)
	if a.sending(b) != nil || b.sending(a) != nil {
		t.Error("a session with a peer that is gone")
	}
	a.engine.SetPeers(s.infos(a, []Policy{Auto}))
	s.until(time.Second, "b again", func() bool { return a.sending(b) != nil })
	if a.engine.Peer("b", Auto) != handle {
		t.Error("the handle is another")
	}
}

// TestWant has a policy that nobody named: a session is made when there is
// something to send, and not renewed when there is not.
func TestWant(t *testing.T) {
	s := newSim(t, "a", "b")
	s.meet()
	s.connected(Auto)
	a, b := s.nodes[0], s.nodes[1]
	if a.send(b, OnlyChaCha20Poly1305, "nothing to seal it with") {
		t.Fatal("a session that nobody wanted")
	}
	s.run(time.Second)
	if !a.send(b, OnlyChaCha20Poly1305, "wanted") {
		t.Fatal("no session")
	}
	s.run(rejectAfter)
	if a.engine.Peer("b", OnlyChaCha20Poly1305).Sending() != nil {
		t.Error("renewed without need")
	}
	if b.got["wanted"] != 1 {
		t.Error("nothing came")
	}
}

package crypto

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

// TestOldRunComesBack keeps an initiation of a peer's former run from arriving
// until the peer has restarted and is in session again: what it has proven in its
// present run stands.
func TestOldRunComesBack(t *testing.T) {
	s := newSim(t, "a", "b")
	a, b := s.nodes[0], s.nodes[1]
	var held []capture
	s.tap = func(from, to netip.Addr, d []byte) bool {
		if from == a.addr && MessageType(d[0]) == Initiation {
			held = append(held, capture{from, to, bytes.Clone(d)})
			return false
		}
		return true
	}
	a.engine.SetPeers(s.infos(a, []Policy{Auto}))
	s.run(10 * time.Second)
	if len(held) == 0 {
		t.Fatal("no initiation")
	}
	s.tap = nil
	a.start()
	s.meet()
	s.connected(Auto)
	s.run(time.Second)
	want := a.identity.Statement()
	for _, c := range held {
		s.inject(0, c.from, c.to, c.datagram)
		s.run(100 * time.Millisecond)
		if got, ok := b.engine.Verified("a"); !ok || got.Static != want.Static || got.Record != want.Record {
			t.Fatalf("b takes the keys of a's former run for proven")
		}
	}
	a.send(b, Auto, "after")
	b.send(a, Auto, "after")
	s.run(10 * time.Millisecond)
	if a.got["after"] != 1 || b.got["after"] != 1 {
		t.Error("the session does not go on")
	}
}

// TestMisdirected has gossip say that a third node is where b is, with b's key:
// a's attempts to reach that node disturb its session with b for seconds at most.
func TestMisdirected(t *testing.T) {
	worst := time.Duration(0)
	for round := range size(10, 3, 1) {
		s := newSim(t, "a", "b")
		s.rng = rand.New(rand.NewPCG(uint64(round), 7))
		s.jitter = 10 * time.Millisecond
		a, b := s.nodes[0], s.nodes[1]
		infos := s.infos(a, []Policy{Auto})
		for i := range 3 {
			lie := infos[0]
			lie.NodeID = fmt.Sprint("m", i)
			infos = append(infos, lie)
		}
		a.engine.SetPeers(infos)
		b.engine.SetPeers(s.infos(b, []Policy{Auto}))
		worst = max(worst, s.outage(t, a, b, size(10*time.Minute, 3*time.Minute, 20*time.Second)))
	}
	t.Logf("longest outage %v", worst)
	if worst > 5*time.Second {
		t.Errorf("an outage of %v", worst)
	}
}

// outage sends in both directions for a time and returns the longest stretch in
// which nothing of one arrived.
func (s *sim) outage(tb testing.TB, a, b *simNode, d time.Duration) (worst time.Duration) {
	tb.Helper()
	const each = 100 * time.Millisecond
	lastA, lastB := s.now, s.now
	for end, i := s.now.Add(d), 0; s.now.Before(end); i++ {
		text := fmt.Sprint("outage ", i)
		a.send(b, Auto, text)
		b.send(a, Auto, text)
		s.run(each)
		if a.got[text] > 0 {
			lastA = s.now
		}
		if b.got[text] > 0 {
			lastB = s.now
		}
		worst = max(worst, s.now.Sub(lastA), s.now.Sub(lastB))
	}
	return worst
}

// TestFloodOfReplays has an observer, who is no member, replay a captured
// initiation without end, from its sender's address and from many: the sender is
// asked for a cookie all the same, and gets through with it.
func TestFloodOfReplays(t *testing.T) {
	for _, many := range []bool{false, true} {
		s := newSim(t, "a", "b")
		a, b := s.nodes[0], s.nodes[1]
		list := s.record()
		a.engine.SetPeers(s.infos(a, []Policy{Auto}))
		s.connected(Auto)
		c := captured(t, *list, Initiation)
		s.tap = nil
		flood := func(i int) {
			for j := range queueLen - 10 {
				from := c.from
				if many {
					from = netip.AddrFrom4([4]byte{10, byte(i), byte(j), byte(i >> 8)})
				}
				s.asked[[2]netip.Addr{from, c.to}] = len(c.datagram)
				b.engine.HandleHandshake(from, c.datagram)
			}
		}
		for i := range 20 {
			flood(i)
			s.run(time.Millisecond)
		}
		old := a.sending(b)
		s.tap = func(from, _ netip.Addr, d []byte) bool { // each message of a's comes behind hundreds of others
			if from == a.addr && MessageType(d[0]) == Initiation {
				flood(int(s.now.UnixNano()))
			}
			return true
		}
		a.engine.SetPeers(nil)
		a.engine.SetPeers(s.infos(a, []Policy{Auto}))
		s.until(10*time.Second, "a new session", func() bool { return a.sending(b) != nil && a.sending(b) != old })
		if refused := b.engine.Stats().Refused; refused[RefusedRate] > 0 || refused[RefusedReplay] == 0 {
			t.Errorf("many %v: %v", many, refused)
		}
	}
}

// TestManyFakeNodes has gossip invent nodes, more than an engine remembers: there
// is room for a real one once they are gone.
func TestManyFakeNodes(t *testing.T) {
	s := newSim(t, "a", "b")
	a, b := s.nodes[0], s.nodes[1]
	infos := make([]PeerInfo, maxMembers)
	for i := range infos {
		infos[i] = PeerInfo{NodeID: fmt.Sprint("fake", i), Addr: netip.MustParseAddr("198.51.100.1"), Policies: []Policy{Auto}}
	}
	a.engine.SetPeers(infos)
	a.engine.SetPeers(s.infos(a, []Policy{Auto}))
	b.engine.SetPeers(s.infos(b, []Policy{Auto}))
	s.until(10*time.Second, "a session with the real one", func() bool { return a.sending(b) != nil && b.sending(a) != nil })
	if n := len(a.engine.members); n > 100 {
		t.Errorf("%d nodes are remembered", n)
	}
}

// TestNamesakes has b restart, unable to call a, while others in gossip say that
// they were b: a is told of each in turn, finds b, and forgets what b was before.
func TestNamesakes(t *testing.T) {
	s := newSim(t, "a", "b")
	a, b := s.nodes[0], s.nodes[1]
	s.meet()
	s.connected(Auto)
	b.start()
	turns := s.infos(a, []Policy{Auto})
	for i := range 2 {
		fake := turns[0]
		fake.Static[i] ^= 1
		fake.Addr = netip.AddrFrom4([4]byte{198, 51, 100, byte(i)})
		turns = append(turns, fake)
	}
	old := a.sending(b)
	for i := range 40 {
		a.engine.SetPeers(turns[s.rng.IntN(len(turns)):][:1])
		s.run(6 * time.Second)
		if now := a.sending(b); now != nil && now != old {
			t.Logf("after %d turns", i+1)
			return
		}
	}
	t.Error("b is never found")
}

// TestForgedCookies has a member on the path, who knows b's static key, answer each
// initiation to b with a cookie of its own, last: a gets through.
func TestForgedCookies(t *testing.T) {
	s := newSim(t, "a", "b")
	a, b := s.nodes[0], s.nodes[1]
	checker := newChecker(b.identity.state.Static)
	s.tap = func(from, to netip.Addr, d []byte) bool {
		if from == a.addr && MessageType(d[0]) == Initiation {
			reply := checker.reply(d, netip.MustParseAddr("203.0.113.1"), s.now)
			for _, after := range []time.Duration{500 * time.Microsecond, 20 * time.Millisecond} {
				s.inject(after, to, a.addr, reply)
			}
		}
		return true
	}
	a.engine.SetPeers(s.infos(a, []Policy{Auto}))
	s.until(30*time.Second, "a session", func() bool { return a.sending(b) != nil })
}

// TestNeverStuck has all that may go wrong go wrong for a while, at random, and
// wants sessions that carry packets both ways soon after it has stopped.
func TestNeverStuck(t *testing.T) {
	rounds := size(300, 20, 5)
	worst := time.Duration(0)
	for seed := range rounds {
		worst = max(worst, stuck(t, uint64(seed)))
	}
	t.Logf("longest time to recover %v", worst)
}

func stuck(t *testing.T, seed uint64) time.Duration {
	s := newSim(t, "a", "b", "c")
	rng := rand.New(rand.NewPCG(seed, 99))
	s.rng = rand.New(rand.NewPCG(seed, 98))
	s.jitter, s.duplicate = 20*time.Millisecond, 0.1
	var old []capture
	s.tap = func(from, to netip.Addr, d []byte) bool {
		if len(old) < 200 {
			old = append(old, capture{from, to, bytes.Clone(d)})
		}
		return true
	}
	s.meet()
	for range 30 {
		n := s.nodes[rng.IntN(3)]
		switch rng.IntN(8) {
		case 0:
			n.start()
			n.engine.SetPeers(s.infos(n, []Policy{Auto}))
		case 1:
			n.start() // and gossip tells it of nobody yet
		case 2:
			s.loss = []float64{0, 0.3, 1}[rng.IntN(3)]
		case 3:
			infos := s.infos(n, []Policy{Auto})
			infos[0].Static[0] ^= byte(1 + rng.IntN(255))
			n.engine.SetPeers(infos)
		case 4:
			infos := s.infos(n, []Policy{Auto})
			infos[0].Addr = netip.MustParseAddr("198.51.100.9")
			n.engine.SetPeers(infos)
		case 5:
			n.engine.SetPeers(s.infos(n, []Policy{Auto}))
		case 6:
			for _, c := range old {
				s.inject(time.Duration(rng.IntN(50))*time.Millisecond, c.from, c.to, c.datagram)
			}
		case 7:
			n.engine.SetEpochs(testEpochs(uint64(rng.IntN(3))+1, uint64(rng.IntN(3))+2, uint64(rng.IntN(3))+3))
		}
		for _, x := range s.nodes {
			for _, y := range s.nodes {
				if x != y {
					x.send(y, Auto, "noise")
				}
			}
		}
		s.run(time.Duration(rng.IntN(5000)) * time.Millisecond)
	}
	s.loss = 0
	for _, n := range s.nodes {
		n.engine.SetEpochs(testEpochs(1, 2, 3))
	}
	s.meet()
	healed := s.now
	for i := 0; ; i++ {
		text := fmt.Sprint("healed ", i)
		for _, x := range s.nodes {
			for _, y := range s.nodes {
				if x != y {
					x.send(y, Auto, text)
				}
			}
		}
		s.run(100 * time.Millisecond)
		all := true
		for _, x := range s.nodes {
			all = all && x.got[text] >= 2
		}
		if all {
			return s.now.Sub(healed)
		}
		if s.now.Sub(healed) > 25*time.Second {
			for _, n := range s.nodes {
				t.Logf("%s: %+v", n.id, n.engine.Stats())
			}
			t.Fatalf("seed %d: no way between all %v after all is well", seed, s.now.Sub(healed))
		}
	}
}

// TestInventedNodes has gossip invent nodes at the address of somebody who is to be
// flooded, while two real ones meet.
func TestInventedNodes(t *testing.T) {
	s := newSim(t, "a", "b")
	a, b := s.nodes[0], s.nodes[1]
	victim := netip.MustParseAddr("198.51.100.1")
	sent := 0
	s.tap = func(_, to netip.Addr, _ []byte) bool {
		if to == victim {
			sent++
		}
		return true
	}
	infos := s.infos(a, []Policy{Auto})
	for i := range size(3000, 1500, 300) {
		infos = append(infos, PeerInfo{NodeID: fmt.Sprint("fake", i), Static: [32]byte{9, byte(i), byte(i >> 8)}, Addr: victim, Policies: []Policy{Auto}})
	}
	a.engine.SetPeers(infos)
	s.until(time.Minute, "a session with the real one", func() bool { return a.sending(b) != nil && b.sending(a) != nil })
	sent = 0
	before := a.sending(b)
	seconds := size(5, 2, 1)
	s.run(time.Duration(seconds) * time.Second)
	if sent > (seconds+1)*callsEach {
		t.Errorf("%d initiations in %d s", sent, seconds)
	}
	before.next.Store(before.limits.rekey) // the real one is not kept waiting by the others
	a.engine.kick()
	s.until(100*time.Millisecond, "new keys", func() bool { return a.sending(b) != before })
}

// TestFloodOfCookieReplies has an outsider, who knows nothing, write what needs no
// mac1: it takes nobody's place in the queue.
func TestFloodOfCookieReplies(t *testing.T) {
	s := newSim(t, "a", "b")
	a, b := s.nodes[0], s.nodes[1]
	junk := make([]byte, CookieReplyLen)
	junk[0] = byte(CookieReply)
	b.engine.SetPeers([]PeerInfo{{NodeID: "silent", Static: [32]byte{9}, Addr: netip.MustParseAddr("198.51.100.1"), Policies: []Policy{Auto}}})
	s.run(time.Millisecond)
	for i := range 1 << 16 {
		putIndex(junk[1:], uint32(i))
		b.engine.HandleHandshake(netip.MustParseAddr("198.51.100.2"), junk)
	}
	if len(b.engine.queue) > 0 || len(b.engine.cookies) > cookiesLen {
		t.Errorf("%d and %d wait", len(b.engine.queue), len(b.engine.cookies))
	}
	a.engine.SetPeers(s.infos(a, []Policy{Auto}))
	s.until(100*time.Millisecond, "a session", func() bool { return a.sending(b) != nil })
	if b.engine.Stats().Loaded || b.refusals(RefusedUnexpected) < 1<<15 {
		t.Errorf("refused: %v", b.engine.Stats().Refused)
	}
}

package crypto

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/flynn/noise"
)

// A countedDH counts the X25519 operations that handshakes take: all else that a
// message costs is small beside them.
type countedDH struct {
	noise.DHFunc
	n *int
}

func (d countedDH) DH(private, public []byte) ([]byte, error) {
	*d.n++
	return d.DHFunc.DH(private, public)
}

// countDH counts those of all engines until the test ends.
func countDH(t *testing.T) (n *int) {
	n = new(int)
	was := noiseSuite
	noiseSuite = noise.NewCipherSuite(countedDH{noise.DH25519, n}, noise.CipherChaChaPoly, noise.HashBLAKE2s)
	t.Cleanup(func() { noiseSuite = was })
	return n
}

// A forger makes initiations that pass as a member's until they are computed
// with, each another one.
type forger struct {
	m      []byte
	marker *marker
	n      uint32
}

func newForger(t testing.TB, to *simNode) *forger {
	t.Helper()
	stranger := testIdentity(t, newTestCA(t).credentials(t, "x", roleWorker))
	static := to.identity.state.Static
	return &forger{initiationOf(t, stranger, static, to.sim.now), newMarker(static), 0}
}

func (f *forger) next(now time.Time) []byte {
	f.n++
	binary.BigEndian.PutUint32(f.m[100:], f.n)
	f.marker.mark(f.m, now)
	return f.m
}

// TestFlood sends forged initiations with a good mac1, from one address and from
// many, many a second and few: almost none costs more than a mac, none is
// answered with more than a cookie, and a member gets through with one.
func TestFlood(t *testing.T) {
	for _, many := range []bool{false, true} {
		for _, each := range []int{40, 1} { // in 2 ms: 20,000 and 500 in a second
			flood(t, many, each)
		}
	}
}

func flood(t *testing.T, many bool, each int) {
	t.Helper()
	name := fmt.Sprintf("many addresses %v, %d at once", many, each)
	s := newSim(t, "a", "b", "c")
	a, b, c := s.nodes[0], s.nodes[1], s.nodes[2]
	b.engine.SetPeers(s.infos(b, []Policy{Auto})[:1]) // a
	s.until(time.Second, "a session beforehand", func() bool { return a.sending(b) != nil })
	established := a.sending(b)
	// a knows where c is, and leaves it to c to begin.
	a.engine.SetPeers([]PeerInfo{{NodeID: c.id, Addr: c.addr, Policies: []Policy{Auto}}})
	forged := newForger(t, a)
	cookies := 0
	s.tap = func(from, to netip.Addr, d []byte) bool {
		switch {
		case from == a.addr && MessageType(d[0]) == CookieReply:
			cookies++
		case from == a.addr && MessageType(d[0]) == Response && to != c.addr && to != b.addr:
			t.Error("a forged initiation was answered")
		}
		return true
	}
	rounds := size(2000, 2000, 1000)
	dh := countDH(t)
	for i := range rounds {
		for j := range each {
			from := netip.AddrFrom4([4]byte{198, 51, 100, 66})
			if many {
				from = netip.AddrFrom4([4]byte{10, byte(i), byte(j), byte(i >> 8)})
			}
			s.asked[[2]netip.Addr{from, a.addr}] = HandshakeLen
			a.engine.HandleHandshake(from, forged.next(s.now))
		}
		if i == rounds/4 {
			c.engine.SetPeers(s.infos(c, []Policy{Auto})[:1])
		}
		if !a.send(b, Auto, fmt.Sprint(i)) {
			t.Fatal("no session any more")
		}
		s.run(2 * time.Millisecond)
	}
	if c.sending(a) == nil || a.sending(c) == nil {
		t.Errorf("%s: a member with a cookie does not get through: %v", name, c.engine.Stats().Refused)
	}
	if a.sending(b) != established || len(b.got) != rounds {
		t.Errorf("%s: %d of %d texts came", name, len(b.got), rounds)
	}
	refused := a.engine.Stats().Refused
	// Two a message: es and ss. What comes before there is load, and the member's.
	if most := 2*2*loadedRate + 10; *dh > most {
		t.Errorf("%s: %d operations of X25519, want at most %d: %v", name, *dh, most, refused)
	}
	if !many && cookies > 5*addressRate || cookies > 6*strangeReply {
		t.Errorf("%s: %d cookies", name, cookies)
	}
	t.Logf("%s: %d operations of X25519, %d cookies, %v", name, *dh, cookies, refused)
	s.run(2 * loadedFor)
	if a.engine.Stats().Loaded {
		t.Error("still under load")
	}
}

// TestProvenFlood is one of members' accomplices, who have cookies for all the
// addresses that they send from.
func TestProvenFlood(t *testing.T) {
	s := newSim(t, "a")
	a := s.nodes[0]
	a.engine.gate.loadedUntil.Store(int64(time.Hour))
	static, forged := a.identity.state.Static, newForger(t, a)
	markers := make(map[netip.Addr]*marker)
	from := func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}) }
	s.tap = func(_, to netip.Addr, d []byte) bool { return !markers[to].take(d, s.now) }
	const addresses = 2000
	for i := range addresses {
		g := newMarker(static)
		markers[from(i)] = g
		s.asked[[2]netip.Addr{from(i), a.addr}] = HandshakeLen
		m := forged.next(s.now)
		g.mark(m, s.now)
		a.engine.HandleHandshake(from(i), m)
		s.run(5 * time.Millisecond) // what they share cells with may have one, too
	}
	dh := countDH(t)
	for i := range addresses {
		m := forged.next(s.now)
		markers[from(i)].mark(m, s.now)
		a.engine.HandleHandshake(from(i), m)
		s.run(time.Second / addresses)
	}
	if *dh < 100 || *dh > 2*2*strangeRate {
		t.Errorf("%d operations of X25519 in a second; %v", *dh, a.engine.Stats().Refused)
	}
}

// TestAnswerFlood has a member on the path answer an initiation, again and again,
// with messages that do not decrypt: they cost little, and the true answer counts.
func TestAnswerFlood(t *testing.T) {
	s := newSim(t, "a", "b")
	a, b := s.nodes[0], s.nodes[1]
	var answer []byte
	s.tap = func(from, _ netip.Addr, d []byte) bool {
		if from == b.addr && answer == nil {
			answer = append(answer, d...)
		}
		return from == a.addr
	}
	dh, marker := countDH(t), newMarker(a.identity.state.Static)
	a.engine.SetPeers(s.infos(a, []Policy{Auto}))
	s.run(10 * time.Millisecond)
	*dh = 0
	for i := range 10000 {
		forged := append([]byte(nil), answer...)
		binary.BigEndian.PutUint32(forged[100:], uint32(i))
		marker.mark(forged, s.now)
		s.inject(0, b.addr, a.addr, forged)
		s.run(10 * time.Microsecond)
	}
	if *dh == 0 || *dh > 2*2*answerBurst {
		t.Errorf("%d operations of X25519 for 10,000 forged answers; %v", *dh, a.engine.Stats().Refused)
	}
	s.tap = nil
	s.until(10*time.Second, "a session", func() bool { return a.sending(b) != nil })
}

// TestAnswersOfOne has a member answer initiations to it, and to nodes that it has
// invented, again and again with messages that do not decrypt: the answers of others
// are looked into all the same, and its own cost no more than they may.
func TestAnswersOfOne(t *testing.T) {
	for _, invented := range []int{0, 100} {
		s := newSim(t, "a", "b", "c")
		a, b, c := s.nodes[0], s.nodes[1], s.nodes[2]
		s.meet()
		s.connected(Auto)
		c.engine.SetPeers(nil)
		b.engine.SetPeers(nil)
		var asked []initiation // the last ones that c has got
		s.tap = func(_, to netip.Addr, d []byte) bool {
			if to == c.addr && MessageType(d[0]) == Initiation {
				asked = append(asked, bytes.Clone(d))
			}
			return to != c.addr
		}
		infos := s.infos(a, []Policy{Auto})
		for i := range invented {
			infos = append(infos, PeerInfo{NodeID: fmt.Sprint("invented", i), Static: [32]byte{9, byte(i)}, Addr: c.addr, Policies: []Policy{Auto}})
		}
		a.engine.SetPeers(infos)
		renew := func(n *simNode) (old *Session) {
			old = a.sending(n)
			old.next.Store(old.limits.rekey)
			a.engine.kick()
			s.run(100 * time.Microsecond) // an answer is still on its way
			return old
		}
		dh, marker, forged := countDH(t), newMarker(a.identity.state.Static), make([]byte, HandshakeLen)
		flood := func() {
			for i := range 10000 {
				putResponseHeader(forged, 5, asked[i%len(asked)].sender())
				binary.BigEndian.PutUint32(forged[8:], uint32(i))
				marker.mark(forged, s.now)
				a.engine.HandleHandshake(c.addr, forged)
				if i%2 == 0 {
					s.run(100 * time.Microsecond)
				}
			}
		}
		renew(c)
		flood()
		old := renew(b)
		flood()
		if a.sending(b) == old {
			t.Errorf("%d invented: no new keys with another node: %v", invented, a.engine.Stats().Refused)
		}
		if most := 1500; *dh > most {
			t.Errorf("%d invented: %d operations of X25519, want at most %d", invented, *dh, most)
		}
	}
}

// TestMACsTakeNoMemory: they are computed for each message of a flood.
func TestMACsTakeNoMemory(t *testing.T) {
	s := newSim(t, "a")
	a := s.nodes[0]
	m := make([]byte, HandshakeLen)
	m[0] = byte(Initiation)
	if n := testing.AllocsPerRun(100, func() { a.engine.HandleHandshake(a.addr, m) }); n > 0 {
		t.Errorf("%v allocations to refuse a message", n)
	}
	if a.refusals(RefusedMAC) == 0 {
		t.Error("refused for something else")
	}
}

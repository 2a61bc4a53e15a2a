package crypto

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// A capture is a datagram as an observer has it.
type capture struct {
	from, to netip.Addr
	datagram []byte
}

// record keeps what is sent from now on.
func (s *sim) record() *[]capture {
	var list []capture
	s.tap = func(from, to netip.Addr, d []byte) bool {
		list = append(list, capture{from, to, bytes.Clone(d)})
		return true
	}
	return &list
}

// captured returns the first captured message of a type.
func captured(tb testing.TB, list []capture, kind MessageType) capture {
	tb.Helper()
	for _, c := range list {
		if MessageType(c.datagram[0]) == kind {
			return c
		}
	}
	tb.Fatalf("no message of type %d", kind)
	return capture{}
}

// TestReplay sends everything again that was ever sent, from where it came and
// from elsewhere: nothing is delivered, answered, moved or closed.
func TestReplay(t *testing.T) {
	s := newSim(t, "a", "b")
	a, b := s.nodes[0], s.nodes[1]
	list := s.record()
	s.meet()
	s.connected(Auto)
	f := &traffic{sim: s}
	f.run(10*time.Minute, 100*time.Millisecond)
	f.check(t)
	recorded := *list
	for _, from := range []netip.Addr{{}, netip.MustParseAddr("198.51.100.66")} {
		s.tap = func(from, to netip.Addr, d []byte) bool {
			if MessageType(d[0]) != Transport {
				t.Errorf("a replay was answered with type %d", d[0])
			}
			return true
		}
		sessions := [2]*Session{a.sending(b), b.sending(a)}
		for _, n := range s.nodes { // the last hundreds are known by their macs, all by their times
			n.engine.gate.repeated.forget()
		}
		for _, c := range recorded {
			if from.IsValid() {
				c.from = from
			}
			s.inject(time.Microsecond, c.from, c.to, c.datagram)
			if len(s.events) > 100 {
				s.run(time.Millisecond)
			}
		}
		s.run(time.Second)
		if a.sending(b) != sessions[0] || b.sending(a) != sessions[1] {
			t.Error("another session")
		}
		if sessions[0].Addr() != b.addr || sessions[1].Addr() != a.addr {
			t.Error("moved")
		}
	}
	f.check(t)
	if a.refusals(RefusedReplay)+b.refusals(RefusedReplay) == 0 {
		t.Error("not counted")
	}
	t.Logf("%d datagrams replayed twice", len(recorded))
}

// TestReplayToAnotherRun replays an initiation to a responder that has restarted.
func TestReplayToAnotherRun(t *testing.T) {
	s := newSim(t, "a", "b")
	a, b := s.nodes[0], s.nodes[1]
	list := s.record()
	a.engine.SetPeers(s.infos(a, []Policy{Auto}))
	s.connected(Auto)
	m := captured(t, *list, Initiation)
	b.start()
	s.inject(0, m.from, m.to, m.datagram)
	s.run(time.Millisecond)
	if b.refusals(RefusedMAC) != 1 || len(b.engine.Stats().Peers) != 0 {
		t.Errorf("refused: %v", b.engine.Stats().Refused)
	}
}

// remac gives a forged message the mac1 that a member can compute.
func remac(static [32]byte, m []byte) []byte {
	newMarker(static).mark(m, time.Time{})
	return m
}

// TestFlippedBits damages each byte of each kind of message, without mac1 and,
// as an attacker who is a member could, with a good one. Then the message itself
// is delivered, and does what it should.
func TestFlippedBits(t *testing.T) {
	s := newSim(t, "a", "b")
	a, b := s.nodes[0], s.nodes[1]
	var held capture
	hold := func(kind MessageType) {
		s.tap = func(from, to netip.Addr, d []byte) bool {
			if held.datagram == nil && MessageType(d[0]) == kind {
				held = capture{from, to, bytes.Clone(d)}
				return false
			}
			return MessageType(d[0]) != kind && MessageType(d[0]) != CookieReply // which asks for another try
		}
		s.run(time.Millisecond)
		s.run(time.Millisecond)
		if held.datagram == nil {
			t.Fatalf("no message of type %d", kind)
		}
	}
	step := size(1, 3, 9) // of bytes damaged with a good mac1, which costs more
	flip := func(static [32]byte, nobody func() bool) {
		t.Helper()
		for i := range held.datagram {
			if MessageType(held.datagram[0]) == Initiation && i >= len(held.datagram)-macLen {
				continue // mac2 counts under load alone
			}
			for _, mend := range []bool{false, true} {
				if mend && i >= initiationHeaderLen && i%step != 0 {
					continue
				}
				if mend && MessageType(held.datagram[0]) == Response && i < responseHeaderLen {
					continue // ends the handshake: see TestResponseToElsewhere
				}
				d := bytes.Clone(held.datagram)
				d[i] ^= 1 << (i % 8)
				if mend && i < len(d)-macsLen {
					remac(static, d)
				}
				s.at(held.to).engine.relieve()
				s.inject(0, held.from, held.to, d)
				s.run(time.Microsecond)
				if !nobody() {
					t.Fatalf("type %d: byte %d flipped, and accepted", held.datagram[0], i)
				}
			}
		}
		for n := range held.datagram {
			s.inject(0, held.from, held.to, held.datagram[:n])
		}
		s.run(time.Microsecond)
		s.inject(0, held.from, held.to, held.datagram)
	}
	a.engine.SetPeers(s.infos(a, []Policy{Auto}))
	hold(Initiation)
	none := func(n *simNode) func() bool {
		return func() bool { return len(*n.engine.receiving.Load()) == 0 }
	}
	flip(b.identity.state.Static, none(b))
	held = capture{}
	hold(Response)
	flip(a.identity.state.Static, none(a))
	held = capture{}
	hold(Transport)
	flip(b.identity.state.Static, func() bool { return b.sending(a) == nil })
	s.run(time.Microsecond)
	if a.sending(b) == nil || b.sending(a) == nil {
		t.Error("the messages themselves made no session")
	}
}

// forget forgets what came.
func (r *repeats) forget() {
	for i := range r.cells {
		r.cells[i].Store(0)
	}
}

// relieve has an engine forget how many messages came.
func (e *Engine) relieve() {
	e.gate.asked.due.Store(0)
	e.gate.answers.due.Store(0)
	e.awaited.Range(func(_, a any) bool { a.(*expected).pacer.due.Store(0); return true })
	e.gate.loadedUntil.Store(0)
}

// TestResponseToElsewhere changes the responder's index in a response, as an
// attacker on the path who is a member can: no session, and another try.
func TestResponseToElsewhere(t *testing.T) {
	s := newSim(t, "a", "b")
	a, b := s.nodes[0], s.nodes[1]
	s.tap = func(_, _ netip.Addr, d []byte) bool {
		if MessageType(d[0]) == Response {
			d[3] ^= 1
			remac(a.identity.state.Static, d)
			s.tap = nil
		}
		return true
	}
	a.engine.SetPeers(s.infos(a, []Policy{Auto}))
	s.run(100 * time.Millisecond)
	if a.sending(b) != nil || a.refusals(RefusedPayload) != 1 || len(a.engine.initiated) != 0 {
		t.Errorf("refused: %v", a.engine.Stats().Refused)
	}
	s.connected(Auto)
}

// TestHalfOpen has more members than fit begin sessions that they never confirm.
func TestHalfOpen(t *testing.T) {
	s := newSim(t, "a")
	a := s.nodes[0]
	silent := netip.MustParseAddr("198.51.100.1")
	begin := func(i int) {
		id := testIdentity(t, s.ca.credentials(t, fmt.Sprint("node", i), roleWorker))
		for range 2 { // the second takes the place of the first
			a.engine.relieve()
			s.inject(0, silent, a.addr, initiationOf(t, id, a.identity.state.Static, s.now))
			s.run(time.Millisecond)
		}
	}
	const extra = 8
	room := size(maxHalfOpen, 64, 16)
	a.engine.halfOpen = maxHalfOpen - room
	for i := range room + extra {
		begin(i)
	}
	st := a.engine.Stats()
	if st.HalfOpen != maxHalfOpen || st.Refused[RefusedHalfOpen] != 2*extra {
		t.Errorf("%d half open, %v", st.HalfOpen, st.Refused)
	}
	if n := len(*a.engine.receiving.Load()); n != room {
		t.Errorf("%d sessions", n)
	}
	s.run(pendingFor)
	if st = a.engine.Stats(); st.HalfOpen != maxHalfOpen-room || len(*a.engine.receiving.Load()) != 0 {
		t.Errorf("%d half open after a while", st.HalfOpen)
	}
}

// initiationOf makes a good initiation, without an engine.
func initiationOf(tb testing.TB, id *Identity, to [32]byte, now time.Time) []byte {
	tb.Helper()
	h, err := newHandshake(id, testEpochs(2)[0], to[:], nil)
	if err != nil {
		tb.Fatal(err)
	}
	p := payloadOf(id, Auto, suites(ChaCha20Poly1305))
	p.time = stampOf(now)
	m, err := h.writeInitiation(7, p, HandshakeLen)
	if err != nil {
		tb.Fatal(err)
	}
	return remac(to, m)
}

// TestQueueIsBounded fills the queue while the engine does nothing, from places
// where peers are.
func TestQueueIsBounded(t *testing.T) {
	s := newSim(t, "a")
	a, forged := s.nodes[0], newForger(t, s.nodes[0])
	places, taken := make(map[netip.Addr]bool), 0
	a.engine.gate.places.Store(&places)
	const n = 10 * queueLen
	for i := range n {
		from := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
		places[from] = true
		if _, ok := a.engine.HandleHandshake(from, forged.next(s.now)); ok {
			taken++
		}
	}
	if taken != queueLen || len(a.engine.queue) != queueLen || a.refusals(RefusedQueue) == 0 ||
		a.refusals(RefusedQueue)+a.refusals(RefusedRate) != n-queueLen {
		t.Errorf("%d taken, %d wait; %v", taken, len(a.engine.queue), a.engine.Stats().Refused)
	}
}

// TestNoAnswerToStrangers sends what somebody without the static key can.
func TestNoAnswerToStrangers(t *testing.T) {
	s := newSim(t, "a")
	a := s.nodes[0]
	s.tap = func(netip.Addr, netip.Addr, []byte) bool { t.Error("answered"); return true }
	for _, n := range []int{HandshakeLen, MaxHandshakeLen, CookieReplyLen, 0, 1, 28, 1300} {
		for kind := range 16 {
			m := make([]byte, n)
			if n > 0 {
				m[0] = byte(kind)
			}
			s.inject(0, netip.MustParseAddr("198.51.100.1"), a.addr, m)
			s.run(time.Millisecond)
		}
	}
	if n := a.refusals(RefusedMAC); n != 4 {
		t.Errorf("%d without mac1 refused", n)
	}
}

func TestLimiter(t *testing.T) {
	l, now := newLimiter(), time.Duration(0)
	count := func(from netip.Addr, n int) (allowed int) {
		for range n {
			if l.allow(from, int64(now)) {
				allowed++
			}
		}
		return allowed
	}
	one := netip.MustParseAddr("192.0.2.1")
	if got := count(one, 100); got != addressBurst {
		t.Errorf("%d at once", got)
	}
	now += 100 * time.Millisecond
	if got := count(one, 100); got != 2 {
		t.Errorf("%d after 100 ms", got)
	}
	now -= time.Hour
	if got := count(one, 100); got != 0 {
		t.Errorf("%d when the clock goes back", got)
	}
	now += 2 * time.Hour
	if got := count(netip.MustParseAddr("2001:db8::1"), 3) + count(netip.MustParseAddr("2001:db8::2"), 3); got != addressBurst {
		t.Errorf("%d of one /64", got)
	}
}

package crypto

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"
)

// A gateTest is a gate with a member behind it at a known address, and senders of
// initiations whose mac1 is right.
type gateTest struct {
	t       *testing.T
	gate    gate
	checker *checker
	forged  *forger
	member  netip.Addr
	now     time.Time
}

func newGateTest(t *testing.T) *gateTest {
	t.Helper()
	s := newSim(t, "a")
	a := s.nodes[0]
	g := &gateTest{
		t: t, checker: newChecker(a.identity.state.Static), forged: newForger(t, a),
		member: netip.MustParseAddr("192.0.2.7"), now: s.now,
	}
	g.gate.init(g.now)
	g.gate.places.Store(&map[netip.Addr]bool{g.member: true})
	g.gate.loadedUntil.Store(int64(time.Hour))
	return g
}

// asks has an address send an initiation without a cookie, and reports whether it
// is to get one.
func (g *gateTest) asks(from netip.Addr) bool {
	g.t.Helper()
	r, demand := g.gate.initiation(g.checker, from, g.forged.next(g.now), g.now)
	if r == refusedNot && !demand {
		g.t.Fatal("let in without a cookie")
	}
	return demand
}

// proves has an address send one with the cookie, and reports whether it is let in.
func (g *gateTest) proves(from netip.Addr) bool {
	s := &secret{since: g.now}
	if was := g.checker.secret.Load().at(g.now); was != nil {
		s = was
	}
	g.checker.secret.Store(s)
	cookie := s.cookie(from)
	g.forged.marker.mac2, g.forged.marker.since = macKey(cookie[:]), g.now
	m := g.forged.next(g.now)
	g.forged.marker.mac2 = nil
	r, demand := g.gate.initiation(g.checker, from, m, g.now)
	return r == refusedNot && !demand
}

// strangers returns one address after the other, of many networks.
func strangers() func() netip.Addr {
	n := uint32(0)
	return func() netip.Addr {
		n++
		return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 10<<24+n)))
	}
}

// TestStrangersTakeNoCookies has forged initiations come from as many addresses as
// there are counters, and more often than these allow: a member gets its cookie.
func TestStrangersTakeNoCookies(t *testing.T) {
	g, stranger := newGateTest(t), strangers()
	for range 5 {
		for range 10 * addressCells {
			g.now = g.now.Add(5 * time.Microsecond)
			g.asks(stranger())
		}
		if !g.asks(g.member) {
			t.Error("a member got no cookie")
		}
	}
}

// TestStrangersTakeNoTurns has accomplices of a member prove thousands of
// addresses: a member at its known one gets in beside them.
func TestStrangersTakeNoTurns(t *testing.T) {
	g, stranger := newGateTest(t), strangers()
	for range 5 {
		for range 10 * addressCells {
			g.now = g.now.Add(20 * time.Microsecond)
			g.proves(stranger())
		}
		if !g.proves(g.member) {
			t.Error("a member with a cookie was refused")
		}
	}
}

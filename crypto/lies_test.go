package crypto

import (
	"crypto/x509"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// TestLiesFasterThanAnswers has gossip say other things about both nodes more often
// than an answer takes to come: initiations are not begun anew each time, and no
// session ends for it.
func TestLiesFasterThanAnswers(t *testing.T) {
	s := newSim(t, "a", "b")
	s.delay = 150 * time.Millisecond
	s.meet()
	s.connected(Auto)
	initiations := 0
	s.tap = func(_, _ netip.Addr, d []byte) bool {
		if MessageType(d[0]) == Initiation {
			initiations++
		}
		return true
	}
	f := &traffic{sim: s}
	every := size(20*time.Millisecond, 40*time.Millisecond, 100*time.Millisecond)
	for i := range int(2 * rejectAfter / every) {
		for _, n := range s.nodes {
			infos := s.infos(n, []Policy{Auto})
			switch i % 3 {
			case 1:
				infos[0].Static = [32]byte{byte(i)}
			case 2:
				infos[0].Addr = netip.AddrFrom4([4]byte{198, 51, 100, byte(i)})
			}
			n.engine.SetPeers(infos)
		}
		f.run(every, every)
	}
	f.check(t)
	if most := 2 * int(2*rejectAfter/firstRetry) * 2; initiations > most {
		t.Errorf("%d initiations, want at most %d", initiations, most)
	}
}

// TestLieAboutKeyAndAddress has gossip lie about both, of a peer that never begins
// a handshake: it is found by what it has proven, where it was last heard from.
func TestLieAboutKeyAndAddress(t *testing.T) {
	for epochs := 1; epochs <= maxEpochs; epochs++ {
		s := newSim(t, "a", "b")
		a := s.nodes[0]
		for _, n := range s.nodes {
			n.engine.SetEpochs(testEpochs(1, 2, 3, 4)[:epochs])
		}
		infos := s.infos(a, []Policy{Auto})
		a.engine.SetPeers(infos)
		s.connected(Auto)
		infos[0].Static, infos[0].Addr = [32]byte{9}, netip.MustParseAddr("198.51.100.1")
		a.engine.SetPeers(infos)
		f := &traffic{sim: s}
		f.run(3*rejectAfter, time.Second)
		f.check(t)
	}
}

// TestLongChainBehind is a responder that needs long initiations to answer, and is a
// rotation of keys ahead of the initiator, in either way.
func TestLongChainBehind(t *testing.T) {
	for _, ahead := range []int{0, 1} {
		s := newSim(t, "a", "b")
		a, b := s.nodes[0], s.nodes[1]
		b.cred = s.ca.credentials(t, "b", roleWorker, func(c *x509.Certificate) {
			c.DNSNames = append(c.DNSNames, strings.Repeat("x", 630))
		})
		b.start()
		s.nodes[ahead].engine.SetEpochs(testEpochs(2, 3, 4))
		s.nodes[1-ahead].engine.SetEpochs(testEpochs(1, 2, 3))
		a.engine.SetPeers(s.infos(a, []Policy{Auto}))
		s.until(time.Minute, "a session", func() bool { return a.sending(b) != nil && b.sending(a) != nil })
	}
}

// TestCookieAmongKeys has gossip lie about the key of a peer that is under load and
// never begins: its cookie is for the key that it has, and not used up on another.
func TestCookieAmongKeys(t *testing.T) {
	s := newSim(t, "a", "b")
	a, b := s.nodes[0], s.nodes[1]
	infos := s.infos(a, []Policy{Auto})
	a.engine.SetPeers(infos)
	s.connected(Auto)
	b.engine.gate.loadedUntil.Store(int64(24 * time.Hour))
	f := &traffic{sim: s}
	for i := range 4 {
		infos[0].Static = [32]byte{9, byte(i)} // is tried first
		a.engine.SetPeers(infos)
		f.run(rejectAfter, time.Second)
	}
	f.check(t)
	if b.refusals(RefusedCookie) == 0 {
		t.Error("no cookie was asked for: the test shows nothing")
	}
}

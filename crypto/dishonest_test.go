package crypto

import (
	"net/netip"
	"testing"
	"time"
)

// TestDishonestResponder answers an initiation with good Noise messages that say
// what they must not: none makes a session, and an honest one does.
func TestDishonestResponder(t *testing.T) {
	s := newSim(t, "a", "b")
	a, b := s.nodes[0], s.nodes[1]
	keys := b.identity.keys
	state := func(c Credentials) *Identity {
		id, err := keys.Identify(c)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	stolen := *b.identity // another node's statement and certificate
	stolen.state = testIdentity(t, s.ca.credentials(t, "b", roleWorker)).state
	for _, tt := range []struct {
		name   string
		id     *Identity
		change func(*payload)
		want   Refusal
	}{
		{"another root", state(newTestCA(t).credentials(t, "b", roleWorker)), nil, RefusedIdentity},
		{"another node", state(s.ca.credentials(t, "c", roleWorker)), nil, RefusedNode},
		{"a statement of other keys", &stolen, nil, RefusedIdentity},
		{"a suite not offered", b.identity, func(p *payload) { p.suite = AES256GCM }, RefusedSuite},
		{"no suite", b.identity, func(p *payload) { p.suite = 0 }, RefusedSuite},
		{"an unknown suite", b.identity, func(p *payload) { p.suite = 200 }, RefusedSuite},
		{"another policy", b.identity, func(p *payload) { p.policy = Auto }, RefusedSuite},
		{"honest", b.identity, nil, refusedNot},
	} {
		a.start()
		s.tap = func(from, _ netip.Addr, d []byte) bool {
			if from == a.addr && MessageType(d[0]) == Initiation && s.tap != nil {
				s.inject(0, b.addr, a.addr, answer(t, tt.id, a.identity, d, tt.change))
			}
			return false
		}
		a.engine.SetPeers(s.infos(a, []Policy{OnlyChaCha20Poly1305}))
		s.run(500 * time.Millisecond)
		session := a.engine.Peer("b", OnlyChaCha20Poly1305).Sending()
		if tt.want == refusedNot && session == nil || tt.want != refusedNot && (session != nil || a.refusals(tt.want) != 1) {
			t.Errorf("%s: session %v, refused %v", tt.name, session != nil, a.engine.Stats().Refused)
		}
		if tt.want != refusedNot && a.engine.Stats().Peers[0].Failure != tt.want {
			t.Errorf("%s: shown as %v", tt.name, a.engine.Stats().Peers[0].Failure)
		}
	}
}

// answer makes the response of an identity to an initiation, changed at will.
func answer(tb testing.TB, id, to *Identity, m initiation, change func(*payload)) []byte {
	tb.Helper()
	h, err := newHandshake(id, testEpochs(m.epoch())[0], nil, nil)
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := h.readInitiation(m); err != nil {
		tb.Fatal(err)
	}
	p := payloadOf(id, OnlyChaCha20Poly1305, suites(ChaCha20Poly1305))
	p.suite = ChaCha20Poly1305
	if change != nil {
		change(&p)
	}
	d, _, err := h.writeResponse(9, m.sender(), p, HandshakeLen)
	if err != nil {
		tb.Fatal(err)
	}
	return remac(to.state.Static, d)
}

package crypto

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// TestRekeyByCount has a session whose key has sealed as much as it should.
func TestRekeyByCount(t *testing.T) {
	for _, policy := range []Policy{OnlyChaCha20Poly1305, OnlyAES256GCM} {
		for _, initiator := range []bool{false, true} {
			s := newSim(t, "a", "b")
			s.meet(policy)
			s.connected(policy)
			s.run(time.Second)
			a, b := s.nodes[0], s.nodes[1]
			if a.engine.Peer("b", policy).Sending().initiator != initiator {
				a, b = b, a
			}
			old := a.engine.Peer(b.id, policy).Sending()
			old.next.Store(old.limits.rekey - 5)
			for i := range 10 {
				if !a.send(b, policy, fmt.Sprint(i)) {
					t.Fatal("no session")
				}
			}
			s.run(50 * time.Millisecond)
			now := a.engine.Peer(b.id, policy).Sending()
			if now == old || now.next.Load() > 10 || !now.initiator {
				t.Errorf("%v: no new key after %d datagrams", policy, old.limits.rekey)
			}
			if len(b.got) != 10 {
				t.Errorf("%v: %d of 10 texts came", policy, len(b.got))
			}
		}
	}
}

// TestRefuseByCount wants a key at its limit to seal nothing more, though no new
// one is to be had.
func TestRefuseByCount(t *testing.T) {
	s := newSim(t, "a", "b")
	s.meet(OnlyAES256GCM)
	s.connected(OnlyAES256GCM)
	a, b := s.nodes[0], s.nodes[1]
	s.tap = func(_, _ netip.Addr, d []byte) bool { return MessageType(d[0]) == Transport }
	session := a.engine.Peer("b", OnlyAES256GCM).Sending()
	session.next.Store(session.limits.refuse - 3)
	sent := 0
	for i := range 10 {
		if a.send(b, OnlyAES256GCM, fmt.Sprint(i)) {
			sent++
		}
	}
	s.run(time.Minute)
	if sent != 3 || len(b.got) != 3 {
		t.Errorf("%d sent, %d came", sent, len(b.got))
	}
	if st := a.engine.Stats().Peers[0]; st.Tries == 0 {
		t.Error("no new key is asked for")
	}
	s.tap = nil
	s.until(10*time.Second, "a new key", func() bool { return a.send(b, OnlyAES256GCM, "again") })
}

// TestForgeriesRetireASession has the session replaced, not only closed.
func TestForgeriesRetireASession(t *testing.T) {
	s := newSim(t, "a", "b")
	s.meet()
	s.connected(Auto)
	s.run(time.Second)
	a, b := s.nodes[0], s.nodes[1]
	old := b.sending(a)
	old.failed.Store(old.limits.forgery - 1)
	forged := make([]byte, 100)
	forged[0] = byte(Transport)
	putIndex(forged[1:], old.local)
	s.inject(0, a.addr, b.addr, forged)
	s.run(time.Second)
	if now := b.sending(a); now == nil || now == old || !old.closed.Load() {
		t.Error("the session was not replaced")
	}
}

// TestLongChains are nodes whose certificates need more than the usual size, with
// a short one at the other end: whoever begins, they come together.
func TestLongChains(t *testing.T) {
	for _, tt := range []struct {
		name string
		long int // bytes more in b's certificate
		size int
	}{{"fits", 300, HandshakeLen}, {"longer", 630, MaxHandshakeLen}} {
		for _, begin := range []string{"a", "b"} {
			s := newSim(t, "a", "b")
			a, b := s.nodes[0], s.nodes[1]
			b.cred = s.ca.credentials(t, "b", roleWorker, func(c *x509.Certificate) {
				c.DNSNames = append(c.DNSNames, strings.Repeat("x", tt.long))
			})
			b.start()
			if got := payloadOf(b.identity, Auto, 1).fit(first); got != tt.size {
				t.Fatalf("%s: %d bytes", tt.name, got)
			}
			for _, n := range s.nodes {
				if n.id == begin {
					n.engine.SetPeers(s.infos(n, []Policy{Auto}))
				}
			}
			s.until(15*time.Second, tt.name+", "+begin+" begins", func() bool { return a.sending(b) != nil && b.sending(a) != nil })
		}
	}
}

// TestRootRotation has one node with a certificate of the new root.
func TestRootRotation(t *testing.T) {
	s := newSim(t, "a", "b")
	rotated := s.ca.rotate(t)
	b := s.nodes[1]
	b.cred = rotated.credentials(t, "b", roleManager)
	b.cred.Roots.AddCert(s.ca.cert)
	b.start()
	if got := payloadOf(b.identity, Auto, 1).fit(first); got != HandshakeLen {
		t.Errorf("%d bytes", got)
	}
	s.meet()
	s.connected(Auto)
}

// TestIntermediatesLeftOut has a chain that only fits without them.
func TestIntermediatesLeftOut(t *testing.T) {
	s := newSim(t, "a", "b")
	rotated := s.ca.rotate(t)
	for _, n := range s.nodes {
		n.cred = rotated.credentials(t, n.id, roleManager, func(c *x509.Certificate) {
			c.DNSNames = append(c.DNSNames, strings.Repeat("x", 500))
		})
		n.start()
		if p := payloadOf(n.identity, Auto, 1); len(n.cred.Chain) != 2 || len(p.chain) != 1 {
			t.Fatalf("%d of %d certificates", len(p.chain), len(n.cred.Chain))
		}
	}
	s.meet()
	s.connected(Auto)
}

// TestChainTooLong counts what can never be sent.
func TestChainTooLong(t *testing.T) {
	s := newSim(t, "a", "b")
	b := s.nodes[1]
	b.cred = s.ca.credentials(t, "b", roleWorker, func(c *x509.Certificate) {
		c.DNSNames = append(c.DNSNames, strings.Repeat("x", 2000))
	})
	b.start()
	s.meet()
	s.run(10 * time.Second)
	if b.sending(s.nodes[0]) != nil || b.refusals(RefusedChain) == 0 || b.engine.Stats().Peers[0].Failure != RefusedChain {
		t.Errorf("refused: %v", b.engine.Stats().Refused)
	}
}

func TestWindow(t *testing.T) {
	const n, window = 20000, 8128
	_, b := pair(t, AES256GCM)
	order := make([]uint64, n)
	for i := range order {
		order[i] = uint64(i)
	}
	rand.Shuffle(window/2, func(i, j int) { order[i], order[j] = order[j], order[i] })
	fresh := make([]bool, n)
	b.Accept(order, fresh)
	if bytes.Contains(boolBytes(fresh), []byte{0}) {
		t.Error("a counter in the window is refused")
	}
	b.Accept(order, fresh)
	if bytes.Contains(boolBytes(fresh), []byte{1}) {
		t.Error("a counter is accepted twice")
	}
	late, one := []uint64{n + window, n, n - 1}, make([]bool, 3)
	b.Accept(late, one)
	if !one[0] || !one[1] || one[2] {
		t.Errorf("at the end of the window: %v", one)
	}
}

func boolBytes(list []bool) []byte {
	b := make([]byte, len(list))
	for i, v := range list {
		if v {
			b[i] = 1
		}
	}
	return b
}

func TestStamps(t *testing.T) {
	start := time.Now()
	var st stamper
	last := st.next(start)
	for _, d := range []time.Duration{0, time.Nanosecond, -time.Hour, time.Second, time.Second, -1, 2 * time.Second} {
		now := st.next(start.Add(d))
		if !now.after(last) {
			t.Errorf("%v: %x after %x", d, now, last)
		}
		last = now
	}
	table := newStampTable()
	key := func(i int) [32]byte { return [32]byte{byte(i), byte(i >> 8)} }
	for i := range maxStaticKeys + 10 {
		table.enter("node", key(i), last)
	}
	if len(table.greatest) != maxStaticKeys || len(table.keys["node"]) != maxStaticKeys {
		t.Errorf("%d keys kept", len(table.greatest))
	}
	if table.fresh(key(500), last) || !table.fresh(key(500), st.next(start.Add(time.Hour))) {
		t.Error("a stamp is fresh that should not be, or the other way round")
	}
	table.forget("node")
	if len(table.greatest)+len(table.keys) != 0 {
		t.Error("not forgotten")
	}
}

func TestEpochOrder(t *testing.T) {
	for _, tt := range []struct{ have, want string }{
		{"[]", "[]"}, {"[7]", "[7]"}, {"[7 5]", "[7 5]"}, {"[9 5 7]", "[7 9 5]"}, {"[1 9 3 5 7]", "[5 7 9 3]"},
	} {
		var tags, got []uint64
		for f := range strings.FieldsSeq(strings.Trim(tt.have, "[]")) {
			var tag uint64
			fmt.Sscan(f, &tag)
			tags = append(tags, tag)
		}
		for _, e := range inTurn(sortEpochs(testEpochs(tags...))) {
			got = append(got, e.Tag)
		}
		if fmt.Sprint(got) != tt.want {
			t.Errorf("%s: tried in turn %v, want %s", tt.have, got, tt.want)
		}
	}
}

func TestPSKDependsOnAll(t *testing.T) {
	seen := map[string]bool{}
	for _, e := range []Epoch{{1, []byte("0123456789abcdef")}, {2, []byte("0123456789abcdef")}, {1, []byte("0123456789abcdeg")}} {
		for _, cluster := range []string{"x", "y"} {
			psk, err := e.psk(cluster)
			if err != nil || len(psk) != keyLen || seen[string(psk)] {
				t.Errorf("%d %s: %x %v", e.Tag, cluster, psk, err)
			}
			seen[string(psk)] = true
		}
	}
}

func TestSuites(t *testing.T) {
	both, chacha, aes := suites(ChaCha20Poly1305, AES256GCM), suites(ChaCha20Poly1305), suites(AES256GCM)
	for _, tt := range []struct {
		a, b suiteSet
		want Suite
	}{{both, both, AES256GCM}, {both, chacha, ChaCha20Poly1305}, {chacha, both, ChaCha20Poly1305}, {aes, aes, AES256GCM}, {aes, chacha, 0}, {0, both, 0}, {0xf0, 0xf0, 0}} {
		if got, ok := choose(tt.a, tt.b); got != tt.want || ok != (tt.want != 0) {
			t.Errorf("%b and %b: %v", tt.a, tt.b, got)
		}
	}
	if Auto.offer(true) != both || Auto.offer(false) != chacha || OnlyAES256GCM.offer(false) != aes || OnlyChaCha20Poly1305.offer(true) != chacha {
		t.Error("offers are wrong")
	}
}

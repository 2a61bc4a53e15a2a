package crypto

import (
	"bytes"
	"net/netip"
	"testing"
	"time"
)

func FuzzParseType(f *testing.F) {
	for _, n := range []int{0, 1, Overhead, CookieReplyLen, HandshakeLen, MaxHandshakeLen} {
		for kind := range byte(6) {
			b := make([]byte, n)
			if n > 0 {
				b[0] = kind
			}
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		kind, ok := ParseType(b)
		if !ok {
			return
		}
		if b[0]&0x08 != 0 {
			t.Error("a VXLAN datagram")
		}
		switch kind { // what is read of each must be there
		case Initiation:
			_, _, _, _ = initiation(b).sender(), initiation(b).epoch(), initiation(b).noise(), initiation(b).mac1()
		case Response:
			_, _, _, _ = response(b).sender(), response(b).receiver(), response(b).noise(), response(b).hasMAC2()
		case CookieReply:
			_, _, _ = cookieReply(b).receiver(), cookieReply(b).nonce(), cookieReply(b).cookie()
		case Transport:
			_ = Index(b)
		}
	})
}

func FuzzPayload(f *testing.F) {
	id := testIdentity(f, newTestCA(f).credentials(f, "node", roleWorker))
	for _, n := range []messageNumber{first, second} {
		b, err := payloadOf(id, Auto, 3).encode(n, 1000)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, n == first)
		padded := bytes.Clone(b)
		padded[len(b)-1] = 1
		f.Add(padded, n == first)
	}
	f.Fuzz(func(t *testing.T, b []byte, one bool) {
		n := second
		if one {
			n = first
		}
		p, ok := parsePayload(b, n)
		if !ok {
			return
		}
		again, err := p.encode(n, len(b))
		if err != nil || !bytes.Equal(b, again) {
			t.Errorf("%x is read as %+v, which is %x, %v", b, p, again, err)
		}
		if _, err := p.sender(id, [32]byte{}, time.Now()); err == nil {
			t.Error("verified for another static key")
		}
	})
}

// fuzzMessage delivers damaged messages with a good mac1 to an engine that waits
// for the one they were made from. With the payload to be damaged, it is sealed by
// who has the keys.
func fuzzMessage(f *testing.F, kind MessageType) {
	s := newSim(f, "a", "b")
	a, b := s.nodes[0], s.nodes[1]
	s.tap = func(_, _ netip.Addr, d []byte) bool { return MessageType(d[0]) < kind }
	list := []capture{}
	through := s.tap
	s.tap = func(from, to netip.Addr, d []byte) bool {
		list = append(list, capture{from, to, bytes.Clone(d)})
		return through(from, to, d)
	}
	if kind == CookieReply {
		b.engine.gate.loadedUntil.Store(int64(time.Hour))
	}
	a.engine.SetPeers(s.infos(a, []Policy{Auto}))
	s.run(10 * time.Millisecond)
	m := captured(f, list, kind)
	to := s.at(m.to)
	s.asked[[2]netip.Addr{m.from, m.to}] = HandshakeLen // past the network
	s.tap = func(netip.Addr, netip.Addr, []byte) bool { return false }
	f.Add(m.datagram)
	f.Add(m.datagram[:len(m.datagram)-1])
	f.Fuzz(func(t *testing.T, d []byte) {
		d = bytes.Clone(d)
		if len(d) > macsLen && kind != CookieReply {
			remac(to.identity.state.Static, d)
		}
		if bytes.Equal(d, m.datagram) {
			return
		}
		to.engine.HandleHandshake(m.from, d)
		to.engine.catchUp(1)
		if n := len(*to.engine.receiving.Load()); n != 0 {
			t.Errorf("%d sessions", n)
		}
	})
}

func FuzzInitiation(f *testing.F)  { fuzzMessage(f, Initiation) }
func FuzzResponse(f *testing.F)    { fuzzMessage(f, Response) }
func FuzzCookieReply(f *testing.F) { fuzzMessage(f, CookieReply) }

// FuzzMember has a member with all keys send payloads of its own making.
func FuzzMember(f *testing.F) {
	s := newSim(f, "a", "b")
	a, b := s.nodes[0], s.nodes[1]
	s.tap = func(netip.Addr, netip.Addr, []byte) bool { return false }
	s.asked[[2]netip.Addr{b.addr, a.addr}] = HandshakeLen
	good := payloadOf(b.identity, Auto, 3)
	good.time = stampOf(s.now)
	text, err := good.encode(first, HandshakeLen-initiationOverhead)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > HandshakeLen-initiationOverhead {
			return
		}
		text = append(text, make([]byte, HandshakeLen-initiationOverhead-len(text))...)
		h, err := newHandshake(b.identity, testEpochs(2)[0], a.identity.state.Static[:], nil)
		if err != nil {
			t.Fatal(err)
		}
		m := make([]byte, initiationHeaderLen, HandshakeLen)
		putInitiationHeader(m, 0, 2)
		if m, _, _, err = h.state.WriteMessage(m, text); err != nil {
			t.Fatal(err)
		}
		a.engine.HandleHandshake(b.addr, remac(a.identity.state.Static, m[:HandshakeLen]))
		a.engine.catchUp(1)
		p, ok := parsePayload(text, first)
		for _, s := range *a.engine.receiving.Load() {
			if !ok || s.peer.node != "b" || !p.policy.offer(true).has(s.suite) {
				t.Errorf("a session with %s by %x", s.peer.node, text)
			}
		}
	})
}

func FuzzTransport(f *testing.F) {
	a, b, err := Pair(AES256GCM)
	if err != nil {
		f.Fatal(err)
	}
	good := sealed(f, a, []byte("inner frame"))
	f.Add(good)
	f.Add([]byte{})
	f.Add(make([]byte, Overhead))
	f.Fuzz(func(t *testing.T, d []byte) {
		same := bytes.Equal(d, good)
		if _, _, ok := b.Open(bytes.Clone(d)); ok != same {
			t.Errorf("%x: opened %v", d, ok)
		}
	})
}

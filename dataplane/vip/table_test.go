package vip

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/ovnd/ovnd/dataplane/pkt"
	"github.com/ovnd/ovnd/encap"
)

// TestTurns: each connection takes one turn, and is counted once.
func TestTurns(t *testing.T) {
	b := newTurns("10.10.0.11", "10.10.0.12", "10.10.0.13")
	p := newPort(t, b)
	for i := range 9 {
		client := netip.AddrPortFrom(client4.Addr(), uint16(40000+i))
		from, to := p.connect(client, service4)
		if want := b.backends[i%3].addr; from != client || to != netip.AddrPortFrom(want, 80) {
			t.Errorf("connection %d goes from %s to %s", i, from, to)
		}
		m, v := p.send(message{from: client, to: service4, flags: ack, data: 100, partial: true})
		if v != Translated || m.to != to {
			t.Errorf("data goes to %s, %v", m.to, v)
		}
	}
	for _, x := range b.backends {
		if x.opened != 3 || x.failed != 0 {
			t.Errorf("%+v", *x)
		}
	}
	if m, v := p.send(message{from: netip.AddrPortFrom(client4.Addr(), 1), to: service4, flags: ack}); v != Pass || m.to != service4 {
		t.Errorf("a segment of no connection: %v to %s", v, m.to)
	}
}

// TestAnswers that are no flow's pass, and so does what comes from elsewhere.
func TestAnswers(t *testing.T) {
	p := newPort(t, newTurns("10.10.0.11"))
	_, to := p.connect(client4, service4)
	for _, m := range []message{
		{from: netip.AddrPortFrom(to.Addr(), 81), to: client4, flags: ack},
		{from: to, to: netip.AddrPortFrom(client4.Addr(), 40001), flags: ack},
		{from: netip.MustParseAddrPort("10.10.0.12:80"), to: client4, flags: ack},
		{from: to, to: client4, udp: true},
	} {
		if got, v := p.answer(m); v != Pass || got.from != m.from {
			t.Errorf("%+v: %v", m, v)
		}
	}
}

// TestRefused: a reset instead of a SYN-ACK is the next backend's turn, and the
// client's when nobody is left.
func TestRefused(t *testing.T) {
	b := newTurns("10.10.0.11", "10.10.0.12")
	p := newPort(t, b)
	first, _ := p.send(message{from: client4, to: service4, flags: syn, seq: 7})
	if _, v := p.answer(message{from: first.to, to: first.from, flags: rst | ack, ack: 8}); v != Consumed {
		t.Fatalf("reset: %v", v)
	}
	frame, toClient := p.job()
	second := read(t, frame)
	if toClient || second.to.Addr() != b.backends[1].addr || second.flags != syn || second.seq != 7 || second.from != client4 {
		t.Fatalf("then %+v is sent", second)
	}
	if m, v := p.answer(message{from: first.to, to: first.from, flags: synAck, ack: 8}); v != Pass {
		t.Errorf("the first backend's SYN-ACK came after all, as %+v: %v", m, v)
	}
	if _, v := p.answer(message{from: second.to, to: second.from, flags: rst | ack, ack: 8}); v != Consumed {
		t.Fatalf("reset: %v", v)
	}
	frame, toClient = p.job()
	if m := read(t, frame); !toClient || m.from != service4 || m.to != client4 || m.flags != rst|ack || m.ack != 8 {
		t.Errorf("the client is told %+v", m)
	}
	if b.gaveUp != 1 || b.backends[0].failed != 1 || b.backends[1].failed != 1 || b.backends[0].silent != 0 || p.Live() {
		t.Errorf("%+v, %+v, %+v", *b, *b.backends[0], *b.backends[1])
	}
	p.idle()
}

// TestUnreachable is the same with ICMP.
func TestUnreachable(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		client, service, router := client4, service4, netip.MustParseAddr("10.10.0.1")
		b := newTurns("10.10.0.11", "10.10.0.12")
		if v6 {
			client, service, router = client6, service6, netip.MustParseAddr("fd00::1")
			b = newTurns("fd00::11", "fd00::12")
		}
		p := newPort(t, b)
		sent := message{from: client, to: service, flags: syn, seq: 7}.frame()
		ip, _ := encap.ParseIP(sent[pkt.MetaLen:])
		p.Out(sent, ip, b, false)
		e := make([]byte, pkt.MetaLen+encap.MaxPacketTooBigLen)
		n := encap.PutUnreachable(e[pkt.MetaLen:], ip, encap.HostUnreachable, router)
		if v := p.In(e[:pkt.MetaLen+n]); v != Consumed {
			t.Fatalf("v6=%v: unreachable: %v", v6, v)
		}
		frame, _ := p.job()
		if m := read(t, frame); m.to.Addr() != b.backends[1].addr {
			t.Errorf("v6=%v: then %s is asked", v6, m.to)
		}
	}
}

// TestSilent: a SYN that is repeated asks the next backend, unless the one before
// was asked a moment ago. The last one is asked twice.
func TestSilent(t *testing.T) {
	b := newTurns("10.10.0.11", "10.10.0.12")
	p := newPort(t, b)
	ask := func(wait bool) (message, Verdict) {
		if wait {
			k := keyOf(kind(encap.ProtocolTCP)|outward, client4, service4)
			f := p.find(&k)
			f.asked = f.asked.Add(-time.Second)
		}
		return p.send(message{from: client4, to: service4, flags: syn, seq: 7})
	}
	for i, want := range []string{"10.10.0.11", "10.10.0.11", "10.10.0.12", "10.10.0.12"} {
		if m, v := ask(i >= 2); v != Translated || m.to.Addr().String() != want {
			t.Errorf("SYN %d goes to %s: %v", i, m.to, v)
		}
	}
	if _, v := ask(true); v != Consumed {
		t.Fatalf("nobody is left: %v", v)
	}
	frame, toClient := p.job()
	if m := read(t, frame); !toClient || m.flags != rst|ack || m.ack != 8 {
		t.Errorf("the client is told %+v", m)
	}
	if b.gaveUp != 1 || b.backends[0].silent != 1 || b.backends[1].silent != 1 {
		t.Errorf("%+v, %+v", *b.backends[0], *b.backends[1])
	}
}

// TestHeld: what waits in the switch for a way to the backend does not make that
// silent, for a while.
func TestHeld(t *testing.T) {
	b := newTurns("10.10.0.11", "10.10.0.12")
	p := newPort(t, b)
	p.all.Hold(func(owner any, backend netip.Addr) bool { return owner == "port" && backend == b.backends[0].addr })
	p.send(message{from: client4, to: service4, flags: syn, seq: 7})
	k := keyOf(kind(encap.ProtocolTCP)|outward, client4, service4)
	for i, want := range []string{"10.10.0.11", "10.10.0.12"} {
		f := p.find(&k)
		f.asked = f.asked.Add(-time.Second - time.Duration(i)*time.Second)
		if m, _ := p.send(message{from: client4, to: service4, flags: syn, seq: 7}); m.to.Addr().String() != want {
			t.Errorf("SYN %d goes to %s", i+2, m.to)
		}
	}
}

// TestNoOtherAfterSYNACK: what repeats its SYN, or is reset, after an answer stays
// where it is.
func TestNoOtherAfterSYNACK(t *testing.T) {
	p := newPort(t, newTurns("10.10.0.11", "10.10.0.12"))
	first, _ := p.send(message{from: client4, to: service4, flags: syn, seq: 7})
	p.answer(message{from: first.to, to: first.from, flags: synAck, ack: 8})
	k := keyOf(kind(encap.ProtocolTCP)|outward, client4, service4)
	f := p.find(&k)
	f.asked = f.asked.Add(-time.Minute)
	if m, v := p.send(message{from: client4, to: service4, flags: syn, seq: 7}); v != Translated || m.to != first.to || p.b.next != 1 {
		t.Errorf("the SYN goes to %s: %v; then it is number %d's turn", m.to, v, p.b.next)
	}
	if m, v := p.answer(message{from: first.to, to: first.from, flags: rst | ack, ack: 8}); v != Translated || m.from != service4 {
		t.Errorf("the reset is %+v: %v", m, v)
	}
	p.idle()
}

// TestHairpin: the client's own turn is left for whom the flow is handed to.
func TestHairpin(t *testing.T) {
	b := newTurns(client4.Addr().String(), "10.10.0.12")
	p := newPort(t, b)
	if m, v := p.send(message{from: client4, to: service4, flags: syn}); v != Pass || m.to != service4 || b.next != 0 {
		t.Errorf("%v to %s, then it is number %d's turn", v, m.to, b.next)
	}
	b.next = 1
	if m, v := p.send(message{from: client4, to: service4, flags: syn, seq: 7}); v != Translated {
		t.Errorf("%v to %s", v, m.to)
	}
	p.answer(message{from: netip.AddrPortFrom(b.backends[1].addr, 80), to: client4, flags: rst | ack, ack: 8})
	frame, toClient := p.job()
	if m := read(t, frame); toClient || m.to != service4 || m.flags != syn {
		t.Errorf("the balancer gets %+v", m)
	}
	if p.Live() {
		t.Error("there is a flow")
	}
}

// TestTwoVIPs: the same source port to two VIPs whose turn is the same backend.
func TestTwoVIPs(t *testing.T) {
	for _, udp := range []bool{false, true} {
		p := newPort(t, newTurns("10.10.0.11"))
		other := netip.MustParseAddrPort("10.10.0.4:80")
		seen := make(map[netip.AddrPort]netip.AddrPort)
		for _, service := range []netip.AddrPort{service4, other} {
			m, v := p.send(message{from: client4, to: service, udp: udp, flags: syn, seq: 7})
			if _, twice := seen[m.from]; v != Translated || twice {
				t.Fatalf("udp=%v: %s comes from %s: %v", udp, service, m.from, v)
			}
			seen[m.from] = service
		}
		for from, service := range seen {
			m, v := p.answer(message{from: netip.MustParseAddrPort("10.10.0.11:80"), to: from, udp: udp, flags: synAck, ack: 8})
			if v != Translated || m.from != service || m.to != client4 {
				t.Errorf("udp=%v: the answer comes from %s to %s", udp, m.from, m.to)
			}
		}
	}
}

// TestOwnBefore: the client has a connection of its own to the backend, from the
// same port, of which the table has not heard. What comes while there is no
// SYN-ACK is that one's, and the backend is asked from another port.
func TestOwnBefore(t *testing.T) {
	b := newTurns("10.10.0.11", "10.10.0.12")
	p := newPort(t, b)
	first, _ := p.send(message{from: client4, to: service4, flags: syn, seq: 7})
	// The backend answers the SYN of a connection that it has (RFC 5961 §4.2).
	if m, v := p.answer(message{from: first.to, to: client4, flags: ack, seq: 100, ack: 99}); v != Pass || m.from != first.to {
		t.Errorf("the connection's segment: %v, from %s", v, m.from)
	}
	for _, flags := range []uint16{synAck, rst | ack} {
		if _, v := p.answer(message{from: first.to, to: client4, flags: flags, ack: 77}); v != Pass {
			t.Errorf("an answer to another SYN: %v", v)
		}
	}
	frame, toClient := p.job()
	second := read(t, frame)
	if toClient || second.to != first.to || second.from.Port() == client4.Port() || second.seq != 7 || second.flags != syn {
		t.Fatalf("then %+v is sent", second)
	}
	if m, v := p.answer(message{from: second.to, to: second.from, flags: synAck, ack: 8}); v != Translated || m.to != client4 || m.from != service4 {
		t.Errorf("the SYN-ACK is %+v: %v", m, v)
	}
	if m, v := p.answer(message{from: first.to, to: client4, flags: ack, data: 10}); v != Pass {
		t.Errorf("the connection's segment is %+v: %v", m, v)
	}
	if m, v := p.past(message{from: client4, to: first.to, flags: ack, data: 10}); v != Pass {
		t.Errorf("the connection's segment is %+v: %v", m, v)
	}
	if m, v := p.send(message{from: client4, to: service4, flags: ack}); v != Translated || m.from != second.from {
		t.Errorf("the flow's segment is %+v: %v", m, v)
	}
	if b.backends[0].failed+b.backends[1].failed != 0 || b.backends[0].opened != 1 {
		t.Errorf("%+v", *b.backends[0])
	}
}

// TestOwnAfter: the client begins a connection of its own to the backend from the
// port of one to the VIP. It gets another port on its way.
func TestOwnAfter(t *testing.T) {
	p := newPort(t, newTurns("10.10.0.11"))
	_, backend := p.connect(client4, service4)
	m, v := p.past(message{from: client4, to: backend, flags: syn, seq: 50})
	if v != Translated || m.from.Port() == client4.Port() || m.to != backend {
		t.Fatalf("its SYN is %+v: %v", m, v)
	}
	if a, v := p.answer(message{from: backend, to: m.from, flags: synAck, ack: 51}); v != Translated || a.from != backend || a.to != client4 {
		t.Errorf("its SYN-ACK is %+v: %v", a, v)
	}
	if d, v := p.past(message{from: client4, to: backend, flags: ack, data: 10}); v != Translated || d.from != m.from {
		t.Errorf("its data is %+v: %v", d, v)
	}
	if a, v := p.answer(message{from: backend, to: client4, flags: ack, data: 5}); v != Translated || a.from != service4 {
		t.Errorf("the flow's data is %+v: %v", a, v)
	}
	if o, v := p.past(message{from: client4, to: netip.MustParseAddrPort("10.10.0.11:443"), flags: syn}); v != Pass {
		t.Errorf("another connection is %+v: %v", o, v)
	}
}

// TestOwnDatagrams: the same with UDP, where no answer tells of a collision.
func TestOwnDatagrams(t *testing.T) {
	p := newPort(t, newTurns("10.10.0.11"))
	backend := netip.MustParseAddrPort("10.10.0.11:80")
	if m, v := p.past(message{from: client4, to: backend, udp: true}); v != Pass {
		t.Fatalf("%+v: %v", m, v)
	}
	m, v := p.send(message{from: client4, to: service4, udp: true})
	if v != Translated || m.from == client4 {
		t.Errorf("the flow comes from %s: %v", m.from, v)
	}
	if a, v := p.answer(message{from: backend, to: client4, udp: true}); v != Pass {
		t.Errorf("the client's own answer is %+v: %v", a, v)
	}

	second := netip.AddrPortFrom(client4.Addr(), 50000)
	if m, v := p.send(message{from: second, to: service4, udp: true}); v != Translated || m.from != second {
		t.Errorf("the flow comes from %s: %v", m.from, v)
	}
	own, v := p.past(message{from: second, to: backend, udp: true})
	if v != Translated || own.from == second || own.to != backend {
		t.Fatalf("the client's own is %+v: %v", own, v)
	}
	if a, v := p.answer(message{from: backend, to: own.from, udp: true}); v != Translated || a.to != second || a.from != backend {
		t.Errorf("its answer is %+v: %v", a, v)
	}
	if a, v := p.answer(message{from: backend, to: second, udp: true}); v != Translated || a.from != service4 {
		t.Errorf("the flow's answer is %+v: %v", a, v)
	}
}

// TestFull: a flow for which there is no room is the balancer's, and those that
// there are stay.
func TestFull(t *testing.T) {
	b := newTurns("10.10.0.11")
	p := newPort(t, b)
	p.all.limit = 6 // this port's are 4, UDP's 3
	var to netip.AddrPort
	for i := range 5 {
		client := netip.AddrPortFrom(client4.Addr(), uint16(40000+i))
		if i < 4 {
			_, to = p.connect(client, service4)
			continue
		}
		next := b.next
		if m, v := p.send(message{from: client, to: service4, flags: syn}); v != Pass || m.to != service4 || b.next != next {
			t.Errorf("one too many: %v to %s", v, m.to)
		}
	}
	for i := range 4 {
		client := netip.AddrPortFrom(client4.Addr(), uint16(40000+i))
		if m, v := p.send(message{from: client, to: service4, flags: ack, data: 1}); v != Translated || m.to != to {
			t.Errorf("connection %d: %v", i, v)
		}
	}
	if st := p.all.Stats(); st.Full != 1 || st.Flows != 4 || st.Begun != 4 {
		t.Errorf("%+v", st)
	}
	if m, v := p.past(message{from: client4, to: to, flags: syn}); v != Full {
		t.Errorf("a connection that cannot be told from another is %+v: %v", m, v)
	}
}

// TestLifetimes of flows by their state.
func TestLifetimes(t *testing.T) {
	b := newTurns("10.10.0.11")
	p := newPort(t, b)
	now := uint32(10)
	p.all.Look(now, p)
	lives := func(what string, n uint32) {
		t.Helper()
		if p.all.Look(now+n, p); !p.Live() {
			t.Errorf("%s: gone after %d s", what, n)
		}
		if p.all.Look(now+n+1, p); p.Live() {
			t.Errorf("%s: there after %d s", what, n+1)
		}
		now += n + 1
	}
	to := netip.MustParseAddrPort("10.10.0.11:80")
	out := func(flags uint16) { p.send(message{from: client4, to: service4, flags: flags, seq: 7}) }
	in := func(flags uint16) { p.answer(message{from: to, to: client4, flags: flags, ack: 8}) }
	out(syn)
	lives("a SYN without answer", 15)
	out(syn)
	in(synAck)
	lives("a connection", 5*24*3600)
	out(syn)
	in(synAck)
	out(fin | ack)
	lives("one that the client has ended", 3600)
	out(syn)
	in(synAck)
	in(fin | ack)
	out(fin | ack)
	lives("one that both have ended, and neither knows", 120)
	out(syn)
	in(synAck)
	in(rst)
	lives("one that was reset", 2)
	p.send(message{from: client4, to: service4, udp: true})
	lives("datagrams without answer", 30)
	p.send(message{from: client4, to: service4, udp: true})
	p.answer(message{from: to, to: client4, udp: true})
	lives("datagrams", 180)
}

// TestPortAgain: a client that uses its port again has a connection of its own.
func TestPortAgain(t *testing.T) {
	b := newTurns("10.10.0.11", "10.10.0.12")
	p := newPort(t, b)
	for range 5 {
		p.connect(client4, service4)
	}
	if p.live.Load() != 1 || b.backends[0].opened != 3 {
		t.Errorf("%d flows", p.live.Load())
	}
}

// TestGone: a connection to an endpoint that is gone is reset after a while, and
// datagrams go elsewhere at once.
func TestGone(t *testing.T) {
	b := newTurns("10.10.0.11")
	p := newPort(t, b)
	p.connect(client4, service4)
	p.send(message{from: client4, to: service4, flags: ack, ack: 77})
	p.send(message{from: client4, to: service4, udp: true})
	b.backends[0].gone, p.has[b.backends[0].addr] = true, true
	p.all.Look(5, p)
	if st := p.all.Stats(); st.UDP != 0 || st.Flows != 1 || len(p.got) != 0 {
		t.Errorf("%+v", st)
	}
	p.has[b.backends[0].addr] = false
	p.all.Look(9, p) // it was back
	p.has[b.backends[0].addr] = true
	p.all.Look(10, p)
	p.all.Look(14, p)
	if len(p.got) != 0 {
		t.Error("reset too early")
	}
	p.all.Look(15, p)
	if len(p.got) != 1 {
		t.Fatalf("%d resets", len(p.got))
	}
	if m := read(t, p.got[0]); m.from != service4 || m.to != client4 || m.flags != rst || m.seq != 77 || p.Live() {
		t.Errorf("%+v", m)
	}
}

// TestTooBig: a router's word on what was rewritten is on what the client sent.
func TestTooBig(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		client, service, router, b := client4, service4, "10.10.0.1", newTurns("10.10.0.11")
		if v6 {
			client, service, router, b = client6, service6, "fd00::1", newTurns("fd00::11")
		}
		p := newPort(t, b)
		p.connect(client, service)
		sent := message{from: client, to: service, flags: ack, data: 1400}.frame()
		ip, _ := encap.ParseIP(sent[pkt.MetaLen:])
		p.Out(sent, ip, b, false)
		e := make([]byte, pkt.MetaLen+encap.MaxPacketTooBigLen)
		n := encap.PutFragNeeded(e[pkt.MetaLen:], ip, 1300, netip.MustParseAddr(router))
		if v6 {
			n = encap.PutPacketTooBig(e[pkt.MetaLen:], ip, 1300, netip.MustParseAddr(router))
		}
		e = e[:pkt.MetaLen+n]
		if v := p.In(e); v != Translated {
			t.Fatalf("v6=%v: %v", v6, v)
		}
		o, _ := locate(e)
		if o.icmpSum() != 0 || !v6 && !encap.IPv4(o.b).ChecksumOK() {
			t.Errorf("v6=%v: its checksum is wrong", v6)
		}
		q, ok := o.quoted()
		src, dst := q.ports()
		local, remote := (&key{local: words(q, 0), remote: words(q, 1), ports: uint32(src)<<16 | uint32(dst), kind: q.kind()}).ends()
		if !ok || local != client || remote != service {
			t.Errorf("v6=%v: it is about %s → %s", v6, local, remote)
		}
	}
}

func words(p packet, i int) [2]uint64 {
	src, dst := p.words()
	return [...][2]uint64{src, dst}[i]
}

// TestClientUnreachable: a client's error about a datagram of the VIP's is about
// one of the backend's.
func TestClientUnreachable(t *testing.T) {
	b := newTurns("10.10.0.11")
	p := newPort(t, b)
	sent, _ := p.send(message{from: client4, to: service4, udp: true})
	got := message{from: sent.to, to: client4, udp: true, data: 9}.frame()
	p.In(got)
	ip, _ := encap.ParseIP(got[pkt.MetaLen:])
	e := make([]byte, pkt.MetaLen+encap.MaxFragNeededLen)
	n := encap.PutUnreachable(e[pkt.MetaLen:], ip, encap.PortUnreachable, client4.Addr())
	e = e[:pkt.MetaLen+n]
	ip, _ = encap.ParseIP(e[pkt.MetaLen:])
	if v := p.Out(e, ip, b, false); v != Translated || ip.Dst() != sent.to.Addr() {
		t.Fatalf("%v to %s", v, ip.Dst())
	}
	o, _ := locate(e)
	q, ok := o.quoted()
	if src, _ := q.words(); !ok || src != wordsOf(sent.to.Addr()) {
		t.Errorf("it is not about the backend's datagram")
	}
}

// TestFragments: the pieces of a datagram follow the first one, both ways.
func TestFragments(t *testing.T) {
	p := newPort(t, newTurns("10.10.0.11", "10.10.0.12"))
	rest := func(from, to netip.Addr, id uint16) []byte {
		frame := make([]byte, pkt.MetaLen+encap.IPv4HeaderLen+8)
		h := encap.PutIPv4(frame[pkt.MetaLen:], from, to, encap.ProtocolUDP, 8)
		h.SetID(id)
		h[6], h[7] = 0, 2 // the third eight bytes
		h.UpdateChecksum()
		return frame
	}
	for i, id := range []uint16{5, 6} {
		client := netip.AddrPortFrom(client4.Addr(), uint16(4000+i))
		sent, v := p.send(message{from: client, to: service4, udp: true, data: 8, id: id})
		if v != Translated {
			t.Fatal(v)
		}
		frame := rest(client.Addr(), service4.Addr(), id)
		ip, _ := encap.ParseIP(frame[pkt.MetaLen:])
		if v := p.Out(frame, ip, p.b, false); v != Translated || ip.Dst() != sent.to.Addr() || !encap.IPv4(ip.Packet).ChecksumOK() {
			t.Errorf("the second piece: %v to %s", v, ip.Dst())
		}
		if _, v := p.answer(message{from: sent.to, to: client, udp: true, data: 8, id: id}); v != Translated {
			t.Fatal(v)
		}
		frame = rest(sent.to.Addr(), client.Addr(), id)
		ip, _ = encap.ParseIP(frame[pkt.MetaLen:])
		if v := p.In(frame); v != Translated || ip.Src() != service4.Addr() || !encap.IPv4(ip.Packet).ChecksumOK() {
			t.Errorf("the answer's second piece: %v from %s", v, ip.Src())
		}
	}
	frame := rest(client4.Addr(), service4.Addr(), 7)
	ip, _ := encap.ParseIP(frame[pkt.MetaLen:])
	if v := p.Out(frame, ip, p.b, false); v != Pass {
		t.Errorf("a piece of nothing: %v", v)
	}
}

// TestManyFlows: the index grows while others read it.
func TestManyFlows(t *testing.T) {
	p := newPort(t, &turns{backends: newTurns("10.10.0.11").backends})
	first := message{from: client4, to: service4, flags: ack, data: 10}
	_, to := p.connect(client4, service4)
	stop := make(chan struct{})
	var work sync.WaitGroup
	for range 2 {
		work.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				frame := first.frame()
				ip, _ := encap.ParseIP(frame[pkt.MetaLen:])
				if p.Out(frame, ip, p.b, false) != Translated || p.In(message{from: to, to: client4, flags: ack}.frame()) != Translated {
					t.Error("a flow is lost while others come and go")
					return
				}
			}
		})
	}
	for i := range 20_000 {
		from := netip.AddrPortFrom(client4.Addr(), uint16(1+i%30_000))
		p.connect(from, service4)
		if rand.IntN(2) == 0 {
			p.send(message{from: from, to: service4, flags: rst})
		}
		if i%5000 == 0 {
			p.all.Look(uint32(i/1000+1), p)
		}
	}
	close(stop)
	work.Wait()
	if n := len(p.index.Load().buckets); n <= minBuckets {
		t.Errorf("%d buckets", n)
	}
}

// TestAllocates nothing per packet of a flow.
func TestAllocates(t *testing.T) {
	p := newPort(t, newTurns("10.10.0.11"))
	_, to := p.connect(client4, service4)
	out, in := message{from: client4, to: service4, flags: ack, data: 10}.frame(), message{from: to, to: client4, flags: ack}.frame()
	var b Balancer = p.b
	back := newChange(netip.AddrPortFrom(to.Addr(), client4.Port()), netip.AddrPortFrom(service4.Addr(), client4.Port()))
	forth := newChange(netip.AddrPortFrom(service4.Addr(), client4.Port()), netip.AddrPortFrom(to.Addr(), client4.Port()))
	if n := testing.AllocsPerRun(1000, func() {
		ip, _ := encap.ParseIP(out[pkt.MetaLen:])
		if p.Out(out, ip, b, false) != Translated || p.In(in) != Translated {
			t.Fatal("not translated")
		}
		q, _ := locate(out)
		back.apply(&q, true)
		q, _ = locate(in)
		forth.apply(&q, false)
	}); n != 0 {
		t.Errorf("%v allocations per packet", n)
	}
}

func BenchmarkOut(b *testing.B) {
	balancer := newTurns("10.10.0.11")
	table := NewTables().New(nil)
	defer table.Close()
	first := message{from: client4, to: service4, udp: true}.frame()
	ip, _ := encap.ParseIP(first[pkt.MetaLen:])
	table.Out(first, ip, balancer, false)
	frame := message{from: client4, to: service4, udp: true, data: 1000}.frame()
	was := append([]byte(nil), frame...)
	for b.Loop() {
		copy(frame, was[:60])
		ip, _ := encap.ParseIP(frame[pkt.MetaLen:])
		if table.Out(frame, ip, balancer, false) != Translated {
			b.Fatal("not translated")
		}
	}
}

func BenchmarkIn(b *testing.B) {
	balancer := newTurns("10.10.0.11")
	table := NewTables().New(nil)
	defer table.Close()
	first := message{from: client4, to: service4, udp: true}.frame()
	ip, _ := encap.ParseIP(first[pkt.MetaLen:])
	table.Out(first, ip, balancer, false)
	frame := message{from: netip.MustParseAddrPort("10.10.0.11:80"), to: client4, udp: true, data: 1000}.frame()
	was := append([]byte(nil), frame...)
	for b.Loop() {
		copy(frame, was[:60])
		if table.In(frame) != Translated {
			b.Fatal("not translated")
		}
	}
}

package vip

import (
	"net/netip"
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

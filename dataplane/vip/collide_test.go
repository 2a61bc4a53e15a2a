package vip

import (
	"net/netip"
	"testing"
)

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

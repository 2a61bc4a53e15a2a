package vip

import (
	"net/netip"
	"testing"

	"github.com/ovnd/ovnd/dataplane/pkt"
	"github.com/ovnd/ovnd/encap"
)

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

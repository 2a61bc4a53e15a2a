package vip

import (
	"net/netip"
	"testing"

	"github.com/ovnd/ovnd/dataplane/pkt"
	"github.com/ovnd/ovnd/encap"
)

// TestClosing: a connection that both sides have ended is there until each knows
// that the other does, however long what was lost takes to come again.
func TestClosing(t *testing.T) {
	p := newPort(t, newTurns("10.10.0.11"))
	now := uint32(10)
	p.all.Look(now, p)
	from, to := p.connect(client4, service4)
	out := func(flags uint16, seq, acked uint32) {
		p.send(message{from: client4, to: service4, flags: flags, seq: seq, ack: acked})
	}
	in := func(flags uint16, seq, acked uint32, data int) Verdict {
		_, v := p.answer(message{from: to, to: from, flags: flags, seq: seq, ack: acked, data: data})
		return v
	}
	lives := func(what string, n uint32) {
		t.Helper()
		now += n
		if p.all.Look(now, p); !p.Live() {
			t.Fatalf("%s: gone after %d s", what, n)
		}
	}
	out(fin|ack, 100, 500)
	in(fin|ack, 600, 100, 50)
	lives("neither has acknowledged the other's end, and data are missing", 60)
	if v := in(ack, 500, 101, 100); v != Translated {
		t.Errorf("they come untranslated: %v", v)
	}
	lives("the client has not acknowledged", 60)
	out(ack, 101, 651)
	lives("both have", 2)
	now += 3
	if p.all.Look(now, p); p.Live() {
		t.Error("it never ends")
	}
}

// TestLateAnswer: a backend that answers while it is being given up is not counted
// as one that has closed a connection.
func TestLateAnswer(t *testing.T) {
	b := newTurns("10.10.0.11")
	p := newPort(t, b)
	m, _ := p.send(message{from: client4, to: service4, flags: syn, seq: 7})
	k := keyOf(kind(encap.ProtocolTCP)|outward, client4, service4)
	f := p.find(&k)
	if !f.claim() {
		t.Fatal("it is taken")
	}
	if _, v := p.answer(message{from: m.to, to: m.from, flags: synAck, ack: 8}); v != Pass {
		t.Errorf("the late answer: %v", v)
	}
	p.end(f)
	if x := b.backends[0]; x.opened != 0 || x.closed != 0 {
		t.Errorf("%+v", *x)
	}
}

// TestBusySender: the flows of a sandbox that sends datagrams everywhere take their
// turns like any.
func TestBusySender(t *testing.T) {
	b := newTurns("10.10.0.11", "10.10.0.12")
	p := newPort(t, b)
	for i := range uint32(len(heard{})) {
		p.hear(i)
	}
	for i := range 6 {
		client := netip.AddrPortFrom(client4.Addr(), uint16(40000+i))
		if m, v := p.send(message{from: client, to: service4, udp: true}); v != Translated || m.to.Addr() != b.backends[i%2].addr {
			t.Errorf("flow %d goes to %s: %v", i, m.to, v)
		}
	}
}

// TestShareOfDatagrams: no sandbox has the room of all for them.
func TestShareOfDatagrams(t *testing.T) {
	p := newPort(t, newTurns("10.10.0.11"))
	p.all.limit = 12 // UDP's 6, this port's of them 4
	translated := 0
	for i := range 6 {
		client := netip.AddrPortFrom(client4.Addr(), uint16(40000+i))
		if _, v := p.send(message{from: client, to: service4, udp: true}); v == Translated {
			translated++
		}
	}
	if translated != 4 {
		t.Errorf("%d flows of one port", translated)
	}
}

// TestOddSYNs: a SYN to which a backend may well be silent, for what is in it, is
// the balancer's: the backend must not seem dead to others.
func TestOddSYNs(t *testing.T) {
	b := newTurns("10.10.0.11")
	p := newPort(t, b)
	out := func(frame []byte) Verdict {
		ip, err := encap.ParseIP(frame[pkt.MetaLen:])
		if err != nil {
			t.Fatal(err)
		}
		return p.Out(frame, ip, b, false)
	}
	of := message{from: client4, to: service4, flags: syn}
	bad := of.frame()
	bad[pkt.MetaLen+encap.IPv4HeaderLen+encap.TCPChecksumOffset]++
	if v := out(bad); v != Pass {
		t.Errorf("a wrong checksum: %v", v)
	}
	bad = of.frame()
	bad[pkt.MetaLen+10]++
	if v := out(bad); v != Pass {
		t.Errorf("a wrong checksum of the header: %v", v)
	}
	for _, option := range []byte{19, 29} { // TCP-MD5 (RFC 2385), TCP-AO (RFC 5925)
		if v := out(withOptions(1, 1, option, 2)); v != Pass {
			t.Errorf("option %d: %v", option, v)
		}
	}
	if v := out(withOptions(2, 4, 5, 180, 1, 3, 3, 7, 4, 2, 0, 19)); v != Translated {
		t.Errorf("usual options: %v", v)
	}
	of.partial, of.from = true, netip.AddrPortFrom(client4.Addr(), 41000)
	if v := out(of.frame()); v != Translated {
		t.Errorf("a partial checksum: %v", v)
	}
}

// TestForgedUnreachable: an error about no SYN that was sent, from whoever guesses
// addresses and ports, has no backend given up.
func TestForgedUnreachable(t *testing.T) {
	b := newTurns("10.10.0.11", "10.10.0.12")
	p := newPort(t, b)
	m, _ := p.send(message{from: client4, to: service4, flags: syn, seq: 7})
	forged := message{from: m.from, to: m.to, flags: syn, seq: 8}.frame()
	ip, _ := encap.ParseIP(forged[pkt.MetaLen:])
	e := make([]byte, pkt.MetaLen+encap.MaxPacketTooBigLen)
	n := encap.PutUnreachable(e[pkt.MetaLen:], ip, encap.HostUnreachable, netip.MustParseAddr("10.10.0.66"))
	if v := p.In(e[:pkt.MetaLen+n]); v != Translated {
		t.Errorf("it is %v", v)
	}
	p.idle()
}

// withOptions returns a SYN with options, a multiple of four bytes.
func withOptions(options ...byte) []byte {
	frame := message{from: client4, to: service4, flags: syn, data: len(options)}.frame()
	b := frame[pkt.MetaLen:]
	h := encap.TCP(b[encap.IPv4HeaderLen:])
	copy(h[encap.TCPHeaderLen:], options)
	h[12] = byte(encap.TCPHeaderLen+len(options)) / 4 << 4
	h.SetChecksum(0)
	ip := encap.IP{Packet: b, Transport: encap.IPv4HeaderLen, Protocol: encap.ProtocolTCP}
	h.SetChecksum(encap.Checksum(h, ip.PseudoSum(len(h))))
	return frame
}

package vip

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/ovnd/ovnd/dataplane/pkt"
	"github.com/ovnd/ovnd/encap"
)

// TestRewrites both ways: what is rewritten and rewritten back is what it was,
// with right checksums in between.
func TestRewrites(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		for _, udp := range []bool{false, true} {
			for _, partial := range []bool{false, true} {
				t.Run(fmt.Sprintf("v6=%v udp=%v partial=%v", v6, udp, partial), func(t *testing.T) {
					testRewrite(t, v6, udp, partial)
				})
			}
		}
	}
}

func testRewrite(t *testing.T, v6, udp, partial bool) {
	client, service, addr := client4, service4, "10.10.0.11"
	if v6 {
		client, service, addr = client6, service6, "fd00::11"
	}
	for range 2000 {
		to := netip.AddrPortFrom(netip.MustParseAddr(addr), uint16(rand.Uint32()))
		from := netip.AddrPortFrom(client.Addr(), uint16(rand.Uint32()))
		f := &flow{table: &Table{all: NewTables()}, out: keyOf(kind(encap.ProtocolTCP)|outward, client, service)}
		f.translate(client, service, from, netip.AddrPortFrom(to.Addr(), service.Port()))
		frame := message{from: client, to: service, udp: udp, partial: partial, data: rand.IntN(40), seq: rand.Uint32(), flags: ack}.frame()
		was := bytes.Clone(frame)
		p, _ := locate(frame)
		f.send.apply(&p, true)
		if m := read(t, frame); m.from != from || m.to.Addr() != to.Addr() {
			t.Fatalf("%s → %s became %s → %s", client, service, m.from, m.to)
		}
		back := message{from: netip.AddrPortFrom(to.Addr(), service.Port()), to: from, udp: udp, partial: partial, data: 5}.frame()
		p, _ = locate(back)
		f.receive.apply(&p, false)
		if m := read(t, back); m.from != service || m.to != client {
			t.Fatalf("the answer came from %s to %s", m.from, m.to)
		}
		inverse := &flow{table: f.table, out: keyOf(f.out.kind, from, netip.AddrPortFrom(to.Addr(), service.Port()))}
		inverse.translate(from, netip.AddrPortFrom(to.Addr(), service.Port()), client, service)
		p, _ = locate(frame)
		inverse.send.apply(&p, true)
		if !bytes.Equal(frame, was) {
			t.Fatalf("there and back:\n%x\n%x", was, frame)
		}
	}
}

// TestNoChecksum: a UDP datagram over IPv4 without one stays so.
func TestNoChecksum(t *testing.T) {
	frame := message{from: client4, to: service4, udp: true, data: 9}.frame()
	p, _ := locate(frame)
	u := encap.UDP(p.b[p.at:])
	u[6], u[7] = 0, 0
	c := newChange(netip.AddrPortFrom(service4.Addr(), client4.Port()), netip.MustParseAddrPort("10.10.0.11:5"))
	c.apply(&p, true)
	if u.Checksum() != 0 {
		t.Errorf("checksum %04x", u.Checksum())
	}
}

// TestZeroChecksum: a checksum that comes out as zero is written as 0xffff.
func TestZeroChecksum(t *testing.T) {
	seen := false
	for port := range 1 << 16 {
		frame := message{from: client4, to: service4, udp: true, data: 2}.frame()
		p, _ := locate(frame)
		c := newChange(netip.AddrPortFrom(service4.Addr(), client4.Port()), netip.AddrPortFrom(netip.MustParseAddr("10.10.0.11"), uint16(port)))
		c.apply(&p, true)
		sum := encap.UDP(p.b[p.at:]).Checksum()
		if sum == 0 {
			t.Fatalf("port %d has no checksum", port)
		}
		seen = seen || sum == 0xffff
	}
	if !seen {
		t.Error("no port has the checksum that was looked for")
	}
}

// FuzzRewrite: whatever comes, nothing is touched but headers, and what had right
// checksums has them afterwards.
func FuzzRewrite(f *testing.F) {
	for _, m := range []message{
		{from: client4, to: service4, flags: syn},
		{from: client6, to: service6, flags: syn, partial: true},
		{from: client4, to: service4, udp: true, data: 7},
		{from: client6, to: service6, udp: true, data: 8},
		{from: client4, to: service4, udp: true, data: 16, id: 5},
	} {
		f.Add(m.frame())
	}
	orig := message{from: client4, to: netip.AddrPortFrom(netip.MustParseAddr("10.10.0.11"), 80), flags: syn}.frame()
	ip, _ := encap.ParseIP(orig[pkt.MetaLen:])
	icmp := make([]byte, pkt.MetaLen+encap.MaxFragNeededLen)
	n := encap.PutFragNeeded(icmp[pkt.MetaLen:], ip, 1400, netip.MustParseAddr("10.10.0.1"))
	f.Add(icmp[:pkt.MetaLen+n])
	f.Fuzz(func(t *testing.T, frame []byte) {
		b := newTurns("10.10.0.11", "10.10.0.12")
		table := NewTables().New(nil)
		defer table.Close()
		for _, m := range []message{
			{from: client4, to: service4, flags: syn}, {from: client4, to: service4, udp: true},
		} {
			first := m.frame()
			ip, _ := encap.ParseIP(first[pkt.MetaLen:])
			table.Out(first, ip, b, false)
		}
		size := len(frame)
		was := right(frame)
		in := bytes.Clone(frame)
		table.In(in)
		if was && !right(in) {
			t.Errorf("a right packet became a wrong one:\n%x\n%x", frame, in)
		}
		if len(frame) <= pkt.MetaLen {
			return
		}
		out := bytes.Clone(frame)
		ip, err := encap.ParseIP(out[pkt.MetaLen:])
		if err != nil {
			return
		}
		table.Out(out, ip, b, false)
		if was && !right(out) || len(out) != size {
			t.Errorf("a right packet became a wrong one:\n%x\n%x", frame, out)
		}
	})
}

// right reports whether a frame holds a packet whose checksums can be seen to be
// right.
func right(frame []byte) bool {
	if len(frame) <= pkt.MetaLen || frame[0]&pkt.NeedsChecksum != 0 {
		return false
	}
	ip, err := encap.ParseIP(frame[pkt.MetaLen:])
	if err != nil || ip.IsFragment() || !ip.Is6() && !encap.IPv4(ip.Packet).ChecksumOK() {
		return false
	}
	switch ip.Protocol {
	case encap.ProtocolTCP:
		return len(ip.Payload()) >= encap.TCPHeaderLen && ip.TransportChecksumOK()
	case encap.ProtocolUDP:
		return len(ip.Payload()) >= encap.UDPHeaderLen && ip.TransportChecksumOK()
	case encap.ProtocolICMP:
		return !ip.Is6() && encap.Checksum(ip.Payload(), 0) == 0
	}
	return false
}

package encap

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
)

var (
	testGateway4 = netip.MustParseAddr("10.10.0.1")
	testGateway6 = netip.MustParseAddr("fd00:10::1")
)

// putTooBig writes the error of p's own version.
func putTooBig(dst []byte, p IP, mtu int) int {
	if p.Is6() {
		return PutPacketTooBig(dst, p, mtu, testGateway6)
	}
	return PutFragNeeded(dst, p, mtu, testGateway4)
}

func TestTooBig(t *testing.T) {
	for _, size := range []int{0, 1, 100, 1460, 60000} {
		families(t, func(t *testing.T, v6 bool) {
			orig := tcpPacket(t, v6, TCPFlagACK, nil, pattern(size))
			b := bytes.Repeat([]byte{0xff}, 2000)
			n := putTooBig(b, orig, 1400)
			checkTooBig(t, b[:n], orig, 1400)
		})
	}
}

// checkTooBig reads an error about orig as its receiver does.
func checkTooBig(t *testing.T, b []byte, orig IP, mtu uint32) {
	t.Helper()
	p := mustParseIP(t, b)
	if len(p.Packet) != len(b) || p.Dst() != orig.Src() {
		t.Fatalf("%d of %d bytes, to %v", len(p.Packet), len(b), p.Dst())
	}
	msg := p.Payload()
	if orig.Is6() {
		if len(b) > MaxPacketTooBigLen || p.Src() != testGateway6 || p.Protocol != ProtocolICMPv6 || !p.TransportChecksumOK() {
			t.Fatalf("%d bytes from %v, protocol %d, checksum right: %t", len(b), p.Src(), p.Protocol, p.TransportChecksumOK())
		}
		if msg[0] != 2 || msg[1] != 0 || binary.BigEndian.Uint32(msg[4:]) != mtu {
			t.Fatalf("message %x, want MTU %d", msg[:8], mtu)
		}
	} else {
		if len(b) > MaxFragNeededLen || p.Src() != testGateway4 || p.Protocol != ProtocolICMP ||
			slowChecksum(msg) != 0 || !IPv4(p.Packet).ChecksumOK() {
			t.Fatalf("%d bytes from %v, protocol %d, checksums %#x, %t", len(b), p.Src(), p.Protocol, slowChecksum(msg), IPv4(p.Packet).ChecksumOK())
		}
		if tos := IPv4(p.Packet).TOS(); tos != 0xc0 {
			t.Fatalf("TOS %#02x, want that of internetwork control", tos)
		}
		if msg[0] != 3 || msg[1] != 4 || binary.BigEndian.Uint32(msg[4:]) != mtu {
			t.Fatalf("message %x, want MTU %d", msg[:8], mtu)
		}
	}
	if quote := msg[8:]; len(quote) < min(len(orig.Packet), orig.Transport+8) || !bytes.HasPrefix(orig.Packet, quote) {
		t.Fatalf("quotes %x of %x", quote, orig.Packet)
	}
}

func TestTooBigMTU(t *testing.T) {
	for _, tt := range []struct{ mtu, want4, want6 int }{
		{-1, 68, 1280},
		{0, 68, 1280},
		{1279, 1279, 1280},
		{1450, 1450, 1450},
		{1 << 20, MaxMTU, MaxMTU},
	} {
		families(t, func(t *testing.T, v6 bool) {
			want := tt.want4
			if v6 {
				want = tt.want6
			}
			orig := udpPacket(t, v6, pattern(64))
			b := make([]byte, 2000)
			checkTooBig(t, b[:putTooBig(b, orig, tt.mtu)], orig, uint32(want))
		})
	}
}

func TestTooBigRoom(t *testing.T) {
	families(t, func(t *testing.T, v6 bool) {
		orig := udpPacket(t, v6, pattern(1000))
		least := orig.Transport*2 + 8 + 8 // two IP headers, ICMP's and UDP's
		for n := range 2000 {
			b := make([]byte, n)
			got := putTooBig(b, orig, 1400)
			if (got == 0) != (n < least) {
				t.Fatalf("room for %d bytes: wrote %d", n, got)
			}
			if got != 0 {
				checkTooBig(t, b[:got], orig, 1400)
			}
		}
	})
}

func TestNoErrorAbout(t *testing.T) {
	addr := netip.MustParseAddr
	icmp := func(v6 bool, icmpType byte) IP {
		protocol := ProtocolICMP
		if v6 {
			protocol = ProtocolICMPv6
		}
		return ipPacket(t, v6, protocol, append([]byte{icmpType, 0, 0, 0, 0, 0, 0, 0}, pattern(40)...), -1)
	}
	from := func(src, dst string) IP {
		s, d := addr(src), addr(dst)
		b := make([]byte, 60)
		if s.Is6() {
			return mustParseIP(t, PutIPv6(b, s, d, ProtocolUDP, 64, 20))
		}
		return mustParseIP(t, PutIPv4(b, s, d, ProtocolUDP, 20))
	}
	later := bytes.Clone(udpPacket(t, false, pattern(20)).Packet)
	binary.BigEndian.PutUint16(later[6:], 0x2001)
	for _, tt := range []struct {
		name   string
		p      IP
		answer bool
	}{
		{"UDP", udpPacket(t, false, nil), true},
		{"echo request", icmp(false, 8), true},
		{"echo reply", icmp(false, 0), true},
		{"unreachable", icmp(false, 3), false},
		{"source quench", icmp(false, 4), false},
		{"redirect", icmp(false, 5), false},
		{"time exceeded", icmp(false, 11), false},
		{"parameter problem", icmp(false, 12), false},
		{"ICMP without type", ipPacket(t, false, ProtocolICMP, nil, -1), false},
		{"later fragment", mustParseIP(t, later), false},
		{"to a group", from("10.10.0.3", "239.1.1.1"), false},
		{"to all", from("10.10.0.3", "255.255.255.255"), false},
		{"from a group", from("224.0.0.1", "10.10.0.9"), false},
		{"from nobody", from("0.0.0.0", "10.10.0.9"), false},
		{"from loopback", from("127.0.0.1", "10.10.0.9"), false},
		{"UDP over IPv6", udpPacket(t, true, nil), true},
		{"echo request, ICMPv6", icmp(true, 128), true},
		{"unreachable, ICMPv6", icmp(true, 1), false},
		{"unknown error, ICMPv6", icmp(true, 127), false},
		{"redirect, ICMPv6", icmp(true, 137), false},
		{"ICMPv6 without type", ipPacket(t, true, ProtocolICMPv6, nil, -1), false},
		{"to an IPv6 group", from("fd00:10::3", "ff05::1"), false},
		{"from an IPv6 group", from("ff02::1", "fd00:10::9"), false},
		{"from nobody, IPv6", from("::", "fd00:10::9"), false},
		{"from loopback, IPv6", from("::1", "fd00:10::9"), false},
	} {
		b := make([]byte, 2000)
		if n := putTooBig(b, tt.p, 1400); (n != 0) != tt.answer {
			t.Errorf("%s: answer of %d bytes, want one: %t", tt.name, n, tt.answer)
		}
	}
}

func TestTooBigFamilies(t *testing.T) {
	p4, p6, b := udpPacket(t, false, nil), udpPacket(t, true, nil), make([]byte, 2000)
	for name, n := range map[string]int{
		"IPv4 error about IPv6": PutFragNeeded(b, p6, 1400, testGateway4),
		"IPv4 error from IPv6":  PutFragNeeded(b, p4, 1400, testGateway6),
		"IPv6 error about IPv4": PutPacketTooBig(b, p4, 1400, testGateway6),
		"IPv6 error from IPv4":  PutPacketTooBig(b, p6, 1400, testGateway4),
		"error from nowhere":    PutFragNeeded(b, p4, 1400, netip.Addr{}),
	} {
		if n != 0 {
			t.Errorf("%s: wrote %d bytes", name, n)
		}
	}
}

func FuzzTooBig(f *testing.F) {
	f.Add(udpPacket(f, false, pattern(30)).Packet, 1400, uint16(1500))
	f.Add(tcpPacket(f, true, TCPFlagACK, nil, pattern(30)).Packet, 0, uint16(90))
	f.Fuzz(func(t *testing.T, b []byte, mtu int, room uint16) {
		p, err := ParseIP(b)
		if err != nil {
			return
		}
		out := make([]byte, room)
		n := putTooBig(out, p, mtu)
		if n == 0 {
			return
		}
		floor := MinMTU4
		if p.Is6() {
			floor = MinMTU6
		}
		checkTooBig(t, out[:n], p, uint32(min(max(mtu, floor), MaxMTU)))
		if again := putTooBig(make([]byte, 2000), mustParseIP(t, out[:n]), mtu); again != 0 {
			t.Fatal("an error about an error")
		}
	})
}

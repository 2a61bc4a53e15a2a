package encap

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"
)

func TestParseIPErrors(t *testing.T) {
	v4, v6 := udpPacket(t, false, pattern(9)).Packet, udpPacket(t, true, pattern(9)).Packet
	edit := func(p []byte, f func(b []byte)) []byte {
		b := bytes.Clone(p)
		f(b)
		return b
	}
	for _, tt := range []struct {
		name string
		b    []byte
		err  error
	}{
		{"empty", nil, ErrShort},
		{"IPv4 of 19 bytes", v4[:19], ErrShort},
		{"IPv6 of 39 bytes", v6[:39], ErrShort},
		{"version 0", make([]byte, 40), ErrVersion},
		{"version 5", edit(v4, func(b []byte) { b[0] = 0x55 }), ErrVersion},
		{"IPv4 cut off", v4[:len(v4)-1], ErrLength},
		{"IPv6 cut off", v6[:len(v6)-1], ErrLength},
		{"IPv4 header of 16 bytes", edit(v4, func(b []byte) { b[0] = 0x44 }), ErrLength},
		{"IPv4 header beyond its packet", edit(v4, func(b []byte) { b[0] = 0x4f }), ErrLength},
		{"IPv4 length 0", edit(v4, func(b []byte) { IPv4(b).SetTotalLen(0) }), ErrLength},
		{"IPv6 extension cut off", edit(v6[:IPv6HeaderLen+7], func(b []byte) {
			b[6] = ipv6HopByHop
			IPv6(b).SetPayloadLen(7)
		}), ErrShort},
		{"IPv6 extension beyond its packet", edit(v6, func(b []byte) {
			b[6] = ipv6DestOptions
			b[IPv6HeaderLen+1] = 2
		}), ErrLength},
	} {
		if _, err := ParseIP(tt.b); err != tt.err {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.err)
		}
	}
}

func TestParseIP(t *testing.T) {
	families(t, func(t *testing.T, v6 bool) {
		want := udpPacket(t, v6, pattern(9))
		p := mustParseIP(t, append(bytes.Clone(want.Packet), 0, 0, 0)) // Ethernet padding
		if !bytes.Equal(p.Packet, want.Packet) {
			t.Errorf("packet %x, want %x", p.Packet, want.Packet)
		}
		src, dst, etherType := testSrc4, testDst4, EtherTypeIPv4
		if v6 {
			src, dst, etherType = testSrc6, testDst6, EtherTypeIPv6
		}
		if p.Src() != src || p.Dst() != dst || p.Is6() != v6 || p.EtherType() != etherType {
			t.Errorf("from %v to %v, type %#04x", p.Src(), p.Dst(), p.EtherType())
		}
		if p.Protocol != ProtocolUDP || len(p.Payload()) != UDPHeaderLen+9 || p.IsFragment() {
			t.Errorf("protocol %d, payload %x, fragment %t", p.Protocol, p.Payload(), p.IsFragment())
		}
		if !p.TransportChecksumOK() {
			t.Error("checksum wrong")
		}
	})
}

func TestPutIPv4(t *testing.T) {
	b := bytes.Repeat([]byte{0xff}, 30) // stale bytes must not show through
	p := PutIPv4(b, testSrc4, testDst4, ProtocolUDP, 5)
	want := unhex(t, "45000019 00004000 4011 26b5 0a0a0003 0a0a0009 ffffffffff")
	if !bytes.Equal(p, want) {
		t.Errorf("got %x, want %x", p, want)
	}
	if !p.ChecksumOK() || !p.DontFragment() || p.TTL() != 64 || p.ID() != 0 || p.TOS() != 0 {
		t.Errorf("checksum %#04x, DF %t, TTL %d, ID %d, TOS %d", p.Checksum(), p.DontFragment(), p.TTL(), p.ID(), p.TOS())
	}
	p[12] ^= 1
	if p.ChecksumOK() {
		t.Error("a wrong checksum passed")
	}
}

func TestPutIPv6(t *testing.T) {
	b := bytes.Repeat([]byte{0xff}, 50)
	p := PutIPv6(b, testSrc6, testDst6, ProtocolUDP, 63, 2)
	want := unhex(t, "60000000 0002 11 3f fd000010000000000000000000000003 fd000010000000000000000000000009 ffff")
	if !bytes.Equal(p, want) {
		t.Errorf("got %x, want %x", p, want)
	}
	if p.HopLimit() != 63 || p.NextHeader() != ProtocolUDP || p.PayloadLen() != 2 || !bytes.Equal(p.Payload(), []byte{0xff, 0xff}) {
		t.Errorf("hop limit %d, next header %d, payload %d: %x", p.HopLimit(), p.NextHeader(), p.PayloadLen(), p.Payload())
	}
}

func TestIPv4Options(t *testing.T) {
	b := append(unhex(t, "46000020 00000000 4011 0000 0a0a0003 0a0a0009 01010100"), pattern(8)...)
	p, err := ParseIPv4(b)
	if err != nil {
		t.Fatal(err)
	}
	p.UpdateChecksum()
	if !p.ChecksumOK() || p.HeaderLen() != 24 || !bytes.Equal(p.Payload(), pattern(8)) {
		t.Errorf("header %d, payload %x", p.HeaderLen(), p.Payload())
	}
	if ip := mustParseIP(t, b); ip.Transport != 24 {
		t.Errorf("transport at %d, want 24", ip.Transport)
	}
}

// TestTOS changes DSCP and ECN from every value to every other.
func TestTOS(t *testing.T) {
	p4 := IPv4(udpPacket(t, false, nil).Packet)
	p6 := IPv6(udpPacket(t, true, nil).Packet)
	binary.BigEndian.PutUint32(p6, 0x600fffff) // the flow label must stay
	for tos := range 256 {
		dscp, ecn := uint8(tos>>2), uint8(tos&3)
		p4.SetDSCP(dscp)
		p4.SetECN(ecn)
		if p4.TOS() != uint8(tos) || p4.DSCP() != dscp || p4.ECN() != ecn || !p4.ChecksumOK() {
			t.Errorf("IPv4: TOS %#02x, checksum right: %t; want %#02x", p4.TOS(), p4.ChecksumOK(), tos)
		}
		p6.SetDSCP(dscp)
		p6.SetECN(ecn)
		if p6.TrafficClass() != uint8(tos) || p6.DSCP() != dscp || p6.ECN() != ecn {
			t.Errorf("IPv6: traffic class %#02x, want %#02x", p6.TrafficClass(), tos)
		}
		if got := binary.BigEndian.Uint32(p6); got != 0x600fffff|uint32(tos)<<20 {
			t.Errorf("IPv6: first word %#08x", got)
		}
	}
}

func TestFragments(t *testing.T) {
	for _, tt := range []struct {
		word           uint16 // of the IPv4 header
		offset         int
		more, fragment bool
	}{
		{0x0000, 0, false, false},
		{0x4000, 0, false, false},
		{0x2000, 0, true, true},
		{0x2001, 8, true, true},
		{0x1fff, 65528, false, true},
	} {
		p := udpPacket(t, false, nil)
		binary.BigEndian.PutUint16(p.Packet[6:], tt.word)
		p = mustParseIP(t, p.Packet)
		if p.FragmentOffset != tt.offset || p.MoreFragments != tt.more || p.IsFragment() != tt.fragment {
			t.Errorf("%#04x: offset %d, more %t, fragment %t", tt.word, p.FragmentOffset, p.MoreFragments, p.IsFragment())
		}
		if p.TransportChecksumOK() == tt.fragment {
			t.Errorf("%#04x: TransportChecksumOK() = %t", tt.word, !tt.fragment)
		}
	}
}

func TestIPv6Extensions(t *testing.T) {
	tcp := pattern(20)
	for _, tt := range []struct {
		name       string
		first      uint8
		extensions string
		protocol   uint8
		offset     int
		more       bool
	}{
		{"none", ProtocolTCP, "", ProtocolTCP, 0, false},
		{"no next header", 59, "", 59, 0, false},
		{"ESP", 50, "", 50, 0, false},
		{"hop by hop", ipv6HopByHop, "0600010400000000", ProtocolTCP, 0, false},
		{"hop by hop, 16 bytes", ipv6HopByHop, "0601010c00000000 0000000000000000", ProtocolTCP, 0, false},
		{"destination, routing", ipv6DestOptions, "2b00010400000000 0600000000000000", ProtocolTCP, 0, false},
		{"authentication", ipv6AH, "06010000 00000100 00000001", ProtocolTCP, 0, false},
		{"only fragment", ipv6Fragment, "06000000 12345678", ProtocolTCP, 0, false},
		{"first fragment", ipv6Fragment, "3c000001 12345678 0600010400000000", ProtocolTCP, 0, true},
		{"later fragment", ipv6Fragment, "3c000009 12345678", ipv6DestOptions, 8, true},
		{"last fragment", ipv6Fragment, "0600fff8 12345678", ProtocolTCP, 65528, false},
	} {
		extensions := unhex(t, tt.extensions)
		p := ipPacket(t, true, tt.first, append(extensions, tcp...), -1)
		if p.Protocol != tt.protocol || p.FragmentOffset != tt.offset || p.MoreFragments != tt.more {
			t.Errorf("%s: protocol %d, offset %d, more %t", tt.name, p.Protocol, p.FragmentOffset, p.MoreFragments)
		}
		if !bytes.Equal(p.Payload(), tcp) {
			t.Errorf("%s: transport at %d, want %d", tt.name, p.Transport, IPv6HeaderLen+len(extensions))
		}
	}
}

// TestIPv6ExtensionLimit: the walk ends, and the packet is still one.
func TestIPv6ExtensionLimit(t *testing.T) {
	for _, n := range []int{maxIPv6Extensions, maxIPv6Extensions + 1} {
		b := bytes.Repeat(unhex(t, "3c00010400000000"), n)
		b[(n-1)*8] = ProtocolTCP
		p := ipPacket(t, true, ipv6DestOptions, append(b, pattern(20)...), -1)
		want := ProtocolTCP
		if n > maxIPv6Extensions {
			want = ipv6DestOptions
		}
		if p.Protocol != want {
			t.Errorf("%d extension headers: protocol %d, want %d", n, p.Protocol, want)
		}
	}
}

func TestTransportChecksum(t *testing.T) {
	families(t, func(t *testing.T, v6 bool) {
		for n := range 70 {
			for _, p := range []IP{udpPacket(t, v6, pattern(n)), tcpPacket(t, v6, TCPFlagACK, nil, pattern(n))} {
				if !p.TransportChecksumOK() {
					t.Errorf("protocol %d, %d bytes: right checksum refused", p.Protocol, n)
				}
				p.Packet[len(p.Packet)-1] ^= 0x10
				if p.TransportChecksumOK() {
					t.Errorf("protocol %d, %d bytes: wrong checksum passed", p.Protocol, n)
				}
			}
		}
		p := udpPacket(t, v6, pattern(9))
		binary.BigEndian.PutUint16(p.Payload()[UDPChecksumOffset:], 0)
		if got := p.TransportChecksumOK(); got == v6 {
			t.Errorf("UDP without checksum: TransportChecksumOK() = %t", got) // RFC 8200 §8.1
		}
	})
}

func FuzzIP(f *testing.F) {
	for _, v6 := range []bool{false, true} {
		f.Add(udpPacket(f, v6, pattern(3)).Packet)
		f.Add(tcpPacket(f, v6, TCPFlagSYN, []byte{2, 4, 5, 0xb4}, nil).Packet)
	}
	f.Add(ipPacket(f, true, ipv6HopByHop, unhex(f, "3c00010400000000 2c00010400000000 06000001 12345678"), -1).Packet)
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParseIP(b)
		if err != nil {
			return
		}
		if !bytes.HasPrefix(b, p.Packet) || p.Transport > len(p.Packet) {
			t.Fatalf("packet %x, transport %d of %x", p.Packet, p.Transport, b)
		}
		p.FlowHash()
		p.TransportChecksumOK()
		if again := mustParseIP(t, p.Packet); fmt.Sprint(again) != fmt.Sprint(p) {
			t.Fatalf("parsed again: %v, was %v", again, p)
		}
		checkECN(t, p)
		checkPut(t, p)
	})
}

// checkECN sets each ECN value in turn: nothing else but an IPv4 checksum may
// change, and that must be as right or wrong as it was.
func checkECN(t *testing.T, p IP) {
	t.Helper()
	was, ecn := bytes.Clone(p.Packet), p.ECN()
	ok := p.Is6() || IPv4(p.Packet).ChecksumOK()
	for _, e := range []uint8{ECNNotECT, ECNECT1, ECNECT0, ECNCE, ecn} {
		p.SetECN(e)
		if p.ECN() != e {
			t.Fatalf("SetECN(%d) made it %d", e, p.ECN())
		}
		if !p.Is6() && IPv4(p.Packet).ChecksumOK() != ok {
			t.Fatalf("SetECN(%d) made the checksum right: %t", e, !ok)
		}
	}
	if !p.Is6() { // the two zeros of one's complement may have changed places
		IPv4(p.Packet).SetChecksum(IPv4(was).Checksum())
	}
	if !bytes.Equal(p.Packet, was) {
		t.Fatalf("SetECN back to %d: %x, was %x", ecn, p.Packet, was)
	}
}

// checkPut writes a packet with p's addresses, protocol and payload and reads it
// again.
func checkPut(t *testing.T, p IP) {
	t.Helper()
	payload := p.Payload()
	b := make([]byte, IPv6HeaderLen+len(payload))
	if p.Is6() {
		q := PutIPv6(b, p.Src(), p.Dst(), p.Protocol, 64, len(payload))
		copy(q.Payload(), payload)
		r, err := ParseIPv6(b)
		if err != nil || r.Src() != p.Src() || r.Dst() != p.Dst() || r.NextHeader() != p.Protocol || !bytes.Equal(r.Payload(), payload) {
			t.Fatalf("read back %x, %v", r, err)
		}
		return
	}
	q := PutIPv4(b, p.Src(), p.Dst(), p.Protocol, len(payload))
	copy(q.Payload(), payload)
	r, err := ParseIPv4(b)
	if err != nil || !r.ChecksumOK() || r.Src() != p.Src() || r.Dst() != p.Dst() || r.Protocol() != p.Protocol || !bytes.Equal(r.Payload(), payload) {
		t.Fatalf("read back %x, %v", r, err)
	}
}

func BenchmarkParseIP(b *testing.B) {
	for _, v6 := range []bool{false, true} {
		p := tcpPacket(b, v6, TCPFlagACK, make([]byte, 12), pattern(1300)).Packet
		b.Run(fmt.Sprintf("v6=%t", v6), func(b *testing.B) {
			b.SetBytes(int64(len(p)))
			for b.Loop() {
				if _, err := ParseIP(p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

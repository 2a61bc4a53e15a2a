package encap

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
)

// ndPacket builds a message with any source, destination, body and options, its
// checksum right.
func ndPacket(tb testing.TB, src, dst netip.Addr, hopLimit, icmpType uint8, flags uint32, target netip.Addr, options []byte) IP {
	tb.Helper()
	b := make([]byte, NDLen+len(options))
	p := PutIPv6(b, src, dst, ProtocolICMPv6, hopLimit, ndMessageLen+len(options))
	msg, a := p.Payload(), target.As16()
	msg[0] = icmpType
	binary.BigEndian.PutUint32(msg[4:], flags)
	copy(msg[8:24], a[:])
	copy(msg[24:], options)
	ip := mustParseIP(tb, p)
	fixICMPv6Checksum(ip)
	return ip
}

func fixICMPv6Checksum(p IP) {
	msg := p.Payload()
	binary.BigEndian.PutUint16(msg[2:], 0)
	binary.BigEndian.PutUint16(msg[2:], slowChecksum(pseudoHeader(p), msg))
}

func TestPutNS(t *testing.T) {
	b := bytes.Repeat([]byte{0xff}, NDLen)
	PutNS(b, testMAC1, testSrc6, testDst6)
	p := mustParseIP(t, b)
	ns, err := ParseNS(p)
	if err != nil {
		t.Fatal(err)
	}
	node := netip.MustParseAddr("ff02::1:ff00:9")
	if want := (NS{Src: testSrc6, Dst: node, Target: testDst6, MAC: testMAC1}); ns != want {
		t.Errorf("got %+v, want %+v", ns, want)
	}
	if got := slowChecksum(pseudoHeader(p), p.Payload()); got != 0 {
		t.Errorf("checksum is off by %#04x", got)
	}
	if _, err := ParseNA(p); err != ErrND {
		t.Errorf("ParseNA of a solicitation: %v, want ErrND", err)
	}
}

func TestPutNA(t *testing.T) {
	for _, tt := range []struct {
		name     string
		src, dst netip.Addr
		want     bool // solicited
	}{
		{"answer", testSrc6, testSrc6, true},
		{"duplicate address detection", netip.IPv6Unspecified(), netip.MustParseAddr("ff02::1"), false},
	} {
		b := bytes.Repeat([]byte{0xff}, NDLen)
		dst := PutNA(b, NS{Src: tt.src, Dst: SolicitedNode(testDst6), Target: testDst6}, testMAC2)
		na, err := ParseNA(mustParseIP(t, b))
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		want := NA{Src: testDst6, Dst: tt.dst, Target: testDst6, MAC: testMAC2, Solicited: tt.want, Override: true}
		if na != want || dst != tt.dst {
			t.Errorf("%s: to %v: %+v, want %+v", tt.name, dst, na, want)
		}
	}
}

// TestParseNS goes through the list of RFC 4861 §7.1.1.
func TestParseNS(t *testing.T) {
	const ns = ICMPv6NeighborSolicitation
	none, node := netip.IPv6Unspecified(), SolicitedNode(testDst6)
	source := unhex(t, "0101 02420a0a0003")
	good := ndPacket(t, testSrc6, node, 255, ns, 0, testDst6, source)
	badSum := bytes.Clone(good.Packet)
	badSum[len(badSum)-1] ^= 1
	code := bytes.Clone(good.Packet)
	code[IPv6HeaderLen+1] = 1
	fixICMPv6Checksum(mustParseIP(t, code))
	behind := func(protocol uint8, extension string) IP {
		p := ipPacket(t, true, protocol, append(unhex(t, extension), good.Payload()...), -1)
		p.Packet[7] = 255
		fixICMPv6Checksum(p)
		return p
	}
	for _, tt := range []struct {
		name string
		p    IP
		mac  MAC
		err  error
	}{
		{"good", good, testMAC1, nil},
		{"to the target itself", ndPacket(t, testSrc6, testDst6, 255, ns, 0, testDst6, source), testMAC1, nil},
		{"without option", ndPacket(t, testSrc6, testDst6, 255, ns, 0, testDst6, nil), MAC{}, nil},
		{"reserved bits", ndPacket(t, testSrc6, node, 255, ns, 0xffffffff, testDst6, source), testMAC1, nil},
		{"unknown option", ndPacket(t, testSrc6, node, 255, ns, 0, testDst6, append(unhex(t, "0e01010203040506"), source...)), testMAC1, nil},
		{"two options", ndPacket(t, testSrc6, node, 255, ns, 0, testDst6, append(bytes.Clone(source), unhex(t, "0101 020000000001")...)), testMAC1, nil},
		{"option of 16 bytes", ndPacket(t, testSrc6, node, 255, ns, 0, testDst6, unhex(t, "0102 0242 0a0a0003 0000000000000000")), MAC{}, nil},
		{"target's option", ndPacket(t, testSrc6, node, 255, ns, 0, testDst6, unhex(t, "0201 02420a0a0003")), MAC{}, nil},
		{"duplicate detection", ndPacket(t, none, node, 255, ns, 0, testDst6, nil), MAC{}, nil},
		{"duplicate detection with option", ndPacket(t, none, node, 255, ns, 0, testDst6, source), MAC{}, ErrND},
		{"duplicate detection elsewhere", ndPacket(t, none, testDst6, 255, ns, 0, testDst6, nil), MAC{}, ErrND},
		{"hop limit 254", ndPacket(t, testSrc6, node, 254, ns, 0, testDst6, source), MAC{}, ErrND},
		{"multicast target", ndPacket(t, testSrc6, node, 255, ns, 0, netip.MustParseAddr("ff02::1"), source), MAC{}, ErrND},
		{"option of length 0", ndPacket(t, testSrc6, node, 255, ns, 0, testDst6, unhex(t, "0100 02420a0a0003")), MAC{}, ErrND},
		{"option too long", ndPacket(t, testSrc6, node, 255, ns, 0, testDst6, unhex(t, "0102 02420a0a0003")), MAC{}, ErrND},
		{"option cut off", ndPacket(t, testSrc6, node, 255, ns, 0, testDst6, unhex(t, "0101")), MAC{}, ErrND},
		{"code 1", mustParseIP(t, code), MAC{}, ErrND},
		{"short", ipPacket(t, true, ProtocolICMPv6, good.Payload()[:23], 2), MAC{}, ErrND},
		{"first fragment", behind(ipv6Fragment, "3a000001 12345678"), MAC{}, ErrND},
		{"only fragment", behind(ipv6Fragment, "3a000000 12345678"), MAC{}, ErrND},
		{"behind options", behind(ipv6DestOptions, "3a00010400000000"), MAC{}, ErrND},
		{"advertisement", ndPacket(t, testSrc6, node, 255, 136, 0, testDst6, source), MAC{}, ErrND},
		{"UDP", udpPacket(t, true, pattern(40)), MAC{}, ErrND},
		{"IPv4", ipPacket(t, false, ProtocolICMPv6, good.Payload(), -1), MAC{}, ErrND},
		{"wrong checksum", mustParseIP(t, badSum), MAC{}, ErrChecksum},
	} {
		got, err := ParseNS(tt.p)
		if err != tt.err || got.MAC != tt.mac {
			t.Errorf("%s: MAC %v, %v; want %v, %v", tt.name, got.MAC, err, tt.mac, tt.err)
		}
	}
}

// TestParseNA has what RFC 4861 §7.1.2 adds.
func TestParseNA(t *testing.T) {
	const na = ICMPv6NeighborAdvertisement
	node := netip.MustParseAddr("ff02::1")
	target := unhex(t, "0201 02420a0a0009")
	for _, tt := range []struct {
		name string
		p    IP
		want NA
		err  error
	}{
		{
			"all flags", ndPacket(t, testDst6, testSrc6, 255, na, 0xe0000000, testDst6, target),
			NA{testDst6, testSrc6, testDst6, testMAC2, true, true, true},
			nil,
		},
		{
			"no flags, no option", ndPacket(t, testDst6, node, 255, na, 0x1fffffff, testDst6, nil),
			NA{Src: testDst6, Dst: node, Target: testDst6},
			nil,
		},
		{"solicited by many", ndPacket(t, testDst6, node, 255, na, 0x40000000, testDst6, target), NA{}, ErrND},
		{"multicast target", ndPacket(t, testDst6, testSrc6, 255, na, 0, node, target), NA{}, ErrND},
		{"option of length 0", ndPacket(t, testDst6, testSrc6, 255, na, 0, testDst6, make([]byte, 8)), NA{}, ErrND},
		{"hop limit 64", ndPacket(t, testDst6, testSrc6, 64, na, 0, testDst6, target), NA{}, ErrND},
	} {
		if got, err := ParseNA(tt.p); got != tt.want || err != tt.err {
			t.Errorf("%s: %+v, %v; want %+v, %v", tt.name, got, err, tt.want, tt.err)
		}
	}
}

func TestSolicitedNode(t *testing.T) {
	// The example of RFC 4291 §2.7.1.
	got := SolicitedNode(netip.MustParseAddr("4037::01:800:200E:8C6C"))
	if want := netip.MustParseAddr("FF02::1:FF0E:8C6C"); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

func FuzzND(f *testing.F) {
	b := make([]byte, NDLen)
	PutNS(b, testMAC1, testSrc6, testDst6)
	f.Add(bytes.Clone(b))
	PutNA(b, NS{Src: testSrc6, Target: testDst6}, testMAC2)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParseIP(b)
		if err != nil {
			return
		}
		if p.Is6() && p.Protocol == ProtocolICMPv6 && len(p.Payload()) >= ndMessageLen {
			fixICMPv6Checksum(p) // else nothing comes past it
		}
		if ns, err := ParseNS(p); err == nil {
			checkNS(t, ns)
		}
		if na, err := ParseNA(p); err == nil && (na.Target.IsMulticast() || na.Solicited && na.Dst.IsMulticast()) {
			t.Fatalf("accepted %+v", na)
		}
	})
}

// checkNS answers ns and asks the same again.
func checkNS(t *testing.T, ns NS) {
	t.Helper()
	b := make([]byte, NDLen)
	dst := PutNA(b, ns, testMAC2)
	if !ns.Src.IsMulticast() { // a source that no reply can go to
		na, err := ParseNA(mustParseIP(t, b))
		if err != nil || na.Target != ns.Target || na.MAC != testMAC2 || na.Dst != dst {
			t.Fatalf("answer %+v, %v", na, err)
		}
	}
	if ns.Src.IsUnspecified() {
		return
	}
	PutNS(b, ns.MAC, ns.Src, ns.Target)
	again, err := ParseNS(mustParseIP(t, b))
	if err != nil || again.Src != ns.Src || again.Target != ns.Target || again.MAC != ns.MAC {
		t.Fatalf("asked again: %+v, %v; was %+v", again, err, ns)
	}
}

package encap

import (
	"encoding/binary"
	"net/netip"
	"testing"
)

// Addresses of the packets in these tests.
var (
	testSrc4 = netip.MustParseAddr("10.10.0.3")
	testDst4 = netip.MustParseAddr("10.10.0.9")
	testSrc6 = netip.MustParseAddr("fd00:10::3")
	testDst6 = netip.MustParseAddr("fd00:10::9")
)

// families runs f for IPv4 and for IPv6.
func families(t *testing.T, f func(t *testing.T, v6 bool)) {
	t.Run("IPv4", func(t *testing.T) { f(t, false) })
	t.Run("IPv6", func(t *testing.T) { f(t, true) })
}

// ipPacket returns a packet from testSrc to testDst with this payload, whose own
// checksum, if checksumAt is not negative, is computed.
func ipPacket(tb testing.TB, v6 bool, protocol uint8, payload []byte, checksumAt int) IP {
	tb.Helper()
	b := make([]byte, IPv6HeaderLen+len(payload))
	var packet []byte
	if v6 {
		p := PutIPv6(b, testSrc6, testDst6, protocol, 64, len(payload))
		copy(p.Payload(), payload)
		packet = p
	} else {
		p := PutIPv4(b, testSrc4, testDst4, protocol, len(payload))
		copy(p.Payload(), payload)
		packet = p
	}
	p := mustParseIP(tb, packet)
	if checksumAt >= 0 {
		field := p.Payload()[checksumAt:]
		binary.BigEndian.PutUint16(field, 0)
		binary.BigEndian.PutUint16(field, slowChecksum(pseudoHeader(p), p.Payload()))
	}
	return p
}

// tcpPacket returns a TCP segment of a connection between ports 40000 and 80,
// its checksum right. The length of options must be a multiple of four.
func tcpPacket(tb testing.TB, v6 bool, flags uint16, options, payload []byte) IP {
	tb.Helper()
	b := make([]byte, TCPHeaderLen, TCPHeaderLen+len(options)+len(payload))
	binary.BigEndian.PutUint16(b, 40000)
	binary.BigEndian.PutUint16(b[2:], 80)
	binary.BigEndian.PutUint32(b[4:], 0xfffff000) // wraps within a super-packet
	binary.BigEndian.PutUint32(b[8:], 0x01020304)
	b[12] = byte((TCPHeaderLen + len(options)) / 4 << 4)
	TCP(b).SetFlags(flags)
	binary.BigEndian.PutUint16(b[14:], 502)
	return ipPacket(tb, v6, ProtocolTCP, append(append(b, options...), payload...), TCPChecksumOffset)
}

// udpPacket returns a UDP datagram from port 5353 to 53, its checksum right.
func udpPacket(tb testing.TB, v6 bool, payload []byte) IP {
	tb.Helper()
	b := make([]byte, UDPHeaderLen, UDPHeaderLen+len(payload))
	binary.BigEndian.PutUint16(b, 5353)
	binary.BigEndian.PutUint16(b[2:], 53)
	UDP(b).SetLength(UDPHeaderLen + len(payload))
	return ipPacket(tb, v6, ProtocolUDP, append(b, payload...), UDPChecksumOffset)
}

func mustParseIP(tb testing.TB, b []byte) IP {
	tb.Helper()
	p, err := ParseIP(b)
	if err != nil {
		tb.Fatalf("ParseIP(%x): %v", b, err)
	}
	return p
}

// pattern returns n bytes of which no two runs look alike.
func pattern(n int) []byte {
	b := make([]byte, n)
	x := uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}

// slowChecksum is the checksum of RFC 1071 by its definition: words of 16 bits,
// added modulo 65535 with 65535 standing for every zero but that of no ones.
func slowChecksum(parts ...[]byte) uint16 { return ^slowSum(parts...) }

func slowSum(parts ...[]byte) uint16 {
	var total uint64
	offset := 0
	for _, b := range parts {
		for _, c := range b {
			total += uint64(c) << (8 * (1 - offset%2))
			offset++
		}
	}
	if total == 0 {
		return 0
	}
	return uint16((total-1)%65535 + 1)
}

// pseudoHeader returns the bytes that RFC 9293 §3.1 and RFC 8200 §8.1 draw.
func pseudoHeader(p IP) []byte {
	length := len(p.Packet) - p.Transport
	if p.Is6() {
		src, dst := p.Src().As16(), p.Dst().As16()
		b := append(src[:], dst[:]...)
		b = binary.BigEndian.AppendUint32(b, uint32(length))
		return append(b, 0, 0, 0, p.Protocol)
	}
	src, dst := p.Src().As4(), p.Dst().As4()
	b := append(src[:], dst[:]...)
	b = append(b, 0, p.Protocol)
	return binary.BigEndian.AppendUint16(b, uint16(length))
}

package encap

import (
	"bytes"
	"encoding/binary"
	"testing"
)

func TestParseTCP(t *testing.T) {
	options := []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2}
	b := tcpPacket(t, false, TCPFlagACK|TCPFlagPSH|TCPFlagAE, options, pattern(5)).Payload()
	s, err := ParseTCP(b)
	if err != nil {
		t.Fatal(err)
	}
	if s.SrcPort() != 40000 || s.DstPort() != 80 || s.Seq() != 0xfffff000 || s.Ack() != 0x01020304 {
		t.Errorf("%d to %d, seq %#x, ack %#x", s.SrcPort(), s.DstPort(), s.Seq(), s.Ack())
	}
	if s.HeaderLen() != 32 || s.Window() != 502 || s.Flags() != TCPFlagACK|TCPFlagPSH|TCPFlagAE {
		t.Errorf("header %d, window %d, flags %#x", s.HeaderLen(), s.Window(), s.Flags())
	}
	if !bytes.Equal(s.Options(), options) || !bytes.Equal(s.Payload(), pattern(5)) {
		t.Errorf("options %x, payload %x", s.Options(), s.Payload())
	}
	for _, tt := range []struct {
		name string
		b    []byte
		err  error
	}{
		{"empty", nil, ErrShort},
		{"nineteen bytes", b[:19], ErrShort},
		{"options cut off", b[:31], ErrLength},
		{"header of 16 bytes", append(append(bytes.Clone(b[:12]), 0x40), b[13:]...), ErrLength},
	} {
		if _, err := ParseTCP(tt.b); err != tt.err {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.err)
		}
	}
}

func TestTCPFlags(t *testing.T) {
	s := TCP(make([]byte, TCPHeaderLen))
	s[12] = 0x50
	for f := range uint16(0x1000) {
		s.SetFlags(f)
		if s.Flags() != f || s.HeaderLen() != 20 {
			t.Fatalf("SetFlags(%#x): flags %#x, header %d", f, s.Flags(), s.HeaderLen())
		}
	}
	s.SetFlags(0xf000)
	if s.Flags() != 0 || s.HeaderLen() != 20 {
		t.Errorf("flags reach the data offset: %#x, header %d", s.Flags(), s.HeaderLen())
	}
	if TCPFlagFIN != 0x01 || TCPFlagACK != 0x10 || TCPFlagCWR != 0x80 || TCPFlagAE != 0x100 {
		t.Error("flags are not those of RFC 9293 §3.1")
	}
}

func TestParseUDP(t *testing.T) {
	b := udpPacket(t, false, pattern(5)).Payload()
	u, err := ParseUDP(append(bytes.Clone(b), 1, 2)) // RFC 768 allows IP to be longer
	if err != nil {
		t.Fatal(err)
	}
	if u.SrcPort() != 5353 || u.DstPort() != 53 || u.Length() != 13 || !bytes.Equal(u.Payload(), pattern(5)) {
		t.Errorf("%d to %d, length %d, payload %x", u.SrcPort(), u.DstPort(), u.Length(), u.Payload())
	}
	u.SetChecksum(0)
	if u.Checksum() != 0xffff {
		t.Errorf("SetChecksum(0) wrote %#04x, which must not be 0", u.Checksum())
	}
	for _, tt := range []struct {
		name string
		b    []byte
		err  error
	}{
		{"seven bytes", b[:7], ErrShort},
		{"cut off", b[:12], ErrLength},
		{"length 7", []byte{0, 1, 0, 2, 0, 7, 0, 0}, ErrLength},
		{"length 0", []byte{0, 1, 0, 2, 0, 0, 0, 0}, ErrLength},
	} {
		if _, err := ParseUDP(tt.b); err != tt.err {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.err)
		}
	}
}

// TestSegment cuts a TCP super-packet into segments with nothing but the views
// of this package, the payload summed on its own, and checks each as a receiver
// would.
func TestSegment(t *testing.T) {
	const mss = 1399 // odd on purpose
	payload := pattern(40*mss + 77)
	options := []byte{1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2}
	flags := TCPFlagACK | TCPFlagPSH | TCPFlagFIN | TCPFlagCWR
	families(t, func(t *testing.T, v6 bool) {
		super := tcpPacket(t, v6, flags, options, payload)
		header := super.Packet[:len(super.Packet)-len(payload)]
		var joined []byte
		for i := 0; len(joined) < len(payload); i++ {
			chunk := payload[len(joined):min(len(joined)+mss, len(payload))]
			last := len(joined)+len(chunk) == len(payload)
			b := append(bytes.Clone(header), chunk...)
			if v6 {
				IPv6(b).SetPayloadLen(len(b) - IPv6HeaderLen)
			} else {
				IPv4(b).SetTotalLen(len(b))
				IPv4(b).SetID(uint16(i))
				IPv4(b).UpdateChecksum()
			}
			p := mustParseIP(t, b)
			s := TCP(p.Payload())
			s.SetSeq(s.Seq() + uint32(len(joined)))
			f := s.Flags()
			if !last {
				f &^= TCPFlagFIN | TCPFlagPSH
			}
			if i > 0 {
				f &^= TCPFlagCWR
			}
			s.SetFlags(f)
			s.SetChecksum(0)
			headerSum := SumBytes(s[:s.HeaderLen()]).Add(p.PseudoSum(len(s)))
			s.SetChecksum(headerSum.Add(SumBytes(chunk).At(s.HeaderLen())).Checksum())

			if !p.TransportChecksumOK() || binary.BigEndian.Uint16(s[16:]) != s.Checksum() {
				t.Fatalf("segment %d: TCP checksum wrong", i)
			}
			if !v6 && !IPv4(b).ChecksumOK() {
				t.Fatalf("segment %d: IPv4 checksum wrong", i)
			}
			if want := uint32(0xfffff000) + uint32(len(joined)); s.Seq() != want {
				t.Fatalf("segment %d: seq %#x, want %#x", i, s.Seq(), want)
			}
			joined = append(joined, s.Payload()...)
		}
		if !bytes.Equal(joined, payload) {
			t.Error("the segments do not join to the payload")
		}
	})
}

func FuzzTCP(f *testing.F) {
	f.Add(tcpPacket(f, false, TCPFlagSYN, []byte{2, 4, 5, 0xb4}, pattern(3)).Payload())
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseTCP(b)
		if err != nil {
			return
		}
		was := bytes.Clone(b)
		if n := TCPHeaderLen + len(s.Options()) + len(s.Payload()); n != len(b) {
			t.Fatalf("header, options and payload make %d bytes of %d", n, len(b))
		}
		s.SetSeq(s.Seq())
		s.SetFlags(s.Flags())
		s.SetChecksum(s.Checksum())
		if !bytes.Equal(b, was) {
			t.Fatalf("writing what was read changed %x to %x", was, b)
		}
		if at := s.findMSS(); at >= 0 && (at < TCPHeaderLen+2 || at+2 > s.HeaderLen()) {
			t.Fatalf("MSS found at %d of %x", at, b)
		}
	})
}

func FuzzUDP(f *testing.F) {
	f.Add(udpPacket(f, false, pattern(3)).Payload())
	f.Fuzz(func(t *testing.T, b []byte) {
		u, err := ParseUDP(b)
		if err != nil {
			return
		}
		was := bytes.Clone(b)
		if len(u.Payload()) != u.Length()-UDPHeaderLen || !bytes.HasPrefix(b, u) {
			t.Fatalf("payload %x of %x", u.Payload(), b)
		}
		u.SetLength(u.Length())
		if sum := u.Checksum(); sum != 0 {
			u.SetChecksum(sum)
		}
		if !bytes.Equal(b, was) {
			t.Fatalf("writing what was read changed %x to %x", was, b)
		}
	})
}

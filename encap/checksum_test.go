package encap

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"testing"
)

func TestSumBytes(t *testing.T) {
	ones := bytes.Repeat([]byte{0xff}, 65535)
	zero := make([]byte, 65535)
	mixed := pattern(65535)
	// One in a sea of ones makes the carry run through every word.
	carry := bytes.Clone(ones)
	carry[0], carry[1] = 0, 1
	for n := range 400 {
		for name, b := range map[string][]byte{"ones": ones, "zero": zero, "mixed": mixed, "carry": carry} {
			if got, want := SumBytes(b[:n]), Sum(slowSum(b[:n])); got != want {
				t.Errorf("%s: SumBytes of %d bytes = %#04x, want %#04x", name, n, got, want)
			}
		}
	}
	for name, b := range map[string][]byte{"ones": ones, "zero": zero, "mixed": mixed, "carry": carry} {
		for _, n := range []int{1449, 1450, 8961, 65534, 65535} {
			if got, want := SumBytes(b[:n]), Sum(slowSum(b[:n])); got != want {
				t.Errorf("%s: SumBytes of %d bytes = %#04x, want %#04x", name, n, got, want)
			}
		}
	}
}

// TestSumBytesRFC1071 is the example of RFC 1071 §3.
func TestSumBytesRFC1071(t *testing.T) {
	b := []byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}
	if got := SumBytes(b); got != 0xddf2 {
		t.Errorf("SumBytes = %#04x, want 0xddf2", got)
	}
	if got := Checksum(b, 0); got != 0x220d {
		t.Errorf("Checksum = %#04x, want 0x220d", got)
	}
}

func TestSumAddKeepsCarry(t *testing.T) {
	for _, tt := range []struct{ a, b, want Sum }{
		{0, 0, 0},
		{0, 0xffff, 0xffff},
		{0xffff, 0xffff, 0xffff},
		{0xffff, 1, 1},
		{0x8000, 0x8000, 1},
		{0xfffe, 1, 0xffff},
	} {
		if got := tt.a.Add(tt.b); got != tt.want {
			t.Errorf("%#04x.Add(%#04x) = %#04x, want %#04x", tt.a, tt.b, got, tt.want)
		}
	}
}

func TestSumAddUint32(t *testing.T) {
	for _, s := range []Sum{0, 1, 0x7fff, 0xfffe, 0xffff} {
		for _, v := range []uint32{0, 1, 0xffff, 0x10000, 0xfffeffff, math.MaxUint32, 0x12345678} {
			b := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint16(nil, uint16(s)), v)
			if got, want := s.AddUint32(v), Sum(slowSum(b)); got != want {
				t.Errorf("%#04x.AddUint32(%#08x) = %#04x, want %#04x", s, v, got, want)
			}
		}
	}
}

func TestCompleteChecksum(t *testing.T) {
	families(t, func(t *testing.T, v6 bool) {
		for _, n := range []int{0, 1, 2, 1000, 1001} {
			p := udpPacket(t, v6, pattern(n))
			want := bytes.Clone(p.Packet)
			UDP(p.Payload()).SetChecksum(uint16(p.PseudoSum(len(p.Payload()))))
			if err := CompleteChecksum(p.Packet, p.Transport, UDPChecksumOffset); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(p.Packet, want) {
				t.Errorf("payload of %d bytes: got %x, want %x", n, p.Packet, want)
			}
		}
	})
}

// TestCompleteChecksumZero: a computed zero must not read as "no checksum".
func TestCompleteChecksumZero(t *testing.T) {
	b := []byte{0xff, 0xff, 0, 0}
	if err := CompleteChecksum(b, 0, 2); err != nil {
		t.Fatal(err)
	}
	if want := []byte{0xff, 0xff, 0xff, 0xff}; !bytes.Equal(b, want) {
		t.Errorf("got %x, want %x", b, want)
	}
}

func TestCompleteChecksumBounds(t *testing.T) {
	for _, tt := range []struct{ n, start, offset int }{
		{0, 0, 0},
		{1, 0, 0},
		{10, 9, 0},
		{10, 10, 0},
		{10, 11, 0},
		{10, 0, 10},
		{10, 4, 6},
		{10, 2, 1},
		{10, -1, 2},
		{10, 2, -2},
		{10, math.MaxInt, math.MaxInt},
		{10, 2, math.MaxInt - 1},
	} {
		b := pattern(tt.n)
		if err := CompleteChecksum(b, tt.start, tt.offset); err != ErrLength {
			t.Errorf("CompleteChecksum(%d bytes, %d, %d) = %v, want ErrLength", tt.n, tt.start, tt.offset, err)
		}
		if !bytes.Equal(b, pattern(tt.n)) {
			t.Errorf("CompleteChecksum(%d bytes, %d, %d) wrote", tt.n, tt.start, tt.offset)
		}
	}
}

// TestUpdateChecksum includes the example of RFC 1624 §4, which RFC 1141's
// equation gets wrong.
func TestUpdateChecksum(t *testing.T) {
	if got := updateChecksum(0xdd2f, 0x5555, 0x3285); got != 0x0000 {
		t.Errorf("updateChecksum = %#04x, want 0", got)
	}
	for _, was := range []uint16{0, 1, 0x7fff, 0xfffe, 0xffff} {
		for _, is := range []uint16{0, 1, 0x8000, 0xfffe, 0xffff} {
			b := []byte{0x12, 0x34, 0, 0, 0xab}
			binary.BigEndian.PutUint16(b[2:], was)
			sum := slowChecksum(b)
			binary.BigEndian.PutUint16(b[2:], is)
			if got, want := updateChecksum(sum, was, is), slowChecksum(b); got != want {
				t.Errorf("from %#04x to %#04x: %#04x, want %#04x", was, is, got, want)
			}
		}
	}
}

func FuzzSum(f *testing.F) {
	f.Add(bytes.Repeat([]byte{0xff}, 129), uint16(13))
	f.Add([]byte{0, 1, 2}, uint16(1))
	f.Fuzz(func(t *testing.T, b []byte, cut uint16) {
		want := Sum(slowSum(b))
		if got := SumBytes(b); got != want {
			t.Fatalf("SumBytes = %#04x, want %#04x", got, want)
		}
		at := int(cut) % (len(b) + 1)
		if got := SumBytes(b[:at]).Add(SumBytes(b[at:]).At(at)); got != want {
			t.Fatalf("cut at %d: %#04x, want %#04x", at, got, want)
		}
	})
}

func FuzzCompleteChecksum(f *testing.F) {
	f.Add(pattern(60), 20, 16)
	f.Fuzz(func(t *testing.T, b []byte, start, offset int) {
		was := bytes.Clone(b)
		if CompleteChecksum(b, start, offset) != nil {
			if !bytes.Equal(b, was) {
				t.Fatal("refused, and wrote")
			}
			return
		}
		want := slowChecksum(was[start:])
		got := binary.BigEndian.Uint16(b[start+offset:])
		if got != want && (want != 0 || got != 0xffff) {
			t.Fatalf("checksum %#04x, want %#04x", got, want)
		}
	})
}

func BenchmarkSumBytes(b *testing.B) {
	for _, size := range []int{20, 64, 1410, 8910, 61000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			p := pattern(size)
			b.SetBytes(int64(size))
			for b.Loop() {
				SumBytes(p)
			}
		})
	}
}

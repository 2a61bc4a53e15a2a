package crypto

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"
)

var bothSuites = []Suite{ChaCha20Poly1305, AES256GCM}

func pair(tb testing.TB, suite Suite) (a, b *Session) {
	tb.Helper()
	a, b, err := Pair(suite)
	if err != nil {
		tb.Fatal(err)
	}
	return a, b
}

// sealed returns a datagram of a session with a plaintext.
func sealed(tb testing.TB, s *Session, plaintext []byte) []byte {
	tb.Helper()
	counter, ok := s.Reserve(1)
	if !ok {
		tb.Fatal("no counter left")
	}
	datagram := make([]byte, Overhead+len(plaintext))
	copy(datagram[HeaderLen:], plaintext)
	s.Seal(datagram, counter)
	return datagram
}

// open opens and accepts a datagram, which stays as it is.
func open(s *Session, datagram []byte) (plaintext []byte, ok bool) {
	plaintext, counter, ok := s.Open(bytes.Clone(datagram))
	if !ok {
		return nil, false
	}
	fresh := []bool{false}
	s.Accept([]uint64{counter}, fresh)
	return plaintext, fresh[0]
}

func TestSealOpen(t *testing.T) {
	for _, suite := range bothSuites {
		t.Run(suite.String(), func(t *testing.T) {
			a, b := pair(t, suite)
			for _, size := range []int{0, 4, 60, 1424, 65000} {
				text := bytes.Repeat([]byte{0xa5}, size)
				datagram := sealed(t, a, text)
				if kind, ok := ParseType(datagram); !ok || kind != Transport || Index(datagram) != b.local {
					t.Fatalf("type %v, index %d", kind, Index(datagram))
				}
				if size >= 60 && bytes.Contains(datagram, text[:16]) {
					t.Fatal("the plaintext is on the wire")
				}
				if got, ok := open(b, datagram); !ok || !bytes.Equal(got, text) {
					t.Fatalf("%d bytes: opened %v", size, ok)
				}
				if _, ok := open(b, datagram); ok {
					t.Fatal("replayed, and accepted")
				}
				if _, ok := open(a, datagram); ok {
					t.Fatal("reflected, and accepted")
				}
			}
		})
	}
}

func TestTamperedDatagrams(t *testing.T) {
	for _, suite := range bothSuites {
		a, b := pair(t, suite)
		datagram := sealed(t, a, []byte("inner frame"))
		for bit := range len(datagram) * 8 {
			bad := bytes.Clone(datagram)
			bad[bit/8] ^= 1 << (bit % 8)
			if _, _, ok := b.Open(bad); ok {
				t.Fatalf("%v: bit %d flipped, and opened", suite, bit)
			}
		}
		for n := range len(datagram) {
			if _, _, ok := b.Open(bytes.Clone(datagram[:n])); ok {
				t.Fatalf("%v: cut to %d bytes, and opened", suite, n)
			}
		}
		if _, ok := open(b, datagram); !ok {
			t.Fatalf("%v: the datagram itself does not open any more", suite)
		}
	}
}

func TestSealLimit(t *testing.T) {
	for _, suite := range bothSuites {
		a, b := pair(t, suite)
		limit := suite.limits().refuse
		a.next.Store(limit - 3)
		if first, ok := a.Reserve(3); !ok || first != limit-3 {
			t.Fatalf("%v: the last three counters: %d %v", suite, first, ok)
		}
		a.next.Store(limit - 2)
		if _, ok := a.Reserve(3); ok {
			t.Fatalf("%v: three counters where there are two", suite)
		}
		for range 100000 {
			if _, ok := a.Reserve(64); ok {
				t.Fatalf("%v: a counter beyond the limit", suite)
			}
		}
		if a.next.Load() < limit {
			t.Fatalf("%v: the counter came round", suite)
		}
		datagram := make([]byte, Overhead)
		a.Seal(datagram, limit)
		if _, _, ok := b.Open(datagram); ok {
			t.Fatalf("%v: opened beyond the limit", suite)
		}
	}
}

func TestForgeryLimit(t *testing.T) {
	a, b := pair(t, ChaCha20Poly1305)
	b.failed.Store(b.limits.forgery - 1)
	bad, good := sealed(t, a, nil), sealed(t, a, nil)
	bad[len(bad)-1] ^= 1
	if _, _, ok := b.Open(bad); ok {
		t.Fatal("opened a forgery")
	}
	if _, _, ok := b.Open(good); ok {
		t.Fatal("opened with a retired key")
	}
	if _, ok := b.Reserve(1); ok {
		t.Fatal("a retired session sends")
	}
}

// TestPacketPathAllocatesNothing holds the promise of the package comment.
func TestPacketPathAllocatesNothing(t *testing.T) {
	const n = 16
	from := netip.MustParseAddr("192.0.2.7")
	for _, suite := range bothSuites {
		a, b := pair(t, suite)
		var counters [n]uint64
		var fresh [n]bool
		datagram := make([]byte, 1456)
		b.Opened(from)
		allocs := testing.AllocsPerRun(100, func() {
			s := b.Peer().Sending()
			first, _ := a.Reserve(n)
			for i := range uint64(n) {
				a.Seal(datagram, first+i)
				_, counters[i], _ = s.Open(datagram)
			}
			s.Accept(counters[:], fresh[:])
			s.Opened(from)
		})
		if allocs != 0 {
			t.Errorf("%v: %v allocations", suite, allocs)
		}
		if !fresh[0] || !fresh[n-1] {
			t.Errorf("%v: datagrams were not accepted", suite)
		}
	}
}

func BenchmarkSeal(b *testing.B) {
	for _, suite := range bothSuites {
		b.Run(fmt.Sprint(suite), func(b *testing.B) {
			s, _ := pair(b, suite)
			datagram := make([]byte, 1456)
			b.SetBytes(int64(len(datagram)))
			for b.Loop() {
				s.Seal(datagram, 1)
			}
		})
	}
}

func BenchmarkOpen(b *testing.B) {
	for _, suite := range bothSuites {
		b.Run(fmt.Sprint(suite), func(b *testing.B) {
			s, r := pair(b, suite)
			good, datagram := sealed(b, s, make([]byte, 1428)), make([]byte, 1456)
			b.SetBytes(int64(len(datagram)))
			for b.Loop() {
				copy(datagram, good)
				r.Open(datagram)
			}
		})
	}
}

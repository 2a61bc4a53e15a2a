package crypto

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// TestReplayMany records a million datagrams that arrive out of order, as far as
// the window reaches, and plays all of them again: each is delivered once.
func TestReplayMany(t *testing.T) {
	n := 1_000_000
	if testing.Short() {
		n = 50_000
	}
	const text = 32
	for _, suite := range []Suite{ChaCha20Poly1305, AES256GCM} {
		a, b, err := Pair(suite)
		if err != nil {
			t.Fatal(err)
		}
		datagrams := make([][]byte, n)
		store := make([]byte, n*(Overhead+text))
		for i := range datagrams {
			d := store[i*(Overhead+text):][:Overhead+text]
			binary.BigEndian.PutUint64(d[HeaderLen:], uint64(i))
			counter, ok := a.Reserve(1)
			if !ok || counter != uint64(i) {
				t.Fatalf("counter %d of datagram %d", counter, i)
			}
			a.Seal(d, counter)
			datagrams[i] = d
		}
		// Shuffled by less than the window in blocks of half its size.
		r := rand.New(rand.NewPCG(1, uint64(suite)))
		for rest := datagrams; len(rest) > 0; rest = rest[min(4000, len(rest)):] {
			block := rest[:min(4000, len(rest))]
			r.Shuffle(len(block), func(i, j int) { block[i], block[j] = block[j], block[i] })
		}
		delivered := make([]uint8, n)
		for round := range 2 {
			if got := deliver(t, b, datagrams, delivered); round == 0 && got != n || round > 0 && got != 0 {
				t.Errorf("%v, round %d: %d of %d delivered", suite, round, got, n)
			}
			r.Shuffle(n, func(i, j int) { datagrams[i], datagrams[j] = datagrams[j], datagrams[i] })
		}
		if i := bytes.IndexFunc(delivered, func(r rune) bool { return r != 1 }); i >= 0 {
			t.Errorf("%v: datagram %d was delivered %d times", suite, i, delivered[i])
		}
	}
}

// deliver opens datagrams in batches, as the data plane does, and notes what is
// new.
func deliver(t *testing.T, s *Session, datagrams [][]byte, delivered []uint8) (n int) {
	t.Helper()
	const batch = 64
	var d [Overhead + 32]byte
	counters, fresh := make([]uint64, 0, batch), make([]bool, batch)
	for i, sealed := range datagrams {
		copy(d[:], sealed) // Open works in place
		plain, counter, ok := s.Open(d[:])
		if !ok || binary.BigEndian.Uint64(plain) != counter {
			t.Fatalf("datagram %d does not open", i)
		}
		counters = append(counters, counter)
		if len(counters) < batch && i < len(datagrams)-1 {
			continue
		}
		s.Accept(counters, fresh[:len(counters)])
		for j, counter := range counters {
			if fresh[j] {
				delivered[counter]++
				n++
			}
		}
		counters = counters[:0]
	}
	return n
}

// TestLargeCounters goes through the counters at which 32 bits end and others near
// the end: each is accepted once, also late, and none twice.
func TestLargeCounters(t *testing.T) {
	const behind = 8127 // still in the window
	a, b := pair(t, ChaCha20Poly1305)
	open := func(counter uint64) (fresh bool) {
		t.Helper()
		d := make([]byte, Overhead+4)
		a.Seal(d, counter)
		_, got, ok := b.Open(d)
		if !ok || got != counter {
			t.Fatalf("counter %#x: opened %v, as %#x", counter, ok, got)
		}
		one := []bool{false}
		b.Accept([]uint64{got}, one)
		return one[0]
	}
	for _, at := range []uint64{0, 1<<31 - 1, 1 << 31, 1<<32 - 1, 1 << 32, 1<<32 + 8192, 1 << 40, 1<<63 - 1, 1 << 63, a.limits.refuse - 1} {
		late := at - min(at, behind)
		if !open(at) || open(at) || at > behind && !open(late) || open(late) {
			t.Errorf("around %#x: refused once, or accepted twice", at)
		}
	}
	for _, was := range []uint64{0, 1 << 32, 1 << 63} {
		if open(was) {
			t.Errorf("%#x comes again", was)
		}
	}
	d := make([]byte, Overhead)
	a.Seal(d, a.limits.refuse)
	if _, _, ok := b.Open(d); ok {
		t.Error("opened beyond the limit")
	}
}

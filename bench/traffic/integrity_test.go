package traffic

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// A checker accepts the stream however it is cut, and finds each wrong byte and
// each way in which bytes can be missing, doubled or in the wrong place.
func TestChecker(t *testing.T) {
	PreparePattern()
	stream := func(offset uint64, n int) []byte {
		return append(binary.BigEndian.AppendUint64(nil, offset), Pattern(offset, n)...)
	}
	good := stream(patternLen-1000, 60_000)
	for _, cut := range []int{1, 7, 8, 9, 1448, len(good)} {
		var c checker
		for b := good; len(b) > 0; b = b[min(cut, len(b)):] {
			if n := c.check(b[:min(cut, len(b))]); n != 0 {
				t.Errorf("cut to %d: %d wrong bytes", cut, n)
			}
		}
	}
	swap := bytes.Clone(good)
	copy(swap[10_000:11_448], good[11_448:])
	copy(swap[11_448:12_896], good[10_000:])
	flip := bytes.Clone(good)
	flip[50_000] ^= 0x10
	for name, bad := range map[string][]byte{
		"missing segment": append(bytes.Clone(good[:10_000]), good[11_448:]...),
		"doubled segment": append(bytes.Clone(good[:11_448]), good[10_000:]...),
		"swapped":         swap,
		"flipped bit":     flip,
		"other flow":      append(bytes.Clone(good[:30_008]), stream(77, 60_000)[30_008:]...),
	} {
		var c checker
		if c.check(bad) == 0 {
			t.Errorf("%s is not noticed", name)
		}
	}
}

func TestTracker(t *testing.T) {
	var tr tracker
	for _, d := range []struct {
		flow       uint32
		seq        uint64
		disordered bool
	}{{1, 0, false}, {1, 1, false}, {2, 0, false}, {1, 5, false}, {1, 4, true}, {1, 5, true}, {1, 6, false}, {2, 1, false}} {
		b := make([]byte, datagramHeaderLen)
		putDatagramHeader(b, 7, d.flow, d.seq)
		if got := tr.see(b); got != d.disordered {
			t.Errorf("flow %d, datagram %d: disordered %t", d.flow, d.seq, got)
		}
	}
	for flow := range uint32(3 * maxTracked) {
		b := make([]byte, datagramHeaderLen)
		putDatagramHeader(b, 8, flow, 0)
		if tr.see(b); len(tr) > maxTracked {
			t.Fatalf("%d flows are tracked", len(tr))
		}
	}
}

// A sink with Verify counts what is not as it was sent.
func TestSinkFindsCorruption(t *testing.T) {
	PreparePattern()
	s := &Sink{verify: true}
	var flows tracker
	b := make([]byte, 200)
	putDatagramHeader(b, 1, 3, 9)
	copy(b[datagramHeaderLen:], Pattern(datagramOffset(3, 9), len(b)))
	s.datagram(&flows, b)
	if n := s.corrupt.Load(); n != 0 {
		t.Errorf("%d bytes of a good datagram are wrong", n)
	}
	b[100]++
	binary.BigEndian.PutUint64(b[8:], 9)
	s.datagram(&flows, b)
	if c := s.Counters(); c.Corrupt != 1 || c.Disordered != 1 {
		t.Errorf("%+v, want one byte and one datagram", c)
	}
}

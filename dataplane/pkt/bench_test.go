package pkt

import (
	"testing"

	"github.com/ovnd/ovnd/encap"
)

// BenchmarkSplit takes a TCP super-packet of 44 segments apart. Bytes are those
// of its payload.
func BenchmarkSplit(b *testing.B) {
	_, frame := super(false, true, make([]byte, 44*1398), 1398)
	wire := make([]byte, 1<<17)
	prefix := make([]byte, 22)
	b.SetBytes(44 * 1398)
	b.ReportAllocs()
	for b.Loop() {
		ip, _ := encap.ParseIP(frame[MetaLen:])
		p, _ := NewPlan(ParseMeta(frame), ip)
		p.Put(wire, prefix, 0, 0, p.Count())
	}
}

// BenchmarkJoin puts the segments together again.
func BenchmarkJoin(b *testing.B) {
	_, frame := super(false, true, make([]byte, 44*1398), 1398)
	ip, _ := encap.ParseIP(frame[MetaLen:])
	p, _ := NewPlan(ParseMeta(frame), ip)
	stride := 22 + p.Len()
	wire := make([]byte, p.Count()*stride)
	first := make([]byte, stride)
	p.Put(wire, make([]byte, 22), 0, 0, p.Count())
	copy(first, wire)
	j, out := NewJoiner(), discard{}
	b.SetBytes(44 * 1398)
	b.ReportAllocs()
	for b.Loop() {
		copy(wire, first[:22+52]) // its headers became the super-packet's
		for at := 22; at < len(wire); at += stride {
			f := wire[at-MetaLen : at-22+stride]
			if !j.Extend(f[MetaLen:], false) {
				ip, _ := encap.ParseIP(f[MetaLen:])
				j.Add(out, f, ip, false)
			}
		}
		j.Flush()
	}
}

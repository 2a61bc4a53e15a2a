package pkt

import (
	"bytes"
	"testing"

	"github.com/ovnd/ovnd/encap"
)

// TestPartial takes super-packets apart with partial checksums and a tail, and
// together again: what comes out is what went in, for the receiver's kernel to
// complete.
func TestLeavePartial(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		for _, tcp := range []bool{false, true} {
			payload := bytes.Repeat([]byte("payload "), 90)
			_, frame := super(v6, tcp, payload, 100)
			want := bytes.Clone(frame)
			ip, err := encap.ParseIP(frame[MetaLen:])
			if err != nil {
				t.Fatal(err)
			}
			plan, err := NewPlan(ParseMeta(frame), ip)
			if err != nil || !plan.LeavePartial() {
				t.Fatalf("v6 %t, TCP %t: no partial checksums: %v", v6, tcp, err)
			}
			const room, tail = 32, 16
			prefix := make([]byte, room)
			wire := make([]byte, plan.Count()*(room+plan.Len()+tail))
			n := plan.Put(wire, prefix, tail, 0, plan.Count())
			if want := plan.WireLen() + plan.Count()*(room+tail); n != want {
				t.Fatalf("%d bytes, want %d", n, want)
			}
			got := &sink{}
			j := NewJoiner()
			for at := 0; at < n; at += room + plan.Len() + tail {
				end := min(at+room+plan.Len()+tail, n) - tail
				ip, err := encap.ParseIP(wire[at+room : end])
				if err != nil || len(ip.Packet) != end-at-room {
					t.Fatalf("packet at %d: %v", at, err)
				}
				if PartialChecksum(ip) < 0 || checksumsOK(ip) {
					t.Fatalf("packet at %d: its checksum is not partial", at)
				}
				j.Add(got, wire[at+room-MetaLen:end], ip, true)
			}
			j.Flush()
			if len(got.frames) != 1 || !bytes.Equal(got.frames[0][MetaLen:], want[MetaLen:]) {
				t.Errorf("v6 %t, TCP %t: %d super-packets, and not what was taken apart", v6, tcp, len(got.frames))
			}
		}
	}
}

// TestPartialNotAgreed: who was promised partial checksums joins no others.
func TestPartialNotAgreed(t *testing.T) {
	_, frame := super(false, true, make([]byte, 300), 100)
	got := &sink{}
	j := NewJoiner()
	for _, segment := range split(t, frame, nil) {
		b := append(make([]byte, MetaLen), segment...)
		ip, err := encap.ParseIP(b[MetaLen:])
		if err != nil {
			t.Fatal(err)
		}
		j.Add(got, b, ip, true)
	}
	j.Flush()
	if len(got.frames) != 3 {
		t.Errorf("%d super-packets of 3 segments with complete checksums, want each by itself", len(got.frames))
	}
}

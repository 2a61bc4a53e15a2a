package encap

import "testing"

func TestECNInner(t *testing.T) {
	const n, e0, e1, ce, drop = ECNNotECT, ECNECT0, ECNECT1, ECNCE, 0xff
	// RFC 6040 §4.2, figure 4: a row for each inner field that arrived, in it a
	// column for each outer one.
	order := [4]uint8{n, e0, e1, ce}
	figure4 := [4][4]uint8{
		{n, n, n, drop},
		{e0, e0, e1, ce},
		{e1, e1, e1, ce},
		{ce, ce, ce, ce},
	}
	for row, inner := range order {
		for column, outer := range order {
			want := figure4[row][column]
			// The other six bits belong to the DSCP and must not matter.
			for dscp := uint8(0); dscp < 0xfc; dscp += 4 {
				ecn, dropped := ECNInner(outer|dscp, inner|dscp)
				if dropped != (want == drop) || !dropped && ecn != want {
					t.Errorf("outer %d, inner %d: %d, drop %t; want %d", outer, inner, ecn, dropped, want)
				}
			}
			ecn, dropped := linuxDecapsulate(outer, inner)
			if dropped != (want == drop) || !dropped && ecn != want {
				t.Errorf("outer %d, inner %d: Linux does %d, drop %t; the figure %d", outer, inner, ecn, dropped, want)
			}
		}
	}
}

// linuxDecapsulate is what include/net/inet_ecn.h and the VXLAN driver do
// together: a Not-ECT packet is dropped for CE and else passes as it is (after a
// log line, for ECT); any other takes on CE, and ECT(1) if it has ECT(0).
func linuxDecapsulate(outer, inner uint8) (ecn uint8, drop bool) {
	if inner == ECNNotECT {
		return inner, outer == ECNCE
	}
	if outer == ECNCE {
		inner = ECNCE
	} else if outer == ECNECT1 && inner == ECNECT0 {
		inner = ECNECT1
	}
	return inner, false
}

func TestECNOuter(t *testing.T) {
	for tos := range 256 {
		if got := ECNOuter(uint8(tos)); got != uint8(tos&3) {
			t.Errorf("ECNOuter(%#02x) = %d, want %d", tos, got, tos&3)
		}
	}
}

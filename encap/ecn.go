package encap

// Codepoints of the ECN field, the low two bits of TOS and traffic class (RFC
// 3168 §5).
const (
	ECNNotECT uint8 = 0 // the transport does not know ECN
	ECNECT1   uint8 = 1 // it does; of L4S (RFC 9331)
	ECNECT0   uint8 = 2 // it does
	ECNCE     uint8 = 3 // congestion was experienced
)

// ECNOuter returns the ECN field of the outer header for a packet with this inner
// one: the same, the normal mode of RFC 6040 §4.1. (Linux still writes ECT(0) for
// CE, as RFC 3168 had it; receivers cannot tell.)
func ECNOuter(inner uint8) uint8 { return inner & ecnMask }

// ECNInner returns what the inner ECN field becomes when a packet leaves the
// tunnel (RFC 6040 §4.2, figure 4), from both fields as they arrived. A packet
// whose outer header says that congestion was experienced, but whose transport
// cannot be told, is dropped, which is how it learns. Linux's
// INET_ECN_decapsulate does the same in all 16 cases.
func ECNInner(outer, inner uint8) (ecn uint8, drop bool) {
	outer, inner = outer&ecnMask, inner&ecnMask
	switch {
	case inner == ECNNotECT:
		return ECNNotECT, outer == ECNCE
	case outer == ECNCE:
		return ECNCE, false
	case outer == ECNECT1 && inner == ECNECT0:
		return ECNECT1, false
	}
	return inner, false
}

package netstack

import (
	"net/netip"
	"testing"

	"github.com/ovnd/ovnd/dataplane/pkt"
	"github.com/ovnd/ovnd/encap"
)

func TestIsSYNACK(t *testing.T) {
	segment := func(flags uint16, payload int) []byte {
		b := make([]byte, pkt.MetaLen+encap.IPv4HeaderLen+encap.TCPHeaderLen+payload)
		p := encap.PutIPv4(b[pkt.MetaLen:], netip.MustParseAddr("10.10.0.9"), netip.MustParseAddr("10.10.0.2"),
			encap.ProtocolTCP, encap.TCPHeaderLen+payload)
		s := p.Payload()
		s[12] = 5 << 4
		encap.TCP(s).SetFlags(flags)
		return b
	}
	for name, test := range map[string]struct {
		frame []byte
		want  bool
	}{
		"SYN-ACK": {segment(encap.TCPFlagSYN|encap.TCPFlagACK, 0), true},
		"SYN":     {segment(encap.TCPFlagSYN, 0), false},
		"ACK":     {segment(encap.TCPFlagACK, 0), false},
		"large":   {segment(encap.TCPFlagSYN|encap.TCPFlagACK, maxSYN), false},
		"short":   {segment(encap.TCPFlagSYN|encap.TCPFlagACK, 0)[:pkt.MetaLen+30], false},
		"empty":   {make([]byte, pkt.MetaLen), false},
	} {
		if got := isSYNACK(test.frame); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

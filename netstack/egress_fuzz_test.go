package netstack

import (
	"net/netip"
	"testing"

	"github.com/ovnd/ovnd/dataplane/pkt"
	"github.com/ovnd/ovnd/encap"
)

// FuzzEgress delivers any bytes to an egress that may reach nobody.
func FuzzEgress(f *testing.F) {
	f.Add(udpSuper(netip.MustParseAddr("10.0.0.2"), 53, []byte("hello world"), 4))
	f.Add(synFrom(netip.MustParseAddrPort("172.18.0.2:9"), netip.MustParseAddrPort("192.0.2.1:80")))
	e, err := NewEgress(EgressConfig{
		Gateway: gateway, MTU: 1500, Refuse: func(netip.Addr) bool { return true },
		Send: func(frames [][]byte) {
			for _, b := range frames {
				ip, err := encap.ParseIP(b[pkt.MetaLen:])
				if err == nil {
					_, err = pkt.NewPlan(pkt.ParseMeta(b), ip)
				}
				if err != nil {
					f.Errorf("%x: %v", b, err)
				}
			}
		},
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(e.shutdown)
	f.Fuzz(func(_ *testing.T, b []byte) { e.Deliver(b, 1) })
}

// FuzzParseEcho: what is taken for a request is one.
func FuzzParseEcho(f *testing.F) {
	f.Add([]byte{8, 0, 0, 0, 1, 2, 3, 4, 5}, false)
	f.Add([]byte{128, 0, 0, 0, 1, 2, 3, 4, 5}, true)
	f.Fuzz(func(t *testing.T, b []byte, is6 bool) {
		e, ok := parseEcho(b, is6)
		if ok && (len(b) < 8 || e.ident != uint16(b[4])<<8|uint16(b[5]) || e.seq != uint16(b[6])<<8|uint16(b[7])) {
			t.Errorf("%x: %+v", b, e)
		}
	})
}

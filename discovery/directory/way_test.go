package directory

import (
	"net/netip"
	"strings"
	"testing"
)

func TestParseWay(t *testing.T) {
	for s, want := range map[string]Way{"": DefaultWay, "proxy": Proxied, "direct": Direct} {
		if got, err := ParseWay(s); err != nil || got != want || got.String() != s {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"Proxy", "ipvs", "direct "} {
		if _, err := ParseWay(s); err == nil || !strings.Contains(err.Error(), LabelWay) || !strings.Contains(err.Error(), "want proxy or direct") {
			t.Errorf("%q: %v", s, err)
		}
	}
	if !DefaultWay.IsDirect() || !Direct.IsDirect() || Proxied.IsDirect() {
		t.Error("the default is direct")
	}
}

// TestServiceWay: while an update replaces a service's endpoints, all nodes agree.
func TestServiceWay(t *testing.T) {
	var endpoints Map[netip.Addr, *Endpoint]
	for i, way := range []Way{Proxied, Direct} {
		ep := &Endpoint{ID: string(rune('a' + i)), Addr: netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 1)}), ServiceID: "id", ServiceName: "web", Way: way}
		endpoints = endpoints.With(ep.Addr, ep)
	}
	byID, _ := Services(endpoints)
	if s := byID.At("id"); s.Way != Proxied {
		t.Errorf("the way is %q", s.Way)
	}
}

package directory

import (
	"maps"
	"net/netip"
	"reflect"
	"testing"
)

// backend is an endpoint of service web at 10.10.0.<host>.
func backend(host byte, change ...func(*Endpoint)) *Endpoint {
	ep := &Endpoint{
		ID:        string('a' + rune(host)),
		Addr:      netip.AddrFrom4([4]byte{10, 10, 0, host}),
		ServiceID: "id-web", ServiceName: "web",
		VIP: netip.MustParseAddr("10.10.0.2"),
	}
	for _, f := range change {
		f(ep)
	}
	return ep
}

func byAddr(eps ...*Endpoint) map[netip.Addr]*Endpoint {
	m := make(map[netip.Addr]*Endpoint, len(eps))
	for _, ep := range eps {
		m[ep.Addr] = ep
	}
	return m
}

// services is [Services] with Go maps.
func services(eps map[netip.Addr]*Endpoint) (map[string]*Service, map[netip.Addr]*Service) {
	byID, byVIP := Services(MapOf(eps))
	return maps.Collect(byID.All()), maps.Collect(byVIP.All())
}

func draining(ep *Endpoint) { ep.Disabled = true }

func TestServices(t *testing.T) {
	eps := byAddr(
		backend(12),
		backend(9),
		backend(200),
		backend(10, draining),
		backend(11, func(ep *Endpoint) { ep.Pending = true }),
		backend(3, func(ep *Endpoint) { ep.Kind = LoadBalancer }),
		backend(20, func(ep *Endpoint) { ep.ServiceID = "" }),
		backend(30, func(ep *Endpoint) { ep.ServiceID, ep.ServiceName, ep.VIP = "id-rr", "rr", netip.Addr{} }),
	)
	byID, byVIP := services(eps)
	web, rr := byID["id-web"], byID["id-rr"]
	if len(byID) != 2 || web == nil || rr == nil {
		t.Fatalf("services %v", byID)
	}
	if web.Name != "web" || web.VIP != netip.MustParseAddr("10.10.0.2") || rr.VIP.IsValid() {
		t.Errorf("got %+v and %+v", web, rr)
	}
	if len(byVIP) != 1 || byVIP[web.VIP] != web {
		t.Errorf("VIPs %v", byVIP)
	}
	if got := hosts(web.Backends); !reflect.DeepEqual(got, []byte{9, 12, 200}) {
		t.Errorf("backends %v", got)
	}
	if got := hosts(web.Draining); !reflect.DeepEqual(got, []byte{10}) {
		t.Errorf("draining %v", got)
	}
}

func hosts(eps []*Endpoint) (last []byte) {
	for _, ep := range eps {
		last = append(last, ep.Addr.As4()[3])
	}
	return last
}

// While an update replaces tasks they say different things about their service.
func TestServicesSettle(t *testing.T) {
	port := func(published, target uint16) Port { return Port{Published: published, Target: target} }
	with := func(aliases []string, ports ...Port) func(*Endpoint) {
		return func(ep *Endpoint) { ep.Aliases, ep.Ports = aliases, ports }
	}
	noVIP := func(ep *Endpoint) { ep.VIP = netip.Addr{} }
	for _, tc := range []struct {
		name string
		eps  []*Endpoint
		want Service // but for the endpoints
	}{
		{
			"ports and aliases join",
			[]*Endpoint{
				backend(9, with([]string{"www", "site"}, port(8080, 80))),
				backend(10, with([]string{"www"}, port(8080, 81), port(80, 80))),
			},
			Service{Aliases: []string{"site", "www"}, Ports: []Port{port(80, 80), port(8080, 80)}},
		},
		{
			"what drains has no say",
			[]*Endpoint{backend(9, draining, with([]string{"old"}, port(1, 1))), backend(10, with([]string{"new"}, port(2, 2)))},
			Service{Aliases: []string{"new"}, Ports: []Port{port(2, 2)}},
		},
		{
			"unless nothing else is left",
			[]*Endpoint{backend(9, draining, with([]string{"old"}, port(1, 1)))},
			Service{Aliases: []string{"old"}, Ports: []Port{port(1, 1)}},
		},
		{
			"the VIP stays while it is used",
			[]*Endpoint{backend(9, noVIP), backend(10, draining)},
			Service{},
		},
	} {
		tc.want.ID, tc.want.Name, tc.want.VIP = "id-web", "web", netip.MustParseAddr("10.10.0.2")
		byID, _ := services(byAddr(tc.eps...))
		got := *byID["id-web"]
		got.Backends, got.Draining, got.claim = nil, nil, netip.Addr{}
		if !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s: got %+v, want %+v", tc.name, got, tc.want)
		}
	}
	if target, ok := backend(9, with(nil, port(8080, 81))).Target(port(8080, 80)); target != 81 || !ok {
		t.Errorf("target %d, %t, want the endpoint's own", target, ok)
	}
	if _, ok := backend(9, with(nil, port(8080, 81))).Target(Port{Published: 8080, Protocol: UDP}); ok {
		t.Error("a TCP port is a target of UDP")
	}
}

// Two services claim one VIP, and one the address of an endpoint.
func TestServicesContradict(t *testing.T) {
	other := func(id string) func(*Endpoint) { return func(ep *Endpoint) { ep.ServiceID = id } }
	thief := func(ep *Endpoint) { ep.ServiceID, ep.VIP = "id-a", netip.AddrFrom4([4]byte{10, 10, 0, 9}) }
	byID, byVIP := services(byAddr(backend(9, other("id-c")), backend(10, other("id-b")), backend(11, thief)))
	vip := netip.MustParseAddr("10.10.0.2")
	if len(byVIP) != 1 || byVIP[vip] != byID["id-b"] || byID["id-b"].VIP != vip {
		t.Errorf("VIPs %v", byVIP)
	}
	if byID["id-c"].VIP.IsValid() || byID["id-a"].VIP.IsValid() {
		t.Errorf("the losers keep it: %+v, %+v", byID["id-c"], byID["id-a"])
	}
	if len(byID["id-a"].Backends) != 1 {
		t.Error("a service without its VIP lost its backend")
	}
}

// The result depends on the endpoints alone, not on the order of a map.
func TestServicesAreStable(t *testing.T) {
	var eps []*Endpoint
	for host := range byte(100) {
		eps = append(eps, backend(host+10, func(ep *Endpoint) {
			ep.ServiceID = string('a' + rune(host%7))
			ep.ServiceName = string('A' + rune(host%3))
			ep.VIP = netip.AddrFrom4([4]byte{10, 10, 1, host % 5})
			ep.Aliases = []string{string('x' + rune(host%2))}
			ep.Disabled = host%4 == 0
		}))
	}
	first, firstVIPs := services(byAddr(eps...))
	for range 20 {
		byID, byVIP := services(maps.Clone(byAddr(eps...)))
		if !reflect.DeepEqual(byID, first) || !reflect.DeepEqual(byVIP, firstVIPs) {
			t.Fatal("the same endpoints gave other services")
		}
	}
}

func TestProtocolString(t *testing.T) {
	for p, want := range map[Protocol]string{TCP: "tcp", UDP: "udp", SCTP: "sctp", 9: "protocol 9"} {
		if p.String() != want {
			t.Errorf("%d: %q, want %q", uint8(p), p, want)
		}
	}
}

package directory

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"
)

// reference works the services of endpoints out from nothing, as [Services] is
// documented and without any of its code.
func reference(eps map[netip.Addr]*Endpoint) (map[string]*Service, map[netip.Addr]*Service) {
	byID, byVIP := make(map[string]*Service), make(map[netip.Addr]*Service)
	for _, addr := range slices.SortedFunc(maps.Keys(eps), netip.Addr.Compare) {
		ep := eps[addr]
		if ep.ServiceID == "" || ep.Pending || ep.Kind == LoadBalancer {
			continue
		}
		s := byID[ep.ServiceID]
		if s == nil {
			s = &Service{ID: ep.ServiceID}
			byID[ep.ServiceID] = s
		}
		if ep.Disabled {
			s.Draining = append(s.Draining, ep)
		} else {
			s.Backends = append(s.Backends, ep)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(byID)) {
		s := byID[id]
		says := s.Backends
		if len(says) == 0 {
			says = s.Draining
		}
		s.Name = says[0].ServiceName
		ports := make(map[string]Port)
		for _, ep := range says {
			s.Aliases = append(s.Aliases, ep.Aliases...)
			for _, p := range ep.Ports {
				if key := fmt.Sprintf("%05d/%d", p.Published, p.Protocol); ports[key] == (Port{}) {
					ports[key] = p
				}
			}
		}
		slices.Sort(s.Aliases)
		s.Aliases = slices.Compact(s.Aliases)
		for _, key := range slices.Sorted(maps.Keys(ports)) {
			s.Ports = append(s.Ports, ports[key])
		}
		claim := netip.Addr{}
		for _, ep := range slices.Concat(s.Backends, s.Draining) {
			if ep.VIP.IsValid() && eps[ep.VIP] == nil {
				claim = ep.VIP
				break
			}
		}
		if claim.IsValid() && byVIP[claim] == nil { // smaller IDs come first
			s.VIP = claim
			byVIP[claim] = s
		}
	}
	return byID, byVIP
}

// randomEndpoint has an address, a service and a VIP out of few, so that they
// collide in all ways.
func randomEndpoint(random *rand.Rand) *Endpoint {
	at := func(n byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 10, 0, n}) }
	ep := &Endpoint{ID: fmt.Sprint(random.IntN(1000)), Addr: at(byte(random.IntN(40))), VTEP: at(byte(200 + random.IntN(4)))}
	if n := random.IntN(8); n > 0 {
		ep.ServiceID, ep.ServiceName = fmt.Sprint("id-", n), fmt.Sprint("name-", n+random.IntN(2))
	}
	if random.IntN(3) > 0 {
		ep.VIP = at(byte(30 + random.IntN(16))) // some are endpoints' addresses
	}
	ep.Disabled, ep.Pending = random.IntN(4) == 0, random.IntN(6) == 0
	if random.IntN(10) == 0 {
		ep.Kind = LoadBalancer
	}
	ep.Aliases = []string{fmt.Sprint("alias-", random.IntN(3))}
	ep.Ports = []Port{{Published: uint16(random.IntN(3)), Target: uint16(1 + random.IntN(3))}}
	return ep
}

// However a network came to be, its builder's picture is that of its endpoints.
// What was published before does not change.
func TestBuilderIsARebuild(t *testing.T) {
	for seed := range uint64(10) {
		random := rand.New(rand.NewPCG(seed, 2))
		b := NewBuilder(0)
		eps := make(map[netip.Addr]*Endpoint)
		var last Snapshot
		var before string
		for step := range 120 {
			if random.IntN(10) == 0 {
				for range random.IntN(20) {
					ep := randomEndpoint(random)
					eps[ep.Addr] = ep
					delete(eps, randomEndpoint(random).Addr)
				}
				b.Replace(eps)
			}
			for range random.IntN(4) {
				if ep := randomEndpoint(random); random.IntN(3) == 0 {
					b.Delete(ep.Addr)
					delete(eps, ep.Addr)
				} else {
					b.Set(ep)
					eps[ep.Addr] = ep
				}
			}
			var snap Snapshot
			b.Fill(&snap)
			if step > 0 && picture(&last) != before {
				t.Fatalf("seed %d, step %d: a published snapshot changed", seed, step)
			}
			byID, byVIP := reference(eps)
			want := Snapshot{Endpoints: MapOf(eps), Services: MapOf(byID), VIPs: MapOf(byVIP)}
			last, before = snap, picture(&snap)
			if before != picture(&want) {
				t.Fatalf("seed %d, step %d:\n%s\nwant\n%s", seed, step, before, picture(&want))
			}
			for vip, s := range snap.VIPs.All() {
				if s.VIP != vip || snap.Services.At(s.ID) != s {
					t.Fatalf("seed %d, step %d: VIP %v is of another version of service %s", seed, step, vip, s.ID)
				}
			}
			vteps := make(map[netip.Addr]int)
			for _, ep := range eps {
				vteps[ep.VTEP]++
			}
			for ep := range b.Disabled() {
				if vteps[ep.VTEP]--; !ep.Disabled || eps[ep.Addr] != ep {
					t.Fatalf("seed %d, step %d: %+v is not draining", seed, step, ep)
				}
			}
			for _, ep := range eps {
				if ep.Disabled {
					vteps[ep.VTEP]++
				}
			}
			if !maps.Equal(vteps, b.VTEPs()) {
				t.Fatalf("seed %d, step %d: VTEPs %v, want %v", seed, step, b.VTEPs(), vteps)
			}
		}
		if len(b.mentioned) > len(eps) {
			t.Errorf("seed %d: %d addresses are remembered for %d endpoints", seed, len(b.mentioned), len(eps))
		}
	}
}

// picture writes down all that a snapshot says of endpoints and services.
func picture(s *Snapshot) (text string) {
	for _, ep := range slices.SortedFunc(s.Endpoints.Values(), func(a, b *Endpoint) int { return a.Addr.Compare(b.Addr) }) {
		text += fmt.Sprintf("%+v\n", *ep)
	}
	for _, svc := range slices.SortedFunc(s.Services.Values(), func(a, b *Service) int { return cmp.Compare(a.ID, b.ID) }) {
		text += fmt.Sprintf("%s %s %v %v %v:", svc.ID, svc.Name, svc.VIP, svc.Aliases, svc.Ports)
		for _, ep := range svc.Backends {
			text += fmt.Sprint(" ", ep.Addr)
		}
		for _, ep := range svc.Draining {
			text += fmt.Sprint(" -", ep.Addr)
		}
		text += "\n"
	}
	for _, svc := range slices.SortedFunc(s.VIPs.Values(), func(a, b *Service) int { return a.VIP.Compare(b.VIP) }) {
		text += fmt.Sprintln(svc.VIP, svc.ID)
	}
	return text
}

// Whatever is told of an endpoint makes another one of it.
func TestEndpointEqual(t *testing.T) {
	whole := Endpoint{Aliases: []string{"a"}, TaskAliases: []string{"a"}, Ports: []Port{{}}}
	same := whole
	if !whole.equal(&same) {
		t.Error("an endpoint is not itself")
	}
	typ := reflect.TypeFor[Endpoint]()
	for i := range typ.NumField() {
		other := whole
		f := reflect.ValueOf(&other).Elem().Field(i)
		switch v := f.Addr().Interface().(type) {
		case *string:
			*v = "x"
		case *bool:
			*v = true
		case *netip.Addr:
			*v = netip.MustParseAddr("10.0.0.1")
		case *[]string:
			*v = []string{"b"}
		case *[]Port:
			*v = []Port{{Target: 1}}
		default:
			if f.Kind() == reflect.Array {
				f = f.Index(0)
			}
			f.SetUint(1)
		}
		if whole.equal(&other) {
			t.Errorf("%s makes no difference", typ.Field(i).Name)
		}
	}
}

// A change costs what its service costs, whatever else is in the network.
func TestBuilderAllocations(t *testing.T) {
	var least float64
	for _, n := range []int{1000, 100_000} {
		b := NewBuilder(n)
		for i := range n {
			b.Set(scaled(i, false))
		}
		var snap Snapshot
		b.Fill(&snap)
		i := 0
		allocs := testing.AllocsPerRun(100, func() {
			i++
			b.Set(scaled(i*7%n, i%2 == 0))
			b.Fill(&snap)
		})
		if least == 0 {
			least = allocs
		}
		if allocs > 60 || allocs > 1.5*least {
			t.Errorf("%d endpoints: a change costs %g allocations, in a small network %g", n, allocs, least)
		}
	}
}

// scaled is an endpoint of a service of ten.
func scaled(i int, moved bool) *Endpoint {
	vtep := netip.AddrFrom4([4]byte{192, 0, 2, byte(i % 100)})
	if moved {
		vtep = netip.AddrFrom4([4]byte{192, 0, 2, 100})
	}
	return &Endpoint{
		Addr: netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), VTEP: vtep,
		ServiceID: fmt.Sprint(i / 10), VIP: netip.AddrFrom4([4]byte{11, byte(i / 10 >> 16), byte(i / 10 >> 8), byte(i / 10)}),
	}
}

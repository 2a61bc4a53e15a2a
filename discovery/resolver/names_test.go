package resolver

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/ovnd/ovnd/discovery/directory"
)

func TestNames(t *testing.T) {
	scope := both
	scope.Names = nil
	server := serve(t, New(Config{Store: world()}), scope)
	vip, tasks := []string{"10.10.0.2"}, []string{"10.10.0.3", "10.10.0.4"}
	round := []string{"10.10.0.11", "10.10.0.12"}
	for _, tc := range []struct {
		name string
		want []string
	}{
		{"my-test", vip},
		{"MY-Test", vip},
		{"web", vip},
		{"site", vip},
		{"tasks.my-test", tasks},
		{"tasks.web", tasks},
		{"my-test.ngx_net", vip},
		{"my-test.NGX_net", vip},
		{"tasks.my-test.ngx_net", tasks},
		{"my-test.other.net", []string{"10.20.0.2"}},
		{"only", []string{"10.20.0.8"}},
		{"my-test.1.id1", []string{"10.10.0.3"}},
		{"my-test.1.id1.other.net", []string{"10.20.0.3"}},
		{"host2-my-test", []string{"10.10.0.4"}},
		{"rr", round},
		{"round", round},
		{"tasks.rr", round},
		{"tasks.round.ngx_net", round},
		{"rr.2.id2", []string{"10.10.0.12"}},
		{"box", []string{"10.10.0.30"}},
		{"0123456789ab", []string{"10.10.0.30"}},
		{"b.ox", []string{"10.10.0.30"}},
		{"b.ox.ngx_net", []string{"10.10.0.30"}},
	} {
		for _, network := range []string{"udp", "tcp"} {
			got := exchange(t, network, server, question(tc.name, dns.TypeA))
			if got.Rcode != dns.RcodeSuccess || !slices.Equal(addresses(got), tc.want) {
				t.Errorf("%s over %s: got %v, want %v", tc.name, network, got, tc.want)
			}
			for _, rr := range got.Answer {
				if h := rr.Header(); h.Name != dns.Fqdn(tc.name) || h.Ttl > 5 {
					t.Errorf("%s: answered as %v", tc.name, h)
				}
			}
		}
	}
}

// What does not resolve: nobody is asked here, so SERVFAIL says that the
// question would have been passed on.
func TestUnknownNames(t *testing.T) {
	server := serve(t, New(Config{Store: world()}), both)
	for _, name := range []string{
		"nosuch", "my-test.nosuch_net", "only.ngx_net", "ngx_net", "tasks", "tasks.box", "lb-ngx_net",
		"slow", "tasks.slow", "slow.1.id1", // pending
		"my-test.ingress", "my-test.1.id1.ingress", // for routing only
		`my\.test`, `my-test\.ngx_net`, ".", "x.my-test",
	} {
		got := exchange(t, "udp", server, question(name, dns.TypeA))
		if got.Rcode != dns.RcodeServerFailure || len(got.Answer) != 0 || got.RecursionAvailable {
			t.Errorf("%s: got %v, want SERVFAIL", name, got)
		}
	}
}

// The same name on two networks is two services; a sandbox sees those of its
// own networks, in the order of its interfaces.
func TestIsolation(t *testing.T) {
	s := New(Config{Store: world()})
	other := serve(t, s, Scope{Networks: []string{"id-other.net", "id-ngx_net"}})
	if got := addresses(exchange(t, "udp", other, question("my-test", dns.TypeA))); !slices.Equal(got, []string{"10.20.0.2"}) {
		t.Errorf("other.net first: %v", got)
	}
	alone := serve(t, s, Scope{Networks: []string{"id-other.net"}})
	for _, name := range []string{"rr", "my-test.ngx_net", "box", "3.0.10.10.in-addr.arpa", "_http._tcp.web"} {
		if got := exchange(t, "udp", alone, question(name, dns.TypeANY)); got.Rcode != dns.RcodeServerFailure {
			t.Errorf("%s leaks into other.net: %v", name, got)
		}
	}
}

func TestAllNetworks(t *testing.T) {
	s := world()
	s.Publish(&directory.Snapshot{ID: "hub", Name: "aaa"})
	server := serve(t, New(Config{Store: s}), Scope{All: true})
	for name, want := range map[string]string{"my-test": "10.10.0.2", "only": "10.20.0.8", "my-test.other.net": "10.20.0.2"} {
		if got := addresses(exchange(t, "udp", server, question(name, dns.TypeA))); !slices.Equal(got, []string{want}) {
			t.Errorf("%s: got %v, want %s", name, got, want)
		}
	}
	s.Remove("id-ngx_net")
	if got := addresses(exchange(t, "udp", server, question("my-test", dns.TypeA))); !slices.Equal(got, []string{"10.20.0.2"}) {
		t.Errorf("after leaving ngx_net: %v", got)
	}
}

// Other types of a known name: musl takes anything but NOERROR for the end.
func TestOtherTypes(t *testing.T) {
	server := serve(t, New(Config{Store: world()}), both)
	for _, name := range []string{"my-test", "tasks.rr", "my-test.1.id1.ngx_net", "my-test.3.id3", "3.0.10.10.in-addr.arpa"} {
		for _, qtype := range []uint16{dns.TypeAAAA, dns.TypeMX, dns.TypeTXT, dns.TypeHTTPS, dns.TypeSOA, dns.TypeNS, 65280} {
			got := exchange(t, "udp", server, question(name, qtype))
			if got.Rcode != dns.RcodeSuccess || len(got.Answer) != 0 || len(got.Ns) != 1 {
				t.Errorf("%s %s: got %v, want an empty NOERROR with a SOA", name, dns.TypeToString[qtype], got)
				continue
			}
			if soa, ok := got.Ns[0].(*dns.SOA); !ok || soa.Hdr.Name != got.Question[0].Name || soa.Serial != 7 || soa.Hdr.Ttl > 5 || soa.Minttl > 5 {
				t.Errorf("%s: SOA is %v", name, got.Ns[0])
			}
		}
	}
	if got := addresses(exchange(t, "udp", server, question("box", dns.TypeAAAA))); !slices.Equal(got, []string{"fd00::30"}) {
		t.Errorf("AAAA of box: %v", got)
	}
	if got := addresses(exchange(t, "udp", server, question("box", dns.TypeANY))); !slices.Equal(got, []string{"10.10.0.30", "fd00::30"}) {
		t.Errorf("ANY of box: %v", got)
	}
}

func TestCaseIsKept(t *testing.T) {
	server := serve(t, New(Config{Store: world()}), both)
	got := exchange(t, "udp", server, question("tAsKs.My-TeST", dns.TypeA))
	if len(got.Answer) != 2 || got.Question[0].Name != "tAsKs.My-TeST." || got.Answer[0].Header().Name != "tAsKs.My-TeST." {
		t.Errorf("got %v", got)
	}
}

func TestOrderChanges(t *testing.T) {
	server := serve(t, New(Config{Store: world()}), both)
	first := make(map[string]int)
	for range 64 {
		got := exchange(t, "udp", server, question("rr", dns.TypeA))
		first[got.Answer[0].(*dns.A).A.String()]++
	}
	// All the same by chance: once in 2⁶³.
	if len(first) != 2 {
		t.Errorf("first address of 64 answers: %v", first)
	}
}

func TestReverse(t *testing.T) {
	server := serve(t, New(Config{Store: world()}), both)
	for a, want := range map[string]string{
		"10.10.0.3":  "my-test.1.id1.ngx_net.",
		"10.10.0.5":  "my-test.3.id3.ngx_net.", // draining
		"10.10.0.2":  "my-test.ngx_net.",       // the VIP
		"10.20.0.9":  "only.1.id1.other.net.",
		"10.10.0.30": "box.ngx_net.",
		"fd00::30":   "box.ngx_net.",
	} {
		name, _ := dns.ReverseAddr(a)
		got := exchange(t, "udp", server, question(name, dns.TypePTR))
		if len(got.Answer) != 1 || got.Answer[0].(*dns.PTR).Ptr != want {
			t.Errorf("%s: got %v, want %s", a, got, want)
		}
	}
	for a, want := range map[string]int{
		"10.10.0.40": dns.RcodeNameError, // the balancer
		"10.10.0.21": dns.RcodeNameError, // pending
		"10.10.9.9":  dns.RcodeNameError, // nobody, and in the subnet
		"10.0.0.3":   dns.RcodeNameError, // on ingress
		"192.0.2.1":  dns.RcodeServerFailure,
		"fd00::31":   dns.RcodeServerFailure,
	} {
		name, _ := dns.ReverseAddr(a)
		got := exchange(t, "udp", server, question(name, dns.TypePTR))
		if got.Rcode != want || want == dns.RcodeNameError && len(got.Ns) != 1 {
			t.Errorf("%s: got %v, want %s", a, got, dns.RcodeToString[want])
		}
	}
}

func TestReverseAddr(t *testing.T) {
	for name, want := range map[string]string{
		"9.0.10.10.in-addr.arpa":                             "10.10.0.9",
		"255.255.255.255.in-addr.arpa":                       "255.255.255.255",
		strings.Repeat("0.", 31) + "0.ip6.arpa":              "::",
		"1." + strings.Repeat("0.", 29) + "d.f.ip6.arpa":     "fd00::1",
		"f.0." + strings.Repeat("0.", 28) + "d.f.ip6.arpa":   "fd00::f",
		"10.10.in-addr.arpa":                                 "",
		"1.2.3.4.5.in-addr.arpa":                             "",
		"256.0.0.1.in-addr.arpa":                             "",
		"01.0.0.1.in-addr.arpa":                              "",
		"-1.0.0.1.in-addr.arpa":                              "",
		"+1.0.0.1.in-addr.arpa":                              "",
		"in-addr.arpa":                                       "",
		".in-addr.arpa":                                      "",
		"10." + strings.Repeat("0.", 30) + "f.ip6.arpa":      "",
		"g." + strings.Repeat("0.", 30) + "f.ip6.arpa":       "",
		"9.0.10.10.in-addr.arpa.example.com":                 "",
		"1." + strings.Repeat("0.", 29) + "d.f.in-addr.arpa": "",
	} {
		got, ok := reverseAddr(name)
		if ok != (want != "") || ok && got.String() != want {
			t.Errorf("%s: got %v, %v, want %q", name, got, ok, want)
		}
	}
}

func TestSRV(t *testing.T) {
	server := serve(t, New(Config{Store: world()}), both)
	for _, tc := range []struct {
		name  string
		want  []string // "target port address"
		rcode int
	}{
		{"_http._tcp.my-test", []string{"my-test. 80 10.10.0.2"}, 0},
		{"_80._TCP.My-Test.ngx_net", []string{"My-Test.ngx_net. 80 10.10.0.2"}, 0},
		{"_53._udp.web", []string{"web. 53 10.10.0.2"}, 0},
		{"_http._tcp.my-test.other.net", []string{"my-test.other.net. 80 10.20.0.2"}, 0},
		{"_http._tcp.tasks.my-test", []string{"my-test.1.id1.ngx_net. 80 10.10.0.3", "my-test.2.id2.ngx_net. 80 10.10.0.4"}, 0},
		{"_443._tcp.rr", []string{"rr.1.id1.ngx_net. 443 10.10.0.11", "rr.2.id2.ngx_net. 443 10.10.0.12"}, 0},
		{"_80._udp.my-test", nil, 0},
		{"_8080._tcp.my-test", nil, 0},
		{"_http._tcp.only", nil, 0}, // publishes nothing
		{"_http._tcp.nosuch", nil, dns.RcodeServerFailure},
		{"_http._tcp.box", nil, dns.RcodeServerFailure},
		{"http.tcp.my-test", nil, dns.RcodeServerFailure},
	} {
		got := exchange(t, "udp", server, question(tc.name, dns.TypeSRV))
		var found []string
		for i, rr := range got.Answer {
			srv := rr.(*dns.SRV)
			a := got.Extra[i].(*dns.A)
			if a.Hdr.Name != srv.Target {
				t.Errorf("%s: the address of %s is that of %s", tc.name, srv.Target, a.Hdr.Name)
			}
			found = append(found, strings.Join([]string{srv.Target, portOf(srv), a.A.String()}, " "))
		}
		slices.Sort(found)
		if got.Rcode != tc.rcode || !slices.Equal(found, tc.want) {
			t.Errorf("%s: got %v, want %v", tc.name, got, tc.want)
		}
	}
}

func portOf(srv *dns.SRV) string { return strings.Fields(srv.String())[6] }

// A new version answers the next question.
func TestNewVersion(t *testing.T) {
	s := world()
	srv := New(Config{Store: s})
	server := serve(t, srv, both)
	for version := uint64(10); version < 30; version++ {
		last := "10.10.0." + string('0'+byte(version%10))
		network(s, "ngx_net", "10.10.0.0/16", version, task("rr", "", 1, last))
		if got := addresses(exchange(t, "udp", server, question("rr", dns.TypeA))); !slices.Equal(got, []string{last}) {
			t.Fatalf("version %d: got %v, want %s", version, got, last)
		}
	}
	// One index for a network, and none for those that were left.
	s.Remove("id-other.net")
	network(s, "ngx_net", "10.10.0.0/16", 30)
	exchange(t, "udp", server, question("rr", dns.TypeA))
	if n := len(*srv.indexes.byID.Load()); n != 2 {
		t.Errorf("%d indexes, want those of ngx_net and ingress", n)
	}
}

// Names that are drained away are known still: nobody outside is asked for them.
func TestDraining(t *testing.T) {
	s := directory.NewStore()
	ep := task("rr", "", 1, "10.10.0.11")
	ep.Disabled = true
	vip := task("web", "10.10.0.2", 1, "10.10.0.12")
	vip.Disabled = true
	network(s, "ngx_net", "10.10.0.0/16", 1, ep, vip)
	network(s, "other.net", "10.20.0.0/16", 1, task("rr", "", 2, "10.20.0.3"))
	alone := serve(t, New(Config{Store: s}), Scope{Networks: []string{"id-ngx_net"}})
	for name, want := range map[string][]string{"rr": {}, "tasks.rr": {}, "rr.1.id1": {}, "web": {"10.10.0.2"}, "tasks.web": {}} {
		got := exchange(t, "udp", alone, question(name, dns.TypeA))
		if got.Rcode != dns.RcodeSuccess || !slices.Equal(addresses(got), want) {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
	// Another network that has it goes before one that had.
	two := serve(t, New(Config{Store: s}), both)
	if got := addresses(exchange(t, "udp", two, question("rr", dns.TypeA))); !slices.Equal(got, []string{"10.20.0.3"}) {
		t.Errorf("rr: %v", got)
	}
}

// Two services with one alias, or a task named like a service, share the name.
func TestSharedName(t *testing.T) {
	s := directory.NewStore()
	a, b := task("a", "10.10.0.2", 1, "10.10.0.3"), task("b", "", 1, "10.10.0.4")
	a.Aliases, b.Aliases = []string{"db"}, []string{"db"}
	network(s, "ngx_net", "10.10.0.0/16", 1, a, b,
		&directory.Endpoint{ID: "x", Name: "DB", Addr: addr("10.10.0.9")}, &directory.Endpoint{ID: "y", Addr: addr("10.10.0.10")})
	server := serve(t, New(Config{Store: s}), both)
	if got := addresses(exchange(t, "udp", server, question("db", dns.TypeA))); !slices.Equal(got, []string{"10.10.0.2", "10.10.0.4", "10.10.0.9"}) {
		t.Errorf("db: %v", got)
	}
}

// Names come from other nodes: what is no domain name has no PTR.
func TestHostileNames(t *testing.T) {
	s := directory.NewStore()
	var eps []*directory.Endpoint
	for i, name := range []string{"a b", `a\b`, "a..b", strings.Repeat("x", 64), strings.Repeat("xy.", 90), "ü", `"`, "."} {
		eps = append(eps, &directory.Endpoint{ID: name, Name: name, Addr: addr("10.10.0.3").Next()})
		eps[i].Addr = addr("10.10.0." + string('1'+byte(i)))
	}
	network(s, "ngx_net", "10.10.0.0/16", 1, eps...)
	server := serve(t, New(Config{Store: s}), both)
	for _, ep := range eps {
		name, _ := dns.ReverseAddr(ep.Addr.String())
		if got := exchange(t, "udp", server, question(name, dns.TypePTR)); got.Rcode != dns.RcodeNameError {
			t.Errorf("%q: got %v", ep.Name, got)
		}
	}
}

// The scope's own names come first, in any case.
func TestExtraHosts(t *testing.T) {
	scope := both
	scope.Names = map[string][]netip.Addr{"My-Test": {addr("192.0.2.1")}, "outside.": {addr("192.0.2.2"), addr("2001:db8::2")}}
	server := serve(t, New(Config{Store: world()}), scope)
	for name, want := range map[string]string{"my-test": "192.0.2.1", "Outside": "192.0.2.2", "my-test.ngx_net": "10.10.0.2"} {
		if got := addresses(exchange(t, "udp", server, question(name, dns.TypeA))); !slices.Equal(got, []string{want}) {
			t.Errorf("%s: got %v, want %s", name, got, want)
		}
	}
}

// While a network of the scope is not there yet, a name may be one of its.
func TestNetworkNotThereYet(t *testing.T) {
	up := upstream(t, func(q *dns.Msg) *dns.Msg { return new(dns.Msg).SetRcode(q, dns.RcodeNameError) })
	s := directory.NewStore()
	server := serve(t, New(Config{Store: s, Upstreams: up.list}), Scope{Networks: []string{"id-ngx_net"}})
	for name, want := range map[string]int{"my-test": dns.RcodeServerFailure, "example.com": dns.RcodeNameError} {
		if got := exchange(t, "udp", server, question(name, dns.TypeA)); got.Rcode != want {
			t.Errorf("%s: got %v, want %s", name, got, dns.RcodeToString[want])
		}
	}
	network(s, "ngx_net", "10.10.0.0/16", 1)
	if got := exchange(t, "udp", server, question("my-test", dns.TypeA)); got.Rcode != dns.RcodeNameError {
		t.Errorf("with the network: %v", got)
	}
}

package resolver

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"

	"github.com/ovnd/ovnd/discovery/directory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what has to come.
const patience = 10 * time.Second

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// task returns an endpoint like those of a service's tasks: name.slot.id.
func task(service, vip string, slot int, a string) *directory.Endpoint {
	name := fmt.Sprintf("%s.%d.id%d", service, slot, slot)
	ep := &directory.Endpoint{
		ID: "ep-" + a, Name: name, Addr: addr(a),
		ServiceID: "sid-" + service, ServiceName: service,
		TaskAliases: []string{fmt.Sprintf("host%d-%s", slot, service)},
	}
	if vip != "" {
		ep.VIP = addr(vip)
	}
	return ep
}

// network publishes a version of a network with these endpoints.
func network(s *directory.Store, name, subnet string, version uint64, eps ...*directory.Endpoint) {
	snap := &directory.Snapshot{
		Version: version, ID: "id-" + name, Name: name, VNI: 4097,
		Subnets: []directory.Subnet{{Prefix: netip.MustParsePrefix(subnet)}},
		Ingress: name == "ingress",
	}
	for _, ep := range eps {
		snap.Endpoints = snap.Endpoints.With(ep.Addr, ep)
	}
	snap.Services, snap.VIPs = directory.Services(snap.Endpoints)
	s.Publish(snap)
}

// world is a node on two networks and ingress:
//
//	ngx_net   my-test (VIP, three tasks, one of them draining), rr (dnsrr, alias
//	          round), box (run by hand), slow (pending), lb-ngx_net
//	other.net my-test with another VIP, only (VIP)
func world() *directory.Store {
	s := directory.NewStore()
	draining := task("my-test", "10.10.0.2", 3, "10.10.0.5")
	draining.Disabled = true
	mine := task("my-test", "10.10.0.2", 1, "10.10.0.3")
	mine.Aliases = []string{"web", "Site"}
	rr1, rr2 := task("rr", "", 1, "10.10.0.11"), task("rr", "", 2, "10.10.0.12")
	rr1.Aliases, rr2.Aliases = []string{"round"}, []string{"round"}
	pending := task("slow", "10.10.0.20", 1, "10.10.0.21")
	pending.Pending = true
	network(s, "ngx_net", "10.10.0.0/16", 7,
		mine, task("my-test", "10.10.0.2", 2, "10.10.0.4"), draining, rr1, rr2, pending,
		&directory.Endpoint{ID: "box", Name: "box", Addr: addr("10.10.0.30"), TaskAliases: []string{"0123456789ab", "b.ox"}},
		&directory.Endpoint{ID: "box6", Name: "box", Addr: addr("fd00::30")},
		&directory.Endpoint{ID: "lb", Name: "lb-ngx_net", Addr: addr("10.10.0.40"), Kind: directory.LoadBalancer},
	)
	network(s, "other.net", "10.20.0.0/16", 8,
		task("my-test", "10.20.0.2", 1, "10.20.0.3"), task("only", "10.20.0.8", 1, "10.20.0.9"))
	published := task("my-test", "10.0.0.2", 1, "10.0.0.3")
	published.Ports = []directory.Port{{Name: "http", Target: 80, Published: 8080}, {Protocol: directory.UDP, Target: 53, Published: 5353}}
	rrPorts := task("rr", "", 1, "10.0.0.4")
	rrPorts.Ports = []directory.Port{{Target: 443, Published: 8443}}
	network(s, "ingress", "10.0.0.0/24", 9, published, rrPorts)
	return s
}

// both is the scope of a sandbox on both networks of world.
var both = Scope{Networks: []string{"id-ingress", "id-ngx_net", "id-other.net"}}

// serve serves scope on loopback until the test ends, and returns where.
func serve(t testing.TB, s *Server, scope Scope) string {
	t.Helper()
	udp, tcp := sockets(t)
	return serveOn(t, s, scope, udp, tcp)
}

func serveOn(t testing.TB, s *Server, scope Scope, udp net.PacketConn, tcp net.Listener) string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, scope, udp, tcp) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Serve: %v", err)
			}
		case <-time.After(patience):
			t.Error("Serve does not end")
		}
	})
	return udp.LocalAddr().String()
}

// sockets returns a UDP and a TCP socket with one port.
func sockets(t testing.TB) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 20 {
		tcp, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		udp, err := net.ListenPacket("udp", tcp.Addr().String())
		if err == nil {
			return udp, tcp
		}
		tcp.Close() // the port is in use over UDP
	}
	t.Fatal("no port is free over both UDP and TCP")
	return nil, nil
}

// question returns a query for name.
func question(name string, qtype uint16) *dns.Msg {
	return new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)
}

// exchange sends m over network, and fails the test if there is no answer.
func exchange(t testing.TB, network, server string, m *dns.Msg) *dns.Msg {
	t.Helper()
	client := dns.Client{Net: network, Timeout: patience, UDPSize: dns.MaxMsgSize}
	reply, _, err := client.Exchange(m, server)
	if err != nil {
		t.Fatalf("%s over %s: %v", m.Question[0].Name, network, err)
	}
	return reply
}

// addresses are those in the answer, sorted.
func addresses(m *dns.Msg) []string {
	out := make([]string, 0, len(m.Answer))
	for _, rr := range m.Answer {
		switch rr := rr.(type) {
		case *dns.A:
			out = append(out, rr.A.String())
		case *dns.AAAA:
			out = append(out, rr.AAAA.String())
		default:
			out = append(out, rr.String())
		}
	}
	slices.Sort(out)
	return out
}

// eventually waits until ok holds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, patience)
		}
		time.Sleep(time.Millisecond)
	}
}

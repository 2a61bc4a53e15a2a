package resolver

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/ovnd/ovnd/discovery/directory"
)

const outside = "192.0.2.80"

func TestForward(t *testing.T) {
	up := upstream(t, func(q *dns.Msg) *dns.Msg { return answerA(q, outside) })
	s := New(Config{Store: world(), Upstreams: up.list})
	server := serve(t, s, both)
	for _, network := range []string{"udp", "tcp"} {
		for _, name := range []string{"Example.COM", "single"} {
			q := question(name, dns.TypeA)
			got := exchange(t, network, server, q)
			if !slices.Equal(addresses(got), []string{outside}) || got.Question[0].Name != dns.Fqdn(name) || !got.RecursionAvailable {
				t.Errorf("%s over %s: got %v", name, network, got)
			}
			if got.Answer[0].Header().Ttl != 300 {
				t.Errorf("the upstream's TTL became %d", got.Answer[0].Header().Ttl)
			}
		}
	}
	for _, a := range up.queries() {
		if a.network != "udp" || !a.msg.RecursionDesired {
			t.Errorf("upstream was asked over %s: %v", a.network, a.msg)
		}
	}
	// What is ours is asked of nobody.
	n := len(up.queries())
	for _, name := range []string{"my-test", "tasks.rr", "my-test.ngx_net"} {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeMX} {
			exchange(t, "udp", server, question(name, qtype))
		}
	}
	if got := len(up.queries()); got != n {
		t.Errorf("upstream was asked %d times about our own names", got-n)
	}
	if st := s.Stats(); st.Forwarded != 4 || st.Local != 9 || st.Queries != 13 || st.TCP != 2 || st.InFlight != 0 || st.Failed != 0 {
		t.Errorf("stats: %+v", st)
	}
}

// IDs and source ports of queries to upstreams are new each time.
func TestForwardIsHardToGuess(t *testing.T) {
	up := upstream(t, func(q *dns.Msg) *dns.Msg { return answerA(q, outside) })
	server := serve(t, New(Config{Store: world(), Upstreams: up.list}), both)
	const n = 32
	q := question("example.com", dns.TypeA)
	for range n {
		exchange(t, "udp", server, q) // with one ID
	}
	ids, ports := make(map[uint16]bool), make(map[uint16]bool)
	for _, a := range up.queries() {
		ids[a.msg.Id] = true
		ports[a.from.Port()] = true
	}
	if len(ids) < n-2 || len(ports) < n/2 {
		t.Errorf("%d queries had %d IDs and %d ports", n, len(ids), len(ports))
	}
}

func TestUpstreamCodes(t *testing.T) {
	for _, tc := range []struct {
		first  int // code of the first upstream
		second bool
		want   int
	}{
		{dns.RcodeNameError, false, dns.RcodeNameError},
		{dns.RcodeNotImplemented, false, dns.RcodeNotImplemented},
		{dns.RcodeServerFailure, true, dns.RcodeSuccess},
		{dns.RcodeRefused, true, dns.RcodeSuccess},
	} {
		first := upstream(t, func(q *dns.Msg) *dns.Msg { return new(dns.Msg).SetRcode(q, tc.first) })
		second := upstream(t, func(q *dns.Msg) *dns.Msg { return answerA(q, outside) })
		list := func() []netip.AddrPort { return []netip.AddrPort{first.addr, second.addr} }
		s := New(Config{Store: world(), Upstreams: list})
		server := serve(t, s, both)
		got := exchange(t, "udp", server, question("example.com", dns.TypeA))
		if got.Rcode != tc.want || len(second.queries()) > 0 != tc.second {
			t.Errorf("first says %s: got %v", dns.RcodeToString[tc.first], got)
		}
		// To say no is to be there: it is asked first again.
		exchange(t, "udp", server, question("example.com", dns.TypeA))
		if len(first.queries()) != 2 || s.Stats().Silent != 0 {
			t.Errorf("first says %s: asked %d times", dns.RcodeToString[tc.first], len(first.queries()))
		}
	}
}

// A dead upstream costs one timeout, not one for each question.
func TestFailover(t *testing.T) {
	silent := upstream(t, func(*dns.Msg) *dns.Msg { return nil })
	good := upstream(t, func(q *dns.Msg) *dns.Msg { return answerA(q, outside) })
	for name, first := range map[string]netip.AddrPort{"silent": silent.addr, "nothing listens": deadUpstream(t)} {
		list := func() []netip.AddrPort { return []netip.AddrPort{first, good.addr} }
		s := New(Config{Store: world(), Upstreams: list, Timeout: 150 * time.Millisecond})
		server := serve(t, s, both)
		for range 5 {
			if got := exchange(t, "udp", server, question("example.com", dns.TypeA)); !slices.Equal(addresses(got), []string{outside}) {
				t.Errorf("%s: got %v", name, got)
			}
		}
		if st := s.Stats(); st.Silent != 1 {
			t.Errorf("%s: stats %+v, want one silence", name, st)
		}
	}
	if n := len(silent.queries()); n != 3 {
		t.Errorf("the silent one was sent %d queries, want one and two repeats", n)
	}
}

// A lost query is sent again rather than given up.
func TestLostQuery(t *testing.T) {
	var mu sync.Mutex
	n := 0
	up := upstream(t, func(q *dns.Msg) *dns.Msg {
		mu.Lock()
		defer mu.Unlock()
		if n++; n == 1 {
			return nil
		}
		return answerA(q, outside)
	})
	s := New(Config{Store: world(), Upstreams: up.list, Timeout: 600 * time.Millisecond})
	server := serve(t, s, both)
	if got := exchange(t, "udp", server, question("example.com", dns.TypeA)); !slices.Equal(addresses(got), []string{outside}) {
		t.Errorf("got %v", got)
	}
	if q := up.queries(); len(q) != 2 || q[0].msg.Id != q[1].msg.Id {
		t.Errorf("asked %d times", len(q))
	}
}

// What does not answer the question is passed over, and what follows taken.
func TestLyingUpstream(t *testing.T) {
	lies := map[string]func(m *dns.Msg){
		"id":       func(m *dns.Msg) { m.Id++ },
		"question": func(m *dns.Msg) { m.Question[0].Name = "evil.example." },
		"type":     func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAAAA },
		"class":    func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS },
		"query":    func(m *dns.Msg) { m.Response = false },
		"opcode":   func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify },
		"none":     func(m *dns.Msg) { m.Question = nil },
		"two":      func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) },
	}
	for name, lie := range lies {
		up := rawUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
			m := answerA(q.Copy(), "203.0.113.66")
			lie(m)
			_ = w.WriteMsg(m)
			_, _ = w.Write([]byte{1, 2, 3})
			_ = w.WriteMsg(answerA(q, outside))
		})
		s := New(Config{Store: world(), Upstreams: up.list})
		server := serve(t, s, both)
		if got := exchange(t, "udp", server, question("example.com", dns.TypeA)); !slices.Equal(addresses(got), []string{outside}) {
			t.Errorf("%s: got %v", name, got)
		}
		if st := s.Stats(); st.Bogus != 2 {
			t.Errorf("%s: stats %+v, want two wrong answers", name, st)
		}
	}
}

// An upstream that is drowned by guesses is asked over TCP.
func TestGuessedAnswers(t *testing.T) {
	up := rawUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		if w.LocalAddr().Network() == "tcp" {
			_ = w.WriteMsg(answerA(q, outside))
			return
		}
		for range 2 * maxBogus {
			m := answerA(q, "203.0.113.66")
			m.Id++
			_ = w.WriteMsg(m)
		}
	})
	server := serve(t, New(Config{Store: world(), Upstreams: up.list}), both)
	if got := exchange(t, "udp", server, question("example.com", dns.TypeA)); !slices.Equal(addresses(got), []string{outside}) {
		t.Errorf("got %v", got)
	}
}

// A cut answer is fetched over TCP, and cut again for a client over UDP.
func TestTruncatingUpstream(t *testing.T) {
	const n = 100
	up := rawUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		for i := range n {
			m.Answer = append(m.Answer, answerA(q, fmt.Sprintf("192.0.2.%d", i)).Answer...)
		}
		if w.LocalAddr().Network() == "udp" {
			m.Truncate(dns.MinMsgSize)
		}
		_ = w.WriteMsg(m)
	})
	server := serve(t, New(Config{Store: world(), Upstreams: up.list}), both)
	if got := exchange(t, "tcp", server, question("example.com", dns.TypeA)); len(got.Answer) != n || got.Truncated {
		t.Errorf("over TCP: %d addresses, truncated %v", len(got.Answer), got.Truncated)
	}
	got := exchange(t, "udp", server, question("example.com", dns.TypeA))
	got.Compress = true
	if got.Len() > dns.MinMsgSize || !got.Truncated || len(got.Answer) == 0 {
		t.Errorf("over UDP: %d bytes, truncated %v", got.Len(), got.Truncated)
	}
	q := question("example.com", dns.TypeA)
	q.SetEdns0(4096, false)
	if got := exchange(t, "udp", server, q); len(got.Answer) != n || got.Truncated {
		t.Errorf("over UDP with EDNS: %d addresses, truncated %v", len(got.Answer), got.Truncated)
	}
}

// A server that knows of no limit over UDP is asked over TCP for what we did not
// take.
func TestOversizedAnswer(t *testing.T) {
	const n = 400
	up := rawUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		for i := range n {
			m.Answer = append(m.Answer, answerA(q, fmt.Sprintf("192.0.%d.%d", i>>8, i&0xff)).Answer...)
		}
		_ = w.WriteMsg(m)
	})
	server := serve(t, New(Config{Store: world(), Upstreams: up.list}), both)
	if got := exchange(t, "tcp", server, question("example.com", dns.TypeA)); len(got.Answer) != n || got.Truncated {
		t.Errorf("%d addresses, truncated %v", len(got.Answer), got.Truncated)
	}
}

// EDNS is between two hops: the upstream sees our size and the client's DO.
func TestForwardEDNS(t *testing.T) {
	up := upstream(t, func(q *dns.Msg) *dns.Msg {
		m := answerA(q, outside)
		if q.IsEdns0() != nil {
			m.SetEdns0(999, true)
		}
		return m
	})
	server := serve(t, New(Config{Store: world(), Upstreams: up.list}), both)
	q := question("example.com", dns.TypeA)
	q.CheckingDisabled = true
	q.SetEdns0(4000, true)
	q.IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_COOKIE{Code: dns.EDNS0COOKIE, Cookie: "0011223344556677"}}
	got := exchange(t, "udp", server, q)
	if opt := got.IsEdns0(); opt == nil || opt.UDPSize() != ednsSize || !opt.Do() || len(got.Extra) != 1 {
		t.Errorf("got %v", got)
	}
	seen := up.queries()[0].msg
	if opt := seen.IsEdns0(); opt == nil || opt.UDPSize() != ednsSize || !opt.Do() || len(opt.Option) != 0 || !seen.CheckingDisabled {
		t.Errorf("upstream saw %v", seen)
	}
	plain := exchange(t, "udp", server, question("example.com", dns.TypeA))
	if plain.IsEdns0() != nil || up.queries()[1].msg.IsEdns0() != nil {
		t.Errorf("EDNS for a client that has none: %v", plain)
	}
}

func TestInternalAsksNobody(t *testing.T) {
	up := upstream(t, func(q *dns.Msg) *dns.Msg { return answerA(q, outside) })
	scope := both
	scope.Internal = true
	server := serve(t, New(Config{Store: world(), Upstreams: up.list}), scope)
	for _, name := range []string{"example.com", "single", "8.8.8.8.in-addr.arpa", "_http._tcp.example.com"} {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeTXT, dns.TypePTR, dns.TypeSRV} {
			if got := exchange(t, "udp", server, question(name, qtype)); got.Rcode != dns.RcodeServerFailure {
				t.Errorf("%s: got %v", name, got)
			}
		}
	}
	if got := addresses(exchange(t, "udp", server, question("my-test", dns.TypeA))); len(got) != 1 {
		t.Errorf("my-test: %v", got)
	}
	if n := len(up.queries()); n != 0 {
		t.Errorf("%d questions left an internal network", n)
	}
}

func TestNdots(t *testing.T) {
	up := upstream(t, func(q *dns.Msg) *dns.Msg { return answerA(q, outside) })
	scope := both
	scope.NdotsSet = true
	server := serve(t, New(Config{Store: world(), Upstreams: up.list}), scope)
	if got := exchange(t, "udp", server, question("single", dns.TypeA)); got.Rcode != dns.RcodeSuccess || len(got.Answer) != 0 {
		t.Errorf("single: %v", got)
	}
	for _, name := range []string{"my-test", "example.com"} {
		if got := exchange(t, "udp", server, question(name, dns.TypeA)); len(got.Answer) != 1 {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// --dns is asked in place of the host's servers, but never the host's loopback.
func TestScopeUpstreams(t *testing.T) {
	up := upstream(t, func(q *dns.Msg) *dns.Msg { return answerA(q, outside) })
	scope := both
	scope.Upstreams = up.list() // 127.0.0.1
	server := serve(t, New(Config{Store: world(), Upstreams: up.list}), scope)
	if got := exchange(t, "udp", server, question("example.com", dns.TypeA)); got.Rcode != dns.RcodeServerFailure || len(up.queries()) != 0 {
		t.Errorf("got %v", got)
	}
	c := New(Config{Store: world(), Upstreams: up.list}).client(Scope{Upstreams: []netip.AddrPort{
		netip.MustParseAddrPort("192.0.2.1:53"), netip.MustParseAddrPort("127.0.0.11:53"), netip.MustParseAddrPort("192.0.2.2:53"),
		netip.MustParseAddrPort("192.0.2.3:53"), netip.MustParseAddrPort("192.0.2.4:53"),
	}})
	if got := c.upstreams(); len(got) != 3 || got[1] != netip.MustParseAddrPort("192.0.2.2:53") {
		t.Errorf("asks %v", got)
	}
}

// The host's resolv.conf may name the server that serves the host.
func TestOwnAddressIsNoUpstream(t *testing.T) {
	var own netip.AddrPort
	s := New(Config{Store: world(), Upstreams: func() []netip.AddrPort { return []netip.AddrPort{own} }})
	udp, tcp := sockets(t)
	own = udp.LocalAddr().(*net.UDPAddr).AddrPort()
	server := serveOn(t, s, Scope{All: true}, udp, tcp)
	if got := exchange(t, "udp", server, question("example.com", dns.TypeA)); got.Rcode != dns.RcodeServerFailure {
		t.Errorf("got %v", got)
	}
	if st := s.Stats(); st.Queries != 1 {
		t.Errorf("the server asked itself: %+v", st)
	}
	c := &client{own: netip.MustParseAddrPort("[::]:53")}
	for a, want := range map[string]bool{"127.0.0.1:53": true, "127.0.0.53:53": true, "127.0.0.1:54": false, "192.0.2.1:53": false, "[::1]:53": true} {
		if c.isOwn(netip.MustParseAddrPort(a)) != want {
			t.Errorf("%s is own: %v", a, !want)
		}
	}
}

func TestNoUpstreams(t *testing.T) {
	for name, list := range map[string]func() []netip.AddrPort{"nil": nil, "none": func() []netip.AddrPort { return nil }} {
		server := serve(t, New(Config{Store: world(), Upstreams: list}), both)
		if got := exchange(t, "udp", server, question("example.com", dns.TypeA)); got.Rcode != dns.RcodeServerFailure {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

// Beyond the cap SERVFAIL comes at once; what is known is answered all the same.
func TestCap(t *testing.T) {
	release := make(chan struct{})
	up := upstream(t, func(q *dns.Msg) *dns.Msg {
		<-release
		return answerA(q, outside)
	})
	const limit = 4
	s := New(Config{Store: world(), Upstreams: up.list, InFlight: 2 * limit, ScopeInFlight: limit})
	one, two, three := serve(t, s, both), serve(t, s, both), serve(t, s, both)
	var wg sync.WaitGroup
	ask := func(server string) {
		wg.Go(func() {
			if got := exchange(t, "udp", server, question("example.com", dns.TypeA)); len(got.Answer) != 1 {
				t.Errorf("within the cap: %v", got)
			}
		})
	}
	for range limit {
		ask(one)
	}
	eventually(t, "the scope's cap is reached", func() bool { return s.Stats().InFlight == limit })
	for range limit {
		ask(two) // has its own
	}
	eventually(t, "the cap is reached", func() bool { return s.Stats().InFlight == 2*limit })
	for _, server := range []string{one, two, three} {
		for _, network := range []string{"udp", "tcp"} {
			if got := exchange(t, network, server, question("example.com", dns.TypeA)); got.Rcode != dns.RcodeServerFailure {
				t.Errorf("beyond the cap: %v", got)
			}
		}
		if got := exchange(t, "udp", server, question("my-test", dns.TypeA)); len(got.Answer) != 1 {
			t.Errorf("my-test: %v", got)
		}
	}
	close(release)
	wg.Wait()
	eventually(t, "none is in flight", func() bool { return s.Stats().InFlight == 0 })
	if got := exchange(t, "udp", three, question("example.com", dns.TypeA)); len(got.Answer) != 1 {
		t.Errorf("afterwards: %v", got)
	}
	if st := s.Stats(); st.Refused != 6 {
		t.Errorf("stats: %+v", st)
	}
}

// Serve ends at once, also with questions in flight and connections open.
func TestServeEnds(t *testing.T) {
	up := upstream(t, func(*dns.Msg) *dns.Msg { return nil })
	s := New(Config{Store: world(), Upstreams: up.list})
	udp, tcp := sockets(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, both, udp, tcp) }()
	conn, err := net.Dial("tcp", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	co := &dns.Conn{Conn: conn}
	_ = co.WriteMsg(question("example.com", dns.TypeA))
	u, err := net.Dial("udp", udp.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	_ = (&dns.Conn{Conn: u}).WriteMsg(question("example.com", dns.TypeA))
	eventually(t, "two questions in flight", func() bool { return s.Stats().InFlight == 2 })

	start := time.Now()
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("took %v to end", took)
	}
	if _, err := udp.WriteTo([]byte{0}, udp.LocalAddr()); err == nil || !strings.Contains(err.Error(), "closed") {
		t.Errorf("the socket is open still: %v", err)
	}
}

// A socket that fails for good is an error, not silence.
func TestServeReportsBrokenSocket(t *testing.T) {
	udp, tcp := sockets(t)
	udp.Close()
	if err := New(Config{Store: directory.NewStore()}).Serve(t.Context(), both, udp, tcp); err == nil {
		t.Error("no error")
	}
}

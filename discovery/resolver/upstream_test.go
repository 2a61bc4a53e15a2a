package resolver

import (
	"net"
	"net/netip"
	"sync"
	"testing"

	"github.com/miekg/dns"
)

// A fakeUpstream is a name server on loopback whose answers a test makes.
type fakeUpstream struct {
	addr netip.AddrPort

	mu    sync.Mutex
	asked []asked
}

// asked is one query that came.
type asked struct {
	msg     *dns.Msg
	network string
	from    netip.AddrPort
}

// list is what Config.Upstreams wants.
func (u *fakeUpstream) list() []netip.AddrPort { return []netip.AddrPort{u.addr} }

func (u *fakeUpstream) queries() []asked {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]asked(nil), u.asked...)
}

// upstream starts a name server that answers with what answer returns, and not
// at all if that is nil, over both UDP and TCP.
func upstream(t testing.TB, answer func(q *dns.Msg) *dns.Msg) *fakeUpstream {
	t.Helper()
	return rawUpstream(t, func(w dns.ResponseWriter, q *dns.Msg) {
		if m := answer(q); m != nil {
			_ = w.WriteMsg(m)
		}
	})
}

// rawUpstream starts a name server that does what handle does.
func rawUpstream(t testing.TB, handle dns.HandlerFunc) *fakeUpstream {
	t.Helper()
	udp, tcp := sockets(t)
	u := &fakeUpstream{addr: udp.LocalAddr().(*net.UDPAddr).AddrPort()}
	record := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		u.mu.Lock()
		u.asked = append(u.asked, asked{q.Copy(), w.LocalAddr().Network(), netip.MustParseAddrPort(w.RemoteAddr().String())})
		u.mu.Unlock()
		handle(w, q)
	})
	for _, srv := range []*dns.Server{{PacketConn: udp, Handler: record}, {Listener: tcp, Handler: record}} {
		started, done := make(chan struct{}), make(chan error, 1)
		srv.NotifyStartedFunc = func() { close(started) }
		go func() { done <- srv.ActivateAndServe() }()
		<-started
		t.Cleanup(func() {
			_ = srv.Shutdown()
			<-done
		})
	}
	return u
}

// deadUpstream is an address at which nothing listens.
func deadUpstream(t testing.TB) netip.AddrPort {
	t.Helper()
	udp, tcp := sockets(t)
	a := udp.LocalAddr().(*net.UDPAddr).AddrPort()
	udp.Close()
	tcp.Close()
	return a
}

// answerA answers q with one address.
func answerA(q *dns.Msg, a string) *dns.Msg {
	m := new(dns.Msg).SetReply(q)
	m.RecursionAvailable = true
	if q.Question[0].Qtype == dns.TypeA {
		m.Answer = []dns.RR{&dns.A{
			Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 300},
			A:   net.ParseIP(a),
		}}
	}
	return m
}

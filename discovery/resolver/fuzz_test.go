package resolver

import (
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// FuzzQuery feeds packets to the part that meets them first. Whatever comes, the
// answer is one to that packet, fits, and can be read.
func FuzzQuery(f *testing.F) {
	for _, name := range []string{"my-test", "tasks.my-test.ngx_net", "_http._tcp.my-test", "3.0.10.10.in-addr.arpa", "example.com", "."} {
		for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypePTR, dns.TypeSRV, dns.TypeANY} {
			q := question(name, qtype)
			f.Add(mustPack(f, q), false)
			f.Add(mustPack(f, q.SetEdns0(1232, true)), true)
		}
	}
	c := New(Config{Store: world()}).client(both)
	f.Fuzz(func(t *testing.T, packet []byte, tcp bool) {
		q, reply := c.read(packet, tcp)
		size := dns.MinMsgSize
		if q != nil {
			if reply != nil {
				t.Fatal("both a query and a refusal")
			}
			size = q.size
			if reply = c.answer(q); reply == nil {
				reply = q.failure(dns.RcodeServerFailure)
			}
		}
		if reply == nil {
			return
		}
		wire := pack(reply, size, nil)
		got := new(dns.Msg)
		if err := got.Unpack(wire); err != nil || len(wire) > size {
			t.Fatalf("%d bytes, at most %d: %v", len(wire), size, err)
		}
		if !got.Response || wire[0] != packet[0] || wire[1] != packet[1] {
			t.Errorf("%v is no answer to %x", got, packet)
		}
		if q != nil && (len(got.Question) != 1 || got.Question[0] != q.q) {
			t.Errorf("question %v came back as %v", q.q, got.Question)
		}
	})
}

// FuzzAnswer feeds packets to what reads upstreams' answers. What fits can be
// handed on.
func FuzzAnswer(f *testing.F) {
	c := New(Config{Store: world()}).client(both)
	packet := mustPack(f, question("example.com", dns.TypeA).SetEdns0(1232, false))
	q, _ := c.read(packet, false)
	ask := q.ask()
	ask.Id = 0x1234
	f.Add(mustPack(f, answerA(ask, "192.0.2.1")))
	f.Add(mustPack(f, new(dns.Msg).SetRcode(ask, dns.RcodeNameError)))
	f.Add([]byte{0x12, 0x34, 0x80, 0x01, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{0x12, 0x34, 0x82, 0x01, 0, 1, 0, 9, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, packet []byte) {
		m := fitting(ask, packet)
		if m == nil {
			return
		}
		if m.Id != ask.Id || !m.Response {
			t.Fatalf("%v is no answer to %v", m, ask)
		}
		wire := pack(q.relay(m), q.size, nil)
		got := new(dns.Msg)
		if err := got.Unpack(wire); err != nil || len(wire) > q.size {
			t.Fatalf("%d bytes: %v", len(wire), err)
		}
		if got.Id != q.msg.Id || got.Question[0] != q.q {
			t.Errorf("handed on as %v", got)
		}
	})
}

func FuzzReverseAddr(f *testing.F) {
	f.Add("9.0.10.10.in-addr.arpa")
	f.Add("1." + strings.Repeat("0.", 29) + "d.f.ip6.arpa")
	f.Fuzz(func(t *testing.T, name string) {
		a, ok := reverseAddr(name)
		if !ok {
			return
		}
		back, err := dns.ReverseAddr(a.String())
		// An IPv4 address within IPv6 has two reverse names.
		if err != nil || back != strings.ToLower(name)+"." && !a.Is4In6() {
			t.Errorf("%q is %v, whose name is %q", name, a, back)
		}
	})
}

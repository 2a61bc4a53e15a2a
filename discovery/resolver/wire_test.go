package resolver

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/ovnd/ovnd/discovery/directory"
)

// raw sends bytes over UDP and returns the answer, nil if none comes before
// that to a query sent right after.
func raw(t *testing.T, server string, packet []byte) []byte {
	t.Helper()
	conn, err := net.Dial("udp", server)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	after := question("my-test", dns.TypeA)
	after.Id = 0xfefe
	wire, err := after.Pack()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range [][]byte{packet, wire} {
		if _, err := conn.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	buf := make([]byte, dns.MaxMsgSize)
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	if binary.BigEndian.Uint16(buf) == after.Id {
		return nil
	}
	return buf[:n]
}

func mustPack(t testing.TB, m *dns.Msg) []byte {
	t.Helper()
	wire, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return wire
}

func TestRefusals(t *testing.T) {
	s := New(Config{Store: world(), Upstreams: nil})
	server := serve(t, s, both)
	edit := func(f func(m *dns.Msg)) []byte {
		m := question("my-test", dns.TypeA)
		m.Id = 0x1234
		f(m)
		return mustPack(t, m)
	}
	const silence = -1
	for _, tc := range []struct {
		name   string
		packet []byte
		want   int
	}{
		{"nothing", nil, silence},
		{"short", []byte{0x12, 0x34, 0, 0, 0, 1, 0, 0, 0, 0, 0}, silence},
		{"an answer", edit(func(m *dns.Msg) { m.Response = true }), silence},
		{"header alone", []byte{0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, dns.RcodeFormatError},
		{"no question", edit(func(m *dns.Msg) { m.Question = nil }), dns.RcodeFormatError},
		{"two questions", edit(func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }), dns.RcodeFormatError},
		{"cut", edit(func(*dns.Msg) {})[:20], dns.RcodeFormatError},
		{"name that points at itself", append([]byte{0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, 0xc0, 12, 0, 1, 0, 1), dns.RcodeFormatError},
		{"status", edit(func(m *dns.Msg) { m.Opcode = dns.OpcodeStatus }), dns.RcodeNotImplemented},
		{"update", edit(func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }), dns.RcodeNotImplemented},
		{"notify", edit(func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }), dns.RcodeNotImplemented},
		{"class CH", edit(func(m *dns.Msg) {
			m.SetQuestion("version.bind.", dns.TypeTXT)
			m.Id = 0x1234
			m.Question[0].Qclass = dns.ClassCHAOS
		}), dns.RcodeRefused},
		{"class ANY", edit(func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassANY }), dns.RcodeRefused},
		{"AXFR", edit(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeAXFR }), dns.RcodeRefused},
		{"OPT as a type", edit(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeOPT }), dns.RcodeFormatError},
		{"two OPTs", edit(func(m *dns.Msg) { m.SetEdns0(4096, false).SetEdns0(4096, false) }), dns.RcodeFormatError},
		{"EDNS 1", edit(func(m *dns.Msg) { m.SetEdns0(4096, false).IsEdns0().SetVersion(1) }), dns.RcodeBadVers},
		{"unknown EDNS option", edit(func(m *dns.Msg) {
			m.SetEdns0(4096, false).IsEdns0().Option = []dns.EDNS0{&dns.EDNS0_LOCAL{Code: 65001, Data: []byte("x")}}
		}), dns.RcodeSuccess},
	} {
		got := raw(t, server, tc.packet)
		if tc.want == silence || got == nil {
			if got != nil || tc.want != silence {
				t.Errorf("%s: answered with %x", tc.name, got)
			}
			continue
		}
		m := new(dns.Msg)
		if err := m.Unpack(got); err != nil {
			t.Errorf("%s: %v", tc.name, err)
		} else if m.Rcode != tc.want || m.Id != 0x1234 || !m.Response {
			t.Errorf("%s: got %v, want %s", tc.name, m, dns.RcodeToString[tc.want])
		}
	}
	if st := s.Stats(); st.Queries != st.Local+st.Forwarded+st.Refused+st.Malformed {
		t.Errorf("not each query is counted once: %+v", st)
	}
}

// A frame over TCP that is no query ends the connection or gets a code; a frame
// that is too long ends it.
func TestBadFrames(t *testing.T) {
	server := serve(t, New(Config{Store: world()}), both)
	for name, frame := range map[string][]byte{
		"too long": {0xff, 0xff, 1, 2, 3},
		"empty":    {0, 0},
		"short":    {0, 3, 1, 2, 3},
		"answer":   {0, 12, 1, 2, 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0},
	} {
		conn, err := net.Dial("tcp", server)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(patience))
		if _, err := conn.Write(frame); err != nil {
			t.Fatal(err)
		}
		if n, err := conn.Read(make([]byte, 1)); n != 0 || isTimeout(err) {
			t.Errorf("%s: %d bytes came, %v", name, n, err)
		}
	}
}

// Several queries on one connection are answered in their order.
func TestPipelining(t *testing.T) {
	server := serve(t, New(Config{Store: world()}), both)
	conn, err := net.Dial("tcp", server)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	co := &dns.Conn{Conn: conn}
	var ids []uint16
	for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeA} {
		q := question("my-test", qtype)
		ids = append(ids, q.Id)
		if err := co.WriteMsg(q); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range ids {
		if m, err := co.ReadMsg(); err != nil || m.Id != id || m.Rcode != dns.RcodeSuccess {
			t.Fatalf("got %v, %v", m, err)
		}
	}
}

// Connections beyond the cap wait until one ends.
func TestConnectionCap(t *testing.T) {
	server := serve(t, New(Config{Store: world(), Connections: 2}), both)
	var held []net.Conn
	for range 2 {
		conn, err := net.Dial("tcp", server)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		co := &dns.Conn{Conn: conn}
		_ = co.WriteMsg(question("my-test", dns.TypeA))
		if _, err := co.ReadMsg(); err != nil {
			t.Fatal(err)
		}
		held = append(held, conn)
	}
	third, err := net.Dial("tcp", server)
	if err != nil {
		t.Fatal(err)
	}
	defer third.Close()
	co := &dns.Conn{Conn: third}
	_ = co.WriteMsg(question("my-test", dns.TypeA))
	_ = third.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if m, err := co.ReadMsg(); err == nil {
		t.Fatalf("beyond the cap: %v", m)
	}
	held[0].Close()
	_ = third.SetReadDeadline(time.Now().Add(patience))
	if m, err := co.ReadMsg(); err != nil || len(m.Answer) != 1 {
		t.Errorf("after one ended: %v, %v", m, err)
	}
}

// crowd is a dnsrr service of n tasks.
func crowd(n int) *directory.Store {
	s := directory.NewStore()
	var eps []*directory.Endpoint
	for i := range n {
		eps = append(eps, task("crowd", "", i, fmt.Sprintf("10.%d.%d.%d", 10+i>>16, i>>8&0xff, i&0xff)))
	}
	network(s, "ngx_net", "10.0.0.0/8", 1, eps...)
	return s
}

// Answers are cut to what the client takes, whole records only, and say so.
func TestTruncation(t *testing.T) {
	const tasks = 400
	server := serve(t, New(Config{Store: crowd(tasks)}), both)
	for _, tc := range []struct {
		edns uint16 // 0: none
		most int    // bytes
	}{{0, 512}, {100, 512}, {512, 512}, {1232, 1232}, {4096, 4096}, {65535, maxUDPSize}} {
		q := question("crowd", dns.TypeA)
		if tc.edns > 0 {
			q.SetEdns0(tc.edns, false)
		}
		got := raw(t, server, mustPack(t, q))
		m := new(dns.Msg)
		if err := m.Unpack(got); err != nil {
			t.Fatal(err)
		}
		// 16 bytes each, and a few are lost to the header.
		if len(got) > tc.most || !m.Truncated || len(m.Answer) < (tc.most-64)/16 || m.IsEdns0() != nil != (tc.edns > 0) {
			t.Errorf("EDNS size %d: %d bytes, %d records, truncated %v", tc.edns, len(got), len(m.Answer), m.Truncated)
		}
	}
	q := question("crowd", dns.TypeA)
	q.SetEdns0(4096, true)
	if m := exchange(t, "tcp", server, q); len(m.Answer) != tasks || m.Truncated || !m.IsEdns0().Do() {
		t.Errorf("over TCP: %d records, truncated %v", len(m.Answer), m.Truncated)
	}
}

// More than a TCP message holds is cut too, each time to others.
func TestTruncationOverTCP(t *testing.T) {
	server := serve(t, New(Config{Store: crowd(6000)}), both)
	m := exchange(t, "tcp", server, question("tasks.crowd", dns.TypeA))
	if !m.Truncated || len(m.Answer) < 4000 {
		t.Errorf("%d records, truncated %v", len(m.Answer), m.Truncated)
	}
	seen := make(map[string]bool)
	for range 6 {
		for _, a := range addresses(exchange(t, "udp", server, question("tasks.crowd", dns.TypeA))) {
			seen[a] = true
		}
	}
	if len(seen) < 100 {
		t.Errorf("six cut answers had %d addresses", len(seen))
	}
	s := exchange(t, "tcp", server, question("_80._tcp.crowd", dns.TypeSRV))
	if s.Rcode != dns.RcodeSuccess {
		t.Errorf("SRV: %v", s)
	}
}

// What musl does: A and AAAA from one socket at once; the answers come in any
// order, and both have to be NOERROR for the name to have its A.
func TestParallelAAndAAAA(t *testing.T) {
	up := upstream(t, func(q *dns.Msg) *dns.Msg { return answerA(q, outside) })
	server := serve(t, New(Config{Store: world(), Upstreams: up.list}), both)
	for _, name := range []string{"my-test", "tasks.my-test", "rr", "my-test.ngx_net", "host1-my-test", "example.com"} {
		conn, err := net.Dial("udp", server)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(patience))
		a, aaaa := question(name, dns.TypeA), question(name, dns.TypeAAAA)
		a.Id, aaaa.Id = 1, 2
		for _, q := range []*dns.Msg{a, aaaa} {
			if _, err := conn.Write(mustPack(t, q)); err != nil {
				t.Fatal(err)
			}
		}
		answers := make(map[uint16]int)
		for range 2 {
			buf := make([]byte, dns.MinMsgSize) // as musl has it
			n, err := conn.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			m := new(dns.Msg)
			if err := m.Unpack(buf[:n]); err != nil || m.Rcode != dns.RcodeSuccess {
				t.Errorf("%s: %v, %v", name, m, err)
			}
			answers[m.Id] = len(m.Answer)
		}
		if answers[1] == 0 || answers[2] != 0 {
			t.Errorf("%s: answers %v", name, answers)
		}
	}
}

func TestReadFrame(t *testing.T) {
	r, w := net.Pipe()
	defer r.Close()
	go func() {
		_, _ = w.Write([]byte{0, 3, 'a', 'b', 'c', 0, 5, 'd'})
		w.Close()
	}()
	buf := make([]byte, 8)
	if n, err := readFrame(r, buf); err != nil || string(buf[:n]) != "abc" {
		t.Errorf("%q, %v", buf[:n], err)
	}
	if _, err := readFrame(r, buf); err != io.ErrUnexpectedEOF {
		t.Errorf("a frame that is cut: %v", err)
	}
}

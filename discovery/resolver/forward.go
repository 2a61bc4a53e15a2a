package resolver

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	// totalTimeout bounds all upstreams together: a stub has asked twice by then
	// and given up.
	totalTimeout = 10 * time.Second
	// maxBogus wrong answers look like somebody guessing: the upstream is asked
	// over TCP then, where guessing is harder.
	maxBogus = 16
	// sickFor is how long an upstream that was silent is asked last.
	sickFor = 15 * time.Second
	maxSick = 64 // upstreams that are remembered so
)

var (
	errBogus  = errors.New("too many wrong answers")
	errRefuse = errors.New("the server has no answer")
)

// forward asks the upstreams in turn. It always has an answer: SERVFAIL if they
// have none. The caller holds the tokens.
func (c *client) forward(ctx context.Context, q *query) *dns.Msg {
	ctx, cancel := context.WithTimeout(ctx, totalTimeout)
	defer cancel()
	for _, server := range c.s.health.order(c.upstreams(), time.Now()) {
		answer, err := c.s.exchange(ctx, server, q)
		switch {
		case err == nil:
			c.s.health.well(server)
			return q.relay(answer)
		case errors.Is(err, errRefuse):
			c.s.health.well(server)
		case ctx.Err() == nil:
			c.s.stats.silent.Add(1)
			if c.s.health.ill(server, time.Now()) {
				c.s.log.Warn("name server does not answer", "server", server, "error", err)
			}
		}
	}
	c.s.stats.failed.Add(1)
	return q.failure(dns.RcodeServerFailure)
}

// upstreams returns whom to ask, at most three.
func (c *client) upstreams() []netip.AddrPort {
	list := c.scope.Upstreams
	if list == nil && c.s.cfg.Upstreams != nil {
		list = c.s.cfg.Upstreams()
	}
	out := make([]netip.AddrPort, 0, maxUpstreams)
	for _, a := range list {
		inside := c.scope.Upstreams != nil && a.Addr().IsLoopback()
		if len(out) < maxUpstreams && !inside && !c.isOwn(a) {
			out = append(out, a)
		}
	}
	return out
}

// isOwn reports whether a question sent to a would come back here: the host's
// resolv.conf may name the address that is served.
func (c *client) isOwn(a netip.AddrPort) bool {
	if !c.own.IsValid() || a.Port() != c.own.Port() {
		return false
	}
	if !c.own.Addr().IsUnspecified() {
		return a.Addr() == c.own.Addr()
	}
	if a.Addr().IsLoopback() || a.Addr().IsUnspecified() {
		return true
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, own := range addrs {
		if p, err := netip.ParsePrefix(own.String()); err == nil && p.Addr() == a.Addr() {
			return true
		}
	}
	return false
}

// relay returns an upstream's answer as the answer to q.
func (q *query) relay(answer *dns.Msg) *dns.Msg {
	m := q.reply()
	m.Rcode = answer.Rcode
	m.Truncated = answer.Truncated
	m.AuthenticatedData = answer.AuthenticatedData
	m.Answer, m.Ns = answer.Answer, answer.Ns
	for _, rr := range answer.Extra {
		if rr.Header().Rrtype != dns.TypeOPT { // between two hops only
			m.Extra = append(m.Extra, rr)
		}
	}
	return m
}

// ask returns the query to an upstream: the client's question with what it says
// about recursion and DNSSEC, and an ID of its own.
func (q *query) ask() *dns.Msg {
	var id [2]byte
	_, _ = rand.Read(id[:]) // never fails
	m := new(dns.Msg)
	m.Id = binary.BigEndian.Uint16(id[:])
	m.Question = []dns.Question{q.q}
	m.RecursionDesired = q.msg.RecursionDesired
	m.CheckingDisabled = q.msg.CheckingDisabled
	m.AuthenticatedData = q.msg.AuthenticatedData
	if q.opt != nil {
		m.SetEdns0(ednsSize, q.opt.Do())
	}
	return m
}

// exchange asks one upstream, over UDP and, if the answer was cut, over TCP.
func (s *Server) exchange(ctx context.Context, server netip.AddrPort, q *query) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	ask := q.ask()
	wire, err := ask.Pack()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errRefuse, err) // it would not be another's
	}
	answer, err := s.overUDP(ctx, server, ask, wire)
	if errors.Is(err, errBogus) || err == nil && answer.Truncated {
		long, tcpErr := s.overTCP(ctx, server, ask, wire)
		if tcpErr == nil {
			answer, err = long, nil
		}
	}
	if err != nil {
		return nil, err
	}
	if answer.Rcode == dns.RcodeServerFailure || answer.Rcode == dns.RcodeRefused || len(answer.Question) == 0 {
		return nil, errRefuse
	}
	return answer, nil
}

// overUDP sends wire from a socket of its own, again when a third of the time
// has passed and again after two, and returns the first answer that fits.
func (s *Server) overUDP(ctx context.Context, server netip.AddrPort, ask *dns.Msg, wire []byte) (*dns.Msg, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "udp", server.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()

	const (
		sends     = 3
		truncated = 1 << 1 // TC, in the third byte
	)
	buf := make([]byte, maxQuery)
	bogus := 0
	for range sends {
		if _, err := conn.Write(wire); err != nil {
			return nil, err
		}
		_ = conn.SetReadDeadline(time.Now().Add(s.cfg.Timeout / sends))
		for {
			n, err := conn.Read(buf)
			if isTimeout(err) {
				break
			}
			if err != nil {
				return nil, err
			}
			if n == len(buf) {
				buf[2] |= truncated // by us
			}
			if answer := fitting(ask, buf[:n]); answer != nil {
				return answer, nil
			}
			s.stats.bogus.Add(1)
			if bogus++; bogus == maxBogus {
				return nil, errBogus
			}
		}
	}
	return nil, context.DeadlineExceeded
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

func (s *Server) overTCP(ctx context.Context, server netip.AddrPort, ask *dns.Msg, wire []byte) (*dns.Msg, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", server.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()

	frame := append(binary.BigEndian.AppendUint16(nil, uint16(len(wire))), wire...)
	if _, err := conn.Write(frame); err != nil {
		return nil, err
	}
	var length [2]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		return nil, err
	}
	buf := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(conn, buf); err != nil {
		return nil, err
	}
	answer := fitting(ask, buf)
	if answer == nil {
		s.stats.bogus.Add(1)
		return nil, errBogus
	}
	return answer, nil
}

// fitting returns packet if it is an answer to ask, nil otherwise. One that says
// that the server could not even read the question need not repeat it.
func fitting(ask *dns.Msg, packet []byte) *dns.Msg {
	m := new(dns.Msg)
	if err := m.Unpack(packet); err != nil && !m.Truncated {
		return nil
	}
	if m.Id != ask.Id || !m.Response || m.Opcode != dns.OpcodeQuery {
		return nil
	}
	if len(m.Question) == 0 && m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
		return m
	}
	if len(m.Question) != 1 {
		return nil
	}
	got, want := m.Question[0], ask.Question[0]
	if got.Qtype != want.Qtype || got.Qclass != want.Qclass || !strings.EqualFold(got.Name, want.Name) {
		return nil
	}
	return m
}

// upstreamHealth remembers which upstreams were silent.
type upstreamHealth struct {
	mu   sync.Mutex
	sick map[netip.AddrPort]time.Time // until when; at most maxSick
}

// order returns servers with those that were silent of late behind the others.
func (h *upstreamHealth) order(servers []netip.AddrPort, now time.Time) []netip.AddrPort {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.sick) == 0 {
		return servers
	}
	var first, last []netip.AddrPort
	for _, a := range servers {
		if until, ok := h.sick[a]; ok && now.Before(until) {
			last = append(last, a)
		} else {
			first = append(first, a)
		}
	}
	return append(first, last...)
}

// ill notes that a did not answer, and reports whether that is news.
func (h *upstreamHealth) ill(a netip.AddrPort, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, known := h.sick[a]
	if !known && len(h.sick) >= maxSick {
		for other, until := range h.sick {
			if !now.Before(until) {
				delete(h.sick, other)
			}
		}
		if len(h.sick) >= maxSick {
			return false
		}
	}
	h.sick[a] = now.Add(sickFor)
	return !known
}

// well notes that a did answer.
func (h *upstreamHealth) well(a netip.AddrPort) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.sick, a)
}

package resolver

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// answer returns the answer to q if it is known here, nil if others are to be
// asked.
func (c *client) answer(q *query) *dns.Msg {
	reply := c.known(q)
	if reply == nil {
		reply = c.unknown(q)
		if reply != nil {
			c.s.stats.refused.Add(1)
		}
		return reply
	}
	c.s.stats.local.Add(1)
	return reply
}

// known answers from the directory and the scope's own names.
func (c *client) known(q *query) *dns.Msg {
	if strings.ContainsRune(q.name, '\\') {
		return nil // an escape: no name of ours has any
	}
	if addrs, ok := c.names[q.name]; ok {
		return c.addresses(q, addrs, 0)
	}
	var room [8]*index
	networks := c.networks(room[:0])
	if addr, ok := reverseAddr(q.name); ok {
		return c.reverse(q, networks, addr)
	}
	if r, on := find(networks, q.name); r != nil {
		return c.addresses(q, append(slices.Clip(r.v4), r.v6...), on.snap.Version)
	}
	return c.service(q, networks)
}

// networks appends the indexes of the client's networks to list, in order.
func (c *client) networks(list []*index) []*index {
	if c.scope.All {
		for _, snap := range c.s.cfg.Store.Networks() {
			if ix := c.s.indexes.of(snap.ID); ix != nil {
				list = append(list, ix)
			}
		}
		return list
	}
	for _, id := range c.scope.Networks {
		if ix := c.s.indexes.of(id); ix != nil {
			list = append(list, ix)
		}
	}
	return list
}

// unknown decides what becomes of a question about a name that is not ours: nil
// has it passed on.
func (c *client) unknown(q *query) *dns.Msg {
	if c.scope.Internal {
		return q.failure(dns.RcodeServerFailure)
	}
	if strings.Contains(q.name, ".") {
		return nil
	}
	if c.scope.NdotsSet && (q.q.Qtype == dns.TypeA || q.q.Qtype == dns.TypeAAAA) {
		return q.reply()
	}
	for _, id := range c.scope.Networks {
		if c.s.cfg.Store.Load(id) == nil {
			// Ours, maybe: nobody else is to say that it does not exist.
			return q.failure(dns.RcodeServerFailure)
		}
	}
	return nil
}

// addresses answers a question about a name that has these addresses, with
// those of the wanted family, or none.
func (c *client) addresses(q *query, addrs []netip.Addr, version uint64) *dns.Msg {
	reply := q.reply()
	reply.Answer = addressRecords(q.q.Name, q.q.Qtype, addrs, q.mostRecords())
	return withSOA(reply, version)
}

// addressRecords returns a record for each address that a question of type
// qtype is about, in a new order; at most so many.
func addressRecords(name string, qtype uint16, addrs []netip.Addr, most int) []dns.RR {
	var out []dns.RR
	header := dns.RR_Header{Name: name, Class: dns.ClassINET, Ttl: ttl}
	for _, a := range shuffled(addrs) {
		switch {
		case len(out) == most:
			return out
		case a.Is4() && (qtype == dns.TypeA || qtype == dns.TypeANY):
			header.Rrtype = dns.TypeA
			out = append(out, &dns.A{Hdr: header, A: net.IP(a.AsSlice())})
		case a.Is6() && (qtype == dns.TypeAAAA || qtype == dns.TypeANY):
			header.Rrtype = dns.TypeAAAA
			out = append(out, &dns.AAAA{Hdr: header, AAAA: net.IP(a.AsSlice())})
		}
	}
	return out
}

// mostRecords is one more than fit into an answer, so that it is cut, and seen
// to be. Of more, each answer has others.
func (q *query) mostRecords() int {
	const least = 16 // bytes: an A record with a compressed name
	return q.size/least + 1
}

// shuffled returns a copy of list in another order.
func shuffled[T any](list []T) []T {
	if len(list) < 2 {
		return list
	}
	out := make([]T, len(list))
	for i, j := range rand.Perm(len(list)) {
		out[i] = list[j]
	}
	return out
}

// withSOA adds the record that says how long the answer may be kept, if it has
// no other (RFC 2308 §3). The name asked for is its own zone: whatever the name
// above it is, it is not ours. The serial is the version of the network.
func withSOA(reply *dns.Msg, version uint64) *dns.Msg {
	if len(reply.Answer) > 0 {
		return reply
	}
	reply.Ns = append(reply.Ns, &dns.SOA{
		Hdr:    dns.RR_Header{Name: reply.Question[0].Name, Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: ttl},
		Ns:     "ovnd.",
		Mbox:   "hostmaster.ovnd.",
		Serial: uint32(version), Refresh: ttl, Retry: ttl, Expire: ttl, Minttl: ttl,
	})
	return reply
}

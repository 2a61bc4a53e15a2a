package resolver

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

const (
	reverse4 = ".in-addr.arpa" // RFC 1035 §3.5
	reverse6 = ".ip6.arpa"     // RFC 3596 §2.5
)

// reverseAddr returns the address that a reverse name, in lower case and without
// the final dot, stands for. Names of whole ranges stand for none.
func reverseAddr(name string) (netip.Addr, bool) {
	if labels, ok := strings.CutSuffix(name, reverse4); ok {
		return reverseAddr4(strings.Split(labels, "."))
	}
	if labels, ok := strings.CutSuffix(name, reverse6); ok {
		return reverseAddr6(strings.Split(labels, "."))
	}
	return netip.Addr{}, false
}

func reverseAddr4(labels []string) (netip.Addr, bool) {
	var a [4]byte
	if len(labels) != len(a) {
		return netip.Addr{}, false
	}
	for i, label := range labels {
		n, err := strconv.ParseUint(label, 10, 8)
		if err != nil || strconv.FormatUint(n, 10) != label {
			return netip.Addr{}, false
		}
		a[len(a)-1-i] = byte(n)
	}
	return netip.AddrFrom4(a), true
}

func reverseAddr6(labels []string) (netip.Addr, bool) {
	var a [16]byte
	if len(labels) != 2*len(a) {
		return netip.Addr{}, false
	}
	for i, label := range labels {
		n, err := strconv.ParseUint(label, 16, 4)
		if err != nil || len(label) != 1 {
			return netip.Addr{}, false
		}
		// The last digit comes first: the low half of the last byte.
		a[len(a)-1-i/2] |= byte(n) << (4 * (i % 2))
	}
	return netip.AddrFrom16(a), true
}

// reverse answers a question about the reverse name of addr, nil if addr is none
// of the networks'.
func (c *client) reverse(q *query, networks []*index, addr netip.Addr) *dns.Msg {
	var ours *index
	for _, ix := range networks {
		if name, ok := ix.reverse[addr]; ok {
			reply := q.reply()
			if q.q.Qtype == dns.TypePTR || q.q.Qtype == dns.TypeANY {
				reply.Answer = []dns.RR{&dns.PTR{
					Hdr: dns.RR_Header{Name: q.q.Name, Rrtype: dns.TypePTR, Class: dns.ClassINET, Ttl: ttl},
					Ptr: name,
				}}
			}
			return withSOA(reply, ix.snap.Version)
		}
		if ours == nil && ix.snap.Contains(addr) {
			ours = ix
		}
	}
	if ours == nil {
		return nil
	}
	reply := q.reply()
	reply.Rcode = dns.RcodeNameError
	return withSOA(reply, ours.snap.Version)
}

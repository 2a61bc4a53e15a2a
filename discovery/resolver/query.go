package resolver

import (
	"encoding/binary"
	"strings"

	"github.com/miekg/dns"
)

const (
	headerLen = 12 // bytes
	// maxUDPSize is the largest answer over UDP, whatever the client says: it is
	// asked for over TCP then.
	maxUDPSize = 4096
	// ednsSize is what we say that we take (RFC 9715 §3.1).
	ednsSize = 1232
)

// A query is one question that makes sense.
type query struct {
	msg  *dns.Msg
	opt  *dns.OPT     // nil: the client knows no EDNS
	name string       // in lower case, without the final dot
	size int          // bytes that the answer may have
	q    dns.Question // as asked
}

// read makes a query of a message that came over UDP, or over TCP. If it is
// none, or none that anybody here answers, q is nil, and reply says so, unless
// that is nil as well: then silence is right.
func (c *client) read(packet []byte, tcp bool) (q *query, reply *dns.Msg) {
	const response = 1 << 7 // QR, in the third byte
	if len(packet) < headerLen || packet[2]&response != 0 {
		c.s.stats.malformed.Add(1)
		return nil, nil // an answer to an answer would make a loop
	}
	if opcode := int(packet[2]>>3) & 0xf; opcode != dns.OpcodeQuery {
		c.s.stats.refused.Add(1)
		return nil, headerOnly(packet, dns.RcodeNotImplemented)
	}
	msg := new(dns.Msg)
	if err := msg.Unpack(packet); err != nil || len(msg.Question) != 1 {
		c.s.stats.malformed.Add(1)
		return nil, headerOnly(packet, dns.RcodeFormatError)
	}
	q = &query{msg: msg, q: msg.Question[0]}
	q.name = strings.ToLower(strings.TrimSuffix(q.q.Name, "."))
	opts := 0
	for _, rr := range msg.Extra {
		if opt, ok := rr.(*dns.OPT); ok {
			opts++
			q.opt = opt
		}
	}
	if q.size = dns.MaxMsgSize; !tcp {
		q.size = q.udpSize()
	}
	if reply = q.refusal(opts); reply != nil {
		c.s.stats.refused.Add(1)
		return nil, reply
	}
	return q, nil
}

// refusal is the answer to questions that nobody here or upstream is asked.
func (q *query) refusal(opts int) *dns.Msg {
	switch {
	case opts > 1: // RFC 6891 §6.1.1
		return q.failure(dns.RcodeFormatError)
	case opts == 1 && q.opt.Version() != 0: // RFC 6891 §6.1.3
		return q.failure(dns.RcodeBadVers)
	case q.q.Qclass != dns.ClassINET:
		return q.failure(dns.RcodeRefused)
	}
	switch q.q.Qtype {
	case dns.TypeNone, dns.TypeOPT, dns.TypeTSIG, dns.TypeTKEY:
		return q.failure(dns.RcodeFormatError)
	case dns.TypeAXFR, dns.TypeIXFR, dns.TypeMAILA, dns.TypeMAILB:
		return q.failure(dns.RcodeRefused)
	}
	return nil
}

// udpSize is how long an answer over UDP may be, in bytes.
func (q *query) udpSize() int {
	if q.opt == nil {
		return dns.MinMsgSize
	}
	return min(max(int(q.opt.UDPSize()), dns.MinMsgSize), maxUDPSize)
}

// reply returns an empty answer to q.
func (q *query) reply() *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(q.msg)
	m.RecursionAvailable = true
	if q.opt != nil {
		opt := &dns.OPT{Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeOPT}}
		opt.SetUDPSize(ednsSize)
		if q.opt.Do() {
			opt.SetDo() // RFC 3225 §3 wants it back; nothing here is signed
		}
		m.Extra = append(m.Extra, opt)
	}
	return m
}

// failure returns an answer with nothing but a code. Docker does not say there
// that recursion is available.
func (q *query) failure(rcode int) *dns.Msg {
	m := q.reply()
	m.Rcode, m.RecursionAvailable = rcode, false
	return m
}

// headerOnly answers a message of which nothing behind the header is sure.
func headerOnly(packet []byte, rcode int) *dns.Msg {
	m := new(dns.Msg)
	m.Id = binary.BigEndian.Uint16(packet)
	m.Response = true
	m.Opcode = int(packet[2]>>3) & 0xf
	m.RecursionDesired = packet[2]&1 != 0
	m.Rcode = rcode
	return m
}

// pack returns the bytes of m, cut to size with TC set if it is longer, in out
// if there is room. What cannot be packed, because an upstream said something
// that we read but cannot write, becomes SERVFAIL; nil if not even that can be.
func pack(m *dns.Msg, size int, out []byte) []byte {
	m.Truncate(size)
	if packed, err := m.PackBuffer(out[:cap(out)]); err == nil {
		return packed
	}
	failed := new(dns.Msg)
	failed.SetRcode(m, dns.RcodeServerFailure)
	packed, err := failed.PackBuffer(out[:cap(out)])
	if err != nil {
		return nil
	}
	return packed
}

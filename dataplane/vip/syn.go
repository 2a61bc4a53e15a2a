package vip

import "github.com/ovnd/ovnd/encap"

// Options of a TCP header.
const (
	optionEnd  = 0
	optionNop  = 1
	optionMD5  = 19 // RFC 2385
	optionAuth = 29 // RFC 5925
)

// begins reports whether a TCP segment begins a connection that the table may
// carry: a SYN that whoever listens must answer. A backend is silent to what is
// damaged, has IP options, or is signed with a key that it does not have; on such a
// client's word it would seem dead to all others.
func (p *packet) begins() bool {
	const kinds = encap.TCPFlagSYN | encap.TCPFlagACK | encap.TCPFlagRST | encap.TCPFlagFIN
	t := p.tcp()
	if t.Flags()&kinds != encap.TCPFlagSYN || p.isFragment() || p.isSigned() {
		return false
	}
	ip := encap.IP{Packet: p.b, Transport: p.at, Protocol: p.protocol}
	if p.v6 {
		if p.at != encap.IPv6HeaderLen {
			return false
		}
	} else if p.at != encap.IPv4HeaderLen || !encap.IPv4(p.b).ChecksumOK() {
		return false
	}
	return p.partial || encap.Checksum(p.b[p.at:], ip.PseudoSum(len(p.b)-p.at)) == 0
}

// isSigned reports whether a TCP header has an option with a signature, or options
// that cannot be read.
func (p *packet) isSigned() bool {
	t := p.tcp()
	if t.HeaderLen() > len(t) {
		return true
	}
	for o := t.Options(); len(o) > 0; {
		switch o[0] {
		case optionEnd:
			return false
		case optionNop:
			o = o[1:]
			continue
		case optionMD5, optionAuth:
			return true
		}
		if len(o) < 2 || o[1] < 2 || int(o[1]) > len(o) {
			return true
		}
		o = o[o[1]:]
	}
	return false
}

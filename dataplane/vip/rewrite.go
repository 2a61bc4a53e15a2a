package vip

import (
	"encoding/binary"
	"net/netip"

	"github.com/ovnd/ovnd/dataplane/pkt"
	"github.com/ovnd/ovnd/encap"
)

// A packet is a super-packet whose headers were found. Its end may lie elsewhere:
// what a joiner has put together comes in pieces.
type packet struct {
	b        []byte // from the IP header on
	at       int    // offset of the transport header
	v6       bool
	protocol uint8
	partial  bool // the transport checksum is the sum of the pseudo-header alone
	offset   int  // of a fragment, in bytes
	more     bool // fragments follow
}

// locate finds the headers of the packet behind its metadata. Unlike
// [encap.ParseIP] it takes one whose end is missing, unless it has IPv6 extension
// headers.
func locate(frame []byte) (p packet, ok bool) {
	if len(frame) <= pkt.MetaLen || !p.parse(frame[pkt.MetaLen:]) {
		return p, false
	}
	p.mark(frame)
	return p, true
}

// of is locate for a packet that was parsed already.
func of(frame []byte, ip *encap.IP) (p packet) {
	p = packet{
		b: ip.Packet, at: ip.Transport, v6: ip.Is6(), protocol: ip.Protocol,
		offset: ip.FragmentOffset, more: ip.MoreFragments,
	}
	p.mark(frame)
	return p
}

// mark notes whether the metadata says that the checksum is partial. One of an
// inner header, of a tunnel in the sandbox, is not this packet's.
func (p *packet) mark(frame []byte) {
	if frame[0]&pkt.NeedsChecksum == 0 {
		return
	}
	m := pkt.ParseMeta(frame)
	p.partial = int(m.CsumStart) == p.at && int(m.CsumOffset) == checksumField(p.protocol)
}

// parse reads the headers at the front of b.
func (p *packet) parse(b []byte) bool {
	if len(b) < encap.IPv4HeaderLen {
		return false
	}
	switch b[0] >> 4 {
	case 4:
		word := binary.BigEndian.Uint16(b[6:])
		*p = packet{
			b: b, at: int(b[0]&0x0f) * 4, protocol: b[9],
			offset: int(word&0x1fff) * 8, more: word&0x2000 != 0,
		}
		return p.at >= encap.IPv4HeaderLen && p.at <= len(b)
	case 6:
		if len(b) < encap.IPv6HeaderLen {
			return false
		}
		*p = packet{b: b, at: encap.IPv6HeaderLen, v6: true, protocol: b[6]}
		switch p.protocol {
		case encap.ProtocolTCP, encap.ProtocolUDP, encap.ProtocolICMPv6:
			return true
		}
		ip, err := encap.ParseIP(b)
		if err != nil {
			return false
		}
		*p = packet{
			b: ip.Packet, at: ip.Transport, v6: true, protocol: ip.Protocol,
			offset: ip.FragmentOffset, more: ip.MoreFragments,
		}
		return true
	}
	return false
}

// isFragment reports whether the packet is a part of one.
func (p *packet) isFragment() bool { return p.offset != 0 || p.more }

// isFlow reports whether the packet has the ports and the checksum of TCP or UDP.
func (p *packet) isFlow() bool {
	switch p.protocol {
	case encap.ProtocolTCP:
		return len(p.b) >= p.at+encap.TCPHeaderLen
	case encap.ProtocolUDP:
		return len(p.b) >= p.at+encap.UDPHeaderLen
	}
	return false
}

// ports returns the source and the destination port.
func (p *packet) ports() (src, dst uint16) {
	return binary.BigEndian.Uint16(p.b[p.at:]), binary.BigEndian.Uint16(p.b[p.at+2:])
}

// addrs returns where the addresses are: the source first, size bytes each.
func (p *packet) addrs() (at, size int) {
	if p.v6 {
		return 8, 16
	}
	return 12, 4
}

func (p *packet) tcp() encap.TCP { return encap.TCP(p.b[p.at:]) }

// end returns the sequence number behind a segment with FIN, which no joiner joins
// to others.
func (p *packet) end() uint32 {
	t := p.tcp()
	return t.Seq() + uint32(max(len(t)-t.HeaderLen(), 0)) + 1
}

// checksumField returns the offset of the checksum in a transport header.
func checksumField(protocol uint8) int {
	if protocol == encap.ProtocolTCP {
		return encap.TCPChecksumOffset
	}
	return encap.UDPChecksumOffset
}

// A change is what one direction of a flow needs: another address and another
// port, which are the destination's and the source's, or the reverse. It knows by
// how much they change the checksums, so that nothing is summed up per packet
// (RFC 1624 §3, equation 3).
type change struct {
	addr   [16]byte // the first 4 of an IPv4 one
	port   uint16
	pseudo encap.Sum // of the address, as pseudo-header and IPv4 header have it
	all    encap.Sum // of address and port
}

func newChange(was, is netip.AddrPort) change {
	c := change{port: is.Port()}
	from, to := was.Addr().AsSlice(), is.Addr().AsSlice()
	copy(c.addr[:], to)
	for i := 0; i < len(from); i += 2 {
		c.pseudo = c.pseudo.
			Add(encap.Sum(^binary.BigEndian.Uint16(from[i:]))).
			Add(encap.Sum(binary.BigEndian.Uint16(to[i:])))
	}
	c.all = c.pseudo.Add(encap.Sum(^was.Port())).Add(encap.Sum(is.Port()))
	return c
}

// apply rewrites a packet. With dst it is the destination address and the source
// port that change, as on the way out, or else the source address and the
// destination port. Of a fragment that is not the first it is the address alone:
// the first one's checksum covers all. What is cut off, as in the quotation of an
// ICMP error, is left out.
func (c *change) apply(p *packet, dst bool) {
	at, size := p.addrs()
	port := p.at + 2
	if dst {
		at += size
		port = p.at
	}
	copy(p.b[at:at+size], c.addr[:size])
	if !p.v6 {
		h := encap.IPv4(p.b)
		h.SetChecksum(adjust(h.Checksum(), c.pseudo))
	}
	if p.offset != 0 || len(p.b) < port+2 {
		return
	}
	binary.BigEndian.PutUint16(p.b[port:], c.port)
	field := p.at + checksumField(p.protocol)
	if len(p.b) < field+2 {
		return
	}
	sum := binary.BigEndian.Uint16(p.b[field:])
	switch {
	case p.partial:
		sum = uint16(encap.Sum(sum).Add(c.pseudo))
	case p.protocol == encap.ProtocolUDP && sum == 0:
		return // there is none (RFC 768)
	default:
		if sum = adjust(sum, c.all); sum == 0 && p.protocol == encap.ProtocolUDP {
			sum = 0xffff
		}
	}
	binary.BigEndian.PutUint16(p.b[field:], sum)
}

// adjust returns the checksum field hc after what it covers changed by delta.
func adjust(hc uint16, delta encap.Sum) uint16 { return encap.Sum(^hc).Add(delta).Checksum() }

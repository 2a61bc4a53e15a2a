package pkt

import (
	"encoding/binary"

	"github.com/ovnd/ovnd/encap"
)

// A Plan says how a super-packet becomes wire packets. Copies are cheap and
// independent.
type Plan struct {
	ip        encap.IP
	meta      Meta
	headerLen int // bytes of IP and transport header, repeated in each wire packet
	size      int // payload bytes in each wire packet but the last
	count     int
	partial   bool // transport checksums stay partial
}

// NewPlan checks m against its packet. ip is aliased until the plan is done
// with. The error is [ErrMeta].
func NewPlan(m Meta, ip encap.IP) (Plan, error) {
	p := Plan{ip: ip, meta: m, headerLen: len(ip.Packet), count: 1}
	start, field := int(m.CsumStart), int(m.CsumOffset)
	if m.Flags&NeedsChecksum != 0 && start+field+2 > len(ip.Packet) {
		return Plan{}, ErrMeta
	}
	if m.GSO == GSONone {
		return p, nil
	}
	if m.Flags&NeedsChecksum == 0 || start != ip.Transport || m.GSOSize == 0 || ip.IsFragment() {
		return Plan{}, ErrMeta
	}
	switch {
	case m.GSO&^gsoECN == GSOTCPv4 && !ip.Is6(), m.GSO&^gsoECN == GSOTCPv6 && ip.Is6():
		t, err := encap.ParseTCP(ip.Payload())
		if err != nil || ip.Protocol != encap.ProtocolTCP || field != encap.TCPChecksumOffset {
			return Plan{}, ErrMeta
		}
		p.headerLen = start + t.HeaderLen()
	case m.GSO == GSOUDP:
		if len(ip.Payload()) < encap.UDPHeaderLen || ip.Protocol != encap.ProtocolUDP || field != encap.UDPChecksumOffset {
			return Plan{}, ErrMeta
		}
		p.headerLen = start + encap.UDPHeaderLen
	default:
		return Plan{}, ErrMeta
	}
	p.size = int(m.GSOSize)
	if payload := len(ip.Packet) - p.headerLen; payload > 0 {
		p.count = (payload + p.size - 1) / p.size
	}
	return p, nil
}

// Count returns the number of wire packets.
func (p Plan) Count() int { return p.count }

// Len returns the size in bytes of each wire packet but the last.
func (p Plan) Len() int { return min(p.headerLen+p.size, len(p.ip.Packet)) }

// LastLen returns the size in bytes of the last wire packet, at most [Plan.Len].
func (p Plan) LastLen() int { return len(p.ip.Packet) - (p.count-1)*p.size }

// WireLen returns the size in bytes of all wire packets together.
func (p Plan) WireLen() int { return len(p.ip.Packet) + (p.count-1)*p.headerLen }

// PutHeaderLen corrects the metadata in front of the super-packet, for it to be
// written to a device: a kernel that reads its own hint back keeps only that
// much out of pages.
func (p Plan) PutHeaderLen(frame []byte) {
	binary.NativeEndian.PutUint16(frame[2:], uint16(p.headerLen))
}

// LeavePartial has [Plan.Put] leave TCP and UDP checksums partial, as the sum of
// the pseudo-header alone, where the super-packet has them so. It reports whether
// it does: only a receiver who knows may be sent such packets.
func (p *Plan) LeavePartial() bool {
	m := &p.meta
	p.partial = m.Flags&NeedsChecksum != 0 && int(m.CsumStart) == p.ip.Transport && !p.ip.IsFragment() &&
		(p.ip.Protocol == encap.ProtocolTCP && m.CsumOffset == encap.TCPChecksumOffset ||
			p.ip.Protocol == encap.ProtocolUDP && m.CsumOffset == encap.UDPChecksumOffset)
	return p.partial
}

// Put writes the wire packets from number first up to but not including number
// end to dst, one after the other, each preceded by prefix and followed by tail
// bytes of room, with every field and checksum complete. It returns the bytes
// written and left; dst must have room for
// (end-first)*(len(prefix)+p.Len()+tail).
func (p Plan) Put(dst, prefix []byte, tail, first, end int) int {
	if p.size == 0 {
		n := copy(dst, prefix)
		n += copy(dst[n:], p.ip.Packet)
		if p.meta.Flags&NeedsChecksum != 0 && !p.partial {
			// NewPlan has checked the offsets; an odd one no protocol has.
			_ = encap.CompleteChecksum(dst[len(prefix):n], int(p.meta.CsumStart), int(p.meta.CsumOffset))
		}
		return n + tail
	}
	s := p.newSplitter()
	n := 0
	for i := first; i < end; i++ {
		n += s.put(dst[n:], prefix, i) + tail
	}
	return n
}

// A splitter holds what the wire packets of one super-packet have in common.
type splitter struct {
	Plan
	tcp     bool
	seq     uint32
	flags   uint16
	id      uint16    // IPv4 identification of the first wire packet
	header4 encap.Sum // of the IPv4 header without length, identification and checksum
	// Of the pseudo-header without length, and with complete checksums of the
	// transport header without what varies.
	pseudo encap.Sum
}

func (p Plan) newSplitter() splitter {
	s := splitter{Plan: p, tcp: p.meta.GSO != GSOUDP}
	pkt, at := p.ip.Packet, p.ip.Transport
	if !p.ip.Is6() {
		s.id = encap.IPv4(pkt).ID()
		// Words 1, 2 and 5 are the length, the identification and the checksum.
		s.header4 = encap.SumBytes(pkt[0:2]).Add(encap.SumBytes(pkt[6:10])).Add(encap.SumBytes(pkt[12:at]))
	}
	s.pseudo = p.ip.PseudoSum(0)
	if !s.tcp {
		if !p.partial {
			s.pseudo = s.pseudo.Add(encap.SumBytes(pkt[at : at+4]))
		}
		return s
	}
	t := encap.TCP(pkt[at:])
	s.seq, s.flags = t.Seq(), t.Flags()
	if p.partial {
		return s
	}
	// Without sequence number, flags and checksum; the data offset is in the
	// flags' word and is summed with it.
	s.pseudo = s.pseudo.
		Add(encap.SumBytes(t[0:4])).Add(encap.SumBytes(t[8:12])).
		Add(encap.SumBytes(t[14:16])).Add(encap.SumBytes(t[18:t.HeaderLen()]))
	return s
}

// put writes wire packet number i.
func (s *splitter) put(dst, prefix []byte, i int) int {
	payload := s.ip.Packet[s.headerLen+i*s.size:]
	payload = payload[:min(len(payload), s.size)]

	n := copy(dst, prefix)
	w := dst[n : n+s.headerLen+len(payload)]
	copy(w, s.ip.Packet[:s.headerLen])
	copy(w[s.headerLen:], payload)

	s.putIP(w, i)
	t := w[s.ip.Transport:]
	sum := s.pseudo.AddUint32(uint32(len(t)))
	if !s.partial {
		sum = sum.Add(encap.SumBytes(w[s.headerLen:]))
	}
	if s.tcp {
		s.putTCP(t, sum, i)
	} else {
		s.putUDP(t, sum)
	}
	return n + len(w)
}

// putUDP writes what a datagram does not share with the super-packet.
func (s *splitter) putUDP(b []byte, sum encap.Sum) {
	u := encap.UDP(b)
	u.SetLength(len(u))
	if s.partial {
		binary.BigEndian.PutUint16(u[encap.UDPChecksumOffset:], uint16(sum))
		return
	}
	u.SetChecksum(sum.Add(encap.Sum(len(u))).Checksum())
}

func (s *splitter) putIP(w []byte, i int) {
	if s.ip.Is6() {
		encap.IPv6(w).SetPayloadLen(len(w) - encap.IPv6HeaderLen)
		return
	}
	// As Linux numbers them (inet_gso_segment), with or without DF.
	h, id := encap.IPv4(w), s.id+uint16(i)
	h.SetTotalLen(len(w))
	h.SetID(id)
	h.SetChecksum(s.header4.Add(encap.Sum(len(w))).Add(encap.Sum(id)).Checksum())
}

// putTCP writes what differs between the segments: CWR belongs to the first
// (RFC 3168 §6.1.2), FIN and PSH to the last.
func (s *splitter) putTCP(b []byte, sum encap.Sum, i int) {
	t, seq, flags := encap.TCP(b), s.seq+uint32(i*s.size), s.flags
	if i > 0 {
		flags &^= encap.TCPFlagCWR
	}
	if i < s.count-1 {
		flags &^= encap.TCPFlagFIN | encap.TCPFlagPSH
	}
	t.SetSeq(seq)
	t.SetFlags(flags)
	if s.partial {
		t.SetChecksum(uint16(sum))
		return
	}
	sum = sum.AddUint32(seq).Add(encap.Sum(binary.BigEndian.Uint16(t[12:])))
	t.SetChecksum(sum.Checksum())
}

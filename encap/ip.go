package encap

import "net/netip"

// An IP is one IP packet of either version, its headers walked once. [ParseIP]
// makes it; the zero IP is no packet.
type IP struct {
	// Packet is the packet without what may have followed it. It aliases the
	// bytes that were parsed.
	Packet []byte
	// Transport is the offset in Packet of the transport header, behind IPv4
	// options and IPv6 extension headers. Of a fragment that is not the first
	// it is the offset of the data.
	Transport int
	// FragmentOffset is where in its datagram the payload stands, in bytes.
	FragmentOffset int
	// MoreFragments is set unless this is the last or only fragment.
	MoreFragments bool
	// Protocol is that of the transport header.
	Protocol uint8
}

// ParseIP reads the headers of the packet at the front of b as [ParseIPv4] and
// [ParseIPv6] do. Errors are [ErrShort], [ErrVersion] and [ErrLength]. An IPv6
// packet with more than eight extension headers is no error: its Protocol is
// that of the ninth.
func ParseIP(b []byte) (IP, error) {
	if len(b) == 0 {
		return IP{}, ErrShort
	}
	if b[0]>>4 == 6 {
		p, err := ParseIPv6(b)
		if err != nil {
			return IP{}, err
		}
		if isIPv6Extension(p.NextHeader()) {
			return p.parseExtensions()
		}
		return IP{Packet: p, Transport: IPv6HeaderLen, Protocol: p.NextHeader()}, nil
	}
	p, err := ParseIPv4(b)
	if err != nil {
		return IP{}, err
	}
	return IP{
		Packet:         p,
		Transport:      p.HeaderLen(),
		Protocol:       p.Protocol(),
		FragmentOffset: p.FragmentOffset(),
		MoreFragments:  p.MoreFragments(),
	}, nil
}

// Is6 reports whether p is an IPv6 packet; else it is an IPv4 one.
func (p IP) Is6() bool { return p.Packet[0]>>4 == 6 }

// EtherType returns the EtherType of a frame that carries p.
func (p IP) EtherType() uint16 {
	if p.Is6() {
		return EtherTypeIPv6
	}
	return EtherTypeIPv4
}

// Src returns the source address.
func (p IP) Src() netip.Addr {
	if p.Is6() {
		return IPv6(p.Packet).Src()
	}
	return IPv4(p.Packet).Src()
}

// Dst returns the destination address.
func (p IP) Dst() netip.Addr {
	if p.Is6() {
		return IPv6(p.Packet).Dst()
	}
	return IPv4(p.Packet).Dst()
}

// ECN returns the two ECN bits.
func (p IP) ECN() uint8 {
	if p.Is6() {
		return IPv6(p.Packet).ECN()
	}
	return IPv4(p.Packet).ECN()
}

// SetECN changes the ECN bits, and an IPv4 header's checksum with them.
func (p IP) SetECN(ecn uint8) {
	if p.Is6() {
		IPv6(p.Packet).SetECN(ecn)
		return
	}
	IPv4(p.Packet).SetECN(ecn)
}

// IsFragment reports whether p is a part of a datagram rather than all of it. An
// IPv6 packet whose fragment header says that there is but one (RFC 6946) is
// whole.
func (p IP) IsFragment() bool { return p.MoreFragments || p.FragmentOffset != 0 }

// Payload returns the transport header and what follows, which aliases p.
func (p IP) Payload() []byte { return p.Packet[p.Transport:] }

// PseudoSum returns the sum of the pseudo-header for a transport header and
// payload of length bytes; that of p itself is PseudoSum(len(p.Payload())).
func (p IP) PseudoSum(length int) Sum {
	if p.Is6() {
		return IPv6(p.Packet).PseudoSum(p.Protocol, length)
	}
	return IPv4(p.Packet).PseudoSum(p.Protocol, length)
}

// TransportChecksumOK reports whether the checksum of a TCP, UDP or ICMPv6
// message that fills p's payload is right. UDP over IPv4 may go without one (RFC
// 768): then there is nothing to be wrong. Of a fragment nothing can be said,
// and false is returned.
func (p IP) TransportChecksumOK() bool {
	if p.IsFragment() {
		return false
	}
	b := p.Payload()
	if p.Protocol == ProtocolUDP && !p.Is6() && len(b) >= UDPHeaderLen && UDP(b).Checksum() == 0 {
		return true
	}
	return Checksum(b, p.PseudoSum(len(b))) == 0
}

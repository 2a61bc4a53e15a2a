package encap

import "errors"

// Errors of the parsers. They are compared with ==, and are never wrapped.
var (
	// ErrShort means that the bytes end before the header does.
	ErrShort = errors.New("encap: packet too short")
	// ErrNoVNI means that the I flag of a VXLAN header is clear: RFC 7348 §5
	// wants it set for a valid VNI.
	ErrNoVNI = errors.New("encap: VXLAN header without a VNI")
	// ErrReserved means that a reserved bit of a VXLAN header is set.
	ErrReserved = errors.New("encap: VXLAN header with reserved bits")
	// ErrVLAN means that a frame is tagged for a VLAN other than 0.
	ErrVLAN = errors.New("encap: frame with a VLAN tag")
	// ErrVersion means that the version field of an IP header is not the one
	// expected, or is neither 4 nor 6.
	ErrVersion = errors.New("encap: wrong IP version")
	// ErrLength means that a length field contradicts the header it is in or
	// the number of bytes that arrived.
	ErrLength = errors.New("encap: wrong length field")
	// ErrChecksum means that a checksum does not match.
	ErrChecksum = errors.New("encap: wrong checksum")
	// ErrARP means that an ARP packet is not one for IPv4 over Ethernet.
	ErrARP = errors.New("encap: ARP not for IPv4 over Ethernet")
	// ErrND means that a packet is not the Neighbour Discovery message asked
	// for, or breaks a rule of RFC 4861 §7.1.
	ErrND = errors.New("encap: invalid Neighbour Discovery message")
)

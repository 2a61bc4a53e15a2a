package encap

import "encoding/binary"

const (
	// VXLANHeaderLen is the size of a VXLAN header in bytes (RFC 7348 §5).
	VXLANHeaderLen = 8
	// VXLANPort is the UDP port that IANA gave to VXLAN (RFC 7348 §5).
	VXLANPort = 4789
	// MaxVNI is the largest VNI: 24 bits.
	MaxVNI VNI = 1<<24 - 1
)

// vxlanFlagI marks the VNI as valid. It is in the first byte of the header, the
// top byte of its first word.
const vxlanFlagI = 0x08 << 24

// A VNI is a VXLAN network identifier: 24 bits that name one overlay network on
// the wire.
type VNI uint32

// Valid reports whether v fits the 24 bits it has on the wire.
func (v VNI) Valid() bool { return v <= MaxVNI }

// Reserved says what becomes of a VXLAN header whose reserved bits are not zero.
type Reserved uint8

const (
	// ReservedDrop refuses such a header, as Linux does: its vxlan_rcv takes
	// any of the 39 bits for an extension that it does not know.
	ReservedDrop Reserved = iota
	// ReservedIgnore accepts it, as RFC 7348 §5 asks of receivers.
	ReservedIgnore
)

// ParseVXLAN reads the VXLAN header at the front of b, the payload of a UDP
// datagram. inner is the rest of b and aliases it.
//
// Errors are [ErrShort], [ErrNoVNI] and, with [ReservedDrop], [ErrReserved]. VNI
// and inner are valid with ErrReserved too, since which rule applies may be a
// property of the network that the VNI names.
func ParseVXLAN(b []byte, r Reserved) (vni VNI, inner []byte, err error) {
	if len(b) < VXLANHeaderLen {
		return 0, nil, ErrShort
	}
	flags, id := binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])
	if flags&vxlanFlagI == 0 {
		return 0, nil, ErrNoVNI
	}
	vni, inner = VNI(id>>8), b[VXLANHeaderLen:]
	if r == ReservedDrop && (flags&^vxlanFlagI)|(id&0xff) != 0 {
		return vni, inner, ErrReserved
	}
	return vni, inner, nil
}

// PutVXLAN writes the header of network v to the first [VXLANHeaderLen] bytes of
// b. v must be valid.
func PutVXLAN(b []byte, v VNI) {
	_ = b[VXLANHeaderLen-1]
	binary.BigEndian.PutUint32(b, vxlanFlagI)
	binary.BigEndian.PutUint32(b[4:], uint32(v)<<8)
}

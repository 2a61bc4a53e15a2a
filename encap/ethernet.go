package encap

import "encoding/binary"

// EthernetHeaderLen is the size of an untagged Ethernet header in bytes. The
// frame check sequence does not travel in VXLAN (RFC 7348 §5).
const EthernetHeaderLen = 14

// EtherTypes that an overlay network carries.
const (
	EtherTypeIPv4 uint16 = 0x0800
	EtherTypeARP  uint16 = 0x0806
	EtherTypeIPv6 uint16 = 0x86dd
)

const (
	etherTypeVLAN  uint16 = 0x8100 // IEEE 802.1Q
	etherTypeQinQ  uint16 = 0x88a8 // IEEE 802.1ad
	vlanTagLen            = 4
	vlanIDMask     uint16 = 0x0fff
	etherTypeField        = 12 // offset of the EtherType, or of the first tag
)

// ParseEthernet reads the Ethernet header at the front of b. payload is what
// follows, padding included, and aliases b; etherType is below 0x600 where the
// frame has an IEEE 802.3 length instead.
//
// VLAN tags are treated as a Linux host behind a VXLAN device without VLAN
// devices does: a tag for VLAN 0 carries a priority alone and is skipped, however
// many there are; a tag for any other VLAN is not for this network, [ErrVLAN],
// as RFC 7348 §6.1 advises too. A frame that ends before its EtherType is
// [ErrShort].
func ParseEthernet(b []byte) (dst, src MAC, etherType uint16, payload []byte, err error) {
	if len(b) < EthernetHeaderLen {
		return MAC{}, MAC{}, 0, nil, ErrShort
	}
	dst, src = MAC(b[0:6]), MAC(b[6:12])
	etherType, payload = binary.BigEndian.Uint16(b[etherTypeField:]), b[EthernetHeaderLen:]
	for etherType == etherTypeVLAN || etherType == etherTypeQinQ {
		if len(payload) < vlanTagLen {
			return MAC{}, MAC{}, 0, nil, ErrShort
		}
		if binary.BigEndian.Uint16(payload)&vlanIDMask != 0 {
			return MAC{}, MAC{}, 0, nil, ErrVLAN
		}
		etherType, payload = binary.BigEndian.Uint16(payload[2:]), payload[vlanTagLen:]
	}
	return dst, src, etherType, payload, nil
}

// PutEthernet writes an untagged header to the first [EthernetHeaderLen] bytes of
// b.
func PutEthernet(b []byte, dst, src MAC, etherType uint16) {
	_ = b[EthernetHeaderLen-1]
	copy(b[0:6], dst[:])
	copy(b[6:12], src[:])
	binary.BigEndian.PutUint16(b[etherTypeField:], etherType)
}

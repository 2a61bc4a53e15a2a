package dataplane_test

import (
	"encoding/binary"
	"net/netip"

	"github.com/ovnd/ovnd/encap"
)

// The tests of this package build their packets here, by hand and apart from
// package encap, so that a mistake there is not made twice.

// A frame is a VXLAN datagram: UDP over IP over Ethernet. The zero value of a
// field means what is beside it.
type frame struct {
	vni      encap.VNI
	header   uint64    // XORed into the VXLAN header
	dst, src encap.MAC // zero: the endpoint MACs of to and from
	tags     []byte    // between the addresses and the EtherType
	tos, ttl byte      // ttl 0: 64
	options  []byte    // of the IPv4 header, a multiple of 4 bytes
	id       uint16    // of the IPv4 header
	fragment uint16    // flags and offset of the IPv4 header
	from, to netip.Addr
	port     uint16 // 0: probePort
	payload  []byte

	ipSum, udpSum uint16 // XORed into the checksums
	noUDPSum      bool   // leave the UDP checksum zero (RFC 768: none)
	padding       int    // bytes behind the IP packet
}

// probePort is the UDP port that the receivers of frames listen at.
const probePort = 7777

// marshal returns the payload of the outer UDP datagram.
func (f frame) marshal() []byte {
	const flagI = 1 << 59
	b := binary.BigEndian.AppendUint64(nil, (flagI|uint64(f.vni)<<8)^f.header)
	if f.dst == (encap.MAC{}) {
		f.dst = encap.EndpointMAC(f.to)
	}
	if f.src == (encap.MAC{}) {
		f.src = encap.EndpointMAC(f.from)
	}
	b = append(b, f.dst[:]...)
	b = append(b, f.src[:]...)
	b = append(b, f.tags...)
	if f.to.Is4() {
		b = append(b, 0x08, 0x00)
	} else {
		b = append(b, 0x86, 0xdd)
	}
	b = append(b, f.packet()...)
	return append(b, make([]byte, f.padding)...)
}

// packet returns the inner IP packet.
func (f frame) packet() []byte {
	transport := f.datagram()
	if f.ttl == 0 {
		f.ttl = 64
	}
	if !f.to.Is4() {
		b := binary.BigEndian.AppendUint32(nil, 6<<28|uint32(f.tos)<<20)
		b = binary.BigEndian.AppendUint16(b, uint16(len(transport)))
		b = append(b, 17, f.ttl)
		b = append(append(b, f.from.AsSlice()...), f.to.AsSlice()...)
		return append(b, transport...)
	}
	header := 20 + len(f.options)
	b := []byte{0x40 | byte(header/4), f.tos}
	b = binary.BigEndian.AppendUint16(b, uint16(header+len(transport)))
	b = binary.BigEndian.AppendUint16(b, f.id)
	b = binary.BigEndian.AppendUint16(b, f.fragment)
	b = append(b, f.ttl, 17, 0, 0)
	b = append(append(b, f.from.AsSlice()...), f.to.AsSlice()...)
	b = append(b, f.options...)
	binary.BigEndian.PutUint16(b[10:], onesSum(b)^0xffff^f.ipSum)
	return append(b, transport...)
}

// datagram returns the inner UDP datagram. A fragment but the first has no
// header, only the payload.
func (f frame) datagram() []byte {
	if f.fragment&0x1fff != 0 {
		return f.payload
	}
	if f.port == 0 {
		f.port = probePort
	}
	b := binary.BigEndian.AppendUint16(nil, 4000)
	b = binary.BigEndian.AppendUint16(b, f.port)
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(f.payload)))
	b = append(b, 0, 0)
	b = append(b, f.payload...)
	if f.noUDPSum {
		return b
	}
	pseudo := append(append([]byte{0, 17, b[4], b[5]}, f.from.AsSlice()...), f.to.AsSlice()...)
	sum := onesSum(append(pseudo, b...)) ^ 0xffff
	if sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(b[6:], sum^f.udpSum)
	return b
}

// onesSum is the ones' complement sum of RFC 1071, not complemented.
func onesSum(b []byte) uint16 {
	var sum uint32
	for i, c := range b {
		sum += uint32(c) << (8 * (1 - i&1))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

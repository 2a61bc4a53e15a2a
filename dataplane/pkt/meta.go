package pkt

import (
	"encoding/binary"
	"errors"
)

const (
	// MetaLen is the size of a virtio_net_hdr without num_buffers, in bytes:
	// what a TUN with IFF_VNET_HDR puts before each packet.
	MetaLen = 10
	// MaxIP is the largest IP packet, in bytes.
	MaxIP = 65535
	// MaxSuper is the largest read from a TUN: metadata and packet.
	MaxSuper = MetaLen + MaxIP
)

// GSOType says what a super-packet consists of (virtio 1.2 §5.1.6).
type GSOType uint8

// The types that TUN offloads negotiate. gsoECN is a flag beside them: the first
// wire packet of a TCP super-packet has CWR set.
const (
	GSONone  GSOType = 0 // one packet
	GSOTCPv4 GSOType = 1
	GSOTCPv6 GSOType = 4
	GSOUDP   GSOType = 5 // USO: datagrams of equal size, the last maybe shorter

	gsoECN GSOType = 0x80
)

// Flags of a virtio_net_hdr.
const (
	// NeedsChecksum means that the checksum field at CsumStart+CsumOffset holds
	// the sum of the pseudo-header only.
	NeedsChecksum uint8 = 1
	// DataValid means that the transport checksum was found to be right.
	DataValid uint8 = 2
)

// Meta is the offload metadata of one super-packet: a virtio_net_hdr.
type Meta struct {
	Flags      uint8
	GSO        GSOType
	HeaderLen  uint16 // bytes of IP and transport header; from the kernel only a hint
	GSOSize    uint16 // payload bytes of each wire packet but the last
	CsumStart  uint16 // offset of the transport header
	CsumOffset uint16 // of the checksum field, from CsumStart
}

// ErrMeta means that metadata does not fit its packet.
var ErrMeta = errors.New("pkt: offload metadata does not fit the packet")

// ParseMeta reads the first [MetaLen] bytes of b. They are in the machine's byte
// order, as the kernel's legacy virtio_net_hdr is.
func ParseMeta(b []byte) Meta {
	_ = b[MetaLen-1]
	return Meta{
		Flags:      b[0],
		GSO:        GSOType(b[1]),
		HeaderLen:  binary.NativeEndian.Uint16(b[2:]),
		GSOSize:    binary.NativeEndian.Uint16(b[4:]),
		CsumStart:  binary.NativeEndian.Uint16(b[6:]),
		CsumOffset: binary.NativeEndian.Uint16(b[8:]),
	}
}

// Put writes m to the first [MetaLen] bytes of b.
func (m Meta) Put(b []byte) {
	_ = b[MetaLen-1]
	b[0], b[1] = m.Flags, uint8(m.GSO)
	binary.NativeEndian.PutUint16(b[2:], m.HeaderLen)
	binary.NativeEndian.PutUint16(b[4:], m.GSOSize)
	binary.NativeEndian.PutUint16(b[6:], m.CsumStart)
	binary.NativeEndian.PutUint16(b[8:], m.CsumOffset)
}

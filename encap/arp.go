package encap

import (
	"encoding/binary"
	"net/netip"
)

// ARPLen is the size of an ARP packet for IPv4 over Ethernet, in bytes.
const ARPLen = 28

// ARP operations (RFC 826).
const (
	ARPRequest uint16 = 1
	ARPReply   uint16 = 2
)

const arpHardwareEthernet = 1

// An ARP is an ARP packet for IPv4 over Ethernet (RFC 826). The sender's address
// is 0.0.0.0 in a probe and equal to the target's in an announcement (RFC 5227).
type ARP struct {
	Op        uint16 // [ARPRequest], [ARPReply] or an operation unknown here
	SenderMAC MAC
	Sender    netip.Addr
	TargetMAC MAC // meaningless in a request
	Target    netip.Addr
}

// ParseARP reads the ARP packet at the front of b, the payload of a frame; what
// follows is padding. Errors are [ErrShort] and [ErrARP].
func ParseARP(b []byte) (ARP, error) {
	if len(b) < ARPLen {
		return ARP{}, ErrShort
	}
	if binary.BigEndian.Uint16(b) != arpHardwareEthernet ||
		binary.BigEndian.Uint16(b[2:]) != EtherTypeIPv4 ||
		b[4] != 6 || b[5] != 4 {
		return ARP{}, ErrARP
	}
	return ARP{
		Op:        binary.BigEndian.Uint16(b[6:]),
		SenderMAC: MAC(b[8:14]),
		Sender:    netip.AddrFrom4([4]byte(b[14:18])),
		TargetMAC: MAC(b[18:24]),
		Target:    netip.AddrFrom4([4]byte(b[24:28])),
	}, nil
}

// PutARPRequest writes to the first [ARPLen] bytes of b the question which MAC
// has the address target. Both addresses must be IPv4; the frame goes to
// [BroadcastMAC].
func PutARPRequest(b []byte, senderMAC MAC, sender, target netip.Addr) {
	putARP(b, ARP{Op: ARPRequest, SenderMAC: senderMAC, Sender: sender, Target: target})
}

// PutARPReply writes to the first [ARPLen] bytes of b the answer to request: its
// target is at mac. The frame goes to request.SenderMAC.
func PutARPReply(b []byte, request ARP, mac MAC) {
	putARP(b, ARP{
		Op:        ARPReply,
		SenderMAC: mac,
		Sender:    request.Target,
		TargetMAC: request.SenderMAC,
		Target:    request.Sender,
	})
}

func putARP(b []byte, a ARP) {
	_ = b[ARPLen-1]
	sender, target := a.Sender.As4(), a.Target.As4()
	binary.BigEndian.PutUint16(b, arpHardwareEthernet)
	binary.BigEndian.PutUint16(b[2:], EtherTypeIPv4)
	b[4], b[5] = 6, 4
	binary.BigEndian.PutUint16(b[6:], a.Op)
	copy(b[8:14], a.SenderMAC[:])
	copy(b[14:18], sender[:])
	copy(b[18:24], a.TargetMAC[:])
	copy(b[24:28], target[:])
}

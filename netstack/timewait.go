package netstack

import (
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"

	"github.com/ovnd/ovnd/encap"
)

// maxSYN is the largest packet that a SYN without data fills, in bytes: an IPv6
// and a TCP header, and room for options.
const maxSYN = 128

// makeWay ends a connection of s that rests in TIME-WAIT when packet is the SYN
// with which its client asks for a new one from the same port (RFC 9293 §3.6.1
// lets it). Of itself gVisor would hand such a SYN to a listening endpoint, of
// which there is none here, and the client would wait a second before it asked
// again.
func makeWay(s *stack.Stack, packet []byte) {
	const protocolAt4, nextAt6 = 9, 6 // bytes into the header
	if len(packet) > maxSYN || len(packet) < encap.IPv4HeaderLen+encap.TCPHeaderLen {
		return
	}
	if packet[0]>>4 == 4 && packet[protocolAt4] != encap.ProtocolTCP || packet[0]>>4 == 6 && packet[nextAt6] != encap.ProtocolTCP {
		return
	}
	ip, err := encap.ParseIP(packet)
	if err != nil || ip.IsFragment() {
		return
	}
	segment, err := encap.ParseTCP(ip.Payload())
	if err != nil || segment.Flags()&(encap.TCPFlagSYN|encap.TCPFlagACK|encap.TCPFlagRST) != encap.TCPFlagSYN {
		return
	}
	id := stack.TransportEndpointID{
		LocalAddress: toAddr(ip.Dst()), LocalPort: segment.DstPort(),
		RemoteAddress: toAddr(ip.Src()), RemotePort: segment.SrcPort(),
	}
	ep, ok := s.FindTransportEndpoint(protocolOf(ip.Dst()), tcp.ProtocolNumber, id, nic).(*tcp.Endpoint)
	if ok && ep.EndpointState() == tcp.StateTimeWait {
		ep.Abort()
	}
}

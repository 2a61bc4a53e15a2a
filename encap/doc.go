// Package encap knows the bytes on the wire: VXLAN, Ethernet, IP, TCP, UDP,
// ARP, IPv6 Neighbour Discovery, the ICMP errors that path MTU discovery needs,
// and how many bytes each layer costs.
//
// # The wire
//
// One inner IP packet travels between two VTEPs as RFC 7348 §5 has it:
//
//	|<---------------- Overhead: 50 over IPv4, 70 over IPv6 --------------->|
//	| outer IP 20 or 40 | UDP 8, port 4789 | VXLAN 8 | inner Ethernet 14    | inner IP packet |
//	|<------ written by the host's UDP socket ---->|                        |<-- inner MTU -->|
//
// The VXLAN header is eight bytes; R bits are zero when sent:
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|R R R R I R R R|                   Reserved                    |
//	|         VXLAN network identifier (VNI)        |    Reserved   |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//
// A sandbox's TUN device carries bare IP packets, so the inner Ethernet header
// is synthesised on the way out and checked and removed on the way in. VLAN tags
// other than a priority tag (VLAN 0) do not pass; see [ParseEthernet].
//
// # How the package is used
//
// Parse functions take a slice and return values; the slices they return alias
// the one they were given, and nothing is kept. [ParseIP] reads an IP header of
// either version once, and all that follows (flow hash, MSS clamp, Neighbour
// Discovery, ICMP errors) takes its result. Put functions write into the front
// of a slice that the caller owns and that must be long enough: a short one is a
// bug of the caller, not traffic, and panics. No function allocates, which the
// package's tests hold, and none has state, so all are safe for concurrent use
// on different packets.
//
// Errors are sentinels without detail: they are counted, not printed.
package encap

package dataplane

import "sync/atomic"

// A Drop is a reason for which a packet goes no further.
type Drop uint8

// The reasons. Each drop counts under one.
const (
	// DropMalformed: not an IP packet, or lengths that contradict each other.
	DropMalformed Drop = iota
	// DropMulticast: a multicast or broadcast packet; networks carry unicast.
	DropMulticast
	// DropSpoofed: a sandbox sent from an address that is not its own.
	DropSpoofed
	// DropTooBig: larger than the network's MTU, or than the underlay carries.
	DropTooBig
	// DropNoNetwork: the port's network is not known (yet), or no longer.
	DropNoNetwork
	// DropNoRoute: the destination is not in the network's subnets.
	DropNoRoute
	// DropNoEndpoint: nobody has the destination address.
	DropNoEndpoint
	// DropNoNeighbour: no VTEP outside the cluster answered for the address.
	DropNoNeighbour
	// DropHoldFull: too many packets wait for such an answer.
	DropHoldFull
	// DropPortDown: the sandbox's device is down or gone.
	DropPortDown
	// DropPortWrite: the kernel refused the packet at the sandbox's device.
	DropPortWrite
	// DropNoBuffers: the kernel had no room to send (ENOBUFS, EAGAIN).
	DropNoBuffers
	// DropUnreachable: the underlay has no way to the VTEP.
	DropUnreachable
	// DropFirewall: a rule of this machine forbids it (EPERM).
	DropFirewall
	// DropSend: the kernel refused to send for another reason.
	DropSend
	// DropTruncated: the underlay handed over less than was sent.
	DropTruncated
	// DropBadVXLAN: no VXLAN header, or one without a VNI.
	DropBadVXLAN
	// DropReserved: reserved bits of the VXLAN header are set.
	DropReserved
	// DropUnknownVNI: a network that this node is not on.
	DropUnknownVNI
	// DropUnknownVTEP: the sender is not a VTEP of the network.
	DropUnknownVTEP
	// DropBadFrame: no Ethernet header, or one that makes no sense.
	DropBadFrame
	// DropVLAN: tagged for a VLAN.
	DropVLAN
	// DropEtherType: neither IP nor ARP.
	DropEtherType
	// DropWrongMAC: not to the MAC of the destination's endpoint.
	DropWrongMAC
	// DropStolenSource: from an address that belongs to another VTEP or here.
	DropStolenSource
	// DropForeignSource: from an address outside the network's subnets.
	DropForeignSource
	// DropSplitHorizon: from the underlay and to it.
	DropSplitHorizon
	// DropECN: congestion was experienced and the transport cannot be told
	// (RFC 6040 §4.2).
	DropECN
	// DropQueue: the receive buffer stood full for too long, and the transport
	// cannot be told otherwise (RFC 8289).
	DropQueue
	// DropForeignVIP: from a node of the cluster to a service's address, which
	// that node has itself.
	DropForeignVIP
	// DropNoHub: a star network has no way out (yet).
	DropNoHub
	// DropStackLoop: from a stack in this process to itself.
	DropStackLoop
	// DropStackFull: too much waits between two stacks in this process.
	DropStackFull
	// DropClearText: a VXLAN frame of an encrypted network.
	DropClearText
	// DropUnknownSession: sealed for a session that this node does not have (any
	// more).
	DropUnknownSession
	// DropBadSealed: sealed, and not by the session's peer or damaged; or what
	// was sealed makes no sense.
	DropBadSealed
	// DropReplayed: sealed, and here before, or too long ago to tell.
	DropReplayed
	// DropForeignNode: sealed by a node that is not on the network.
	DropForeignNode
	// DropUnclaimed: sealed, from an address that no node said in time is its.
	DropUnclaimed
	// DropNoSession: for a node with which there is no session.
	DropNoSession
	// DropHandshake: a message about sessions that was refused; crypto says why.
	DropHandshake
	// DropVIPFull: too many flows to VIPs, for a packet that could not be told from
	// one of them (see package vip).
	DropVIPFull

	numDrops
)

var dropNames = [numDrops]string{
	"malformed", "multicast", "spoofed_source", "too_big", "no_network", "no_route", "no_endpoint",
	"no_neighbour", "hold_full", "port_down", "port_write", "no_buffers", "unreachable", "firewall",
	"send_error", "truncated", "bad_vxlan", "reserved_bits", "unknown_vni", "unknown_vtep", "bad_frame",
	"vlan", "ethertype", "wrong_mac", "stolen_source", "foreign_source", "split_horizon", "ecn", "queue",
	"foreign_vip", "no_hub", "stack_loop", "stack_full", "clear_text", "unknown_session", "bad_sealed", "replayed",
	"foreign_node", "unclaimed_source", "no_session", "handshake", "vip_full",
}

// String returns the name that [Stats] and `ovnd status` use.
func (d Drop) String() string { return dropNames[d] }

// A counter counts wire packets and the bytes of their inner IP packets. One
// worker adds to it, so that its cache line stays where it is.
type counter struct{ packets, bytes atomic.Uint64 }

func (c *counter) add(packets, bytes int) {
	c.packets.Add(uint64(packets))
	c.bytes.Add(uint64(bytes))
}

// A ledger is one worker's part of a network's account.
type ledger struct {
	portIn, wireIn, originated counter
	portOut, wireOut, consumed counter
	drops                      [numDrops]atomic.Uint64
	_                          [64]byte // the next worker's is on another line
}

func (l *ledger) drop(why Drop, packets int) { l.drops[why].Add(uint64(packets)) }

// traffic is one worker's part of a port's or a peer's account.
type traffic struct {
	in, out counter
	_       [64]byte
}

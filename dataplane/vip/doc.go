// Package vip carries flows to virtual addresses (VIPs) of services in the data
// plane. The first packet of a flow picks a backend, by turns that somebody else
// takes (see [Balancer]); from then on the super-packets of the flow are
// rewritten where they lie, both ways, on the client's own node:
//
//	client:p → VIP:s   becomes   client:q → backend:s
//	backend:s → client:q   becomes   VIP:s → client:p
//
// q is p, unless the client has another flow between q and backend:s. The backend
// sees the client's address, and the handshake of a TCP connection is its own.
//
// A [Table] belongs to one port of the switch. Packets find their flow without a
// lock and without an allocation; only the first packet of a flow, and what ends
// one, takes the table's lock. [Tables] holds what all of a switch have in common:
// the bound, the clock, and what has to be done later.
package vip

import "net/netip"

// A Balancer decides where flows to the VIPs of a network go. Its methods are
// called by the workers of the switch, and must not call it.
type Balancer interface {
	// Begin begins a flow of protocol, TCP or UDP by its number, that a client of
	// this node asks for. It returns nil for one that the data plane is not to
	// carry, which is then forwarded as it is. It takes no turn yet.
	Begin(protocol uint8, client, service netip.AddrPort) Attempt
}

// An Attempt looks for the backend of one flow. It is for one goroutine at a
// time.
type Attempt interface {
	// Next takes the next turn, of those backends that this attempt has not had.
	// If it would be the client's own, the turn is left for whom the flow is
	// handed to, and own is set. Without either nobody is left.
	Next() (b Backend, own bool)
	// Exhausted notes that no backend took the flow.
	Exhausted()
}

// A Backend is where a flow goes, and what is told of how it fares there.
type Backend interface {
	Addr() netip.Addr
	EndpointID() string
	// Opened says that the flow has a backend: a TCP connection by its SYN-ACK, a
	// UDP flow from its first datagram on. Closed follows once.
	Opened()
	Closed()
	// Failed says that the turn was in vain: refused, or silent.
	Failed(silent bool)
	// Serving reports whether it takes flows, or keeps those that it has.
	Serving() bool
}

// A Verdict says what became of a packet.
type Verdict uint8

const (
	// Pass means that the packet is as it was, and goes where it says.
	Pass Verdict = iota
	// Translated means that it was rewritten.
	Translated
	// Consumed means that it was for the table, and goes nowhere.
	Consumed
	// Full means that there is no room for a flow that it needs.
	Full
)

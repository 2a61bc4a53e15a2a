// Package dataplane is the switch of a node: it forwards IP packets between the
// ports of the networks, which are TUN devices of sandboxes and network stacks in
// this process, and the underlay, where other nodes and foreign VTEPs are.
//
// # The way of a packet
//
//	sandbox → TUN → worker → lookup → batch → UDP_SEGMENT → underlay
//	                                      └──→ TUN of a local port, untouched
//
//	underlay → UDP_GRO → worker → checks → lookup → joined again → TUN → sandbox
//
// A worker is a goroutine that spends its life in system calls, so in effect on a
// thread of its own (procs.go), and runs a packet to completion: it reads, looks
// up, wraps and sends, with no queue in between and no allocation. It waits at the
// TUN queues it owns and at a socket at once (worker.go), and has two halves: what
// goes out (forward.go, batch.go) and what comes in (inbound.go). What moves is a
// super-packet (package pkt) for as long as possible.
//
//	stack → Inject → injector → lookup → …        … → Deliver → stack
//
// A stack port (stackport.go) is a network stack in this process, which has the
// services' VIPs or is the hub of a star network. Its goroutines forward what it
// sends themselves, as injectors, a few at a time; workers deliver to it.
//
// # Tables
//
// What workers look things up in is one immutable table (table.go) behind an
// atomic pointer, compiled from the directory's snapshots and the ports. Writers
// build the next one and swap it in; who must not free what a worker may still
// use waits until each worker has been seen between two batches (grace.go).
//
// Addresses behind VTEPs outside the cluster are not in the directory: those are
// learned, in bounded tables (neighbour.go).
//
// # Ledger
//
// Each wire packet that comes in is accounted for once (ledger.go):
//
//	port in + wire in + originated = port out + wire out + consumed + Σ drops + held
package dataplane

// Package udp is the underlay: the sockets that VXLAN datagrams arrive at and
// leave from, many at a time.
//
// Datagrams arrive at one socket a worker, bound to the VXLAN port, with UDP_GRO:
// one receive gives up to 64 KiB of datagrams of one size from one sender. They
// leave through a few more sockets, whose ports are the entropy by which routers
// and network cards spread flows (RFC 7348 §5), with UDP_SEGMENT: one send takes
// up to 64 KiB of them. Those sockets are connected to themselves, so nothing
// can reach them and `ss -lu` does not list them; a datagram to another address
// still leaves.
//
// Outer packets do not have DF set and are never fragmented here: what does not
// fit the first link is refused with EMSGSIZE, and further on routers may
// fragment, as they may with a kernel VXLAN device's.
package udp

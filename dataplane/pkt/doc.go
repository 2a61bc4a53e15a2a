// Package pkt is about super-packets: IP packets of up to 64 KiB that stand for
// many wire packets of one flow, and the offload metadata that says which.
//
//	| virtio_net_hdr 10 | IP | TCP or UDP | payload … up to 64 KiB |     in memory
//
//	| prefix | IP | TCP or UDP | payload of GSOSize bytes |              on the wire,
//	| prefix | IP | TCP or UDP | payload of GSOSize bytes |              one after the
//	| prefix | IP | TCP or UDP | what is left |                          other
//
// A super-packet crosses the process as it is, from one TUN to another say. It
// is taken apart once, by [Plan], where it leaves for the underlay, and put
// together once, by [Joiner], where it came from there.
package pkt

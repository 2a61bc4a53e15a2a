// Package bench measures ovnd's data plane beside others, in one run on one
// machine: raw veth, the kernel's VXLAN, wireguard-go.
//
// Each plane has two hosts of package bench/lab of its own, joined by veth:
//
//	host a                                        host b
//	source ─ tun/vxlan/veth ─ plane ═ veth ═ plane ─ tun/vxlan/veth ─ sink
//
// Planes that are programs run as a process on each host, so that their
// processor time is theirs alone; sources and sinks are processes too. A test
// is measured on every plane in turn, round after round, and planes are compared
// within a round: what the machine does meanwhile hits both.
package bench

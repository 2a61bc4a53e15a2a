// Package netstack ends connections in this process: it holds the gVisor TCP/IP
// stacks that stand behind ports of the switch.
//
//	sandbox ── TUN ── switch ── stack port ── Link ── gVisor stack ── Balancer, Egress
//	                                                                      │
//	                                          backends on the network, or host sockets
//
// A [Link] carries super-packets of up to 64 KiB with their offload metadata both
// ways, as a TUN does, so that neither TCP's segmentation nor its checksums cost
// anything between two ports of a node.
//
// [Egress] is the way out of a sandbox: the hub of a network that never leaves
// the node. It dials from the host what sandboxes ask for, as the user who runs
// the node.
package netstack

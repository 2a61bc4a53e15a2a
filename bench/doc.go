// Package bench measures ovnd beside others, in one run on one machine: the way
// between two nodes beside raw veth, the kernel's VXLAN, wireguard-go and whatever
// else is installed (RunPath); services (RunVIP); names (RunDNS); what a packet
// costs in memory (RunEncap); large networks (RunScale). Each gives a
// report (package bench/report).
//
// Each subject has a plane: two hosts of package bench/lab of its own, joined by
// veth:
//
//	host a                                        host b
//	source ─ tun/vxlan/veth ─ plane ═ veth ═ plane ─ tun/vxlan/veth ─ sink
//
// Planes that are programs run as a process on each host, so that their
// processor time is theirs alone; sources and sinks are processes too: this
// program, started again as a child with a role ([RunChild]). A test is measured on
// every plane in turn, round after round, and planes are compared within a round:
// what the machine does meanwhile hits both.
//
// Nothing outlives a run. Children end when the dialogue with them does, when the
// thread that started them does (PR_SET_PDEATHSIG), and with the lab.
package bench

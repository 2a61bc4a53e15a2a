// Package traffic makes and counts the traffic of the benchmarks: bulk TCP
// flows, UDP at a fixed rate, and ICMP echo round trips, over ordinary sockets
// of the namespace it runs in.
//
// A [Sink] takes what a [Source] sends. Both count as they go, so that a
// measurement can look at any window of a run. They use one thread per flow and
// blocking system calls, as iperf3 does: the generator must not be what is
// measured.
package traffic

import "time"

// Counters is what a source has sent, or a sink received, so far.
type Counters struct {
	Bytes   uint64 `json:"bytes"`   // of TCP or UDP payload
	Packets uint64 `json:"packets"` // UDP datagrams or echo requests; 0 for TCP
	// RTTs are the round trips of answered echo requests, in the order in which
	// they were sent. Only an echo source has them.
	RTTs []time.Duration `json:"rtts_ns,omitempty"`
}

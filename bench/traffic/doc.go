// Package traffic makes and counts the traffic of the benchmarks: bulk TCP
// flows, TCP and UDP at a fixed rate, new connections, and round trips, over
// ordinary sockets of the namespace it runs in.
//
// A [Sink] takes what a [Source] sends. Both count as they go, so that a
// measurement can look at any window of a run. They use one thread per flow and
// blocking system calls, as iperf3 does: the generator must not be what is
// measured.
//
// With Verify every byte is compared with what must have been sent (see
// [Pattern]); that costs the sink about as much as receiving does.
package traffic

// Counters is what a source has sent, or a sink received, so far.
type Counters struct {
	Bytes   uint64 `json:"bytes"`   // of TCP or UDP payload
	Packets uint64 `json:"packets"` // UDP datagrams, connections or echo requests; 0 for TCP

	// Nanoseconds is how long a Trial took to send.
	Nanoseconds uint64 `json:"nanoseconds,omitempty"`

	// Of a sink:
	Disordered uint64 `json:"disordered,omitempty"` // datagrams that came after a later one of their flow, or twice
	Corrupt    uint64 `json:"corrupt,omitempty"`    // bytes that were not what was sent; only with Verify

	// Of a source of echo requests:
	Answered uint64 `json:"answered,omitempty"`
	// RTT is the histogram of its round trips in nanoseconds, in HdrHistogram's
	// compressed V2 form, from when a request was due (see Source). "" for none.
	RTT string `json:"rtt,omitempty"`
}

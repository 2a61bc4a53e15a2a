package traffic

import "encoding/binary"

// maxTracked bounds the flows whose order a sink follows.
const maxTracked = 1 << 12

// A tracker follows the sequence numbers of UDP flows.
type tracker map[flowKey]uint64 // the next sequence number

type flowKey struct{ run, flow uint32 }

// see takes a datagram and reports whether it came out of order: after one with
// a higher number, or for the second time.
func (t *tracker) see(b []byte) (disordered bool) {
	key := flowKey{binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:])}
	seq := binary.BigEndian.Uint64(b[8:])
	next, known := (*t)[key]
	if seq < next {
		return true
	}
	if !known && (*t == nil || len(*t) >= maxTracked) {
		*t = make(tracker) // flows of runs that are over
	}
	(*t)[key] = seq + 1
	return false
}

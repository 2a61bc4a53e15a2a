package vip

import (
	"sync/atomic"
	"time"
)

// The states of a flow, which are bits. A TCP flow without any has had no answer
// to its SYN.
const (
	open    uint32 = 1 << iota // a SYN-ACK came; or it is UDP
	finOut                     // the client has ended its direction
	finIn                      // the backend has
	reset                      // either has reset it
	replied                    // of UDP: the backend has answered
	ended                      // it is in no table any more

	over = reset | ended
)

// Lifetimes of flows, in seconds of silence.
const (
	askingLife   = 15            // no answer to a SYN: the client asks anew
	openLife     = 5 * 24 * 3600 // an established connection, as conntrack has it
	halfOpenLife = 3600          // one that one side has ended
	closingLife  = 120           // one that both have, of whose last segments some are still to come
	closedLife   = 2             // one of which none are, or that was reset
	udpLife      = 30            // a UDP flow that had no answer; as the proxy's
	udpIdleLife  = 180           // one that had
	goneGrace    = 5             // a connection to an endpoint that is gone
)

const (
	// askAgain is how long a backend has been asked for, at least, when a client's
	// repeated SYN says that there is no answer. Linux repeats it after 1 s.
	askAgain = 500 * time.Millisecond
	// heldAgain is the same for one whose SYN waits in the switch: it has not been
	// heard at all. Linux repeats its SYN the second time after 3 s.
	heldAgain = 2 * time.Second
	// lastAsks is how many SYNs a backend gets when no other is left.
	lastAsks = 2
	// maxSYN is the size of the largest SYN that is kept, in bytes with metadata:
	// headers with all options.
	maxSYN = 138
	// maxPorts is how many source ports are tried for a flow whose own is in use.
	maxPorts = 32
	// maxRemaps is how often one backend is asked from another port, since the
	// client has a connection of its own from the first.
	maxRemaps = 4
)

// A flow is one connection, or what UDP has instead. Packets read it without a
// lock, so what they read never changes but for the atomics: a flow that goes to
// another backend is another flow.
type flow struct {
	table    *Table
	out, in  key
	outHash  uint32
	inHash   uint32
	send     change  // of what the client sends
	receive  change  // of what it gets
	backend  Backend // nil: between the client and who it asked, from another port
	attempt  Attempt
	isn      uint32 // the client's initial sequence number
	state    atomic.Uint32
	last     atomic.Uint32 // when a packet came, by the clock of Tables
	ack      atomic.Uint32 // what the client has acknowledged last
	acked    atomic.Uint32 // what the backend has, since the client's FIN
	outEnd   atomic.Uint32 // the sequence number behind the client's FIN
	inEnd    atomic.Uint32 // that behind the backend's
	reported atomic.Bool   // there is a job about it

	// Guarded by Table.mu.
	asked   time.Time
	asks    int
	remaps  int
	failed  bool   // the backend has refused
	syn     []byte // a copy, behind its metadata; nil: too long
	dropped bool   // its room was given back
	missing uint32 // since when the backend's endpoint is gone, for Table.look; 0: it is there
}

// touch notes that a packet came.
func (f *flow) touch() {
	if now := f.table.all.clock.Load(); f.last.Load() != now {
		f.last.Store(now)
	}
}

// life returns after how many seconds of silence a flow ends.
func (f *flow) life() uint32 {
	s := f.state.Load()
	switch {
	case !f.out.isTCP() && s&replied != 0:
		return udpIdleLife
	case !f.out.isTCP():
		return udpLife
	case s&reset != 0 || f.isClosed(s):
		return closedLife
	case s&finOut != 0 && s&finIn != 0:
		return closingLife
	case s&open == 0:
		return askingLife
	case s&(finOut|finIn) != 0:
		return halfOpenLife
	}
	return openLife
}

// isClosed reports whether each side has all that the other one has sent.
func (f *flow) isClosed(state uint32) bool {
	return state&finOut != 0 && state&finIn != 0 && f.ack.Load() == f.inEnd.Load() && f.acked.Load() == f.outEnd.Load()
}

// set adds bits to the state.
func (f *flow) set(bits uint32) { f.state.Or(bits) }

// answered notes that the backend has answered. It reports false if the flow has
// been taken from it before.
func (f *flow) answered() bool {
	// Who ends the flow sees the one bit or this the other, so that what is opened
	// is closed once.
	was := f.state.Or(open)
	if was&(open|ended) == 0 && f.backend != nil {
		f.backend.Opened()
	}
	return was&ended == 0
}

// claim ends a flow that has had no answer. It reports false if it has, or has
// ended.
func (f *flow) claim() bool {
	for {
		s := f.state.Load()
		if s&(open|ended) != 0 {
			return false
		}
		if f.state.CompareAndSwap(s, s|ended) {
			return true
		}
	}
}

// report hands the flow to the goroutine that does jobs. If there is no room the
// client's next SYN does it.
func (f *flow) report(why cause) {
	if f.reported.Swap(true) {
		return
	}
	select {
	case f.table.all.jobs <- Job{flow: f, why: why}:
	default:
		f.reported.Store(false)
	}
}

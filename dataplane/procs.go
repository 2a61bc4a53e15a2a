package dataplane

import (
	"runtime"
	"sync"
	"time"
)

// A worker sits in blocking system calls, and the Go scheduler's monitor thread
// must not mind. Left alone it does: it wakes every 20 µs for as long as it finds
// something to do, and costs a tenth of the process's time by that. Two things
// keep it asleep:
//
//   - It takes the P away from a system call after 20 µs if no P is idle. So
//     there is one more for each worker (reserveProcs).
//   - It interrupts a goroutine that has not been through the scheduler for
//     10 ms, and takes its P in every system call from then on. So a worker
//     passes through it before (pace). That is cheap as long as the goroutine
//     is not locked to its thread; it stays on that thread anyway, since a
//     blocking call keeps its own.

// A pace remembers when a worker last passed through the scheduler.
type pace struct{ last time.Time }

const paceInterval = 5 * time.Millisecond

// pass goes through the scheduler if it is time. Doing so after each wait would
// wake an idle thread each time, to look for work.
func (p *pace) pass() {
	if now := time.Now(); now.Sub(p.last) >= paceInterval {
		p.last = now
		runtime.Gosched()
	}
}

var procs sync.Mutex // serialises changes of GOMAXPROCS

// reserveProcs raises GOMAXPROCS by n, until release is called.
func reserveProcs(n int) (release func()) {
	procs.Lock()
	defer procs.Unlock()
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + n)
	return func() {
		procs.Lock()
		defer procs.Unlock()
		runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) - n)
	}
}

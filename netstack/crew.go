package netstack

import (
	"sync"
	"sync/atomic"
)

// maxIdleCrew is how many goroutines of a crew wait for work at most.
const maxIdleCrew = 32

// A crew runs short jobs on goroutines that it keeps for the next ones: gVisor
// calls deeply, and a new goroutine grows its stack each time.
type crew struct {
	jobs chan job // to one that waits; never waited on by who gives a job
	idle atomic.Int32
	done chan struct{}
	work *sync.WaitGroup // counts the goroutines
}

// A job is done by calling run.
type job interface{ run() }

func newCrew(work *sync.WaitGroup) *crew {
	return &crew{jobs: make(chan job), done: make(chan struct{}), work: work}
}

// do has j run, soon. It never blocks.
func (c *crew) do(j job) {
	select {
	case c.jobs <- j:
	default:
		c.work.Go(func() { c.serve(j) })
	}
}

func (c *crew) serve(j job) {
	for {
		j.run()
		if c.idle.Add(1) > maxIdleCrew {
			c.idle.Add(-1)
			return
		}
		select {
		case j = <-c.jobs:
			c.idle.Add(-1)
		case <-c.done:
			return
		}
	}
}

// dismiss sends home those who wait. The others go when their job is done.
func (c *crew) dismiss() { close(c.done) }

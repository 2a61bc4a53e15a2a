package dataplane

import (
	"sync/atomic"
	"time"
)

// A section tells others whether a worker is handling a batch, and so may use
// whatever the table held when the batch began. The counter is odd meanwhile.
type section struct {
	seq atomic.Uint64
	_   [56]byte
}

func (s *section) enter() { s.seq.Add(1) }
func (s *section) leave() { s.seq.Add(1) }

// waitForWorkers returns once no worker uses a table that was replaced before
// the call. A batch takes microseconds, so it polls.
func (s *Switch) waitForWorkers() {
	for i := range s.sections {
		sec := &s.sections[i]
		for seq := sec.seq.Load(); seq&1 != 0 && sec.seq.Load() == seq; {
			time.Sleep(20 * time.Microsecond)
		}
	}
}

package dataplane

import (
	"context"
	"time"
)

// A keeper asks again for addresses that nobody answered for, and gives up what
// waits for them in the end. It also tells stacks of errors about what they send
// (see transmitter.defers). It sleeps while nothing waits.
type keeper struct {
	sw      *Switch
	worker  int
	section *section
	tx      *transmitter
	wake    chan struct{}
	ready   chan struct{} // a session or a claim may be what something waits for
}

func newKeeper(s *Switch, worker int) *keeper {
	return &keeper{
		sw: s, worker: worker, section: &s.sections[worker],
		tx: newTransmitter(s, worker), wake: make(chan struct{}, 1), ready: make(chan struct{}, 1),
	}
}

// wakeUp says that something waits. It does not block.
func (k *keeper) wakeUp() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// resumeSoon says that what waits may be able to go on. It does not block.
func (k *keeper) resumeSoon() {
	select {
	case k.ready <- struct{}{}:
	default:
	}
}

// maxLate is how many frames wait for the keeper at most.
const maxLate = 64

// A lateFrame is a packet behind its metadata that is for a stack port, and
// counted as delivered.
type lateFrame struct {
	to    *Port
	frame []byte
}

func (k *keeper) run(ctx context.Context) error {
	var due <-chan time.Time // nil while nothing waits for an answer
	for {
		select {
		case <-ctx.Done():
			return nil
		case f := <-k.sw.late:
			k.deliver(f)
		case <-k.ready:
			if k.resume() && due == nil {
				due = time.After(askInterval)
			}
		case <-k.wake:
			if due == nil {
				due = time.After(askInterval)
			}
		case <-due:
			if due = nil; k.tend() || k.resume() {
				due = time.After(askInterval)
			}
		}
	}
}

// deliver hands a frame to its port, if that is there still.
func (k *keeper) deliver(f lateFrame) {
	k.section.enter()
	defer k.section.leave()
	if t := k.sw.table.Load(); f.to.slot < len(t.ports) && t.ports[f.to.slot].port == f.to {
		f.to.stack.deliver(f.frame, 1)
	}
}

// tend looks after all networks, and reports whether something still waits.
func (k *keeper) tend() (pending bool) {
	k.section.enter()
	defer k.section.leave()
	for _, n := range k.sw.table.Load().byVNI {
		ask, dropped, more := n.neighbours.due(time.Now())
		for target, q := range ask {
			k.tx.solicit(n, q.src, q.mac, target)
		}
		n.ledgers[k.worker].drop(DropNoNeighbour, dropped)
		pending = pending || more
	}
	return pending
}

package dataplane

import (
	"context"
	"time"
)

// A keeper asks again for addresses that nobody answered for, and gives up what
// waits for them in the end. It sleeps while nothing waits.
type keeper struct {
	sw      *Switch
	worker  int
	section *section
	tx      *transmitter
	wake    chan struct{}
}

func newKeeper(s *Switch, worker int) *keeper {
	return &keeper{
		sw: s, worker: worker, section: &s.sections[worker],
		tx: newTransmitter(s, worker), wake: make(chan struct{}, 1),
	}
}

// wakeUp says that something waits. It does not block.
func (k *keeper) wakeUp() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

func (k *keeper) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-k.wake:
		}
		for pending := true; pending; {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(askInterval):
			}
			pending = k.tend()
		}
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

package vip

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
)

const (
	// maxFlows is how many flows a switch carries at most, of which UDP may have
	// half, and one port two thirds of either.
	maxFlows = 64 << 10
	// maxJobs is how many flows wait for their next backend.
	maxJobs = 1024
)

// Tables is what the tables of a switch have in common. All methods are safe for
// concurrent use.
type Tables struct {
	seed  uint64
	limit int64
	clock atomic.Uint32 // seconds; 0 is never
	count atomic.Int64
	udp   atomic.Int64
	full  atomic.Uint64
	begun atomic.Uint64
	jobs  chan Job
	held  func(owner any, backend netip.Addr) bool // see Hold; may be nil

	mu     sync.Mutex
	tables map[*Table]struct{}
}

// Stats is what the tables hold.
type Stats struct {
	Flows int    `json:"flows"` // now
	UDP   int    `json:"udp"`   // of them
	Limit int    `json:"limit"` // of flows
	Begun uint64 `json:"begun"` // in all
	Full  uint64 `json:"full"`  // flows that were left to the balancer's stack since a table was full
}

// NewTables returns no tables.
func NewTables() *Tables {
	t := &Tables{
		seed: rand.Uint64(), limit: maxFlows,
		jobs: make(chan Job, maxJobs), tables: make(map[*Table]struct{}),
	}
	t.clock.Store(1)
	return t
}

// Stats returns what the tables hold.
func (a *Tables) Stats() Stats {
	return Stats{
		Flows: int(a.count.Load()), UDP: int(a.udp.Load()), Limit: int(a.limit),
		Begun: a.begun.Load(), Full: a.full.Load(),
	}
}

// New returns the table of a port, which owner stands for. Close ends it.
func (a *Tables) New(owner any) *Table {
	t := &Table{all: a, owner: owner}
	a.mu.Lock()
	a.tables[t] = struct{}{}
	a.mu.Unlock()
	return t
}

// Hold has the tables ask whether the switch itself keeps what is sent from the
// port of a table's owner to a backend, until there is a way there: such a backend
// is not silent. It is called before there is a table, and held from a packet's
// way.
func (a *Tables) Hold(held func(owner any, backend netip.Addr) bool) { a.held = held }

// Jobs returns what has to be done later: [Job.Run] does it.
func (a *Tables) Jobs() <-chan Job { return a.jobs }

// reserve takes room for one flow of t, whose lock is held; release gives it back.
func (a *Tables) reserve(t *Table, tcp bool) bool {
	share := func(limit int64) int64 { return max(limit*2/3, 1) }
	if int64(t.live.Load()) >= share(a.limit) ||
		!tcp && (a.udp.Load() >= a.limit/2 || int64(t.udp.Load()) >= share(a.limit/2)) {
		a.full.Add(1)
		return false
	}
	if a.count.Add(1) > a.limit {
		a.count.Add(-1)
		a.full.Add(1)
		return false
	}
	t.live.Add(1)
	if !tcp {
		a.udp.Add(1)
		t.udp.Add(1)
	}
	a.begun.Add(1)
	return true
}

func (a *Tables) release(t *Table, tcp bool) {
	a.count.Add(-1)
	t.live.Add(-1)
	if !tcp {
		a.udp.Add(-1)
		t.udp.Add(-1)
	}
}

// An Owner is what the tables ask the switch for while they look after their
// flows.
type Owner interface {
	// Has reports whether the endpoint with an ID has the address in the network
	// of a table's owner; known is false if there is no such network.
	Has(owner any, addr netip.Addr, endpointID string) (has, known bool)
	// Reset delivers a reset to the sandbox of a table's owner. frame, behind its
	// metadata, is lent.
	Reset(owner any, frame []byte)
}

// Look ends the flows that have been silent for too long, or whose backend is
// gone: now is the clock, in whole seconds that count up. It is called once a
// second, and when a network has changed, by one goroutine at a time.
func (a *Tables) Look(now uint32, o Owner) {
	a.clock.Store(max(now, 1))
	a.mu.Lock()
	all := make([]*Table, 0, len(a.tables))
	for t := range a.tables {
		if t.live.Load() > 0 {
			all = append(all, t)
		}
	}
	a.mu.Unlock()
	for _, t := range all {
		t.look(now, o)
	}
}

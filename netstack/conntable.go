package netstack

import (
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/ovnd/ovnd/discovery/directory"
)

// A connTable is the TCP connections of a balancer, and those that are about to
// be.
type connTable struct {
	mu        sync.Mutex
	closed    bool
	pending   map[stack.TransportEndpointID]*pending
	open      map[*use]struct{}
	perClient map[netip.Addr]*clientUse
	perVIP    map[netip.Addr]int // of open
}

// A pending connection is one that a client has asked for.
type pending struct {
	client    netip.Addr
	answering time.Time // since when it waits for the client; zero: a backend is dialed
}

type clientUse struct{ pending, open int }

// A use is one open connection to a backend.
type use struct {
	backend     *backend
	client, vip netip.Addr           // zero for a connection from outside the network
	owner       interface{ reset() } // the connection; its reset ends in connTable.remove
	datagrams   bool                 // it is a UDP flow: it ends when its backend serves no more
	gone        time.Time            // since when the endpoint is gone; guarded by connTable.mu
}

func (t *connTable) init() {
	t.pending = make(map[stack.TransportEndpointID]*pending)
	t.open = make(map[*use]struct{})
	t.perClient = make(map[netip.Addr]*clientUse)
	t.perVIP = make(map[netip.Addr]int)
}

// An admission says what becomes of a SYN.
type admission uint8

const (
	admitted admission = iota
	repeated           // its connection is pending already
	refused            // a cap is reached, or the balancer ends
)

// admit makes a connection of client pending. If it is admitted, work is one more,
// which the caller ends.
func (t *connTable) admit(id stack.TransportEndpointID, client netip.Addr, cfg *BalancerConfig, work *sync.WaitGroup) admission {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.pending[id]; ok {
		return repeated
	}
	c := t.perClient[client]
	if c == nil {
		c = &clientUse{}
	}
	switch {
	case t.closed,
		len(t.pending) >= cfg.MaxHandshakes, c.pending >= share(cfg.MaxHandshakes),
		len(t.pending)+len(t.open) >= cfg.MaxConnections, c.pending+c.open >= share(cfg.MaxConnections):
		return refused
	}
	t.pending[id] = &pending{client: client}
	t.perClient[client] = c
	c.pending++
	work.Add(1) // under the lock: after close there is none
	return admitted
}

// answer notes that the handshake with the client begins.
func (t *connTable) answer(id stack.TransportEndpointID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.pending[id]; p != nil {
		p.answering = time.Now()
	}
}

// settle ends the pending connection id: it is open or has failed.
func (t *connTable) settle(id stack.TransportEndpointID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p := t.pending[id]; p != nil {
		delete(t.pending, id)
		t.perClient[p.client].pending--
		t.forget(p.client)
	}
}

// overdue returns the pending connections that have waited for their client
// since before limit.
func (t *connTable) overdue(limit time.Time) []stack.TransportEndpointID {
	t.mu.Lock()
	defer t.mu.Unlock()
	var ids []stack.TransportEndpointID
	for id, p := range t.pending {
		if !p.answering.IsZero() && p.answering.Before(limit) {
			ids = append(ids, id)
		}
	}
	return ids
}

// add enters an open connection. It returns false when the balancer ends.
func (t *connTable) add(u *use) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return false
	}
	t.open[u] = struct{}{}
	if u.vip.IsValid() {
		t.perVIP[u.vip]++
		c := t.perClient[u.client]
		if c == nil {
			c = &clientUse{}
			t.perClient[u.client] = c
		}
		c.open++
	}
	u.backend.opened()
	return true
}

// full reports whether a connection from outside the network is one too many.
func (t *connTable) full(limit int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.closed || len(t.pending)+len(t.open) >= limit
}

// remove takes out a connection that has ended. A second time it does nothing.
func (t *connTable) remove(u *use) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.open[u]; !ok {
		return
	}
	delete(t.open, u)
	u.backend.closed()
	if !u.vip.IsValid() {
		return
	}
	if t.perVIP[u.vip]--; t.perVIP[u.vip] == 0 {
		delete(t.perVIP, u.vip)
	}
	t.perClient[u.client].open--
	t.forget(u.client)
}

// forget drops the entry of a client that has nothing.
func (t *connTable) forget(client netip.Addr) {
	if *t.perClient[client] == (clientUse{}) {
		delete(t.perClient, client)
	}
}

// uses reports whether open connections have vip as their local address.
func (t *connTable) uses(vip netip.Addr) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.perVIP[vip] > 0
}

func (t *connTable) count() (open, pending int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.open), len(t.pending)
}

// resetVIP resets what goes through vip.
func (t *connTable) resetVIP(vip netip.Addr) {
	t.reset(func(u *use) bool { return u.vip == vip })
}

// resetGone resets the connections to endpoints that snap has not had for grace.
func (t *connTable) resetGone(snap *directory.Snapshot, now time.Time, grace time.Duration) {
	t.reset(func(u *use) bool {
		if ep := snap.Endpoints.At(u.backend.addr); ep != nil && ep.ID == u.backend.id {
			u.gone = time.Time{}
			return false
		}
		if u.gone.IsZero() {
			u.gone = now
		}
		return now.Sub(u.gone) >= grace
	})
}

// close resets all connections; from now on there are no new ones.
func (t *connTable) close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.reset(func(*use) bool { return true })
}

// reset resets the connections for which which, called under the lock, is true.
func (t *connTable) reset(which func(*use) bool) {
	var chosen []*use
	t.mu.Lock()
	for u := range t.open {
		if which(u) {
			chosen = append(chosen, u)
		}
	}
	t.mu.Unlock()
	for _, u := range chosen {
		u.owner.reset()
	}
}

package netstack

import (
	"net/netip"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/ovnd/ovnd/dataplane/vip"
	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/encap"
)

// This file lets the data plane carry flows itself: it takes the same turns as
// connections that end here, and its flows count among the backends'.

// directCounters count what the data plane carries.
type directCounters struct {
	connections, flows atomic.Uint64 // in all
	active             atomic.Int64  // of both
}

// Begin implements [vip.Balancer]. It returns nil for a flow of a service that
// asks for the proxy, that nobody serves, or that this balancer has already.
func (b *Balancer) Begin(protocol uint8, client, service netip.AddrPort) vip.Attempt {
	s := b.turns.byVIP(service.Addr())
	if !s.isDirect() {
		return nil
	}
	a := &directAttempt{b: b, client: client.Addr(), datagrams: protocol == encap.ProtocolUDP}
	if a.datagrams {
		if b.flows.has(flowKey{client, service}) {
			return nil
		}
		a.attempt = s.begin(directory.UDP, service.Port())
		return a
	}
	if b.conns.asked(stack.TransportEndpointID{
		LocalAddress: toAddr(service.Addr()), LocalPort: service.Port(),
		RemoteAddress: toAddr(client.Addr()), RemotePort: client.Port(),
	}) {
		return nil
	}
	a.attempt = s.begin(directory.TCP, service.Port())
	return a
}

var _ vip.Balancer = (*Balancer)(nil)

// A directAttempt is an attempt for a flow that the data plane carries.
type directAttempt struct {
	*attempt
	b         *Balancer
	client    netip.Addr
	datagrams bool
}

// Next implements [vip.Attempt].
func (a *directAttempt) Next() (next vip.Backend, own bool) {
	bk, _, own := a.take(a.client)
	if bk == nil {
		return nil, own
	}
	return &directBackend{backend: bk, b: a.b, datagrams: a.datagrams}, false
}

// Exhausted implements [vip.Attempt].
func (a *directAttempt) Exhausted() {
	if a.datagrams {
		a.b.counters.flowsNoBackend.Add(1)
	} else {
		a.b.counters.noBackend.Add(1)
	}
}

// A directBackend is the backend of one flow that the data plane carries.
type directBackend struct {
	*backend
	b         *Balancer
	datagrams bool
}

// Addr implements [vip.Backend].
func (d *directBackend) Addr() netip.Addr { return d.addr }

// EndpointID implements [vip.Backend].
func (d *directBackend) EndpointID() string { return d.id }

// Serving implements [vip.Backend].
func (d *directBackend) Serving() bool { return d.serving.Load() }

// Opened implements [vip.Backend].
func (d *directBackend) Opened() {
	c := &d.b.counters
	if d.datagrams {
		c.direct.flows.Add(1)
		c.flows.Add(1)
	} else {
		d.answers()
		c.direct.connections.Add(1)
		c.connections.Add(1)
	}
	c.direct.active.Add(1)
	d.direct.Add(1)
	d.opened()
}

// Closed implements [vip.Backend].
func (d *directBackend) Closed() {
	d.b.counters.direct.active.Add(-1)
	d.direct.Add(-1)
	d.closed()
}

// Failed implements [vip.Backend].
func (d *directBackend) Failed(silent bool) { d.failed(silent) }

// isDirect reports whether the data plane is to carry the service's flows, and
// anybody takes new ones. s may be nil.
func (s *service) isDirect() bool {
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.ready) > 0 && s.info.Way.IsDirect()
}

// asked reports whether the connection id is pending.
func (t *connTable) asked(id stack.TransportEndpointID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.pending[id] != nil
}

// has reports whether there is a flow.
func (t *flowTable) has(key flowKey) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.flows[key] != nil
}

package netstack

import (
	"context"
	"fmt"
	"net"
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/ovnd/ovnd/discovery/directory"
)

// A stackConn is one end of a connection or UDP flow in a stack, as a net.Conn.
type stackConn struct {
	net.Conn // on ep and queue
	ep       tcpip.Endpoint
	queue    *waiter.Queue
	closing  sync.Once
	closed   func() // called once, when it has been closed; may be nil
}

func newStreamConn(ep tcpip.Endpoint, queue *waiter.Queue, closed func()) *stackConn {
	return &stackConn{Conn: gonet.NewTCPConn(queue, ep), ep: ep, queue: queue, closed: closed}
}

func newDatagramConn(ep tcpip.Endpoint, queue *waiter.Queue, closed func()) *stackConn {
	return &stackConn{Conn: gonet.NewUDPConn(queue, ep), ep: ep, queue: queue, closed: closed}
}

// waitRead waits until Read does not.
func (c *stackConn) waitRead() {
	const events = waiter.ReadableEvents | waiter.EventErr | waiter.EventHUp
	if c.ep.Readiness(events) != 0 {
		return
	}
	entry, ready := waiter.NewChannelEntry(events)
	c.queue.EventRegister(&entry)
	defer c.queue.EventUnregister(&entry)
	if c.ep.Readiness(events) == 0 {
		<-ready // closing tells as well
	}
}

// CloseWrite ends the own direction.
func (c *stackConn) CloseWrite() error { return toError(c.ep.Shutdown(tcpip.ShutdownWrite)) }

// Close closes the connection; a second time it does nothing.
func (c *stackConn) Close() error {
	c.end(c.ep.Close)
	return nil
}

// reset resets the connection.
func (c *stackConn) reset() { c.end(c.ep.Abort) }

func (c *stackConn) end(how func()) {
	c.closing.Do(func() {
		how()
		if c.closed != nil {
			c.closed()
		}
	})
}

// DialService connects, from the balancer's own address, to the next backend of
// a service that has port published, at its own target port. A backend that
// cannot be reached is passed over. The connection is closed by the balancer
// when its endpoint has gone, a UDP flow as soon as the backend serves no more.
func (b *Balancer) DialService(ctx context.Context, serviceID string, port directory.Port) (net.Conn, error) {
	s := b.turns.byID(serviceID)
	if s == nil {
		return nil, errNoBackend
	}
	if b.conns.full(b.cfg.MaxConnections) {
		b.counters.overCap.Add(1)
		return nil, fmt.Errorf("network %s has %d connections, which is all it may have", b.cfg.Name, b.cfg.MaxConnections)
	}
	switch port.Protocol {
	case directory.TCP:
		return b.dialStream(ctx, s.beginPublished(port))
	case directory.UDP:
		return b.dialDatagrams(s.beginPublished(port))
	default:
		return nil, fmt.Errorf("protocol %s is not supported", port.Protocol)
	}
}

func (b *Balancer) dialStream(ctx context.Context, a *attempt) (net.Conn, error) {
	l, bk, err := b.dialNext(ctx, a)
	if err != nil {
		if ctx.Err() == nil {
			b.counters.noBackend.Add(1)
		}
		return nil, err
	}
	u := &use{backend: bk}
	c := newStreamConn(l.ep, &l.queue, func() { b.conns.remove(u) })
	u.owner = c
	if !b.conns.add(u) {
		c.reset()
		return nil, net.ErrClosed
	}
	b.counters.connections.Add(1)
	return c, nil
}

func (b *Balancer) dialDatagrams(a *attempt) (net.Conn, error) {
	for {
		bk, addr, ok := a.next()
		if !ok {
			b.counters.flowsNoBackend.Add(1)
			return nil, errNoBackend
		}
		queue := &waiter.Queue{}
		ep, err := b.connectUDP(addr, queue)
		if err != nil {
			bk.failed(false)
			continue
		}
		u := &use{backend: bk, datagrams: true}
		c := newDatagramConn(ep, queue, func() { b.conns.remove(u) })
		u.owner = c
		if !b.conns.add(u) {
			c.reset()
			return nil, net.ErrClosed
		}
		b.counters.flows.Add(1)
		return c, nil
	}
}

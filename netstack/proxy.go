package netstack

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/ovnd/ovnd/discovery/directory"
)

// errNoBackend means that nobody serves what was asked for, or that nobody who
// does can be reached.
var errNoBackend = errors.New("no backend of the service could be reached")

// errSilent means that a backend did not answer in time.
var errSilent = errors.New("no answer")

// isSilence reports whether err means that nobody has answered, which takes long
// to find out.
func isSilence(err error) bool {
	return errors.Is(err, errSilent) || errors.Is(err, syscall.ETIMEDOUT)
}

// handleTCP sees each TCP segment that no connection has. It returns false to
// have it answered with a reset.
func (b *Balancer) handleTCP(id stack.TransportEndpointID, p *stack.PacketBuffer) bool {
	flags := header.TCP(p.TransportHeader().Slice()).Flags()
	if flags&(header.TCPFlagSyn|header.TCPFlagAck|header.TCPFlagRst) != header.TCPFlagSyn {
		return false
	}
	if !b.turns.byVIP(fromAddr(id.LocalAddress)).isReady() {
		b.counters.noBackend.Add(1)
		return false
	}
	switch b.conns.admit(id, fromAddr(id.RemoteAddress), &b.cfg, &b.work) {
	case repeated:
		return true
	case refused:
		b.counters.overCap.Add(1)
		return true // the client asks again
	case admitted:
	}
	if !b.syns.HandlePacket(id, p) {
		b.conns.settle(id)
		b.work.Done()
		return false
	}
	return true
}

// A request is a SYN that is to be answered.
type request struct {
	b *Balancer
	r *tcp.ForwarderRequest
}

// run implements [job].
func (q *request) run() {
	if p := q.b.serve(q.r); p != nil {
		p.run()
	}
}

// serve answers one SYN, and returns the pump that is to run, if one is. The client's handshake is completed only when a backend
// has been reached, so that what a backend refuses is refused. However it ends,
// the request is completed: it holds a place.
func (b *Balancer) serve(r *tcp.ForwarderRequest) *pump {
	defer b.work.Done()
	id := r.ID()
	defer b.conns.settle(id)

	back, bk, err := b.dialNext(context.Background(), b.attemptFor(id))
	if err != nil {
		b.counters.noBackend.Add(1)
		r.Complete(true)
		return nil
	}
	b.conns.answer(id)
	front := &leg{}
	ep, terr := r.CreateEndpoint(&front.queue)
	r.Complete(false)
	if terr != nil {
		b.counters.abandoned.Add(1)
		back.ep.Abort()
		return nil
	}
	front.ep = ep
	b.keepAlive(ep)
	return b.carry(front, back, &use{backend: bk, client: fromAddr(id.RemoteAddress), vip: fromAddr(id.LocalAddress)})
}

// attemptFor begins the attempt for a client's request; nil if the service has
// gone meanwhile.
func (b *Balancer) attemptFor(id stack.TransportEndpointID) *attempt {
	s := b.turns.byVIP(fromAddr(id.LocalAddress))
	if s == nil {
		return nil
	}
	return s.begin(directory.TCP, id.LocalPort)
}

// dialNext dials the backends whose turn it is, until one answers. The endpoint
// is the caller's.
func (b *Balancer) dialNext(ctx context.Context, a *attempt) (*leg, *backend, error) {
	if a == nil {
		return nil, nil, errNoBackend
	}
	var last error
	for {
		bk, addr, ok := a.next()
		if !ok {
			return nil, nil, errors.Join(errNoBackend, last)
		}
		l, err := b.dial(ctx, addr)
		if err == nil {
			bk.answers()
			return l, bk, nil
		}
		if ctx.Err() != nil {
			return nil, nil, ctx.Err() // the client's doing, not the backend's
		}
		bk.failed(isSilence(err))
		last = fmt.Errorf("%s: %w", addr, err)
		select {
		case <-b.done:
			return nil, nil, last
		default:
		}
	}
}

// dial connects to addr from the balancer's own address.
func (b *Balancer) dial(ctx context.Context, addr netip.AddrPort) (*leg, error) {
	l := &leg{}
	ep, terr := b.stack.NewEndpoint(tcp.ProtocolNumber, protocolOf(addr.Addr()), &l.queue)
	if terr != nil {
		return nil, toError(terr)
	}
	l.ep = ep
	b.keepAlive(ep)
	entry, ready := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventErr | waiter.EventHUp)
	l.queue.EventRegister(&entry)
	defer l.queue.EventUnregister(&entry)
	if err := b.connect(ctx, ep, addr, ready); err != nil {
		ep.Abort()
		return nil, err
	}
	return l, nil
}

func (b *Balancer) connect(ctx context.Context, ep tcpip.Endpoint, addr netip.AddrPort, ready <-chan struct{}) error {
	if terr := ep.Bind(toFull(netip.AddrPortFrom(b.cfg.Addr.Addr(), 0))); terr != nil {
		return toError(terr)
	}
	terr := ep.Connect(toFull(addr))
	if _, started := terr.(*tcpip.ErrConnectStarted); !started {
		return toError(terr)
	}
	timeout := time.NewTimer(b.cfg.DialTimeout)
	defer timeout.Stop()
	select {
	case <-ready:
		return toError(ep.LastError())
	case <-timeout.C:
		return errSilent
	case <-ctx.Done():
		return ctx.Err()
	case <-b.done:
		return errors.New("the balancer ends")
	}
}

// keepAlive has the far end asked for a sign of life when it has been silent.
func (b *Balancer) keepAlive(ep tcpip.Endpoint) {
	const probes = 5
	idle := tcpip.KeepaliveIdleOption(b.cfg.KeepAlive)
	interval := tcpip.KeepaliveIntervalOption(b.cfg.KeepAlive / 4)
	// They fail for values out of range only.
	_ = ep.SetSockOpt(&idle)
	_ = ep.SetSockOpt(&interval)
	_ = ep.SetSockOptInt(tcpip.KeepaliveCountOption, probes)
	ep.SocketOptions().SetKeepAlive(true)
}

// expireHandshakes ends those that a client has not completed in time.
func (b *Balancer) expireHandshakes(now time.Time) {
	for _, id := range b.conns.overdue(now.Add(-b.cfg.HandshakeTimeout)) {
		ep := b.stack.FindTransportEndpoint(protocolOf(fromAddr(id.LocalAddress)), tcp.ProtocolNumber, id, nic)
		if t, ok := ep.(*tcp.Endpoint); ok && t.EndpointState() == tcp.StateSynRecv {
			t.Abort() // CreateEndpoint returns
		}
	}
}

// resetGone resets the connections to endpoints that have been gone for a while.
func (b *Balancer) resetGone(now time.Time) {
	b.conns.resetGone(b.snap.Load(), now, b.cfg.GoneGrace)
}

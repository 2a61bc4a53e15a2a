package netstack

import (
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/ovnd/ovnd/encap"
)

// A far end that is silent is asked for a sign of life, on either side: a sandbox
// may be gone without a word.
const (
	keepAliveIdle     = 2 * time.Minute
	keepAliveInterval = 30 * time.Second
	keepAliveCount    = 5
)

var hostKeepAlive = net.KeepAliveConfig{
	Enable: true, Idle: keepAliveIdle, Interval: keepAliveInterval, Count: keepAliveCount,
}

// handleTCP sees each TCP segment that no connection has. It returns false to
// have it answered with a reset.
func (e *Egress) handleTCP(id stack.TransportEndpointID, p *stack.PacketBuffer) bool {
	h := header.TCP(p.TransportHeader().Slice())
	if h.Flags()&(header.TCPFlagSyn|header.TCPFlagAck|header.TCPFlagRst) != header.TCPFlagSyn {
		return false
	}
	from, to := clientOf(id)
	if _, ok := e.target(encap.ProtocolTCP, to); !ok {
		e.counters.refused.Add(1)
		if to.Addr() == e.gateway || !e.cfg.Gateway.Contains(to.Addr()) {
			return false
		}
		// The switch lets nobody answer in another sandbox's name.
		e.unreachableTCP(from, to, h.SequenceNumber(), encap.AdminProhibited)
		return true
	}
	d := &egressDial{client: from.Addr(), seq: h.SequenceNumber()}
	switch e.clients.dial(id, d, func() { e.work.Add(1) }) {
	case repeated:
		return true
	case refused:
		e.counters.overCap.Add(1)
		return true // the client asks again
	case admitted:
	}
	if !e.syns.HandlePacket(id, p) {
		e.clients.dialed(id)
		e.work.Done()
		return false
	}
	return true
}

// An egressRequest is a SYN that is to be answered.
type egressRequest struct {
	e *Egress
	r *tcp.ForwarderRequest
}

// run implements [job].
func (q *egressRequest) run() { q.e.serveTCP(q.r) }

// serveTCP answers one SYN and carries the connection.
// The client's handshake is completed when the far end's is, so that what is
// refused there is refused here.
func (e *Egress) serveTCP(r *tcp.ForwarderRequest) {
	defer e.work.Done()
	id := r.ID()
	from, to := clientOf(id)
	target, ok := e.target(encap.ProtocolTCP, to)
	if !ok { // it was, when the SYN came
		e.clients.dialed(id)
		r.Complete(true)
		return
	}
	far, err := e.dialer.DialContext(e.ctx, "tcp", target.String())
	if err != nil {
		e.refuseTCP(r, id, err)
		return
	}
	c := &egressConn{client: from.Addr()}
	c.far, c.queue = far.(*net.TCPConn), &c.events
	ep, terr := r.CreateEndpoint(c.queue)
	r.Complete(false)
	e.clients.dialed(id)
	if terr != nil {
		resetFar(c.far) // the client went away
		return
	}
	c.ep = ep
	if !e.clients.open(c) {
		e.counters.overCap.Add(1)
		c.reset()
		return
	}
	e.counters.connections.Add(1)
	c.carry(e.crew)
	e.clients.ended(c)
}

// refuseTCP tells the client what became of the dial.
func (e *Egress) refuseTCP(r *tcp.ForwarderRequest, id stack.TransportEndpointID, err error) {
	from, to := clientOf(id)
	reset := false
	why, answer := encap.HostUnreachable, false
	var netErr net.Error
	switch {
	case e.ctx.Err() != nil:
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ECONNRESET):
		e.counters.unreachable.Add(1)
		reset = true
		if e.refused != nil {
			e.refused(to)
		}
	case errors.As(err, &netErr) && netErr.Timeout():
		// To the client it is what it would be without us: nobody answers.
		e.counters.timeouts.Add(1)
	default:
		why, answer = unreachableBy(err)
		if answer {
			e.counters.unreachable.Add(1)
		} else {
			e.shortage(to, err)
		}
	}
	r.Complete(reset)
	if d := e.clients.dialed(id); d != nil && answer {
		e.unreachableTCP(from, to, d.seq, why)
	}
}

// unreachableBy returns the ICMP error that says what err does, and false if it
// is a shortage of this host's that may pass.
func unreachableBy(err error) (encap.Unreachable, bool) {
	switch {
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.ENETDOWN), errors.Is(err, unix.EAFNOSUPPORT):
		return encap.NetUnreachable, true
	case errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.EHOSTDOWN), errors.Is(err, unix.EINVAL):
		return encap.HostUnreachable, true
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return encap.AdminProhibited, true // a firewall rule of the host's
	}
	return 0, false
}

// An egressConn is a connection between a sandbox and the world.
type egressConn struct {
	hostPair
	events waiter.Queue // ep's
	client netip.Addr
	dead   atomic.Bool // reset
}

// carry passes on what either end sends, until both have ended or one is reset.
func (c *egressConn) carry(crew *crew) {
	tune(c.ep)
	raw, err := c.far.SyscallConn()
	if err != nil {
		c.reset()
		return
	}
	down := egressDownload{c: c, raw: raw, ended: make(chan struct{})}
	crew.do(&down)
	if c.upload(raw) != nil {
		c.reset()
	}
	<-down.ended
	if !c.dead.Load() {
		c.ep.Close()
		_ = c.far.Close()
	}
}

// An egressDownload is one direction of a connection.
type egressDownload struct {
	c     *egressConn
	raw   syscall.RawConn
	ended chan struct{}
}

// run implements [job].
func (d *egressDownload) run() {
	defer close(d.ended)
	if d.c.download(d.raw) != nil {
		d.c.reset()
	}
}

// tune sets what connections between programs have in common.
func tune(ep tcpip.Endpoint) {
	idle, interval := tcpip.KeepaliveIdleOption(keepAliveIdle), tcpip.KeepaliveIntervalOption(keepAliveInterval)
	// They fail for values out of range only.
	_ = ep.SetSockOpt(&idle)
	_ = ep.SetSockOpt(&interval)
	_ = ep.SetSockOptInt(tcpip.KeepaliveCountOption, keepAliveCount)
	ep.SocketOptions().SetKeepAlive(true)
	ep.SocketOptions().SetDelayOption(false) // Nagle's: the sender has decided
}

// reset resets both ends, which ends carry.
func (c *egressConn) reset() {
	if c.dead.Swap(true) {
		return
	}
	c.ep.Abort()
	resetFar(c.far)
}

func resetFar(far *net.TCPConn) {
	_ = far.SetLinger(0)
	_ = far.Close()
}

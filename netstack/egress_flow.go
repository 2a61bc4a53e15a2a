package netstack

import (
	"errors"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/ovnd/ovnd/encap"
)

// An egressFlowKey is between whom datagrams go. Pings have their identifier as
// the client's port, and none at the far end.
type egressFlowKey struct {
	protocol   uint8
	client, to netip.AddrPort
}

// egressFlows are the flows of UDP and ping, each with a socket of the host's.
// egressClients counts and caps them.
type egressFlows struct {
	mu     sync.Mutex
	closed bool
	by     map[egressFlowKey]*egressFlow
}

// An egressFlow takes what one port of a sandbox sends to one port of the world,
// and passes on what comes back, on a goroutine of its own.
type egressFlow struct {
	e        *Egress
	key      egressFlowKey
	socket   *datagramSocket
	route    *stack.Route // to the client, in the far end's name
	last     atomic.Int64 // when it was used, Unix time in nanoseconds
	answered atomic.Bool
}

var (
	errEgressClosed  = errors.New("egress: it ends")
	errEgressRefused = errors.New("egress: nobody may go there")
)

func (t *egressFlows) init() { t.by = make(map[egressFlowKey]*egressFlow) }

// handleUDP sees each datagram. It returns false to have it answered with port
// unreachable.
func (e *Egress) handleUDP(id stack.TransportEndpointID, p *stack.PacketBuffer) bool {
	from, to := clientOf(id)
	size := int(header.UDP(p.TransportHeader().Slice()).Length()) - header.UDPMinimumSize
	if size < 0 || size > p.Data().Size() {
		e.counters.datagramsLost.Add(1)
		return true
	}
	var payload []byte
	if size > 0 {
		payload, _ = p.Data().PullUp(size)
	}
	key := egressFlowKey{encap.ProtocolUDP, from, to}
	f, err := e.flow(key)
	if errors.Is(err, errEgressRefused) && to.Addr() == e.gateway {
		return false
	}
	if err == nil {
		err = f.send(payload)
	}
	e.flowFailed(key, 0, err)
	return true
}

// flowFailed tells a client why what it sent did not leave, if something can be
// told. seq is a ping's.
func (e *Egress) flowFailed(key egressFlowKey, seq uint16, err error) {
	if err == nil || errors.Is(err, errEgressClosed) || errors.Is(err, os.ErrClosed) {
		return
	}
	why, ok := unreachableBy(err)
	switch {
	case errors.Is(err, errEgressRefused):
		why = encap.AdminProhibited
	case errors.Is(err, unix.ECONNREFUSED):
		why = encap.PortUnreachable
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.EMSGSIZE):
		e.counters.datagramsLost.Add(1)
		return
	case !ok:
		e.shortage(key.to, err)
		return
	}
	if key.protocol == encap.ProtocolUDP {
		e.unreachableUDP(key.client, key.to, why)
	} else {
		e.unreachablePing(key.client, key.to, seq, why)
	}
}

// flow returns the flow of a key, which begins if there is none.
func (e *Egress) flow(key egressFlowKey) (*egressFlow, error) {
	t := &e.flows
	t.mu.Lock()
	defer t.mu.Unlock()
	if f := t.by[key]; f != nil {
		return f, nil
	}
	if t.closed {
		return nil, errEgressClosed
	}
	target, ok := e.target(key.protocol, key.to)
	if !ok {
		e.counters.refused.Add(1)
		return nil, errEgressRefused
	}
	ok, full := e.clients.addFlow(key.client.Addr())
	if full {
		e.evict(key.client.Addr())
		ok, _ = e.clients.addFlow(key.client.Addr())
	}
	if !ok {
		return nil, errEgressClosed
	}
	f, err := e.beginFlow(key, target)
	if err != nil {
		e.clients.removeFlow(key.client.Addr())
		return nil, err
	}
	t.by[key] = f
	e.counters.flows.Add(1)
	e.work.Go(f.receive)
	return f, nil
}

// beginFlow opens a flow's socket.
func (e *Egress) beginFlow(key egressFlowKey, target netip.AddrPort) (*egressFlow, error) {
	route, terr := e.stack.FindRoute(nic, toAddr(key.to.Addr()), toAddr(key.client.Addr()), protocolOf(key.client.Addr()), false)
	if terr != nil {
		return nil, toError(terr)
	}
	socket, err := e.open(key.protocol, target)
	if err != nil {
		route.Release()
		return nil, err
	}
	f := &egressFlow{e: e, key: key, socket: socket, route: route}
	f.touch()
	return f, nil
}

// evict ends the flow that was idle for longest, of the client's if it has as
// many as it may. e.flows.mu is held.
func (e *Egress) evict(client netip.Addr) {
	var oldest *egressFlow
	own := e.clients.flowsFull(client)
	for _, f := range e.flows.by {
		if own && f.key.client.Addr() != client {
			continue
		}
		if oldest == nil || f.last.Load() < oldest.last.Load() {
			oldest = f
		}
	}
	if oldest != nil {
		e.counters.evicted.Add(1)
		e.endLocked(oldest)
	}
}

// end ends a flow. A second time it does nothing.
func (e *Egress) end(f *egressFlow) {
	e.flows.mu.Lock()
	defer e.flows.mu.Unlock()
	e.endLocked(f)
}

func (e *Egress) endLocked(f *egressFlow) {
	if e.flows.by[f.key] != f {
		return
	}
	delete(e.flows.by, f.key)
	e.clients.removeFlow(f.key.client.Addr())
	f.socket.close() // ends receive
}

// expireFlows ends those that have been idle.
func (e *Egress) expireFlows(now time.Time) {
	e.flows.mu.Lock()
	defer e.flows.mu.Unlock()
	for _, f := range e.flows.by {
		life := unansweredTimeout
		if f.answered.Load() && f.key.protocol == encap.ProtocolUDP {
			life = e.cfg.FlowTimeout
		}
		if now.Sub(time.Unix(0, f.last.Load())) > life {
			e.endLocked(f)
		}
	}
}

// closeFlows ends all; from now on none begins.
func (e *Egress) closeFlows() {
	e.flows.mu.Lock()
	defer e.flows.mu.Unlock()
	e.flows.closed = true
	for _, f := range e.flows.by {
		e.endLocked(f)
	}
}

func (f *egressFlow) touch() { f.last.Store(time.Now().UnixNano()) }

// send passes on what the client sends. It does not block.
func (f *egressFlow) send(payload []byte) error {
	f.touch()
	err := f.socket.send(payload)
	if errors.Is(err, unix.ECONNREFUSED) {
		// That was about an earlier one.
		f.e.flowFailed(f.key, 0, err)
		err = f.socket.send(payload)
	}
	return err
}

// receive passes on what comes back, until the flow ends.
func (f *egressFlow) receive() {
	defer f.route.Release()
	defer f.e.end(f)
	for {
		err := f.socket.receive(f.deliver)
		if err == nil {
			continue
		}
		f.e.flowFailed(f.key, 0, err)
		if !errors.Is(err, unix.ECONNREFUSED) {
			return
		}
	}
}

// deliver takes one datagram, or ping's message, to the client.
func (f *egressFlow) deliver(b []byte) {
	f.answered.Store(true)
	f.touch()
	if f.key.protocol != encap.ProtocolUDP {
		f.deliverPing(b)
		return
	}
	p := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: int(f.route.MaxHeaderLength()) + header.UDPMinimumSize,
		Payload:            buffer.MakeWithData(b),
	})
	defer p.DecRef()
	p.TransportProtocolNumber = header.UDPProtocolNumber
	h := p.TransportHeader().Push(header.UDPMinimumSize)
	length := uint16(len(h) + len(b))
	header.UDP(h).Encode(&header.UDPFields{SrcPort: f.key.to.Port(), DstPort: f.key.client.Port(), Length: length})
	pseudo := encap.Sum(f.route.PseudoHeaderChecksum(header.UDPProtocolNumber, length))
	sum := pseudo.Add(encap.SumBytes(h)).Add(encap.SumBytes(b)).Checksum()
	if sum == 0 {
		sum = 0xffff // RFC 768: zero is none
	}
	header.UDP(h).SetChecksum(sum)
	f.write(p)
}

// write sends a packet to the client, in fragments if need be.
func (f *egressFlow) write(p *stack.PacketBuffer) {
	// What fails is counted by the stack; a datagram may get lost.
	_ = f.route.WritePacket(stack.NetworkHeaderParams{Protocol: p.TransportProtocolNumber, TTL: f.route.DefaultTTL()}, p)
}

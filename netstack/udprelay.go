package netstack

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxRelayFlows    = 4096             // of one published port
	relayTimeout     = 30 * time.Second // of a flow that has had no answer
	relayIdleTimeout = 3 * time.Minute  // of one that had
	relayDialTimeout = time.Second
)

// A udpRelay passes on what comes to one UDP socket of the host: a flow for each
// port of a client.
type udpRelay struct {
	port *hostPort
	conn *net.UDPConn
	work sync.WaitGroup

	mu        sync.Mutex
	flows     map[netip.AddrPort]*relayFlow
	perClient map[netip.Addr]int
}

// A relayFlow is one flow, and the goroutine that passes on its answers.
type relayFlow struct {
	client   netip.AddrPort
	far      net.Conn
	last     atomic.Int64 // Unix nanoseconds
	answered atomic.Bool
}

func newUDPRelay(h *hostPort, c *net.UDPConn) *udpRelay {
	return &udpRelay{port: h, conn: c, flows: make(map[netip.AddrPort]*relayFlow), perClient: make(map[netip.Addr]int)}
}

// run passes on datagrams until the socket is closed.
func (r *udpRelay) run() {
	done := make(chan struct{})
	r.work.Go(func() { r.expire(done) })
	buf := new([maxDatagram]byte)
	for {
		n, client, err := r.conn.ReadFromUDPAddrPort(buf[:])
		if errors.Is(err, net.ErrClosed) {
			break
		}
		if err != nil {
			continue // an ICMP error for an earlier answer
		}
		if f := r.flow(client); f != nil {
			f.last.Store(time.Now().UnixNano())
			_, _ = f.far.Write(buf[:n]) // a flow that is broken ends by its reader
		}
	}
	close(done)
	r.mu.Lock()
	for _, f := range r.flows {
		_ = f.far.Close()
	}
	r.mu.Unlock()
	r.work.Wait()
}

// flow returns the flow of client, which it begins if there is none; nil if it
// cannot. It is called by run alone.
func (r *udpRelay) flow(client netip.AddrPort) *relayFlow {
	r.mu.Lock()
	f, full := r.flows[client], len(r.flows) >= maxRelayFlows || r.perClient[client.Addr()] >= share(maxRelayFlows)
	r.mu.Unlock()
	if f != nil || full {
		return f
	}
	ctx, cancel := context.WithTimeout(r.port.ctx, relayDialTimeout)
	defer cancel()
	far, err := r.port.dial(ctx)
	if err != nil {
		r.port.log.Debug("datagram to a published port dropped", "client", client, "err", err)
		return nil
	}
	f = &relayFlow{client: client, far: far}
	f.last.Store(time.Now().UnixNano())
	r.mu.Lock()
	r.flows[client] = f
	r.perClient[client.Addr()]++
	r.mu.Unlock()
	r.work.Go(func() { r.answers(f) })
	return f
}

// answers passes on what the far end of f says, until f is closed or refused.
func (r *udpRelay) answers(f *relayFlow) {
	defer r.forget(f)
	for {
		if c, ok := f.far.(*stackConn); ok {
			c.waitRead() // without a buffer
		}
		if !r.answer(f) {
			return
		}
	}
}

func (r *udpRelay) answer(f *relayFlow) bool {
	buf := datagrams.Get().(*[maxDatagram]byte)
	defer datagrams.Put(buf)
	n, err := f.far.Read(buf[:])
	if err != nil {
		return false
	}
	f.answered.Store(true)
	f.last.Store(time.Now().UnixNano())
	_, err = r.conn.WriteToUDPAddrPort(buf[:n], f.client)
	return !errors.Is(err, net.ErrClosed)
}

func (r *udpRelay) forget(f *relayFlow) {
	_ = f.far.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.flows, f.client)
	client := f.client.Addr()
	if r.perClient[client]--; r.perClient[client] == 0 {
		delete(r.perClient, client)
	}
}

// expire ends flows that have been silent for too long.
func (r *udpRelay) expire(done <-chan struct{}) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case now := <-tick.C:
			r.expireBefore(now)
		}
	}
}

func (r *udpRelay) expireBefore(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.flows {
		timeout := relayTimeout
		if f.answered.Load() {
			timeout = relayIdleTimeout
		}
		if now.Sub(time.Unix(0, f.last.Load())) >= timeout {
			_ = f.far.Close() // its goroutine takes it out
		}
	}
}

package netstack

import (
	"bytes"
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/waiter"
)

// pumpBuffer is how many bytes a pump takes at a time.
const pumpBuffer = 128 << 10

// pumpBuffers are lent to pumps that have something to move, so that connections
// that are idle hold none.
var pumpBuffers = sync.Pool{New: func() any { return new([pumpBuffer]byte) }}

// A leg is one TCP connection of a stack.
type leg struct {
	ep    tcpip.Endpoint
	queue waiter.Queue
	entry waiter.Entry
	conn  *carriage // which it is half of
	in    *pump     // takes from it
	out   *pump     // writes to it
}

// A carriage is one connection that a balancer carries: two legs, and a pump for
// each direction. It has no goroutine while nothing moves.
type carriage struct {
	b           *Balancer
	use         *use
	front, back *leg
	up, down    pump

	mu    sync.Mutex
	ended bool // both legs have been closed or reset
	open  int  // directions that have not ended
}

// carry passes on what either leg gives to the other, until both have ended or
// one fails. The legs are the carriage's from now on. The caller runs the pump
// that it returns, unless nil: the backend may have spoken already.
func (b *Balancer) carry(front, back *leg, u *use) *pump {
	c := &carriage{b: b, use: u, front: front, back: back, open: 2}
	c.up.init(c, front, back)
	c.down.init(c, back, front)
	u.owner = c
	if !b.conns.add(u) {
		front.ep.Abort()
		back.ep.Abort()
		return nil
	}
	b.counters.connections.Add(1)
	for _, l := range []*leg{front, back} {
		l.conn = c
		l.entry.Init(l, waiter.ReadableEvents|waiter.WritableEvents|waiter.EventErr|waiter.EventHUp)
		l.queue.EventRegister(&l.entry)
	}
	// What has happened before they listened.
	if c.up.hasWork() {
		c.up.wake()
	}
	if c.down.hasWork() && c.down.claim() {
		return &c.down
	}
	return nil
}

// NotifyEvent implements [waiter.EventListener]. Locks of gVisor are held.
func (l *leg) NotifyEvent(events waiter.EventMask) {
	const failed = waiter.EventErr | waiter.EventHUp
	if events&(waiter.ReadableEvents|failed) != 0 {
		l.in.wake()
	}
	if events&(waiter.WritableEvents|failed) != 0 {
		l.out.wake()
	}
}

// directionEnded notes that one direction has come to its end. With the second
// the connection has.
func (c *carriage) directionEnded() {
	c.mu.Lock()
	c.open--
	last := c.open == 0
	c.mu.Unlock()
	if last {
		c.end(tcpip.Endpoint.Close)
	}
}

// reset resets both legs.
func (c *carriage) reset() { c.end(tcpip.Endpoint.Abort) }

func (c *carriage) end(how func(tcpip.Endpoint)) {
	c.mu.Lock()
	first := !c.ended
	c.ended = true
	c.mu.Unlock()
	if !first {
		return
	}
	for _, l := range []*leg{c.front, c.back} {
		l.queue.EventUnregister(&l.entry)
		how(l.ep)
	}
	c.b.conns.remove(c.use)
}

// States of a pump.
const (
	pumpIdle uint32 = iota
	pumpRuns
	pumpWoken // while it ran: it must look again
	pumpEnded // for good
)

// A pump moves bytes from one leg to the other. It runs, on a goroutine that it
// starts for that, only while there is something to move.
type pump struct {
	conn     *carriage
	from, to *leg
	state    atomic.Uint32

	// Of the goroutine that runs it:
	buf   *[pumpBuffer]byte // lent; nil if rest is empty
	rest  []byte            // what has been taken but not yet written
	ended bool
}

func (p *pump) init(c *carriage, from, to *leg) {
	p.conn, p.from, p.to = c, from, to
	from.in, to.out = p, p
}

// hasWork reports whether the leg that it takes from has something, or has ended.
func (p *pump) hasWork() bool {
	return p.from.ep.Readiness(waiter.ReadableEvents) != 0
}

// wake has the pump look whether there is something to move.
func (p *pump) wake() {
	if p.claim() {
		p.conn.b.crew.do(p)
	}
}

// claim reports whether the caller must have the pump run. If it runs already it
// looks again; if it has ended there is nothing to do.
func (p *pump) claim() bool {
	for {
		switch p.state.Load() {
		case pumpIdle:
			if p.state.CompareAndSwap(pumpIdle, pumpRuns) {
				return true
			}
		case pumpRuns:
			if p.state.CompareAndSwap(pumpRuns, pumpWoken) {
				return false
			}
		default:
			return false
		}
	}
}

// run implements [job].
func (p *pump) run() {
	for {
		p.state.Store(pumpRuns)
		p.move()
		if p.ended {
			p.state.Store(pumpEnded)
			return
		}
		if p.state.CompareAndSwap(pumpRuns, pumpIdle) {
			return
		}
	}
}

// move moves what can be moved now.
func (p *pump) move() {
	for {
		if len(p.rest) == 0 && !p.take() {
			return
		}
		n, err := p.to.ep.Write(bytes.NewReader(p.rest), tcpip.WriteOptions{})
		p.rest = p.rest[n:]
		switch err.(type) {
		case nil:
		case *tcpip.ErrWouldBlock:
			return // the leg tells when it takes more
		default:
			p.fail()
			return
		}
	}
}

// take fills the buffer. It returns false when there is nothing for now, or no
// more.
func (p *pump) take() bool {
	if p.buf == nil {
		p.buf = pumpBuffers.Get().(*[pumpBuffer]byte)
	}
	w := tcpip.SliceWriter(p.buf[:])
	res, err := p.from.ep.Read(&w, tcpip.ReadOptions{})
	switch err.(type) {
	case nil:
		p.rest = p.buf[:res.Count]
		moderate(p.from.ep, res.Count)
		return true
	case *tcpip.ErrWouldBlock:
		p.release()
	case *tcpip.ErrClosedForReceive:
		p.release()
		p.finish()
	default:
		p.fail()
	}
	return false
}

// moderate lets the receive buffer grow with what is taken from it.
func moderate(ep tcpip.Endpoint, n int) {
	if m, ok := ep.(interface{ ModerateRecvBuf(int) }); ok {
		m.ModerateRecvBuf(n)
	}
}

// finish passes on the end of this direction.
func (p *pump) finish() {
	p.ended = true
	if p.to.ep.Shutdown(tcpip.ShutdownWrite) != nil {
		p.conn.reset()
		return
	}
	p.conn.directionEnded()
}

// fail ends the connection: a reset is passed on as one.
func (p *pump) fail() {
	p.ended = true
	p.rest = nil
	p.release()
	p.conn.reset()
}

func (p *pump) release() {
	if p.buf != nil {
		pumpBuffers.Put(p.buf)
		p.buf = nil
	}
}

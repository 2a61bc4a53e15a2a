package netstack

import (
	"bytes"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/ovnd/ovnd/discovery/directory"
)

// maxDatagram is the largest UDP payload, in bytes.
const maxDatagram = 65535 - 8

// datagrams are lent to what moves datagrams.
var datagrams = sync.Pool{New: func() any { return new([maxDatagram]byte) }}

// A flowKey names a UDP flow as its client sees it.
type flowKey struct{ client, vip netip.AddrPort }

// A flow is what one client port and one port of a VIP say to each other. Its
// datagrams are passed on by whoever brings them: it has no goroutine.
type flow struct {
	b           *Balancer
	key         flowKey
	attempt     *attempt
	backend     *backend // nil in a flow that was refused
	front, back flowLeg
	last        atomic.Int64 // when a datagram came, in Unix nanoseconds
	answered    atomic.Bool
}

// A flowLeg is one of the two endpoints of a flow.
type flowLeg struct {
	flow  *flow
	ep    tcpip.Endpoint
	to    tcpip.Endpoint // the other one
	queue waiter.Queue
	entry waiter.Entry
}

// A flowTable is the UDP flows of a balancer.
type flowTable struct {
	mu        sync.Mutex
	closed    bool
	flows     map[flowKey]*flow
	perClient map[netip.Addr]int
}

func (t *flowTable) init() {
	t.flows = make(map[flowKey]*flow)
	t.perClient = make(map[netip.Addr]int)
}

func (t *flowTable) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.flows)
}

// beginFlow sees each datagram that no flow has. It returns false to have it
// answered with "port unreachable".
func (b *Balancer) beginFlow(r *udp.ForwarderRequest) bool {
	id := r.ID()
	key := flowKey{
		client: netip.AddrPortFrom(fromAddr(id.RemoteAddress), id.RemotePort),
		vip:    netip.AddrPortFrom(fromAddr(id.LocalAddress), id.LocalPort),
	}
	t := &b.flows
	// One at a time, so that two datagrams of a new flow are one flow.
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.resume(key)
	if a == nil {
		s := b.turns.byVIP(key.vip.Addr())
		if s == nil {
			b.counters.flowsNoBackend.Add(1)
			return false
		}
		a = s.begin(directory.UDP, key.vip.Port())
	}
	if !t.makeRoom(key.client.Addr(), b.cfg.MaxFlows) {
		b.counters.flowsOverCap.Add(1)
		return true
	}
	f := b.newFlow(r, key, a)
	if f == nil {
		b.counters.flowsNoBackend.Add(1)
		return false
	}
	t.flows[key] = f
	t.perClient[key.client.Addr()]++
	b.counters.flows.Add(1)
	return true
}

// resume returns the attempt of a flow that its backend has refused, which is at
// its end: the next backend gets the next datagram. Without one it returns nil.
func (t *flowTable) resume(key flowKey) *attempt {
	f := t.flows[key]
	if f == nil || f.backend != nil {
		return nil
	}
	t.forget(f)
	return f.attempt
}

// makeRoom reports whether client may have one more flow. When there are too
// many, one that has had no answer gives way: of a few at random the one that
// has been silent longest, as in netfilter.
func (t *flowTable) makeRoom(client netip.Addr, limit int) bool {
	const sample = 16
	if t.closed || t.perClient[client] >= share(limit) {
		return false
	}
	if len(t.flows) < limit {
		return true
	}
	var victim *flow
	seen := 0
	for _, f := range t.flows {
		if !f.answered.Load() && (victim == nil || f.last.Load() < victim.last.Load()) {
			victim = f
		}
		if seen++; seen == sample {
			break
		}
	}
	if victim == nil {
		return false
	}
	t.forget(victim)
	victim.close()
	return true
}

// forget takes f out of the table.
func (t *flowTable) forget(f *flow) {
	delete(t.flows, f.key)
	client := f.key.client.Addr()
	if t.perClient[client]--; t.perClient[client] == 0 {
		delete(t.perClient, client)
	}
}

// newFlow connects the client of r with the next backend and passes on its
// datagram. It returns nil when nobody is left.
func (b *Balancer) newFlow(r *udp.ForwarderRequest, key flowKey, a *attempt) *flow {
	f := &flow{b: b, key: key, attempt: a}
	f.front.flow, f.back.flow = f, f
	f.last.Store(time.Now().UnixNano())
	for f.back.ep == nil {
		bk, addr, ok := a.next()
		if !ok {
			return nil
		}
		ep, err := b.connectUDP(addr, &f.back.queue)
		if err != nil {
			bk.failed(false)
			continue
		}
		f.back.ep, f.backend = ep, bk
	}
	ep, terr := r.CreateEndpoint(&f.front.queue)
	if terr != nil {
		f.back.ep.Close()
		return nil
	}
	f.front.ep = ep
	f.front.to, f.back.to = f.back.ep, f.front.ep
	f.backend.opened()
	f.front.listen()
	f.back.listen()
	f.front.relay() // the datagram that r came with
	return f
}

// connectUDP returns an endpoint from the balancer's own address to addr.
func (b *Balancer) connectUDP(addr netip.AddrPort, queue *waiter.Queue) (tcpip.Endpoint, error) {
	ep, terr := b.stack.NewEndpoint(udp.ProtocolNumber, protocolOf(addr.Addr()), queue)
	if terr != nil {
		return nil, toError(terr)
	}
	terr = ep.Bind(toFull(netip.AddrPortFrom(b.cfg.Addr.Addr(), 0)))
	if terr == nil {
		terr = ep.Connect(toFull(addr))
	}
	if terr != nil {
		ep.Close()
		return nil, toError(terr)
	}
	return ep, nil
}

func (l *flowLeg) listen() {
	l.entry.Init(l, waiter.ReadableEvents|waiter.EventErr)
	l.queue.EventRegister(&l.entry)
}

// NotifyEvent implements [waiter.EventListener]: it passes on what has come, on
// the goroutine that brought it.
func (l *flowLeg) NotifyEvent(events waiter.EventMask) {
	if events&waiter.EventErr != 0 {
		l.flow.b.flows.refuse(l)
		return
	}
	l.relay()
}

// relay passes on all datagrams that wait.
func (l *flowLeg) relay() {
	buf := datagrams.Get().(*[maxDatagram]byte)
	defer datagrams.Put(buf)
	for {
		w := tcpip.SliceWriter(buf[:])
		res, err := l.ep.Read(&w, tcpip.ReadOptions{})
		if err != nil {
			return // nothing more, or an error that NotifyEvent is told of
		}
		l.flow.last.Store(time.Now().UnixNano())
		if l == &l.flow.back {
			l.flow.answered.Store(true)
		}
		// What cannot be sent is lost, as datagrams are.
		_, _ = l.to.Write(bytes.NewReader(buf[:res.Count]), tcpip.WriteOptions{})
	}
}

// refuse ends a flow whose leg l was told that nobody is there. If that was the
// backend, the client's next datagram goes to the next one. It is called under
// the lock of the leg's queue, which closing the flow takes: so that is left to a
// goroutine.
func (t *flowTable) refuse(l *flowLeg) {
	f := l.flow
	f.b.work.Go(func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.flows[f.key] != f || f.backend == nil {
			return
		}
		f.close()
		if l == &f.front {
			t.forget(f)
			return
		}
		f.backend.failed(false)
		// What is left of it: which backends it has tried.
		left := &flow{b: f.b, key: f.key, attempt: f.attempt}
		left.last.Store(f.last.Load())
		t.flows[f.key] = left
	})
}

// close ends a flow that is out of the table, or about to be.
func (f *flow) close() {
	if f.backend == nil {
		return
	}
	for _, l := range []*flowLeg{&f.front, &f.back} {
		l.queue.EventUnregister(&l.entry)
		l.ep.Close()
	}
	f.backend.closed()
}

// end ends the flows for which which is true.
func (t *flowTable) end(which func(*flow) bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, f := range t.flows {
		if which(f) {
			t.forget(f)
			f.close()
		}
	}
}

// close ends all flows; from now on there are no new ones.
func (t *flowTable) close() {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	t.end(func(*flow) bool { return true })
}

// endFlowsOfGone ends the flows of backends that serve no more.
func (b *Balancer) endFlowsOfGone() {
	b.flows.end(func(f *flow) bool { return f.backend != nil && !f.backend.serving.Load() })
	b.conns.reset(func(u *use) bool { return u.datagrams && !u.backend.serving.Load() })
}

// expireFlows ends the flows that have been silent for too long.
func (b *Balancer) expireFlows(now time.Time) {
	b.flows.end(func(f *flow) bool {
		timeout := b.cfg.FlowTimeout
		if f.answered.Load() {
			timeout = b.cfg.FlowIdleTimeout
		}
		return now.Sub(time.Unix(0, f.last.Load())) >= timeout
	})
}

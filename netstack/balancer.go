package netstack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"github.com/ovnd/ovnd/dataplane/pkt"
	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/encap"
)

// BalancerConfig says what a [Balancer] is. Zero values of the caps and times
// are the defaults.
type BalancerConfig struct {
	Name string       // of the network, for logs
	Addr netip.Prefix // of the lb-<network> endpoint: where backends see connections come from
	MTU  int          // bytes, of the inner IP packet
	// Send takes frames, each virtio metadata and one IP super-packet, lent
	// until it returns. It is called from many goroutines.
	Send func(frames [][]byte)
	Log  *slog.Logger // nil: the default one

	MaxConnections int // TCP connections at a time; 32,768
	MaxHandshakes  int // of them not established yet; 8,192
	MaxFlows       int // UDP flows at a time; 16,384

	DialTimeout      time.Duration // until the next backend is tried; 1.5 s
	HandshakeTimeout time.Duration // for a client to complete its part; 10 s
	KeepAlive        time.Duration // of silence before either end is asked whether it is there; 1 min
	GoneGrace        time.Duration // connections to an endpoint that is gone are reset after it; 5 s
	FlowTimeout      time.Duration // of a UDP flow that has had no answer; 30 s
	FlowIdleTimeout  time.Duration // of one that had; 3 min
}

func (c *BalancerConfig) setDefaults() {
	c.Log = cmp.Or(c.Log, slog.Default())
	c.MaxConnections = cmp.Or(c.MaxConnections, 32<<10)
	c.MaxHandshakes = cmp.Or(c.MaxHandshakes, 8<<10)
	c.MaxFlows = cmp.Or(c.MaxFlows, 16<<10)
	c.DialTimeout = cmp.Or(c.DialTimeout, 1500*time.Millisecond)
	c.HandshakeTimeout = cmp.Or(c.HandshakeTimeout, 10*time.Second)
	c.KeepAlive = cmp.Or(c.KeepAlive, time.Minute)
	c.GoneGrace = cmp.Or(c.GoneGrace, 5*time.Second)
	c.FlowTimeout = cmp.Or(c.FlowTimeout, 30*time.Second)
	c.FlowIdleTimeout = cmp.Or(c.FlowIdleTimeout, 3*time.Minute)
}

// share is how much of a cap one client may have: two thirds, so that no one
// shuts out all others.
func share(limit int) int { return max(limit*2/3, 1) }

// A Balancer owns the VIPs of one network on this node, and its own lb-<network>
// address. Connections to a VIP end in it; it dials one backend after the other,
// from its own address, and passes on what goes either way. All methods are safe
// for concurrent use.
type Balancer struct {
	cfg   BalancerConfig
	log   *slog.Logger
	link  *Link
	stack *stack.Stack
	turns *turns
	snap  atomic.Pointer[directory.Snapshot]

	syns  *tcp.Forwarder
	dgram *udp.Forwarder
	conns connTable
	flows flowTable
	vips  vipTable

	updating sync.Mutex // one Update at a time

	done chan struct{} // closed when Run ends
	// work counts the goroutines, and one more until nothing can start another.
	work sync.WaitGroup
	crew *crew

	counters balancerCounters
}

type balancerCounters struct {
	connections, noBackend, abandoned, overCap atomic.Uint64
	flows, flowsNoBackend, flowsOverCap        atomic.Uint64
	direct                                     directCounters
}

// BalancerStats is what a balancer has done since it was made.
type BalancerStats struct {
	Connections uint64 // TCP connections that reached a backend, in all
	Active      int    // of them, now, and UDP flows to published ports
	Handshakes  int    // connections not established yet
	NoBackend   uint64 // connections that no backend took
	Abandoned   uint64 // clients that did not complete their handshake
	OverCap     uint64 // SYNs dropped because of a cap

	Flows          uint64 // UDP flows, in all
	ActiveFlows    int
	FlowsNoBackend uint64 // datagrams that began a flow nobody takes
	FlowsOverCap   uint64 // datagrams dropped because of a cap

	// Of the connections and flows above, those that the data plane carries. They
	// do not count as Active or ActiveFlows.
	DirectConnections, DirectFlows uint64
	DirectActive                   int // of both, now

	Link     LinkStats
	Services []ServiceStats // sorted by name
}

// NewBalancer returns a balancer that has no VIPs yet: Update gives it some. It
// has goroutines until Run has been called and has returned.
func NewBalancer(cfg BalancerConfig) (*Balancer, error) {
	cfg.setDefaults()
	if !cfg.Addr.IsValid() {
		return nil, errors.New("BalancerConfig.Addr: the balancer needs the address of its lb- endpoint")
	}
	if cfg.MTU < encap.MinMTU4 || cfg.MTU > encap.MaxMTU {
		return nil, fmt.Errorf("BalancerConfig.MTU: %d is not from %d to %d", cfg.MTU, encap.MinMTU4, encap.MaxMTU)
	}
	b := &Balancer{
		cfg:   cfg,
		log:   cfg.Log.With("network", cfg.Name),
		turns: newTurns(),
		done:  make(chan struct{}),
	}
	synacks := newAnswers(cfg.Send)
	b.link = NewLink(cfg.MTU, synacks.send)
	b.work.Add(1)
	b.crew = newCrew(&b.work)
	b.snap.Store(&directory.Snapshot{})
	b.conns.init()
	b.flows.init()
	b.vips.init()
	var err error
	if b.stack, err = newStack(b.link); err != nil {
		return nil, err
	}
	if err := addAddr(b.stack, cfg.Addr.Addr(), true); err != nil {
		b.stack.Destroy()
		return nil, err
	}
	// Twice as many as conns admits: it is conns that counts.
	b.syns = tcp.NewForwarder(b.stack, tcpBufferDefault, 2*cfg.MaxHandshakes, func(r *tcp.ForwarderRequest) {
		b.crew.do(&request{b, r})
	})
	b.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, b.handleTCP)
	b.dgram = udp.NewForwarder(b.stack, b.beginFlow)
	b.stack.SetTransportProtocolHandler(udp.ProtocolNumber, b.dgram.HandlePacket)
	b.work.Go(func() { synacks.run(b.done) })
	return b, nil
}

// Deliver gives the balancer one super-packet behind its virtio metadata, lent
// until it returns. packets is how many wire packets it stands for.
func (b *Balancer) Deliver(frame []byte, packets int) {
	if len(frame) > pkt.MetaLen {
		packet := frame[pkt.MetaLen:]
		if b.vips.ignores(packet) {
			return
		}
		makeWay(b.stack, packet)
	}
	b.link.Deliver(frame, packets)
}

// Update takes over a version of the network: its VIPs, and who serves them. UDP
// flows of a backend that serves no more end at once; TCP connections go on
// until their endpoint has been gone for a while.
func (b *Balancer) Update(snap *directory.Snapshot) {
	b.updating.Lock()
	defer b.updating.Unlock()
	select {
	case <-b.done:
		return
	default:
	}
	if snap.Version < b.snap.Load().Version {
		return
	}
	b.snap.Store(snap)
	b.turns.update(snap)
	b.updateVIPs(snap)
	b.endFlowsOfGone()
}

// Run looks after connections and flows until ctx ends; then it resets them all
// and ends every goroutine of the balancer. It is called once.
func (b *Balancer) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			b.shutdown()
			return nil
		case now := <-tick.C:
			b.expireHandshakes(now)
			b.resetGone(now)
			b.expireFlows(now)
			b.removeVIPs()
		}
	}
}

func (b *Balancer) shutdown() {
	b.updating.Lock() // no VIP is added any more
	close(b.done)
	b.updating.Unlock()
	b.conns.close()
	b.flows.close()
	b.stack.Destroy() // ends handshakes as well
	b.crew.dismiss()
	b.work.Done()
	b.work.Wait()
}

// Stats returns what the balancer has done.
func (b *Balancer) Stats() BalancerStats {
	c := &b.counters
	active, handshakes := b.conns.count()
	return BalancerStats{
		Connections: c.connections.Load(), Active: active, Handshakes: handshakes,
		NoBackend: c.noBackend.Load(), Abandoned: c.abandoned.Load(), OverCap: c.overCap.Load(),
		Flows: c.flows.Load(), ActiveFlows: b.flows.count(),
		FlowsNoBackend: c.flowsNoBackend.Load(), FlowsOverCap: c.flowsOverCap.Load(),
		DirectConnections: c.direct.connections.Load(), DirectFlows: c.direct.flows.Load(),
		DirectActive: int(c.direct.active.Load()),
		Link:         b.link.Stats(), Services: b.turns.stats(),
	}
}

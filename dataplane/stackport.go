package dataplane

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/ovnd/ovnd/dataplane/vip"
	"github.com/ovnd/ovnd/encap"
)

// StackPortConfig describes a stack port: a network stack in this process on one
// network.
type StackPortConfig struct {
	NetworkID  string
	EndpointID string
	Name       string       // of the endpoint, for Stats
	MAC        encap.MAC    // source on the wire
	Addrs      []netip.Addr // its own
	MTU        int          // bytes; for Stats
	// VIPs has the port receive for each VIP of the network's snapshots, and lets
	// it send from them. One port of a network may.
	VIPs bool
	// Balancer, with VIPs, decides which flows of the node's sandboxes to them the
	// switch carries itself, and where to. Nil: all go to the stack.
	Balancer vip.Balancer
	// Hub makes it the hub of a star network: whatever a port of the network
	// sends, to any address, is delivered to it, and it may send from any address
	// that is no other port's. One port of a network may.
	Hub bool
	// Deliver takes one super-packet behind its metadata, pkt.MetaLen bytes of
	// it, which is lent until Deliver returns. packets is the number of wire
	// packets that it stands for. It is called from the switch's workers, which
	// it holds up: it must not block, and it may call [StackPort.Inject]. What
	// another stack sends is delivered by a goroutine of the port's own.
	Deliver func(frame []byte, packets int)
}

// A StackPort is a port whose other end is in this process.
type StackPort struct{ port *Port }

// A stackEnd is what a Port has instead of queues.
type stackEnd struct {
	deliver  func(frame []byte, packets int)
	vips     bool
	balancer vip.Balancer // of flows to the VIPs; may be nil
	hub      bool
	queue    *stackQueue // of what other stacks send to it
}

// minInjectors is how many goroutines of stacks may send at the same time, at
// least.
const minInjectors = 2

// An injector forwards for stacks, one goroutine at a time. The packets of one
// call of Inject go through one injector and have left when it returns, so those
// of a flow keep their order whichever takes the next.
type injector struct {
	mu sync.Mutex
	forwarder
}

func newInjector(s *Switch, worker int) *injector {
	i := &injector{forwarder: newForwarder(s, worker)}
	i.tx.defers = true
	return i
}

// AddStackPort starts to forward to and from a stack. The port's network may be
// set later. An address that another port of the network has is an error, and so
// is a second port that asks for VIPs or to be hub. Deliver may be called before
// AddStackPort returns.
func (s *Switch) AddStackPort(cfg StackPortConfig) (*StackPort, error) {
	if cfg.Deliver == nil || len(cfg.Addrs) == 0 {
		return nil, fmt.Errorf("data plane: stack port %s: an address and a way to deliver are needed", cfg.Name)
	}
	p := &Port{
		sw: s,
		cfg: PortConfig{
			NetworkID: cfg.NetworkID, EndpointID: cfg.EndpointID, Name: cfg.Name,
			Addrs: cfg.Addrs, MAC: cfg.MAC, MTU: cfg.MTU,
		},
		stack: &stackEnd{deliver: cfg.Deliver, vips: cfg.VIPs, balancer: cfg.Balancer, hub: cfg.Hub},
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.mayAdd(p); err != nil {
		return nil, err
	}
	p.stack.queue = newStackQueue(cfg.Deliver)
	s.insert(p)
	s.publish(cfg.NetworkID)
	return &StackPort{port: p}, nil
}

// mayAdd returns why p cannot be added beside the ports that there are. s.mu is
// held.
func (s *Switch) mayAdd(p *Port) error {
	if s.closed {
		return errClosed
	}
	for _, o := range s.ports {
		if o == nil || o.cfg.NetworkID != p.cfg.NetworkID {
			continue
		}
		if slices.ContainsFunc(p.cfg.Addrs, o.has) {
			return fmt.Errorf("data plane: port %s: an address of %v is in use by port %s", p.cfg.Name, p.cfg.Addrs, o.cfg.Name)
		}
		if a, b := p.stack, o.stack; a != nil && b != nil && (a.vips && b.vips || a.hub && b.hub) {
			return fmt.Errorf("data plane: port %s: port %s is the network's hub, or has its VIPs, already", p.cfg.Name, o.cfg.Name)
		}
	}
	return nil
}

// Inject forwards super-packets that the stack sends, each behind its metadata.
// They are lent until it returns, and may be changed meanwhile. Any goroutine may
// call it, with locks held that Deliver takes: it never delivers to the port
// itself. After Close it does nothing.
func (p *StackPort) Inject(frames [][]byte) {
	i := p.port.sw.takeInjector()
	i.section.enter()
	if t := i.sw.table.Load(); p.port.slot < len(t.ports) && t.ports[p.port.slot].port == p.port {
		e := &t.ports[p.port.slot]
		for _, frame := range frames {
			i.forward(e, frame)
		}
		i.tx.flush()
	}
	i.section.leave()
	i.mu.Unlock()
}

// takeInjector returns an injector that nobody uses, locked; or else waits for
// the first.
func (s *Switch) takeInjector() *injector {
	for _, i := range s.injector {
		if i.mu.TryLock() {
			return i
		}
	}
	i := s.injector[0]
	i.mu.Lock()
	return i
}

// Close stops forwarding. When it returns, no worker is in Deliver, so it must
// not be called from there.
func (p *StackPort) Close() error { return p.port.Close() }

// mayBorrow reports whether the port may send from src, which is not its own
// address.
func (p *Port) mayBorrow(n *network, src netip.Addr) bool {
	if p.stack == nil {
		return false
	}
	r := n.fib.At(src)
	return p.stack.vips && r.vip && r.port == p ||
		p.stack.hub && r.port == nil && !r.group && !isGroup(src)
}

// gather copies the pieces of a super-packet one behind the other.
func gather(buf []byte, pieces []unix.Iovec) []byte {
	buf = buf[:0]
	for i := range pieces {
		buf = append(buf, unsafeBytes(&pieces[i])...)
	}
	return buf
}

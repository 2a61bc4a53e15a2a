package netstack

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ovnd/ovnd/discovery/directory"
)

// A lan is a network: hosts, which are plain stacks, and a balancer, joined by a
// switch that hands each frame to who has its destination.
type lan struct {
	t       *testing.T
	b       *Balancer
	mu      sync.Mutex
	ports   map[netip.Addr]*lanPort
	version uint64
	eps     map[netip.Addr]*directory.Endpoint
}

// A lanPort has frames delivered by a goroutine of its own, in order.
type lanPort struct {
	queue   chan []byte
	deliver func(frame []byte, packets int)
	cut     bool // guarded by lan.mu: what goes to it is lost
}

var (
	lbAddr = netip.MustParsePrefix("10.10.0.2/24")
	vipA   = netip.MustParseAddr("10.10.0.3")
)

// newLAN makes a network with a balancer that runs until the test ends.
func newLAN(t *testing.T, change ...func(*BalancerConfig)) *lan {
	t.Helper()
	l := &lan{t: t, ports: make(map[netip.Addr]*lanPort), eps: make(map[netip.Addr]*directory.Endpoint)}
	cfg := BalancerConfig{Name: "net", Addr: lbAddr, MTU: 1450, Send: l.forward, Log: slog.New(slog.DiscardHandler)}
	for _, f := range change {
		f(&cfg)
	}
	b, err := NewBalancer(cfg)
	if err != nil {
		t.Fatal(err)
	}
	l.b = b
	l.plug(b.Deliver, lbAddr.Addr(), vipA)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Run did not return")
		}
	})
	return l
}

// plug gives what goes to addrs to deliver.
func (l *lan) plug(deliver func([]byte, int), addrs ...netip.Addr) {
	p := &lanPort{queue: make(chan []byte, 4096), deliver: deliver}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for f := range p.queue {
			p.deliver(f, 1)
		}
	}()
	l.mu.Lock()
	for _, a := range addrs {
		l.ports[a] = p
	}
	l.mu.Unlock()
	l.t.Cleanup(func() {
		l.mu.Lock()
		for _, a := range addrs {
			delete(l.ports, a)
		}
		close(p.queue)
		l.mu.Unlock()
		<-done
	})
}

// forward hands frames to the ports of their destinations.
func (l *lan) forward(frames [][]byte) {
	for _, f := range frames {
		dst := netip.AddrFrom4([4]byte(f[10+16 : 10+20]))
		l.mu.Lock()
		if p := l.ports[dst]; p != nil && !p.cut {
			select {
			case p.queue <- slices.Clone(f):
			default: // as a full ring
			}
		}
		l.mu.Unlock()
	}
}

// cut loses what goes to addr from now on.
func (l *lan) cut(addr netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ports[addr].cut = true
}

// addHost plugs in a host.
func (l *lan) addHost(addr string) *host {
	l.t.Helper()
	h := newHost(l.t, addr, 1450, l.forward)
	l.plug(h.link.Deliver, h.addr)
	return h
}

// addBackend plugs in a host that is a backend of service web from the next
// publish on.
func (l *lan) addBackend(addr string) *host {
	h := l.addHost(addr)
	l.eps[h.addr] = &directory.Endpoint{
		ID: "ep-" + addr, Name: "web." + addr, Addr: h.addr, ServiceID: "id-web", ServiceName: "web", VIP: vipA,
		Ports: []directory.Port{{Protocol: directory.TCP, Target: 80, Published: 8080}, {Protocol: directory.UDP, Target: 53, Published: 5353}},
	}
	return h
}

// drain and remove change an endpoint from the next publish on.
func (l *lan) drain(h *host) {
	ep := *l.eps[h.addr]
	ep.Disabled = true
	l.eps[h.addr] = &ep
}

func (l *lan) remove(h *host) { delete(l.eps, h.addr) }

// publish gives the balancer a new version of the network.
func (l *lan) publish() *directory.Snapshot {
	snap := l.snapshot()
	l.b.Update(snap)
	return snap
}

func (l *lan) snapshot() *directory.Snapshot {
	l.version++
	snap := &directory.Snapshot{Version: l.version, ID: "net-id", Name: "net", MTU: 1450, Endpoints: directory.MapOf(l.eps)}
	snap.Services, snap.VIPs = directory.Services(snap.Endpoints)
	return snap
}

// eventually waits until cond is true.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("after ten seconds still not: %s", what)
		}
	}
}

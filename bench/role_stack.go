package bench

import (
	"context"
	"errors"
	"net/netip"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/ovnd/ovnd/dataplane"
	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/encap"
	"github.com/ovnd/ovnd/netstack"
)

// The VIP of the benchmark's one service, the balancer's own address, and that of
// the gateway of a network that has one.
var (
	innerVIP     = netip.MustParseAddr("10.10.0.100")
	innerLB      = netip.MustParseAddr("10.10.0.101")
	innerGateway = netip.MustParseAddr("10.10.0.1")
)

// A vipSpec says that a data plane has a balancer, and for whom.
type vipSpec struct {
	VIP      netip.Addr    `json:"vip"`
	Balancer netip.Addr    `json:"balancer"` // its own address
	Backend  netip.Addr    `json:"backend"`  // the service's one
	Way      directory.Way `json:"way"`
}

// addTo makes the backend's endpoint one of a service with a VIP, and adds the
// balancer's.
func (v *vipSpec) addTo(snap *directory.Snapshot) {
	ep := snap.Endpoints.At(v.Backend)
	ep.ServiceID, ep.ServiceName, ep.VIP, ep.Way = "bench", "bench", v.VIP, v.Way
	snap.Endpoints = snap.Endpoints.With(v.Balancer, &directory.Endpoint{
		ID: v.Balancer.String(), Addr: v.Balancer, MAC: encap.EndpointMAC(v.Balancer), VTEP: ep.VTEP, Kind: directory.LoadBalancer,
	})
	snap.Services, snap.VIPs = directory.Services(snap.Endpoints)
}

// run runs the data plane and its balancer.
func (v *vipSpec) run(ctx context.Context, sw *dataplane.Switch, snap *directory.Snapshot, ready func()) error {
	var wire stackWire
	b, err := netstack.NewBalancer(netstack.BalancerConfig{
		Name: snap.Name, Addr: netip.PrefixFrom(v.Balancer, snap.Subnets[0].Prefix.Bits()), MTU: snap.MTU, Send: wire.send,
	})
	if err != nil {
		sw.Close()
		return err
	}
	b.Update(snap)
	return wire.run(ctx, sw, b.Run, ready, dataplane.StackPortConfig{
		NetworkID: snap.ID, EndpointID: v.Balancer.String(), Name: "lb", MAC: encap.EndpointMAC(v.Balancer),
		Addrs: []netip.Addr{v.Balancer}, VIPs: true, Balancer: b, MTU: snap.MTU, Deliver: b.Deliver,
	})
}

// runGateway runs the data plane of a star network and its gateway.
func runGateway(ctx context.Context, sw *dataplane.Switch, snap *directory.Snapshot, gateway netip.Prefix, ready func()) error {
	var wire stackWire
	g, err := netstack.NewEgress(netstack.EgressConfig{Gateway: gateway, MTU: snap.MTU, Send: wire.send})
	if err != nil {
		sw.Close()
		return err
	}
	return wire.run(ctx, sw, g.Run, ready, dataplane.StackPortConfig{
		NetworkID: snap.ID, EndpointID: "gateway", Name: "gateway", MAC: encap.EndpointMAC(gateway.Addr()),
		Addrs: []netip.Addr{gateway.Addr()}, Hub: true, MTU: snap.MTU, Deliver: g.Deliver,
	})
}

// A stackWire connects a network stack of this process to its port, as a node
// does: the stack is there first.
type stackWire struct {
	port atomic.Pointer[dataplane.StackPort]
}

func (w *stackWire) send(frames [][]byte) {
	if p := w.port.Load(); p != nil {
		p.Inject(frames)
	}
}

// run runs the data plane and the stack behind cfg, whose own Run is given.
func (w *stackWire) run(
	ctx context.Context, sw *dataplane.Switch, stack func(context.Context) error, ready func(), cfg dataplane.StackPortConfig,
) error {
	p, err := sw.AddStackPort(cfg)
	if err != nil {
		sw.Close()
		ctx, cancel := context.WithCancel(ctx)
		cancel()
		return errors.Join(err, stack(ctx)) // which ends its goroutines
	}
	w.port.Store(p)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return stack(ctx) })
	g.Go(func() error { return sw.Run(ctx) })
	ready()
	return g.Wait()
}

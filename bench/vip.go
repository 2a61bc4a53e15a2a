package bench

import (
	"context"
	"errors"
	"net/netip"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/ovnd/ovnd/bench/traffic"
	"github.com/ovnd/ovnd/dataplane"
	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/encap"
	"github.com/ovnd/ovnd/netstack"
)

// The VIP of the benchmark's one service, and the balancer's own address.
var (
	innerVIP = netip.MustParseAddr("10.10.0.100")
	innerLB  = netip.MustParseAddr("10.10.0.101")
)

// A vipSpec says that a data plane has a balancer, and for whom.
type vipSpec struct {
	VIP      netip.Addr `json:"vip"`
	Balancer netip.Addr `json:"balancer"` // its own address
	Backend  netip.Addr `json:"backend"`  // the service's one
}

// addTo makes the backend's endpoint one of a service with a VIP, and adds the
// balancer's.
func (v *vipSpec) addTo(snap *directory.Snapshot) {
	ep := snap.Endpoints[v.Backend]
	ep.ServiceID, ep.ServiceName, ep.VIP = "bench", "bench", v.VIP
	snap.Endpoints[v.Balancer] = &directory.Endpoint{
		ID: v.Balancer.String(), Addr: v.Balancer, MAC: encap.EndpointMAC(v.Balancer), VTEP: ep.VTEP, Kind: directory.LoadBalancer,
	}
	snap.Services, snap.VIPs = directory.Services(snap.Endpoints)
}

// run runs the data plane and its balancer, connected as a node connects them.
func (v *vipSpec) run(ctx context.Context, sw *dataplane.Switch, snap *directory.Snapshot, ready func()) error {
	var port atomic.Pointer[dataplane.StackPort]
	b, err := netstack.NewBalancer(netstack.BalancerConfig{
		Name: snap.Name, Addr: netip.PrefixFrom(v.Balancer, innerSubnet.Bits()), MTU: snap.MTU,
		Send: func(frames [][]byte) {
			if p := port.Load(); p != nil {
				p.Inject(frames)
			}
		},
	})
	if err != nil {
		sw.Close()
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return b.Run(ctx) })
	p, err := sw.AddStackPort(dataplane.StackPortConfig{
		NetworkID: snap.ID, EndpointID: v.Balancer.String(), Name: "lb", MAC: encap.EndpointMAC(v.Balancer),
		Addrs: []netip.Addr{v.Balancer}, VIPs: true, MTU: snap.MTU, Deliver: b.Deliver,
	})
	g.Go(func() error {
		if err != nil {
			sw.Close()
			return err
		}
		port.Store(p)
		b.Update(snap)
		ready()
		return sw.Run(ctx)
	})
	return g.Wait()
}

// connectFlows is how many connections are open at a time.
const connectFlows = 16

// connects measures how many connections a second can be opened.
func (m *measurement) connects(ctx context.Context) (map[Metric]float64, error) {
	source, err := m.source(traffic.Spec{Connect: connectFlows})
	if err != nil {
		return nil, err
	}
	defer source.end()
	if err := sleep(ctx, m.warmup); err != nil {
		return nil, err
	}
	before, err := source.counters()
	if err != nil {
		return nil, err
	}
	from, err := m.instant()
	if err != nil {
		return nil, err
	}
	if err := sleep(ctx, m.window); err != nil {
		return nil, err
	}
	after, err := source.counters()
	if err != nil {
		return nil, err
	}
	to, err := m.instant()
	if err != nil {
		return nil, err
	}
	if _, err := source.stop(); err != nil {
		return nil, err
	}
	opened := float64(after.Packets - before.Packets)
	if opened == 0 {
		return nil, errors.New("no connection was opened")
	}
	return map[Metric]float64{
		Connects:   opened / to.at.Sub(from.at).Seconds(),
		ProcPerCon: float64((to.proc - from.proc).Microseconds()) / opened,
		HostPerCon: float64((to.host - from.host).Microseconds()) / opened,
	}, nil
}

package bench

import (
	"context"
	"fmt"
	"net/netip"
	"os"

	"github.com/ovnd/ovnd/bench/traffic"
	"github.com/ovnd/ovnd/dataplane"
	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/encap"
)

// A switchSpec configures one data plane of ovnd.
type switchSpec struct {
	Underlay netip.AddrPort `json:"underlay"`
	MTU      int            `json:"mtu"` // bytes, inner
	// Endpoints are those of the network. TUN descriptors of the local ones are
	// inherited from descriptor 3 on, in their order.
	Endpoints []switchEndpoint `json:"endpoints"`
	VIP       *vipSpec         `json:"vip,omitempty"` // nil: there is no balancer
}

type switchEndpoint struct {
	Addr  netip.Addr `json:"addr"`
	VTEP  netip.Addr `json:"vtep"`
	Local bool       `json:"local,omitempty"`
}

// firstFile is the descriptor number of the first inherited file.
const firstFile = 3

// A switchRole runs ovnd's data plane as a node does, fed with a snapshot that
// does not change.
type switchRole struct{ spec switchSpec }

func (r *switchRole) run(ctx context.Context, ready func()) error {
	sw, err := dataplane.New(dataplane.Config{Underlay: r.spec.Underlay})
	if err != nil {
		return err
	}
	snap := r.spec.snapshot()
	if r.spec.VIP != nil {
		r.spec.VIP.addTo(snap)
	}
	sw.SetNetwork(snap)
	file := uintptr(firstFile)
	for _, e := range r.spec.Endpoints {
		if !e.Local {
			continue
		}
		_, err := sw.AddPort(dataplane.PortConfig{
			NetworkID: snap.ID, EndpointID: e.Addr.String(), Name: e.Addr.String(),
			Addrs: []netip.Addr{e.Addr}, MAC: encap.EndpointMAC(e.Addr),
			Queues: []*os.File{os.NewFile(file, "tun")}, MTU: r.spec.MTU,
		})
		if err != nil {
			sw.Close()
			return fmt.Errorf("port %s: %w", e.Addr, err)
		}
		file++
	}
	if r.spec.VIP == nil {
		ready()
		return sw.Run(ctx)
	}
	return r.spec.VIP.run(ctx, sw, snap, ready)
}

func (*switchRole) counters() traffic.Counters { return traffic.Counters{} }

// snapshot returns the network that the specification describes.
func (s switchSpec) snapshot() *directory.Snapshot {
	snap := &directory.Snapshot{
		Version: 1, ID: "bench", Name: "bench", VNI: benchVNI, MTU: s.MTU,
		Subnets:   []directory.Subnet{{Prefix: innerSubnet}},
		Endpoints: make(map[netip.Addr]*directory.Endpoint),
		Peers:     make(map[netip.Addr]string),
	}
	for _, e := range s.Endpoints {
		snap.Peers[e.VTEP] = e.VTEP.String()
		snap.Endpoints[e.Addr] = &directory.Endpoint{
			ID: e.Addr.String(), Addr: e.Addr, MAC: encap.EndpointMAC(e.Addr), VTEP: e.VTEP,
		}
	}
	return snap
}

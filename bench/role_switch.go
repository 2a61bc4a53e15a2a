package bench

import (
	"context"
	"errors"
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
	MTU      int            `json:"mtu"`               // bytes, inner
	Workers  int            `json:"workers,omitempty"` // 0: the data plane's choice
	Subnet   netip.Prefix   `json:"subnet"`
	// Endpoints are those of the network. TUN descriptors of the local ones are
	// inherited from descriptor 3 on, in their order, Queues for each.
	Endpoints []switchEndpoint `json:"endpoints"`
	Queues    int              `json:"queues"`
	VIP       *vipSpec         `json:"vip,omitempty"` // nil: there is no balancer
	// Gateway, if valid, makes the network a star around a gateway that dials from
	// the host.
	Gateway netip.Addr `json:"gateway,omitzero"`
	Host    *hostSpec  `json:"host,omitempty"` // nil: there is no endpoint without a device
	// Sealed, if not nil, makes it an encrypted one.
	Sealed *sealedSpec `json:"sealed,omitempty"`
}

type switchEndpoint struct {
	Addr  netip.Addr `json:"addr"`
	VTEP  netip.Addr `json:"vtep"`
	Local bool       `json:"local,omitempty"`
	Owner string     `json:"owner,omitempty"` // node ID, on an encrypted network
}

// firstFile is the descriptor number of the first inherited file.
const firstFile = 3

// A switchRole runs ovnd's data plane as a node does, fed with a snapshot that
// does not change.
type switchRole struct {
	spec   switchSpec
	sealer *sealer // nil: plain
}

func (r *switchRole) run(ctx context.Context, ready func()) error {
	cfg := dataplane.Config{Underlay: r.spec.Underlay, Workers: r.spec.Workers}
	snap := r.spec.snapshot()
	if r.spec.Sealed != nil {
		sealer, err := newSealer(r.spec.Sealed)
		if err != nil {
			return err
		}
		if err := sealer.seal(snap, r.spec.owners()); err != nil {
			return err
		}
		r.sealer, cfg.Sessions = sealer, sealer.engine
	}
	sw, err := dataplane.New(cfg)
	if err != nil {
		return err
	}
	if r.spec.VIP != nil {
		r.spec.VIP.addTo(snap)
	}
	sw.SetNetwork(snap)
	if err := r.addPorts(sw, snap); err != nil {
		sw.Close()
		return err
	}
	switch {
	case r.spec.VIP != nil:
		return r.spec.VIP.run(ctx, sw, snap, ready)
	case r.spec.Host != nil:
		return r.spec.Host.run(ctx, sw, snap, ready)
	case r.spec.Gateway.IsValid():
		return runGateway(ctx, sw, snap, netip.PrefixFrom(r.spec.Gateway, r.spec.Subnet.Bits()), ready)
	}
	if r.sealer != nil {
		r.sealer.sw = sw
		return r.sealer.run(ctx, ready)
	}
	ready()
	return sw.Run(ctx)
}

func (r *switchRole) try(_ context.Context, args []string) (reply, error) {
	if r.sealer == nil {
		return reply{}, errors.New("it has no sessions")
	}
	return r.sealer.try(args)
}

// addPorts adds the ports of the inherited devices.
func (r *switchRole) addPorts(sw *dataplane.Switch, snap *directory.Snapshot) error {
	file := uintptr(firstFile)
	for _, e := range r.spec.Endpoints {
		if !e.Local {
			continue
		}
		queues := make([]*os.File, 0, r.spec.Queues)
		for range r.spec.Queues {
			queues = append(queues, os.NewFile(file, "tun"))
			file++
		}
		_, err := sw.AddPort(dataplane.PortConfig{
			NetworkID: snap.ID, EndpointID: e.Addr.String(), Name: e.Addr.String(),
			Addrs: []netip.Addr{e.Addr}, MAC: encap.EndpointMAC(e.Addr),
			Queues: queues, MTU: r.spec.MTU,
		})
		if err != nil {
			return fmt.Errorf("port %s: %w", e.Addr, err)
		}
	}
	return nil
}

func (*switchRole) counters() traffic.Counters { return traffic.Counters{} }

// owners returns the node IDs of the endpoints' owners.
func (s switchSpec) owners() map[netip.Addr]string {
	out := make(map[netip.Addr]string)
	for _, e := range s.Endpoints {
		out[e.Addr] = e.Owner
	}
	return out
}

// snapshot returns the network that the specification describes.
func (s switchSpec) snapshot() *directory.Snapshot {
	snap := &directory.Snapshot{
		Version: 1, ID: "bench", Name: "bench", VNI: benchVNI, MTU: s.MTU,
		Subnets: []directory.Subnet{{Prefix: s.Subnet, Gateway: s.Gateway}},
		Peers:   make(map[netip.Addr]string),
	}
	if s.Gateway.IsValid() {
		snap.VNI = 0 // a star, on no wire
	}
	for _, e := range s.Endpoints {
		snap.Peers[e.VTEP] = e.VTEP.String()
		snap.Endpoints = snap.Endpoints.With(e.Addr, &directory.Endpoint{
			ID: e.Addr.String(), Addr: e.Addr, MAC: encap.EndpointMAC(e.Addr), VTEP: e.VTEP,
		})
	}
	return snap
}

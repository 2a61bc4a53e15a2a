package cluster

import (
	"fmt"
	"maps"
	"net/netip"
	"time"

	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/moby/v2/daemon/cluster/convert"
	swarmapi "github.com/moby/swarmkit/v2/api"

	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/encap"
)

// A Network is an overlay network as the swarm's allocator completed it. Its
// maps are the receiver's to read, not to change.
type Network struct {
	ID, Name string
	VNI      encap.VNI
	Subnets  []directory.Subnet
	// Options are the driver options, the allocated VXLAN ID among them.
	Options, Labels               map[string]string
	Internal, Attachable, Ingress bool
	Created                       time.Time
}

// networkFromAPI translates an allocated network. The error says why this
// node cannot carry it.
func networkFromAPI(n *swarmapi.Network) (Network, error) {
	if n == nil || n.DriverState == nil || n.IPAM == nil {
		return Network{}, fmt.Errorf("the swarm has not allocated the network yet")
	}
	nw := Network{
		ID:         n.ID,
		Name:       n.Spec.Annotations.Name,
		Options:    maps.Clone(n.DriverState.Options),
		Labels:     maps.Clone(n.Spec.Annotations.Labels),
		Internal:   n.Spec.Internal,
		Attachable: n.Spec.Attachable,
		Ingress:    convert.IsIngressNetwork(n),
	}
	nw.Created, _ = gogotypes.TimestampFromProto(n.Meta.CreatedAt)
	if n.DriverState.Name != overlayDriver {
		return Network{}, fmt.Errorf("network %s has driver %q: ovnd carries overlay networks only", nw.Name, n.DriverState.Name)
	}
	if d := n.Spec.DriverConfig; d != nil {
		// An allocator of another make must not lose this one.
		if v, ok := d.Options[directory.OptionEncrypted]; ok && nw.Options != nil {
			nw.Options[directory.OptionEncrypted] = v
		}
	}
	opts, err := directory.ParseOptions(nw.Options)
	if err != nil {
		return Network{}, fmt.Errorf("network %s: %w", nw.Name, err)
	}
	for _, ic := range n.IPAM.Configs {
		s, err := subnetFromAPI(ic)
		if err != nil {
			return Network{}, fmt.Errorf("network %s: %w", nw.Name, err)
		}
		nw.Subnets = append(nw.Subnets, s)
	}
	// Docker gives each subnet a VXLAN ID of its own.
	if len(nw.Subnets) != 1 || len(opts.VNIs) != 1 {
		return Network{}, fmt.Errorf("network %s has %d subnets and %d VXLAN IDs: ovnd carries networks with one of each", nw.Name, len(nw.Subnets), len(opts.VNIs))
	}
	nw.VNI = opts.VNIs[0]
	return nw, nil
}

func subnetFromAPI(ic *swarmapi.IPAMConfig) (directory.Subnet, error) {
	p, err := netip.ParsePrefix(ic.Subnet)
	if err != nil {
		return directory.Subnet{}, fmt.Errorf("subnet: %w", err)
	}
	s := directory.Subnet{Prefix: p.Masked()}
	if ic.Gateway != "" {
		if s.Gateway, err = netip.ParseAddr(ic.Gateway); err != nil {
			return directory.Subnet{}, fmt.Errorf("gateway: %w", err)
		}
	}
	return s, nil
}

// prefixesFromAPI parses allocated addresses, which carry their subnet's length.
func prefixesFromAPI(addrs []string) ([]netip.Prefix, error) {
	out := make([]netip.Prefix, 0, len(addrs))
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a)
		if err != nil {
			return nil, fmt.Errorf("address from the swarm's allocator: %w", err)
		}
		out = append(out, p)
	}
	return out, nil
}

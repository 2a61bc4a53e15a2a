package cluster

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/v2/errdefs"
	swarmapi "github.com/moby/swarmkit/v2/api"

	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/encap"
)

// predefined are the names of the networks that each Docker host has.
var predefined = []string{"bridge", "host", "none", "default"}

// checkCreate checks a request by itself, in Docker's words where it has them,
// and completes it: the driver is named and subnets lose their host bits. What
// dockerd lets pass and leaves as a network that never works is refused here.
func checkCreate(req *network.CreateRequest) (warnings []string, err error) {
	if err := checkKind(req); err != nil {
		return nil, err
	}
	opts, err := directory.ParseOptions(req.Options)
	if err != nil {
		return nil, errdefs.InvalidParameter(err)
	}
	if len(opts.VNIs) > 1 {
		return nil, invalid("option %s names %d VXLAN IDs: a network has one subnet and takes one", directory.OptionVNIs, len(opts.VNIs))
	}
	if req.EnableIPv6 != nil && *req.EnableIPv6 {
		return nil, invalid("IPv6 is not available inside overlay networks, the swarm's allocator hands out IPv4 addresses only: create the network without --ipv6")
	}
	if req.IPAM == nil || len(req.IPAM.Config) == 0 {
		return append(warnings, warnVTEPs(opts, netip.Prefix{}, netip.Prefix{})...), nil
	}
	if n := len(req.IPAM.Config); n > 1 {
		return nil, invalid("network %s has %d subnets: a network takes one --subnet", req.Name, n)
	}
	req.IPAM = &network.IPAM{Driver: req.IPAM.Driver, Options: req.IPAM.Options, Config: slices.Clone(req.IPAM.Config)}
	cfg := &req.IPAM.Config[0]
	ipamWarnings, err := checkIPAM(cfg)
	if err != nil {
		return nil, errdefs.InvalidParameter(fmt.Errorf("invalid network config:\n%w", err))
	}
	warnings = append(warnings, ipamWarnings...)
	subnet := directory.Subnet{Prefix: cfg.Subnet, Gateway: cfg.Gateway}
	if !subnet.Gateway.IsValid() {
		subnet.Gateway = cfg.Subnet.Addr().Next() // what the allocator gives
	}
	if err := opts.CheckSubnets([]directory.Subnet{subnet}); err != nil {
		return nil, errdefs.InvalidParameter(err)
	}
	return append(warnings, warnVTEPs(opts, cfg.Subnet, cfg.IPRange)...), nil
}

// checkKind refuses networks of a kind that ovnd does not have.
func checkKind(req *network.CreateRequest) error {
	switch name := req.Name; {
	case name == "" || strings.TrimSpace(name) == "":
		return errdefs.InvalidParameter(errors.New("invalid name: name is empty"))
	case name == "container" || strings.HasPrefix(name, "container:"):
		return errdefs.Forbidden(fmt.Errorf("network name %q is reserved and cannot be created", name))
	case slices.Contains(predefined, name):
		return errdefs.Forbidden(fmt.Errorf("%s is a pre-defined network and cannot be created", name))
	}
	if req.Driver == "" {
		req.Driver = overlayDriver
	}
	switch {
	case req.ConfigOnly || req.ConfigFrom != nil && req.ConfigFrom.Network != "":
		return errdefs.NotImplemented(errors.New("configuration-only networks are of one host, and ovnd has networks of the swarm only: leave out --config-only and --config-from"))
	case req.Driver != overlayDriver:
		return errdefs.NotFound(fmt.Errorf("plugin %q not found: ovnd has overlay networks only, use --driver overlay", req.Driver))
	case req.Scope == "local":
		return errdefs.Forbidden(fmt.Errorf("cannot downgrade network scope for %s networks", req.Driver))
	case req.Scope != "" && req.Scope != "swarm" && req.Scope != "global":
		return invalid("invalid scope %q: a network of ovnd has scope swarm", req.Scope)
	case req.EnableIPv4 != nil && !*req.EnableIPv4:
		return invalid("an overlay network needs IPv4: the swarm's allocator hands out IPv4 addresses only")
	case req.EnableIPv6 != nil && *req.EnableIPv6:
		return errdefs.NotImplemented(errors.New("IPv6 is not available inside overlay networks: the swarm's allocator hands out IPv4 addresses only; leave out --ipv6"))
	case req.IPAM != nil && req.IPAM.Driver != "" && req.IPAM.Driver != "default":
		return errdefs.NotFound(fmt.Errorf("plugin %q not found: ovnd has the default IPAM driver only", req.IPAM.Driver))
	}
	return nil
}

// checkIPAM checks subnet, range and gateway, and masks the host bits.
func checkIPAM(cfg *network.IPAMConfig) (warnings []string, err error) {
	if !cfg.Subnet.IsValid() {
		return nil, errors.New("every ip-range or gateway must have a corresponding subnet")
	}
	if masked := cfg.Subnet.Masked(); masked != cfg.Subnet {
		warnings = append(warnings, fmt.Sprintf("subnet %s has host bits set: using %s", cfg.Subnet, masked))
		cfg.Subnet = masked
	}
	if r := cfg.IPRange; r.IsValid() && r.Masked() != r {
		warnings = append(warnings, fmt.Sprintf("ip-range %s has host bits set: using %s", r, r.Masked()))
		cfg.IPRange = r.Masked()
	}
	subnet := cfg.Subnet
	if !subnet.Addr().Is4() {
		return nil, fmt.Errorf("invalid subnet %s: the swarm's allocator hands out IPv4 addresses only", subnet)
	}
	if subnet.Bits() > maxSubnetSize {
		return nil, fmt.Errorf("invalid subnet %s: too small, gateway and nodes take addresses of it as well; /%d is the smallest", subnet, maxSubnetSize)
	}
	if a := subnet.Addr(); a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() || a.IsLinkLocalUnicast() || a.As4()[0] >= 240 || a.As4()[0] == 0 {
		return nil, fmt.Errorf("invalid subnet %s: not addresses that hosts can have", subnet)
	}
	if len(cfg.AuxAddress) > 0 {
		return nil, errors.New("auxiliary addresses are not reserved in a swarm: keep addresses free with --ip-range")
	}
	return warnings, errors.Join(checkRange(cfg.IPRange, subnet), checkGateway(cfg.Gateway, subnet))
}

func checkRange(r, subnet netip.Prefix) error {
	switch {
	case !r.IsValid():
		return nil
	case !r.Addr().Is4():
		return fmt.Errorf("invalid ip-range %s: parent subnet is an IPv4 block", r)
	case r.Bits() < subnet.Bits():
		return fmt.Errorf("invalid ip-range %s: CIDR block is bigger than its parent subnet %s", r, subnet)
	case !subnet.Overlaps(r):
		return fmt.Errorf("invalid ip-range %s: parent subnet %s doesn't contain ip-range", r, subnet)
	}
	return nil
}

func checkGateway(gw netip.Addr, subnet netip.Prefix) error {
	switch {
	case !gw.IsValid():
		return nil
	case !gw.Is4():
		return fmt.Errorf("invalid gateway %s: parent subnet is an IPv4 block", gw)
	case !subnet.Contains(gw):
		return fmt.Errorf("invalid gateway %s: parent subnet %s doesn't contain this address", gw, subnet)
	case gw == subnet.Addr() || gw == lastAddr(subnet):
		return fmt.Errorf("invalid gateway %s: it is the network or broadcast address of %s", gw, subnet)
	}
	return nil
}

// warnVTEPs warns of addresses behind static VTEPs that the allocator, which
// knows nothing of them, may give to a task.
func warnVTEPs(opts directory.Options, subnet, ipRange netip.Prefix) (warnings []string) {
	for _, v := range opts.StaticVTEPs {
		switch {
		case v.Learn:
		case !subnet.IsValid():
			warnings = append(warnings, fmt.Sprintf("option %s%s: without --subnet the network may not contain %s", directory.OptionVTEPPrefix, v.Name, v.Addr))
		case !ipRange.IsValid() || ipRange.Contains(v.Addr):
			warnings = append(warnings, fmt.Sprintf("option %s%s: %s may be given to a task as well; keep it out of --ip-range", directory.OptionVTEPPrefix, v.Name, v.Addr))
		}
	}
	return warnings
}

// checkAgainst checks a request against the networks that exist.
func checkAgainst(req *network.CreateRequest, nets []*swarmapi.Network) error {
	opts, err := directory.ParseOptions(req.Options)
	if err != nil {
		return errdefs.InvalidParameter(err)
	}
	for _, n := range nets {
		name := n.Spec.Annotations.Name
		if name == req.Name {
			return errdefs.Conflict(fmt.Errorf("network with name %s already exists", name))
		}
		if req.IPAM != nil && len(req.IPAM.Config) > 0 {
			if p, ok := overlapping(n, req.IPAM.Config[0].Subnet); ok {
				return errdefs.Forbidden(fmt.Errorf("subnet %s overlaps with %s of network %s: choose another subnet or remove that network", req.IPAM.Config[0].Subnet, p, name))
			}
		}
		for _, vni := range opts.VNIs {
			if slices.Contains(vnisOf(n), vni) {
				return errdefs.Forbidden(fmt.Errorf("VXLAN ID %d is taken by network %s: choose another one or leave out option %s", vni, name, directory.OptionVNIs))
			}
		}
	}
	return nil
}

// overlapping returns the subnet of n that shares addresses with p.
func overlapping(n *swarmapi.Network, p netip.Prefix) (netip.Prefix, bool) {
	ipam := n.IPAM
	if ipam == nil {
		ipam = n.Spec.IPAM // not allocated yet
	}
	if ipam == nil {
		return netip.Prefix{}, false
	}
	for _, ic := range ipam.Configs {
		other, err := netip.ParsePrefix(ic.Subnet)
		if err == nil && other.Overlaps(p) {
			return other.Masked(), true
		}
	}
	return netip.Prefix{}, false
}

func vnisOf(n *swarmapi.Network) []encap.VNI {
	state := n.DriverState
	if state == nil {
		state = n.Spec.DriverConfig
	}
	if state == nil || state.Options[directory.OptionVNIs] == "" {
		return nil
	}
	opts, err := directory.ParseOptions(map[string]string{directory.OptionVNIs: state.Options[directory.OptionVNIs]})
	if err != nil {
		return nil
	}
	return opts.VNIs
}

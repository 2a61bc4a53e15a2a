package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/v2/daemon/cluster/convert"
	"github.com/moby/moby/v2/errdefs"
	swarmapi "github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/manager/allocator/networkallocator"

	"github.com/ovnd/ovnd/discovery/directory"
)

const overlayDriver = "overlay"

// createTimeout is how long the allocator may take for a network. It takes
// milliseconds; an allocation that fails is not reported.
const createTimeout = 5 * time.Second

// CreateNetwork creates a network and waits until the swarm has allocated it,
// so that an ID stands for a network that works. The warning, if not empty, is
// for the user.
func (c *Cluster) CreateNetwork(ctx context.Context, req network.CreateRequest) (id, warning string, err error) {
	if _, err := c.controlClient(); err != nil {
		if errors.Is(err, errWorker) { // what dockerd says for this one request
			err = errdefs.Forbidden(errors.New(errNotInSwarm.Error()))
		}
		return "", "", err
	}
	warnings, err := checkCreate(&req)
	if err != nil {
		return "", "", err
	}
	id, err = onManager(ctx, c, func(ctx context.Context, ctl swarmapi.ControlClient) (string, error) {
		resp, err := ctl.ListNetworks(ctx, &swarmapi.ListNetworksRequest{})
		if err != nil {
			return "", err
		}
		if err := checkAgainst(&req, resp.Networks); err != nil {
			return "", err
		}
		if _, ok := req.Options[directory.OptionEncrypted]; ok {
			what := fmt.Sprintf("network %s cannot be encrypted", req.Name)
			if err := checkAllOvnd(ctx, ctl, what, "create the network without --opt "+directory.OptionEncrypted); err != nil {
				return "", err
			}
		}
		spec := convert.BasicNetworkCreateToGRPC(req)
		created, err := ctl.CreateNetwork(ctx, &swarmapi.CreateNetworkRequest{Spec: &spec})
		if err != nil {
			return "", err
		}
		return created.Network.ID, c.waitAllocated(ctx, ctl, created.Network.ID, &req)
	})
	return id, strings.Join(warnings, "\n"), err
}

// waitAllocated waits for the allocator to complete the network, and removes
// it if that does not happen.
func (c *Cluster) waitAllocated(ctx context.Context, ctl swarmapi.ControlClient, id string, req *network.CreateRequest) error {
	ctx, cancel := context.WithTimeout(ctx, createTimeout)
	defer cancel()
	for pause := 2 * time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		resp, err := ctl.GetNetwork(ctx, &swarmapi.GetNetworkRequest{NetworkID: id})
		if err == nil && allocated(resp.Network) {
			return nil
		}
		if err != nil && isNotFound(err) {
			return fmt.Errorf("network %s was removed while it was being created", req.Name)
		}
		select {
		case <-time.After(pause):
			continue
		case <-ctx.Done():
		}
		break
	}
	removeCtx, cancelRemove := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
	defer cancelRemove()
	if _, err := ctl.RemoveNetwork(removeCtx, &swarmapi.RemoveNetworkRequest{NetworkID: id}); err != nil && !isNotFound(err) {
		c.log.Warn("network that could not be allocated is still there: remove it", "network", id, "error", err)
	}
	if req.IPAM == nil || len(req.IPAM.Config) == 0 {
		return errdefs.Unavailable(fmt.Errorf("the swarm has no subnet for network %s: its address pool is used up or its leading manager is overloaded; remove networks that are not needed, or name a subnet with --subnet", req.Name))
	}
	return errdefs.Unavailable(fmt.Errorf("the swarm could not allocate subnet %s for network %s: another network may have taken it meanwhile, or the leading manager is overloaded", req.IPAM.Config[0].Subnet, req.Name))
}

func allocated(n *swarmapi.Network) bool {
	return n.DriverState != nil && n.IPAM != nil && len(n.IPAM.Configs) > 0
}

// GetNetworks lists the networks that this node knows: all of the swarm on a
// manager, on a worker those that it takes part in. They are sorted by name.
// What only a node's own picture of a network tells (containers, peers) is
// left empty, and so is the status of the address pool: moby's allocator
// answers for it from maps that it changes meanwhile without a lock, which can
// end the process.
func (c *Cluster) GetNetworks(ctx context.Context) ([]network.Inspect, error) {
	nets, err := c.apiNetworks(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]network.Inspect, 0, len(nets))
	for _, n := range nets {
		ni, err := convert.NetworkInspectFromGRPC(*n)
		if err != nil {
			return nil, fmt.Errorf("network %s: %w", n.ID, err)
		}
		out = append(out, ni)
	}
	return out, nil
}

// GetNetwork returns the network with this ID, name or ID prefix, in this
// order, as GetNetworks does. On a manager it also knows, by name, SwarmKit's
// stand-ins for each host's own networks: the command line asks for the ID of
// bridge before it creates a service on it.
func (c *Cluster) GetNetwork(ctx context.Context, input string) (network.Inspect, error) {
	nets, err := c.knownNetworks(ctx)
	if err != nil {
		return network.Inspect{}, err
	}
	n, err := pickNetwork(usersOnly(nets), input)
	if err != nil {
		i := slices.IndexFunc(nets, func(n *swarmapi.Network) bool { return n.Spec.Annotations.Name == input })
		if i < 0 || !isNotFound(err) {
			return network.Inspect{}, err
		}
		n = nets[i]
	}
	return convert.NetworkInspectFromGRPC(*n)
}

// RemoveNetwork removes the network with this ID, name or ID prefix.
func (c *Cluster) RemoveNetwork(ctx context.Context, input string) error {
	_, err := onManager(ctx, c, func(ctx context.Context, ctl swarmapi.ControlClient) (*swarmapi.RemoveNetworkResponse, error) {
		resp, err := ctl.ListNetworks(ctx, &swarmapi.ListNetworksRequest{})
		if err != nil {
			return nil, err
		}
		n, err := pickNetwork(usersOnly(resp.Networks), input)
		if err != nil {
			return nil, err
		}
		return ctl.RemoveNetwork(ctx, &swarmapi.RemoveNetworkRequest{NetworkID: n.ID})
	})
	return err
}

// Networks are the networks that this node takes part in, by an attachment or
// by an address of its own, as far as ovnd can carry them.
func (c *Cluster) Networks() []Network {
	byID := make(map[string]Network)
	c.mu.RLock()
	for _, lb := range c.nodeState.LoadBalancers {
		byID[lb.Network.ID] = lb.Network
	}
	c.mu.RUnlock()
	for _, att := range c.attachments.list() {
		byID[att.Network.ID] = att.Network
	}
	out := make([]Network, 0, len(byID))
	for _, n := range byID {
		out = append(out, n)
	}
	slices.SortFunc(out, func(a, b Network) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// knownNetworks are the networks known here, SwarmKit's stand-ins among them.
func (c *Cluster) knownNetworks(ctx context.Context) ([]*swarmapi.Network, error) {
	if _, err := c.controlClient(); err == nil {
		return onManager(ctx, c, func(ctx context.Context, ctl swarmapi.ControlClient) ([]*swarmapi.Network, error) {
			resp, err := ctl.ListNetworks(ctx, &swarmapi.ListNetworksRequest{})
			if err != nil {
				return nil, err
			}
			return resp.Networks, nil
		})
	}
	var nets []*swarmapi.Network
	for _, n := range c.Networks() {
		nets = append(nets, networkToAPI(n))
	}
	return nets, nil
}

// apiNetworks are the networks known here that users may see.
func (c *Cluster) apiNetworks(ctx context.Context) ([]*swarmapi.Network, error) {
	nets, err := c.knownNetworks(ctx)
	if err != nil {
		return nil, err
	}
	nets = usersOnly(nets)
	slices.SortFunc(nets, func(a, b *swarmapi.Network) int {
		return strings.Compare(a.Spec.Annotations.Name, b.Spec.Annotations.Name)
	})
	return nets, nil
}

// usersOnly leaves out SwarmKit's stand-ins for each host's own networks.
func usersOnly(nets []*swarmapi.Network) []*swarmapi.Network {
	return slices.DeleteFunc(slices.Clone(nets), func(n *swarmapi.Network) bool {
		return n.Spec.Annotations.Labels[networkallocator.PredefinedLabel] == "true"
	})
}

// networkToAPI is the reverse of networkFromAPI, for what a worker knows.
func networkToAPI(n Network) *swarmapi.Network {
	out := &swarmapi.Network{
		ID: n.ID,
		Spec: swarmapi.NetworkSpec{
			Annotations: swarmapi.Annotations{Name: n.Name, Labels: n.Labels},
			Internal:    n.Internal,
			Attachable:  n.Attachable,
			Ingress:     n.Ingress,
		},
		DriverState: &swarmapi.Driver{Name: overlayDriver, Options: n.Options},
		IPAM:        &swarmapi.IPAMOptions{Driver: &swarmapi.Driver{Name: "default"}},
	}
	out.Meta.CreatedAt, _ = gogotypes.TimestampProto(n.Created)
	for _, s := range n.Subnets {
		ic := &swarmapi.IPAMConfig{Subnet: s.Prefix.String()}
		if s.Gateway.IsValid() {
			ic.Gateway = s.Gateway.String()
		}
		out.IPAM.Configs = append(out.IPAM.Configs, ic)
	}
	return out
}

// pickNetwork finds a network as dockerd does: a full ID wins over a name, a
// name over an ID prefix, and two matches of one kind are an error.
func pickNetwork(nets []*swarmapi.Network, input string) (*swarmapi.Network, error) {
	var byName, byPrefix []*swarmapi.Network
	for _, n := range nets {
		switch {
		case n.ID == input:
			return n, nil
		case n.Spec.Annotations.Name == input:
			byName = append(byName, n)
		case input != "" && strings.HasPrefix(n.ID, input):
			byPrefix = append(byPrefix, n)
		}
	}
	switch {
	case len(byName) == 1:
		return byName[0], nil
	case len(byName) > 1:
		return nil, invalid("network %s is ambiguous (%d matches found based on name)", input, len(byName))
	case len(byPrefix) == 1:
		return byPrefix[0], nil
	case len(byPrefix) > 1:
		return nil, invalid("network %s is ambiguous (%d matches found based on ID prefix)", input, len(byPrefix))
	}
	return nil, notFound("network", input)
}

// checkTarget refuses at once what the allocator would refuse in silence, as
// far as this node can know it, and completes an ID prefix, which the managers
// do not take.
func (c *Cluster) checkTarget(ctx context.Context, target string, addrs []string) (string, error) {
	nets, err := c.apiNetworks(ctx)
	if err != nil {
		return "", err
	}
	n, err := pickNetwork(nets, target)
	if err != nil && !isNotFound(err) {
		return "", err
	}
	if n != nil && isEncrypted(n) {
		if err := c.checkPeers(ctx); err != nil {
			return "", err
		}
	}
	for _, s := range addrs {
		addr, err := netip.ParseAddr(s)
		if err != nil || !addr.Is4() {
			return "", invalid("invalid IP address %q: want an IPv4 address of the network", s)
		}
		if n == nil {
			continue // a worker knows no network before it takes part in it
		}
		if err := c.checkStaticAddr(ctx, n, addr); err != nil {
			return "", err
		}
	}
	if n != nil && n.Spec.Annotations.Name != target {
		target = n.ID
	}
	return target, nil
}

// checkPeers refuses to attach to an encrypted network in a swarm with a Docker
// node, as far as this node can know that.
func (c *Cluster) checkPeers(ctx context.Context) error {
	ctl, err := c.controlClient()
	if err != nil {
		return nil // a worker cannot ask who is in the swarm
	}
	return checkAllOvnd(ctx, ctl, "it is encrypted", "use a network without --opt "+directory.OptionEncrypted)
}

func (c *Cluster) checkStaticAddr(ctx context.Context, n *swarmapi.Network, addr netip.Addr) error {
	if n.IPAM == nil || len(n.IPAM.Configs) == 0 {
		return nil
	}
	name := n.Spec.Annotations.Name
	s, err := subnetFromAPI(n.IPAM.Configs[0])
	if err != nil {
		return err
	}
	switch {
	case !s.Prefix.Contains(addr):
		return invalid("invalid IP address %s: it is outside the network's subnet %s", addr, s.Prefix)
	case addr == s.Gateway:
		return errdefs.Conflict(fmt.Errorf("address %s is the gateway of network %s: choose another one", addr, name))
	case addr == s.Prefix.Addr() || addr == lastAddr(s.Prefix):
		return invalid("invalid IP address %s: it is the network or broadcast address of %s", addr, s.Prefix)
	}
	ctl, err := c.controlClient()
	if err != nil {
		return nil // a worker cannot ask who has it
	}
	return checkTaken(ctx, ctl, n.ID, name, addr)
}

// checkTaken refuses an address that a task or a node's own endpoint has.
func checkTaken(ctx context.Context, ctl swarmapi.ControlClient, id, name string, addr netip.Addr) error {
	taken := func(na *swarmapi.NetworkAttachment) bool {
		return na != nil && na.Network != nil && na.Network.ID == id && slices.ContainsFunc(na.Addresses, func(s string) bool {
			p, err := netip.ParsePrefix(s)
			return err == nil && p.Addr() == addr
		})
	}
	tasks, err := ctl.ListTasks(ctx, &swarmapi.ListTasksRequest{})
	if err != nil {
		return err
	}
	for _, t := range tasks.Tasks {
		if t.Status.State <= swarmapi.TaskStateRunning && slices.ContainsFunc(t.Networks, taken) {
			return errdefs.Conflict(fmt.Errorf("address %s is in use on network %s by task %s on node %s: choose another one", addr, name, t.ID, t.NodeID))
		}
	}
	nodes, err := ctl.ListNodes(ctx, &swarmapi.ListNodesRequest{})
	if err != nil {
		return err
	}
	for _, node := range nodes.Nodes {
		if slices.ContainsFunc(node.Attachments, taken) {
			return errdefs.Conflict(fmt.Errorf("address %s is in use on network %s by node %s itself: choose another one", addr, name, node.ID))
		}
	}
	return nil
}

// lastAddr is the broadcast address of an IPv4 prefix.
func lastAddr(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(b)
}

package cluster

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/v2/daemon/cluster/convert"
	"github.com/moby/moby/v2/daemon/server/swarmbackend"
	"github.com/moby/moby/v2/errdefs"
	swarmapi "github.com/moby/swarmkit/v2/api"
)

// GetNodes lists the swarm's nodes. Filters: name and id (prefixes), label,
// node.label, role, membership.
func (c *Cluster) GetNodes(opts swarmbackend.NodeListOptions) ([]swarm.Node, error) {
	accepted := map[string]bool{"name": true, "id": true, "label": true, "role": true, "membership": true, "node.label": true}
	if err := opts.Filters.Validate(accepted); err != nil {
		return nil, err
	}
	f := &swarmapi.ListNodesRequest_Filters{
		NamePrefixes: opts.Filters.Get("name"),
		IDPrefixes:   opts.Filters.Get("id"),
		Labels:       labelFilters(opts.Filters.Get("label")),
		NodeLabels:   labelFilters(opts.Filters.Get("node.label")),
	}
	for _, s := range opts.Filters.Get("role") {
		role, ok := swarmapi.NodeRole_value[strings.ToUpper(s)]
		if !ok {
			return nil, invalid("Invalid role filter: '%s'", s)
		}
		f.Roles = append(f.Roles, swarmapi.NodeRole(role))
	}
	for _, s := range opts.Filters.Get("membership") {
		m, ok := swarmapi.NodeSpec_Membership_value[strings.ToUpper(s)]
		if !ok {
			return nil, invalid("Invalid membership filter: '%s'", s)
		}
		f.Memberships = append(f.Memberships, swarmapi.NodeSpec_Membership(m))
	}
	return onManager(context.Background(), c, func(ctx context.Context, ctl swarmapi.ControlClient) ([]swarm.Node, error) {
		resp, err := ctl.ListNodes(ctx, &swarmapi.ListNodesRequest{Filters: f})
		if err != nil {
			return nil, err
		}
		nodes := make([]swarm.Node, 0, len(resp.Nodes))
		for _, n := range resp.Nodes {
			nodes = append(nodes, nodeFromAPI(n))
		}
		return nodes, nil
	})
}

// GetNode returns the node with this ID, name or unique ID prefix.
func (c *Cluster) GetNode(input string) (swarm.Node, error) {
	return onManager(context.Background(), c, func(ctx context.Context, ctl swarmapi.ControlClient) (swarm.Node, error) {
		n, err := findNode(ctx, ctl, input)
		if err != nil {
			return swarm.Node{}, err
		}
		return nodeFromAPI(n), nil
	})
}

// nodeFromAPI shows the address that an ovnd node advertises rather than the
// source address of its connection, which says nothing on loopback.
func nodeFromAPI(n *swarmapi.Node) swarm.Node {
	node := convert.NodeFromGRPC(*n)
	if seen, err := netip.ParseAddr(node.Status.Addr); err == nil && seen.IsLoopback() {
		if addr, err := netip.ParseAddr(node.Description.Engine.Labels[LabelAddr]); err == nil {
			node.Status.Addr = addr.String()
		}
	}
	return node
}

// UpdateNode changes a node's labels, role and availability; version is the
// one that the change is based on.
func (c *Cluster) UpdateNode(input string, version uint64, spec swarm.NodeSpec) error {
	s, err := convert.NodeSpecToGRPC(spec)
	if err != nil {
		return errdefs.InvalidParameter(err)
	}
	_, err = onManager(context.Background(), c, func(ctx context.Context, ctl swarmapi.ControlClient) (*swarmapi.UpdateNodeResponse, error) {
		n, err := findNode(ctx, ctl, input)
		if err != nil {
			return nil, err
		}
		return ctl.UpdateNode(ctx, &swarmapi.UpdateNodeRequest{
			NodeID:      n.ID,
			Spec:        &s,
			NodeVersion: &swarmapi.Version{Index: version},
		})
	})
	return err
}

// RemoveNode removes a node that is down; force removes any, and with it the
// addresses that a dead node's attachments hold.
func (c *Cluster) RemoveNode(input string, force bool) error {
	_, err := onManager(context.Background(), c, func(ctx context.Context, ctl swarmapi.ControlClient) (*swarmapi.RemoveNodeResponse, error) {
		n, err := findNode(ctx, ctl, input)
		if err != nil {
			return nil, err
		}
		return ctl.RemoveNode(ctx, &swarmapi.RemoveNodeRequest{NodeID: n.ID, Force: force})
	})
	return err
}

// managerCounts counts the managers of the swarm, and says whether this node
// is a reachable one.
func managerCounts(ctx context.Context, ctl swarmapi.ControlClient, self string) (active bool, reachable, unreachable int, err error) {
	resp, err := ctl.ListNodes(ctx, &swarmapi.ListNodesRequest{})
	if err != nil {
		return false, 0, 0, fmt.Errorf("listing the managers: %w", err)
	}
	for _, n := range resp.Nodes {
		switch {
		case n.ManagerStatus == nil:
		case n.ManagerStatus.Reachability == swarmapi.RaftMemberStatus_REACHABLE:
			reachable++
			active = active || n.ID == self
		case n.ManagerStatus.Reachability == swarmapi.RaftMemberStatus_UNREACHABLE:
			unreachable++
		}
	}
	return active, reachable, unreachable, nil
}

func cutLabel(s string) (key, value string) {
	key, value, _ = strings.Cut(s, "=")
	return key, value
}

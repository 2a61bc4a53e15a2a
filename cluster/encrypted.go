package cluster

import (
	"context"
	"fmt"
	"slices"

	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/v2/errdefs"
	swarmapi "github.com/moby/swarmkit/v2/api"

	"github.com/ovnd/ovnd/discovery/directory"
)

// An encrypted network is of ovnd's nodes alone: Docker's encryption is the
// kernel's, which no unprivileged process can speak. Between the two there is
// nothing but dropped packets, so what would end there is refused at once.

// isEncrypted goes by the option's presence alone, as Docker does.
func isEncrypted(n *swarmapi.Network) bool {
	for _, d := range []*swarmapi.Driver{n.Spec.DriverConfig, n.DriverState} {
		if d == nil {
			continue
		}
		if _, ok := d.Options[directory.OptionEncrypted]; ok {
			return true
		}
	}
	return false
}

// checkAllOvnd refuses what needs an encrypted network in a swarm that has a
// Docker node, be it down; what says what is refused, and remedy what to do
// but for removing that node.
func checkAllOvnd(ctx context.Context, ctl swarmapi.ControlClient, what, remedy string) error {
	resp, err := ctl.ListNodes(ctx, &swarmapi.ListNodesRequest{})
	if err != nil {
		return err
	}
	foreign := slices.DeleteFunc(resp.Nodes, func(n *swarmapi.Node) bool {
		// One that has not said yet what it is has just joined, and runs nothing.
		return n.Description == nil || n.Description.Engine != nil && n.Description.Engine.Labels[LabelOvnd] == "true"
	})
	if len(foreign) == 0 {
		return nil
	}
	name, more := foreign[0].Description.Hostname, ""
	if len(foreign) > 1 {
		more = fmt.Sprintf(" (nor are %d others)", len(foreign)-1)
	}
	return errdefs.Conflict(fmt.Errorf("%s: node %s (%s) is no ovnd node%s, cannot open what ovnd seals, and ovnd never sends an encrypted network's traffic in clear text: remove the node from the swarm, or %s",
		what, name, foreign[0].ID, more, remedy))
}

// checkServiceNetworks refuses a service on an encrypted network that the
// swarm's nodes cannot all open. Networks that the service is on already, if it
// is there, are not asked for: such a service must remain changeable.
func checkServiceNetworks(ctx context.Context, ctl swarmapi.ControlClient, nets []*swarmapi.Network, wanted []swarm.NetworkAttachmentConfig, current *swarmapi.Service) error {
	for _, n := range nets {
		asked := slices.ContainsFunc(wanted, func(w swarm.NetworkAttachmentConfig) bool { return w.Target == n.ID })
		if !asked || !isEncrypted(n) || onNetwork(current, n.ID) {
			continue
		}
		name := n.Spec.Annotations.Name
		return checkAllOvnd(ctx, ctl, fmt.Sprintf("network %s is encrypted", name), "use a network without --opt "+directory.OptionEncrypted)
	}
	return nil
}

// onNetwork says whether s, which may be nil, is on the network.
func onNetwork(s *swarmapi.Service, id string) bool {
	if s == nil {
		return false
	}
	on := func(n *swarmapi.NetworkAttachmentConfig) bool { return n.Target == id }
	return slices.ContainsFunc(s.Spec.Task.Networks, on) || slices.ContainsFunc(s.Spec.Networks, on)
}

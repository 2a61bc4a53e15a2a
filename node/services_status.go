package node

import (
	"cmp"
	"slices"

	"github.com/ovnd/ovnd/api/types"
	"github.com/ovnd/ovnd/dataplane"
	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/netstack"
)

// addServices adds what the balancers of this node have done.
func (n *networks) addServices(st *types.Status, stats dataplane.Stats) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for id, j := range n.joined {
		snap := n.store.Load(id)
		if j.balancer == nil || snap == nil {
			continue
		}
		for _, s := range j.balancer.Stats().Services {
			st.Services = append(st.Services, serviceState(snap.Name, s))
		}
	}
	slices.SortFunc(st.Services, func(a, b types.ServiceState) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Network, b.Network))
	})
	st.Flows = types.FlowState{Direct: stats.VIPs.Flows, Limit: stats.VIPs.Limit, Full: stats.VIPs.Full}
}

func serviceState(network string, s netstack.ServiceStats) types.ServiceState {
	out := types.ServiceState{Name: s.Name, Network: network, VIP: s.VIP, Way: directory.Direct.String(), Backends: []types.BackendState{}}
	if !s.Way.IsDirect() {
		out.Way = directory.Proxied.String()
	}
	for _, b := range s.Backends {
		out.Backends = append(out.Backends, types.BackendState{
			Name: b.Name, Addr: b.Addr, Draining: b.Draining,
			Connections: b.Connections, Active: b.Active, Direct: b.Direct, Failures: b.Failures,
		})
	}
	return out
}

package api

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/moby/moby/api/types/network"

	"github.com/ovnd/ovnd/api/types"
	"github.com/ovnd/ovnd/discovery/directory"
)

// inspect is network.Inspect with its fields in the order of Docker 28: the
// docker CLI prints the answer as it comes.
type inspect struct {
	Name       string
	ID         string `json:"Id"`
	Created    time.Time
	Scope      string
	Driver     string
	EnableIPv4 bool
	EnableIPv6 bool
	IPAM       network.IPAM
	Internal   bool
	Attachable bool
	Ingress    bool
	ConfigFrom network.ConfigReference
	ConfigOnly bool
	Containers map[string]network.EndpointResource
	Options    map[string]string
	Labels     map[string]string
	Peers      []network.PeerInfo             `json:",omitempty"`
	Services   map[string]network.ServiceInfo `json:",omitempty"`
	// Sealing is not Docker's, which knows nothing of the kind: which peers of an
	// encrypted network this node has sessions with.
	Sealing *types.NetworkSealing `json:",omitempty"`
}

// inspectNetwork puts a network and this node's picture of it together in
// Docker's shape: Containers has the endpoints of this node, Peers all nodes
// on the network, Services, if verbose, the tasks of all nodes. Without a
// snapshot, when the network has nothing on this node, those are null.
func inspectNetwork(n network.Network, snap *directory.Snapshot, self string, verbose bool) inspect {
	out := inspect{
		Name: n.Name, ID: n.ID, Created: n.Created, Scope: n.Scope, Driver: n.Driver,
		EnableIPv4: n.EnableIPv4, EnableIPv6: n.EnableIPv6, IPAM: n.IPAM,
		Internal: n.Internal, Attachable: n.Attachable, Ingress: n.Ingress,
		ConfigFrom: n.ConfigFrom, ConfigOnly: n.ConfigOnly, Options: n.Options, Labels: n.Labels,
	}
	if snap == nil {
		return out
	}
	if out.Labels == nil {
		out.Labels = map[string]string{}
	}
	out.Containers = map[string]network.EndpointResource{}
	for _, ep := range snap.Endpoints.All() {
		if ep.NodeID == self {
			out.Containers[containerKey(snap, ep)] = endpointResource(snap, ep)
		}
	}
	for _, p := range peers(snap) {
		out.Peers = append(out.Peers, network.PeerInfo{Name: p.Name, IP: p.IP})
	}
	if verbose {
		out.Services = services(snap)
	}
	return out
}

// containerKey is what inspect lists an endpoint under: the container's ID, or
// Docker's name for the sandbox of a load balancer.
func containerKey(snap *directory.Snapshot, ep *directory.Endpoint) string {
	switch {
	case ep.Kind == directory.LoadBalancer && snap.Ingress:
		return "ingress-sbox"
	case ep.Kind == directory.LoadBalancer:
		return "lb-" + snap.Name
	case ep.SandboxID != "":
		return ep.SandboxID
	}
	return ep.ID
}

// endpointName is the name that inspect shows: a load balancer's is made up.
func endpointName(snap *directory.Snapshot, ep *directory.Endpoint) string {
	if ep.Kind == directory.LoadBalancer {
		return snap.Name + "-endpoint"
	}
	return ep.Name
}

func endpointResource(snap *directory.Snapshot, ep *directory.Endpoint) network.EndpointResource {
	res := network.EndpointResource{
		Name:       endpointName(snap, ep),
		EndpointID: ep.ID,
		MacAddress: slices.Clone(ep.MAC[:]),
	}
	// Docker shows the address with the length of its subnet.
	prefix := netip.PrefixFrom(ep.Addr, ep.Addr.BitLen())
	for _, sub := range snap.Subnets {
		if sub.Prefix.Contains(ep.Addr) {
			prefix = netip.PrefixFrom(ep.Addr, sub.Prefix.Bits())
		}
	}
	if ep.Addr.Is4() {
		res.IPv4Address = prefix
	} else {
		res.IPv6Address = prefix
	}
	return res
}

// services groups the endpoints of all nodes by service. As in Docker, what
// belongs to none is under the empty name, and load balancers are left out, as
// are endpoints that are not announced yet.
func services(snap *directory.Snapshot) map[string]network.ServiceInfo {
	list := map[string]network.ServiceInfo{}
	for _, ep := range byAddress(snap) {
		if ep.Kind == directory.LoadBalancer || ep.Pending {
			continue
		}
		s, ok := list[ep.ServiceName]
		if !ok {
			s = network.ServiceInfo{VIP: ep.VIP, Ports: servicePorts(snap.Services.At(ep.ServiceID))}
		}
		s.Tasks = append(s.Tasks, network.Task{
			Name:       ep.Name,
			EndpointID: ep.ID,
			EndpointIP: ep.Addr,
			Info:       map[string]string{"Host IP": ep.VTEP.String()},
		})
		list[ep.ServiceName] = s
	}
	return list
}

// servicePorts are a service's published ports in Docker's words.
func servicePorts(s *directory.Service) []string {
	list := []string{}
	if s == nil {
		return list
	}
	for _, p := range s.Ports {
		list = append(list, fmt.Sprintf("Target: %d, Publish: %d", p.Target, p.Published))
	}
	return list
}

// verboseNetwork is a snapshot in the words of ovnd's own API.
func verboseNetwork(snap *directory.Snapshot, self string) types.NetworkVerbose {
	out := types.NetworkVerbose{
		ID: snap.ID, Name: snap.Name, Version: snap.Version, VNI: uint32(snap.VNI), MTU: snap.MTU,
		Endpoints: make([]types.Endpoint, 0, snap.Endpoints.Len()),
		Peers:     peers(snap),
	}
	for _, ep := range byAddress(snap) {
		out.Endpoints = append(out.Endpoints, types.Endpoint{
			EndpointID: ep.ID, Name: endpointName(snap, ep), SandboxID: ep.SandboxID,
			Address: ep.Addr, MacAddress: ep.MAC.String(), Kind: ep.Kind.String(),
			NodeName: ep.NodeID, VTEP: ep.VTEP, Local: ep.NodeID == self,
			ServiceID: ep.ServiceID, ServiceName: ep.ServiceName, VirtualIP: ep.VIP,
			Aliases: ep.Aliases, TaskAliases: ep.TaskAliases, Disabled: ep.Disabled,
		})
	}
	for _, v := range snap.StaticVTEPs {
		s := types.StaticVTEP{Name: v.Name, IP: v.VTEP, Learn: v.Learn}
		if !v.Learn {
			s.Address, s.MacAddress = v.Addr, v.MAC.String()
		}
		out.StaticVTEPs = append(out.StaticVTEPs, s)
	}
	return out
}

// hasEndpoints reports whether this node has sandboxes on the network.
func hasEndpoints(snap *directory.Snapshot, self string) bool {
	if snap == nil {
		return false
	}
	for _, ep := range snap.Endpoints.All() {
		if ep.NodeID == self && ep.Kind != directory.LoadBalancer {
			return true
		}
	}
	return false
}

func byAddress(snap *directory.Snapshot) []*directory.Endpoint {
	return slices.SortedFunc(snap.Endpoints.Values(), func(a, b *directory.Endpoint) int {
		return a.Addr.Compare(b.Addr)
	})
}

func peers(snap *directory.Snapshot) []types.Peer {
	list := make([]types.Peer, 0, len(snap.Peers))
	for addr, name := range snap.Peers {
		list = append(list, types.Peer{Name: name, IP: addr})
	}
	slices.SortFunc(list, func(a, b types.Peer) int {
		return cmp.Or(a.IP.Compare(b.IP), cmp.Compare(a.Name, b.Name))
	})
	return list
}

package node

import (
	"context"
	"maps"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/ovnd/ovnd/api/types"
	"github.com/ovnd/ovnd/crypto"
	"github.com/ovnd/ovnd/dataplane"
	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/netstack"
)

// Status implements api.OvndBackend.
func (n *Node) Status(ctx context.Context) (types.Status, error) {
	version, _, _ := Build()
	info := n.cluster.Info(ctx)
	st := types.Status{
		NodeID: info.NodeID, Hostname: n.cfg.Hostname, State: string(info.LocalNodeState), Error: info.Error,
		Version: version, PID: os.Getpid(), StartedAt: n.started, Uptime: int64(time.Since(n.started).Seconds()),
		StateDir: n.paths.StateDir, Addresses: types.Addresses{API: n.paths.APISocket},
		Networks: []types.NetworkState{}, Peers: []types.PeerState{}, Ports: []types.PortState{},
		Drops: map[string]uint64{}, Published: []types.PublishedPort{}, Services: []types.ServiceState{},
		TUN: n.tunState(), Proxies: n.proxyStates(),
	}
	for _, m := range info.RemoteManagers {
		st.Managers = append(st.Managers, m.Addr)
	}
	slices.Sort(st.Managers)
	m := n.current()
	if m == nil {
		return st, nil
	}
	st.Role = "worker"
	if info.ControlAvailable {
		st.Role = "manager"
	}
	n.addAddresses(&st.Addresses, info.ControlAvailable)
	stats := m.sw.Stats()
	st.Drops = stats.Total.Drops
	st.Ledger = ledger(stats.Total)
	sessions := m.sealing.engine.Stats()
	st.Sealing = m.sealing.status(sessions)
	n.addNetworks(&st, stats)
	n.addPeers(&st, stats, m.sealing, sessions)
	n.addPorts(&st, stats)
	m.networks.addServices(&st, stats)
	addPublished(&st, m.networks.ingress())
	return st, nil
}

// addPublished adds the published ports that in serves; nil serves none.
func addPublished(st *types.Status, in *netstack.Ingress) {
	if in == nil {
		return
	}
	for _, p := range in.Ports() {
		port := types.PublishedPort{
			Port: p.Port.Published, Protocol: p.Port.Protocol.String(), Service: p.ServiceName, Addrs: p.Addrs,
		}
		if p.Err != nil {
			port.Error = p.Err.Error()
		}
		st.Published = append(st.Published, port)
	}
}

func (n *Node) addAddresses(a *types.Addresses, manager bool) {
	listen, advertise, dataPath := n.cluster.Addrs()
	a.Advertise = advertise.Addr()
	a.Gossip = netip.AddrPortFrom(n.gossipBind(advertise.Addr()), DefaultGossipPort)
	a.DataPath = netip.AddrPortFrom(dataPath, n.cluster.DataPathPort())
	a.DNS = n.cfg.DNSAddr
	if manager {
		a.Control = listen
	}
}

// ledger sums up the data plane's account. Packets that wait for an address to
// be learned were not dealt with yet and count nowhere.
func ledger(l dataplane.Ledger) types.Ledger {
	return types.Ledger{
		Sent:      l.PortIn.Packets + l.WireIn.Packets + l.Originated.Packets - l.Held,
		Delivered: l.PortOut.Packets + l.WireOut.Packets + l.Consumed.Packets,
		Dropped:   l.Dropped(),
	}
}

func (n *Node) addNetworks(st *types.Status, stats dataplane.Stats) {
	drops := make(map[string]map[string]uint64)
	for _, s := range stats.Networks {
		drops[s.ID] = s.Ledger.Drops
	}
	for _, snap := range n.store.Networks() {
		state := types.NetworkState{
			ID: snap.ID, Name: snap.Name, VNI: uint32(snap.VNI), MTU: snap.MTU,
			Encrypted: snap.Encrypted,
			Endpoints: snap.Endpoints.Len(), Peers: max(len(snap.Peers)-1, 0), Drops: drops[snap.ID],
		}
		for _, sub := range snap.Subnets {
			state.Subnets = append(state.Subnets, sub.Prefix)
		}
		for _, ep := range snap.Endpoints.All() {
			if ep.VTEP == stats.Underlay.Addr() && ep.Kind == directory.Task {
				state.LocalEndpoints++
			}
		}
		st.Networks = append(st.Networks, state)
	}
}

func (n *Node) addPeers(st *types.Status, stats dataplane.Stats, sealing *sealing, sessions crypto.Stats) {
	peers := make(map[netip.Addr]*types.PeerState)
	find := func(addr netip.Addr) *types.PeerState {
		if peers[addr] == nil {
			peers[addr] = &types.PeerState{IP: addr, Networks: []string{}}
		}
		return peers[addr]
	}
	for _, snap := range n.store.Networks() {
		for addr, name := range snap.Peers {
			if addr != stats.Underlay.Addr() {
				p := find(addr)
				p.Name = name
				p.Networks = append(p.Networks, snap.Name)
			}
		}
		for _, v := range snap.StaticVTEPs {
			p := find(v.VTEP)
			p.Name = v.Name
			p.Networks = append(p.Networks, snap.Name)
		}
	}
	for _, s := range stats.Peers {
		find(s.VTEP).Traffic = types.Traffic{
			RxPackets: s.In.Packets, RxBytes: s.In.Bytes, TxPackets: s.Out.Packets, TxBytes: s.Out.Bytes,
		}
	}
	n.addSessions(find, sealing, sessions)
	for _, addr := range slices.SortedFunc(maps.Keys(peers), netip.Addr.Compare) {
		p := peers[addr]
		p.Networks = slices.Compact(p.Networks)
		st.Peers = append(st.Peers, *p)
	}
}

func (n *Node) addPorts(st *types.Status, stats dataplane.Stats) {
	for _, p := range stats.Ports {
		port := types.PortState{
			Name: p.Name, NetworkID: p.NetworkID, EndpointID: p.EndpointID, Addresses: p.Addrs,
			Traffic: types.Traffic{
				RxPackets: p.In.Packets, RxBytes: p.In.Bytes, TxPackets: p.Out.Packets, TxBytes: p.Out.Bytes,
			},
		}
		if snap := n.store.Load(p.NetworkID); snap != nil {
			port.Network = snap.Name
			if ep, ok := snap.Lookup(p.Addrs[0]); ok {
				port.MacAddress = ep.MAC.String()
			}
		}
		st.Ports = append(st.Ports, port)
	}
}

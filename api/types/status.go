package types

import (
	"net/netip"
	"time"
)

// Status is the answer to GET /ovnd/status: one node, seen from itself.
// Counters start at 0 with the node's process. Rx and Tx are as `ip -s link`
// has them: Rx came to the thing described, Tx left it.
type Status struct {
	// NodeID of the swarm, empty if the node is in none.
	NodeID   string `json:"NodeID"`
	Hostname string `json:"Hostname"`
	// Role is "manager", "worker", or empty outside a swarm.
	Role string `json:"Role"`
	// State as in Docker's Swarm.LocalNodeState: inactive, pending, active,
	// error, locked.
	State string `json:"State"`
	// Error says why State is "error".
	Error   string `json:"Error,omitempty"`
	Version string `json:"Version"`
	PID     int    `json:"PID"`
	// StartedAt is when the node's process began.
	StartedAt time.Time `json:"StartedAt"`
	// Uptime in whole seconds.
	Uptime    int64          `json:"Uptime"`
	StateDir  string         `json:"StateDir"`
	Addresses Addresses      `json:"Addresses"`
	Managers  []string       `json:"Managers"`
	Networks  []NetworkState `json:"Networks"`
	Peers     []PeerState    `json:"Peers"`
	Ports     []PortState    `json:"Ports"`
	// Published are the ports that this node serves for services.
	Published []PublishedPort `json:"Published"`
	// Services are those whose connections this node balances, and Flows what of
	// them the data plane carries.
	Services []ServiceState `json:"Services"`
	Flows    FlowState      `json:"Flows"`
	// TUN says how tasks live on this node.
	TUN TUNState `json:"TUN"`
	// Proxies are what programs outside of sandboxes reach networks by.
	Proxies []ProxyState `json:"Proxies"`
	// Drops counts packets by reason; reasons that never occurred are absent.
	Drops  map[string]uint64 `json:"Drops"`
	Ledger Ledger            `json:"Ledger"`
	// Sealing is what encrypted networks need of this node; nil outside a swarm.
	Sealing *Sealing `json:"Sealing,omitempty"`
}

// Addresses are what a node listens on and tells others.
type Addresses struct {
	// Advertise is the address that other nodes use.
	Advertise netip.Addr `json:"Advertise,omitzero"`
	// Control is the swarm's own port (TCP), set on managers.
	Control netip.AddrPort `json:"Control,omitzero"`
	// Gossip is NetworkDB's port (TCP and UDP).
	Gossip netip.AddrPort `json:"Gossip,omitzero"`
	// DataPath is the VXLAN port (UDP).
	DataPath netip.AddrPort `json:"DataPath,omitzero"`
	// DNS is where the names of all networks are served to the machine.
	DNS netip.AddrPort `json:"DNS,omitzero"`
	// API is the path of the unix socket.
	API string `json:"API"`
}

// NetworkState is a network that this node takes part in.
type NetworkState struct {
	ID   string `json:"Id"`
	Name string `json:"Name"`
	// VNI is the VXLAN network identifier, 24 bits.
	VNI uint32 `json:"VNI"`
	// MTU inside the network, in bytes.
	MTU     int            `json:"MTU"`
	Subnets []netip.Prefix `json:"Subnets"`
	// Endpoints known in the whole cluster, and of those the ones here.
	Endpoints      int `json:"Endpoints"`
	LocalEndpoints int `json:"LocalEndpoints"`
	// Encrypted networks are sealed between nodes and never in clear text.
	Encrypted bool `json:"Encrypted,omitempty"`
	// Peers are the other VTEPs known on this network.
	Peers int `json:"Peers"`
	// Drops counts this network's packets by reason.
	Drops map[string]uint64 `json:"Drops,omitempty"`
}

// PeerState is another VTEP that this node exchanges packets with.
type PeerState struct {
	// Name of the node behind it, empty if only its address is known.
	Name string     `json:"Name"`
	IP   netip.Addr `json:"IP"`
	// Networks shared with it, by name.
	Networks []string `json:"Networks"`
	// NodeID of the swarm, where an encrypted network is shared with it.
	NodeID string `json:"NodeID,omitempty"`
	// Sessions that encrypted networks want with it, whether they exist or not.
	Sessions []Session `json:"Sessions,omitempty"`
	Traffic
}

// PortState is one port of the node's switch: the end of a sandbox's
// interface, Rx and Tx as seen inside the sandbox.
type PortState struct {
	// Name of the sandbox or task.
	Name       string       `json:"Name"`
	Network    string       `json:"Network"`
	NetworkID  string       `json:"NetworkID"`
	EndpointID string       `json:"EndpointID"`
	Addresses  []netip.Addr `json:"Addresses"`
	MacAddress string       `json:"MacAddress"`
	Traffic
}

// PublishedPort is a port of the routing mesh.
type PublishedPort struct {
	Port     uint16       `json:"Port"`
	Protocol string       `json:"Protocol"`
	Service  string       `json:"Service,omitempty"` // by name; empty while it starts
	Addrs    []netip.Addr `json:"Addrs"`             // of the machine; empty if it is not open
	// Error says why it is not open.
	Error string `json:"Error,omitempty"`
}

// Traffic counts inner packets, those that would have been on the wire after
// segmentation, and their bytes with IP headers and without outer headers.
type Traffic struct {
	RxPackets uint64 `json:"RxPackets"`
	RxBytes   uint64 `json:"RxBytes"`
	TxPackets uint64 `json:"TxPackets"`
	TxBytes   uint64 `json:"TxBytes"`
}

// Ledger sums up the data plane in packets. Once it is quiet
// Sent = Delivered + Dropped: nothing vanishes uncounted.
type Ledger struct {
	// Sent to the switch: by sandboxes and by the underlay.
	Sent uint64 `json:"Sent"`
	// Delivered by the switch: to sandboxes and to the underlay.
	Delivered uint64 `json:"Delivered"`
	// Dropped, for all reasons together.
	Dropped uint64 `json:"Dropped"`
}

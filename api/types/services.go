package types

import "net/netip"

// ServiceState is what this node has done for the clients of a service on one
// network. Counters begin when the node first heard of the service there.
type ServiceState struct {
	Name    string `json:"Name"`
	Network string `json:"Network"`
	// VIP is absent where the service has none.
	VIP netip.Addr `json:"VIP,omitzero"`
	// Way says how connections of sandboxes are carried: "direct" or "proxy", by
	// the service's label ovnd.vip.
	Way      string         `json:"Way"`
	Backends []BackendState `json:"Backends"`
}

// BackendState is one task of a service as a balancer knows it.
type BackendState struct {
	Name string     `json:"Name"`
	Addr netip.Addr `json:"Addr"`
	// Draining tasks take no new connections.
	Draining bool `json:"Draining,omitempty"`
	// Connections and UDP flows in all, and of those the ones that are open.
	Connections uint64 `json:"Connections"`
	Active      int    `json:"Active"`
	// Direct are those of Active that the data plane carries; the others end in
	// this node's process.
	Direct int `json:"Direct"`
	// Failures are turns that were refused or not answered.
	Failures uint64 `json:"Failures"`
}

// FlowState is what the data plane carries to VIPs.
type FlowState struct {
	// Direct are the flows, of which there may be Limit.
	Direct int `json:"Direct"`
	Limit  int `json:"Limit"`
	// Full counts flows that were proxied since there was no room.
	Full uint64 `json:"Full"`
}

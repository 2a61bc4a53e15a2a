// Package types holds the requests and answers of ovnd's own API calls, those
// under /ovnd/ on the node's socket. They are stable: `ovnd status --format
// json` prints them as they are. Field names are Docker's where Docker has the
// field.
package types

import (
	"net/netip"

	"github.com/ovnd/ovnd/sandbox"
)

// AttachRequest is the body of POST /ovnd/attach: a process is about to be
// started on one or more networks. It is answered by an [AttachResponse].
type AttachRequest struct {
	// Name of the sandbox, unique on its node as a container's name is.
	// Empty: the node makes one up.
	Name string `json:"Name,omitempty"`
	// Hostname inside the sandbox. Empty: the first 12 digits of its ID.
	Hostname string `json:"Hostname,omitempty"`
	// Networks in the order of the interfaces, eth0 first. At least one.
	Networks []AttachNetwork `json:"Networks"`
	// Elsewhere says that the devices are made in a network namespace that is there
	// already, a container's say: the node need not be allowed any itself.
	Elsewhere bool `json:"Elsewhere,omitempty"`
}

// AttachNetwork asks for one interface of a sandbox.
type AttachNetwork struct {
	// Target is the network's name, ID, or an unambiguous prefix of its ID.
	Target string `json:"Target"`
	// IP is the address wanted. Zero: the swarm allocates one.
	IP netip.Addr `json:"IP,omitzero"`
	// Aliases are further names of the endpoint on this network.
	Aliases []string `json:"Aliases,omitempty"`
}

// AttachResponse is the answer to an [AttachRequest], with status 201. The
// addresses in it stay allocated until the sandbox's init has connected to the
// node and gone again; an init that never connects loses them.
type AttachResponse struct {
	Spec sandbox.Spec `json:"Spec"`
}

// ReleaseRequest is the body of POST /ovnd/release, answered with status 204: a
// sandbox of an [AttachRequest] will not start after all, and its addresses go
// back at once. One whose init is connected is left alone.
type ReleaseRequest struct {
	// ID and Token of the sandbox, from its Spec.
	ID    string `json:"Id"`
	Token string `json:"Token"`
}

// DownResponse is the answer to POST /ovnd/down, with status 202: the node has
// begun to stop and is gone when the process PID is.
type DownResponse struct {
	// PID of the node's process, in the node's PID namespace.
	PID int `json:"PID"`
}

// NetworkVerbose is the answer to GET /ovnd/networks/{id}/verbose: every
// endpoint of a network in the whole cluster, as this node's directory has it.
type NetworkVerbose struct {
	ID   string `json:"Id"`
	Name string `json:"Name"`
	// Version of the directory's snapshot; it grows with each change and is
	// this node's own count.
	Version uint64 `json:"Version"`
	// VNI is the VXLAN network identifier, 24 bits.
	VNI uint32 `json:"VNI"`
	// MTU inside the network, in bytes.
	MTU int `json:"MTU"`
	// Endpoints by address.
	Endpoints []Endpoint `json:"Endpoints"`
	// Peers are the VTEPs known on this network, by address, own included.
	Peers []Peer `json:"Peers"`
	// StaticVTEPs are peers outside the cluster, options of the network.
	StaticVTEPs []StaticVTEP `json:"StaticVTEPs,omitempty"`
	// Sealing is of encrypted networks.
	Sealing *NetworkSealing `json:"Sealing,omitempty"`
}

// Endpoint is one address on a network and where it lives.
type Endpoint struct {
	EndpointID string `json:"EndpointID"`
	// Name is the sandbox's or task's name, "<network>-endpoint" for a load
	// balancer.
	Name       string     `json:"Name"`
	SandboxID  string     `json:"SandboxID,omitempty"`
	Address    netip.Addr `json:"Address"`
	MacAddress string     `json:"MacAddress"`
	// Kind is "task" or "load-balancer".
	Kind string `json:"Kind"`
	// NodeName is the owner's gossip name, that of [Peer.Name]; empty if only
	// its address is known.
	NodeName string     `json:"NodeName"`
	VTEP     netip.Addr `json:"VTEP"`
	// Local says that the endpoint is on the node that answered.
	Local       bool       `json:"Local"`
	ServiceID   string     `json:"ServiceID,omitempty"`
	ServiceName string     `json:"ServiceName,omitempty"`
	VirtualIP   netip.Addr `json:"VirtualIP,omitzero"`
	// Aliases are the names of the service, TaskAliases of this endpoint alone.
	Aliases     []string `json:"Aliases,omitempty"`
	TaskAliases []string `json:"TaskAliases,omitempty"`
	// Disabled endpoints are on their way out: no new traffic.
	Disabled bool `json:"Disabled,omitempty"`
}

// Peer is a VTEP and the node behind it.
type Peer struct {
	Name string     `json:"Name"`
	IP   netip.Addr `json:"IP"`
}

// StaticVTEP is a VTEP outside the cluster: either what is behind it is
// learned from its frames, or it is one fixed address.
type StaticVTEP struct {
	Name       string     `json:"Name"`
	IP         netip.Addr `json:"IP"`
	Learn      bool       `json:"Learn"`
	Address    netip.Addr `json:"Address,omitzero"`
	MacAddress string     `json:"MacAddress,omitempty"`
}

package directory

import (
	"net/netip"
	"slices"
	"time"

	"github.com/ovnd/ovnd/encap"
)

// A Snapshot is one version of one network as this node sees it. It is
// immutable once published: readers share it without a lock and must not
// change it, nor what its maps and slices hold.
type Snapshot struct {
	Version uint64 // grows with each change of this network on this node; never reused while the node runs
	ID      string // SwarmKit's network ID, 25 characters
	Name    string
	VNI     encap.VNI

	Subnets []Subnet
	MTU     int // bytes, of the inner IP packet

	Internal   bool   // no route out of the network
	Attachable bool   // `ovnd run` and `docker run` may attach to it
	Ingress    bool   // the routing-mesh network
	Encrypted  bool   // sealed between nodes; never in clear text
	Cipher     Cipher // of an encrypted network
	Reserved   encap.Reserved

	Created time.Time
	Labels  map[string]string // as inspect shows them
	Options map[string]string // driver options, as inspect shows them

	// Endpoints by inner address: those of this node, present at once, and
	// those that gossip tells of, of both kinds.
	Endpoints Map[netip.Addr, *Endpoint]

	// Services by ID, and those of them that have a VIP by that, as the endpoints
	// tell; see [Services].
	Services Map[string, *Service]
	VIPs     Map[netip.Addr, *Service]

	// Peers holds the underlay addresses of the nodes that are on this network
	// and so may send frames of it, this node's own included. The value is the
	// node's gossip name, the 12 hexadecimal digits that inspect prints under
	// Peers, or "" for a VTEP that is known from an endpoint's record alone.
	Peers map[netip.Addr]string

	// Identities are what the nodes of an encrypted network say they are, by node
	// ID, this node's own left out. They are hearsay: whom to shake hands with.
	Identities map[string]Identity

	StaticVTEPs []StaticVTEP
}

// A Subnet is one address range of a network.
type Subnet struct {
	Prefix  netip.Prefix
	Gateway netip.Addr // may be the zero Addr
}

// An EndpointKind says what an endpoint is for.
type EndpointKind uint8

const (
	// Task is an endpoint with a process behind it: a task of a service or a
	// container that was attached by hand.
	Task EndpointKind = iota
	// LoadBalancer is the lb-<network> endpoint that a node owns on each
	// network it has joined. It has an address, answers for VIPs and has no
	// name that resolves.
	LoadBalancer
)

// String returns "task" or "load-balancer".
func (k EndpointKind) String() string {
	if k == LoadBalancer {
		return "load-balancer"
	}
	return "task"
}

// An Endpoint is one attachment to a network.
type Endpoint struct {
	ID        string // unique in the swarm, the key of its gossip records
	Name      string // container or task name, what DNS knows it by
	SandboxID string // of a local endpoint; "" for remote ones
	Addr      netip.Addr
	MAC       encap.MAC
	NodeID    string     // gossip name of the owner, as in Snapshot.Peers; "" if unknown
	VTEP      netip.Addr // underlay address of the owner
	Kind      EndpointKind

	// Owner is the swarm's ID of the node that signed for the endpoint, to which
	// alone its packets are sealed. "" on a plain network, which has no owners.
	Owner string

	ServiceID   string // "" for a container that was attached by hand
	ServiceName string
	VIP         netip.Addr // virtual address of the service; the zero Addr if it has none
	Aliases     []string   // names of the service
	TaskAliases []string   // names of this endpoint alone
	Way         Way        // how connections to VIP are carried
	Disabled    bool       // draining: takes no new connections of its service
	Ports       []Port     // published by its service in ingress mode; on the ingress network only

	// Pending is of a local endpoint that has its address and is reachable there,
	// and that nobody is told by name yet: it is starting, or unhealthy. The other
	// nodes hear of its place alone.
	Pending bool
}

// An Identity is a node's statement of its keys on an encrypted network, as
// gossip carries it. The certificate that Signature is to be checked with comes
// in the handshake; before that all of it may be a lie.
type Identity struct {
	NodeID    string   // of the swarm, 25 characters
	Static    [32]byte // X25519 public key of the node's handshakes
	Record    [32]byte // Ed25519 public key that its endpoint records are signed with
	Signature []byte   // by the node's swarm TLS key over the above
	VTEP      netip.Addr
	Name      string // gossip name
}

// A StaticVTEP is a VTEP outside the cluster, fixed when the network was made.
type StaticVTEP struct {
	Name string // of the option, ovnd.vtep.<name>
	VTEP netip.Addr

	// Learn has the addresses behind this VTEP learned from its frames and
	// ARP. Otherwise Addr and MAC are the one inner address behind it.
	Learn bool
	MAC   encap.MAC
	Addr  netip.Addr
}

// Lookup returns the endpoint that has the inner address a.
func (s *Snapshot) Lookup(a netip.Addr) (*Endpoint, bool) {
	return s.Endpoints.Get(a)
}

// Contains reports whether a lies in one of the network's subnets.
func (s *Snapshot) Contains(a netip.Addr) bool {
	return slices.ContainsFunc(s.Subnets, func(n Subnet) bool { return n.Prefix.Contains(a) })
}

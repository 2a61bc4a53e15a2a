package types

import "net/netip"

// Sealing is the state of what seals encrypted networks on a node.
type Sealing struct {
	// Error says why this node can make no session at all; empty if it can.
	Error string `json:"Error,omitempty"`
	// Epochs are the swarm's data-plane keys that this node has, oldest first,
	// by the Lamport time at which a manager made them.
	Epochs []uint64 `json:"Epochs"`
	// Primary is the epoch that this node begins handshakes in; 0: no key.
	Primary uint64 `json:"Primary"`
	// Refusals counts handshake messages that were refused, by reason; reasons
	// that never occurred are absent.
	Refusals map[string]uint64 `json:"Refusals"`
	// Revoked are the IDs of nodes that were removed from the swarm and get no
	// session.
	Revoked []string `json:"Revoked,omitempty"`
}

// Session is the sealed session with one node that the networks of one policy
// share.
type Session struct {
	// NodeID of the other node in the swarm.
	NodeID string `json:"NodeID"`
	// Policy is the value of the networks' option: auto, or the name of the
	// one cipher that they allow.
	Policy string `json:"Policy"`
	// Established sessions can be sent with. What follows is of those, Reason
	// of the others.
	Established bool `json:"Established"`
	// Reason says why there is no session.
	Reason string `json:"Reason,omitempty"`
	// Cipher is chacha20-poly1305 or aes-256-gcm.
	Cipher string `json:"Cipher,omitempty"`
	// Epoch of the swarm's key that the handshake was made with.
	Epoch uint64 `json:"Epoch,omitempty"`
	// Key is the other node's static public key (X25519, hexadecimal), which is a
	// new one with each start of that node.
	Key string `json:"Key,omitempty"`
	// IP is where the node last authenticated from.
	IP netip.Addr `json:"IP,omitzero"`
	// Age of the keys, and time since the last packet that authenticated, both
	// in seconds.
	Age           float64 `json:"Age,omitempty"`
	Authenticated float64 `json:"Authenticated,omitempty"`
	// Packets opened and sealed with the present keys.
	RxPackets uint64 `json:"RxPackets,omitempty"`
	TxPackets uint64 `json:"TxPackets,omitempty"`
}

// NetworkSealing says how an encrypted network stands on a node.
type NetworkSealing struct {
	// Policy as in [Session].
	Policy string `json:"Policy"`
	// Error says why this node can make no session at all.
	Error string `json:"Error,omitempty"`
	// Sessions with the other nodes on the network, by node ID.
	Sessions []Session `json:"Sessions"`
	// Drops counts the network's packets on this node by reason.
	Drops map[string]uint64 `json:"Drops"`
}

package node

import (
	"encoding/hex"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/ovnd/ovnd/api/types"
	"github.com/ovnd/ovnd/crypto"
	"github.com/ovnd/ovnd/dataplane"
	"github.com/ovnd/ovnd/discovery/directory"
)

// status is what sessions are made with, and what became of handshakes.
func (s *sealing) status(stats crypto.Stats) *types.Sealing {
	out := &types.Sealing{Error: s.whyNone(), Epochs: []uint64{}, Refusals: map[string]uint64{}}
	for why, n := range stats.Refused {
		out.Refusals[why.String()] = n
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.epochs {
		out.Epochs = append(out.Epochs, e.Tag)
	}
	if n := len(out.Epochs); n > 0 {
		out.Primary = out.Epochs[min(1, n-1)]
	}
	out.Revoked = slices.Sorted(maps.Keys(s.removed))
	return out
}

// whyNone says why this node can make no session at all; "" if it can.
func (s *sealing) whyNone() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.trouble != nil:
		return s.trouble.Error()
	case s.identity.Load() == nil:
		return "this node has no certificate yet"
	case len(s.epochs) == 0:
		return "this node has none of the swarm's data-plane keys: a manager has to be reached once"
	}
	return ""
}

// sessionOf says how a node stands under one policy.
func (s *sealing) sessionOf(p crypto.PeerStats) types.Session {
	out := types.Session{NodeID: p.Node, Policy: p.Policy.String()}
	i := slices.IndexFunc(p.Sessions, func(s crypto.SessionStats) bool { return s.Established })
	if i < 0 {
		out.Reason = s.whyNot(p)
		return out
	}
	now := p.Sessions[i]
	out.Established, out.Cipher, out.Epoch, out.IP = true, now.Suite.String(), now.Epoch, now.Addr
	out.Age, out.Authenticated = now.Age.Seconds(), now.Heard.Seconds()
	out.RxPackets, out.TxPackets = now.Received, now.Sent
	if st, ok := s.engine.Verified(p.Node); ok {
		out.Key = hex.EncodeToString(st.Static[:])
	}
	return out
}

// refusals in the words of a person who wonders why there is no session.
var refusalWords = map[crypto.Refusal]string{
	crypto.RefusedNoIdentity:  "this node has no certificate",
	crypto.RefusedNoKey:       "this node has none of the swarm's keys",
	crypto.RefusedNoStaticKey: "the node's key is not known yet",
	crypto.RefusedEpoch:       "the node uses a key of the swarm that this one does not have",
	crypto.RefusedHandshake:   "the node has other keys of the swarm",
	crypto.RefusedIdentity:    "the node's certificate is not accepted",
	crypto.RefusedRevoked:     "the node was removed from the swarm",
	crypto.RefusedSuite:       "no cipher that both nodes may use",
	crypto.RefusedChain:       "this node's certificates are too long for a handshake",
}

// whyNot says why there is no session with a node.
func (s *sealing) whyNot(p crypto.PeerStats) string {
	if why := s.whyNone(); why != "" {
		return why
	}
	if words := refusalWords[p.Failure]; words != "" {
		return words
	}
	switch {
	case p.Failure.String() != "":
		return "refused: " + p.Failure.String()
	case p.Tries > 1:
		return fmt.Sprintf("no answer to %d handshakes", p.Tries)
	case p.Tries == 1 || len(p.Sessions) > 0:
		return "a handshake is under way"
	}
	return "none was asked for"
}

// addSessions adds to each peer what networks want of it, and who it is.
func (n *Node) addSessions(find func(netip.Addr) *types.PeerState, s *sealing, stats crypto.Stats) {
	nodes := make(map[string]netip.Addr)
	for _, snap := range n.store.Networks() {
		for id, identity := range snap.Identities {
			nodes[id] = identity.VTEP
		}
	}
	for _, p := range stats.Peers {
		at, known := nodes[p.Node]
		if !known && len(p.Sessions) > 0 {
			at, known = p.Sessions[0].Addr, true
		}
		if !known || !p.Wanted && len(p.Sessions) == 0 {
			continue
		}
		peer := find(at)
		peer.NodeID = p.Node
		peer.Sessions = append(peer.Sessions, s.sessionOf(p))
	}
}

// Sealing implements api.NetworkBackend.
func (b networkBackend) Sealing(id string) *types.NetworkSealing {
	m, snap := b.node.current(), b.node.store.Load(id)
	if m == nil || snap == nil || !snap.Encrypted {
		return nil
	}
	return m.sealing.network(snap, m.sw.Stats())
}

// network says how an encrypted network stands on this node.
func (s *sealing) network(snap *directory.Snapshot, stats dataplane.Stats) *types.NetworkSealing {
	policy := dataplane.PolicyOf(snap.Cipher)
	out := &types.NetworkSealing{
		Policy: policy.String(), Error: s.whyNone(), Sessions: []types.Session{}, Drops: map[string]uint64{},
	}
	peers := s.engine.Stats().Peers
	for _, id := range slices.Sorted(maps.Keys(snap.Identities)) {
		i := slices.IndexFunc(peers, func(p crypto.PeerStats) bool { return p.Node == id && p.Policy == policy })
		state := crypto.PeerStats{Node: id, Policy: policy} // nobody has asked for it yet
		if i >= 0 {
			state = peers[i]
		}
		out.Sessions = append(out.Sessions, s.sessionOf(state))
	}
	for _, n := range stats.Networks {
		if n.ID == snap.ID {
			out.Drops = n.Ledger.Drops
		}
	}
	return out
}

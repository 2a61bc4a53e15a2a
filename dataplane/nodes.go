package dataplane

import (
	"net/netip"

	"github.com/ovnd/ovnd/crypto"
	"github.com/ovnd/ovnd/dataplane/udp"
	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/encap"
)

// addNodes adds the nodes of an encrypted network.
func (n *network) addNodes(s *Switch) {
	n.nodes = make(map[*crypto.Peer]*sealedPeer, len(n.snap.Identities))
	n.from.owners = make(map[string]*sealedPeer, len(n.snap.Identities))
	policy := PolicyOf(n.snap.Cipher)
	for id, identity := range n.snap.Identities {
		if !s.foreign(identity.VTEP) {
			continue
		}
		p := s.node(id, policy)
		p.vtep = identity.VTEP
		n.nodes[p.crypto], n.from.owners[id] = p, p
	}
}

// PolicyOf returns the policy of sessions that carry a network with that option.
func PolicyOf(c directory.Cipher) crypto.Policy {
	switch c {
	case directory.ChaCha20Poly1305:
		return crypto.OnlyChaCha20Poly1305
	case directory.AES256GCM:
		return crypto.OnlyAES256GCM
	}
	return crypto.Auto
}

// node returns the node with an ID, as networks with a policy know it. s.mu is
// held.
func (s *Switch) node(id string, policy crypto.Policy) *sealedPeer {
	handle := s.sessions.Peer(id, policy)
	p := s.nodes[handle]
	if p == nil {
		p = &sealedPeer{crypto: handle, traffic: make([]traffic, len(s.sections))}
		s.nodes[handle] = p
	}
	return p
}

// forgetNodes removes the nodes that no network of t knows. s.mu is held.
func (s *Switch) forgetNodes(t *table) {
	used := make(map[*crypto.Peer]bool, len(s.nodes))
	for _, n := range t.sealed {
		for handle := range n.nodes {
			used[handle] = true
		}
	}
	for handle, p := range s.nodes {
		if !used[handle] {
			// A worker may still hold a table that knows it.
			for _, f := range p.waiting.end() {
				f.account.ledgers[0].drop(DropNoSession, f.packets)
			}
			delete(s.nodes, handle)
		}
	}
}

// SendControl sends a message about sessions to a node's data port. It is
// [crypto.Config].Send; b is lent until it returns.
func (s *Switch) SendControl(to netip.Addr, b []byte) { s.control.send(to, b) }

// SessionsChanged says that a session has begun or ended: what waited for it
// goes on. It does not block, and is [crypto.Config].Changed.
func (s *Switch) SessionsChanged() { s.keeper.resumeSoon() }

// A control sends messages about sessions, which are packets of no network.
type control struct {
	sw     *Switch
	worker int
	sender *udp.Sender
}

func (c *control) send(to netip.Addr, b []byte) {
	if !c.sw.foreign(to) {
		return
	}
	l := &c.sw.stray[c.worker]
	l.originated.add(1, len(b))
	_, err := c.sender.Send(udp.NewAddr(netip.AddrPortFrom(to, c.sw.local.Port())), 0, b, len(b), encap.ECNNotECT)
	if err != nil {
		l.drop(sendDrop(err), 1)
		return
	}
	l.wireOut.add(1, len(b))
}

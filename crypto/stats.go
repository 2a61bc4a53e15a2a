package crypto

import (
	"net/netip"
	"slices"
	"strings"
	"time"
)

// A Refusal is why a handshake message, or an attempt of our own, came to
// nothing.
type Refusal uint8

// The refusals, in the order in which a message can meet them.
const (
	refusedNot         Refusal = iota
	RefusedLength              // neither type nor length of a handshake message
	RefusedNoIdentity          // this node has no certificate yet, or its engine has stopped
	RefusedMAC                 // mac1 is not for our static key: an outsider's, or to an earlier run
	RefusedQueue               // too many messages wait
	RefusedCookie              // under load: asked to prove the address first
	RefusedRate                // under load: too many of one address
	RefusedUnexpected          // answers nothing that was sent
	RefusedEpoch               // an epoch whose key this node does not have
	RefusedHandshake           // does not decrypt: wrong key, forged, or damaged
	RefusedPayload             // of a version or form unknown here
	RefusedReplay              // an initiation that was seen before, or an older one
	RefusedIdentity            // certificate or signature are not good
	RefusedRevoked             // the node was removed from the swarm
	RefusedNode                // another node than the one that was called, or this node itself
	RefusedSuite               // no suite that both ends permit
	RefusedCrossing            // crosses our own initiation, which goes first
	RefusedHalfOpen            // too many sessions that nobody has confirmed
	RefusedNoKey               // our own attempt: no epoch's key
	RefusedNoStaticKey         // our own attempt: gossip has not told the peer's static key
	RefusedChain               // our own attempt: our certificate does not fit a handshake
	refusals           = iota
)

var refusalNames = [refusals]string{
	"", "length", "no_identity", "mac", "queue", "cookie", "rate", "unexpected", "epoch",
	"handshake", "payload", "replay", "identity", "revoked", "node", "suite", "crossing",
	"half_open", "no_key", "no_static_key", "chain",
}

// String returns the refusal's name in counters.
func (r Refusal) String() string { return refusalNames[r] }

// Stats are the state of an [Engine] at one time.
type Stats struct {
	Peers    []PeerStats // by node and policy
	Refused  map[Refusal]uint64
	HalfOpen int  // responder's sessions that wait for the first datagram
	Queued   int  // messages that wait for the engine
	Loaded   bool // initiators have to prove their address
}

// PeerStats are what a [Peer] has, or why it has nothing.
type PeerStats struct {
	Node    string
	Policy  Policy
	Wanted  bool    // named by SetPeers under this policy
	Tries   int     // initiations of the attempt under way; 0: none is
	Failure Refusal // what the last try came to, while there is no session; 0: no answer
	// Sessions starts with the newest. The first established one sends.
	Sessions []SessionStats
}

// SessionStats are one session's.
type SessionStats struct {
	Suite       Suite
	Epoch       uint64
	Addr        netip.Addr
	Age         time.Duration
	Heard       time.Duration // since the peer last authenticated itself
	Established bool          // else it waits for the initiator's first datagram
	Initiator   bool          // this node began it
	Sent        uint64
	Received    uint64 // datagrams that opened and were fresh
	Failed      uint64 // datagrams that did not open
}

// Stats returns the state of now.
func (e *Engine) Stats() Stats {
	now := e.clock()
	st := Stats{Refused: make(map[Refusal]uint64), Queued: len(e.queue)}
	for r := range e.refused {
		if n := e.refused[r].Load(); n > 0 {
			st.Refused[Refusal(r)] = n
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	st.HalfOpen = e.halfOpen
	st.Loaded = e.gate.loaded(e.gate.at(now))
	for _, m := range e.members {
		for _, p := range m.peers {
			if p != nil {
				st.Peers = append(st.Peers, p.stats(now))
			}
		}
	}
	slices.SortFunc(st.Peers, func(a, b PeerStats) int {
		if d := strings.Compare(a.Node, b.Node); d != 0 {
			return d
		}
		return int(a.Policy) - int(b.Policy)
	})
	return st
}

func (p *Peer) stats(now time.Time) PeerStats {
	st := PeerStats{Node: p.node, Policy: p.policy, Wanted: p.named(), Failure: p.failure}
	if p.try != nil {
		st.Tries = p.try.tries
	}
	for _, s := range p.sessions {
		st.Sessions = append(st.Sessions, s.stats(now))
	}
	return st
}

func (s *Session) stats(now time.Time) SessionStats {
	s.mu.Lock()
	received := s.received
	s.mu.Unlock()
	return SessionStats{
		Suite: s.suite, Epoch: s.epoch, Addr: s.Addr(), Age: now.Sub(s.created), Heard: now.Sub(s.lastHeard()),
		Established: !s.pending.Load(), Initiator: s.initiator,
		Sent: min(s.next.Load(), s.limits.refuse), Received: received, Failed: s.failed.Load(),
	}
}

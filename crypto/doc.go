// Package crypto seals what encrypted networks send between nodes: handshakes
// that prove membership of the swarm, sessions with keys of their own for each
// pair of nodes and each direction, sealing and opening of datagrams, protection
// against replay, and rekeying. PROTOCOL.md at the root of the repository has
// the wire format and what it promises; testdata has test vectors.
//
// # Parts
//
// An [Engine] holds the handshakes of one node. One goroutine, [Engine.Run],
// owns their state; messages reach it by a gate that bounds what they may cost and
// a queue ([Engine.HandleHandshake]), and leave by [Config].Send. For each pair of peer
// and [Policy] there is one [Peer], a handle that stays the same over restarts
// of the peer and changes of keys. A [Session] is one pair of keys.
//
// # A packet's way
//
// To send: [Peer.Sending] gives the session, [Session.Reserve] takes counters for
// all datagrams of a super-packet with one atomic addition, [Session.Seal] seals
// each in place. To receive: [ParseType], [Index] and [Engine.Receiving]
// give the session, [Session.Open] opens each datagram in place, [Session.Accept]
// enters a batch of counters in the replay window under its one lock, and
// [Session.Opened] says once a batch where the peer was heard from. Nothing on
// this way allocates, and but for the window nothing takes a lock.
//
// # State machine
//
// For each [Peer]:
//
//	            SetPeers names it, or Want
//	+------+ -------- send initiation ------> +-----------+
//	| idle |                                  | initiated | again after 1 s, 2 s,
//	+------+ <------- no longer wanted ------ +-----------+ 4 s, 5 s …: other epochs
//	   |                                        |       |    and keys in turn
//	   | initiation                    response |       | initiation from a lower
//	   | send response           send keepalive |       | static key: send response
//	   v                                        v       v
//	+---------+   first datagram opened     +-------------+
//	| pending | --------------------------> | established |
//	+---------+                             +-------------+
//	   | 20 s                                 | 120 s (initiator), 165 s (responder),
//	   v                                      | the suite's rekey limit, 15 s of silence
//	 closed                                   | (3 s on an initiator's new session):
//	                                          | initiation; 180 s: closed
//
// The states are of the newest session; up to three older ones go on receiving
// until they are 180 s old, so that a change of keys loses nothing. Only an
// established session sends. A responder's session stays pending, and silent,
// until the initiator has proven with a first datagram that it has the keys:
// a replayed initiation gets no further, and what it says of keys does not count.
package crypto

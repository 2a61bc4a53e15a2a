// Package discovery finds out who is where. It embeds Docker's NetworkDB, the
// gossip that libnetwork runs, announces the endpoints of this node in it and
// turns what the other nodes announce into the snapshots of package directory.
//
// # Records
//
// An endpoint is gossiped as two records under its ID, in libnetwork's wire
// format (package records), so that Docker nodes in the same swarm understand
// them: overlay_peer_table says where it is (inner address, MAC, VTEP),
// endpoint_table what it is called and which service it serves. The first alone
// makes an endpoint reachable; the lb-<network> endpoints of Docker nodes have
// no second one. Records are outside input: they are checked, and bad ones are
// dropped and counted.
//
// A third table, of ovnd's own, says what each node has applied: the endpoints of
// others that it knows to be draining and no longer chooses. [Discovery.Drain]
// waits for that; Docker's nodes pass the table on and have nothing to say in it.
//
// # Encrypted networks
//
// NetworkDB takes any member's word for any entry, so on an encrypted network an
// endpoint is what its owner has signed for. Each node has an entry in a table of
// identities: its keys, stated with its swarm key. Certificates do not fit into
// gossip, so that is hearsay until a handshake has proved it; the key that signs
// for endpoints is the proven one if there is one, else that of the entry which
// came first. The peer record of an endpoint is signed with it and numbered.
//
// The first valid claim of an endpoint's ID, and of an address, stands while its
// owner lives (it is on the network in gossip, or in session with this node) and
// has not released it. What others write over it, delete or repeat changes
// nothing, and the owner says it again. Only an owner that has not proved itself
// within 15 s gives way, to one that has. Of claims that a newcomer hears of at
// once it takes that of the owner that has proved itself, and else goes by the
// order below.
//
// An owner that withdraws an endpoint signs that it has released it, then deletes
// the entry. NetworkDB keeps the value of a deleted entry for half an hour and
// passes it on; who has a claim without an entry looks there for the release.
//
// What members can still do: keep each other's records from spreading, name their
// own endpoints as they like, and win an address with a node that knows nothing
// yet and does not hear of the owner.
//
// Managers tell which nodes were removed in one more table, on the ingress
// network. Each node verifies that, keeps it on disk and does not forget it.
//
// # When records contradict each other
//
// NetworkDB keeps the records of live owners only: those of a node that left or
// failed are withdrawn. Should two endpoints still claim one inner address, all
// nodes settle on the same one without talking about it: an endpoint of this
// node before any other, then one that gossip confirms before one remembered
// from the last run, then one whose VTEP is a live member of the network, then
// one that is not draining, and last the smaller endpoint ID.
//
// # When everything else is away
//
// The gossip keys and what was known of the other nodes are kept in the state
// folder. A worker that restarts while no manager answers starts gossip with
// those keys, joins the nodes that it knew and forwards by what it remembers.
// A remembered record is replaced as soon as gossip speaks of it, and dropped
// when gossip has been joined for a while without confirming it.
//
// # Names and goodbyes
//
// In gossip a node has a new name with each start. A run that ends says goodbye,
// and the others drop its endpoints within a second; one that is killed is
// missed after some five. Until then its name stands for a node at the same
// address as the next run, which NetworkDB takes for the successor of whichever
// of the two it heard of first. So a run that finds its predecessor was killed
// says goodbye for it before it starts, and should it be cast out all the same,
// it starts gossip again under yet another name.
//
// What NetworkDB says once it says for less than a second, and to those alone
// that it knows to be there; the rest is left to a bulk sync within a minute. On
// a busy machine the news of a node takes longer than that. So a node that has
// joined exchanges with each of the others once more, after one second and after
// four, and whoever sees a node turn up on a network repeats its entries then.
//
// # Goroutines
//
// Run's own goroutine is the only one that changes NetworkDB and the only one
// that takes in its events; a second keeps looking for managers, and one for
// each network being joined waits for NetworkDB. The methods of Discovery change
// what this node wants, publish the snapshot that follows, and leave word for
// Run.
package discovery

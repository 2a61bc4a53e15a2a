// Package directory is the one picture of an overlay network that every part
// of a node reads: who has which inner address, behind which VTEP, under which
// name.
//
// Package discovery publishes, for each network this node has joined, one
// immutable [Snapshot] per change. Forwarding table, ARP and ND answers, load
// balancer, DNS and inspect all load the same snapshot from the [Store] and
// keep no list of their own, so no two of them can disagree.
//
// The options of a network are read in one place as well: [ParseOptions] is
// used where a network is created, to refuse what cannot work, and where one
// arrives, to build its snapshot.
package directory

// Package cluster is the desired state of an ovnd node: Docker's own control
// plane, SwarmKit, embedded.
//
// A [Cluster] runs one SwarmKit node (raft, CA, join tokens, address
// allocation, key rotation when it is a manager; an agent always) and answers
// for it in Docker's words: it is the backend of moby's swarm routes, creates,
// changes and removes services and networks, and attaches this node's sandboxes
// to networks.
//
//	 Hooks, TrustHooks, TaskRunner (implemented by package node)
//	          ^ keys, load-balancer addresses, attachments; tasks
//	          |
//	executor ---- agent ----- dispatcher of a manager, TCP 2377
//	          \
//	           Cluster --- control API of the local manager, unix socket
//
// What a swarm decides reaches the node only through [Hooks], [TrustHooks] and
// [TaskRunner]; what the node wants goes through [Cluster.AttachNetwork] and
// [Cluster.DetachNetwork]. The package knows nothing of packets, gossip or
// processes.
//
// # A task's way
//
// A service is checked (servicespec.go, taskcheck.go, ports.go) and goes to the
// manager, which makes tasks of it and gives each to a node. There the executor
// makes a [Task] of it (taskspec.go) and a controller (controller.go), by which
// the agent drives it through the TaskRunner. What it writes goes back through a
// manager's log broker (logs.go).
//
// SwarmKit and libnetwork keep process-wide state (the VXLAN port, logrus,
// grpclog, the Prometheus registry), so a process runs one Cluster.
//
// # Goroutines
//
// [Cluster.Run] owns all of them: one supervises the SwarmKit node and starts
// it again with growing delays after a failure, one gives back addresses whose
// release no manager has confirmed. SwarmKit runs its own below those and ends
// them when its node stops.
package cluster

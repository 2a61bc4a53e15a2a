// Package api serves the Docker Engine API of a node on a unix socket, so that
// the docker CLI and moby's Go client drive ovnd as they drive dockerd.
//
// What a node has is answered as Docker answers it: networks, nodes, the
// swarm, services, tasks, secrets, configs, events, /info, /version, /_ping,
// with and without a version prefix such as /v1.50. Tasks and the processes of
// `ovnd run` are its containers: /containers and /exec list and inspect them,
// read their logs, run commands in them, stop, kill and wait for them. What a
// node does not have (images, volumes, creating containers, plugins, builds) is
// refused with status 501 and a message that says so. Errors are Docker's:
// {"message": "…"}.
//
// ovnd's own calls lie under /ovnd/; their bodies are in api/types and a client
// for them is in api/client:
//
//	POST /ovnd/attach                  addresses for a process about to start
//	POST /ovnd/release                 give them back, it does not start
//	GET  /ovnd/status                  the node, its ports, peers and drops
//	GET  /ovnd/networks/{id}/verbose   a network's endpoints on all nodes
//	POST /ovnd/down                    stop the node
//
// Moby's HTTP server and swarm router do the work where they can be imported;
// the rest is here, over the interfaces of backend.go. Whoever can connect to
// the socket can do all that the node can: it has mode 0600 in a 0700
// directory, and callers must be of the node's own uid or root.
package api

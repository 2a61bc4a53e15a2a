package cluster

import (
	"errors"
	"fmt"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/v2/errdefs"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Docker's words, so that users and scripts recognise the situation. Their
// class (errdefs) decides the HTTP status, as in dockerd.
var (
	errNoSwarm         = unavailable(`This node is not part of a swarm`)
	errSwarmExists     = unavailable(`This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.`)
	errJoinTimeout     = unavailable(`Timeout was reached before node joined. The attempt to join the swarm will continue in the background. Use the "docker info" command to see the current swarm status of your node.`)
	errSwarmLocked     = unavailable(`Swarm is encrypted and needs to be unlocked before it can be used. Please use "docker swarm unlock" to unlock it.`)
	errCertExpired     = unavailable(`Swarm certificates have expired. To replace them, leave the swarm and join again.`)
	errNotInSwarm      = unavailable(`This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.`)
	errManagerNotReady = unavailable(`This node is not a swarm manager. Manager is being prepared or has trouble connecting to the cluster.`)
	errWorker          = unavailable(`This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node or promote the current node to a manager.`)
	errNotLocked       = errdefs.Conflict(errors.New("swarm is not locked"))

	errNoAutolock = errdefs.NotImplemented(errors.New("autolock is not supported by this version of ovnd: a locked manager could not come back by itself. Leave autolock off and protect the state folder instead"))
	errNoServices = errdefs.NotImplemented(errors.New("services are not supported by this version of ovnd: use `ovnd run` to start a process on a network"))
)

func unavailable(text string) error { return errdefs.Unavailable(errors.New(text)) }

func invalid(format string, a ...any) error {
	return errdefs.InvalidParameter(fmt.Errorf(format, a...))
}

func notFound(kind, input string) error {
	return errdefs.NotFound(fmt.Errorf("%s %s not found", kind, input))
}

// isNotFound recognises both the errdefs class and SwarmKit's gRPC status.
func isNotFound(err error) bool {
	return cerrdefs.IsNotFound(err) || status.Code(err) == codes.NotFound
}

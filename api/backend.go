package api

import (
	"context"
	"syscall"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"
	swarmrouter "github.com/moby/moby/v2/daemon/server/router/swarm"

	"github.com/ovnd/ovnd/api/types"
	"github.com/ovnd/ovnd/discovery/directory"
)

// Backends' errors pick the HTTP status as Docker's do, by class of
// containerd/errdefs or gRPC code: not found 404, invalid argument and failed
// precondition 400, conflict and already exists 409, permission denied 403,
// unavailable 503, not implemented 501. All else is 500, and logged. Their text
// reaches the user behind "Error response from daemon: ".
// All methods may be called from many goroutines at once.

// NetworkBackend has the networks. Names, ID prefixes and filters are resolved
// by this package: methods get whole IDs and lists are not filtered.
type NetworkBackend interface {
	// CreateNetwork checks and creates a network and returns its ID, with a
	// warning for the user if something was done differently than asked.
	// The name is not empty and was free a moment ago.
	CreateNetwork(ctx context.Context, req network.CreateRequest) (id, warning string, err error)
	// GetNetworks returns every network known to this node: all of the swarm
	// on a manager, those with an endpoint here on a worker. Their Peers are
	// not looked at. The caller owns the slice, not the maps in it.
	GetNetworks(ctx context.Context) ([]network.Network, error)
	// RemoveNetwork removes a network. One in use is an error with the words
	// "is in use".
	RemoveNetwork(ctx context.Context, id string) error
	// Snapshot returns the directory's present picture of a network, nil if
	// this node has no endpoint on it, and the NodeID that this node's own
	// endpoints carry there. This package does not change it.
	Snapshot(id string) (snap *directory.Snapshot, self string)
	// Sealing returns which nodes on an encrypted network this node has sessions
	// with, and why not with the others; nil if the network is not encrypted or
	// this node has no endpoint on it.
	Sealing(id string) *types.NetworkSealing
}

// SwarmBackend has the swarm: moby's own backend for /swarm, /nodes,
// /services, /tasks, /secrets and /configs, and this node's place in it.
type SwarmBackend interface {
	swarmrouter.Backend
	// Info is the Swarm part of /info. On a manager, where ControlAvailable
	// is set, Cluster must be too: the docker CLI reads it unchecked.
	Info(ctx context.Context) swarm.Info
	// Status is the Swarm header of /_ping: the local node's state, followed
	// by "/manager" or "/worker" where it is in a swarm.
	Status() string
}

// ContainerBackend has what runs on this node in sandboxes: the tasks of
// services and the processes of `ovnd run`, which are Docker's containers.
// Names and ID prefixes are resolved by this package: methods get whole IDs.
// One that is not there (any more) is of class not found.
type ContainerBackend interface {
	// Containers returns all that this node remembers, in any order, those
	// not started yet and those that have ended included. It must be cheap:
	// every call of the API that names a container looks it up here.
	Containers() []Container
	// ContainerLogs calls each with what the container wrote, oldest first,
	// until the end, with opts.Follow until the container has ended, or until
	// ctx ends, which is no error. The line is lent. An error of each ends it.
	ContainerLogs(ctx context.Context, id string, opts LogOptions, each func(LogLine) error) error
	// ContainerExec starts a command beside the container's own. Commands
	// live on when ctx ends. The exit code of one that cannot be started is
	// 126, or what the error's method ExitCode() int says.
	ContainerExec(ctx context.Context, id string, e ExecConfig) (ExecProcess, error)
	// ContainerStop sends the stop signal, SIGKILL after the grace period,
	// and returns when the container has ended, or with ctx. What has begun
	// goes on then.
	ContainerStop(ctx context.Context, id string, opts StopOptions) error
	// ContainerKill sends a signal to the container's command. After SIGKILL
	// it returns when the container has ended.
	ContainerKill(ctx context.Context, id string, sig syscall.Signal) error
	// ContainerWait returns a wait for a condition from the present moment
	// on: it blocks until that holds or ctx ends. The end of a container that
	// is no more is found too, if it came after ContainerWait.
	ContainerWait(id string, condition container.WaitCondition) (wait func(ctx context.Context) (ExitStatus, error), err error)
	// ContainerProcesses returns the PIDs of all processes in the container,
	// in the node's PID namespace.
	ContainerProcesses(id string) ([]int, error)
}

// SystemBackend says what /version and /info show of the node.
type SystemBackend interface {
	// System must be cheap: the docker CLI asks with most commands.
	System() System
}

// System describes a node to Docker's clients.
type System struct {
	// ID of the installation: the same for all runs over one state folder.
	ID       string
	Hostname string
	StateDir string
	// Version of ovnd, without a leading v; Commit and BuildTime may be empty.
	Version, Commit, BuildTime string
	// Running counts the sandboxes that run now. It is not looked at where
	// there is a ContainerBackend.
	Running int
	// Warnings are shown by `docker info`, one a line.
	Warnings []string
}

// OvndBackend answers what Docker has no words for.
type OvndBackend interface {
	// Attach allocates addresses for a sandbox that is about to start. The
	// request was checked by [CheckAttach]. When ctx ends, the caller has
	// gone, and whatever was allocated must go back.
	Attach(ctx context.Context, req types.AttachRequest) (types.AttachResponse, error)
	// Release gives back what Attach allocated to a sandbox that does not
	// start. The sandbox may be unknown, or the token wrong: not found.
	Release(req types.ReleaseRequest) error
	// Status describes the node.
	Status(ctx context.Context) (types.Status, error)
	// Down makes the node stop, and returns at once. It is called after the
	// answer was sent; calls after the first do nothing.
	Down()
}

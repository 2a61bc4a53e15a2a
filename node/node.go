// Package node is one running ovnd node: it builds the parts below it,
// connects them and runs them until its context ends.
//
// The parts start in this order, and stop in the opposite one: the swarm's
// control plane (cluster); for as long as the node is in a swarm its data path,
// gossip and networks (member); the sandboxes' socket; the API.
package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/ovnd/ovnd/api"
	"github.com/ovnd/ovnd/cluster"
	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/discovery/resolver"
	"github.com/ovnd/ovnd/sandbox"
)

const (
	apiPatience     = 5 * time.Second
	clusterPatience = 20 * time.Second

	sandboxStage = "sandboxes"
)

// A Node is one member of a swarm, or a node that waits to become one.
type Node struct {
	cfg      Config
	log      *slog.Logger
	paths    Paths
	stateDir string // of this run: below paths.StateDir for an ephemeral node
	started  time.Time
	// installation is the same for all runs over one state folder.
	installation string

	store     *directory.Store
	cluster   *cluster.Cluster
	sandboxes *sandboxes
	sandboxd  *sandbox.Server

	names      *resolver.Server
	resolvConf *resolver.HostConf
	events     *api.EventLog
	swarm      *swarmHooks

	stopOnce sync.Once
	stopping chan struct{} // closed by Down

	mu     sync.Mutex
	member *member // nil: in no swarm
}

// New prepares a node; nothing runs and nothing is bound before Run.
func New(cfg Config) (*Node, error) {
	paths, err := ResolvePaths(cfg.StateDir)
	if err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	n := &Node{
		cfg: cfg, log: cfg.Log, paths: paths, stateDir: paths.StateDir,
		store: directory.NewStore(), events: api.NewEventLog(),
		stopping: make(chan struct{}), swarm: newSwarmHooks(),
	}
	if cfg.Ephemeral {
		n.stateDir = filepath.Join(paths.StateDir, "ephemeral")
	}
	return n, nil
}

// Down makes Run end, as the end of its context does.
func (n *Node) Down() { n.stopOnce.Do(func() { close(n.stopping) }) }

// Run runs the node until ctx ends, [Node.Down] is called or something that it
// cannot live without fails. It calls ready once, when the node is a member of
// its swarm and answers on its socket. Run may be called once.
func (n *Node) Run(ctx context.Context, ready func()) error {
	n.started = time.Now()
	folders, err := openFolders(n.paths)
	if err != nil {
		return err
	}
	defer folders.close()
	if n.cfg.Ephemeral {
		// What a killed ephemeral node left behind is of no use.
		if err := os.RemoveAll(n.stateDir); err != nil {
			return err
		}
		defer os.RemoveAll(n.stateDir) //nolint:errcheck // removed at the next start otherwise
	}
	if n.installation, err = installationID(filepath.Join(n.paths.StateDir, "id")); err != nil {
		return err
	}
	if err := n.settleIdentity(); err != nil {
		return err
	}
	if err := n.build(); err != nil {
		return err
	}
	return n.runParts(ctx, ready)
}

// build makes the parts that live as long as the process.
func (n *Node) build() error {
	version, _, _ := Build()
	if err := n.buildSandboxes(); err != nil {
		return err
	}
	var err error
	n.cluster, err = cluster.New(cluster.Config{
		StateDir: clusterDir(n.stateDir), ControlSocket: n.paths.SwarmSocket,
		Hostname: n.cfg.Hostname, EngineVersion: version, Labels: n.engineLabels(),
		ListenAddr: n.cfg.ListenAddr, AdvertiseAddr: n.cfg.AdvertiseAddr,
		DataPathAddr: n.cfg.DataPathAddr, DataPathPort: n.cfg.DataPathPort,
		JoinAddr: n.cfg.JoinAddr, JoinToken: n.cfg.JoinToken, Availability: n.cfg.Availability,
		DefaultAddrPool: n.cfg.DefaultAddrPool, SubnetSize: n.cfg.SubnetSize,
		Tasks: tasks{n.sandboxes}, CheckPorts: n.checkPorts,
		Hooks: n.swarm, Trust: n.swarm, Log: n.log,
	})
	if err != nil {
		return err
	}
	n.sandboxes.swarm = n.cluster
	n.sandboxd, err = sandbox.NewServer(n.paths.SandboxSocket, n.sandboxes, n.log)
	return err
}

// buildSandboxes prepares what tasks and `ovnd run` live in.
func (n *Node) buildSandboxes() error {
	dir := filepath.Join(n.stateDir, "sandboxes")
	if err := os.MkdirAll(filepath.Join(dir, "logs"), 0o700); err != nil {
		return fmt.Errorf("state folder: %w", err)
	}
	n.resolvConf = resolver.NewHostConf("/etc/resolv.conf", n.log)
	n.resolvConf.Original = sandbox.OriginalResolv
	n.names = resolver.New(resolver.Config{Store: n.store, Upstreams: n.resolvConf.Upstreams, Log: n.log})
	n.sandboxes = &sandboxes{
		log: n.log, events: n.events, socket: n.paths.SandboxSocket, hostname: n.cfg.Hostname,
		files: recordFiles{dir: dir}, logDir: filepath.Join(dir, "logs"), resolver: n.names, hostConf: n.resolvConf,
		byID: make(map[string]*sandboxState),
	}
	return n.outfit()
}

// runParts starts the parts in order, waits, and stops them in the opposite
// order.
func (n *Node) runParts(ctx context.Context, ready func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	fresh := !cluster.HasState(clusterDir(n.stateDir))
	swarm := startStage(ctx, "swarm", n.cluster.Run)
	membership := startStage(ctx, "membership", n.runMembership)

	started := n.waitStarted(ctx, swarm, membership)
	var sockets []*stage
	var err error
	if started {
		sockets, err = n.openSockets(ctx)
	}
	if started && err == nil {
		ready()
		if err := releaseInitPages(); err != nil {
			n.log.Debug("memory of the start is not released", "error", err)
		}
		n.log.Info("node is ready", "node", n.cluster.NodeID(), "after", time.Since(n.started).Round(time.Millisecond), "api", n.paths.APISocket)
		n.wait(ctx, append(sockets, swarm, membership))
	} else if fresh && ctx.Err() == nil {
		n.undoJoin(swarm)
	}
	return errors.Join(err, n.stop(sockets, swarm, membership))
}

// waitStarted waits until the node is in its swarm with data path and gossip.
// It reports false if a part ended, whose error stop returns, or if the node is
// to stop before.
func (n *Node) waitStarted(ctx context.Context, swarm, membership *stage) bool {
	select {
	case <-n.swarm.joined:
		return true
	case <-swarm.done:
	case <-membership.done:
	case <-n.stopping:
	case <-ctx.Done():
	}
	return false
}

// wait returns when the node is asked to stop or a part ends.
func (n *Node) wait(ctx context.Context, parts []*stage) {
	ended := make(chan struct{}, len(parts))
	for _, p := range parts {
		go func() {
			<-p.done
			ended <- struct{}{}
		}()
	}
	select {
	case <-ctx.Done():
	case <-n.stopping:
	case <-ended:
	}
}

// undoJoin leaves a swarm that the node joined but cannot serve, so that the
// next try starts afresh.
func (n *Node) undoJoin(swarm *stage) {
	select {
	case <-swarm.done:
		return // never joined
	default:
	}
	ctx, cancel := context.WithTimeout(context.Background(), clusterPatience)
	defer cancel()
	if err := n.cluster.Leave(ctx, true); err != nil {
		n.log.Warn("the swarm still lists this node: remove it there with \"ovnd node rm\"", "error", err)
	}
}

// stop ends the parts, those that depend on others first, and returns their
// errors.
func (n *Node) stop(sockets []*stage, swarm, membership *stage) error {
	n.log.Info("node is stopping")
	n.endTasks()
	errs := make([]error, 0, len(sockets)+2)
	for _, s := range sockets {
		if s.name == sandboxStage {
			n.sandboxd.Goodbye()
		}
		errs = append(errs, s.stop(apiPatience))
	}
	errs = append(errs, membership.stop(sandboxPatience+discoveryPatience+dataplanePatience))
	if n.cfg.Ephemeral {
		n.undoJoin(swarm)
	}
	errs = append(errs, swarm.stop(clusterPatience))
	return errors.Join(errs...)
}

// endTasks ends what services run here, in good order: while the other nodes can
// be told.
func (n *Node) endTasks() {
	ctx, cancel := context.WithTimeout(context.Background(), clusterPatience)
	defer cancel()
	n.cluster.EndTasks(ctx)
}

// openSockets starts what clients and sandboxes connect to, in the order in
// which they are to stop.
func (n *Node) openSockets(ctx context.Context) ([]*stage, error) {
	sockets := []*stage{startStage(ctx, sandboxStage, n.sandboxd.Run)}
	if n.cfg.DNSAddr.IsValid() {
		names, err := n.openNames(ctx)
		if err != nil {
			return sockets, err
		}
		sockets = append([]*stage{names}, sockets...)
	}
	apiStage, err := n.openAPI(ctx)
	if err != nil {
		return sockets, err
	}
	return append([]*stage{apiStage}, sockets...), nil
}

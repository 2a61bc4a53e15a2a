package node

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/moby/moby/api/types/network"

	"github.com/ovnd/ovnd/api"
	"github.com/ovnd/ovnd/api/types"
	"github.com/ovnd/ovnd/cluster"
	"github.com/ovnd/ovnd/discovery/directory"
)

// openAPI serves Docker's API and ovnd's own calls on the node's socket.
func (n *Node) openAPI(ctx context.Context) (*stage, error) {
	srv, err := api.New(api.Config{
		Networks: networkBackend{n.cluster, n}, Swarm: n.cluster,
		Containers: containers{n.sandboxes},
		System:     n, Ovnd: n, Proxies: n.sandboxes.proxies, Events: n.events, Log: n.log,
	})
	if err != nil {
		return nil, err
	}
	ln, err := api.Listen(n.paths.APISocket)
	if err != nil {
		return nil, err
	}
	own, err := n.openProxy()
	if err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return startStage(ctx, "api", func(ctx context.Context) error {
		go n.followEvents(ctx)
		var serving sync.WaitGroup
		defer serving.Wait()
		serving.Go(func() { own(ctx) })
		return srv.Run(ctx, ln)
	}), nil
}

// openProxy opens the proxy of `up --proxy`, if it was asked for. What it
// returns serves it until ctx ends.
func (n *Node) openProxy() (serve func(ctx context.Context), err error) {
	if n.cfg.ProxyAddr == "" {
		return func(context.Context) {}, nil
	}
	p := n.sandboxes.proxies
	hosts := p.shared(n.cfg.ProxyNetworks)
	s, err := p.serveProxy(hosts, n.cfg.ProxyAddr, false)
	if err != nil {
		return nil, fmt.Errorf("--proxy: %w", err)
	}
	return func(ctx context.Context) { p.serveOwn(ctx, s, hosts) }, nil
}

// followEvents passes the swarm's events on to those who listen.
func (n *Node) followEvents(ctx context.Context) {
	for m := range n.cluster.WatchEvents(ctx) {
		n.events.Publish(m)
	}
}

// networkBackend is the swarm's networks and this node's picture of them.
type networkBackend struct {
	*cluster.Cluster
	node *Node
}

// GetNetworks implements api.NetworkBackend.
func (b networkBackend) GetNetworks(ctx context.Context) ([]network.Network, error) {
	list, err := b.Cluster.GetNetworks(ctx)
	out := make([]network.Network, len(list))
	for i := range list {
		out[i] = list[i].Network
	}
	return out, err
}

// Snapshot implements api.NetworkBackend.
func (b networkBackend) Snapshot(id string) (*directory.Snapshot, string) {
	m := b.node.current()
	if m == nil {
		return nil, ""
	}
	return b.node.store.Load(id), m.disc.Name()
}

// Attach implements api.OvndBackend.
func (n *Node) Attach(ctx context.Context, req types.AttachRequest) (types.AttachResponse, error) {
	spec, err := n.sandboxes.create(ctx, req)
	if err != nil {
		return types.AttachResponse{}, err
	}
	return types.AttachResponse{Spec: spec}, nil
}

// Release implements api.OvndBackend.
func (n *Node) Release(req types.ReleaseRequest) error {
	return n.sandboxes.release(req.ID, req.Token)
}

// System implements api.SystemBackend.
func (n *Node) System() api.System {
	version, commit, buildTime := Build()
	return api.System{
		ID: n.installation, Hostname: n.cfg.Hostname, StateDir: n.paths.StateDir,
		Version: version, Commit: commit, BuildTime: buildTime,
		Running: n.sandboxes.running(),
	}
}

var (
	_ api.OvndBackend    = (*Node)(nil)
	_ api.SystemBackend  = (*Node)(nil)
	_ api.NetworkBackend = networkBackend{}
)

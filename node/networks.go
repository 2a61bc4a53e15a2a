package node

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"

	"github.com/ovnd/ovnd/cluster"
	"github.com/ovnd/ovnd/dataplane"
	"github.com/ovnd/ovnd/discovery"
	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/encap"
)

// networks holds the networks that this node takes part in: those on which a
// sandbox of the node has, or is about to have, an endpoint. It joins a network
// for the first and leaves it with the last.
type networks struct {
	log   *slog.Logger
	store *directory.Store
	disc  *discovery.Discovery
	sw    *dataplane.Switch
	vtep  netip.Addr

	mu     sync.Mutex
	joined map[string]*joinedNetwork
	lbs    map[string]netip.Prefix // this node's own address by network
}

type joinedNetwork struct {
	refs int
	lb   *directory.Endpoint // published for this node; nil: none yet
}

func newNetworks(log *slog.Logger, store *directory.Store, disc *discovery.Discovery, sw *dataplane.Switch, vtep netip.Addr) *networks {
	return &networks{
		log: log, store: store, disc: disc, sw: sw, vtep: vtep,
		joined: make(map[string]*joinedNetwork), lbs: make(map[string]netip.Prefix),
	}
}

// acquire joins the network, if this is its first use here, and returns its
// snapshot. Each call needs one release.
func (n *networks) acquire(net cluster.Network) (*directory.Snapshot, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	j := n.joined[net.ID]
	if j == nil {
		if err := n.disc.JoinNetwork(networkConfig(net)); err != nil {
			return nil, fmt.Errorf("join network %s: %w", net.Name, err)
		}
		j = &joinedNetwork{}
		n.joined[net.ID] = j
		n.syncLocked(net.ID)
		n.publishLBLocked(net.ID, j)
	}
	j.refs++
	return n.store.Load(net.ID), nil
}

// release ends one use of a network and leaves it after the last.
func (n *networks) release(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	j := n.joined[id]
	if j == nil {
		return
	}
	if j.refs--; j.refs > 0 {
		return
	}
	delete(n.joined, id)
	n.disc.LeaveNetwork(id)
	n.syncLocked(id)
}

// setLoadBalancers takes the addresses that the swarm gave to this node itself.
func (n *networks) setLoadBalancers(list []cluster.LoadBalancer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.lbs)
	for _, lb := range list {
		n.lbs[lb.Network.ID] = lb.Addr
	}
	for id, j := range n.joined {
		n.publishLBLocked(id, j)
	}
}

// publishLBLocked brings the published lb-<network> endpoint in step with the
// address that the swarm gave.
func (n *networks) publishLBLocked(id string, j *joinedNetwork) {
	prefix, ok := n.lbs[id]
	if j.lb != nil && ok && j.lb.Addr == prefix.Addr() {
		return
	}
	if j.lb != nil {
		if err := n.disc.RemoveEndpoint(id, j.lb.ID); err != nil {
			n.log.Warn("load balancer endpoint not withdrawn", "network", id, "error", err)
		}
		j.lb = nil
	}
	if !ok {
		return
	}
	ep := directory.Endpoint{
		ID: randomID(), Addr: prefix.Addr(), MAC: encap.EndpointMAC(prefix.Addr()),
		VTEP: n.vtep, Kind: directory.LoadBalancer,
	}
	if snap := n.store.Load(id); snap != nil {
		ep.Name = "lb-" + snap.Name
	}
	if err := n.disc.AddEndpoint(id, ep); err != nil {
		n.log.Warn("load balancer endpoint not published", "network", id, "error", err)
		return
	}
	j.lb = &ep
}

// follow passes each change of the directory on to the data plane.
func (n *networks) follow(ctx context.Context) error {
	changes, cancel := n.store.Subscribe()
	defer cancel()
	for {
		select {
		case <-ctx.Done():
			return nil
		case id := <-changes:
			n.mu.Lock()
			n.syncLocked(id)
			n.mu.Unlock()
		}
	}
}

// syncLocked gives the data plane the present snapshot of a network. Under the
// lock, so that an older one never follows a newer one.
func (n *networks) syncLocked(id string) {
	if snap := n.store.Load(id); snap != nil && n.joined[id] != nil {
		n.sw.SetNetwork(snap)
	} else {
		n.sw.RemoveNetwork(id)
	}
}

func networkConfig(net cluster.Network) discovery.NetworkConfig {
	return discovery.NetworkConfig{
		ID: net.ID, Name: net.Name, VNI: net.VNI, Subnets: net.Subnets,
		Options: net.Options, Labels: net.Labels,
		Internal: net.Internal, Attachable: net.Attachable, Ingress: net.Ingress, Created: net.Created,
	}
}

// randomID is 64 hexadecimal digits, as Docker's IDs of containers and
// endpoints.
func randomID() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

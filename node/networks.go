package node

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync"

	"github.com/ovnd/ovnd/cluster"
	"github.com/ovnd/ovnd/dataplane"
	"github.com/ovnd/ovnd/discovery"
	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/encap"
	"github.com/ovnd/ovnd/netstack"
)

// networks holds the networks that this node takes part in: those on which a
// sandbox of the node has, or is about to have, an endpoint, and the ingress
// network, whose published ports every node serves. It joins a network for the
// first use and leaves it with the last.
type networks struct {
	log      *slog.Logger
	store    *directory.Store
	disc     *discovery.Discovery
	sw       *dataplane.Switch
	vtep     netip.Addr
	hostname string
	publish  []netip.Addr // of the host, where published ports are served
	file     string       // remembers lbs for a start without managers
	meet     func()       // the nodes on encrypted networks changed

	mu     sync.Mutex
	joined map[string]*joinedNetwork
	lbs    map[string]cluster.LoadBalancer // this node's own address by network
	closed bool
}

type joinedNetwork struct {
	refs     int
	lb       *directory.Endpoint // published for this node; nil: none yet
	balancer *balancer           // at lb
	// ingressUse is the reference that the node itself holds.
	ingressUse bool
}

func newNetworks(n *Node, disc *discovery.Discovery, sw *dataplane.Switch, vtep netip.Addr, meet func()) *networks {
	return &networks{
		log: n.log, store: n.store, disc: disc, sw: sw, vtep: vtep, hostname: n.cfg.Hostname, meet: meet,
		publish: n.publishAddrs(), file: filepath.Join(n.gossipDir(), "networks.json"),
		joined: make(map[string]*joinedNetwork), lbs: make(map[string]cluster.LoadBalancer),
	}
}

// acquire joins the network, if this is its first use here, and returns its
// snapshot. Each call needs one release.
func (n *networks) acquire(net cluster.Network) (*directory.Snapshot, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.acquireLocked(net)
}

func (n *networks) acquireLocked(net cluster.Network) (*directory.Snapshot, error) {
	if n.closed {
		return nil, errors.New("the node is leaving its swarm")
	}
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
	n.stopBalancerLocked(j)
	delete(n.joined, id)
	n.disc.LeaveNetwork(id)
	n.syncLocked(id)
}

// close stops the balancers; the networks themselves end with gossip.
func (n *networks) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	for _, j := range n.joined {
		n.stopBalancerLocked(j)
	}
}

// setLoadBalancers takes the addresses that the swarm gave to this node itself.
func (n *networks) setLoadBalancers(list []cluster.LoadBalancer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.lbs)
	for _, lb := range list {
		n.lbs[lb.Network.ID] = lb
		if lb.Network.Ingress {
			n.useIngressLocked(lb.Network)
		}
	}
	for id, j := range n.joined {
		n.publishLBLocked(id, j)
	}
	// Without the file the next start waits for a manager.
	if err := saveJSON(n.file, list); err != nil {
		n.log.Warn("addresses of this node's balancers not kept", "error", err)
	}
}

// restore does what the swarm said last, until it says more.
func (n *networks) restore() {
	var list []cluster.LoadBalancer
	if err := loadJSON(n.file, &list); err != nil {
		n.log.Warn("addresses of this node's balancers are lost until a manager answers", "error", err)
		return
	}
	if len(list) > 0 {
		n.setLoadBalancers(list)
	}
}

// useIngressLocked keeps this node on the ingress network.
func (n *networks) useIngressLocked(net cluster.Network) {
	if j := n.joined[net.ID]; j != nil && j.ingressUse {
		return
	}
	if _, err := n.acquireLocked(net); err != nil {
		n.log.Warn("published ports are not served by this node", "error", err)
		return
	}
	n.joined[net.ID].ingressUse = true
}

// publishLBLocked brings the published lb-<network> endpoint and its balancer
// in step with the address that the swarm gave.
func (n *networks) publishLBLocked(id string, j *joinedNetwork) {
	lb, ok := n.lbs[id]
	if j.lb != nil && ok && j.lb.Addr == lb.Addr.Addr() {
		return
	}
	if j.lb != nil {
		n.stopBalancerLocked(j)
		if err := n.disc.RemoveEndpoint(id, j.lb.ID); err != nil {
			n.log.Warn("load balancer endpoint not withdrawn", "network", id, "error", err)
		}
		j.lb = nil
	}
	snap := n.store.Load(id)
	if !ok || snap == nil || n.closed {
		return
	}
	ep := directory.Endpoint{
		ID: randomID(), Name: "lb-" + snap.Name, Addr: lb.Addr.Addr(), MAC: encap.EndpointMAC(lb.Addr.Addr()),
		VTEP: n.vtep, Kind: directory.LoadBalancer,
	}
	if err := n.disc.AddEndpoint(id, ep); err != nil {
		n.log.Warn("load balancer endpoint not published", "network", id, "error", err)
		return
	}
	j.lb = &ep
	n.startBalancerLocked(id, j, lb.Addr)
}

func (n *networks) startBalancerLocked(id string, j *joinedNetwork, addr netip.Prefix) {
	snap := n.store.Load(id)
	b, err := startBalancer(n.log, n.sw, snap, j.lb, addr)
	if err != nil {
		n.log.Error("the network has no balancer on this node", "network", snap.Name, "error", err)
		return
	}
	if snap.Ingress {
		b.publishPorts(n.log, n.publish, n.hostname, snap)
	}
	j.balancer = b
}

func (n *networks) stopBalancerLocked(j *joinedNetwork) {
	if j.balancer == nil {
		return
	}
	if err := j.balancer.stop(); err != nil {
		n.log.Warn("balancer not stopped properly", "error", err)
	}
	j.balancer = nil
}

// ingress returns what serves the published ports, nil before the swarm has
// given this node its place on the ingress network.
func (n *networks) ingress() *netstack.Ingress {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, j := range n.joined {
		if j.balancer != nil && j.balancer.ingress != nil {
			return j.balancer.ingress
		}
	}
	return nil
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

// syncLocked gives the data plane and the balancer the present snapshot of a
// network. Under the lock, so that an older one never follows a newer one.
func (n *networks) syncLocked(id string) {
	snap, j := n.store.Load(id), n.joined[id]
	if snap == nil || j == nil {
		n.sw.RemoveNetwork(id)
		n.meet()
		return
	}
	// The balancer first: what it resets leaves from VIPs that the switch knows.
	if j.balancer != nil {
		j.balancer.update(snap)
	}
	if snap.Encrypted {
		n.meet()
	}
	n.sw.SetNetwork(snap)
	n.disc.Applied(id, snap.Version)
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

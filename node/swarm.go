package node

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/ovnd/ovnd/cluster"
	"github.com/ovnd/ovnd/crypto"
	"github.com/ovnd/ovnd/discovery"
)

// swarmHooks is what the swarm decided, kept for the goroutine that runs the
// node's membership. It implements cluster.Hooks and cluster.TrustHooks without
// ever blocking.
type swarmHooks struct {
	joined  chan struct{} // closed when the first member runs
	changed chan struct{} // has an element when something below changed

	mu      sync.Mutex
	keys    []cluster.Key
	state   *cluster.NodeState // nil: not configured yet, or left
	left    bool               // since the last look
	orphans []string           // restored attachments' tasks to look after
	removed []string           // attachments' tasks that the swarm took away

	credentials *crypto.Credentials  // another pointer with each change
	nodes       map[string]time.Time // removed from the swarm
}

func newSwarmHooks() *swarmHooks {
	return &swarmHooks{joined: make(chan struct{}), changed: make(chan struct{}, 1)}
}

func (h *swarmHooks) update(f func()) {
	h.mu.Lock()
	f()
	h.mu.Unlock()
	select {
	case h.changed <- struct{}{}:
	default:
	}
}

// Keys implements cluster.Hooks.
func (h *swarmHooks) Keys(keys []cluster.Key) { h.update(func() { h.keys = keys }) }

// NodeConfigured implements cluster.Hooks.
func (h *swarmHooks) NodeConfigured(state cluster.NodeState) {
	h.update(func() { h.state = &state })
}

// AttachmentAssigned implements cluster.Hooks. New attachments come back from
// AttachNetwork; only those of a former life need looking after.
func (h *swarmHooks) AttachmentAssigned(a cluster.Attachment) {
	if a.Restored {
		h.update(func() { h.orphans = append(h.orphans, a.TaskID) })
	}
}

// AttachmentRemoved implements cluster.Hooks.
func (h *swarmHooks) AttachmentRemoved(taskID string) {
	h.update(func() { h.removed = append(h.removed, taskID) })
}

// Left implements cluster.Hooks.
func (h *swarmHooks) Left() {
	h.update(func() { h.left, h.state, h.keys, h.credentials, h.nodes = true, nil, nil, nil, nil })
}

// CredentialsChanged implements cluster.TrustHooks.
func (h *swarmHooks) CredentialsChanged(c crypto.Credentials) {
	h.update(func() { h.credentials = &c })
}

// NodesRemoved implements cluster.TrustHooks.
func (h *swarmHooks) NodesRemoved(nodes map[string]time.Time) {
	h.update(func() { h.nodes = nodes })
}

// news is what changed since the last look.
type news struct {
	keys             []cluster.Key
	state            *cluster.NodeState
	left             bool
	orphans, removed []string
	credentials      *crypto.Credentials
	nodes            map[string]time.Time
}

func (h *swarmHooks) take() news {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := news{
		keys: h.keys, state: h.state, left: h.left, orphans: h.orphans, removed: h.removed,
		credentials: h.credentials, nodes: h.nodes,
	}
	h.left, h.orphans, h.removed = false, nil, nil
	return n
}

// runMembership starts a member whenever the node is in a swarm and ends it
// when the node leaves. It alone does either.
func (n *Node) runMembership(ctx context.Context) error {
	ready := n.cluster.Ready()
	inSwarm := false
	for {
		var ended chan struct{}
		if m := n.current(); m != nil {
			ended = m.ended
		}
		select {
		case <-ctx.Done():
			return n.endMember()
		case <-ended:
			return n.endMember()
		case <-ready:
			ready, inSwarm = nil, true
		case <-n.swarm.changed:
		}
		what := n.swarm.take()
		if what.left {
			inSwarm = false
			if err := errors.Join(n.endMember(), os.RemoveAll(n.gossipDir())); err != nil {
				n.log.Warn("leaving the swarm", "error", err)
			}
		}
		inSwarm = inSwarm || what.state != nil
		if inSwarm && n.current() == nil {
			if err := n.beginMember(ctx); err != nil {
				return err
			}
		}
		if m := n.current(); m != nil {
			if err := n.applyNews(ctx, m, what); err != nil {
				return err
			}
		}
	}
}

func (n *Node) current() *member {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.member
}

func (n *Node) setMember(m *member) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.member = m
}

func (n *Node) beginMember(ctx context.Context) error {
	m, err := n.startMember(ctx)
	if err != nil {
		return err
	}
	n.setMember(m)
	n.sandboxes.join(m)
	select {
	case <-n.swarm.joined:
	default:
		close(n.swarm.joined)
	}
	return nil
}

// endMember ends what needs the swarm. The processes in sandboxes are told by
// their sockets.
func (n *Node) endMember() error {
	m := n.current()
	if m == nil {
		return nil
	}
	n.sandboxes.leave(n.sandboxd)
	n.setMember(nil)
	return m.stop()
}

// applyNews passes on what the swarm decided.
func (n *Node) applyNews(ctx context.Context, m *member, what news) error {
	if len(what.keys) > 0 {
		if err := m.disc.SetKeys(gossipKeys(what.keys)); err != nil {
			return err
		}
		m.sealing.setKeys(what.keys)
	}
	m.sealing.renewCredentials(what.credentials)
	m.sealing.setRemoved(what.nodes)
	m.disc.Join(n.cluster.Remotes())
	if what.state != nil {
		m.networks.setLoadBalancers(what.state.LoadBalancers)
	}
	for _, taskID := range what.orphans {
		n.adopt(ctx, taskID)
	}
	for _, taskID := range what.removed {
		n.sandboxes.lost(taskID, n.sandboxd)
	}
	return nil
}

// adopt gives an address of a former life back unless a sandbox claims it.
func (n *Node) adopt(ctx context.Context, taskID string) {
	time.AfterFunc(restoreContact, func() {
		if _, owned := n.sandboxes.owner(taskID); owned || ctx.Err() != nil {
			return
		}
		if err := n.sandboxes.giveBack(taskID); err != nil {
			n.log.Info("address not given back yet", "task", taskID, "error", err)
		}
	})
}

func gossipKeys(keys []cluster.Key) []discovery.Key {
	out := make([]discovery.Key, len(keys))
	for i, k := range keys {
		out[i] = discovery.Key{Subsystem: k.Subsystem, Tag: k.Tag, Key: k.Key}
	}
	return out
}

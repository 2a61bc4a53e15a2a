package cluster

import (
	"context"
	"log/slog"
	"time"

	swarmapi "github.com/moby/swarmkit/v2/api"
)

// LabelEphemeral is "true" on nodes that do not come back under their ID once
// they have ended.
const LabelEphemeral = "ovnd.ephemeral"

// The swarm takes a killed node for down after 11 s; with these it is gone, and
// its addresses free, within a minute.
var (
	// reapAfter is how long an ephemeral node is down before it is removed.
	reapAfter = 20 * time.Second
	// reapInterval is how often nodes are looked at.
	reapInterval = 5 * time.Second
)

// reap removes ephemeral workers that stay down, while this node leads the
// managers, until ctx ends: nobody else would, and their addresses would never
// be given to others. A manager is removed by hand, for that takes a majority
// of those that are left.
func (c *Cluster) reap(ctx context.Context) {
	down := make(downNodes)
	tick := time.NewTicker(reapInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !c.IsManager() {
			clear(down)
			continue
		}
		_, err := onManager(ctx, c, func(ctx context.Context, ctl swarmapi.ControlClient) (struct{}, error) {
			return struct{}{}, down.remove(ctx, c.log, ctl, c.NodeID())
		})
		if err != nil && ctx.Err() == nil {
			c.log.Debug("nodes that are down cannot be looked for", "error", err)
		}
	}
}

// downNodes are ephemeral workers that are down, and since when this node knows.
type downNodes map[string]time.Time

// remove removes those whose time has come.
func (d downNodes) remove(ctx context.Context, log *slog.Logger, ctl swarmapi.ControlClient, self string) error {
	resp, err := ctl.ListNodes(ctx, &swarmapi.ListNodesRequest{})
	if err != nil {
		return err
	}
	for _, n := range d.due(resp.Nodes, self, time.Now()) {
		_, err := ctl.RemoveNode(ctx, &swarmapi.RemoveNodeRequest{NodeID: n.ID, Force: true})
		if err != nil {
			log.Info("an ephemeral node that is down was not removed yet", "node", n.ID, "error", err)
			continue
		}
		delete(d, n.ID)
		log.Info("an ephemeral node that was down is removed: its addresses are free", "node", n.ID, "hostname", hostname(n))
	}
	return nil
}

// due notes who is down, and returns those who have been for reapAfter.
func (d downNodes) due(nodes []*swarmapi.Node, self string, now time.Time) []*swarmapi.Node {
	var due []*swarmapi.Node
	seen := make(map[string]bool, len(d))
	leading := false
	for _, n := range nodes {
		leading = leading || n.ID == self && n.ManagerStatus != nil && n.ManagerStatus.Leader
		if n.Status.State != swarmapi.NodeStatus_DOWN || n.ManagerStatus != nil || !ephemeral(n) {
			continue
		}
		seen[n.ID] = true
		since, known := d[n.ID]
		if !known {
			d[n.ID], since = now, now
		}
		if now.Sub(since) >= reapAfter {
			due = append(due, n)
		}
	}
	for id := range d {
		if !seen[id] {
			delete(d, id)
		}
	}
	if !leading { // the leader sees to it, from when it became that
		clear(d)
		return nil
	}
	return due
}

func ephemeral(n *swarmapi.Node) bool {
	return n.Description != nil && n.Description.Engine != nil && n.Description.Engine.Labels[LabelEphemeral] == "true"
}

func hostname(n *swarmapi.Node) string {
	if n.Description == nil {
		return ""
	}
	return n.Description.Hostname
}

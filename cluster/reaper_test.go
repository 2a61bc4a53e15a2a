package cluster

import (
	"os"
	"slices"
	"testing"
	"time"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"
	swarmapi "github.com/moby/swarmkit/v2/api"
)

// hastyEnv has a child not wait long before it removes ephemeral nodes.
const hastyEnv = "OVND_CLUSTER_HASTY"

func init() {
	if os.Getenv(hastyEnv) != "" {
		reapAfter, reapInterval = time.Second, 100*time.Millisecond
	}
}

func TestDownNodes(t *testing.T) {
	node := func(id string, state swarmapi.NodeStatus_State, label string, manager, leader bool) *swarmapi.Node {
		n := &swarmapi.Node{ID: id, Status: swarmapi.NodeStatus{State: state}, Description: &swarmapi.NodeDescription{
			Engine: &swarmapi.EngineDescription{Labels: map[string]string{LabelEphemeral: label}},
		}}
		if manager {
			n.ManagerStatus = &swarmapi.ManagerStatus{Leader: leader}
		}
		return n
	}
	const up, down = swarmapi.NodeStatus_READY, swarmapi.NodeStatus_DOWN
	leader := node("self", up, "", true, true)
	nodes := []*swarmapi.Node{
		leader, node("gone", down, "true", false, false), node("here", up, "true", false, false),
		node("lasting", down, "", false, false), node("manager", down, "true", true, false),
		{ID: "new", Status: swarmapi.NodeStatus{State: down}},
	}
	var now time.Time
	d := make(downNodes)
	due := func(after time.Duration, want ...string) {
		t.Helper()
		now = now.Add(after)
		var got []string
		for _, n := range d.due(nodes, "self", now) {
			got = append(got, n.ID)
		}
		if !slices.Equal(got, want) {
			t.Errorf("due: %q, want %q", got, want)
		}
	}
	due(0)
	due(reapAfter - 1)
	due(1, "gone")
	due(1, "gone") // removing it failed
	nodes[1].Status.State = up
	due(reapAfter)
	nodes[1].Status.State = down
	due(reapAfter) // the time begins again
	leader.ManagerStatus.Leader = false
	due(reapAfter)
	leader.ManagerStatus.Leader = true
	due(1) // and when this node leads again
	due(reapAfter, "gone")
}

// A killed ephemeral worker is removed, and its address is free; one that is
// not ephemeral stays.
func TestReapEphemeral(t *testing.T) {
	t.Setenv(hastyEnv, "1")
	m := startChild(t, testConfig(t, "127.0.0.2", testPort(t))).ready()
	m.must(request{Op: "create", Create: network.CreateRequest{Name: "net", Attachable: true}}, nil)
	lasting := m.join("127.0.0.4", swarm.NodeRoleWorker)
	lasting.Hostname = "lasting"
	l := startChild(t, lasting).ready()
	cfg := m.join("127.0.0.3", swarm.NodeRoleWorker)
	cfg.Hostname, cfg.Labels = "fleeting", map[string]string{LabelEphemeral: "true"}
	w := startChild(t, cfg).ready()
	w.must(request{Op: "attach", Container: "c1", Target: "net", Addrs: []string{"10.0.1.50"}}, nil)
	eventually(t, "the label is known", 30*time.Second, func() bool {
		var n swarm.Node
		return m.call(request{Op: "node", Target: "fleeting"}, &n) == "" && n.Description.Engine.Labels[LabelEphemeral] == "true"
	})
	w.kill()
	l.kill()
	eventually(t, "the address is free", time.Minute, func() bool {
		return m.call(request{Op: "attach", Container: "c2", Target: "net", Addrs: []string{"10.0.1.50"}}, nil) == ""
	})
	if err := m.call(request{Op: "node", Target: "fleeting"}, nil); err == "" {
		t.Error("the ephemeral node is still there")
	}
	if err := m.call(request{Op: "node", Target: "lasting"}, nil); err != "" {
		t.Error("a node that may come back was removed:", err)
	}
}

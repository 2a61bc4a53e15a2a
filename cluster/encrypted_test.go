package cluster

import (
	"context"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/swarmkit/v2/agent/exec"
	swarmapi "github.com/moby/swarmkit/v2/api"
	swarmnode "github.com/moby/swarmkit/v2/node"
)

// asDocker are the labels of a child that is a SwarmKit node without ovnd.
var asDocker = map[string]string{"test.docker": "true"}

// A dockerExecutor describes its node as Docker does: without our labels.
type dockerExecutor struct{ exec.Executor }

func (e dockerExecutor) Describe(ctx context.Context) (*swarmapi.NodeDescription, error) {
	d, err := e.Executor.Describe(ctx)
	if err == nil {
		maps.DeleteFunc(d.Engine.Labels, func(k, _ string) bool { return strings.HasPrefix(k, LabelOvnd) })
	}
	return d, err
}

// dockerMain runs such a node.
func dockerMain(ctx context.Context, cfg Config, write func(int, string, error, any)) int {
	err := func() error {
		c, err := New(cfg)
		if err != nil {
			return err
		}
		defer c.Close()
		sc, _, err := c.firstConfig()
		if err != nil {
			return err
		}
		conf, err := newRunner(c, sc).nodeConfig(sc)
		if err != nil {
			return err
		}
		conf.Executor = dockerExecutor{conf.Executor}
		node, err := swarmnode.New(conf)
		if err != nil {
			return err
		}
		if err := node.Start(context.Background()); err != nil {
			return err
		}
		select {
		case <-node.Ready():
			write(0, "ready", nil, 0)
		case <-ctx.Done():
		}
		<-ctx.Done()
		return node.Stop(context.Background())
	}()
	write(0, "exit", err, 0)
	return 0
}

// TestEncryptedNetwork: ovnd's nodes create and use one, with each cipher.
func TestEncryptedNetwork(t *testing.T) {
	n := taskNode(t)
	for value, name := range map[string]string{"": "auto", "true": "same", "chacha20-poly1305": "chacha", "aes-256-gcm": "aes"} {
		n.must(request{Op: "create", Create: network.CreateRequest{Name: name, Options: map[string]string{"encrypted": value}, Attachable: true}}, nil)
		var nw network.Inspect
		n.must(request{Op: "network", Target: name}, &nw)
		if got, ok := nw.Options["encrypted"]; !ok || got != value {
			t.Errorf("%s: option %q, %v; want %q", name, got, ok, value)
		}
	}
	var att Attachment
	n.must(request{Op: "attach", Container: "c", Target: "chacha"}, &att)
	if got := att.Network.Options["encrypted"]; got != "chacha20-poly1305" {
		t.Errorf("the attachment's network: %q", got)
	}
	s := testService("web", "sleep", 1, "60")
	s.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: "auto"}}
	n.awaitTasks("a task on an encrypted network", n.create(s), 1, running)
}

// TestEncryptedNeedsOvnd: in a swarm with a Docker node, what would end at that
// node is refused, and what is there remains changeable.
func TestEncryptedNeedsOvnd(t *testing.T) {
	n := taskNode(t)
	opts := map[string]string{"encrypted": "true"}
	n.must(request{Op: "create", Create: network.CreateRequest{Name: "sealed", Options: opts, Attachable: true}}, nil)
	n.must(request{Op: "create", Create: network.CreateRequest{Name: "plain", Attachable: true}}, nil)
	on := func(name string, nets ...string) swarm.ServiceSpec {
		s := testService(name, "sleep", 1, "60")
		for _, nw := range nets {
			s.TaskTemplate.Networks = append(s.TaskTemplate.Networks, swarm.NetworkAttachmentConfig{Target: nw})
		}
		return s
	}
	old := n.create(on("old", "sealed"))
	other := n.create(on("other", "plain"))

	cfg := n.join("127.0.0.3", swarm.NodeRoleWorker)
	cfg.Hostname, cfg.Labels = "docker1", asDocker
	docker := startChild(t, cfg).ready()
	var nodes []swarm.Node
	eventually(t, "the Docker node has said what it is", 10*time.Second, func() bool {
		n.must(request{Op: "nodes"}, &nodes)
		return len(nodes) == 2 && nodes[0].Description.Hostname != "" && nodes[1].Description.Hostname != ""
	})

	for what, req := range map[string]request{
		"network other cannot be encrypted":                   {Op: "create", Create: network.CreateRequest{Name: "other", Options: opts}},
		"network sealed is encrypted":                         {Op: "service", Service: on("fresh", "plain", "sealed")},
		"Could not attach to network sealed: it is encrypted": {Op: "attach", Container: "c", Target: "sealed"},
	} {
		err := n.call(req, nil)
		if !strings.HasPrefix(err, what+": node docker1 (") || !strings.Contains(err, "remove the node from the swarm, or") {
			t.Errorf("%s: %q", req.Op, err)
		}
	}
	if err := n.call(request{Op: "update", Target: other, Service: on("other", "plain", "sealed")}, nil); !strings.HasPrefix(err, "network sealed is encrypted") {
		t.Errorf("update onto the network: %q", err)
	}
	n.must(request{Op: "update", Target: old, Service: on("old", "sealed", "plain")}, nil)
	n.must(request{Op: "create", Create: network.CreateRequest{Name: "clear"}}, nil)
	n.must(request{Op: "service", Service: on("fine", "plain")}, nil)
	n.must(request{Op: "attach", Container: "c", Target: "plain"}, nil)
	// What only Docker's nodes run is Docker's matter.
	theirs := on("theirs", "sealed")
	theirs.TaskTemplate.Placement = &swarm.Placement{Constraints: []string{"engine.labels.ovnd!=true"}}
	n.must(request{Op: "service", Service: theirs}, nil)

	docker.stop()
	n.must(request{Op: "rmnode", Target: "docker1", Force: true}, nil)
	n.must(request{Op: "service", Service: on("fresh", "sealed")}, nil)
}

package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/v2/daemon/server/backend"
	"github.com/moby/moby/v2/daemon/server/swarmbackend"
)

// doService does what requests ask of services and their tasks.
func (req *request) doService(ctx context.Context, c *Cluster) (any, error) {
	switch req.Op {
	case "service":
		resp, err := c.CreateService(req.Service, "", true)
		if err != nil {
			return nil, err
		}
		return resp.ID, nil
	case "inspect-service":
		return c.GetService(req.Target, false)
	case "services":
		return c.GetServices(swarmbackend.ServiceListOptions{Status: true})
	case "update":
		return nil, req.update(c)
	case "rmservice":
		return nil, c.RemoveService(req.Target)
	case "tasks":
		return c.GetTasks(swarmbackend.TaskListOptions{})
	case "logs":
		return req.logs(ctx, c)
	case "secret":
		return c.CreateSecret(swarm.SecretSpec{Annotations: swarm.Annotations{Name: req.Target}, Data: []byte(req.Data), Templating: req.Templating})
	case "config":
		return c.CreateConfig(swarm.ConfigSpec{Annotations: swarm.Annotations{Name: req.Target}, Data: []byte(req.Data), Templating: req.Templating})
	case "heartbeat":
		sw, err := c.Inspect()
		if err != nil {
			return nil, err
		}
		sw.Spec.Dispatcher.HeartbeatPeriod = req.Timeout
		return nil, c.Update(sw.Version.Index, sw.Spec, swarmbackend.UpdateFlags{})
	case "availability":
		n, err := c.GetNode(req.Target)
		if err != nil {
			return nil, err
		}
		n.Spec.Availability = swarm.NodeAvailability(req.Data)
		return nil, c.UpdateNode(n.ID, n.Version.Index, n.Spec)
	case "nodelabel":
		n, err := c.GetNode(req.Target)
		if err != nil {
			return nil, err
		}
		k, v, _ := strings.Cut(req.Data, "=")
		n.Spec.Labels = map[string]string{k: v}
		return nil, c.UpdateNode(n.ID, n.Version.Index, n.Spec)
	}
	return nil, errors.New("unknown op " + req.Op)
}

// update replaces the service's spec, or with Data rolls it back.
func (req *request) update(c *Cluster) error {
	s, err := c.GetService(req.Target, false)
	if err != nil {
		return err
	}
	spec, version := req.Service, s.Version.Index
	if spec.Name == "" {
		spec = s.Spec
	}
	if req.Force {
		version--
	}
	_, err = c.UpdateService(req.Target, version, spec, swarmbackend.ServiceUpdateOptions{Rollback: req.Data}, false)
	return err
}

// logs collects lines, "source line attributes", until they end or there are
// as many as Data says.
func (req *request) logs(ctx context.Context, c *Cluster) ([]string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var most int
	_, _ = fmt.Sscan(req.Data, &most)
	msgs, err := c.ServiceLogs(ctx, &backend.LogSelector{Services: []string{req.Target}}, &req.Logs)
	if err != nil {
		return nil, err
	}
	var out []string
	for m := range msgs {
		if m.Err != nil {
			return out, m.Err
		}
		out = append(out, m.Source+" "+string(m.Line))
		if len(m.Attrs) != 3 || m.Timestamp.IsZero() {
			return out, fmt.Errorf("message %+v", m)
		}
		if most > 0 && len(out) >= most {
			cancel()
		}
	}
	return out, nil
}

// testService is a service of program with replicas, which restarts and is
// updated without pauses.
func testService(name, program string, replicas uint64, args ...string) swarm.ServiceSpec {
	delay := 50 * time.Millisecond
	return swarm.ServiceSpec{
		Annotations: swarm.Annotations{Name: name},
		TaskTemplate: swarm.TaskSpec{
			ContainerSpec: &swarm.ContainerSpec{Image: program, Args: args},
			RestartPolicy: &swarm.RestartPolicy{Condition: swarm.RestartPolicyConditionAny, Delay: &delay},
		},
		Mode:         swarm.ServiceMode{Replicated: &swarm.ReplicatedService{Replicas: &replicas}},
		UpdateConfig: &swarm.UpdateConfig{Parallelism: 1, Monitor: 300 * time.Millisecond},
	}
}

// taskNode starts a manager of its own swarm that runs tasks. Tests with such
// nodes mostly wait, so they run beside each other.
func taskNode(t *testing.T) *child {
	t.Helper()
	t.Parallel()
	cfg := testConfig(t, "127.0.0.2", testPort(t))
	cfg.Labels = withTasks
	return startChild(t, cfg).ready()
}

// tasks are the tasks of a service that match accepts, by ID.
func (c *child) tasks(serviceID string, match func(swarm.Task) bool) map[string]swarm.Task {
	c.t.Helper()
	var all []swarm.Task
	c.must(request{Op: "tasks"}, &all)
	out := make(map[string]swarm.Task)
	for _, t := range all {
		if t.ServiceID == serviceID && (match == nil || match(t)) {
			out[t.ID] = t
		}
	}
	return out
}

func inState(states ...swarm.TaskState) func(swarm.Task) bool {
	return func(t swarm.Task) bool { return slices.Contains(states, t.Status.State) }
}

// running is a task that runs and shall do so.
func running(t swarm.Task) bool {
	return t.Status.State == swarm.TaskStateRunning && t.DesiredState == swarm.TaskStateRunning
}

// awaitTasks waits until n tasks of a service match, and returns them.
func (c *child) awaitTasks(what, serviceID string, n int, match func(swarm.Task) bool) map[string]swarm.Task {
	c.t.Helper()
	var got map[string]swarm.Task
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if got = c.tasks(serviceID, match); len(got) == n {
			return got
		}
		if time.Now().After(deadline) {
			for _, t := range c.tasks(serviceID, nil) {
				c.t.Logf("task %s slot %d on %s: wanted %s, is %s: %s", t.ID, t.Slot, t.NodeID, t.DesiredState, t.Status.State, t.Status.Err)
			}
			c.t.Fatalf("%s: %d tasks, want %d", what, len(got), n)
		}
	}
}

// taskEvents are what the runner of this node was asked so far.
func (c *child) taskEvents() []taskEvent {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []taskEvent
	for _, m := range c.msgs {
		var ev taskEvent
		if m.Event == "overlap" {
			c.t.Errorf("%s: calls overlap: %s", c.name, m.Data)
		}
		if m.Event == "task" && json.Unmarshal(m.Data, &ev) == nil {
			out = append(out, ev)
		}
	}
	return out
}

// ops are the calls for a task, in order.
func (c *child) ops(id string) string {
	var ops []string
	for _, ev := range c.taskEvents() {
		if ev.ID == id {
			ops = append(ops, ev.Op)
		}
	}
	return strings.Join(ops, " ")
}

// prepared is the Task that a runner got.
func (c *child) prepared(id string) *Task {
	c.t.Helper()
	for _, ev := range c.taskEvents() {
		if ev.ID == id && ev.Task != nil {
			return ev.Task
		}
	}
	c.t.Fatalf("%s: task %s was not prepared", c.name, id)
	return nil
}

// create creates a service and returns its ID.
func (c *child) create(spec swarm.ServiceSpec) string {
	c.t.Helper()
	var id string
	c.must(request{Op: "service", Service: spec}, &id)
	return id
}

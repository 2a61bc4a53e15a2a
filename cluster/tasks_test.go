package cluster

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"
	swarmapi "github.com/moby/swarmkit/v2/api"
)

// threeNodes is a manager, node-2, and two workers, node-3 and node-4.
func threeNodes(t *testing.T) (m, w3, w4 *child) {
	t.Helper()
	return threeNodesBeating(t, heartbeatPeriod)
}

func threeNodesBeating(t *testing.T, heartbeat time.Duration) (m, w3, w4 *child) {
	t.Helper()
	m = taskNode(t)
	if heartbeat != heartbeatPeriod {
		m.must(request{Op: "heartbeat", Timeout: heartbeat}, nil)
	}
	w3 = startChild(t, m.join("127.0.0.3", swarm.NodeRoleWorker)).ready()
	w4 = startChild(t, m.join("127.0.0.4", swarm.NodeRoleWorker)).ready()
	return m, w3, w4
}

// hosts are the hostnames of the tasks' nodes, sorted.
func (c *child) hosts(tasks map[string]swarm.Task) string {
	c.t.Helper()
	var nodes []swarm.Node
	c.must(request{Op: "nodes"}, &nodes)
	name := make(map[string]string)
	for _, n := range nodes {
		name[n.ID] = n.Description.Hostname
	}
	var out []string
	for _, t := range tasks {
		out = append(out, name[t.NodeID])
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestPlacement(t *testing.T) {
	m, _, _ := threeNodes(t)
	m.must(request{Op: "nodelabel", Target: "node-3", Data: "disk=fast"}, nil)

	global := testService("global", "agent", 0)
	global.Mode = swarm.ServiceMode{Global: &swarm.GlobalService{}}
	globalID := m.create(global)
	everywhere := m.awaitTasks("one on each node", globalID, 3, running)
	if got := m.hosts(everywhere); got != "node-2 node-3 node-4" {
		t.Errorf("global: %s", got)
	}
	for id, task := range everywhere {
		if task.NodeID == m.prepared1(id) {
			if want := "global." + task.NodeID + "." + id; m.prepared(id).Name != want {
				t.Errorf("name %s, want %s", m.prepared(id).Name, want)
			}
		}
	}

	for constraint, want := range map[string]string{
		"node.hostname==node-4":              "node-4 node-4",
		"node.role==manager":                 "node-2 node-2",
		"node.labels.disk==fast":             "node-3 node-3",
		"engine.labels.ovnd.addr!=127.0.0.2": "node-3 node-4",
	} {
		spec := testService("s-"+strings.Map(letters, constraint), "web", 2)
		spec.TaskTemplate.Placement = &swarm.Placement{Constraints: []string{constraint}}
		if got := m.hosts(m.awaitTasks(constraint, m.create(spec), 2, running)); got != want {
			t.Errorf("%s: on %s, want %s", constraint, got, want)
		}
	}
	nowhere := testService("nowhere", "web", 1)
	nowhere.TaskTemplate.Placement = &swarm.Placement{Constraints: []string{"node.hostname==moon"}}
	for _, task := range m.awaitTasks("nowhere", m.create(nowhere), 1, func(t swarm.Task) bool { return t.Status.Err != "" }) {
		if !strings.HasPrefix(task.Status.Err, "no suitable node (scheduling constraints not satisfied on 3 nodes") {
			t.Errorf("nowhere: %q", task.Status.Err)
		}
	}
	spread := testService("spread", "web", 4)
	spread.TaskTemplate.Placement = &swarm.Placement{Preferences: []swarm.PlacementPreference{{Spread: &swarm.SpreadOver{SpreadDescriptor: "node.labels.disk"}}}}
	if got := m.hosts(m.awaitTasks("spread", m.create(spread), 4, running)); strings.Count(got, "node-3") != 2 {
		t.Errorf("spread over a label: %s", got)
	}

	// A drained node has no tasks, and gets its global one back afterwards.
	m.must(request{Op: "availability", Target: "node-4", Data: "drain"}, nil)
	eventually(t, "drained", 10*time.Second, func() bool {
		return m.hosts(m.tasks(globalID, running)) == "node-2 node-3" && !strings.Contains(m.hosts(m.tasks(spreadID(m), running)), "node-4")
	})
	m.must(request{Op: "availability", Target: "node-4", Data: "active"}, nil)
	m.awaitTasks("one on each node again", globalID, 3, running)
}

// prepared1 is the node that prepared a task, if that is this one.
func (c *child) prepared1(id string) string {
	for _, ev := range c.taskEvents() {
		if ev.ID == id && ev.Task != nil {
			return ev.Task.NodeID
		}
	}
	return ""
}

func spreadID(m *child) string {
	var s swarm.Service
	m.must(request{Op: "inspect-service", Target: "spread"}, &s)
	return s.ID
}

func letters(r rune) rune {
	if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
		return r
	}
	return -1
}

// A node that ended when a task was ready prepares it again before it starts it.
func TestStartPreparesAgain(t *testing.T) {
	var ops []string
	runner := newFakeRunner(t.TempDir(), func(_ string, data any) { ops = append(ops, data.(taskEvent).Op) })
	c := &Cluster{cfg: Config{Tasks: runner}}
	for state, want := range map[swarmapi.TaskState]string{
		swarmapi.TaskStateAccepted: "prepare start",
		swarmapi.TaskStateReady:    "prepare start",
	} {
		ops = nil
		task := &swarmapi.Task{ID: state.String(), Spec: swarmapi.TaskSpec{Runtime: &swarmapi.TaskSpec_Container{Container: &swarmapi.ContainerSpec{Image: "web"}}}}
		task.Status.State = state
		tc, err := (&executor{c: c}).Controller(task)
		if err != nil {
			t.Fatal(err)
		}
		if state == swarmapi.TaskStateAccepted {
			if err := tc.Prepare(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if err := tc.Start(t.Context()); err != nil || strings.Join(ops, " ") != want {
			t.Errorf("%s: %q, %v", state, ops, err)
		}
	}
}

func TestWaitAttached(t *testing.T) {
	c := &Cluster{changed: make(chan struct{})}
	nets := []TaskNetwork{{Network: Network{ID: "a", Name: "net"}}, {Network: Network{ID: "b"}}}
	c.nodeState.LoadBalancers = []LoadBalancer{{Network: Network{ID: "b"}}}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.waitAttached(ctx, nets); err == nil || !strings.Contains(err.Error(), "network net has no address for this node") {
		t.Errorf("without an address: %v", err)
	}
	done := make(chan error)
	go func() { done <- c.waitAttached(t.Context(), nets) }()
	c.mu.Lock()
	c.nodeState.LoadBalancers = append(c.nodeState.LoadBalancers, LoadBalancer{Network: Network{ID: "a"}})
	c.wakeLocked()
	c.mu.Unlock()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestSecretsAndConfigs(t *testing.T) {
	m, _, _ := threeNodes(t)
	golang := &swarm.Driver{Name: "golang"}
	var secret, config string
	m.must(request{Op: "secret", Target: "pw", Data: "hunter2"}, &secret)
	m.must(request{Op: "config", Target: "conf", Data: `task {{.Task.Slot}} has {{secret "pw.txt"}}`, Templating: golang}, &config)

	spec := testService("safe", "web", 3)
	cs := spec.TaskTemplate.ContainerSpec
	cs.Secrets = []*swarm.SecretReference{{SecretID: secret, SecretName: "pw", File: &swarm.SecretReferenceFileTarget{Name: "pw.txt", UID: "0", GID: "0", Mode: 0o400}}}
	cs.Configs = []*swarm.ConfigReference{{ConfigID: config, ConfigName: "conf", File: &swarm.ConfigReferenceFileTarget{Name: "/etc/../etc/app.conf", Mode: 0o444}}}
	id := m.create(spec)
	tasks := m.awaitTasks("running", id, 3, running)
	for tid, task := range tasks {
		if m.prepared1(tid) == "" {
			continue // another node's
		}
		f := m.prepared(tid).Files
		slot := string('0' + rune(task.Slot))
		if len(f) != 2 || f[0].Target != "/run/secrets/pw.txt" || string(f[0].Data) != "hunter2" || f[0].Mode != 0o400 ||
			f[1].Target != "/etc/app.conf" || string(f[1].Data) != "task "+slot+" has hunter2" || f[1].Mode != 0o444 {
			t.Errorf("files: %+v", f)
		}
	}
	if got := m.hosts(tasks); got != "node-2 node-3 node-4" {
		t.Errorf("tasks on %s", got)
	}
}

func TestJobs(t *testing.T) {
	m, _, _ := threeNodes(t)
	job := testService("job", "end", 0, "0", "30ms")
	job.Mode = swarm.ServiceMode{ReplicatedJob: &swarm.ReplicatedJob{MaxConcurrent: new(uint64(2)), TotalCompletions: new(uint64(5))}}
	job.TaskTemplate.RestartPolicy.Condition = swarm.RestartPolicyConditionOnFailure
	job.UpdateConfig = nil
	m.awaitTasks("replicated job", m.create(job), 5, inState(swarm.TaskStateComplete))

	job.Name = "everywhere"
	job.Mode = swarm.ServiceMode{GlobalJob: &swarm.GlobalJob{}}
	done := m.awaitTasks("global job", m.create(job), 3, inState(swarm.TaskStateComplete))
	if got := m.hosts(done); got != "node-2 node-3 node-4" {
		t.Errorf("global job on %s", got)
	}
}

// A worker that is killed and comes back keeps its tasks: they are neither
// started again nor replaced. Those that have ended meanwhile are.
func TestTasksSurviveNode(t *testing.T) {
	m, w3, _ := threeNodes(t)
	m.must(request{Op: "create", Create: network.CreateRequest{Name: "net"}}, nil)
	spec := testService("web", "web", 6)
	spec.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: "net"}}
	id := m.create(spec)
	before := m.awaitTasks("running", id, 6, running)
	var mine []string
	for tid := range before {
		if w3.prepared1(tid) != "" {
			mine = append(mine, tid)
		}
	}
	if len(mine) != 2 {
		t.Fatalf("%d tasks on node-3, want 2", len(mine))
	}
	w3.kill()
	time.Sleep(3 * time.Second)
	w3 = w3.again().ready()
	for _, tid := range mine {
		eventually(t, "task "+tid+" is waited for", 5*time.Second, func() bool { return w3.ops(tid) == "prepare wait" })
		if got := w3.prepared(tid); !got.Restored || got.Networks[0].Addrs[0] != w3.prepared(tid).Networks[0].Addrs[0] || got.Name != "web."+string('0'+rune(before[tid].Slot))+"."+tid {
			t.Errorf("restored task: %+v", got)
		}
	}
	time.Sleep(2 * time.Second) // what would go wrong has the time to
	after := m.awaitTasks("still running", id, 6, running)
	for tid := range before {
		if _, ok := after[tid]; !ok {
			t.Errorf("task %s was replaced", tid)
		}
	}

	// This time one of the processes dies with the node.
	w3.kill()
	runner := newFakeRunner(tasksDir(w3.cfg), func(string, any) {})
	removeFile(t, runner.file(mine[0]))
	w3 = w3.again().ready()
	m.awaitTasks("six again", id, 6, running)
	eventually(t, "the dead task is replaced", 10*time.Second, func() bool { return len(m.tasks(id, nil)) == 7 })
	dead := m.tasks(id, inState(swarm.TaskStateFailed))[mine[0]]
	if dead.Status.Err != "the process ended while its node was away" {
		t.Errorf("dead task: %+v", dead.Status)
	}
	if got := m.awaitTasks("six again", id, 6, running); got[mine[1]].ID == "" {
		t.Errorf("task %s was replaced, although it lived", mine[1])
	}
}

// A worker that stays away is replaced; when it comes back, what it still runs
// is ended and the count stays right.
func TestDeadNodeIsReplaced(t *testing.T) {
	m, w3, _ := threeNodesBeating(t, time.Second)
	id := m.create(testService("web", "web", 3))
	before := m.awaitTasks("running", id, 3, running)
	w3.kill()
	start := time.Now()
	m.awaitTasks("replaced", id, 3, func(t swarm.Task) bool { return running(t) && w3.prepared1(t.ID) == "" })
	t.Logf("replaced after %v", time.Since(start))
	w3 = w3.again().ready()
	eventually(t, "the old process ends", 10*time.Second, func() bool { return len(filesIn(t, tasksDir(w3.cfg))) == 0 })
	for tid := range before {
		if got := w3.ops(tid); got != "" && got != "prepare shutdown" && got != "prepare wait shutdown" {
			t.Errorf("calls on the node that came back: %s", got)
		}
	}
	m.awaitTasks("the right count", id, 3, running)
}

// The only manager may die and come back as well: every task runs on, its own
// too, and can be scaled afterwards.
func TestTasksSurviveManager(t *testing.T) {
	m, w3, _ := threeNodes(t)
	id := m.create(testService("web", "web", 6))
	before := m.awaitTasks("running", id, 6, running)
	m.kill()
	time.Sleep(2 * time.Second)
	for tid := range before {
		if got := w3.ops(tid); got != "" && got != "prepare start wait" {
			t.Errorf("without a manager: %s", got)
		}
	}
	m = m.again().ready()
	eventually(t, "the manager answers", 10*time.Second, func() bool { return m.call(request{Op: "tasks"}, nil) == "" })
	time.Sleep(2 * time.Second) // what would go wrong has the time to
	after := m.awaitTasks("still running", id, 6, running)
	for tid := range before {
		if _, ok := after[tid]; !ok {
			t.Errorf("task %s was replaced", tid)
		}
	}
	more := testService("web", "web", 9)
	m.must(request{Op: "update", Target: "web", Service: more}, nil)
	m.awaitTasks("scaled", id, 9, running)
}

// A node that leaves its swarm ends its tasks first, and can begin others in
// another swarm.
func TestLeaveEndsTasks(t *testing.T) {
	m, w3, _ := threeNodes(t)
	id := m.create(testService("web", "web", 3))
	m.awaitTasks("running", id, 3, running)
	w3.must(request{Op: "leave"}, nil)
	w3.event("left")
	if left := filesIn(t, tasksDir(w3.cfg)); len(left) != 0 {
		t.Errorf("processes left: %q", left)
	}
	w3.must(request{Op: "init"}, nil)
	w3.awaitTasks("running in a new swarm", w3.create(testService("own", "web", 2)), 2, running)
	m.must(request{Op: "rmnode", Target: "node-3", Force: true}, nil)
	m.awaitTasks("replaced elsewhere", id, 3, running)
}

// A node that stops leaves no process behind, not even one that does not want
// to stop, and what it ran is replaced.
func TestGracefulStopEndsTasks(t *testing.T) {
	m, w3, _ := threeNodes(t)
	stubborn := testService("stubborn", "stubborn", 1)
	stubborn.TaskTemplate.Placement = &swarm.Placement{Constraints: []string{"node.hostname==node-3"}}
	id := m.create(stubborn)
	webID := m.create(testService("web", "web", 3))
	m.awaitTasks("running", id, 1, running)
	m.awaitTasks("running", webID, 3, running)
	start := time.Now()
	if err, goroutines := w3.stop(); err != "" || goroutines > 25 {
		t.Errorf("stop: %q, %d goroutines left", err, goroutines)
	}
	t.Logf("stopped after %v", time.Since(start))
	if left := filesIn(t, tasksDir(w3.cfg)); len(left) != 0 {
		t.Errorf("processes left: %q", left)
	}
	for tid := range m.tasks(id, nil) {
		if got := w3.ops(tid); got != "prepare start wait shutdown terminate remove" {
			t.Errorf("calls: %s", got)
		}
	}
	w3.again().ready()
	m.awaitTasks("running again", id, 1, running)
	m.awaitTasks("running again", webID, 3, running)
}

package cluster

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/v2/daemon/server/backend"

	"github.com/ovnd/ovnd/discovery/directory"
)

func TestServiceLifecycle(t *testing.T) {
	n := taskNode(t)
	n.must(request{Op: "create", Create: network.CreateRequest{Name: "ngx_net"}}, nil)
	evs := make(chan []string, 1)
	go func() {
		var got []string
		n.call(request{Op: "events", Timeout: 6 * time.Second}, &got)
		evs <- got
	}()
	time.Sleep(100 * time.Millisecond) // the watch is set up; nothing tells when

	spec := testService("my-test", "nginx", 3)
	spec.Labels = map[string]string{"tier": "front"}
	cs := spec.TaskTemplate.ContainerSpec
	cs.Env = []string{"SLOT={{.Task.Slot}}", "WHO={{.Service.Name}}@{{.Node.Hostname}}", "PLAIN"}
	cs.Hostname = "web-{{.Task.Slot}}"
	cs.Labels = map[string]string{"mine": "yes"}
	cs.Args = []string{"-g", "daemon off;"}
	cs.Ulimits = []*container.Ulimit{{Name: "nofile", Soft: 100, Hard: 200}}
	spec.TaskTemplate.Networks = []swarm.NetworkAttachmentConfig{{Target: "ngx_net", Aliases: []string{"web"}}}
	spec.EndpointSpec = &swarm.EndpointSpec{Ports: []swarm.PortConfig{
		{Protocol: "tcp", TargetPort: 80, PublishedPort: 18080, PublishMode: swarm.PortConfigPublishModeIngress},
		{Protocol: "udp", TargetPort: 53, PublishMode: swarm.PortConfigPublishModeHost},
	}}
	start := time.Now()
	id := n.create(spec)
	tasks := n.awaitTasks("running", id, 3, running)
	t.Logf("three tasks run after %v", time.Since(start))

	for _, task := range tasks {
		if got := n.ops(task.ID); got != "prepare start wait" {
			t.Errorf("task %s: %q", task.ID, got)
		}
		st := task.Status
		if st.ContainerStatus == nil || st.ContainerStatus.ContainerID != "c-"+task.ID || st.ContainerStatus.PID != 4711 {
			t.Errorf("container status: %+v", st.ContainerStatus)
		}
		if len(st.PortStatus.Ports) != 1 || st.PortStatus.Ports[0].PublishedPort != 32768 || st.PortStatus.Ports[0].Protocol != "udp" || st.PortStatus.Ports[0].PublishMode != "host" {
			t.Errorf("port status: %+v", st.PortStatus)
		}
		checkMyTest(t, n.prepared(task.ID), task)
	}

	var services []swarm.Service
	n.must(request{Op: "services"}, &services)
	if s := services[0]; s.ServiceStatus.RunningTasks != 3 || s.ServiceStatus.DesiredTasks != 3 || s.Endpoint.Ports[0].PublishedPort != 18080 {
		t.Errorf("service: %+v", s)
	}

	// More tasks leave those that run alone.
	spec.Mode.Replicated.Replicas = new(uint64(5))
	n.must(request{Op: "update", Target: "my-test", Service: spec}, nil)
	more := n.awaitTasks("scaled up", id, 5, running)
	for old := range tasks {
		if _, ok := more[old]; !ok {
			t.Errorf("task %s was replaced", old)
		}
	}
	if err := n.call(request{Op: "update", Target: "my-test", Service: spec, Force: true}, nil); !strings.Contains(err, "update out of sequence") {
		t.Errorf("update of an old version: %q", err)
	}
	spec.Mode.Replicated.Replicas = new(uint64(1))
	n.must(request{Op: "update", Target: "my-test", Service: spec}, nil)
	n.awaitTasks("scaled down", id, 1, nil)

	n.must(request{Op: "rmservice", Target: "my-test"}, nil)
	n.awaitTasks("removed", id, 0, nil)
	for old := range more {
		eventually(t, "end of task "+old, 5*time.Second, func() bool {
			got := n.ops(old)
			return strings.Contains(got, " shutdown") && strings.HasSuffix(got, " remove")
		})
	}
	if err := n.call(request{Op: "rmservice", Target: "my-test"}, nil); err != "service my-test not found" {
		t.Errorf("second removal: %q", err)
	}
	got := <-evs
	for _, want := range []string{"service create my-test", "service update my-test", "service remove my-test"} {
		if !slices.Contains(got, want) {
			t.Errorf("no event %q in %q", want, got)
		}
	}
}

// checkMyTest checks what the runner was given for a task of TestServiceLifecycle.
func checkMyTest(t *testing.T, got *Task, task swarm.Task) {
	t.Helper()
	slot := string('0' + rune(task.Slot))
	if got.Name != "my-test."+slot+"."+task.ID || got.ServiceName != "my-test" || got.ServiceID != task.ServiceID || got.NodeID != task.NodeID || got.Slot != uint64(task.Slot) || got.Restored {
		t.Errorf("identity: %+v", got)
	}
	if got.Image != "nginx:latest" || got.Command != "nginx" || !slices.Equal(got.Args, []string{"-g", "daemon off;"}) || got.Program != nil || got.StopGrace != 10*time.Second {
		t.Errorf("program: %+v", got)
	}
	if !slices.Equal(got.Env, []string{"SLOT=" + slot, "WHO=my-test@node-2", "PLAIN"}) || got.Hostname != "web-"+slot {
		t.Errorf("templates: %q, %q", got.Env, got.Hostname)
	}
	if got.Labels["mine"] != "yes" || got.Labels["com.docker.swarm.task.name"] != got.Name || got.ServiceLabels["tier"] != "front" {
		t.Errorf("labels: %q, %q", got.Labels, got.ServiceLabels)
	}
	if len(got.Ulimits) != 1 || got.Ulimits[0] != (Ulimit{"nofile", 100, 200}) {
		t.Errorf("ulimits: %+v", got.Ulimits)
	}
	if len(got.Networks) != 2 || !got.Networks[0].Network.Ingress || got.Networks[1].Network.Name != "ngx_net" {
		t.Fatalf("networks: %+v", got.Networks)
	}
	for _, tn := range got.Networks {
		subnet := tn.Network.Subnets[0].Prefix
		if len(tn.Addrs) != 1 || !subnet.Contains(tn.Addrs[0].Addr()) || !subnet.Contains(tn.VIP) || tn.VIP == tn.Addrs[0].Addr() {
			t.Errorf("network %s: addresses %v, VIP %v", tn.Network.Name, tn.Addrs, tn.VIP)
		}
	}
	if !slices.Equal(got.Networks[1].Aliases, []string{"web"}) {
		t.Errorf("aliases: %q", got.Networks[1].Aliases)
	}
	want := []TaskPort{
		{Port: directory.Port{Protocol: directory.TCP, Target: 80, Published: 18080}},
		{Port: directory.Port{Protocol: directory.UDP, Target: 53}, HostMode: true},
	}
	slices.SortFunc(got.Ports, func(a, b TaskPort) int { return int(b.Target) - int(a.Target) })
	if !slices.Equal(got.Ports, want) {
		t.Errorf("ports: %+v", got.Ports)
	}
}

// What goes wrong with a task is said in its history.
func TestTaskFailures(t *testing.T) {
	n := taskNode(t)
	ids := make(map[string]string)
	for name, tt := range map[string]struct {
		program string
		args    []string
		state   swarm.TaskState
		err     string
		code    int
	}{
		"rejected": {"reject", nil, swarm.TaskStateRejected, `program "reject" is not on the PATH of this node`, 0},
		"broken":   {"broken", nil, swarm.TaskStateFailed, "exec format error", 0},
		"failed":   {"end", []string{"1", "50ms"}, swarm.TaskStateFailed, "task: non-zero exit (1)", 1},
		"finished": {"end", []string{"0", "50ms"}, swarm.TaskStateComplete, "", 0},
		"sick":     {"sick", nil, swarm.TaskStateFailed, "task: non-zero exit (143): unhealthy container", 143},
		"faint":    {"faint", []string{"50ms"}, swarm.TaskStateFailed, "task: non-zero exit (143): unhealthy container", 143},
	} {
		spec := testService(name, tt.program, 1, tt.args...)
		spec.TaskTemplate.RestartPolicy.Condition = swarm.RestartPolicyConditionNone
		ids[name] = n.create(spec)
		for _, task := range n.awaitTasks(name, ids[name], 1, inState(tt.state)) {
			st := task.Status
			if st.Err != tt.err || st.ContainerStatus != nil && st.ContainerStatus.ExitCode != tt.code || st.ContainerStatus == nil && tt.code != 0 {
				t.Errorf("%s: %q, %+v", name, st.Err, st.ContainerStatus)
			}
			if tt.code == 143 && !strings.HasSuffix(n.ops(task.ID), " shutdown") {
				t.Errorf("%s: %s", name, n.ops(task.ID))
			}
		}
	}
	for name, id := range ids {
		if got := n.tasks(id, nil); len(got) != 1 {
			t.Errorf("%s: %d tasks although nothing restarts", name, len(got))
		}
	}

	spec := testService("stubborn-policy", "end", 1, "7", "10ms")
	spec.TaskTemplate.RestartPolicy.Condition = swarm.RestartPolicyConditionOnFailure
	spec.TaskTemplate.RestartPolicy.MaxAttempts = new(uint64(2))
	id := n.create(spec)
	n.awaitTasks("restarts", id, 3, inState(swarm.TaskStateFailed))
	time.Sleep(500 * time.Millisecond)
	if got := n.tasks(id, nil); len(got) != 3 {
		t.Errorf("%d tasks, want the first and two more", len(got))
	}
}

func TestServiceUpdate(t *testing.T) {
	n := taskNode(t)
	spec := testService("web", "v1", 3)
	id := n.create(spec)
	old := n.awaitTasks("running", id, 3, running)

	image := func(image string) func(swarm.Task) bool {
		return func(t swarm.Task) bool { return running(t) && t.Spec.ContainerSpec.Image == image }
	}
	state := func(want swarm.UpdateState) func() bool {
		return func() bool {
			var s swarm.Service
			n.must(request{Op: "inspect-service", Target: id}, &s)
			return s.UpdateStatus != nil && s.UpdateStatus.State == want
		}
	}

	// One at a time, the new one first.
	spec.TaskTemplate.ContainerSpec.Image = "v2"
	spec.UpdateConfig.Order = swarm.UpdateOrderStartFirst
	n.must(request{Op: "update", Target: "web", Service: spec}, nil)
	eventually(t, "update", 20*time.Second, state(swarm.UpdateStateCompleted))
	updated := n.awaitTasks("updated", id, 3, image("v2"))
	starts, stops := 0, 0
	for _, ev := range n.taskEvents() {
		if _, isNew := updated[ev.ID]; isNew && ev.Op == "wait" {
			starts++
		}
		if _, isOld := old[ev.ID]; isOld && ev.Op == "shutdown" {
			stops++
		}
		if starts-stops < 0 {
			t.Fatalf("task %s was stopped before its successor ran", ev.ID)
		}
	}

	n.awaitTasks("shut down", id, 3, func(t swarm.Task) bool {
		_, was := old[t.ID]
		return was && t.Status.State == swarm.TaskStateShutdown && t.Status.Err == ""
	})

	// One that fails goes back by itself.
	spec.TaskTemplate.ContainerSpec.Image = "reject"
	spec.UpdateConfig.FailureAction = swarm.UpdateFailureActionRollback
	n.must(request{Op: "update", Target: "web", Service: spec}, nil)
	eventually(t, "rollback", 20*time.Second, state(swarm.UpdateStateRollbackCompleted))
	n.awaitTasks("rolled back", id, 3, image("v2"))

	// By hand, back to the version before that and with force to the same one.
	spec.TaskTemplate.ContainerSpec.Image = "v3"
	spec.UpdateConfig.Order = swarm.UpdateOrderStopFirst
	spec.UpdateConfig.Parallelism = 0
	n.must(request{Op: "update", Target: "web", Service: spec}, nil)
	n.awaitTasks("updated at once", id, 3, image("v3"))
	n.must(request{Op: "update", Target: "web", Data: "previous"}, nil)
	before := n.awaitTasks("rolled back by hand", id, 3, image("v2"))
	spec.TaskTemplate.ContainerSpec.Image = "v2"
	spec.TaskTemplate.ForceUpdate = 1
	eventually(t, "forced update is taken", 20*time.Second, func() bool {
		return n.call(request{Op: "update", Target: "web", Service: spec}, nil) == ""
	})
	n.awaitTasks("replaced by force", id, 3, func(t swarm.Task) bool {
		_, was := before[t.ID]
		return running(t) && !was
	})
	if err := n.call(request{Op: "update", Target: "web", Data: "sideways"}, nil); err != "unrecognized rollback option sideways" {
		t.Errorf("rollback option: %q", err)
	}
}

func TestServiceLogs(t *testing.T) {
	m := taskNode(t)
	startChild(t, m.join("127.0.0.3", swarm.NodeRoleWorker)).ready()
	id := m.create(testService("talk", "talker", 4))
	m.awaitTasks("running", id, 4, running)

	read := func(most string, o backend.ContainerLogsOptions) []string {
		t.Helper()
		var lines []string
		m.must(request{Op: "logs", Target: "talk", Data: most, Logs: o, Timeout: 10 * time.Second}, &lines)
		return lines
	}
	all := read("", backend.ContainerLogsOptions{ShowStdout: true, ShowStderr: true})
	if len(all) != 40 || !slices.Contains(all, "stdout slot 1 line 0\n") || !slices.Contains(all, "stderr slot 4 line 9\n") {
		t.Errorf("all: %q", all)
	}
	if got := read("", backend.ContainerLogsOptions{ShowStderr: true, Tail: "3"}); len(got) != 8 || !strings.HasPrefix(got[0], "stderr ") {
		t.Errorf("stderr of the last three: %q", got)
	}
	if got := read("", backend.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Since: time.Unix(1700000008, 0)}); len(got) != 8 {
		t.Errorf("since: %q", got)
	}
	if got := read("60", backend.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Follow: true, Tail: "0"}); len(got) < 60 {
		t.Errorf("followed: %q", got)
	}
	for in, want := range map[string]string{"x": `tail value must be a positive integer or "all"`, "-2": "negative tail values not supported"} {
		if err := m.call(request{Op: "logs", Target: "talk", Logs: backend.ContainerLogsOptions{ShowStdout: true, Tail: in}}, nil); err != want {
			t.Errorf("tail %s: %q", in, err)
		}
	}
	if err := m.call(request{Op: "logs", Target: "mute", Logs: backend.ContainerLogsOptions{ShowStdout: true}}, nil); err != "error making log selector: service mute not found" {
		t.Errorf("no such service: %q", err)
	}
}

func TestServiceRefused(t *testing.T) {
	n := taskNode(t)
	n.must(request{Op: "create", Create: network.CreateRequest{Name: "plain_net", IPAM: &network.IPAM{Config: []network.IPAMConfig{{Subnet: netip.MustParsePrefix("10.20.0.0/16")}}}}}, nil)
	publish := func(mode swarm.PortConfigPublishMode, ports ...uint32) *swarm.EndpointSpec {
		e := &swarm.EndpointSpec{}
		for _, p := range ports {
			e.Ports = append(e.Ports, swarm.PortConfig{Protocol: "tcp", TargetPort: 80, PublishedPort: p, PublishMode: mode})
		}
		return e
	}
	web := testService("my-test", "nginx", 1)
	web.EndpointSpec = publish("ingress", 18080)
	n.create(web)

	on := func(nets ...string) func(*swarm.ServiceSpec) {
		return func(s *swarm.ServiceSpec) {
			for _, name := range nets {
				s.TaskTemplate.Networks = append(s.TaskTemplate.Networks, swarm.NetworkAttachmentConfig{Target: name})
			}
		}
	}
	for name, tt := range map[string]struct {
		edit func(*swarm.ServiceSpec)
		want string
	}{
		"taken name":    {func(s *swarm.ServiceSpec) { s.Name = "my-test" }, "rpc error: code = AlreadyExists desc = name conflicts with an existing object: service my-test already exists"},
		"bad name":      {func(s *swarm.ServiceSpec) { s.Name = "bad name" }, "rpc error: code = InvalidArgument desc = name must be valid as a DNS name component"},
		"no network":    {on("nosuch"), "network nosuch not found"},
		"host network":  {on("host"), "The network host cannot be used with services. Only networks scoped to the swarm can be used, such as those created with the overlay driver."},
		"none network":  {on("none"), "The network none cannot be used with services."},
		"nat network":   {on("nat"), "network nat not found"},
		"ingress":       {on("ingress"), `rpc error: code = InvalidArgument desc = Service cannot be explicitly attached to the ingress network "ingress"`},
		"twice":         {on("plain_net", "plain_net"), "network plain_net is named twice"},
		"dnsrr":         {func(s *swarm.ServiceSpec) { s.EndpointSpec = publish("ingress", 8099); s.EndpointSpec.Mode = "dnsrr" }, "rpc error: code = InvalidArgument desc = EndpointSpec: port published with ingress mode can't be used with dnsrr mode"},
		"endpoint mode": {func(s *swarm.ServiceSpec) { s.EndpointSpec = &swarm.EndpointSpec{Mode: "foo"} }, `invalid resolution mode: "foo"`},
		"taken port":    {func(s *swarm.ServiceSpec) { s.EndpointSpec = publish("ingress", 18080) }, "rpc error: code = InvalidArgument desc = port '18080' is already in use by service 'my-test' ("},
		"busy port":     {func(s *swarm.ServiceSpec) { s.EndpointSpec = publish("ingress", 8099) }, "node n1 cannot publish port 8099/tcp: address already in use: choose another port"},
		"image":         {func(s *swarm.ServiceSpec) { s.TaskTemplate.ContainerSpec.Image = "/bin/Sh" }, `ContainerSpec: "/bin/Sh" is not a valid repository/tag`},
		"limit": {func(s *swarm.ServiceSpec) {
			s.TaskTemplate.Resources = &swarm.ResourceRequirements{Limits: &swarm.Limit{NanoCPUs: 1e9}}
		}, "--limit-cpu is not supported: "},
		"plugin": {func(s *swarm.ServiceSpec) { s.TaskTemplate.Runtime = swarm.RuntimePlugin }, `runtime type "plugin" is not supported`},
		"secret": {func(s *swarm.ServiceSpec) {
			s.TaskTemplate.ContainerSpec.Secrets = []*swarm.SecretReference{{SecretID: "x", SecretName: "x", File: &swarm.SecretReferenceFileTarget{Name: "x"}}}
		}, "rpc error: code = InvalidArgument desc = secret not found: x"},
		"constraint": {func(s *swarm.ServiceSpec) {
			s.TaskTemplate.Placement = &swarm.Placement{Constraints: []string{"node.hostname"}}
		}, "constraint"},
	} {
		spec := testService("x", "nginx", 1)
		tt.edit(&spec)
		if err := n.call(request{Op: "service", Service: spec}, nil); !strings.Contains(err, tt.want) {
			t.Errorf("%s: %q, want %q", name, err, tt.want)
		}
	}

	// What is no conflict: an update keeps its own port, bridge is the gateway
	// bridge, no name at all, and what Docker nodes run is not ovnd's affair.
	web.TaskTemplate.ForceUpdate = 1
	n.must(request{Op: "update", Target: "my-test", Service: web}, nil)
	var bridge network.Inspect
	n.must(request{Op: "network", Target: "bridge"}, &bridge)
	bridged := testService("", "nginx", 1)
	on(bridge.ID)(&bridged)
	id := n.create(bridged)
	for _, task := range n.awaitTasks("on bridge alone", id, 1, running) {
		if nets := n.prepared(task.ID).Networks; len(nets) != 0 {
			t.Errorf("networks: %+v", nets)
		}
	}
	var s swarm.Service
	if n.must(request{Op: "inspect-service", Target: id}, &s); !strings.HasPrefix(s.Spec.Name, "nginx-") {
		t.Errorf("made-up name %q", s.Spec.Name)
	}
	others := testService("others", "nginx", 1)
	others.TaskTemplate.Resources = &swarm.ResourceRequirements{Limits: &swarm.Limit{MemoryBytes: 64 << 20}}
	others.TaskTemplate.Placement = &swarm.Placement{Constraints: []string{"engine.labels.ovnd != true"}}
	n.create(others)
}

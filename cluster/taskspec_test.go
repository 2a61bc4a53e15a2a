package cluster

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	gogotypes "github.com/gogo/protobuf/types"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/v2/daemon/cluster/convert"
	swarmapi "github.com/moby/swarmkit/v2/api"
)

func TestImageNames(t *testing.T) {
	for image, want := range map[string][2]string{
		"nginx":                         {"nginx:latest", "nginx"},
		"nginx:1.27":                    {"nginx:1.27", "nginx"},
		"docker.io/library/nginx:1":     {"nginx:1", "nginx"},
		"ovnd/whoami":                   {"ovnd/whoami:latest", "ovnd/whoami"},
		"registry.test:5000/a/b:c":      {"registry.test:5000/a/b:c", "a/b"},
		"x@sha256:" + zeros(64):         {"x@sha256:" + zeros(64), "x"},
		"x:y@sha256:" + zeros(64):       {"x:y@sha256:" + zeros(64), "x"},
		"/usr/sbin/nginx":               {"/usr/sbin/nginx", "/usr/sbin/nginx"},
		"Upper":                         {"Upper", "Upper"},
		"":                              {"", ""},
		"python3.12":                    {"python3.12:latest", "python3.12"},
		"localhost/tools/agent:nightly": {"localhost/tools/agent:nightly", "tools/agent"},
	} {
		familiar, command := imageNames(image)
		if familiar != want[0] || command != want[1] {
			t.Errorf("%q: %q, %q, want %q", image, familiar, command, want)
		}
	}
}

func zeros(n int) string { return strings.Repeat("0", n) }

func TestCheckTaskSpec(t *testing.T) {
	bind := func(m swarmapi.Mount) func(*swarmapi.TaskSpec, *swarmapi.ContainerSpec) {
		return func(_ *swarmapi.TaskSpec, c *swarmapi.ContainerSpec) { c.Mounts = []swarmapi.Mount{m} }
	}
	health := func(test ...string) func(*swarmapi.TaskSpec, *swarmapi.ContainerSpec) {
		return func(_ *swarmapi.TaskSpec, c *swarmapi.ContainerSpec) {
			c.Healthcheck = &swarmapi.HealthConfig{Test: test}
		}
	}
	logs := func(name string, opts map[string]string) func(*swarmapi.TaskSpec, *swarmapi.ContainerSpec) {
		return func(ts *swarmapi.TaskSpec, _ *swarmapi.ContainerSpec) {
			ts.LogDriver = &swarmapi.Driver{Name: name, Options: opts}
		}
	}
	for want, edit := range map[string]func(*swarmapi.TaskSpec, *swarmapi.ContainerSpec){
		"--limit-cpu is not supported": func(ts *swarmapi.TaskSpec, _ *swarmapi.ContainerSpec) {
			ts.Resources = &swarmapi.ResourceRequirements{Limits: &swarmapi.Resources{NanoCPUs: 1}}
		},
		"--limit-memory is not supported": func(ts *swarmapi.TaskSpec, _ *swarmapi.ContainerSpec) {
			ts.Resources = &swarmapi.ResourceRequirements{Limits: &swarmapi.Resources{MemoryBytes: 1}}
		},
		"--memory-swap is not supported": func(ts *swarmapi.TaskSpec, _ *swarmapi.ContainerSpec) {
			ts.Resources = &swarmapi.ResourceRequirements{SwapBytes: &gogotypes.Int64Value{}}
		},
		"--limit-pids is not supported":    func(_ *swarmapi.TaskSpec, c *swarmapi.ContainerSpec) { c.PidsLimit = 5 },
		"--oom-score-adj is not supported": func(_ *swarmapi.TaskSpec, c *swarmapi.ContainerSpec) { c.OomScoreAdj = 5 },
		"--cap-add is not supported":       func(_ *swarmapi.TaskSpec, c *swarmapi.ContainerSpec) { c.CapabilityAdd = []string{"NET_ADMIN"} },
		"--read-only is not supported":     func(_ *swarmapi.TaskSpec, c *swarmapi.ContainerSpec) { c.ReadOnly = true },
		"--sysctl is not supported": func(_ *swarmapi.TaskSpec, c *swarmapi.ContainerSpec) {
			c.Sysctls = map[string]string{"net.ipv4.ip_default_ttl": "5"}
		},
		"--group is not supported":     func(_ *swarmapi.TaskSpec, c *swarmapi.ContainerSpec) { c.Groups = []string{"adm"} },
		"--isolation is not supported": func(_ *swarmapi.TaskSpec, c *swarmapi.ContainerSpec) { c.Isolation = swarmapi.ContainerIsolationHyperV },
		"Seccomp is not supported": func(_ *swarmapi.TaskSpec, c *swarmapi.ContainerSpec) {
			c.Privileges = &swarmapi.Privileges{Seccomp: &swarmapi.Privileges_SeccompOpts{Mode: swarmapi.Privileges_SeccompOpts_UNCONFINED}}
		},
		"ovnd keeps no volumes":     bind(swarmapi.Mount{Type: swarmapi.MountTypeVolume, Source: "v", Target: "/v"}),
		"invalid mount target":      bind(swarmapi.Mount{Source: "/s", Target: "t"}),
		"invalid bind mount source": bind(swarmapi.Mount{Source: "s", Target: "/t"}),
		"    ":                      bind(swarmapi.Mount{Source: "{{.Service.Name}}", Target: "/t"}),
		"type=tmpfs":                bind(swarmapi.Mount{Type: swarmapi.MountTypeTmpfs, Target: "/t"}),
		"bind-propagation":          bind(swarmapi.Mount{Source: "/s", Target: "/t", BindOptions: &swarmapi.Mount_BindOptions{Propagation: swarmapi.MountPropagationShared}}),
		"of the bind options":       bind(swarmapi.Mount{Source: "/s", Target: "/t", BindOptions: &swarmapi.Mount_BindOptions{NonRecursive: true}}),
		"uid and gid are not supported": func(_ *swarmapi.TaskSpec, c *swarmapi.ContainerSpec) {
			c.Secrets = []*swarmapi.SecretReference{{SecretName: "s", Target: &swarmapi.SecretReference_File{File: &swarmapi.FileTarget{UID: "33"}}}}
		},
		"--config c without a file": func(_ *swarmapi.TaskSpec, c *swarmapi.ContainerSpec) {
			c.Configs = []*swarmapi.ConfigReference{{ConfigName: "c", Target: &swarmapi.ConfigReference_Runtime{}}}
		},
		`health check "FOO"`:     health("FOO", "x"),
		"health check CMD:":      health("CMD"),
		"health check CMD-SHELL": health("CMD-SHELL", "a", "b"),
		"--log-driver syslog":    logs("syslog", nil),
		"--log-opt tag":          logs("json-file", map[string]string{"tag": "x"}),
		"--log-opt max-size=-3":  logs("", map[string]string{"max-size": "-3"}),
		"":                       logs("json-file", map[string]string{"max-size": "10m", "max-file": "3"}),
		" ":                      health("CMD-SHELL", "curl -f localhost"),
		"  ":                     bind(swarmapi.Mount{Source: "/s", Target: "/t", ReadOnly: true, BindOptions: &swarmapi.Mount_BindOptions{}}),
		"   ": func(_ *swarmapi.TaskSpec, c *swarmapi.ContainerSpec) {
			c.Privileges = &swarmapi.Privileges{NoNewPrivileges: true}
			c.CapabilityDrop = []string{"ALL"}
		},
	} {
		c := &swarmapi.ContainerSpec{Image: "nginx"}
		spec := &swarmapi.TaskSpec{Runtime: &swarmapi.TaskSpec_Container{Container: c}}
		edit(spec, c)
		err := checkTaskSpec(spec)
		if accepted := strings.TrimSpace(want) == ""; accepted != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if err := checkTaskSpec(&swarmapi.TaskSpec{}); err == nil {
		t.Error("a task without a container was accepted")
	}
}

// What a template comes to is checked where it is known.
func TestTaskFromAPIRefuses(t *testing.T) {
	for want, edit := range map[string]func(*swarmapi.Task, *swarmapi.ContainerSpec){
		"invalid bind mount source, must be an absolute path: web": func(_ *swarmapi.Task, c *swarmapi.ContainerSpec) {
			c.Mounts = []swarmapi.Mount{{Source: "{{.Service.Name}}", Target: "/t"}}
		},
		"expanding env failed":       func(_ *swarmapi.Task, c *swarmapi.ContainerSpec) { c.Env = []string{"A={{.Nothing}}"} },
		"--cap-add is not supported": func(_ *swarmapi.Task, c *swarmapi.ContainerSpec) { c.CapabilityAdd = []string{"ALL"} },
		"The network host cannot be used with services": func(t *swarmapi.Task, _ *swarmapi.ContainerSpec) {
			n := testNetwork("h", "host")
			n.Spec.Annotations.Labels = map[string]string{"com.docker.swarm.predefined": "true"}
			t.Networks = []*swarmapi.NetworkAttachment{{Network: n}}
		},
		"the swarm allocated no address on network net": func(t *swarmapi.Task, _ *swarmapi.ContainerSpec) {
			t.Networks = []*swarmapi.NetworkAttachment{{Network: testNetwork("n", "net")}}
		},
		"ovnd carries overlay networks only": func(t *swarmapi.Task, _ *swarmapi.ContainerSpec) {
			n := testNetwork("n", "net")
			n.DriverState.Name = "macvlan"
			t.Networks = []*swarmapi.NetworkAttachment{{Network: n}}
		},
	} {
		c := &swarmapi.ContainerSpec{Image: "nginx"}
		task := &swarmapi.Task{
			Spec:               swarmapi.TaskSpec{Runtime: &swarmapi.TaskSpec_Container{Container: c}},
			ServiceAnnotations: swarmapi.Annotations{Name: "web"},
		}
		edit(task, c)
		if _, err := taskFromAPI(task, &swarmapi.NodeDescription{Platform: &swarmapi.Platform{}}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestCheckEndpointSpec(t *testing.T) {
	for want, p := range map[string]swarmapi.PortConfig{
		"":                        {TargetPort: 80},
		"target 0 of -p":          {PublishedPort: 80},
		"target 65536 of -p":      {TargetPort: 65536},
		"published 65536 of -p":   {TargetPort: 80, PublishedPort: 65536},
		"-p 5:6/sctp is not supp": {TargetPort: 6, PublishedPort: 5, Protocol: swarmapi.ProtocolSCTP},
	} {
		err := checkEndpointSpec(&swarmapi.EndpointSpec{Ports: []*swarmapi.PortConfig{&p}})
		if (want == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", p, err)
		}
	}
}

// A port that a node may not bind is refused with node, port and remedy.
func TestCheckPortStart(t *testing.T) {
	node := func(name, start string, state swarmapi.NodeStatus_State) *swarmapi.Node {
		labels := map[string]string{}
		if start != "" {
			labels[LabelPortStart] = start
		}
		return &swarmapi.Node{
			Status:      swarmapi.NodeStatus{State: state},
			Description: &swarmapi.NodeDescription{Hostname: name, Engine: &swarmapi.EngineDescription{Labels: labels}},
		}
	}
	const ready = swarmapi.NodeStatus_READY
	nodes := []*swarmapi.Node{
		node("root", "0", ready), node("docker", "", ready), node("user", "1024", ready),
		node("down", "65535", swarmapi.NodeStatus_DOWN),
		{Status: swarmapi.NodeStatus{State: ready}},
	}
	port := func(n uint32, mode swarmapi.PortConfig_PublishMode) *swarmapi.PortConfig {
		return &swarmapi.PortConfig{PublishedPort: n, TargetPort: 80, PublishMode: mode}
	}
	err := checkPortStart(port(80, swarmapi.PublishModeIngress), nodes)
	if want := "node user cannot publish port 80/tcp: permission denied: choose a port of 1024 or more, or lower net.ipv4.ip_unprivileged_port_start there"; err == nil || err.Error() != want {
		t.Errorf("ingress: %v, want %q", err, want)
	}
	if err := checkPortStart(port(1024, swarmapi.PublishModeIngress), nodes); err != nil {
		t.Errorf("ingress 1024: %v", err)
	}
	if err := checkPortStart(port(80, swarmapi.PublishModeHost), nodes); err != nil {
		t.Errorf("host mode with a node that may: %v", err)
	}
	if err := checkPortStart(port(80, swarmapi.PublishModeHost), nodes[2:]); err == nil {
		t.Error("host mode with no node that may")
	}
}

func TestLogOptions(t *testing.T) {
	since := gogotypes.Timestamp{Seconds: 5}
	o, err := logOptions(swarmapi.LogSubscriptionOptions{Tail: -4, Since: &since, Streams: []swarmapi.LogStream{swarmapi.LogStreamStderr}})
	if err != nil || o.Tail != 3 || !o.Since.Equal(time.Unix(5, 0)) || o.Stdout || !o.Stderr || o.Follow {
		t.Errorf("%+v, %v", o, err)
	}
	if o, err = logOptions(swarmapi.LogSubscriptionOptions{Follow: true}); err != nil || o.Tail != -1 || !o.Stdout || !o.Stderr || !o.Follow {
		t.Errorf("%+v, %v", o, err)
	}
	if _, err = logOptions(swarmapi.LogSubscriptionOptions{Tail: 4}); err == nil {
		t.Error("tail from the start was accepted")
	}
}

func TestTaskExit(t *testing.T) {
	for want, e := range map[string]TaskExit{
		"<nil>":                         {},
		"task: non-zero exit (1)":       {Code: 1},
		"task: non-zero exit (127): x":  {Code: 127, Error: "x"},
		"task: not on this node's PATH": {Error: "not on this node's PATH"},
	} {
		if got := fmt.Sprint(e.Err()); got != want {
			t.Errorf("%+v: %s, want %s", e, got, want)
		}
	}
}

// No request body makes the checks of a service or its translation panic.
func FuzzServiceSpec(f *testing.F) {
	seed, err := json.Marshal(testService("web", "nginx", 3, "-g", "daemon off;"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte(`{"Name":"a","TaskTemplate":{"ContainerSpec":{"Image":"b","Env":["A={{.Task.Slot}}","{{"],"Mounts":[{"Type":"bind","Source":"/a","Target":"/b"}],"Healthcheck":{"Test":["CMD"]}},"LogDriver":{"Options":{"max-size":"1k"}}},"EndpointSpec":{"Mode":"dnsrr","Ports":[{"TargetPort":1,"Protocol":"udp"}]}}`))
	f.Add([]byte(`{"TaskTemplate":{"ContainerSpec":{"Secrets":[null],"Configs":[null],"Ulimits":[null]},"Networks":[{}]},"Mode":{"Global":{}}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var spec swarm.ServiceSpec
		if json.Unmarshal(body, &spec) != nil {
			return
		}
		if checkRuntime(&spec) != nil {
			return
		}
		s, err := convert.ServiceSpecToGRPC(spec)
		if err != nil || checkServiceSpec(&s) != nil {
			return
		}
		_ = serviceName(spec.TaskTemplate.ContainerSpec.Image)
		task := &swarmapi.Task{ID: "t", Spec: s.Task, Slot: 1, Endpoint: &swarmapi.Endpoint{Spec: s.Endpoint}}
		if got, err := taskFromAPI(task, &swarmapi.NodeDescription{Platform: &swarmapi.Platform{}}); err == nil && got.StopGrace < 0 {
			t.Errorf("stop grace %v", got.StopGrace)
		}
	})
}

func TestCheckWay(t *testing.T) {
	for _, labels := range []map[string]string{nil, {"ovnd.vip": "proxy"}, {"ovnd.vip": "direct"}, {"other": "maybe"}} {
		if err := checkWay(labels); err != nil {
			t.Errorf("%v: %v", labels, err)
		}
	}
	for _, value := range []string{"", "maybe", "Direct"} {
		err := checkWay(map[string]string{"ovnd.vip": value})
		if err == nil || !strings.Contains(err.Error(), "ovnd.vip") || !strings.Contains(err.Error(), "proxy or direct") {
			t.Errorf("%q: %v", value, err)
		}
	}
}

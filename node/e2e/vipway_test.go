package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ovnd/ovnd/api/types"
)

// serviceState is what a node's balancer has done for a service.
func (n *node) serviceState(name string) (s types.ServiceState, err error) {
	for _, s := range n.status().Services {
		if s.Name == name {
			return s, nil
		}
	}
	return s, fmt.Errorf("%s knows no service %s", n.name, name)
}

// TestVIPWays: connections to services go directly unless a label says otherwise,
// on plain and encrypted networks, and status tells.
func TestVIPWays(t *testing.T) {
	hosts, addrs := oneMachine(t)
	nodes := threeNodes(t, hosts, addrs)
	m, w := nodes[0], nodes[1]
	for _, network := range []string{"plain", "sealed"} {
		args := []string{"network", "create", "-d", "overlay", "--attachable"}
		if network == "sealed" {
			args = append(args, "--opt", "encrypted")
		}
		m.must(append(args, network)...)
		for name, label := range map[string]string{"default": "other=x", "direct": "ovnd.vip=direct", "proxy": "ovnd.vip=proxy"} {
			m.must("service", "create", "-q", "--name", name+"-"+network, "--network", network, "--label", label,
				"--constraint", "node.hostname==n3", "--env", agentEnv+"=1", "host", testProgram(t), "serve")
		}
		client := w.startAgent("--network", network)
		for name, way := range map[string]string{"default": "direct", "direct": "direct", "proxy": "proxy"} {
			name += "-" + network
			w.eventually("the agent of "+name+" answers", func() error { return client.ask(nil, "open", name) })
			client.mustAsk(nil, "exchange")
			s, err := w.serviceState(name)
			if err != nil {
				t.Fatal(err)
			}
			direct := 0
			if way == "direct" {
				direct = 1
			}
			if b := s.Backends; s.Way != way || len(b) != 1 || b[0].Active == 0 || (b[0].Direct > 0) != (direct > 0) || b[0].Direct > b[0].Active {
				t.Errorf("%s, way %s: %+v", name, way, s)
			}
			client.mustAsk(nil, "send", name, "20000000")
			client.mustAsk(nil, "udp", name, "50", "1200")
			client.mustAsk(nil, "udp", name, "3", "9000")
			client.mustAsk(nil, "exchange")
		}
	}
	if out := w.must("status"); !strings.Contains(out, "DIRECT") || !strings.Contains(out, "proxy-sealed") {
		t.Errorf("status:\n%s", out)
	}
	for _, n := range nodes[1:] {
		checkStatus(t, n)
	}
	for _, value := range []string{"maybe", ""} {
		create := []string{"service", "create", "--name", "no", "--label", "ovnd.vip=" + value, "ovnd/whoami"}
		expectError(t, m.run(create...), 1, "ovnd.vip", "proxy", "direct")
	}
	expectError(t, m.run("service", "update", "--label-add", "ovnd.vip=ipvs", "proxy-plain"), 1, "ovnd.vip", "proxy", "direct")
}

package e2e

import (
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// inspected is what the tests read of `network inspect`.
type inspected struct {
	Name, ID, Driver, Scope string
	IPAM                    struct {
		Config []struct{ Subnet, Gateway string }
	}
	Options    map[string]string
	Containers map[string]struct{ Name, EndpointID, MacAddress, IPv4Address string }
	Peers      []struct{ Name, IP string }
}

func inspect(t *testing.T, out string) inspected {
	t.Helper()
	var list []inspected
	if err := json.Unmarshal([]byte(out), &list); err != nil || len(list) != 1 {
		t.Fatalf("%v: %s", err, out)
	}
	return list[0]
}

const vniOption = "com.docker.network.driver.overlay.vxlanid_list"

// TestFirstCommand is the reference's first command and the defaults around
// it, by ovnd and by the stock docker CLI.
func TestFirstCommand(t *testing.T) {
	hosts, addrs := oneMachine(t)
	clis := map[string]func(n *node, args ...string) result{
		"ovnd": func(n *node, args ...string) result { return n.run(args...) },
	}
	if _, err := exec.LookPath("docker"); err == nil {
		clis["docker"] = dockerCLI
	} else if ci {
		t.Error("CI needs the docker CLI")
	}
	for name, cli := range clis {
		t.Run(name, func(t *testing.T) {
			n := newNode(t, hosts[0], "n1", addrs[0]).up()
			testFirstCommand(t, name, func(args ...string) result { return cli(n, args...) })
			n.down()
		})
	}
}

// dockerCLI runs the stock CLI against the node's socket.
func dockerCLI(n *node, args ...string) result {
	n.t.Helper()
	cmd := exec.Command("docker", append([]string{"-H", "unix://" + filepath.Join(n.stateDir, "run", "ovnd.sock")}, args...)...)
	var stdout, stderr lockedBuffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	ordinaryUser(cmd)
	_ = cmd.Run() // the exit code says it
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

func testFirstCommand(t *testing.T, name string, do func(args ...string) result) {
	r := do("network", "create", "--driver", "overlay", "--subnet", "10.10.19.0/16", "ngx_net")
	id := strings.TrimSpace(r.stdout)
	if r.code != 0 || len(id) != 25 || strings.ContainsAny(id, " \n") {
		t.Fatalf("exit %d, stdout %q, stderr %q", r.code, r.stdout, r.stderr)
	}
	if name == "ovnd" && !strings.Contains(r.stderr, "10.10.0.0/16") {
		t.Errorf("no warning about the host bits on stderr: %q", r.stderr)
	}
	got := inspect(t, do("network", "inspect", "ngx_net").stdout)
	if c := got.IPAM.Config; got.ID != id || len(c) != 1 || c[0].Subnet != "10.10.0.0/16" || c[0].Gateway != "10.10.0.1" {
		t.Errorf("inspect: %+v", got)
	}
	if r := do("network", "create", "-d", "overlay", "second"); r.code != 0 {
		t.Fatalf("exit %d: %s", r.code, r.stderr)
	}
	for _, want := range []struct{ name, subnet, vni string }{
		{"ingress", "10.0.0.0/24", "4096"},
		{"ngx_net", "10.10.0.0/16", "4097"},
		{"second", "10.0.1.0/24", "4098"},
	} {
		got := inspect(t, do("network", "inspect", want.name).stdout)
		if got.IPAM.Config[0].Subnet != want.subnet || got.Options[vniOption] != want.vni || got.Driver != "overlay" || got.Scope != "swarm" {
			t.Errorf("%s: %+v, want subnet %s and VXLAN id %s", want.name, got, want.subnet, want.vni)
		}
	}
	if r := do("network", "rm", "ngx_net", "second"); r.code != 0 || r.stdout != "ngx_net\nsecond\n" {
		t.Errorf("rm: exit %d, %q, %q", r.code, r.stdout, r.stderr)
	}
	// A removed network's subnet and VXLAN id are free again.
	if r := do("network", "create", "-d", "overlay", "third"); r.code != 0 {
		t.Fatalf("exit %d: %s", r.code, r.stderr)
	}
	if got := inspect(t, do("network", "inspect", "third").stdout); got.IPAM.Config[0].Subnet != "10.0.1.0/24" {
		t.Errorf("third: %+v", got)
	}
}

// TestIsolation has two networks on the same nodes, and a node that has one of
// them only.
func TestIsolation(t *testing.T) {
	hosts, addrs := oneMachine(t)
	nodes := threeNodes(t, hosts, addrs)
	m := nodes[0]
	m.must("network", "create", "-d", "overlay", "--attachable", "--subnet", "10.10.0.0/16", "red")
	m.must("network", "create", "-d", "overlay", "--attachable", "--subnet", "10.20.0.0/16", "blue")
	red1 := m.startAgent("--network", "red", "--name", "red1")
	blue1 := m.startAgent("--network", "blue", "--name", "blue1")
	red2 := nodes[1].startAgent("--network", "red", "--name", "red2")
	both := nodes[1].startAgent("--network", "red", "--network", "blue", "--name", "both")

	red1.mustAsk(nil, "send", red2.addr(), "100000")
	both.mustAsk(nil, "send", red1.addr(), "100000")
	both.mustAsk(nil, "send", blue1.addr(), "100000")
	if err := red1.ask(nil, "ping", blue1.addr(), "84"); err == nil {
		t.Error("a ping crossed from one network to the other")
	}

	got := inspect(t, m.must("network", "inspect", "red"))
	if len(got.Peers) != 2 {
		t.Errorf("red has peers %+v, want the two nodes with endpoints", got.Peers)
	}
	found := false
	for _, c := range got.Containers {
		if c.Name == "red1" {
			found = true
			addr, _, _ := strings.Cut(c.IPv4Address, "/")
			if addr != red1.addr() || !strings.HasPrefix(c.MacAddress, "02:42:0a:0a:00:") || len(c.EndpointID) != 64 {
				t.Errorf("red1 is %+v", c)
			}
		}
	}
	if !found {
		t.Errorf("red1 is missing in %+v", got.Containers)
	}
	if out := nodes[2].must("network", "ls", "--format", "{{.Name}}"); strings.Contains(out, "red") {
		t.Errorf("a worker without an endpoint has the network:\n%s", out)
	}
	if out := nodes[1].must("network", "ls", "--format", "{{.Name}}"); !strings.Contains(out, "red") || !strings.Contains(out, "blue") {
		t.Errorf("a worker with endpoints lacks its networks:\n%s", out)
	}
	// The whole cluster's endpoints, on any node that has the network.
	verbose := nodes[1].must("network", "inspect", "--verbose", "red")
	for _, name := range []string{"red1", "red2", "both"} {
		if !strings.Contains(verbose, name) {
			t.Errorf("inspect --verbose lacks %s:\n%s", name, verbose)
		}
	}
}

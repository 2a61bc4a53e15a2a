package e2e

import (
	"errors"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/ovnd/ovnd/bench/lab"
)

// startApp runs a server on the node's machine that nobody told of any network,
// as root of the machine or as the node's user.
// Its port for echoes is the next one to that.
func startApp(n *node, port string, root bool) *lab.Process {
	n.t.Helper()
	number, err := strconv.Atoi(port)
	if err != nil {
		n.t.Fatal(err)
	}
	cmd := exec.Command(ovndPath)
	cmd.Args = []string{"ovnd-whoami", "-port", port, "-echo", strconv.Itoa(number + 1)}
	if !root {
		ordinaryUser(cmd)
	}
	return n.host.Start(cmd)
}

// upAsRoot is up as root of the node's machine, who may add devices to it.
func (n *node) upAsRoot(args ...string) *node {
	n.t.Helper()
	cmd := n.command(n.t.Context(), append([]string{"up", "--foreground", "--hostname", n.name, "--advertise-addr", n.addr}, args...)...)
	cmd.SysProcAttr = nil
	n.process = n.host.Start(cmd)
	n.waitReady()
	return n
}

// TestSidecar: applications that run beside their nodes are the tasks of a
// service: one behind a device in its own namespace, one at a port of its
// machine's 127.0.0.1. Those that are not there get no traffic.
func TestSidecar(t *testing.T) {
	needCurl(t)
	hosts, addrs := threeMachines(t, "192.0.2.%d", 24)
	m := newNode(t, hosts[0], "n1", addrs[0]).up("--proxy", "127.0.0.1")
	join := []string{"--join", m.token("worker"), hostPort(addrs[0], 2377)}
	byPort := newNode(t, hosts[1], "n2", addrs[1]).up(slices.Concat([]string{"--service", "app=8081"}, join)...)
	byDevice := newNode(t, hosts[2], "n3", addrs[2]).upAsRoot(slices.Concat([]string{"--service", "app"}, join)...)
	m.must("network", "create", "-d", "overlay", "--attachable", "net")
	expectError(t, m.run("service", "create", "--sidecar", "--network", "net"), 1, "--name")
	expectError(t, m.run("service", "create", "--sidecar", "--name", "app", "--replicas", "2"), 1, "--replicas")
	m.must("service", "create", "-d", "--sidecar", "--name", "app", "--network", "net", "-p", "8080:80")

	m.eventually("both tasks wait for their applications", func() error {
		out := m.must("service", "ps", "app", "--format", "{{.Node}} {{.CurrentState}}")
		if strings.Count(out, "Starting") != 2 || strings.Contains(out, "n1") {
			return errors.New(out)
		}
		return nil
	})
	if r := m.curl("http://"+proxyAt, "http://app/", "-w", "%{http_code}"); !strings.HasSuffix(r.stdout, "502") {
		t.Errorf("a service whose applications do not run: %+v", r)
	}
	one, two := startApp(byPort, "8081", false), startApp(byDevice, "80", true)
	answers := func(url string, want ...string) {
		t.Helper()
		m.eventually(fmt.Sprintf("%s is answered by %v", url, want), func() error {
			got := map[string]int{}
			for range 2 * len(want) {
				r := m.curl("socks5h://"+proxyAt, url)
				server := line(r.stdout, "server")
				if strings.HasPrefix(server, "10.") {
					server = "device"
				}
				got[server]++
			}
			for _, w := range want {
				if got[w] != 2 {
					return fmt.Errorf("answered: %v", got)
				}
			}
			return nil
		})
	}
	answers("http://app/", "127.0.0.1:8081", "device")
	for _, n := range []*node{m, byPort, byDevice} {
		r := m.program(nil, "curl", "-sS", "--noproxy", "*", "http://"+n.addr+":8080/")
		if line(r.stdout, "server") == "" {
			t.Errorf("the published port of %s: %+v", n.name, r)
		}
	}
	if names := interfaceNames(t, hosts[2]); !slices.Contains(names, "ovnd0") {
		t.Errorf("the third machine has the devices %v, none of the node's", names)
	}
	if names := interfaceNames(t, hosts[1]); slices.Contains(names, "ovnd0") {
		t.Errorf("the second machine has the devices %v", names)
	}

	one.Kill()
	answers("http://app/", "device")
	one = startApp(byPort, "8081", false)
	answers("http://app/", "127.0.0.1:8081", "device")
	two.Kill()
	answers("http://app/", "127.0.0.1:8081")

	byDevice.down()
	if names := interfaceNames(t, hosts[2]); slices.Contains(names, "ovnd0") {
		t.Errorf("after the node's end its machine has the devices %v", names)
	}
	one.Kill()
	m.must("service", "rm", "app")
	// A node that was not told of an application refuses to be its sidecar.
	m.must("service", "create", "-d", "--name", "stray", "--network", "net", "--env", "PORT=80", "ovnd/sidecar")
	m.eventually("the stray sidecar is rejected", func() error {
		if out := m.must("service", "ps", "--no-trunc", "stray"); !strings.Contains(out, `ovnd up --service stray`) {
			return errors.New(out)
		}
		return nil
	})
}

func interfaceNames(t *testing.T, h *lab.Host) []string {
	t.Helper()
	var names []string
	err := h.Do(func() error {
		list, err := net.Interfaces()
		for _, i := range list {
			names = append(names, i.Name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// TestTwoSidecarsOnOneNode: one machine has the applications of two services
// beside its node, whether that may add devices or not. Each is reached by its own
// name, and the second does not take the first one's device.
func TestTwoSidecarsOnOneNode(t *testing.T) {
	needCurl(t)
	hosts, addrs := threeMachines(t, "192.0.2.%d", 24)
	m := newNode(t, hosts[0], "n1", addrs[0]).up("--proxy", "127.0.0.1", "--proxy-network", "front,back")
	join := []string{"--join", m.token("worker"), hostPort(addrs[0], 2377)}
	m.must("network", "create", "-d", "overlay", "--attachable", "front")
	m.must("network", "create", "-d", "overlay", "--attachable", "back")
	m.must("service", "create", "-d", "--sidecar", "--name", "web", "--network", "front", "-p", "8080:80")
	m.must("service", "create", "-d", "--sidecar", "--name", "api", "--network", "back", "-p", "8081:3000")

	byPort := newNode(t, hosts[1], "n2", addrs[1]).up(slices.Concat([]string{"--service", "web=8000", "--service", "api=8002"}, join)...)
	byDevice := newNode(t, hosts[2], "n3", addrs[2]).upAsRoot(slices.Concat([]string{"--service", "web", "--service", "api"}, join)...)
	for _, port := range []string{"8000", "8002"} {
		startApp(byPort, port, false)
	}
	for _, port := range []string{"80", "3000"} {
		startApp(byDevice, port, true)
	}
	for name, ports := range map[string][2]string{"web": {"8000", "80"}, "api": {"8002", "3000"}} {
		url := "http://web/"
		if name == "api" {
			url = "http://api:3000/"
		}
		m.eventually(name+" is answered by both nodes' applications", func() error {
			got := map[string]bool{}
			for range 4 {
				server := line(m.curl("socks5h://"+proxyAt, url).stdout, "server")
				if _, port, err := net.SplitHostPort(server); err == nil {
					got[port] = true
				}
			}
			if len(got) != 2 || !got[ports[0]] || !got[ports[1]] {
				return fmt.Errorf("answered by the ports %v, want %v", got, ports)
			}
			return nil
		})
	}
	names := interfaceNames(t, hosts[2])
	if !slices.Contains(names, "ovnd0") {
		t.Errorf("the third machine has the devices %v: want one of the node's", names)
	}
	// The ports of the machine are the same for both: who has one twice says so.
	expectError(t, m.run("up", "--service", "web=80", "--service", "web=81"), 1, "--service", "web", "twice")
}

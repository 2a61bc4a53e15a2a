package packaging

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// A swarm is one of containers on a network of the engine's. Each node has the
// engine's default seccomp profile and no capability.
type swarm struct {
	t       *testing.T
	image   string
	name    string // of the engine's network, and of the volume of the manager's sockets
	manager string // its container
	token   string
}

func newSwarm(t *testing.T) *swarm {
	t.Helper()
	s := &swarm{t: t, image: image(t), name: fmt.Sprintf("ovnd-test-%s-%d", strings.ToLower(t.Name()), os.Getpid())}
	docker(t, "network", "create", s.name)
	t.Cleanup(func() { docker(t, "network", "rm", s.name) })
	docker(t, "volume", "create", s.name)
	t.Cleanup(func() { docker(t, "volume", "rm", "-f", s.name) })
	s.manager = s.node("manager", []string{"--network-alias", "manager", "-v", s.name + ":/var/lib/ovnd", "-e", "OVND_STATE_DIR=/var/lib/ovnd"})
	s.token = s.ovnd("swarm", "join-token", "-q", "worker")
	s.ovnd("network", "create", "-d", "overlay", "--attachable", "app")
	s.ovnd("service", "create", "-d", "--sidecar", "--name", "web", "--network", "app", "-p", "8080:80")
	return s
}

// node starts a node and returns its container's ID when it is ready.
func (s *swarm) node(hostname string, options []string, args ...string) string {
	s.t.Helper()
	run := []string{
		"--network", s.name, "--hostname", hostname, "--cap-drop", "ALL", "--security-opt", "no-new-privileges",
		"--read-only", "--tmpfs", "/tmp", "-e", "OVND_STATE_DIR=/tmp/ovnd",
	}
	id := start(s.t, slices.Concat(run, options, []string{s.image}, args)...)
	docker(s.t, "exec", id, "ovnd", "status", "--wait")
	return id
}

// member starts a node that leaves with its container.
func (s *swarm) member(hostname string, options []string, args ...string) string {
	s.t.Helper()
	return s.node(hostname, options, slices.Concat([]string{"up", "--foreground", "--ephemeral", "--join", s.token, "manager:2377"}, args)...)
}

// ovnd is a command on the manager.
func (s *swarm) ovnd(args ...string) string {
	s.t.Helper()
	return docker(s.t, append([]string{"exec", s.manager, "ovnd"}, args...)...)
}

// beside are the options of a container that shares another's network namespace.
func beside(id string) []string { return []string{"--network", "container:" + id} }

// TestSidecarsInContainers: nginx knows nothing of any network, nor does its
// client; each has a node beside it. The client reaches nginx by the name of its
// service. First nobody has a privilege; then both may add a device.
func TestSidecarsInContainers(t *testing.T) {
	t.Parallel()
	s, apps := newSwarm(t), programs(t)
	unprivileged := s.member("web1", nil, "--service", "web")
	start(t, append(beside(unprivileged), apps)...)
	client := s.member("client", nil, "--proxy", "127.0.0.1:1080", "--proxy-network", "app")
	byProxy := []string{"-u", "65532:65532", "-e", "ALL_PROXY=socks5h://127.0.0.1:1080", apps, "curl", "-sS", "-m", "5", "http://web/"}
	asks(t, append(beside(client), byProxy...), "nginx on web1, asked from 127.0.0.1")

	tun := []string{"-u", "0:0", "--cap-add", "NET_ADMIN", "--device", "/dev/net/tun"}
	privileged := s.member("web2", tun, "--service", "web")
	start(t, append(beside(privileged), apps)...)
	attached := start(t, slices.Concat(tun, []string{
		"-v", s.name + ":/var/lib/ovnd", s.image, "attach", "--network", "app", "--name", "visitor",
	})...)
	transparently := append(beside(attached), apps, "curl", "-sS", "-m", "5", "http://web/")
	asks(t, transparently, "nginx on web2, asked from 10.")
	asks(t, transparently, "nginx on web1, asked from 127.0.0.1")
	asks(t, append(beside(client), byProxy...), "nginx on web2, asked from 10.")

	// A node beside a client that is no server: names go without a proxy, those of
	// the world and of the engine as before.
	s.ovnd("service", "create", "-d", "--sidecar", "--name", "visitor", "--network", "app")
	visitor := s.member("visitor", append(tun, "--read-only=false"), "--service", "visitor")
	asks(t, append(beside(visitor), apps, "curl", "-sS", "-m", "5", "http://web/"), "nginx on web2, asked from 10.")
	asks(t, append(beside(visitor), apps, "curl", "-sS", "-m", "5", "http://tasks.web./"), "nginx on web")
	knock := append([]string{"run", "--rm"}, append(beside(visitor), apps, "curl", "-sS", "-m", "5", "telnet://manager:2378")...)
	out, _ := exec.Command("docker", knock...).CombinedOutput() // it fails in any case
	if !strings.Contains(string(out), "curl: (7)") {            // could not connect: the name was found
		t.Errorf("a name of the engine's: %s", out)
	}

	// What was killed says nothing to anybody: the managers find out.
	ip := s.addressOf("web2")
	docker(t, "kill", privileged)
	eventually(t, "the managers remove the killed node", func() bool {
		return !strings.Contains(s.ovnd("node", "ls", "--format", "{{.Hostname}}"), "web2")
	})
	docker(t, "rm", "-f", attached)
	eventually(t, "somebody else gets the address of the killed node's task", func() bool {
		out, err := exec.Command("docker", slices.Concat([]string{"run", "--rm"}, tun, []string{
			"-v", s.name + ":/var/lib/ovnd", s.image, "attach", "--network", "name=app,ip=" + ip, "--", "/usr/bin/ovnd", "version",
		})...).CombinedOutput()
		return err == nil && strings.Contains(string(out), ip+"/24 on app")
	})
	asks(t, append(beside(client), byProxy...), "nginx on web1")
}

// asks runs a container until it prints what is wanted.
func asks(t *testing.T, args []string, want string) {
	t.Helper()
	var last string
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("want %q, answered last: %s", want, last)
		}
	})
	eventually(t, want, func() bool {
		out, err := exec.Command("docker", append([]string{"run", "--rm"}, args...)...).CombinedOutput()
		last = string(out)
		return err == nil && strings.Contains(last, want)
	})
}

// addressOf is that of the service's task on a node.
func (s *swarm) addressOf(node string) string {
	s.t.Helper()
	id := s.ovnd("service", "ps", "-q", "--filter", "node="+node, "--filter", "desired-state=running", "web")
	out := s.ovnd("inspect", "--type", "task", "-f", "{{range .NetworksAttachments}}{{if eq .Network.Spec.Name \"app\"}}{{index .Addresses 0}}{{end}}{{end}}", id)
	ip, _, ok := strings.Cut(out, "/")
	if !ok {
		s.t.Fatalf("task %s of %s has the addresses %q", id, node, out)
	}
	return ip
}

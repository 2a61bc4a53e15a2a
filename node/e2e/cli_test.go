package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ovnd/ovnd/bench/lab"
)

// TestDockerCLI has the stock CLI read and change a swarm of two real nodes.
func TestDockerCLI(t *testing.T) {
	if _, err := exec.LookPath("docker"); err != nil {
		if ci {
			t.Fatal("CI needs the docker CLI")
		}
		t.Skip("no docker CLI on this machine")
	}
	h := lab.New(t).Host("machine")
	m := newNode(t, h, "n1", "127.0.0.2").up()
	w := newNode(t, h, "n2", "127.0.0.3").up("--join", m.token("worker"), "127.0.0.2:2377")
	for _, tc := range []struct {
		args string
		want string // in standard output
	}{
		{"version", "ovnd"},
		{"info", "Is Manager: true"},
		{"node ls", "Leader"},
		{"node inspect self --pretty", "n1"},
		{"node update --label-add zone=a n2", "n2"},
		{"node inspect n2 --format {{.Spec.Labels.zone}}", "a\n"},
		{"swarm join-token -q worker", "SWMTKN-1-"},
		{"network create -d overlay --label a=b net", "\n"},
		{"network ls --filter label=a=b --format {{.Name}}", "net\n"},
		{"network prune -f", "net"},
		{"service ls", "REPLICAS"},
		{"ps", "CONTAINER ID"},
	} {
		r := dockerCLI(m, strings.Fields(tc.args)...)
		if r.code != 0 || !strings.Contains(r.stdout, tc.want) {
			t.Errorf("docker %s: exit %d, stdout %q, stderr %q", tc.args, r.code, r.stdout, r.stderr)
		}
	}
	if r := dockerCLI(m, "node", "promote", "n2"); r.code != 0 {
		t.Errorf("promote: %+v", r)
	}
	w.eventually("n2 is a manager", func() error { return succeeded(dockerCLI(w, "node", "ls")) })
	m.eventually("n2 is demoted", func() error { return succeeded(dockerCLI(m, "node", "demote", "n2")) })
	w.eventually("n2 is a worker", func() error {
		if r := dockerCLI(w, "node", "ls"); r.code == 0 {
			return errors.New(r.stdout)
		}
		return nil
	})
	expectError(t, dockerCLI(w, "node", "ls"), 1, "This node is not a swarm manager.")
	expectError(t, dockerCLI(m, "swarm", "leave"), 1, "Use `--force`")
	expectError(t, dockerCLI(m, "network", "create", "net"), 1, "overlay")
	// The CLI sends whole seconds: what happened in the present one is too new.
	m.eventually("the network's events", func() error {
		r := dockerCLI(m, "events", "--since", "10m", "--until", "0s", "--filter", "type=network")
		if !strings.Contains(r.stdout, "network create") || !strings.Contains(r.stdout, "network remove") {
			return errors.New(r.stdout + r.stderr)
		}
		return nil
	})
	if r := dockerCLI(w, "swarm", "leave"); r.code != 0 || !strings.Contains(r.stdout, "Node left the swarm.") {
		t.Errorf("swarm leave: %+v", r)
	}
	if r := dockerCLI(w, "swarm", "join", "--token", m.token("worker"), "127.0.0.2:2377"); r.code != 0 {
		t.Errorf("swarm join after leaving: %+v", r)
	}
	w.eventually("the node is in the swarm again", func() error {
		_, err := w.try("status")
		return err
	})
}

func succeeded(r result) error {
	if r.code != 0 {
		return errors.New(r.stderr)
	}
	return nil
}

// TestBackground is `up` as people type it: it returns when the node is ready,
// and the node runs on until `down`.
func TestBackground(t *testing.T) {
	n := newNode(t, lab.New(t).Host("machine"), "n1", "127.0.0.2")
	t.Cleanup(func() { n.run("down") })
	out := n.must("up", "--advertise-addr", "127.0.0.2", "--hostname", "n1")
	if !strings.Contains(out, "Swarm initialized: current node (") || !strings.Contains(out, "ovnd up --join SWMTKN-1-") {
		t.Errorf("up prints:\n%s", out)
	}
	id := n.must("network", "create", "-d", "overlay", "--attachable", "net")
	if out := n.must("run", "--network", "net", "--hostname", "box", "--env", "X=1", "--workdir", "/usr", "--", "sh", "-c", "hostname; echo $X; pwd"); out != "box\n1\n/usr" {
		t.Errorf("run prints %q", out)
	}
	n.must("down")
	expectError(t, n.run("node", "ls"), 1, "ovnd up")
	n.must("up", "--advertise-addr", "127.0.0.2")
	if got := n.must("network", "ls", "--no-trunc", "-q", "--filter", "name=net"); got != id {
		t.Errorf("after a restart the network is %q, was %q", got, id)
	}
}

// TestEphemeral leaves nothing behind, in the swarm or on disk.
func TestEphemeral(t *testing.T) {
	h := lab.New(t).Host("machine")
	m := newNode(t, h, "n1", "127.0.0.2").up()
	w := newNode(t, h, "n2", "127.0.0.3").up("--ephemeral", "--join", m.token("worker"), "127.0.0.2:2377")
	m.must("network", "create", "-d", "overlay", "--attachable", "net")
	a := w.startAgent("--network", "net", "--name", "a")
	addr := a.addr()
	w.down()
	m.must("run", "--network", "net", "--ip", addr, "--", "true") // the address is free
	m.eventually("the node is down", func() error {
		_, err := m.try("node", "rm", "n2")
		return err
	})
	err := filepath.WalkDir(w.stateDir, func(path string, d os.DirEntry, err error) error {
		if err == nil && strings.Contains(path, "certificates") {
			t.Errorf("left behind: %s", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

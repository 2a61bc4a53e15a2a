package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ovnd/ovnd/api/types"
)

func TestEncryptedOverlayOnOneMachine(t *testing.T) {
	hosts, addrs := oneMachine(t)
	testOverlay(t, threeNodes(t, hosts, addrs), 1424, "--opt", "encrypted")
}

func TestEncryptedOverlayOverIPv4(t *testing.T) {
	hosts, addrs := threeMachines(t, "192.0.2.%d", 24)
	testOverlay(t, threeNodes(t, hosts, addrs), 1424, "--opt", "encrypted")
}

func TestEncryptedOverlayOverIPv6(t *testing.T) {
	hosts, addrs := threeMachines(t, "2001:db8::%d", 64)
	testOverlay(t, threeNodes(t, hosts, addrs), 1404, "--opt", "encrypted")
}

// TestEncryptedWalkthrough is the walk-through on an encrypted network, with
// somebody who listens on the wire.
func TestEncryptedWalkthrough(t *testing.T) {
	testWalkthrough(t, func(w *walkthrough) {
		w.must("network", "create", "--driver", "overlay", "--attachable", "--opt", "encrypted", "--subnet", "10.10.19.0/16", "ngx_net")
		got := inspect(w.t, w.must("network", "inspect", "ngx_net"))
		if v, ok := got.Options["encrypted"]; !ok || v != "" {
			w.t.Errorf("options are %q, want encrypted with an empty value, as Docker has it", got.Options)
		}
		wire := tap(w.t, "lo", w.nodes[0].host)
		wire.watchNetwork(w.nodes[0], "ngx_net")
		wire.watchNetwork(w.nodes[0], "ingress")
		w.t.Cleanup(func() {
			wire.expectSeen("VXLAN of ingress")
			wire.expectUnseen("VXLAN of ngx_net")
		})
	})
}

// TestEncryptedTask has a task of a service with a published port: eth0 is the
// routing mesh, which is not encrypted, and eth1 the encrypted network.
func TestEncryptedTask(t *testing.T) {
	hosts, addrs := oneMachine(t)
	m := newNode(t, hosts[0], "n1", addrs[0]).up()
	m.must("network", "create", "-d", "overlay", "--attachable", "--opt", "encrypted", "--subnet", "10.10.19.0/16", "ngx_net")
	m.must("service", "create", "-q", "--name", "s", "--network", "ngx_net", "-p", "8080:7001", "--env", agentEnv+"=1", "host", testProgram(t), "serve")
	task := strings.Fields(m.must("ps", "--format", "{{.Names}}"))[0]
	for dev, want := range map[string]string{"eth0": "1450", "eth1": "1424", "eth2": "1500"} {
		if got := strings.TrimSpace(m.must("exec", task, "cat", "/sys/class/net/"+dev+"/mtu")); got != want {
			t.Errorf("%s has MTU %s, want %s", dev, got, want)
		}
	}
}

// status is what a node says of itself.
func (n *node) status() types.Status {
	n.t.Helper()
	var s types.Status
	if err := json.Unmarshal([]byte(n.must("status", "--json")), &s); err != nil {
		n.t.Fatal(err)
	}
	return s
}

// session is what a node has with another for the networks of a policy.
func (n *node) session(with *node, policy string) (s types.Session, ok bool) {
	n.t.Helper()
	for _, p := range n.status().Peers {
		if p.IP.String() != with.addr {
			continue
		}
		i := slices.IndexFunc(p.Sessions, func(s types.Session) bool { return s.Policy == policy })
		if i >= 0 {
			return p.Sessions[i], true
		}
	}
	return s, false
}

// waitSession waits until a node can send to another.
func (n *node) waitSession(with *node, policy string) (s types.Session) {
	n.t.Helper()
	n.eventually(n.name+" has a session with "+with.name, func() error {
		var ok bool
		if s, ok = n.session(with, policy); !ok || !s.Established {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	return s
}

// TestSessions looks at what status and inspect say of sessions, made ahead of
// need, with the cipher that each network asks for.
func TestSessions(t *testing.T) {
	hosts, addrs := threeMachines(t, "192.0.2.%d", 24)
	nodes := threeNodes(t, hosts, addrs)
	m, w := nodes[0], nodes[1]
	for network, option := range map[string]string{"any": "encrypted", "chacha": "encrypted=chacha20-poly1305", "aes": "encrypted=aes-256-gcm"} {
		m.must("network", "create", "-d", "overlay", "--attachable", "--opt", option, network)
	}
	for _, tc := range []struct {
		network, policy string
		ciphers         []string
	}{
		{"any", "auto", []string{"chacha20-poly1305", "aes-256-gcm"}},
		{"chacha", "chacha20-poly1305", []string{"chacha20-poly1305"}},
		{"aes", "aes-256-gcm", []string{"aes-256-gcm"}},
	} {
		t.Run(tc.network, func(t *testing.T) {
			here := m.startAgent("--network", tc.network, "--name", "here-"+tc.network)
			there := w.startAgent("--network", tc.network, "--name", "there-"+tc.network)
			got := m.waitSession(w, tc.policy) // nobody has sent anything
			if !slices.Contains(tc.ciphers, got.Cipher) || got.Epoch == 0 || got.IP.String() != w.addr {
				t.Errorf("session %+v, want one of the ciphers %v with %s", got, tc.ciphers, w.addr)
			}
			m.eventually("they know each other", func() error { return here.ask(nil, "canary", there.addr(), canary) })
			after := m.waitSession(w, tc.policy)
			if after.TxPackets <= got.TxPackets || after.RxPackets == 0 {
				t.Errorf("after an exchange %+v, before %+v", after, got)
			}
			checkVerbose(t, m, tc.network, after)
		})
	}
	out := m.must("status")
	for _, want := range []string{"SEALED WITH", "Sealing:", "first tried"} {
		if !strings.Contains(out, want) {
			t.Errorf("status has no %q:\n%s", want, out)
		}
	}
}

// checkVerbose compares `network inspect --verbose` with a session of status.
func checkVerbose(t *testing.T, n *node, network string, want types.Session) {
	t.Helper()
	var list []struct{ Sealing *types.NetworkSealing }
	if err := json.Unmarshal([]byte(n.must("network", "inspect", "--verbose", network)), &list); err != nil || len(list) != 1 {
		t.Fatalf("%d networks, %v", len(list), err)
	}
	s := list[0].Sealing
	if s == nil || s.Policy != want.Policy || len(s.Sessions) != 1 || s.Sessions[0].NodeID != want.NodeID || !s.Sessions[0].Established {
		t.Errorf("inspect --verbose of %s: %+v, want the session %+v", network, s, want)
	}
}

// TestCreateEncrypted is what Docker accepts, or accepts and does not keep.
func TestCreateEncrypted(t *testing.T) {
	hosts, addrs := oneMachine(t)
	m := newNode(t, hosts[0], "n1", addrs[0]).up()
	for i, value := range []string{"encrypted", "encrypted=", "encrypted=true", "encrypted=chacha20-poly1305", "encrypted=aes-256-gcm"} {
		m.must("network", "create", "-d", "overlay", "--opt", value, fmt.Sprintf("net%d", i))
	}
	for _, option := range []string{"encrypted=maybe", "encrypted=false", "encrypted=aes-128-gcm"} {
		expectError(t, m.run("network", "create", "-d", "overlay", "--opt", option, "other"), 1, "encrypted", "chacha20-poly1305")
	}
}

// TestEncryptedCrash kills each node in turn. What is open goes on, with keys
// that were made after the start.
func TestEncryptedCrash(t *testing.T) {
	hosts, addrs := threeMachines(t, "192.0.2.%d", 24)
	nodes := threeNodes(t, hosts, addrs)
	m := nodes[0]
	m.must("network", "create", "-d", "overlay", "--attachable", "--opt", "encrypted", "sealed")
	var agents [3]*sandbox
	for i, n := range nodes {
		agents[i] = n.startAgent("--network", "sealed", "--name", fmt.Sprintf("a%d", i+1))
	}
	for i, a := range agents {
		a.mustAsk(nil, "open", agents[(i+1)%3].addr())
		a.mustAsk(nil, "exchange")
	}
	victims := []int{1, 0, 2}
	for round := range rounds(30) * len(victims) {
		victim := victims[round%len(victims)]
		other := nodes[(victim+1)%3]
		before := other.waitSession(nodes[victim], "auto")
		nodes[victim].kill()
		nodes[victim].up()
		for i, a := range agents {
			if err := a.ask(nil, "exchange"); err != nil {
				t.Fatalf("round %d, after n%d was killed: connection of n%d: %v", round, victim+1, i+1, err)
			}
		}
		if after := other.waitSession(nodes[victim], "auto"); after.Key == before.Key || before.Key == "" {
			t.Errorf("round %d: n%d has the static key %q after its restart, had %q", round, victim+1, after.Key, before.Key)
		}
	}
	// What seals is kept for a start without managers.
	m.kill()
	nodes[1].kill()
	nodes[1].up()
	if err := agents[1].ask(nil, "exchange"); err != nil { // with the third
		t.Errorf("after a restart without a manager: %v", err)
	}
	nodes[1].waitSession(nodes[2], "auto")
	m.up()
	for _, n := range nodes {
		checkStatus(t, n)
	}
}

// TestEncryptedRootRotation changes the swarm's root certificate under traffic.
// Sessions go on, and a node that restarts with certificates of the new root
// makes new ones.
func TestEncryptedRootRotation(t *testing.T) {
	if _, err := exec.LookPath("docker"); err != nil {
		if ci {
			t.Fatal("CI needs the docker CLI")
		}
		t.Skip("no docker CLI on this machine")
	}
	hosts, addrs := threeMachines(t, "192.0.2.%d", 24)
	nodes := threeNodes(t, hosts, addrs)
	m, w := nodes[0], nodes[1]
	m.must("network", "create", "-d", "overlay", "--attachable", "--opt", "encrypted", "sealed")
	here, there := m.startAgent("--network", "sealed"), w.startAgent("--network", "sealed")
	m.eventually("they know each other", func() error { return here.ask(nil, "canary", there.addr(), canary) })
	here.mustAsk(nil, "open", there.addr())
	root := func(n *node) string {
		text, err := os.ReadFile(filepath.Join(n.stateDir, "swarm", "certificates", "swarm-root-ca.crt"))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	old := root(m)
	others := here.background("udp", there.addr(), "2000", "200")
	if r := dockerCLI(m, "swarm", "ca", "--rotate", "--quiet"); r.code != 0 {
		t.Fatalf("swarm ca --rotate: %+v", r)
	}
	for _, n := range nodes {
		n.eventually(n.name+" trusts the new root alone", func() error {
			if now := root(n); now == old || strings.Count(now, "BEGIN CERTIFICATE") != 1 {
				return errors.New("not yet")
			}
			return nil
		})
	}
	others(t, 2000)
	here.mustAsk(nil, "exchange")
	w.kill()
	w.up()
	here.mustAsk(nil, "exchange")
	m.waitSession(w, "auto")
	if refused := m.status().Sealing.Refusals["identity"]; refused > 0 {
		t.Logf("%d handshakes were refused for their certificates meanwhile", refused)
	}
}

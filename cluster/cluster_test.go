package cluster

import (
	"encoding/json"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"
)

func TestSingleNode(t *testing.T) {
	start := time.Now()
	n := startChild(t, testConfig(t, "127.0.0.2", testPort(t))).ready()
	t.Logf("ready after %v", time.Since(start))
	n.event("keys")

	var info swarm.Info
	n.must(request{Op: "info"}, &info)
	if info.LocalNodeState != swarm.LocalNodeStateActive || !info.ControlAvailable || info.NodeAddr != "127.0.0.2" || info.Cluster == nil {
		t.Errorf("info: %+v", info)
	}
	if got := info.Cluster.Spec.Dispatcher.HeartbeatPeriod; got != heartbeatPeriod {
		t.Errorf("heartbeat period %v", got)
	}

	// The ingress network comes with the swarm, and this node's address on it.
	var st NodeState
	n.await("ingress address", 10*time.Second, func(m message) bool {
		return m.Event == "configured" && json.Unmarshal(m.Data, &st) == nil && len(st.LoadBalancers) > 0
	})
	lb := st.LoadBalancers[0]
	if lb.Network.Name != "ingress" || lb.Network.VNI != 4096 || lb.Network.Subnets[0].Prefix.String() != "10.0.0.0/24" || lb.Addr.String() != "10.0.0.2/24" {
		t.Errorf("load balancer: %+v", lb)
	}
	if st.DataPathPort != 4789 || st.NodeID != info.NodeID {
		t.Errorf("node state: %+v", st)
	}

	ctx := request{Op: "events", Timeout: 2 * time.Second}
	done := make(chan []string)
	go func() {
		var evs []string
		n.call(ctx, &evs)
		done <- evs
	}()
	time.Sleep(100 * time.Millisecond) // the watch is set up; nothing tells when

	var created []string
	n.must(request{Op: "create", Create: network.CreateRequest{Name: "first", Driver: "overlay", Attachable: true, Labels: map[string]string{"a": "b"}}}, &created)
	var nw network.Inspect
	n.must(request{Op: "network", Target: "first"}, &nw)
	if nw.ID != created[0] || nw.IPAM.Config[0].Subnet.String() != "10.0.1.0/24" || nw.IPAM.Config[0].Gateway.String() != "10.0.1.1" ||
		nw.Options["com.docker.network.driver.overlay.vxlanid_list"] != "4097" || nw.Scope != "swarm" || nw.Driver != "overlay" || !nw.Attachable || nw.Labels["a"] != "b" {
		t.Errorf("first network: %+v", nw)
	}
	n.must(request{Op: "network", Target: created[0][:6]}, &nw)
	if nw.Name != "first" {
		t.Errorf("by ID prefix: %+v", nw)
	}
	var nets []network.Inspect
	n.must(request{Op: "networks"}, &nets)
	if len(nets) != 2 || nets[0].Name != "first" || nets[1].Name != "ingress" {
		t.Errorf("networks: %+v", nets)
	}
	n.must(request{Op: "rm", Target: "first"}, nil)
	if err := n.call(request{Op: "network", Target: "first"}, nil); err != "network first not found" {
		t.Errorf("after removal: %q", err)
	}
	evs := strings.Join(<-done, "\n")
	for _, want := range []string{"network create first", "network remove first"} {
		if !strings.Contains(evs, want) {
			t.Errorf("events lack %q:\n%s", want, evs)
		}
	}

	start = time.Now()
	errText, goroutines := n.stop()
	t.Logf("stopped after %v, %d goroutines left", time.Since(start), goroutines)
	if errText != "" || goroutines > 25 {
		t.Errorf("stop: %q, %d goroutines left", errText, goroutines)
	}

	// It comes back as it was.
	start = time.Now()
	n = n.again().ready()
	t.Logf("restarted after %v", time.Since(start))
	var again swarm.Info
	n.must(request{Op: "info"}, &again)
	if again.NodeID != info.NodeID {
		t.Errorf("node ID %s after restart, was %s", again.NodeID, info.NodeID)
	}
	n.must(request{Op: "create", Create: network.CreateRequest{Name: "second"}}, nil)
}

func TestCreateRefused(t *testing.T) {
	n := startChild(t, testConfig(t, "127.0.0.2", testPort(t))).ready()
	subnet := func(s string) *network.IPAM {
		return &network.IPAM{Config: []network.IPAMConfig{{Subnet: netip.MustParsePrefix(s)}}}
	}
	var out []string
	n.must(request{Op: "create", Create: network.CreateRequest{Name: "ngx_net", IPAM: subnet("10.10.19.0/16")}}, &out)
	if want := "subnet 10.10.19.0/16 has host bits set: using 10.10.0.0/16"; out[1] != want {
		t.Errorf("warning %q, want %q", out[1], want)
	}
	var nw network.Inspect
	n.must(request{Op: "network", Target: "ngx_net"}, &nw)
	if c := nw.IPAM.Config[0]; c.Subnet.String() != "10.10.0.0/16" || c.Gateway.String() != "10.10.0.1" {
		t.Errorf("ngx_net: %+v", c)
	}

	opt := func(k, v string) map[string]string { return map[string]string{k: v} }
	for _, tt := range []struct {
		req  network.CreateRequest
		want string
	}{
		{network.CreateRequest{Name: ""}, "invalid name: name is empty"},
		{network.CreateRequest{Name: "bad name!"}, "rpc error: code = InvalidArgument desc = name must be valid as a DNS name component"},
		{network.CreateRequest{Name: "bridge"}, "bridge is a pre-defined network and cannot be created"},
		{network.CreateRequest{Name: "ngx_net"}, "network with name ngx_net already exists"},
		{network.CreateRequest{Name: "x", Driver: "nosuch"}, `plugin "nosuch" not found: ovnd has overlay networks only, use --driver overlay`},
		{network.CreateRequest{Name: "x", Scope: "local"}, "cannot downgrade network scope for overlay networks"},
		{network.CreateRequest{Name: "x", Ingress: true}, "rpc error: code = AlreadyExists desc = ingress network ("},
		{network.CreateRequest{Name: "x", Options: opt("encrypted", "maybe")}, `option encrypted="maybe": want no value or "true"`},
		{network.CreateRequest{Name: "x", Options: map[string]string{"encrypted": "", "ovnd.vtep.a": "192.0.2.1,learn"}}, "options encrypted and ovnd.vtep.a exclude each other"},
		{network.CreateRequest{Name: "x", Options: opt("nosuchopt", "1")}, `unknown driver option "nosuchopt"`},
		{network.CreateRequest{Name: "x", Options: opt("com.docker.network.driver.mtu", "abc")}, "want a number of bytes"},
		{network.CreateRequest{Name: "x", Options: opt("com.docker.network.driver.overlay.vxlanid_list", "4097")}, "VXLAN ID 4097 is taken by network ngx_net"},
		{network.CreateRequest{Name: "x", IPAM: subnet("10.10.20.0/24")}, "subnet 10.10.20.0/24 overlaps with 10.10.0.0/16 of network ngx_net"},
		{network.CreateRequest{Name: "x", IPAM: subnet("10.0.0.128/25")}, "overlaps with 10.0.0.0/24 of network ingress"},
	} {
		if err := n.call(request{Op: "create", Create: tt.req}, nil); !strings.Contains(err, tt.want) {
			t.Errorf("create %+v: %q, want %q", tt.req, err, tt.want)
		}
	}

	n.must(request{Op: "create", Create: network.CreateRequest{Name: "vni", Options: opt("com.docker.network.driver.overlay.vxlanid_list", "5000")}}, nil)
	n.must(request{Op: "network", Target: "vni"}, &nw)
	if got := nw.Options["com.docker.network.driver.overlay.vxlanid_list"]; got != "5000" {
		t.Errorf("VXLAN ID %s, want 5000", got)
	}
	if err := n.call(request{Op: "rm", Target: "nosuch"}, nil); err != "network nosuch not found" {
		t.Errorf("rm nosuch: %q", err)
	}
	if err := n.call(request{Op: "service", Service: testService("s", "sleep", 1)}, nil); !strings.HasPrefix(err, "services are not supported") {
		t.Errorf("service: %q", err)
	}
	if err := n.call(request{Op: "autolock"}, nil); !strings.HasPrefix(err, "autolock is not supported") {
		t.Errorf("autolock: %q", err)
	}
}

// A pool that is used up is said, and no half-made network stays.
func TestPoolUsedUp(t *testing.T) {
	cfg := testConfig(t, "127.0.0.2", testPort(t))
	cfg.DefaultAddrPool, cfg.SubnetSize = []netip.Prefix{netip.MustParsePrefix("10.77.0.0/28")}, 29
	n := startChild(t, cfg).ready()
	n.must(request{Op: "create", Create: network.CreateRequest{Name: "last"}}, nil) // ingress has the first /29
	if err := n.call(request{Op: "create", Create: network.CreateRequest{Name: "more"}}, nil); !strings.Contains(err, "address pool is used up") {
		t.Errorf("create: %q", err)
	}
	if err := n.call(request{Op: "network", Target: "more"}, nil); err != "network more not found" {
		t.Errorf("network more: %q", err)
	}
}

func TestAttach(t *testing.T) {
	m := startChild(t, testConfig(t, "127.0.0.2", testPort(t))).ready()
	m.must(request{Op: "create", Create: network.CreateRequest{Name: "net", Attachable: true}}, nil)
	m.must(request{Op: "create", Create: network.CreateRequest{Name: "closed"}}, nil)
	start := time.Now()
	w := startChild(t, m.join("127.0.0.3", swarm.NodeRoleWorker)).ready()
	t.Logf("worker ready after %v", time.Since(start))

	var a, b Attachment
	start = time.Now()
	w.must(request{Op: "attach", Container: "c1", Target: "net"}, &a)
	t.Logf("attached after %v", time.Since(start))
	m.must(request{Op: "attach", Container: "c2", Target: "net", Addrs: []string{"10.0.1.77"}}, &b)
	if len(a.Addrs) != 1 || a.Addrs[0].Bits() != 24 || !a.Network.Subnets[0].Prefix.Contains(a.Addrs[0].Addr()) || a.Network.VNI != 4097 || a.Restored {
		t.Errorf("attachment: %+v", a)
	}
	if b.Addrs[0].String() != "10.0.1.77/24" {
		t.Errorf("static address: %+v", b)
	}
	w.event("assigned")
	var byPrefix Attachment
	m.must(request{Op: "attach", Container: "c7", Target: a.Network.ID[:8]}, &byPrefix)
	if byPrefix.Network.ID != a.Network.ID {
		t.Errorf("by ID prefix: %+v", byPrefix)
	}

	// A worker knows the networks that it takes part in, and no others.
	var nets []network.Inspect
	w.must(request{Op: "networks"}, &nets)
	if len(nets) != 2 || nets[0].Name != "ingress" || nets[1].Name != "net" {
		t.Errorf("networks of the worker: %+v", nets)
	}
	var nw network.Inspect
	w.must(request{Op: "network", Target: "net"}, &nw)
	if nw.IPAM.Config[0].Subnet.String() != "10.0.1.0/24" || nw.Created.IsZero() {
		t.Errorf("net on the worker: %+v", nw)
	}

	for _, tt := range []struct {
		on   *child
		req  request
		want string
	}{
		{w, request{Op: "attach", Container: "c3", Target: "closed"}, "Could not attach to network closed: rpc error: code = PermissionDenied desc = network closed not manually attachable"},
		{w, request{Op: "attach", Container: "c3", Target: "nosuch"}, "Could not attach to network nosuch: rpc error: code = NotFound desc = network nosuch not found"},
		{m, request{Op: "attach", Container: "c3", Target: "net", Addrs: []string{a.Addrs[0].Addr().String()}}, "is in use on network net by task " + a.TaskID},
		{w, request{Op: "attach", Container: "c3", Target: "net", Addrs: []string{"10.0.1.77"}}, "10.0.1.77 is taken or outside"},
		{w, request{Op: "attach", Container: "c3", Target: "net", Addrs: []string{"10.9.9.9"}}, "invalid IP address 10.9.9.9: it is outside the network's subnet 10.0.1.0/24"},
		{m, request{Op: "attach", Container: "c3", Target: "net", Addrs: []string{"10.0.1.1"}}, "10.0.1.1 is the gateway of network net"},
		{w, request{Op: "create", Create: network.CreateRequest{Name: "w1"}}, `This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.`},
		{w, request{Op: "rm", Target: "net"}, "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state. Please run this command on a manager node or promote the current node to a manager."},
		{w, request{Op: "nodes"}, "This node is not a swarm manager. Worker nodes can't be used"},
		{m, request{Op: "rm", Target: "net"}, "rpc error: code = FailedPrecondition desc = network " + a.Network.ID + " is in use by task "},
	} {
		if err := tt.on.call(tt.req, nil); !strings.Contains(err, tt.want) {
			t.Errorf("%s %+v: %q, want %q", tt.on.name, tt.req, err, tt.want)
		}
	}

	// Detached, the address can be had again, and what failed above holds none.
	w.must(request{Op: "detach", Target: a.TaskID}, nil)
	w.must(request{Op: "detach", Target: a.TaskID}, nil)
	w.await("removed", 10*time.Second, func(m message) bool { return m.Event == "removed" && strings.Contains(string(m.Data), a.TaskID) })
	eventually(t, "address free again", 10*time.Second, func() bool {
		return m.call(request{Op: "attach", Container: "c4", Target: "net", Addrs: []string{a.Addrs[0].Addr().String()}}, nil) == ""
	})
	var atts []Attachment
	w.must(request{Op: "attachments"}, &atts)
	if len(atts) != 0 {
		t.Errorf("attachments left on the worker: %+v", atts)
	}

	// A graceful end gives the addresses back.
	m.must(request{Op: "rm", Target: "closed"}, nil)
	w.must(request{Op: "attach", Container: "c5", Target: "net"}, &a)
	if err, _ := w.stop(); err != "" {
		t.Errorf("stop: %s", err)
	}
	eventually(t, "address of a stopped node free", 10*time.Second, func() bool {
		return m.call(request{Op: "attach", Container: "c6", Target: "net", Addrs: []string{a.Addrs[0].Addr().String()}}, nil) == ""
	})

	// Nothing is left behind, not even by the requests that failed.
	m.must(request{Op: "attachments"}, &atts)
	for _, att := range atts {
		m.must(request{Op: "detach", Target: att.TaskID}, nil)
	}
	eventually(t, "network can be removed", 10*time.Second, func() bool { return m.call(request{Op: "rm", Target: "net"}, nil) == "" })

	// A node shows the address it advertises, although its connection comes
	// from 127.0.0.1.
	var node swarm.Node
	m.must(request{Op: "node", Target: "node-3"}, &node)
	if node.Status.Addr != "127.0.0.3" || node.Spec.Role != swarm.NodeRoleWorker || node.Description.Engine.EngineVersion != "test" {
		t.Errorf("node: %+v", node)
	}
}

// A worker that dies and restarts while its manager is away keeps its
// attachments; with the manager back they can be given back.
func TestRestartWithoutManager(t *testing.T) {
	m := startChild(t, testConfig(t, "127.0.0.2", testPort(t))).ready()
	m.must(request{Op: "create", Create: network.CreateRequest{Name: "net", Attachable: true}}, nil)
	w := startChild(t, m.join("127.0.0.3", swarm.NodeRoleWorker)).ready()
	var a, b Attachment
	w.must(request{Op: "attach", Container: "c1", Target: "net"}, &a)
	w.must(request{Op: "attach", Container: "c2", Target: "net"}, &b)
	time.Sleep(300 * time.Millisecond) // RUNNING is on the worker's disk

	m.kill()
	if err := w.call(request{Op: "attach", Container: "c3", Target: "net", Timeout: time.Second}, nil); !strings.Contains(err, "no manager of the swarm answers (managers known: 127.0.0.2:") {
		t.Errorf("attach without a manager: %q", err)
	}
	w.kill()
	w = w.again().ready()
	for range 2 {
		var got Attachment
		msg := w.event("assigned")
		if err := json.Unmarshal(msg.Data, &got); err != nil {
			t.Fatal(err)
		}
		if !got.Restored {
			t.Errorf("not restored: %+v", got)
		}
	}
	var atts []Attachment
	eventually(t, "both attachments", 5*time.Second, func() bool {
		w.must(request{Op: "attachments"}, &atts)
		return len(atts) == 2
	})
	var status string
	if w.must(request{Op: "status"}, &status); status != "pending" {
		t.Errorf("status %q without a manager, want pending", status)
	}
	if err := w.call(request{Op: "detach", Target: b.TaskID, Timeout: 200 * time.Millisecond}, nil); !strings.Contains(err, "tried again in the background") {
		t.Errorf("detach without a manager: %q", err)
	}

	m = m.again().ready()
	w.await("removal of what was given back meanwhile", 30*time.Second, func(m message) bool {
		return m.Event == "removed" && strings.Contains(string(m.Data), b.TaskID)
	})
	eventually(t, "address free again", 10*time.Second, func() bool {
		return m.call(request{Op: "attach", Container: "c4", Target: "net", Addrs: []string{b.Addrs[0].Addr().String()}}, nil) == ""
	})
	w.must(request{Op: "attachments"}, &atts)
	if len(atts) != 1 || atts[0].TaskID != a.TaskID {
		t.Errorf("attachments: %+v, want %s alone", atts, a.TaskID)
	}
	w.must(request{Op: "attach", Container: "c5", Target: "net"}, nil)
}

func TestManagers(t *testing.T) {
	m1 := startChild(t, testConfig(t, "127.0.0.2", testPort(t))).ready()
	m2 := startChild(t, m1.join("127.0.0.3", swarm.NodeRoleManager)).ready()
	w := startChild(t, m1.join("127.0.0.4", swarm.NodeRoleWorker)).ready()

	var nodes []swarm.Node
	m2.must(request{Op: "nodes"}, &nodes)
	if len(nodes) != 3 {
		t.Errorf("nodes: %+v", nodes)
	}
	m2.must(request{Op: "create", Create: network.CreateRequest{Name: "net", Attachable: true}}, nil)
	var info swarm.Info
	m2.must(request{Op: "info"}, &info)
	if info.Managers != 2 || info.Nodes != 3 || len(info.Warnings) != 1 {
		t.Errorf("info: %+v", info)
	}

	role := func(r swarm.NodeRole, status string) {
		t.Helper()
		m1.must(request{Op: "role", Target: "node-4", Role: r}, nil)
		eventually(t, "node-4 is "+status, 30*time.Second, func() bool {
			var got string
			w.must(request{Op: "status"}, &got)
			return got == status && (r == swarm.NodeRoleWorker || w.call(request{Op: "nodes"}, nil) == "")
		})
	}
	var a Attachment
	w.must(request{Op: "attach", Container: "c1", Target: "net"}, &a)
	role(swarm.NodeRoleManager, "active/manager")
	w.must(request{Op: "nodes"}, &nodes)
	for _, n := range nodes {
		if n.ManagerStatus == nil || n.ManagerStatus.Addr != n.Status.Addr+":"+m1.portText() {
			t.Errorf("node %s: status %+v, manager %+v", n.Description.Hostname, n.Status, n.ManagerStatus)
		}
	}
	role(swarm.NodeRoleWorker, "active/worker")
	var atts []Attachment
	if w.must(request{Op: "attachments"}, &atts); len(atts) != 1 {
		t.Errorf("attachments after promotion and demotion: %+v", atts)
	}

	if err := m2.call(request{Op: "leave"}, nil); !strings.Contains(err, "Removing this node leaves 1 managers out of 2. Without a Raft quorum your swarm will be inaccessible.") {
		t.Errorf("leave: %q", err)
	}
	if err := m1.call(request{Op: "rmnode", Target: "node-4"}, nil); !strings.Contains(err, "is not down and can't be removed") {
		t.Errorf("rm node: %q", err)
	}
	w.must(request{Op: "leave"}, nil)
	w.event("left")
	w.must(request{Op: "status"}, new(string))
	if entries, _ := os.ReadDir(w.cfg.StateDir); len(entries) != 1 {
		t.Errorf("state after leaving: %v", entries)
	}
	if err := w.call(request{Op: "leave"}, nil); err != "This node is not part of a swarm" {
		t.Errorf("leave twice: %q", err)
	}
}

func (c *child) portText() string {
	_, port, _ := net.SplitHostPort(c.cfg.ListenAddr.String())
	return port
}

// After leaving, the same process starts or joins a swarm again.
func TestLeaveInitJoin(t *testing.T) {
	n := startChild(t, testConfig(t, "127.0.0.2", testPort(t))).ready()
	var before, after swarm.Info
	n.must(request{Op: "info"}, &before)
	if err := n.call(request{Op: "init"}, nil); !strings.HasPrefix(err, "This node is already part of a swarm.") {
		t.Errorf("init: %q", err)
	}
	if err := n.call(request{Op: "leave"}, nil); err != "You are attempting to leave the swarm on a node that is participating as a manager. Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message. " {
		t.Errorf("leave: %q", err)
	}
	n.must(request{Op: "leave", Force: true}, nil)
	if err := n.call(request{Op: "create", Create: network.CreateRequest{Name: "x"}}, nil); !strings.HasPrefix(err, "This node is not a swarm manager. Use ") {
		t.Errorf("create in no swarm: %q", err)
	}
	if err := n.call(request{Op: "attach", Container: "c", Target: "x"}, nil); !strings.Contains(err, "This node is not part of a swarm") {
		t.Errorf("attach in no swarm: %q", err)
	}
	var id string
	n.must(request{Op: "init", Init: swarm.InitRequest{ListenAddr: "0.0.0.0:2377"}}, &id)
	n.must(request{Op: "info"}, &after)
	if after.NodeID != id || id == before.NodeID || after.Cluster.ID == before.Cluster.ID || after.NodeAddr != "127.0.0.2" {
		t.Errorf("second swarm: %+v", after)
	}

	other := startChild(t, testConfig(t, "127.0.0.3", testPort(t))).ready()
	join := n.join("127.0.0.3", swarm.NodeRoleWorker)
	req := swarm.JoinRequest{ListenAddr: "0.0.0.0:2377", RemoteAddrs: []string{join.JoinAddr}, JoinToken: join.JoinToken}
	if err := other.call(request{Op: "join", Join: req}, nil); !strings.HasPrefix(err, "This node is already part of a swarm.") {
		t.Errorf("join: %q", err)
	}
	other.must(request{Op: "leave", Force: true}, nil)
	req.JoinToken = "badtoken"
	if err := other.call(request{Op: "join", Join: req}, nil); err != "invalid join token" {
		t.Errorf("join with a bad token: %q", err)
	}
	req.JoinToken = join.JoinToken
	other.must(request{Op: "join", Join: req}, nil)
	var nodes []swarm.Node
	n.must(request{Op: "nodes"}, &nodes)
	if len(nodes) != 2 {
		t.Errorf("nodes: %+v", nodes)
	}
}

func TestStartRefused(t *testing.T) {
	port := testPort(t)
	m := startChild(t, testConfig(t, "127.0.0.2", port)).ready()
	good := m.join("127.0.0.3", swarm.NodeRoleWorker)
	foreign := startChild(t, testConfig(t, "127.0.0.5", port)).ready().join("127.0.0.3", swarm.NodeRoleWorker)
	m.must(request{Op: "rotate"}, nil)

	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		edit func(*Config)
		want string
	}{
		"token":      {func(c *Config) { c.JoinToken = "badtoken" }, "invalid join token"},
		"rotated":    {func(*Config) {}, "A valid join token is necessary to join this cluster"},
		"other CA":   {func(c *Config) { c.JoinToken = foreign.JoinToken }, "remote CA does not match fingerprint. Expected: "},
		"no manager": {func(c *Config) { c.JoinAddr = "127.0.0.9:1" }, "no manager answered at 127.0.0.9:1 within 20s"},
		"port":       {func(c *Config) { c.JoinAddr, c.ListenAddr, c.AdvertiseAddr = "", m.cfg.ListenAddr, m.cfg.ListenAddr }, "is in use: stop what listens there"},
		"address":    {func(c *Config) { c.JoinAddr, c.ListenAddr = "", netip.MustParseAddrPort("192.0.2.1:2377") }, "is no address of this machine"},
		"locked":     {func(c *Config) { c.StateDir = m.cfg.StateDir }, "is in use by another ovnd"},
		"no folder":  {func(c *Config) { c.StateDir = filepath.Join(file, "state") }, "choose another with --state-dir"},
		"long path":  {func(c *Config) { c.ControlSocket = "/tmp/" + strings.Repeat("x", 110) }, "choose a shorter --state-dir"},
		"data port":  {func(c *Config) { c.DataPathPort = 80 }, "Datapath port number is not in valid range (1024-49151) : 80"},
		"pool":       {func(c *Config) { c.SubnetSize = 30 }, "subnet size is out of range: 30"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // they mostly wait
			cfg := good
			cfg.StateDir = filepath.Join(t.TempDir(), "state")
			tt.edit(&cfg)
			n := startChild(t, cfg)
			err := n.exited()
			t.Log(err)
			if !strings.Contains(err, tt.want) {
				t.Errorf("ended with %q, want %q", err, tt.want)
			}
		})
	}
}

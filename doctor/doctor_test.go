package doctor

import (
	"context"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/ovnd/ovnd/bench/lab"
)

// alone is a host with an underlay and nobody else.
func alone(t *testing.T) *lab.Host {
	t.Helper()
	l := lab.New(t)
	h, other := l.Host("h"), l.Host("other")
	l.Veth(1500,
		lab.End{Host: h, Name: "eth0", Addrs: []string{"192.0.2.1/24", "2001:db8::1/64"}},
		lab.End{Host: other, Name: "eth0", Addrs: []string{"192.0.2.2/24", "2001:db8::2/64"}})
	return h
}

// Where everything is allowed, the examination says so, and leaves no interface
// and no process behind.
func TestAllAllowed(t *testing.T) {
	h := alone(t)
	h.Sysctl("net.ipv4.ip_unprivileged_port_start", "80")
	h.Sysctl("net.ipv4.ping_group_range", "0 0")
	r := examineIn(t, h, Config{Mode: Require, StateDir: t.TempDir() + "/not/made/yet", Addr: netip.MustParseAddr("192.0.2.1")})
	for _, check := range []string{
		"kernel", "open files", "state folder", "tun", "ids", "namespaces", "tun inside", "sandboxes", "low ports",
		"socket buffers", "ping", "udp offload", "port 2377/tcp", "port 7946/tcp", "port 7946/udp", "port 4789/udp",
		"underlay", "other overlays", "address pool",
	} {
		f := r.finding(t, check)
		if f.Level != OK {
			t.Errorf("%+v", f)
		}
	}
	if !r.OK {
		t.Errorf("%+v", r)
	}
	links, err := h.Netlink().LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if name := l.Attrs().Name; !slices.Contains([]string{"lo", "eth0"}, name) {
			t.Errorf("%s was left behind", name)
		}
	}
}

// In a container with the default profile nothing works but a report.
func TestNothingAllowed(t *testing.T) {
	h := alone(t)
	cfg := Config{Addr: netip.MustParseAddr("192.0.2.1")}
	r := examineIn(t, h, cfg, strictEnv+"=1")
	r.finding(t, "namespaces").want(t, Warn, "forbids user namespaces", "--security-opt seccomp=unconfined")
	r.finding(t, "sandboxes").want(t, Warn, "cannot be made", "ovnd up --tun never")
	if !r.OK {
		t.Errorf("a lack of sandboxes is a failure without being required: %+v", r)
	}
	cfg.Mode = Require
	if r := examineIn(t, h, cfg, strictEnv+"=1"); r.OK || r.finding(t, "sandboxes").Level != Fail {
		t.Errorf("%+v", r)
	}
	cfg.Mode = Never
	r = examineIn(t, h, cfg, strictEnv+"=1")
	r.finding(t, "sandboxes").want(t, OK, "not looked at", "")
	if slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Check == "namespaces" || f.Check == "tun" }) {
		t.Errorf("%+v", r)
	}
}

// Examine ends in time when everything it asks is silent, and gives its
// goroutines back.
func TestSilence(t *testing.T) {
	h := alone(t)
	cfg := Config{Addr: netip.MustParseAddr("192.0.2.1")}
	for _, a := range []string{"192.0.2.77", "2001:db8::77", "198.51.100.1"} {
		cfg.Peers = append(cfg.Peers, Peer{Addr: netip.MustParseAddr(a)})
	}
	r := examineIn(t, h, cfg)
	r.finding(t, "peer 192.0.2.77").want(t, Fail, "no answer at port 7946/tcp", "let 192.0.2.1 through")
	r.finding(t, "peer 198.51.100.1").want(t, Fail, "network is unreachable", "ip route get 198.51.100.1")
	r.finding(t, "path to 2001:db8::77").want(t, Warn, "not found out", "")
	r.finding(t, "path to 198.51.100.1").want(t, Fail, "no route", "ip route get 198.51.100.1")
}

// reachable waits until new links carry packets.
func reachable(t *testing.T, from *lab.Host, addrs ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for _, a := range addrs {
		if err := from.Ping(ctx, netip.MustParseAddr(a), lab.Ping{}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPorts(t *testing.T) {
	h := alone(t)
	addr := netip.MustParseAddr("192.0.2.1")
	if err := h.Do(func() error {
		tcp, err := net.Listen("tcp", "192.0.2.1:2377")
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = tcp.Close() })
		udp, err := net.ListenPacket("udp", ":7946")
		if err != nil {
			return err
		}
		t.Cleanup(func() { _ = udp.Close() })
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	h.VXLAN(lab.VXLAN{Name: "flannel.1", VNI: 42, Local: addr})
	r := examineIn(t, h, Config{Addr: addr})
	self := "(pid " + strconv.Itoa(os.Getpid()) + ")"
	r.finding(t, "port 2377/tcp").want(t, Fail, self, "kill "+strconv.Itoa(os.Getpid()))
	r.finding(t, "port 7946/tcp").want(t, OK, "free", "")
	r.finding(t, "port 7946/udp").want(t, Fail, self, "--advertise-addr")
	r.finding(t, "port 4789/udp").want(t, Fail, "the kernel's VXLAN device flannel.1", "ip link del flannel.1, or give a new swarm another port")
	r.finding(t, "other overlays").want(t, OK, "flannel.1 (flannel, VXLAN, port 4789/udp)", "")
	r = examineIn(t, h, Config{Addr: addr, NodePID: os.Getpid(), DataPath: 4790, Gossip: 7947})
	r.finding(t, "port 2377/tcp").want(t, OK, "the node's that is up here", "")
	r.finding(t, "port 4790/udp").want(t, OK, "free", "")
	r = examineIn(t, h, Config{Addr: netip.MustParseAddr("192.0.2.9")})
	r.finding(t, "port 7946/udp").want(t, Fail, "no address of this machine", "--advertise-addr")
	r.finding(t, "underlay").want(t, Fail, "no address of this machine", "--advertise-addr")
}

// A peer that listens is told from one that refuses.
func TestPeer(t *testing.T) {
	l := lab.New(t)
	a, b := l.Host("a"), l.Host("b")
	l.Veth(1400,
		lab.End{Host: a, Name: "eth0", Addrs: []string{"192.0.2.1/24"}},
		lab.End{Host: b, Name: "eth0", Addrs: []string{"192.0.2.2/24"}})
	a.Sysctl("net.ipv4.ping_group_range", "0 0")
	reachable(t, a, "192.0.2.2")
	cfg := Config{Addr: netip.MustParseAddr("192.0.2.1"), Peers: []Peer{{Addr: netip.MustParseAddr("192.0.2.2")}}}
	r := examineIn(t, a, cfg)
	r.finding(t, "peer 192.0.2.2").want(t, OK, "no node is up there yet", "")
	r.finding(t, "path to 192.0.2.2").want(t, Warn, "MTU 1400 (by echo)", "com.docker.network.driver.mtu=1350 ")
	r.finding(t, "underlay").want(t, Warn, "MTU 1400", "com.docker.network.driver.mtu=1350 ")
	if err := b.Do(func() error {
		ln, err := net.Listen("tcp", "192.0.2.2:7946")
		if err == nil {
			t.Cleanup(func() { _ = ln.Close() })
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	cfg.Peers[0].Name, cfg.Peers[0].Node = "n2", true
	examineIn(t, a, cfg).finding(t, "peer n2 192.0.2.2").want(t, OK, "a node answers", "")
	cfg.Gossip = 7947
	examineIn(t, a, cfg).finding(t, "peer n2 192.0.2.2").want(t, Warn, "no node has port 7947/tcp", "ovnd status")
}

package cluster

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"
)

// A manager that restarts with another address has it everywhere: nobody is sent
// to the old one, and its swarm is what it was.
func TestManagerMoves(t *testing.T) {
	port := testPort(t)
	m := startChild(t, testConfig(t, "127.0.0.2", port)).ready()
	m.must(request{Op: "create", Create: network.CreateRequest{Name: "net", Attachable: true}}, nil)
	m.stop()

	for _, ip := range []string{"127.0.0.4", "127.0.0.5"} {
		cfg := m.cfg
		cfg.ListenAddr, cfg.AdvertiseAddr = netip.AddrPort{}, netip.AddrPortFrom(netip.MustParseAddr(ip), 0)
		m = startChild(t, cfg).ready()
		want := netip.AddrPortFrom(netip.MustParseAddr(ip), port).String()
		var info swarm.Info
		eventually(t, "the managers know the address "+want, 10*time.Second, func() bool {
			m.must(request{Op: "info"}, &info)
			return len(info.RemoteManagers) == 1 && info.RemoteManagers[0].Addr == want
		})
		if info.NodeAddr != ip {
			t.Errorf("the node is at %s", info.NodeAddr)
		}
		var n network.Inspect
		m.must(request{Op: "network", Target: "net"}, &n)
		cfg = m.join("127.0.0.3", swarm.NodeRoleWorker)
		cfg.JoinAddr = want
		w := startChild(t, cfg).ready()
		w.must(request{Op: "attach", Container: "c" + ip, Target: "net"}, nil)
		w.stop()
		m.stop()
	}
}

// One of three managers comes back with another address: the others learn it.
func TestOneOfManagersMoves(t *testing.T) {
	port := testPort(t)
	m1 := startChild(t, testConfig(t, "127.0.0.2", port)).ready()
	m2 := startChild(t, m1.join("127.0.0.3", swarm.NodeRoleManager)).ready()
	m3 := startChild(t, m1.join("127.0.0.4", swarm.NodeRoleManager)).ready()
	m1.stop() // the leader
	cfg := m1.cfg
	cfg.ListenAddr, cfg.AdvertiseAddr = netip.AddrPort{}, netip.MustParseAddrPort("127.0.0.5:0")
	startChild(t, cfg).ready()
	want := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.5"), port).String()
	for _, m := range []*child{m2, m3} {
		eventually(t, "the other managers know the address "+want, 30*time.Second, func() bool {
			var nodes []swarm.Node
			if m.call(request{Op: "nodes"}, &nodes) != "" {
				return false
			}
			for _, n := range nodes {
				if n.ManagerStatus != nil && n.ManagerStatus.Addr == want {
					return n.ManagerStatus.Reachability == swarm.ReachabilityReachable
				}
			}
			return false
		})
	}
}

// What was one with the advertised address follows it, what was not does not,
// and an address that this machine does not have is refused by its flag.
func TestFollow(t *testing.T) {
	at := netip.MustParseAddrPort
	none := netip.AddrPort{}
	for _, tt := range []struct {
		what                       string
		listen, advertise          netip.AddrPort // of the last run
		givenListen, givenAdverise netip.AddrPort
		wantListen, wantAdvertise  string
		err                        string
	}{
		{"nothing changed", at("127.0.0.2:1"), at("127.0.0.2:1"), none, none, "127.0.0.2:1", "127.0.0.2:1", ""},
		{"another one is given", at("127.0.0.2:1"), at("127.0.0.2:1"), none, at("127.0.0.3:0"), "127.0.0.3:1", "127.0.0.3:1", ""},
		{"with a port", at("127.0.0.2:1"), at("127.0.0.2:1"), none, at("127.0.0.3:2"), "127.0.0.3:2", "127.0.0.3:2", ""},
		{"two ports", at("127.0.0.2:1"), at("127.0.0.2:9"), none, at("127.0.0.3:0"), "127.0.0.3:1", "127.0.0.3:9", ""},
		{"listens everywhere", at("0.0.0.0:1"), at("198.51.100.1:1"), none, none, "0.0.0.0:1", "198.51.100.1:1", ""},
		{"behind a NAT", at("127.0.0.2:1"), at("198.51.100.1:1"), none, none, "127.0.0.2:1", "198.51.100.1:1", ""},
		{"both are given", at("127.0.0.2:1"), at("127.0.0.2:1"), at("127.0.0.4:4"), at("127.0.0.3:3"), "127.0.0.4:4", "127.0.0.3:3", ""},
		{"gone, with a NAT", at("198.51.100.2:1"), at("198.51.100.1:1"), none, none, "", "", "--listen-addr"},
		{"one that is not here", at("127.0.0.2:1"), at("127.0.0.2:1"), none, at("198.51.100.1:0"), "", "", "--advertise-addr"},
	} {
		t.Run(tt.what, func(t *testing.T) {
			sc := startConfig{ListenAddr: tt.listen, AdvertiseAddr: tt.advertise, DataPathAddr: tt.advertise.Addr()}
			if !isLocal(sc.DataPathAddr) {
				sc.DataPathAddr = netip.MustParseAddr("127.0.0.1")
			}
			err := sc.follow(&Config{ListenAddr: tt.givenListen, AdvertiseAddr: tt.givenAdverise}, "")
			switch {
			case tt.err != "":
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("%v", err)
				}
			case err != nil:
				t.Error(err)
			case sc.ListenAddr.String() != tt.wantListen || sc.AdvertiseAddr.String() != tt.wantAdvertise:
				t.Errorf("listens at %s, advertises %s", sc.ListenAddr, sc.AdvertiseAddr)
			}
		})
	}
	// Gone: it is chosen again, and the data path with it.
	sc := startConfig{ListenAddr: at("198.51.100.1:7"), AdvertiseAddr: at("198.51.100.1:7"), DataPathAddr: netip.MustParseAddr("198.51.100.1")}
	if err := sc.follow(&Config{}, "127.0.0.9:1"); err != nil {
		t.Fatal(err)
	}
	if want := at("127.0.0.1:7"); sc.AdvertiseAddr != want || sc.ListenAddr != want || sc.DataPathAddr != want.Addr() || sc.former != at("198.51.100.1:7") {
		t.Errorf("%+v", sc)
	}
}

func TestOtherPeer(t *testing.T) {
	d := &stateDir{path: t.TempDir()}
	self := netip.MustParseAddrPort("192.0.2.1:2377")
	if got := d.otherPeer(self); got != "" {
		t.Errorf("without a file: %q", got)
	}
	if err := os.WriteFile(filepath.Join(d.path, peersFile), []byte(`[{"NodeID":"a","Addr":"192.0.2.1:2377"},{"NodeID":"b","Addr":"192.0.2.2:2377"}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := d.otherPeer(self); got != "192.0.2.2:2377" {
		t.Errorf("%q", got)
	}
}

package cluster

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"
	swarmapi "github.com/moby/swarmkit/v2/api"
	"github.com/sirupsen/logrus"
)

func TestCheckIPAM(t *testing.T) {
	prefix := func(s string) (p netip.Prefix) {
		if s != "" {
			p = netip.MustParsePrefix(s)
		}
		return p
	}
	for _, tt := range []struct {
		subnet, ipRange, gateway string
		warnings                 int
		want                     string // of the error
	}{
		{subnet: "10.10.0.0/16"},
		{subnet: "10.10.19.0/16", warnings: 1},
		{subnet: "10.10.19.0/16", ipRange: "10.10.19.3/24", gateway: "10.10.255.254", warnings: 2},
		{subnet: "10.30.0.0/29"},
		{subnet: "10.30.0.0/30", want: "invalid subnet 10.30.0.0/30: too small"},
		{subnet: "10.30.0.0/24", gateway: "10.31.0.1", want: "invalid gateway 10.31.0.1: parent subnet 10.30.0.0/24 doesn't contain this address"},
		{subnet: "10.30.0.0/24", gateway: "10.30.0.0", want: "invalid gateway 10.30.0.0: it is the network or broadcast address"},
		{subnet: "10.30.0.0/24", gateway: "10.30.0.255", want: "invalid gateway 10.30.0.255: it is the network or broadcast address"},
		{subnet: "10.30.0.0/24", gateway: "fd00::1", want: "invalid gateway fd00::1: parent subnet is an IPv4 block"},
		{gateway: "10.30.0.254", want: "every ip-range or gateway must have a corresponding subnet"},
		{subnet: "10.43.0.0/24", ipRange: "10.44.0.128/25", want: "invalid ip-range 10.44.0.128/25: parent subnet 10.43.0.0/24 doesn't contain ip-range"},
		{subnet: "10.43.0.0/24", ipRange: "10.43.0.0/16", want: "CIDR block is bigger than its parent subnet 10.43.0.0/24"},
		{subnet: "10.43.0.0/24", ipRange: "fd00::/64", want: "invalid ip-range fd00::/64: parent subnet is an IPv4 block"},
		{subnet: "fd00::/64", want: "invalid subnet fd00::/64: the swarm's allocator hands out IPv4 addresses only"},
		{subnet: "224.0.0.0/24", want: "not addresses that hosts can have"},
		{subnet: "127.0.0.0/8", want: "not addresses that hosts can have"},
		{subnet: "0.0.0.0/8", want: "not addresses that hosts can have"},
	} {
		cfg := network.IPAMConfig{Subnet: prefix(tt.subnet), IPRange: prefix(tt.ipRange)}
		if tt.gateway != "" {
			cfg.Gateway = netip.MustParseAddr(tt.gateway)
		}
		warnings, err := checkIPAM(&cfg)
		switch {
		case tt.want == "" && (err != nil || len(warnings) != tt.warnings):
			t.Errorf("%+v: %q, %v", tt, warnings, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%+v: error %v, want %q", tt, err, tt.want)
		case err == nil && cfg.Subnet != cfg.Subnet.Masked():
			t.Errorf("%+v: host bits left in %s", tt, cfg.Subnet)
		}
	}
}

func TestCheckCreate(t *testing.T) {
	subnet := &network.IPAM{Config: []network.IPAMConfig{{Subnet: netip.MustParsePrefix("10.10.0.0/16")}}}
	yes, no := true, false
	for _, tt := range []struct {
		req     network.CreateRequest
		want    string // of the error
		warning string
	}{
		{req: network.CreateRequest{Name: "container:x"}, want: `network name "container:x" is reserved and cannot be created`},
		{req: network.CreateRequest{Name: "x", ConfigOnly: true}, want: "leave out --config-only"},
		{req: network.CreateRequest{Name: "x", EnableIPv4: &no}, want: "needs IPv4"},
		{req: network.CreateRequest{Name: "x", EnableIPv6: &yes}, want: "IPv6 is not available"},
		{req: network.CreateRequest{Name: "x", Scope: "galaxy"}, want: `invalid scope "galaxy"`},
		{req: network.CreateRequest{Name: "x", IPAM: &network.IPAM{Driver: "dhcp"}}, want: `plugin "dhcp" not found`},
		{req: network.CreateRequest{Name: "x", IPAM: &network.IPAM{Config: make([]network.IPAMConfig, 2)}}, want: "a network takes one --subnet"},
		{req: network.CreateRequest{Name: "x", Options: map[string]string{"com.docker.network.driver.overlay.vxlanid_list": "5,6"}}, want: "names 2 VXLAN IDs"},
		{req: network.CreateRequest{Name: "x", IPAM: subnet, Options: map[string]string{"ovnd.vtep.k": "192.0.2.9,ip=10.10.0.200,mac=02:00:00:00:00:01"}}, warning: "10.10.0.200 may be given to a task as well"},
		{req: network.CreateRequest{Name: "x", IPAM: subnet, Options: map[string]string{"ovnd.vtep.k": "192.0.2.9,ip=10.10.0.1,mac=02:00:00:00:00:01"}}, want: "is the gateway"},
		{req: network.CreateRequest{Name: "x", IPAM: subnet, Options: map[string]string{"ovnd.vtep.k": "192.0.2.9,ip=10.9.0.1,mac=02:00:00:00:00:01"}}, want: "lies in no subnet"},
		{req: network.CreateRequest{Name: "x", Options: map[string]string{"ovnd.vtep.k": "192.0.2.9,ip=10.9.0.1,mac=02:00:00:00:00:01"}}, warning: "without --subnet"},
	} {
		warnings, err := checkCreate(&tt.req)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%+v: error %v, want %q", tt.req, err, tt.want)
		}
		if got := strings.Join(warnings, "\n"); !strings.Contains(got, tt.warning) {
			t.Errorf("%+v: warnings %q, want %q", tt.req, got, tt.warning)
		}
	}
}

// No request body makes checkCreate panic, and what it accepts is complete.
func FuzzCheckCreate(f *testing.F) {
	f.Add([]byte(`{"Name":"n","Driver":"overlay","IPAM":{"Config":[{"Subnet":"10.10.19.0/16","Gateway":"10.10.0.1","IPRange":"10.10.1.0/24"}]}}`))
	f.Add([]byte(`{"Name":"n","Options":{"com.docker.network.driver.mtu":"1400","ovnd.vtep.a":"192.0.2.1,learn"}}`))
	f.Add([]byte(`{"Name":"n","IPAM":{"Config":[{"Subnet":"::ffff:10.0.0.0/120"}]}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var req network.CreateRequest
		if json.Unmarshal(body, &req) != nil {
			return
		}
		if _, err := checkCreate(&req); err != nil {
			return
		}
		if req.Name == "" || req.Driver != overlayDriver {
			t.Errorf("accepted %+v", req)
		}
		if req.IPAM != nil && len(req.IPAM.Config) > 0 {
			c := req.IPAM.Config[0]
			if len(req.IPAM.Config) > 1 || c.Subnet != c.Subnet.Masked() || !c.Subnet.Addr().Is4() || c.Gateway.IsValid() && !c.Subnet.Contains(c.Gateway) {
				t.Errorf("accepted %+v", c)
			}
		}
		_ = checkAgainst(&req, []*swarmapi.Network{testNetwork("aaa", "n"), {ID: "b"}})
	})
}

func testNetwork(id, name string) *swarmapi.Network {
	return &swarmapi.Network{
		ID:          id,
		Spec:        swarmapi.NetworkSpec{Annotations: swarmapi.Annotations{Name: name}},
		DriverState: &swarmapi.Driver{Name: "overlay", Options: map[string]string{"com.docker.network.driver.overlay.vxlanid_list": "4100"}},
		IPAM:        &swarmapi.IPAMOptions{Configs: []*swarmapi.IPAMConfig{{Subnet: "10.0.4.0/24", Gateway: "10.0.4.1"}}},
	}
}

func TestPickNetwork(t *testing.T) {
	nets := []*swarmapi.Network{testNetwork("abc1", "one"), testNetwork("abc2", "twin"), testNetwork("abd3", "twin"), testNetwork("xyz4", "abc1")}
	for input, want := range map[string]string{
		"abc1": "abc1", // an ID wins over the name of another
		"one":  "abc1",
		"abd":  "abd3",
		"twin": "network twin is ambiguous (2 matches found based on name)",
		"ab":   "network ab is ambiguous (3 matches found based on ID prefix)",
		"no":   "network no not found",
		"":     "network  not found",
	} {
		n, err := pickNetwork(nets, input)
		got := ""
		if err != nil {
			got = err.Error()
		} else {
			got = n.ID
		}
		if got != want {
			t.Errorf("%q: %q, want %q", input, got, want)
		}
	}
}

// What arrives from a manager and cannot be carried is refused with a reason.
func TestNetworkFromAPI(t *testing.T) {
	ok, err := networkFromAPI(testNetwork("id", "net"))
	if err != nil || ok.VNI != 4100 || ok.Subnets[0].Gateway.String() != "10.0.4.1" {
		t.Errorf("%+v, %v", ok, err)
	}
	back, err := networkFromAPI(networkToAPI(ok))
	if err != nil || back.VNI != ok.VNI || back.Subnets[0] != ok.Subnets[0] || back.Name != ok.Name {
		t.Errorf("round trip: %+v, %v", back, err)
	}
	for want, edit := range map[string]func(*swarmapi.Network){
		"not allocated": func(n *swarmapi.Network) { n.IPAM = nil },
		"driver":        func(n *swarmapi.Network) { n.DriverState.Name = "macvlan" },
		"encrypted":     func(n *swarmapi.Network) { n.DriverState.Options["encrypted"] = "maybe" },
		// An allocator that loses the option does not make the network plain.
		"exclude each other": func(n *swarmapi.Network) {
			n.Spec.DriverConfig = &swarmapi.Driver{Options: map[string]string{"encrypted": ""}}
			n.DriverState.Options["ovnd.vtep.a"] = "192.0.2.1,learn"
		},
		"2 subnets":       func(n *swarmapi.Network) { n.IPAM.Configs = append(n.IPAM.Configs, n.IPAM.Configs[0]) },
		"0 VXLAN IDs":     func(n *swarmapi.Network) { n.DriverState.Options = nil },
		"subnet: netip":   func(n *swarmapi.Network) { n.IPAM.Configs[0].Subnet = "x" },
		"gateway: ParseA": func(n *swarmapi.Network) { n.IPAM.Configs[0].Gateway = "x" },
	} {
		n := testNetwork("id", "net")
		edit(n)
		if _, err := networkFromAPI(n); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	if _, err := networkFromAPI(nil); err == nil {
		t.Error("no network accepted")
	}
}

func TestResolveAddr(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1":           "192.0.2.1:2377",
		"192.0.2.1:99":        "192.0.2.1:99",
		"2001:db8::1":         "[2001:db8::1]:2377",
		"[2001:db8::1]:99":    "[2001:db8::1]:99",
		"::ffff:192.0.2.1":    "192.0.2.1:2377",
		"192.0.2.1:x":         "",
		"192.0.2.1:65536":     "",
		"no-such-interface":   "",
		"no-such-interface:1": "",
		"":                    "",
	} {
		got, err := ResolveAddr(in, DefaultPort)
		if want == "" && err == nil || want != "" && (err != nil || got.String() != want) {
			t.Errorf("%q: %v, %v, want %q", in, got, err, want)
		}
	}
	for in, want := range map[string]string{"m": "m:2377", "m:1": "m:1", "::1": "[::1]:2377", "[::1]": "[::1]:2377", "[::1]:7": "[::1]:7"} {
		if got := withPort(in); got != want {
			t.Errorf("withPort(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestCompleteAddrs(t *testing.T) {
	ap := netip.MustParseAddrPort
	for _, tt := range []struct{ listen, advertise, wantListen, wantAdvertise string }{
		{"127.0.0.2:2377", "127.0.0.2:2377", "127.0.0.2:2377", "127.0.0.2:2377"},
		{"127.0.0.2:99", "", "127.0.0.2:99", "127.0.0.2:99"},
		{"", "127.0.0.2:99", "127.0.0.2:99", "127.0.0.2:99"},
		{"", "127.0.0.2:0", "127.0.0.2:2377", "127.0.0.2:2377"},
		{"0.0.0.0:99", "127.0.0.2:0", "0.0.0.0:99", "127.0.0.2:99"},
		{"[::1]:0", "", "[::1]:2377", "[::1]:2377"},
	} {
		var sc startConfig
		if tt.listen != "" {
			sc.ListenAddr = ap(tt.listen)
		}
		if tt.advertise != "" {
			sc.AdvertiseAddr = ap(tt.advertise)
		}
		if err := sc.completeAddrs(); err != nil || sc.ListenAddr.String() != tt.wantListen || sc.AdvertiseAddr.String() != tt.wantAdvertise || sc.DataPathAddr != sc.AdvertiseAddr.Addr() {
			t.Errorf("%+v: %+v, %v", tt, sc, err)
		}
	}
	var sc startConfig // nothing said: some address, on the default port
	if err := sc.completeAddrs(); err != nil || !sc.AdvertiseAddr.IsValid() || sc.AdvertiseAddr.Addr().IsUnspecified() || sc.AdvertiseAddr.Port() != DefaultPort {
		t.Errorf("nothing said: %+v, %v", sc, err)
	}
}

func TestState(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	d, err := openState(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	if _, err := openState(dir); err == nil || !strings.Contains(err.Error(), "is in use by another ovnd") {
		t.Errorf("second open: %v", err)
	}
	sc := startConfig{ListenAddr: netip.MustParseAddrPort("127.0.0.2:99"), DataPathPort: 4790, Joining: "m:1", joinToken: "secret"}
	if err := d.save(sc); err != nil {
		t.Fatal(err)
	}
	got, err := d.load()
	sc.joinToken = ""
	if err != nil || got.ListenAddr != sc.ListenAddr || got.DataPathPort != 4790 || got.Joining != "m:1" || got.joinToken != "" {
		t.Errorf("load: %+v, %v", got, err)
	}
	for _, f := range []string{"state.json", "mine"} {
		if err := os.WriteFile(d.file(f), []byte(`[{"node_id":"a","addr":"127.0.0.2:99"},{"node_id":"b","addr":"127.0.0.3:99"}]`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.forgetSelf(sc.ListenAddr); err != nil {
		t.Fatal(err)
	}
	if data, _ := os.ReadFile(d.file("state.json")); strings.Contains(string(data), "127.0.0.2") || !strings.Contains(string(data), "127.0.0.3:99") {
		t.Errorf("peers: %s", data)
	}
	if err := d.clear(); err != nil {
		t.Fatal(err)
	}
	if d.has("state.json") || d.has(startFile) || !d.has("mine") || !d.has(lockFile) {
		t.Error("clear removed too much or too little")
	}
	if err := os.WriteFile(d.file(startFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.load(); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("damaged file: %v", err)
	}
	fi, _ := os.Stat(dir)
	if fi.Mode().Perm() != 0o700 {
		t.Errorf("mode %v", fi.Mode())
	}
	open := filepath.Join(t.TempDir(), "open")
	if err := os.Mkdir(open, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := privateDir(open); err == nil || !strings.Contains(err.Error(), "can be entered by other users") {
		t.Errorf("open folder: %v", err)
	}
}

func TestLogHook(t *testing.T) {
	var buf bytes.Buffer
	hook := logHook{slog.NewTextHandler(&buf, &slog.HandlerOptions{Level: slog.LevelInfo})}
	fire := func(level logrus.Level, msg string, err error) string {
		buf.Reset()
		e := logrus.NewEntry(logrus.New()).WithField("node.id", "n1").WithError(err)
		e.Level, e.Message = level, msg
		if err := hook.Fire(e); err != nil {
			t.Fatal(err)
		}
		return buf.String()
	}
	for _, tt := range []struct {
		level logrus.Level
		msg   string
		err   error
		want  string
	}{
		{logrus.ErrorLevel, "agent: session failed", errors.New("refused"), `level=WARN msg="swarmkit: agent: session failed"`},
		{logrus.WarnLevel, "careful", nil, "level=WARN"},
		{logrus.FatalLevel, "end", nil, "level=ERROR"},
		{logrus.InfoLevel, "step", nil, ""},
		{logrus.ErrorLevel, "error creating cluster object", errors.New("x"), ""},
		{logrus.ErrorLevel, "agent: session failed", errors.New("rpc error: dispatcher is stopped"), ""},
	} {
		if got := fire(tt.level, tt.msg, tt.err); !strings.Contains(got, tt.want) || tt.want == "" && got != "" {
			t.Errorf("%+v: %q", tt, got)
		}
	}
}

func TestEventMessage(t *testing.T) {
	now := time.Unix(1700000000, 5)
	node := func(state swarmapi.NodeStatus_State, role swarmapi.NodeRole) *swarmapi.Object {
		return &swarmapi.Object{Object: &swarmapi.Object_Node{Node: &swarmapi.Node{
			ID: "n", Role: role, Status: swarmapi.NodeStatus{State: state}, Description: &swarmapi.NodeDescription{Hostname: "host"},
		}}}
	}
	m, ok := eventMessage(&swarmapi.WatchMessage_Event{
		Action:    swarmapi.WatchActionKindUpdate,
		Object:    node(swarmapi.NodeStatus_READY, swarmapi.NodeRoleManager),
		OldObject: node(swarmapi.NodeStatus_DOWN, swarmapi.NodeRoleWorker),
	}, now)
	a := m.Actor.Attributes
	if !ok || m.Type != events.NodeEventType || m.Action != events.ActionUpdate || m.Scope != "swarm" || a["name"] != "host" ||
		a["state.old"] != "down" || a["state.new"] != "ready" || a["role.old"] != "worker" || a["role.new"] != "manager" || a["availability.old"] != "" {
		t.Errorf("%+v", m)
	}
	m, ok = eventMessage(&swarmapi.WatchMessage_Event{
		Action: swarmapi.WatchActionKindRemove,
		Object: &swarmapi.Object{Object: &swarmapi.Object_Network{Network: testNetwork("id", "net")}},
	}, now)
	if !ok || m.Type != events.NetworkEventType || m.Action != events.ActionRemove || m.Actor.ID != "id" || m.TimeNano != now.UnixNano() {
		t.Errorf("%+v", m)
	}
	if _, ok = eventMessage(&swarmapi.WatchMessage_Event{Action: swarmapi.WatchActionKindCreate, Object: &swarmapi.Object{}}, now); ok {
		t.Error("an event without object was accepted")
	}
}

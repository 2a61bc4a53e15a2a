package main

import (
	"bytes"
	"net/http"
	"net/netip"
	"os"
	"reflect"
	"testing"

	"github.com/docker/cli/opts"
	"github.com/moby/moby/api/types/swarm"

	"github.com/ovnd/ovnd/node"
)

func TestUpConfig(t *testing.T) {
	tests := []struct {
		name string
		args []string
		want node.Config
	}{
		{"nothing", nil, node.Config{Availability: swarm.NodeAvailabilityActive, SubnetSize: 24, TUN: node.TUNAuto}},
		{"everything", []string{
			"--join", "SWMTKN-1-w", "--hostname", "h", "--advertise-addr", "127.0.0.3", "--listen-addr", "127.0.0.4:2378",
			"--data-path-addr", "127.0.0.5", "--data-path-port", "5000", "--ephemeral", "--label", "a=b", "--availability", "drain",
			"--default-addr-pool", "10.20.0.0/16", "--default-addr-pool-mask-length", "26", "--dns", "127.0.0.6", "--host-loopback",
			"--tun", "require",
		}, node.Config{
			JoinToken: "SWMTKN-1-w", JoinAddr: "127.0.0.2:2377", Hostname: "h",
			AdvertiseAddr: netip.MustParseAddrPort("127.0.0.3:0"), ListenAddr: netip.MustParseAddrPort("127.0.0.4:2378"),
			DataPathAddr: netip.MustParseAddr("127.0.0.5"), DataPathPort: 5000, Ephemeral: true, Labels: map[string]string{"a": "b"},
			Availability: swarm.NodeAvailabilityDrain, DefaultAddrPool: []netip.Prefix{netip.MustParsePrefix("10.20.0.0/16")}, SubnetSize: 26,
			StateDir: "/tmp/s", DNSAddr: netip.MustParseAddrPort("127.0.0.6:5353"), HostLoopback: true, TUN: node.TUNRequire,
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := &cli{logLevel: "info", stateDir: tt.want.StateDir}
			f := upFlags{labels: opts.NewListOpts(opts.ValidateLabel)}
			cmd := newUpCommand(c)
			cmd.ResetFlags()
			f.add(cmd)
			if err := cmd.ParseFlags(tt.args); err != nil {
				t.Fatal(err)
			}
			var hosts []string
			if tt.want.JoinAddr != "" {
				hosts = []string{tt.want.JoinAddr}
			}
			got, err := f.config(c, hosts)
			if err != nil || got.Log == nil {
				t.Fatal(err, got.Log)
			}
			got.Log = nil
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("%+v\nwant\n%+v", got, tt.want)
			}
		})
	}
}

func TestUpWhenUp(t *testing.T) {
	dir := shortDir(t)
	if err := os.Mkdir(dir+"/run", 0o700); err != nil {
		t.Fatal(err)
	}
	n := newFakeNodeAt(t, dir+"/run/ovnd.sock")
	n.on("GET /ovnd/status", 0, `{"NodeID":"ah2lt4rfnp5tua63rsdks07g2","Hostname":"h","Role":"worker"}`)
	ovndCommand(t, "--state-dir", dir, "up").want(t, "ovnd is already up: node ah2lt4rfnp5tua63rsdks07g2 (h), a worker.\n", "", 0)
	ovndCommand(t, "--state-dir", dir, "up", "--join", "SWMTKN-1-w", "127.0.0.2:2377").want(t, "",
		"a node is already up here (node ah2lt4rfnp5tua63rsdks07g2 (h), a worker). Make it join with \"ovnd swarm join\", or stop it first with \"ovnd down\"\n", 1)
	var out bytes.Buffer
	if err := printUpAgain(t.Context(), &out, n.host); err != nil || out.String() != "ovnd is up again: node ah2lt4rfnp5tua63rsdks07g2 (h), a worker.\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
	n.on("GET /ovnd/status", 0, `{"NodeID":"ah2lt4rfnp5tua63rsdks07g2","Hostname":"h","State":"pending"}`)
	ovndCommand(t, "--state-dir", dir, "up").want(t, "ovnd is already up: node ah2lt4rfnp5tua63rsdks07g2 (h), pending.\n", "", 0)
	n.on("GET /ovnd/status", 0, `{"Hostname":"h"}`)
	ovndCommand(t, "--state-dir", dir, "up").want(t, "ovnd is already up: node h, in no swarm.\n", "", 0)
	// A node that is there and in trouble is not started a second time.
	n.on("GET /ovnd/status", http.StatusInternalServerError, message("trouble"))
	ovndCommand(t, "--state-dir", dir, "up").want(t, "", "Error response from daemon: trouble\n", 1)
}

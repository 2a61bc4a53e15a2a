package main

import (
	"encoding/json"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/ovnd/ovnd/api/types"
	"github.com/ovnd/ovnd/doctor"
)

// The examination itself, of this machine: whatever it allows, the exit code
// and the JSON say the same.
func TestDoctor(t *testing.T) {
	dir := shortDir(t)
	r := ovndCommand(t, "--state-dir", dir, "doctor", "--advertise-addr", "127.0.0.77", "--tun", "never", "--json")
	var report doctor.Report
	if err := json.Unmarshal([]byte(r.out), &report); err != nil {
		t.Fatalf("%v: %+v", err, r)
	}
	if report.OK != (r.code == 0) || r.err != "" || len(report.Findings) < 15 {
		t.Errorf("%+v", r)
	}
	text := ovndCommand(t, "--state-dir", dir, "doctor", "--advertise-addr", "127.0.0.77", "--tun", "never")
	if text.code != r.code || !strings.Contains(text.out, "port 4789/udp") || !strings.Contains(text.out, "127.0.0.77") {
		t.Errorf("%+v", text)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) > 0 {
		t.Errorf("the state folder has %v, %v", entries, err)
	}
}

func TestDoctorFlags(t *testing.T) {
	for _, tc := range []struct{ args, want string }{
		{"--tun maybe", `--tun: "maybe" is not "auto", "require" or "never"`},
		{"--peer 192.0.2.1:x", `--peer: "192.0.2.1:x": "x" is not a port`},
		{"--peer 192.0.2.1:0", `--peer: "192.0.2.1:0": "0" is not a port`},
		{"--advertise-addr x.y", "--advertise-addr: "},
		{"more", "ovnd: 'ovnd doctor' accepts no arguments"},
	} {
		r := ovndCommand(t, append([]string{"doctor"}, strings.Fields(tc.args)...)...)
		if r.code != 1 || r.out != "" || !strings.HasPrefix(r.err, tc.want) {
			t.Errorf("%s: %+v", tc.args, r)
		}
	}
	for s, want := range map[string]doctor.Peer{
		"192.0.2.1":            {Addr: netip.MustParseAddr("192.0.2.1")},
		"192.0.2.1:2378":       {Addr: netip.MustParseAddr("192.0.2.1"), Control: 2378},
		"2001:db8::1":          {Addr: netip.MustParseAddr("2001:db8::1")},
		"[2001:db8::1]:2377":   {Addr: netip.MustParseAddr("2001:db8::1"), Control: 2377},
		"[::ffff:192.0.2.1]:1": {Addr: netip.MustParseAddr("192.0.2.1"), Control: 1},
	} {
		if got, err := parsePeer(s); err != nil || got != want {
			t.Errorf("%s: %+v, %v", s, got, err)
		}
	}
}

// What the node that is up knows is examined: its ports, its peers, its
// managers.
func TestDoctorKnowsTheNode(t *testing.T) {
	addr, port := netip.MustParseAddr, netip.MustParseAddrPort
	s := types.Status{
		PID: 42, StateDir: "/s", Managers: []string{"192.0.2.1:2378", "192.0.2.2:2377", "192.0.2.3:2377"},
		Addresses: types.Addresses{Advertise: addr("192.0.2.1"), Control: port("192.0.2.1:2378"), Gossip: port("192.0.2.1:7947"), DataPath: port("192.0.2.1:4790")},
		Peers:     []types.PeerState{{Name: "n2", IP: addr("192.0.2.2")}},
	}
	got := withNode(doctor.Config{Mode: doctor.Auto, StateDir: "/elsewhere"}, s)
	want := doctor.Config{
		Mode: doctor.Auto, Addr: addr("192.0.2.1"), Control: 2378, Gossip: 7947, DataPath: 4790, StateDir: "/s", NodePID: 42,
		Peers: []doctor.Peer{
			{Name: "n2", Addr: addr("192.0.2.2"), Control: 2377, Node: true},
			{Addr: addr("192.0.2.3"), Control: 2377, Node: true},
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant\n%+v", got, want)
	}
}

func TestDoctorReport(t *testing.T) {
	r := doctor.Report{OK: true, Findings: []doctor.Finding{{Check: "tun", Level: doctor.OK, Found: "it opens"}}}
	var b strings.Builder
	if err := printReport(&b, r); err != nil || b.String() != "ok    tun  it opens\n\nAll is as it should be.\n" {
		t.Errorf("%q, %v", b.String(), err)
	}
	b.Reset()
	r = doctor.Report{Warnings: 1, Failures: 1, Findings: []doctor.Finding{
		{Check: "port 1/tcp", Level: doctor.Fail, Found: "taken", Remedy: "kill 3"}, {Check: "clock", Level: doctor.Warn, Found: "slow"},
	}}
	want := "fail  port 1/tcp  taken\n                  -> kill 3\nwarn  clock       slow\n\n1 of 2 fail, 1 warn.\n"
	if err := printReport(&b, r); err != nil || b.String() != want {
		t.Errorf("%q, %v", b.String(), err)
	}
}

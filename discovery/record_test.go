package discovery

import (
	"bytes"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/discovery/records"
	"github.com/ovnd/ovnd/encap"
)

// What libnetwork's own generated code (moby v2.0.0-beta.24, daemon/libnetwork
// and drivers/overlay) marshals these records to.
const (
	goldenTask   = "\n\x1fweb.1.js3kw89zbb09plu86jn1xnsy6\x12\x03web\x1a\x19c07q5fthlx8k9iphnmbhqf40n\"\t10.10.0.2*\t10.10.0.92\r\n\x04http\x10\x01\x18P \x90?:\x03www:\x04siteB\f5d8e2c1ab3f0H\x01"
	goldenByHand = "\n\x01a\"\x05<nil>*\t10.10.0.9"
	goldenPeer   = "\n\f10.10.0.9/16\x12\x1102:42:0a:0a:00:09\x1a\n192.0.2.11"
)

func TestEndpointRecordIsLibnetworks(t *testing.T) {
	want := &records.EndpointRecord{
		Name:        "web.1.js3kw89zbb09plu86jn1xnsy6",
		ServiceName: "web",
		ServiceId:   "c07q5fthlx8k9iphnmbhqf40n",
		VirtualIp:   "10.10.0.2",
		EndpointIp:  "10.10.0.9",
		IngressPorts: []*records.PortConfig{
			{Name: "http", Protocol: records.PortConfig_UDP, TargetPort: 80, PublishedPort: 8080},
		},
		Aliases:         []string{"www", "site"},
		TaskAliases:     []string{"5d8e2c1ab3f0"},
		ServiceDisabled: true,
	}
	got := new(records.EndpointRecord)
	if err := proto.Unmarshal([]byte(goldenTask), got); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(got, want) || len(got.ProtoReflect().GetUnknown()) != 0 {
		t.Errorf("got %v\nwant %v", got, want)
	}
	if b, err := proto.Marshal(want); err != nil || string(b) != goldenTask {
		t.Errorf("marshalled to %q, %v", b, err)
	}

	n, err := parseNaming([]byte(goldenTask))
	if err != nil {
		t.Fatal(err)
	}
	if wantEP := (directory.Endpoint{
		Name: want.Name, Addr: netip.MustParseAddr("10.10.0.9"),
		ServiceID: want.ServiceId, ServiceName: "web", VIP: netip.MustParseAddr("10.10.0.2"),
		Aliases: want.Aliases, TaskAliases: want.TaskAliases, Disabled: true,
		Ports: []directory.Port{{Name: "http", Protocol: directory.UDP, Target: 80, Published: 8080}},
	}); !reflect.DeepEqual(n.ep, wantEP) {
		t.Errorf("got %+v\nwant %+v", n.ep, wantEP)
	}
	if n, err := parseNaming([]byte(goldenByHand)); err != nil || n.ep.Name != "a" || n.ep.VIP.IsValid() {
		t.Errorf("a container attached by hand: %+v, %v", n, err)
	}
}

func TestPeerRecordIsLibnetworks(t *testing.T) {
	ep := directory.Endpoint{
		Addr: netip.MustParseAddr("10.10.0.9"),
		MAC:  encap.MAC{0x02, 0x42, 0x0a, 0x0a, 0, 9},
		VTEP: netip.MustParseAddr("192.0.2.11"),
	}
	if b, err := putPlace(&ep, 16); err != nil || string(b) != goldenPeer {
		t.Errorf("marshalled to %q, %v", b, err)
	}
	p, err := readPlace([]byte(goldenPeer))
	if err != nil {
		t.Fatal(err)
	}
	if p.addr != ep.Addr || p.mac != ep.MAC || p.vtep != ep.VTEP {
		t.Errorf("got %+v", p)
	}
}

// readPlace is what a plain network makes of a peer record.
func readPlace(b []byte) (*place, error) {
	r, err := unmarshalPeer(b)
	if err != nil {
		return nil, err
	}
	return parsePlace(r, b)
}

func peerRecord(t *testing.T, ip, mac, vtep string) []byte {
	t.Helper()
	b, err := proto.Marshal(&records.PeerRecord{EndpointIp: ip, EndpointMac: mac, TunnelEndpointIp: vtep})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func endpointRecord(t *testing.T, r *records.EndpointRecord) []byte {
	t.Helper()
	b, err := proto.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBadPeerRecords(t *testing.T) {
	const ip, mac, vtep = "10.10.0.9/16", "02:42:0a:0a:00:09", "192.0.2.11"
	for _, tc := range []struct{ name, ip, mac, vtep string }{
		{"no prefix length", "10.10.0.9", mac, vtep},
		{"no address", "", mac, vtep},
		{"multicast address", "239.0.0.1/8", mac, vtep},
		{"broadcast address", "255.255.255.255/8", mac, vtep},
		{"no MAC", ip, "", vtep},
		{"zero MAC", ip, "00:00:00:00:00:00", vtep},
		{"broadcast MAC", ip, "ff:ff:ff:ff:ff:ff", vtep},
		{"multicast MAC", ip, "01:00:5e:00:00:01", vtep},
		{"eight-byte MAC", ip, "02:42:0a:0a:00:09:00:01", vtep},
		{"no VTEP", ip, mac, ""},
		{"VTEP 0.0.0.0", ip, mac, "0.0.0.0"},
		{"multicast VTEP", ip, mac, "239.1.1.1"},
		{"VTEP by name", ip, mac, "localhost"},
		{"VTEP with zone", ip, mac, "fe80::1%eth0"},
	} {
		if p, err := readPlace(peerRecord(t, tc.ip, tc.mac, tc.vtep)); err == nil {
			t.Errorf("%s: accepted as %+v", tc.name, p)
		}
	}
	if _, err := readPlace([]byte("\xff\xff")); err == nil {
		t.Error("accepted what is no protobuf")
	}
}

func TestBadEndpointRecords(t *testing.T) {
	long := strings.Repeat("x", maxString+1)
	for name, r := range map[string]*records.EndpointRecord{
		"no name":              {EndpointIp: "10.10.0.9"},
		"no address":           {Name: "a"},
		"long name":            {Name: long, EndpointIp: "10.10.0.9"},
		"escape in name":       {Name: "a\x1b[2J", EndpointIp: "10.10.0.9"},
		"newline in service":   {Name: "a", ServiceName: "b\nc", EndpointIp: "10.10.0.9"},
		"space in alias":       {Name: "a", Aliases: []string{"b c"}, EndpointIp: "10.10.0.9"},
		"long task alias":      {Name: "a", TaskAliases: []string{long}, EndpointIp: "10.10.0.9"},
		"too many aliases":     {Name: "a", Aliases: make([]string, maxAliases+1), EndpointIp: "10.10.0.9"},
		"port without target":  {Name: "a", EndpointIp: "10.10.0.9", IngressPorts: []*records.PortConfig{{PublishedPort: 80}}},
		"port not published":   {Name: "a", EndpointIp: "10.10.0.9", IngressPorts: []*records.PortConfig{{TargetPort: 80}}},
		"port of 17 bits":      {Name: "a", EndpointIp: "10.10.0.9", IngressPorts: []*records.PortConfig{{TargetPort: 80, PublishedPort: 65536}}},
		"unknown protocol":     {Name: "a", EndpointIp: "10.10.0.9", IngressPorts: []*records.PortConfig{{Protocol: 3, TargetPort: 80, PublishedPort: 80}}},
		"too many ports":       {Name: "a", EndpointIp: "10.10.0.9", IngressPorts: slices.Repeat([]*records.PortConfig{{TargetPort: 80, PublishedPort: 80}}, maxPorts+1)},
		"newline in port":      {Name: "a", EndpointIp: "10.10.0.9", IngressPorts: []*records.PortConfig{{Name: "a\nb", TargetPort: 80, PublishedPort: 80}}},
		"too long as a record": {Name: "a", EndpointIp: "10.10.0.9", IngressPorts: []*records.PortConfig{{Name: strings.Repeat("x", maxRecord)}}},
	} {
		if n, err := parseNaming(endpointRecord(t, r)); err == nil {
			t.Errorf("%s: accepted as %+v", name, n.ep)
		}
	}
}

// FuzzPeerRecord checks that what is accepted can be forwarded to, and is the
// same after having been encoded again.
func FuzzPeerRecord(f *testing.F) {
	f.Add([]byte(goldenPeer))
	f.Add([]byte("\n\x0bfd00::9/64\x12\x1102:42:0a:0a:00:09\x1a\v2001:db8::1"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := readPlace(b)
		if err != nil {
			return
		}
		if !isHost(p.addr) || !isHost(p.vtep) || p.mac.IsMulticast() || p.mac == (encap.MAC{}) {
			t.Fatalf("accepted %+v", p)
		}
		again, err := putPlace(&directory.Endpoint{Addr: p.addr, MAC: p.mac, VTEP: p.vtep}, p.addr.BitLen())
		if err != nil {
			t.Fatal(err)
		}
		q, err := readPlace(again)
		if err != nil || q.addr != p.addr || q.mac != p.mac || q.vtep != p.vtep {
			t.Fatalf("%+v became %+v, %v", p, q, err)
		}
	})
}

// FuzzEndpointRecord does the same for the names.
func FuzzEndpointRecord(f *testing.F) {
	f.Add([]byte(goldenTask))
	f.Add([]byte(goldenByHand))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := parseNaming(b)
		if err != nil {
			return
		}
		if n.ep.Name == "" || len(n.ep.Name) > maxString || !bytes.Equal(n.raw, b) {
			t.Fatalf("accepted %+v", n.ep)
		}
		again, err := putNaming(&n.ep)
		if err != nil {
			t.Fatal(err)
		}
		m, err := parseNaming(again)
		if err != nil {
			t.Fatalf("%+v cannot be read again: %v", n.ep, err)
		}
		if !reflect.DeepEqual(m.ep, n.ep) {
			t.Fatalf("%+v became %+v", n.ep, m.ep)
		}
	})
}

// TestWayRecord: how a service's connections are carried is a field that older
// records have not, and that libnetwork passes over.
func TestWayRecord(t *testing.T) {
	ep := directory.Endpoint{Name: "a", Addr: netip.MustParseAddr("10.10.0.9")}
	plain, err := putNaming(&ep)
	if err != nil {
		t.Fatal(err)
	}
	if want := "\n\x01a*\t10.10.0.9"; string(plain) != want {
		t.Errorf("the default is written as %q", plain)
	}
	for _, way := range []directory.Way{directory.DefaultWay, directory.Proxied, directory.Direct} {
		ep.Way = way
		b, err := putNaming(&ep)
		if err != nil {
			t.Fatal(err)
		}
		n, err := parseNaming(b)
		if err != nil || n.ep.Way != way {
			t.Errorf("%q became %q: %v", way, n.ep.Way, err)
		}
	}
	n, err := parseNaming(append(plain, 0xa8, 1, 9)) // field 21, of a later version
	if err != nil || n.ep.Way != directory.DefaultWay {
		t.Errorf("an unknown way: %+v, %v", n, err)
	}
}

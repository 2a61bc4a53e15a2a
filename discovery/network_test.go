package discovery

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/discovery/records"
	"github.com/ovnd/ovnd/encap"
)

var (
	ownVTEP = netip.MustParseAddr("192.0.2.10")
	innerIP = netip.MustParseAddr("10.10.0.9")
)

func newTestNetwork(t *testing.T) *network {
	t.Helper()
	n, err := newNetwork(testNet(0), self{name: "aaaaaaaaaaaa", vtep: ownVTEP})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func learn(t *testing.T, n *network, table, id string, value []byte) (changed bool) {
	t.Helper()
	changed, err := n.learn(table, id, value)
	if err != nil {
		t.Fatal(err)
	}
	return changed
}

// lookup returns the endpoint at innerIP in a new snapshot.
func lookup(n *network) (*directory.Endpoint, int) {
	snap, conflicts := n.snapshot(1)
	return snap.Endpoints.At(innerIP), conflicts
}

// The records of an endpoint arrive in either order, change and go.
func TestRecordsJoin(t *testing.T) {
	place := peerRecord(t, "10.10.0.9/16", "02:42:0a:0a:00:09", "192.0.2.11")
	name := endpointRecord(t, &records.EndpointRecord{Name: "web.1", ServiceName: "web", EndpointIp: "10.10.0.9"})
	elsewhere := endpointRecord(t, &records.EndpointRecord{Name: "old", EndpointIp: "10.10.0.8"})
	balancer := endpointRecord(t, &records.EndpointRecord{Name: "net0-endpoint", EndpointIp: "10.10.0.9"})
	n := newTestNetwork(t)
	n.setMembers(map[netip.Addr]string{netip.MustParseAddr("192.0.2.11"): "bbbbbbbbbbbb"})

	for _, step := range []struct {
		what    string
		table   string
		value   []byte
		changed bool
		name    string // "": not in the snapshot
		kind    directory.EndpointKind
	}{
		{"a name alone", endpointTable, name, true, "", 0},
		{"its place", peerTable, place, true, "web.1", directory.Task},
		{"the place again", peerTable, place, false, "web.1", directory.Task},
		{"the name gone", endpointTable, nil, true, "lb-net0", directory.LoadBalancer},
		{"a name for another address", endpointTable, elsewhere, true, "lb-net0", directory.LoadBalancer},
		{"an old Docker's name of a balancer", endpointTable, balancer, true, "lb-net0", directory.LoadBalancer},
		{"the name back", endpointTable, name, true, "web.1", directory.Task},
		{"the place gone", peerTable, nil, true, "", 0},
		{"all gone", endpointTable, nil, true, "", 0},
		{"gone again", endpointTable, nil, false, "", 0},
	} {
		if changed := learn(t, n, step.table, "id", step.value); changed != step.changed {
			t.Errorf("%s: changed %v", step.what, changed)
		}
		ep, _ := lookup(n)
		switch {
		case step.name == "":
			if ep != nil {
				t.Errorf("%s: %+v in the snapshot", step.what, ep)
			}
		case ep == nil:
			t.Errorf("%s: not in the snapshot", step.what)
		case ep.Name != step.name || ep.Kind != step.kind || ep.ID != "id" || ep.NodeID != "bbbbbbbbbbbb" || ep.VTEP.String() != "192.0.2.11":
			t.Errorf("%s: %+v", step.what, ep)
		}
	}
	if len(n.remote) != 0 {
		t.Errorf("%d endpoints left behind", len(n.remote))
	}
}

// A record that is no good takes away what its owner said before: the owner
// does not stand by it any more.
func TestBadRecordWithdraws(t *testing.T) {
	good := peerRecord(t, "10.10.0.9/16", "02:42:0a:0a:00:09", "192.0.2.11")
	for what, bad := range map[string][]byte{
		"garbage":        []byte("\xff"),
		"other subnet":   peerRecord(t, "10.11.0.9/16", "02:42:0a:0a:00:09", "192.0.2.11"),
		"loopback VTEP":  peerRecord(t, "10.10.0.9/16", "02:42:0a:0a:00:09", "127.0.0.1"),
		"IPv6 VTEP":      peerRecord(t, "10.10.0.9/16", "02:42:0a:0a:00:09", "2001:db8::1"),
		"multicast VTEP": peerRecord(t, "10.10.0.9/16", "02:42:0a:0a:00:09", "239.0.0.1"),
	} {
		n := newTestNetwork(t)
		learn(t, n, peerTable, "id", good)
		changed, err := n.learn(peerTable, "id", bad)
		if err == nil || !changed {
			t.Errorf("%s: changed %v, error %v", what, changed, err)
		}
		if ep, _ := lookup(n); ep != nil {
			t.Errorf("%s: still forwards to %s", what, ep.VTEP)
		}
	}

	n := newTestNetwork(t)
	if _, err := n.learn(peerTable, "a/b", good); err == nil {
		t.Error("took a key with a slash")
	}
	// What a former run of this node left behind is no error, and no endpoint.
	if learn(t, n, peerTable, "id", peerRecord(t, "10.10.0.9/16", "02:42:0a:0a:00:09", ownVTEP.String())) {
		t.Error("another node says what is on this one")
	}
}

func TestConflicts(t *testing.T) {
	const liveVTEP, otherVTEP = "192.0.2.11", "192.0.2.12"
	type rival struct {
		id, vtep string
		cached   bool
		disabled bool
	}
	for _, tc := range []struct {
		name          string
		winner, loser rival
	}{
		{"confirmed before remembered", rival{id: "z", vtep: otherVTEP}, rival{id: "a", vtep: liveVTEP, cached: true}},
		{"live VTEP", rival{id: "z", vtep: liveVTEP, disabled: true}, rival{id: "a", vtep: otherVTEP}},
		{"not draining", rival{id: "z", vtep: liveVTEP}, rival{id: "a", vtep: liveVTEP, disabled: true}},
		{"smaller ID", rival{id: "a", vtep: liveVTEP}, rival{id: "z", vtep: liveVTEP}},
	} {
		for _, order := range [][]rival{{tc.winner, tc.loser}, {tc.loser, tc.winner}} {
			n := newTestNetwork(t)
			n.setMembers(map[netip.Addr]string{netip.MustParseAddr(liveVTEP): "bbbbbbbbbbbb"})
			for _, r := range order {
				place := peerRecord(t, "10.10.0.9/16", "02:42:0a:0a:00:09", r.vtep)
				name := endpointRecord(t, &records.EndpointRecord{Name: r.id, EndpointIp: "10.10.0.9", ServiceDisabled: r.disabled})
				if r.cached {
					n.remember(r.id, place, name)
					continue
				}
				learn(t, n, peerTable, r.id, place)
				learn(t, n, endpointTable, r.id, name)
			}
			ep, conflicts := lookup(n)
			if ep == nil || ep.ID != tc.winner.id || conflicts != 1 {
				t.Errorf("%s: %+v, %d conflicts", tc.name, ep, conflicts)
			}

			// An endpoint of this node comes before any other.
			if err := n.add(directory.Endpoint{ID: "zz", Name: "own", Addr: innerIP}); err != nil {
				t.Fatal(err)
			}
			if ep, _ := lookup(n); ep.ID != "zz" || ep.VTEP != ownVTEP {
				t.Errorf("%s: a remote %+v won against the local endpoint", tc.name, ep)
			}
		}
	}
}

func TestForgetUnconfirmed(t *testing.T) {
	place := peerRecord(t, "10.10.0.9/16", "02:42:0a:0a:00:09", "192.0.2.11")
	name := endpointRecord(t, &records.EndpointRecord{Name: "web.1", EndpointIp: "10.10.0.9"})
	n := newTestNetwork(t)
	n.remember("confirmed", place, name)
	n.remember("gone", peerRecord(t, "10.10.0.8/16", "02:42:0a:0a:00:08", "192.0.2.11"), name)
	n.remember("bad", []byte("\xff"), nil)
	if len(n.remote) != 2 || n.unconfirmed() != 2 {
		t.Fatalf("remembers %d, %d unconfirmed, want 2", len(n.remote), n.unconfirmed())
	}
	learn(t, n, peerTable, "confirmed", place)
	learn(t, n, endpointTable, "confirmed", name)
	if !n.forgetUnconfirmed() || n.forgetUnconfirmed() {
		t.Error("forgetting does not report what it did")
	}
	if ep, _ := lookup(n); ep == nil || ep.Name != "web.1" || len(n.remote) != 1 {
		t.Errorf("what gossip confirmed is %+v, %d left", ep, len(n.remote))
	}
	n.rename("cccccccccccc")
	if n.unconfirmed() != 1 {
		t.Error("what was learned under a former name counts as confirmed")
	}
}

// An endpoint that is not ready is announced by its place, then by its name, and
// by its place again when it has become unhealthy.
func TestPending(t *testing.T) {
	n := newTestNetwork(t)
	ep := directory.Endpoint{ID: "a", Name: "web.1", Addr: innerIP, ServiceID: "id-web", ServiceName: "web"}
	for _, pending := range []bool{true, false, true} {
		ep.Pending = pending
		if err := n.add(ep); err != nil {
			t.Fatal(err)
		}
		snap, _ := n.snapshot(1)
		if snap.Endpoints.At(innerIP).Pending != pending || len(n.local) != 1 {
			t.Errorf("pending %t: %+v", pending, snap.Endpoints.At(innerIP))
		}
		if e := n.entries["a"]; e.place == nil || (e.naming == nil) != pending {
			t.Errorf("pending %t: announces %+v", pending, e)
		}
		if _, serves := snap.Services.Get("id-web"); serves == pending {
			t.Errorf("pending %t: services %v", pending, snap.Services)
		}
	}
}

// Published ports are said and heard on the ingress network alone, and a VIP
// lies in the network.
func TestServiceOfEndpoint(t *testing.T) {
	ports := []directory.Port{{Name: "http", Protocol: directory.UDP, Target: 80, Published: 8080}}
	vip := netip.MustParseAddr("10.10.0.2")
	sent := directory.Endpoint{ID: "a", Name: "web.1", Addr: innerIP, ServiceID: "id-web", ServiceName: "web", VIP: vip, Ports: ports}
	for _, ingress := range []bool{false, true} {
		cfg := testNet(0)
		cfg.Ingress = ingress
		n, err := newNetwork(cfg, self{name: "aaaaaaaaaaaa", vtep: ownVTEP})
		if err != nil {
			t.Fatal(err)
		}
		naming, err := putNaming(&sent)
		if err != nil {
			t.Fatal(err)
		}
		learn(t, n, peerTable, "a", peerRecord(t, "10.10.0.9/16", "02:42:0a:0a:00:09", "192.0.2.11"))
		learn(t, n, endpointTable, "a", naming)
		snap, _ := n.snapshot(1)
		s := snap.VIPs.At(vip)
		if s == nil || s != snap.Services.At("id-web") || len(s.Backends) != 1 {
			t.Fatalf("services %v, VIPs %v", snap.Services, snap.VIPs)
		}
		if ingress != slices.Equal(s.Ports, ports) {
			t.Errorf("ingress %t: ports %v", ingress, s.Ports)
		}

		local := sent
		local.ID, local.Addr = "b", innerIP.Next()
		if err := n.add(local); (err == nil) != ingress {
			t.Errorf("ingress %t: a local endpoint with ports: %v", ingress, err)
		}
		local.Ports, local.VIP = nil, netip.MustParseAddr("10.11.0.2")
		if err := n.add(local); err == nil {
			t.Errorf("a local endpoint with a VIP of another network was accepted")
		}
	}
	n := newTestNetwork(t)
	sent.VIP, sent.Ports = netip.MustParseAddr("10.11.0.2"), nil
	naming, err := putNaming(&sent)
	if err != nil {
		t.Fatal(err)
	}
	learn(t, n, peerTable, "a", peerRecord(t, "10.10.0.9/16", "02:42:0a:0a:00:09", "192.0.2.11"))
	learn(t, n, endpointTable, "a", naming)
	if snap, _ := n.snapshot(1); snap.VIPs.Len() != 0 || snap.Services.Len() != 1 {
		t.Errorf("a VIP of another network was taken: %v", snap.VIPs)
	}
}

func TestAddRefuses(t *testing.T) {
	n := newTestNetwork(t)
	if err := n.add(directory.Endpoint{ID: "a", Name: "a", Addr: innerIP}); err != nil {
		t.Fatal(err)
	}
	if n.local["a"].MAC != (encap.MAC{0x02, 0x42, 0x0a, 0x0a, 0, 9}) {
		t.Errorf("MAC %s", n.local["a"].MAC)
	}
	if n.entries["a"].naming == nil {
		t.Error("a task has no names in gossip")
	}
	for what, ep := range map[string]directory.Endpoint{
		"no ID":          {Name: "b", Addr: innerIP.Next()},
		"slash in ID":    {ID: "b/c", Name: "b", Addr: innerIP.Next()},
		"no name":        {ID: "b", Addr: innerIP.Next()},
		"bad name":       {ID: "b", Name: "b\n", Addr: innerIP.Next()},
		"other subnet":   {ID: "b", Name: "b", Addr: netip.MustParseAddr("10.11.0.1")},
		"address in use": {ID: "b", Name: "b", Addr: innerIP},
	} {
		if err := n.add(ep); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
	lb := directory.Endpoint{ID: "b", Addr: innerIP.Next(), Kind: directory.LoadBalancer}
	if err := n.add(lb); err != nil || n.entries["b"].naming != nil {
		t.Errorf("load balancer: %v, %+v", err, n.entries["b"])
	}
}

func TestNetworkRefused(t *testing.T) {
	for what, change := range map[string]func(*NetworkConfig){
		"no ID":          func(c *NetworkConfig) { c.ID = "" },
		"no VNI":         func(c *NetworkConfig) { c.VNI = 0 },
		"VNI too large":  func(c *NetworkConfig) { c.VNI = encap.MaxVNI + 1 },
		"no subnet":      func(c *NetworkConfig) { c.Subnets = nil },
		"unknown option": func(c *NetworkConfig) { c.Options = map[string]string{"x": "y"} },
	} {
		cfg := testNet(0)
		change(&cfg)
		if _, err := newNetwork(cfg, self{}); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
}

func TestSnapshotOfOptions(t *testing.T) {
	cfg := testNet(0)
	cfg.Options = map[string]string{directory.OptionReserved: "ignore", "ovnd.vtep.a": "192.0.2.99,learn"}
	for vtep, mtu := range map[string]int{"192.0.2.10": encap.DefaultMTU, "2001:db8::1": encap.DefaultMTU6} {
		n, err := newNetwork(cfg, self{name: "aaaaaaaaaaaa", vtep: netip.MustParseAddr(vtep)})
		if err != nil {
			t.Fatal(err)
		}
		snap, _ := n.snapshot(7)
		if snap.MTU != mtu || snap.Version != 7 || snap.Reserved != encap.ReservedIgnore || len(snap.StaticVTEPs) != 1 {
			t.Errorf("%+v", snap)
		}
		if name := snap.Peers[netip.MustParseAddr(vtep)]; name != "aaaaaaaaaaaa" || len(snap.Peers) != 1 {
			t.Errorf("peers %v", snap.Peers)
		}
	}
}

func TestSnapshotOfEncrypted(t *testing.T) {
	cfg := testNet(0)
	cfg.Options = map[string]string{directory.OptionEncrypted: "aes-256-gcm"}
	for vtep, mtu := range map[string]int{"192.0.2.10": 1424, "2001:db8::1": 1404} {
		n, err := newNetwork(cfg, self{name: "aaaaaaaaaaaa", vtep: netip.MustParseAddr(vtep)})
		if err != nil {
			t.Fatal(err)
		}
		if snap, _ := n.snapshot(7); snap.MTU != mtu || !snap.Encrypted || snap.Cipher != directory.AES256GCM {
			t.Errorf("%+v", snap)
		}
	}
}

// keyring is the part of NetworkDB that rotate drives, and fails when a step
// would leave nodes unable to talk.
type keyring struct {
	t       *testing.T
	keys    []string
	primary string
}

func (k *keyring) SetKey(key []byte) { k.keys = append(k.keys, string(key)) }

func (k *keyring) SetPrimaryKey(key []byte) {
	if !slices.Contains(k.keys, string(key)) {
		k.t.Errorf("primary %q is not in the keyring", key)
	}
	k.primary = string(key)
}

func (k *keyring) RemoveKey(key []byte) {
	if string(key) == k.primary {
		k.t.Error("removes the primary key")
	}
	k.keys = slices.DeleteFunc(k.keys, func(s string) bool { return s == string(key) })
}

func TestRotate(t *testing.T) {
	for _, tags := range [][]uint64{{2, 3, 4}, {7, 8, 9}, {3, 1, 2}, {1}, {3, 2}} {
		old, err := gossipKeys(testKeys(1, 2, 3))
		if err != nil {
			t.Fatal(err)
		}
		if old[0].Tag != 2 {
			t.Fatalf("primary key is that of %d, want the second oldest, 2", old[0].Tag)
		}
		ring, err := gossipKeys(testKeys(tags...))
		if err != nil {
			t.Fatal(err)
		}
		k := &keyring{t: t}
		for _, key := range old {
			k.SetKey(key.Key)
		}
		k.primary = string(old[0].Key)
		rotate(k, old, ring)

		slices.Sort(tags)
		want := tags[min(1, len(tags)-1)]
		if k.primary[0] != byte(want) {
			t.Errorf("%v: primary %d, want %d", tags, k.primary[0], want)
		}
		if len(k.keys) != len(tags) {
			t.Errorf("%v: %d keys left", tags, len(k.keys))
		}
	}
	if _, err := gossipKeys(nil); err == nil {
		t.Error("gossip without keys")
	}
	if _, err := gossipKeys([]Key{{Subsystem: SubsystemGossip, Key: []byte("short")}}); err == nil {
		t.Error("a key of five bytes was accepted")
	}
}

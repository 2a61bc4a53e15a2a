package node

import (
	"bytes"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/ovnd/ovnd/cluster"
	"github.com/ovnd/ovnd/crypto"
	"github.com/ovnd/ovnd/crypto/swarmtest"
	"github.com/ovnd/ovnd/dataplane"
	"github.com/ovnd/ovnd/discovery"
	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/encap"
)

// testSealing is a member's sealing whose parts exist and do not run.
func testSealing(t *testing.T, dir string, cred crypto.Credentials) *sealing {
	t.Helper()
	n := &Node{log: slog.New(slog.DiscardHandler), stateDir: dir, store: directory.NewStore()}
	if err := os.MkdirAll(n.gossipDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := n.newSealing()
	if err != nil {
		t.Fatal(err)
	}
	loopback := netip.MustParseAddr("127.0.0.1")
	sw, err := dataplane.New(dataplane.Config{Underlay: netip.AddrPortFrom(loopback, freePort(t)), Sessions: s.engine})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sw.Close)
	disc, err := discovery.New(discovery.Config{
		Hostname: "test", AdvertiseAddr: loopback, Port: freePort(t), StateDir: n.gossipDir(), Store: n.store, Log: n.log,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.connect(sw, disc, func() (crypto.Credentials, error) { return cred, nil })
	return s
}

// freePort is a port of the loopback address that was free for TCP and UDP a
// moment ago.
func freePort(t *testing.T) uint16 {
	t.Helper()
	for range 100 {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		addr := c.LocalAddr().(*net.UDPAddr).AddrPort()
		l, err := net.Listen("tcp4", addr.String())
		_ = c.Close()
		if err == nil {
			_ = l.Close()
			return addr.Port()
		}
	}
	t.Fatal("no port of the loopback address is free")
	return 0
}

func testCA(t *testing.T) *swarmtest.CA {
	t.Helper()
	ca, err := swarmtest.New("testcluster")
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func worker(t *testing.T, ca *swarmtest.CA, id string) crypto.Credentials {
	t.Helper()
	cred, err := ca.Worker(id)
	if err != nil {
		t.Fatal(err)
	}
	return cred
}

func swarmKeys(tags ...uint64) []cluster.Key {
	keys := []cluster.Key{{Subsystem: cluster.SubsystemGossip, Tag: 1, Key: bytes.Repeat([]byte{9}, 16)}}
	for _, tag := range tags {
		keys = append(keys, cluster.Key{Subsystem: cluster.SubsystemIPsec, Tag: tag, Key: bytes.Repeat([]byte{byte(tag)}, 16)})
	}
	return keys
}

// A node that starts without a manager has the keys that it had.
func TestSealingKeepsKeys(t *testing.T) {
	dir := t.TempDir()
	cred := worker(t, testCA(t), "w1")
	s := testSealing(t, dir, cred)
	if why := s.whyNone(); why == "" {
		t.Error("without a key it says that sessions can be made")
	}
	s.setKeys(swarmKeys(13, 11, 12))
	if why := s.whyNone(); why != "" {
		t.Error(why)
	}
	if st := s.status(s.engine.Stats()); !slices.Equal(st.Epochs, []uint64{11, 12, 13}) || st.Primary != 12 {
		t.Errorf("status %+v", st)
	}
	info, err := os.Stat(s.file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%s: mode %v, %v", s.file, info.Mode(), err)
	}
	s.setKeys(nil) // says nothing
	again := testSealing(t, dir, cred)
	if st := again.status(again.engine.Stats()); !slices.Equal(st.Epochs, []uint64{11, 12, 13}) || st.Error != "" {
		t.Errorf("after a restart: %+v", st)
	}
	again.setKeys(swarmKeys(12, 13, 14))
	if last := testSealing(t, dir, cred); !slices.Equal(last.status(last.engine.Stats()).Epochs, []uint64{12, 13, 14}) {
		t.Errorf("after a rotation and a restart: %+v", last.epochs)
	}
	if err := os.WriteFile(s.file, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if broken := testSealing(t, dir, cred); len(broken.epochs) > 0 || broken.whyNone() == "" {
		t.Errorf("of a file that cannot be read: %+v", broken.epochs)
	}
}

func TestSealingWithoutCredentials(t *testing.T) {
	s := testSealing(t, t.TempDir(), crypto.Credentials{NodeID: "w1", ClusterID: "testcluster"})
	s.setKeys(swarmKeys(11, 12, 13))
	if why := s.whyNone(); why == "" || s.identity.Load() != nil {
		t.Errorf("%q, identity %v", why, s.identity.Load())
	}
	s.setCredentials(worker(t, testCA(t), "w1"))
	if why := s.whyNone(); why != "" || s.identity.Load() == nil {
		t.Errorf("%q, identity %v", why, s.identity.Load())
	}
	first := s.identity.Load().Statement()
	s.setCredentials(worker(t, testCA(t), "w1")) // renewed
	if now := s.identity.Load().Statement(); now.Static != first.Static || now.Record != first.Record || bytes.Equal(now.Signature, first.Signature) {
		t.Error("a renewed certificate has to sign the same keys")
	}
}

// A manager signs each removal once by each certificate of its own, as long as
// the node's certificate lives; a worker's word counts for nothing, until it is a
// manager.
func TestSealingSignsRemovals(t *testing.T) {
	ca := testCA(t)
	dir := t.TempDir()
	s := testSealing(t, dir, worker(t, ca, "n1"))
	removed := map[string]time.Time{"gone": {}, "late": time.Now().Add(time.Hour), "ended": time.Now().Add(-time.Hour)}
	s.setRemoved(removed)
	if len(s.signed) > 0 || len(s.disc.Revoked()) > 0 {
		t.Errorf("a worker signed %v", s.signed)
	}
	if got := s.status(s.engine.Stats()).Revoked; !slices.Equal(got, []string{"ended", "gone", "late"}) {
		t.Errorf("it knows of %q", got)
	}
	manager, err := ca.Manager("n1")
	if err != nil {
		t.Fatal(err)
	}
	s.setCredentials(manager)
	if got := s.disc.Revoked(); !slices.Equal(got, []string{"gone", "late"}) {
		t.Errorf("published: %q", got)
	}
	for id, r := range s.signed {
		if signer, err := r.Verify(ca.ClusterID, ca.Roots, time.Now()); err != nil || signer != "n1" || r.NodeID != id {
			t.Errorf("%s: by %q, %v", id, signer, err)
		}
	}
	before := s.signed["gone"].Signature
	s.setRemoved(map[string]time.Time{"gone": {}, "other": {}})
	if got := s.disc.Revoked(); !slices.Equal(got, []string{"gone", "late", "other"}) || !bytes.Equal(before, s.signed["gone"].Signature) {
		t.Errorf("then: %q", got)
	}
	// A renewed certificate signs anew: the old one ends before that of a node
	// which it says was removed.
	if manager, err = ca.Manager("n1"); err != nil {
		t.Fatal(err)
	}
	s.setCredentials(manager)
	if now := s.signed["gone"]; bytes.Equal(before, now.Signature) || !bytes.Equal(now.Chain[0], manager.Chain[0]) {
		t.Error("a removal is still signed by the certificate of before")
	}
	soon := time.Now().Add(time.Minute)
	s.managers = map[string]time.Time{"a": soon, "b": soon.Add(time.Hour), "c": {}, "d": soon}
	if got := s.removals(); !slices.Equal(got, []string{"c", "b", "a", "d"}) {
		t.Errorf("told of in this order: %q", got)
	}
	// What was known is known after a restart, without a manager.
	again := testSealing(t, dir, worker(t, ca, "n1"))
	if got := again.status(again.engine.Stats()).Revoked; !slices.Equal(got, []string{"gone", "late", "other"}) {
		t.Errorf("after a restart: %q", got)
	}
}

// Sessions are wanted with the nodes of encrypted networks alone, under each
// policy that their networks have.
func TestSealingMeets(t *testing.T) {
	s := testSealing(t, t.TempDir(), worker(t, testCA(t), "n1"))
	s.setKeys(swarmKeys(11, 12, 13))
	identity := func(id string, key byte) directory.Identity {
		return directory.Identity{NodeID: id, Static: [32]byte{key}, VTEP: netip.AddrFrom4([4]byte{192, 0, 2, key})}
	}
	publish := func(id string, cipher directory.Cipher, encrypted bool, nodes ...directory.Identity) {
		snap := &directory.Snapshot{ID: id, Name: id, VNI: 4097, MTU: encap.DefaultMTU, Encrypted: encrypted, Cipher: cipher, Identities: map[string]directory.Identity{}}
		for _, n := range nodes {
			snap.Identities[n.NodeID] = n
		}
		s.store.Publish(snap)
		s.meet()
	}
	wanted := func() (list []string) {
		for _, p := range s.engine.Stats().Peers {
			if p.Wanted {
				list = append(list, p.Node+" "+p.Policy.String())
			}
		}
		return list
	}
	publish("a", directory.Auto, true, identity("n2", 2), identity("n3", 3))
	publish("b", directory.ChaCha20Poly1305, true, identity("n3", 3), identity("n4", 4))
	publish("c", directory.Auto, false, identity("n5", 5))
	want := []string{"n2 auto", "n3 auto", "n3 chacha20-poly1305", "n4 chacha20-poly1305"}
	if got := wanted(); !slices.Equal(got, want) {
		t.Errorf("sessions are wanted with %q, want %q", got, want)
	}
	s.revoke([]string{"n4"})
	if got := wanted(); !slices.Equal(got, want[:3]) {
		t.Errorf("after a removal with %q, want %q", got, want[:3])
	}
	s.store.Remove("a")
	s.meet()
	if got := wanted(); !slices.Contains(got, "n3 chacha20-poly1305") || slices.Contains(got, "n2 auto") {
		t.Errorf("after a network is left with %q", got)
	}
	snap := s.store.Load("b")
	st := s.network(snap, dataplane.Stats{Networks: []dataplane.NetworkStats{{ID: "b", Ledger: dataplane.Ledger{Drops: map[string]uint64{"no_session": 3}}}}})
	if st.Policy != "chacha20-poly1305" || len(st.Sessions) != 2 || st.Sessions[0].NodeID != "n3" || st.Sessions[0].Established || st.Drops["no_session"] != 3 {
		t.Errorf("network: %+v", st)
	}
}

// Whatever the reason is, it can be read.
func TestSealingReasons(t *testing.T) {
	s := testSealing(t, t.TempDir(), worker(t, testCA(t), "n1"))
	if got := s.whyNot(crypto.PeerStats{}); got != s.whyNone() {
		t.Errorf("without keys: %q", got)
	}
	s.setKeys(swarmKeys(11, 12, 13))
	for why, words := range map[crypto.Refusal]string{crypto.RefusedRevoked: "the node was removed from the swarm", crypto.RefusedNode: "refused: node"} {
		if got := s.whyNot(crypto.PeerStats{Failure: why, Tries: 3}); got != words {
			t.Errorf("%v: %q, want %q", why, got, words)
		}
	}
	for tries, words := range []string{"none was asked for", "a handshake is under way", "no answer to 2 handshakes"} {
		if got := s.whyNot(crypto.PeerStats{Tries: tries}); got != words {
			t.Errorf("%d tries: %q, want %q", tries, got, words)
		}
	}
	if filepath.Base(s.file) != "sealing.json" {
		t.Error(s.file) // what the tests of whole nodes spoil
	}
}

package discovery

import (
	"net/netip"
	"testing"
	"time"

	"github.com/ovnd/ovnd/crypto"
	"github.com/ovnd/ovnd/discovery/directory"
)

// What this node remembers from its last run stands until gossip has had the time
// to confirm it.
func TestRememberedOwner(t *testing.T) {
	before, owner, mallory, _ := established(t)
	records, ids := before.saved(), before.savedIdentities()
	before.says("ep", mallory.claim("ep", ownedIP))
	if before.rename("ffffffffffff"); before.unconfirmed() != 1 {
		t.Error("what was learned under a former name counts as confirmed")
	}
	if len(records) != 1 || len(ids) != 3 {
		t.Fatalf("%d endpoints and %d identities are kept", len(records), len(ids))
	}
	restart := func() *view {
		v := newView(t)
		v.rememberIdentities(ids)
		for id, r := range records {
			v.remember(id, r.Peer, r.Endpoint)
		}
		v.want("remembered", owner, "ep")
		if snap, _ := v.snapshot(1); len(snap.Identities) != 3 || v.unconfirmed() != 1 {
			t.Errorf("identities %v, %d unconfirmed", snap.Identities, v.unconfirmed())
		}
		v.joins(mallory)
		v.shakes(mallory)
		v.says("a", mallory.claim("a", ownedIP))
		v.says("ep", mallory.claim("ep", ownedIP))
		v.want("mallory comes first", owner, "ep")
		return v
	}
	v := restart()
	v.joins(owner)
	v.shakes(owner)
	v.says("ep", records["ep"].Peer)
	v.forgetUnconfirmed()
	v.now = v.now.Add(time.Hour)
	v.want("confirmed", owner, "ep")

	v = restart()
	if !v.forgetUnconfirmed() {
		t.Error("nothing is forgotten")
	}
	v.want("not confirmed", mallory, "a")
	if snap, _ := v.snapshot(1); len(snap.Identities) != 1 {
		t.Errorf("identities %v", snap.Identities)
	}

	v = restart()
	v.says("ep", nil)
	if !v.learnDeleted("ep", owner.claim("ep", ownedIP, released)) {
		t.Error("a release while this node was away is no news")
	}
	v.want("released meanwhile", mallory, "a")
}

// A local endpoint comes before any claim, and is signed once there is an
// identity, once for what stays the same.
func TestOwnEndpoints(t *testing.T) {
	v, _, mallory, _ := established(t)
	local := directory.Endpoint{ID: "own", Name: "own", Addr: netip.MustParseAddr("10.10.0.20")}
	if err := v.add(local); err != nil {
		t.Fatal(err)
	}
	if e := v.entries["own"]; e.place != nil || e.naming != nil || v.identityEntry() != nil {
		t.Error("something is said of an endpoint that cannot be signed for")
	}
	me := newTestSwarm(t).member("self", v.self.name, ownVTEP.String())
	v.self.trust.own, v.self.trust.sign = me.identity(), me.id.SignEndpoint
	if err := v.resign(); err != nil {
		t.Fatal(err)
	}
	seen := func() *view { // by another node
		o := newView(t)
		o.self.vtep, o.self.trust.own.NodeID = netip.MustParseAddr("192.0.2.99"), "another"
		learn(t, o.network, identityTable, v.self.name, v.identityEntry())
		return o
	}
	e := v.entries["own"]
	o := seen()
	o.says("own", e.place)
	if snap, _ := o.snapshot(1); snap.Endpoints.At(local.Addr) == nil || snap.Endpoints.At(local.Addr).Owner != "self" {
		t.Errorf("another node sees %v", snap.Endpoints)
	}
	o.says("own", e.released)
	if snap, _ := o.snapshot(1); snap.Endpoints.Len() != 0 {
		t.Error("a released endpoint is still there")
	}

	local.Disabled = true
	if err := v.add(local); err != nil {
		t.Fatal(err)
	}
	if again := v.entries["own"]; string(again.place) != string(e.place) || string(again.naming) == string(e.naming) {
		t.Error("a place is signed again although it is the same, or the name is not said again")
	}
	v.remove("own")
	if err := v.add(local); err != nil {
		t.Fatal(err)
	}
	o.says("own", v.entries["own"].place)
	if snap, _ := o.snapshot(1); snap.Endpoints.Len() != 1 {
		t.Error("an endpoint cannot come back after its release")
	}

	// A claim of its own that came back is contradicted, one of others is not.
	v.remove("own")
	v.says("own", e.place)
	v.says("forged", mallory.claim("forged", ownedIP, func(c *crypto.EndpointClaim) { c.Owner = "self" }))
	if len(v.replayed) != 1 || v.replayed["own"] == nil {
		t.Errorf("to be contradicted: %v", v.replayed)
	}
	v.says("ep", mallory.claim("ep", "10.10.0.20"))
	if err := v.add(local); err != nil {
		t.Fatal(err)
	}
	if snap, _ := v.snapshot(1); snap.Endpoints.At(local.Addr).Owner != "self" {
		t.Error("a claim of another node wins against a local endpoint")
	}
}

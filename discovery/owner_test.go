package discovery

import (
	"fmt"
	"maps"
	"net/netip"
	"testing"
	"time"

	"github.com/ovnd/ovnd/crypto"
	"github.com/ovnd/ovnd/discovery/directory"
)

const ownedIP = "10.10.0.9" // innerIP

// A view is what one node sees of an encrypted network: what gossip tells it, with
// whom it has shaken hands, who answers.
type view struct {
	*network
	t      *testing.T
	now    time.Time
	proven map[string]*member // by node ID
	alive  map[string]bool
}

func newView(t *testing.T) *view {
	t.Helper()
	v := &view{t: t, now: time.Now(), proven: make(map[string]*member), alive: make(map[string]bool)}
	n, err := newNetwork(sealedNet(0), self{name: "aaaaaaaaaaaa", vtep: ownVTEP, trust: &trust{
		own:   directory.Identity{NodeID: "self"},
		now:   func() time.Time { return v.now },
		alive: func(id string) bool { return v.alive[id] },
		verified: func(id string) (static, record [32]byte, ok bool) {
			m := v.proven[id]
			if m == nil {
				return static, record, false
			}
			return m.identity().Static, m.identity().Record, true
		},
	}})
	if err != nil {
		t.Fatal(err)
	}
	v.network = n
	return v
}

// joins has members on the network in gossip.
func (v *view) joins(members ...*member) {
	v.t.Helper()
	on := maps.Clone(v.members)
	if on == nil {
		on = make(map[netip.Addr]string)
	}
	for _, m := range members {
		learn(v.t, v.network, identityTable, m.name, m.entry(v.cfg.ID))
		on[m.vtep] = m.name
	}
	v.setMembers(on)
}

// leaves takes members off the network in gossip, truly or by a lie.
func (v *view) leaves(members ...*member) {
	v.t.Helper()
	on := maps.Clone(v.members)
	for _, m := range members {
		learn(v.t, v.network, identityTable, m.name, nil)
		delete(on, m.vtep)
	}
	v.setMembers(on)
}

// shakes has members prove who they are.
func (v *view) shakes(members ...*member) {
	for _, m := range members {
		v.proven[m.node], v.alive[m.node] = m, true
	}
}

func (v *view) says(endpointID string, record []byte) {
	v.t.Helper()
	learn(v.t, v.network, peerTable, endpointID, record)
}

// want checks who owns ownedIP in the next snapshot, "" for nobody.
func (v *view) want(what string, owner *member, id string) {
	v.t.Helper()
	snap, _ := v.snapshot(1)
	ep := snap.Endpoints.At(netip.MustParseAddr(ownedIP))
	switch {
	case owner == nil && ep != nil:
		v.t.Errorf("%s: endpoint %s of %s, want none", what, ep.ID, ep.Owner)
	case owner == nil:
	case ep == nil:
		v.t.Errorf("%s: no endpoint, want %s of %s", what, id, owner.node)
	case ep.ID != id || ep.Owner != owner.node || ep.VTEP != owner.vtep:
		v.t.Errorf("%s: endpoint %s of %s at %s, want %s of %s at %s", what, ep.ID, ep.Owner, ep.VTEP, id, owner.node, owner.vtep)
	}
}

// trio is the owner of an endpoint, a member that would like to be it, and
// another one.
func trio(t *testing.T) (owner, mallory, other *member) {
	t.Helper()
	s := newTestSwarm(t)
	return s.member("owner", "bbbbbbbbbbbb", "192.0.2.11"), s.member("mallory", "cccccccccccc", "192.0.2.12"),
		s.member("other", "dddddddddddd", "192.0.2.13")
}

// established is a view in which all have shaken hands and the owner has its
// endpoint.
func established(t *testing.T) (v *view, owner, mallory, other *member) {
	t.Helper()
	owner, mallory, other = trio(t)
	v = newView(t)
	v.joins(owner, mallory, other)
	v.shakes(owner, mallory, other)
	v.says("ep", owner.claim("ep", ownedIP))
	v.want("the first claim", owner, "ep")
	v.now = v.now.Add(time.Hour)
	return v, owner, mallory, other
}

// Another member overwrites the entry of an endpoint.
func TestOverwriteEntry(t *testing.T) {
	v, owner, mallory, _ := established(t)
	for what, forged := range map[string][]byte{
		"by a claim of its own":         mallory.claim("ep", ownedIP),
		"by one elsewhere":              mallory.claim("ep", "10.10.0.10"),
		"in the owner's name":           mallory.claim("ep", ownedIP, func(c *crypto.EndpointClaim) { c.Owner = owner.node }),
		"by a release in its name":      mallory.claim("ep", ownedIP, released, func(c *crypto.EndpointClaim) { c.Owner = owner.node }),
		"by a release of its own":       mallory.claim("ep", ownedIP, released),
		"in the name of nobody":         mallory.claim("ep", ownedIP, func(c *crypto.EndpointClaim) { c.Owner = "ghost" }),
		"in the name of this node":      mallory.claim("ep", ownedIP, func(c *crypto.EndpointClaim) { c.Owner = "self" }),
		"signed for another network":    mallory.claim("ep", ownedIP, func(c *crypto.EndpointClaim) { c.NetworkID = "net" }),
		"by the owner's other endpoint": owner.claim("other", ownedIP),
		"without a signature":           peerRecord(t, ownedIP+"/16", "02:42:0a:0a:00:09", "192.0.2.12"),
		"by one at this node":           mallory.claim("ep", ownedIP, func(c *crypto.EndpointClaim) { c.VTEP = ownVTEP.String() }),
	} {
		v.says("ep", forged)
		v.want(what, owner, "ep")
		if v.unproven+v.waiting > 1 {
			t.Errorf("%s: %d without a signature, %d waiting", what, v.unproven, v.waiting)
		}
	}
	if _, err := v.learn(peerTable, "ep", []byte("\xff")); err == nil {
		t.Error("accepted garbage")
	}
	v.want("by garbage", owner, "ep")

	// When the owner is gone the endpoint is.
	v.says("ep", mallory.claim("ep", ownedIP))
	v.leaves(owner)
	v.want("the owner in session alone", owner, "ep")
	delete(v.alive, owner.node)
	v.want("the owner gone", mallory, "ep")

	v, owner, _, _ = established(t)
	v.leaves(owner)
	v.says("ep", nil)
	v.want("the owner in session alone, without a record", owner, "ep")
	delete(v.alive, owner.node)
	v.want("the owner gone without a record", nil, "")
}

// Another member claims the address under an ID of its own.
func TestClaimAddress(t *testing.T) {
	v, owner, mallory, other := established(t)
	v.says("a", mallory.claim("a", ownedIP)) // the smaller ID
	v.want("claimed by another", owner, "ep")
	if _, conflicts := v.snapshot(1); conflicts != 1 || v.unproven != 0 {
		t.Errorf("%d conflicts, %d without a signature", conflicts, v.unproven)
	}
	v.says("b", other.claim("b", ownedIP))
	v.leaves(owner) // as far as gossip knows
	v.says("ep", nil)
	v.want("claimed, and the entry deleted", owner, "ep")
	if v.orphans != 1 {
		t.Errorf("%d claims without a record", v.orphans)
	}

	// Its session is lost, but it is back in gossip.
	v.joins(owner)
	delete(v.alive, owner.node)
	v.want("the owner in gossip alone", owner, "ep")

	v.leaves(owner)
	if !v.stirs() {
		t.Error("the end of the owner changes nothing")
	}
	v.want("the owner gone", mallory, "a")
	v.joins(owner)
	v.shakes(owner)
	v.says("ep", owner.claim("ep", ownedIP))
	v.want("the owner back", mallory, "a")
}

// The owner releases its endpoint: by an update, or in the value with which the
// entry was deleted. Whoever waits for the address has it at once.
func TestRelease(t *testing.T) {
	for _, deleted := range []bool{false, true} {
		v, owner, mallory, other := established(t)
		v.says("next", other.claim("next", ownedIP))
		v.want("not released yet", owner, "ep")
		release := owner.claim("ep", ownedIP, released)
		if deleted {
			v.says("ep", nil)
			for what, value := range map[string][]byte{
				"the last place": owner.claim("ep", ownedIP), "of another": mallory.claim("ep", ownedIP, released), "no record": []byte("\xff"),
			} {
				if v.learnDeleted("ep", value) {
					t.Errorf("deleted with %s: released", what)
				}
			}
			if !v.orphaned()["ep"] || !v.learnDeleted("ep", release) || v.learnDeleted("ep", release) {
				t.Error("deleted and released: no news, or twice")
			}
		} else {
			v.says("ep", release)
		}
		v.want("released", other, "next")
		if v.unproven+v.orphans != 0 {
			t.Errorf("%d without a signature, %d without a record", v.unproven, v.orphans)
		}
		v.says("ep", nil)
		v.says("next", other.claim("next", ownedIP, released))
		v.want("released again", nil, "")
	}
}

// Old records of the owner come again.
func TestReplay(t *testing.T) {
	v, owner, _, _ := established(t)
	old := owner.claim("ep", "10.10.0.10")
	oldRelease := owner.claim("ep", ownedIP, released)
	v.says("ep", owner.claim("ep", ownedIP))
	for what, record := range map[string][]byte{"an older place": old, "a release that was taken back": oldRelease} {
		v.says("ep", record)
		v.want(what, owner, "ep")
		if snap, _ := v.snapshot(1); snap.Endpoints.Len() != 1 || v.unproven != 1 {
			t.Errorf("%s: %d endpoints, %d without a signature", what, snap.Endpoints.Len(), v.unproven)
		}
	}
	v.says("ep", owner.claim("ep", ownedIP, released))
	v.want("released", nil, "")
	v.says("ep", nil)
	for _, record := range [][]byte{old, oldRelease, old} {
		v.says("ep", record)
		if snap, _ := v.snapshot(1); snap.Endpoints.Len() != 0 {
			t.Errorf("an old record after the release: %v", snap.Endpoints)
		}
	}
	v.says("ep", owner.claim("ep", ownedIP))
	v.want("a new one after the release", owner, "ep")

	// Its next run has other keys; what the last one said is worth nothing.
	last := owner.claim("ep", ownedIP)
	reborn := newTestSwarm(t).member(owner.node, "eeeeeeeeeeee", owner.vtep.String())
	v.leaves(owner)
	v.joins(reborn)
	v.shakes(reborn)
	v.says("ep", last)
	v.want("a record of the last run", nil, "")
	v.says("ep", reborn.claim("ep", ownedIP)) // whose sequence is smaller
	v.want("the owner's next run", reborn, "ep")
}

// A Docker node on the network, and whoever signs nothing: no endpoints.
func TestUnsigned(t *testing.T) {
	for _, nodeID := range []string{"self", ""} {
		v := newView(t)
		v.self.trust.own.NodeID = nodeID
		v.says("ep", peerRecord(t, ownedIP+"/16", "02:42:0a:0a:00:09", "192.0.2.12"))
		v.want("unsigned", nil, "")
		if v.unproven != 1 || len(v.replayed) != 0 {
			t.Errorf("%d unproven, %d to be contradicted", v.unproven, len(v.replayed))
		}
	}
}

func TestReleasesAreBounded(t *testing.T) {
	v, owner, _, _ := established(t)
	for i := range maxReleases {
		v.releases[fmt.Sprint("old", i)] = release{}
	}
	v.says("ep", owner.claim("ep", ownedIP, released))
	if v.want("released", nil, ""); len(v.releases) != maxReleases {
		t.Errorf("%d releases remembered", len(v.releases))
	}
}

// A member says that it is another node.
func TestForgedIdentity(t *testing.T) {
	owner, mallory, _ := trio(t)
	// Mallory's keys under the owner's ID: for what mallory signs in its name.
	posing := func(i *directory.Identity) { i.NodeID = owner.node }
	forged := func() []byte {
		return mallory.claim("ep", ownedIP, func(c *crypto.EndpointClaim) { c.Owner = owner.node })
	}
	t.Run("after the owner", func(t *testing.T) {
		v := newView(t)
		v.joins(owner, mallory)
		v.says("ep", owner.claim("ep", ownedIP))
		v.want("before", owner, "ep")
		for _, proven := range []bool{false, true} {
			if proven {
				v.shakes(owner)
			}
			learn(t, v.network, identityTable, mallory.name, mallory.entry(v.cfg.ID, posing))
			v.says("ep", forged())
			v.want("claimed under a forged identity", owner, "ep")
			// Before it has proved itself each of the two is called in turn: see TestNamesake.
			if snap, _ := v.snapshot(1); proven && snap.Identities[owner.node].Static != owner.identity().Static {
				t.Error("handshakes go to the forger")
			}
		}
		// Also in the place of the owner's own entry.
		learn(t, v.network, identityTable, owner.name, mallory.entry(v.cfg.ID, posing, func(i *directory.Identity) { i.Name = owner.name }))
		v.want("its entry overwritten", owner, "ep")
		if snap, _ := v.snapshot(1); snap.Identities[owner.node].Static != owner.identity().Static {
			t.Error("the identity of a node in session is forgotten")
		}
	})
	t.Run("before the owner", func(t *testing.T) {
		v := newView(t)
		v.joins(mallory)
		learn(t, v.network, identityTable, mallory.name, mallory.entry(v.cfg.ID, posing))
		v.says("ep", forged())
		v.snapshot(1)
		v.joins(owner)
		v.says("ep", owner.claim("ep", ownedIP))
		v.shakes(owner)
		if !v.newsOfOwners() || !v.stirs() {
			t.Error("a handshake changes nothing")
		}
		v.want("the owner has proved itself", owner, "ep")
	})
	t.Run("in place of the owner's", func(t *testing.T) {
		v := newView(t)
		v.joins(mallory)
		learn(t, v.network, identityTable, mallory.name, mallory.entry(v.cfg.ID, posing))
		v.shakes(owner) // whose entry is kept from this node
		v.says("ep", forged())
		v.want("signed with a key that the handshake belies", nil, "")
		v.says("ep", owner.claim("ep", ownedIP))
		v.want("signed with the proven key", owner, "ep")
	})
	t.Run("of this node", func(t *testing.T) {
		v := newView(t)
		v.joins(mallory)
		learn(t, v.network, identityTable, mallory.name, mallory.entry(v.cfg.ID, func(i *directory.Identity) { i.NodeID = "self" }))
		v.says("ep", mallory.claim("ep", ownedIP, func(c *crypto.EndpointClaim) { c.Owner = "self" }))
		v.want("claimed in this node's name", nil, "")
		if snap, _ := v.snapshot(1); len(snap.Identities) != 0 {
			t.Errorf("identities %v", snap.Identities)
		}
	})
	t.Run("copied", func(t *testing.T) {
		v := newView(t)
		for what, copied := range map[string][]byte{
			"another name":    owner.entry(v.cfg.ID),
			"another network": owner.entry("net", func(i *directory.Identity) { i.Name = mallory.name }),
			"garbage":         []byte("\xff"),
		} {
			if _, err := v.learn(identityTable, mallory.name, copied); err == nil {
				t.Errorf("%s: accepted", what)
			}
		}
	})
}

// Whoever claims all addresses in the name of nodes that do not exist has them
// until their owners prove themselves.
func TestGhost(t *testing.T) {
	owner, mallory, _ := trio(t)
	v := newView(t)
	v.joins(mallory)
	learn(t, v.network, identityTable, mallory.name, mallory.entry(v.cfg.ID, func(i *directory.Identity) { i.NodeID = "ghost" }))
	ghost := *mallory
	ghost.node = "ghost"
	v.says("a", ghost.claim("a", ownedIP))
	v.want("nobody else", &ghost, "a")
	v.joins(owner)
	v.says("ep", owner.claim("ep", ownedIP))
	v.shakes(owner)
	v.want("the ghost may still prove itself", &ghost, "a")
	v.now = v.now.Add(provingTime)
	if !v.stirs() {
		t.Error("time changes nothing")
	}
	v.want("it does not", owner, "ep")
	v.now = v.now.Add(time.Hour)
	v.want("nor later", owner, "ep")
}

// A newcomer hears of two claims at once: it takes that of who has proved itself,
// else the same one in any order, and keeps to it.
func TestNewcomer(t *testing.T) {
	for _, order := range [][]int{{0, 1}, {1, 0}} {
		owner, mallory, _ := trio(t)
		for _, proven := range []bool{false, true} {
			v := newView(t)
			v.joins(owner, mallory)
			first, firstID := mallory, "a"
			if proven {
				v.shakes(owner)
				first, firstID = owner, "ep"
			}
			for _, i := range order {
				if i == 0 {
					v.says("ep", owner.claim("ep", ownedIP))
				} else {
					v.says("a", mallory.claim("a", ownedIP))
				}
			}
			v.want("two at once", first, firstID)
			v.shakes(owner, mallory)
			v.now = v.now.Add(time.Hour)
			v.want("later", first, firstID)
		}
	}
}

// While nobody has shaken hands yet, the first claim stands all the same.
func TestFirstClaimStands(t *testing.T) {
	owner, mallory, _ := trio(t)
	v := newView(t)
	v.joins(owner, mallory)
	v.says("ep", owner.claim("ep", ownedIP))
	v.want("the first", owner, "ep")
	v.now = v.now.Add(time.Hour)
	v.says("a", mallory.claim("a", ownedIP))
	v.want("the second", owner, "ep")
	v.says("ep", mallory.claim("ep", ownedIP))
	v.want("over the first", owner, "ep")
}

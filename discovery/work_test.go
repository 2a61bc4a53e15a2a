package discovery

import (
	"fmt"
	"testing"
	"time"

	"github.com/ovnd/ovnd/crypto"
	"github.com/ovnd/ovnd/discovery/directory"
)

// inName makes a claim in another node's name.
func inName(node string) func(*crypto.EndpointClaim) {
	return func(c *crypto.EndpointClaim) { c.Owner = node }
}

// addrOf is an address of the network that no other test has.
func addrOf(i int) string { return fmt.Sprintf("10.10.%d.%d", 1+i/250, 1+i%250) }

// repeat says changes of many endpoints' records, one after the other, for a
// while: rate of them a second, and a look at all each lookInterval.
func (v *view) repeat(d time.Duration, rate int, change func(i int) (endpointID string, record []byte)) {
	v.t.Helper()
	each := time.Second / time.Duration(rate)
	var looked time.Duration
	for at, i := time.Duration(0), 0; at < d; at, i = at+each, i+1 {
		v.now = v.now.Add(each)
		v.says(change(i))
		if at-looked >= lookInterval {
			looked = at
			if !v.rests() {
				v.snapshot(1)
			}
			v.stirs()
		}
	}
}

// A member changes the records of many endpoints again and again, in its own name
// or in another's: what that costs is bounded, and what the other says counts soon
// after.
func TestChangesAreBounded(t *testing.T) {
	for _, forged := range []bool{false, true} {
		v, owner, mallory, other := established(t)
		records := make([][]byte, 500)
		for i := range records {
			if records[i] = mallory.claim(fmt.Sprint("m", i%50), addrOf(i)); forged {
				records[i] = mallory.claim(fmt.Sprint("m", i%50), addrOf(i), inName(other.node))
			}
		}
		const seconds, rate = 20, 2000
		verified, looked := v.work.verified, v.work.looked
		v.repeat(seconds*time.Second, rate, func(i int) (string, []byte) { return fmt.Sprint("m", i%50), records[i%len(records)] })
		verified, looked = v.work.verified-verified, v.work.looked-looked
		if most := ownerBurst + seconds*ownerChecks; verified == 0 || verified > most {
			t.Errorf("forged %v: %d signatures verified for %d changes, want at most %d", forged, verified, seconds*rate, most)
		}
		if most := looksBurst + seconds*looksRate; looked > most {
			t.Errorf("forged %v: %d records looked at, want at most %d", forged, looked, most)
		}
		v.want("meanwhile", owner, "ep")
		v.says("ep", owner.claim("ep", ownedIP, released))
		v.want("released", nil, "")
		v.says("ep2", other.claim("ep2", ownedIP))
		for end := v.now.Add(time.Minute); v.now.Before(end) && v.standingClaim("ep2") == nil; v.now = v.now.Add(lookInterval) {
			v.snapshot(1)
		}
		v.want("the claim of who was spoken for", other, "ep2")
	}
}

// standingClaim returns the claim of an endpoint that counts.
func (v *view) standingClaim(id string) *place { return v.remote[id].held }

// A member has many claims in the name of a node that does not exist, and changes
// that node's keys again and again, which puts all of them in doubt.
func TestChangesOfKeysAreBounded(t *testing.T) {
	v, owner, mallory, _ := established(t)
	ghost := func(i *directory.Identity) { i.NodeID = "ghost" }
	s := newTestSwarm(t)
	keys := [2]*member{mallory, s.member("mallory", mallory.name, mallory.vtep.String())}
	const many, seconds = 4000, 30
	for i := range many {
		v.says(fmt.Sprint("g", i), mallory.claim(fmt.Sprint("g", i), addrOf(i), inName("ghost")))
	}
	verified := v.work.verified
	for i := range seconds * 5 {
		v.now = v.now.Add(lookInterval)
		learn(t, v.network, identityTable, mallory.name, keys[i%2].entry(v.cfg.ID, ghost))
		v.snapshot(1)
	}
	verified = v.work.verified - verified
	if most := otherBurst + seconds*otherChecks; verified == 0 || verified > most {
		t.Errorf("%d signatures verified for %d changes of keys, want at most %d", verified, seconds*5, most)
	}
	v.want("meanwhile", owner, "ep")
}

// A member disputes one address of a large network, and then another node's place
// in it by turns: nobody looks through all the network for that all the time.
func TestDisputesAreBounded(t *testing.T) {
	v, owner, mallory, _ := established(t)
	const many, seconds = 2000, 20
	for i := range many {
		v.says(fmt.Sprint("o", i), owner.claim(fmt.Sprint("o", i), addrOf(i)))
	}
	v.snapshot(1)
	v.says("a", mallory.claim("a", ownedIP))
	v.snapshot(1)
	looked := v.work.looked
	for range seconds * 100 {
		v.now = v.now.Add(publishDelay)
		if v.stirs() && !v.rests() {
			v.snapshot(1)
		}
	}
	looked = v.work.looked - looked
	if most := looksBurst + seconds*looksRate + 2*many; looked < many || looked > most {
		t.Errorf("%d records looked at, want at most %d", looked, most)
	}
	v.want("meanwhile", owner, "ep")
}

package e2e

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/ovnd/ovnd/api/types"
)

// removalLimit is within which the others close their sessions with a node that
// was removed from the swarm.
const removalLimit = 5 * time.Second

// TestRemovedNode removes a node by force that does not hear of it: its manager
// is out of its reach. The others close their sessions within five seconds, and
// the node, restarted, opens none: not even with one that was cut off during
// the removal and is back.
func TestRemovedNode(t *testing.T) {
	hosts, addrs := threeMachines(t, "192.0.2.%d", 24)
	nodes := threeNodes(t, hosts, addrs)
	m, away, removed := nodes[0], nodes[1], nodes[2]
	m.must("network", "create", "-d", "overlay", "--attachable", "--opt", "encrypted", "sealed")
	m.must("network", "create", "-d", "overlay", "--attachable", "plain")
	var agents [3]*sandbox
	for i, n := range nodes {
		agents[i] = n.startAgent("--network", "sealed", "--name", fmt.Sprintf("a%d", i+1))
	}
	wire := tapCanaries(t, "ens3", m, hosts[:]...)
	exchange := func(from, to int) error { return agents[from].ask(nil, "canary", agents[to].addr(), canary) }
	for _, pair := range [][2]int{{0, 1}, {1, 2}, {2, 0}} {
		agents[pair[0]].node.eventually("an exchange", func() error { return exchange(pair[0], pair[1]) })
	}
	id := removed.status().NodeID

	withoutManagers(t, removed.host)
	away.host.Down("ens3")
	began := time.Now()
	m.must("node", "rm", "--force", id)
	m.eventuallyWithin(removalLimit-time.Since(began), "the session is closed", func() error { return closed(m, removed, id) })
	t.Logf("closed %v after the removal", time.Since(began).Round(10*time.Millisecond))
	if err := exchange(0, 2); err == nil {
		t.Error("an exchange with the removed node")
	}
	if err := exchange(2, 0); err == nil {
		t.Error("an exchange from the removed node")
	}

	away.host.Up("ens3")
	began = time.Now()
	away.eventuallyWithin(time.Minute, "who was away hears of it", func() error { return closed(away, removed, id) })
	t.Logf("closed by who was away %v after it was back", time.Since(began).Round(10*time.Millisecond))
	away.eventually("those who stay talk", func() error { return exchange(0, 1) })

	// With fresh keys and its old certificate.
	refused := m.status().Sealing.Refusals["revoked"]
	removed.kill()
	removed.up()
	for _, n := range []*node{m, away} {
		if err := closed(n, removed, id); err != nil {
			t.Errorf("%s, after the removed node's restart: %v", n.name, err)
		}
	}
	m.eventually("a removed node's handshake is refused", func() error {
		if got := m.status().Sealing.Refusals["revoked"]; got == refused {
			return fmt.Errorf("%v", m.status().Sealing.Refusals)
		}
		return nil
	})
	// A node that restarts remembers whom not to talk to.
	away.kill()
	away.up()
	if s := away.status().Sealing; !slices.Contains(s.Revoked, id) {
		t.Errorf("after its restart %s knows of no removal: %+v", away.name, s)
	}
	if err := closed(away, removed, id); err != nil {
		t.Error(err)
	}
	away.eventually("those who stay talk after a restart", func() error { return exchange(1, 0) })
	wire.expectUnseen(canary, "VXLAN of sealed")
}

// closed says whether a node has no session with one that was removed, and
// knows why.
func closed(n, removed *node, id string) error {
	s := n.status()
	for _, p := range s.Peers {
		if p.IP.String() == removed.addr && slices.ContainsFunc(p.Sessions, func(s types.Session) bool { return s.Established }) {
			return fmt.Errorf("sessions %+v", p.Sessions)
		}
	}
	if s.Sealing == nil || !slices.Contains(s.Sealing.Revoked, id) {
		return errors.New("the removal is not known")
	}
	return nil
}

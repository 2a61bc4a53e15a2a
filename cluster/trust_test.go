package cluster

import (
	"crypto/x509"
	"encoding/json"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/moby/moby/api/types/swarm"

	"github.com/ovnd/ovnd/crypto"
)

// A testimony is what a node shows of its credentials: a statement made with
// them.
type testimony struct {
	ClusterID string
	Chain     [][]byte
	Statement crypto.Statement
	Err       string
}

func testify(cred crypto.Credentials) (t testimony) {
	t.ClusterID, t.Chain = cred.ClusterID, cred.Chain
	keys, err := crypto.NewKeys()
	if err == nil {
		var id *crypto.Identity
		if id, err = keys.Identify(cred); err == nil {
			t.Statement = id.Statement()
			err = crypto.VerifyIdentity(t.Statement, cred.Chain, cred.ClusterID, cred.Roots, time.Now())
		}
	}
	if err != nil {
		t.Err = err.Error()
	}
	return t
}

func (t testimony) leaf(tb testing.TB) *x509.Certificate {
	tb.Helper()
	cert, err := x509.ParseCertificate(t.Chain[0])
	if err != nil {
		tb.Fatal(err)
	}
	return cert
}

// testimonies are what a node was told of its credentials so far.
func (c *child) testimonies() []testimony {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []testimony
	for _, m := range c.msgs {
		var t testimony
		if m.Event == "credentials" && json.Unmarshal(m.Data, &t) == nil {
			out = append(out, t)
		}
	}
	return out
}

// awaitTestimony waits for credentials that match accepts.
func (c *child) awaitTestimony(what string, timeout time.Duration, match func(testimony) bool) (got testimony) {
	c.t.Helper()
	c.await(what, timeout, func(m message) bool {
		var t testimony
		if m.Event != "credentials" || json.Unmarshal(m.Data, &t) != nil || !match(t) {
			return false
		}
		got = t
		return true
	})
	if got.Err != "" {
		c.t.Errorf("%s: %s: %s", c.name, what, got.Err)
	}
	return got
}

func anyTestimony(testimony) bool { return true }

// rootPEM is what the node trusts, as SwarmKit keeps it.
func (c *child) rootPEM() []byte {
	c.t.Helper()
	data, err := os.ReadFile((&stateDir{path: c.cfg.StateDir}).certPaths().RootCA.Cert)
	if err != nil {
		c.t.Fatal(err)
	}
	return data
}

// accepts says whether this node would take t for what it says.
func (c *child) accepts(t testimony) error {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(c.rootPEM())
	return crypto.VerifyIdentity(t.Statement, t.Chain, t.ClusterID, roots, time.Now())
}

// TestCredentials follows a node's credentials through a renewal, which the
// change of its role brings, and a rotation of the swarm's root.
func TestCredentials(t *testing.T) {
	t.Parallel()
	a := startChild(t, testConfig(t, "127.0.0.2", testPort(t))).ready()
	b := startChild(t, a.join("127.0.0.3", swarm.NodeRoleWorker)).ready()
	var sw swarm.Swarm
	a.must(request{Op: "swarm"}, &sw)
	for _, n := range []*child{a, b} {
		var info swarm.Info
		n.must(request{Op: "info"}, &info)
		first := n.awaitTestimony("first credentials", 5*time.Second, anyTestimony)
		if first.ClusterID != sw.ID || first.Statement.NodeID != info.NodeID || len(first.Chain) != 1 {
			t.Errorf("%s: swarm %q, node %q, %d certificates; want %q, %q, 1", n.name, first.ClusterID, first.Statement.NodeID, len(first.Chain), sw.ID, info.NodeID)
		}
		if size := crypto.ChainLen(first.Chain); size > 600 {
			t.Errorf("%s: a chain of %d bytes", n.name, size)
		}
		for _, other := range []*child{a, b} {
			if err := other.accepts(first); err != nil {
				t.Errorf("%s of %s: %v", other.name, n.name, err)
			}
		}
		var now testimony
		n.must(request{Op: "credentials"}, &now)
		if !slices.EqualFunc(now.Chain, first.Chain, slices.Equal) {
			t.Errorf("%s: Credentials has another chain than the hook brought", n.name)
		}
	}

	a.must(request{Op: "role", Target: b.name, Role: swarm.NodeRoleManager}, nil)
	b.awaitTestimony("credentials of a manager", 20*time.Second, func(n testimony) bool {
		return slices.Contains(n.leaf(t).Subject.OrganizationalUnit, "swarm-manager")
	})

	// Whenever one of them has its new certificate, the other accepts it,
	// whichever root it trusts by then.
	before := string(a.rootPEM())
	seen := map[*child]int{a: len(a.testimonies()), b: len(b.testimonies())}
	a.must(request{Op: "rotate-root"}, nil)
	eventually(t, "both trust the new root", 40*time.Second, func() bool {
		for _, n := range []*child{a, b} {
			if all := n.testimonies(); len(all) > 0 {
				for _, other := range []*child{a, b} {
					if err := other.accepts(all[len(all)-1]); err != nil {
						t.Errorf("%s of %s: %v", other.name, n.name, err)
					}
				}
			}
		}
		return string(a.rootPEM()) != before && string(b.rootPEM()) == string(a.rootPEM())
	})
	for _, n := range []*child{a, b} {
		news := n.testimonies()[seen[n]:]
		i := slices.IndexFunc(news, func(n testimony) bool { return len(n.Chain) == 2 })
		if i < 0 {
			t.Errorf("%s: no certificate with an intermediate among %d", n.name, len(news))
			continue
		}
		t.Logf("%s: %d bytes of certificates during the rotation", n.name, crypto.ChainLen(news[i].Chain))
		if size := crypto.ChainLen(news[i].Chain); size > 950 {
			t.Errorf("%s: a chain of %d bytes does not fit a handshake", n.name, size)
		}
	}
	// The hook brings the new root too.
	for _, n := range []*child{a, b} {
		want := n.testimonies()[len(n.testimonies())-1].Chain
		eventually(t, n.name+" is told of the new root", 5*time.Second, func() bool {
			return len(n.testimonies()) > seen[n]+1
		})
		if got := n.testimonies(); !slices.EqualFunc(got[len(got)-1].Chain, want, slices.Equal) {
			t.Errorf("%s: the certificate changed again", n.name)
		}
	}

	a.must(request{Op: "leave", Force: true}, nil)
	a.event("left")
	if err := a.call(request{Op: "credentials"}, nil); err == "" {
		t.Error("a node in no swarm has credentials")
	}
}

// removed are the nodes that the last call of NodesRemoved named.
func (c *child) removed() (out map[string]time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.msgs {
		if m.Event == "nodes" {
			out = nil
			_ = json.Unmarshal(m.Data, &out)
		}
	}
	return out
}

// TestNodesRemoved: managers learn of removed nodes at once, also of those that
// went while they were away, and workers do not.
func TestNodesRemoved(t *testing.T) {
	t.Parallel()
	port := testPort(t)
	a := startChild(t, testConfig(t, "127.0.0.2", port)).ready()
	b := startChild(t, a.join("127.0.0.3", swarm.NodeRoleManager)).ready()
	c := startChild(t, a.join("127.0.0.4", swarm.NodeRoleManager)).ready()
	worker := startChild(t, a.join("127.0.0.5", swarm.NodeRoleWorker)).ready()
	gone := []*child{startChild(t, a.join("127.0.0.6", swarm.NodeRoleWorker)).ready(), startChild(t, a.join("127.0.0.7", swarm.NodeRoleWorker)).ready()}
	id := func(n *child) string {
		var info swarm.Info
		n.must(request{Op: "info"}, &info)
		return info.NodeID
	}
	first, second := id(gone[0]), id(gone[1])

	if got := a.removed(); len(got) > 0 {
		t.Errorf("removed before anybody was: %v", got)
	}
	start := time.Now()
	a.must(request{Op: "rmnode", Target: first, Force: true}, nil)
	for _, n := range []*child{a, b, c} {
		eventually(t, n.name+" is told", 2*time.Second, func() bool { return !n.removed()[first].IsZero() })
		if left := time.Until(n.removed()[first]); left < 89*24*time.Hour || left > 91*24*time.Hour {
			t.Errorf("%s: the removed node's certificate ends in %v", n.name, left)
		}
	}
	t.Logf("told after %v", time.Since(start))

	c.stop()
	a.must(request{Op: "rmnode", Target: second, Force: true}, nil)
	c = c.again().ready()
	eventually(t, "a manager that was away is told", 10*time.Second, func() bool {
		got := c.removed()
		return !got[first].IsZero() && !got[second].IsZero()
	})
	if got := worker.removed(); got != nil {
		t.Errorf("a worker was told of %v", got)
	}
}

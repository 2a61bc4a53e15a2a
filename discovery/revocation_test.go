package discovery

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ovnd/ovnd/crypto"
	"github.com/ovnd/ovnd/discovery/directory"
)

// A blacklist collects what a node is told of nodes that were removed.
type blacklist struct {
	mu  sync.Mutex
	ids []string
}

func (b *blacklist) add(ids []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ids = append(b.ids, ids...)
}

func (b *blacklist) get() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.ids)
}

func ingress() NetworkConfig {
	cfg := testNet(0)
	cfg.Ingress = true
	return cfg
}

// A manager publishes a revocation, a worker verifies and keeps it, also when no
// manager says so any more, and again after its own restart.
func TestRevocation(t *testing.T) {
	t.Parallel()
	swarm, s := newTestSwarm(t), new(sessions)
	nodes := startNodes(t, 2)
	manager, dir := nodes[0], t.TempDir()
	nodes[1].stop()
	worker := startNode(t, freshAddr(), dir)
	if err := worker.SetKeys(testKeys(1, 2, 3)); err != nil {
		t.Fatal(err)
	}
	worker.Join([]string{manager.addr().String()})
	var atManager, atWorker blacklist
	manager.OnRevocations(swarm.verify, atManager.add)
	for _, n := range []*testNode{manager, worker} {
		if err := n.JoinNetwork(ingress()); err != nil {
			t.Fatal(err)
		}
	}
	list := []crypto.Revocation{swarm.revocation("manager", "removed")}
	if err := manager.PublishRevocations(list); err != nil {
		t.Fatal(err)
	}
	if got := atManager.get(); !slices.Equal(got, []string{"removed"}) {
		t.Errorf("the manager itself is told of %v", got)
	}
	manager.identify(swarm, "manager", s) // it has a name to say it under from now on

	// Before the worker knows the swarm's roots, it believes nothing.
	wait(t, soon, "a revocation that cannot be verified yet", func() bool {
		worker.mu.Lock()
		defer worker.mu.Unlock()
		return len(worker.revoked.pending) == 1
	})
	if ids := worker.Revoked(); len(ids) != 0 {
		t.Errorf("believed without roots: %v", ids)
	}
	worker.OnRevocations(swarm.verify, atWorker.add)
	want := []string{"removed"}
	if got := atWorker.get(); !slices.Equal(got, want) {
		t.Errorf("told of %v", got)
	}
	if err := manager.PublishRevocations(append(list, swarm.revocation("manager", "another"))); err != nil {
		t.Fatal(err)
	}
	want = append(want, "another")
	wait(t, soon, "a second one", func() bool { return slices.Equal(atWorker.get(), want) })

	manager.stop()
	worker.stop()
	if st, err := os.Stat(filepath.Join(dir, revocationsFile)); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v, want mode 0600", st, err)
	}
	worker = startNode(t, worker.addr(), dir)
	var again blacklist
	worker.OnRevocations(func(crypto.Revocation) (string, error) { return "", errors.New("expired") }, again.add)
	if got := again.get(); len(got) != 2 || !slices.Equal(worker.Revoked(), []string{"another", "removed"}) {
		t.Errorf("after the restart: told of %v", got)
	}
}

// Revocations that prove nothing.
func TestBadRevocations(t *testing.T) {
	t.Parallel()
	swarm, other := newTestSwarm(t), newTestSwarm(t)
	d, err := New(Config{AdvertiseAddr: freshAddr(), StateDir: t.TempDir(), Store: directory.NewStore(), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	var told blacklist
	d.OnRevocations(swarm.verify, told.add)
	encode := func(r crypto.Revocation) []byte {
		t.Helper()
		b, err := r.AppendBinary(nil)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	good := swarm.revocation("manager", "removed")
	renamed := good
	renamed.NodeID = "victim"
	take := func(key string, b []byte) (string, error) {
		d.mu.Lock()
		defer d.mu.Unlock()
		return d.takeRevocation(key, b)
	}
	for what, tc := range map[string]struct {
		key string
		b   []byte
	}{
		"another's key":      {"victim.manager", encode(good)},
		"another node":       {"victim.manager", encode(renamed)},
		"another swarm":      {"removed.manager", encode(other.revocation("manager", "removed"))},
		"nothing":            {"removed.manager", nil},
		"cut off":            {"removed.manager", encode(good)[:40]},
		"too long":           {"removed.manager", make([]byte, maxRevocation+1)},
		"with something odd": {"a/b.manager", encode(swarm.revocation("manager", "a/b"))},
	} {
		if id, err := take(tc.key, tc.b); err == nil || id != "" {
			t.Errorf("%s: %q, %v", what, id, err)
		}
	}
	if id, err := take("removed.manager", encode(good)); err != nil || id != "removed" {
		t.Errorf("a good one: %q, %v", id, err)
	}
	if id, err := take("removed.manager2", encode(swarm.revocation("manager2", "removed"))); err != nil || id != "" {
		t.Errorf("a second one of the same node: %q, %v", id, err)
	}
	if id, err := take("bad-manager.manager", encode(swarm.revocation("manager", "bad-manager"))); err != nil || id != "bad-manager" {
		t.Errorf("of a manager: %q, %v", id, err)
	}
	if id, err := take("manager.bad-manager", encode(swarm.revocation("bad-manager", "manager"))); err == nil || id != "" {
		t.Errorf("by a manager that was removed: %q, %v", id, err)
	}

	for i := range 2 * maxPending {
		_, _ = take(fmt.Sprintf("x%d.m", i), encode(other.revocation("m", fmt.Sprint("x", i))))
	}
	if n := len(d.revoked.pending); n != maxPending {
		t.Errorf("%d wait to be verified", n)
	}
	for i := range 2 * maxRevocations {
		d.revoked.known[fmt.Sprint("y", i)] = nil
		if len(d.revoked.known) >= maxRevocations {
			break
		}
	}
	if _, err := take("late.manager", encode(swarm.revocation("manager", "late"))); err != nil || len(d.revoked.known) != maxRevocations {
		t.Errorf("one too many: %v", err)
	}
	if err := d.PublishRevocations([]crypto.Revocation{{NodeID: "a"}}); err == nil {
		t.Error("published without a chain")
	}
}

// A revocation of a removed node, restored from a file that somebody has mangled.
func TestRestoreRevocations(t *testing.T) {
	swarm := newTestSwarm(t)
	dir := t.TempDir()
	b, err := swarm.revocation("manager", "removed").AppendBinary(nil)
	if err != nil {
		t.Fatal(err)
	}
	file := map[string][]byte{"removed": b, "victim": b, "garbage": []byte("x")}
	if err := save(filepath.Join(dir, revocationsFile), file, false); err != nil {
		t.Fatal(err)
	}
	n := startNode(t, freshAddr(), dir)
	if ids := n.Revoked(); !slices.Equal(ids, []string{"removed"}) {
		t.Errorf("restored %v", ids)
	}
}

// FuzzRevocationEntry checks that what is accepted names the node of its key and
// is the same after having been encoded again.
func FuzzRevocationEntry(f *testing.F) {
	b, err := newTestSwarm(f).revocation("manager", "removed").AppendBinary(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add("removed.manager", b)
	f.Add("removed", b)
	f.Fuzz(func(t *testing.T, key string, b []byte) {
		r, err := parseRevocation(key, b)
		if err != nil {
			return
		}
		if checkNodeID(r.NodeID) != nil || !strings.HasPrefix(key, r.NodeID) || len(b) > maxRevocation {
			t.Fatalf("accepted %+v under %q", r, key)
		}
		again, err := r.AppendBinary(nil)
		if err != nil || string(again) != string(b) {
			t.Fatalf("%x became %x, %v", b, again, err)
		}
	})
}

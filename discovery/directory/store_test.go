package directory

import (
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStorePublish(t *testing.T) {
	s := NewStore()
	if s.Load("a") != nil {
		t.Fatal("an empty store knows a network")
	}
	s.Publish(&Snapshot{ID: "a", Name: "zoo", Version: 1})
	s.Publish(&Snapshot{ID: "b", Name: "bar", Version: 2})
	s.Publish(&Snapshot{ID: "a", Name: "zoo", Version: 3})
	if v := s.Load("a").Version; v != 3 {
		t.Errorf("version %d, want 3", v)
	}
	all := s.Networks()
	if len(all) != 2 || all[0].Name != "bar" || all[1].Name != "zoo" {
		t.Errorf("networks %v, want bar and zoo", all)
	}
	s.Remove("a")
	if s.Load("a") != nil || len(s.Networks()) != 1 {
		t.Error("a removed network is still there")
	}
}

func TestSnapshotLookup(t *testing.T) {
	a := netip.MustParseAddr("10.10.0.9")
	s := &Snapshot{
		Subnets:   []Subnet{{Prefix: netip.MustParsePrefix("10.10.0.0/16")}},
		Endpoints: MapOf(map[netip.Addr]*Endpoint{a: {ID: "x"}}),
	}
	if ep, ok := s.Lookup(a); !ok || ep.ID != "x" {
		t.Errorf("got %v, %v", ep, ok)
	}
	if _, ok := s.Lookup(a.Next()); ok {
		t.Error("found an endpoint that does not exist")
	}
	if !s.Contains(a.Next()) || s.Contains(netip.MustParseAddr("10.11.0.1")) {
		t.Error("Contains goes by something other than the subnets")
	}
}

func receive(t *testing.T, ch <-chan string) string {
	t.Helper()
	select {
	case id := <-ch:
		return id
	case <-time.After(5 * time.Second):
		t.Fatal("no change reported")
		return ""
	}
}

func TestSubscribeReportsExistingNetworks(t *testing.T) {
	s := NewStore()
	s.Publish(&Snapshot{ID: "a"})
	changes, cancel := s.Subscribe()
	defer cancel()
	if id := receive(t, changes); id != "a" {
		t.Errorf("got %q, want a", id)
	}
}

// A subscriber that looks away for a thousand versions is told once or, if the
// first was on its way already, twice; and then finds the newest.
func TestSubscribeCoalesces(t *testing.T) {
	s := NewStore()
	changes, cancel := s.Subscribe()
	defer cancel()
	const versions = 1000
	for v := range uint64(versions) {
		s.Publish(&Snapshot{ID: "a", Version: v + 1})
	}
	s.Publish(&Snapshot{ID: "b"})

	var seen []string
	for len(seen) == 0 || seen[len(seen)-1] != "b" {
		seen = append(seen, receive(t, changes))
	}
	if len(seen) > 3 {
		t.Errorf("told %d times: %v", len(seen), seen)
	}
	if v := s.Load("a").Version; v != versions {
		t.Errorf("version %d, want %d", v, versions)
	}
	s.Remove("a")
	if id := receive(t, changes); id != "a" {
		t.Errorf("removal reported as %q, want a", id)
	}
}

func TestSubscribeCancel(t *testing.T) {
	s := NewStore()
	changes, cancel := s.Subscribe()
	s.Publish(&Snapshot{ID: "a"})
	cancel()
	cancel() // twice is harmless
	open := true
	for open { // what was on its way may still come
		_, open = <-changes
	}
	s.Publish(&Snapshot{ID: "b"})
}

// Run with -race: readers never see a version go back.
func TestStoreConcurrent(t *testing.T) {
	s := NewStore()
	var wg sync.WaitGroup
	for n := range 2 {
		id := fmt.Sprint(n)
		wg.Go(func() {
			for v := range uint64(2000) {
				s.Publish(&Snapshot{ID: id, Version: v + 1})
			}
		})
		wg.Go(func() {
			var last uint64
			for last < 2000 {
				if snap := s.Load(id); snap != nil {
					if snap.Version < last {
						t.Errorf("version went from %d to %d", last, snap.Version)
						return
					}
					last = snap.Version
				}
			}
		})
	}
	wg.Wait()
}

package netstack

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"

	"github.com/ovnd/ovnd/discovery/directory"
)

// serviceOf is a snapshot of one service with backends at 10.0.0.<host>.
func serviceOf(version uint64, hosts ...byte) *directory.Snapshot {
	return withDraining(version, hosts, nil)
}

func withDraining(version uint64, hosts, draining []byte) *directory.Snapshot {
	snap := &directory.Snapshot{Version: version}
	for _, host := range slices.Concat(hosts, draining) {
		ep := &directory.Endpoint{
			ID: fmt.Sprint("ep", host), Addr: netip.AddrFrom4([4]byte{10, 0, 0, host}),
			ServiceID: "id", ServiceName: "web", VIP: netip.MustParseAddr("10.0.1.1"),
			Disabled: slices.Contains(draining, host),
		}
		snap.Endpoints = snap.Endpoints.With(ep.Addr, ep)
	}
	snap.Services, snap.VIPs = directory.Services(snap.Endpoints)
	return snap
}

// nextHost takes the next turn for port 80.
func nextHost(t *testing.T, ts *turns) byte {
	t.Helper()
	b, addr, ok := ts.byID("id").begin(directory.TCP, 80).next()
	if !ok || addr.Addr() != b.addr || addr.Port() != 80 {
		t.Fatalf("next: %v %v %v", b, addr, ok)
	}
	return addr.Addr().As4()[3]
}

func TestTurnsAreExactUnderConcurrency(t *testing.T) {
	ts := newTurns()
	ts.update(serviceOf(1, 1, 2, 3, 4, 5))
	counts := make([]map[netip.Addr]int, 64)
	var all sync.WaitGroup
	for i := range counts {
		counts[i] = make(map[netip.Addr]int)
		all.Go(func() {
			for range 500 + i%2 {
				b, _, ok := ts.byVIP(netip.MustParseAddr("10.0.1.1")).begin(directory.TCP, 80).next()
				if !ok {
					t.Error("no backend")
					return
				}
				counts[i][b.addr]++
				b.opened()
				b.closed()
			}
		})
	}
	all.Wait()
	sum := make(map[netip.Addr]int)
	for _, c := range counts {
		for a, n := range c {
			sum[a] += n
		}
	}
	const total = 64*500 + 32
	for _, b := range ts.stats()[0].Backends {
		if n := sum[b.Addr]; n != total/5 && n != total/5+1 {
			t.Errorf("%s had %d turns of %d", b.Addr, n, total)
		}
		if int(b.Connections) != sum[b.Addr] || b.Active != 0 {
			t.Errorf("%s: %+v", b.Addr, b)
		}
	}
}

// TestTurnsGoOnWhenBackendsChange: whoever stays is neither passed over nor
// given two turns in a row.
func TestTurnsGoOnWhenBackendsChange(t *testing.T) {
	ts := newTurns()
	ts.update(serviceOf(1, 10, 20, 30))
	for nextHost(t, ts) != 20 {
		continue
	}
	ts.update(serviceOf(2, 10, 25, 30)) // 20, whose turn was last, is replaced
	for _, want := range []byte{25, 30, 10, 25} {
		if got := nextHost(t, ts); got != want {
			t.Fatalf("turn of %d, want %d", got, want)
		}
	}
	ts.update(serviceOf(3, 5, 10, 15, 30))
	for _, want := range []byte{30, 5, 10, 15, 30} {
		if got := nextHost(t, ts); got != want {
			t.Fatalf("turn of %d, want %d", got, want)
		}
	}
	ts.update(withDraining(4, []byte{5, 15}, []byte{10}))
	for _, want := range []byte{5, 15, 5} {
		if got := nextHost(t, ts); got != want {
			t.Fatalf("turn of %d, want %d", got, want)
		}
	}
	ts.update(serviceOf(2, 99)) // late
	if got := nextHost(t, ts); got != 15 {
		t.Fatalf("an old snapshot was taken over: turn of %d", got)
	}
}

func TestAttemptTriesEachOnce(t *testing.T) {
	ts := newTurns()
	ts.update(serviceOf(1, 1, 2, 3))
	a := ts.byID("id").begin(directory.TCP, 80)
	seen := make(map[*backend]bool)
	for b, _, ok := a.next(); ok; b, _, ok = a.next() {
		if seen[b] {
			t.Fatalf("%s was tried twice", b.addr)
		}
		seen[b] = true
	}
	if len(seen) != 3 {
		t.Errorf("%d of 3 backends were tried", len(seen))
	}
	ts.update(withDraining(2, nil, []byte{1, 2, 3}))
	if _, _, ok := ts.byID("id").begin(directory.TCP, 80).next(); ok {
		t.Error("a backend that drains was given a connection")
	}
	if ts.byID("id").isReady() {
		t.Error("ready with backends that drain")
	}
}

func TestPortsHaveTurnsOfTheirOwn(t *testing.T) {
	ts := newTurns()
	ts.update(serviceOf(1, 1, 2, 3, 4))
	s := ts.byID("id")
	last := func(key turnKey) netip.Addr {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.turns[key].last
	}
	b, _, _ := s.begin(directory.TCP, 80).next()
	for range 3 {
		s.begin(directory.TCP, 443).next()
		s.begin(directory.UDP, 80).next()
	}
	if last(turnKey{protocol: directory.TCP, port: 80}) != b.addr {
		t.Error("a turn at one port was taken at another")
	}
	for port := range uint16(1000) { // as a port scan
		s.begin(directory.TCP, port).next()
		s.begin(directory.TCP, 443).next()
	}
	if len(s.turns) > maxTurns {
		t.Errorf("%d turns are remembered", len(s.turns))
	}
	if _, kept := s.turns[turnKey{protocol: directory.TCP, port: 443}]; !kept {
		t.Error("a turn in use was forgotten")
	}
}

// TestPublishedTargets: while an update is under way, each backend is reached at
// its own port, and those without the published one are passed over.
func TestPublishedTargets(t *testing.T) {
	snap := serviceOf(1, 1, 2, 3)
	for addr, ep := range snap.Endpoints.All() {
		switch addr.As4()[3] {
		case 1:
			ep.Ports = []directory.Port{{Target: 80, Published: 8080}}
		case 2:
			ep.Ports = []directory.Port{{Target: 81, Published: 8080}}
		}
	}
	snap.Services, snap.VIPs = directory.Services(snap.Endpoints)
	ts := newTurns()
	ts.update(snap)
	got := make(map[netip.AddrPort]int)
	for range 4 {
		_, addr, ok := ts.byID("id").beginPublished(directory.Port{Published: 8080}).next()
		if !ok {
			t.Fatal("no backend")
		}
		got[addr]++
	}
	if len(got) != 2 || got[netip.MustParseAddrPort("10.0.0.1:80")] != 2 || got[netip.MustParseAddrPort("10.0.0.2:81")] != 2 {
		t.Errorf("got %v", got)
	}
}

func TestBackendsKeepTheirCounters(t *testing.T) {
	ts := newTurns()
	ts.update(serviceOf(1, 1, 2))
	b, _, _ := ts.byID("id").begin(directory.TCP, 80).next()
	b.opened()
	ts.update(withDraining(2, []byte{3}, []byte{1, 2}))
	for _, st := range ts.stats()[0].Backends {
		if st.Addr == b.addr && (st.Active != 1 || !st.Draining) {
			t.Errorf("a backend that drains: %+v", st)
		}
	}
	if !b.serving.Load() {
		t.Error("a backend that drains serves no more")
	}
	ts.update(serviceOf(3, 3))
	if b.serving.Load() {
		t.Error("a backend that has gone serves")
	}
	c, _, _ := ts.byID("id").begin(directory.TCP, 80).next()
	ts.update(serviceOf(4)) // the whole service
	if c.serving.Load() || ts.byID("id") != nil || ts.byVIP(netip.MustParseAddr("10.0.1.1")).isReady() {
		t.Error("a service that has gone serves")
	}
}

// TestSilentBackendsRest: a backend that did not answer is passed over while
// another has not been silent, until one attempt finds out.
func TestSilentBackendsRest(t *testing.T) {
	ts := newTurns()
	ts.update(serviceOf(1, 1, 2))
	s := ts.byID("id")
	turn := func() *backend {
		t.Helper()
		b, _, ok := s.begin(directory.TCP, 80).next()
		if !ok {
			t.Fatal("nobody")
		}
		return b
	}
	silent := turn()
	silent.failed(true)
	for range 4 {
		if turn() == silent {
			t.Fatal("it had a turn while it rests")
		}
	}
	other := turn()
	other.failed(true)
	if a, b := turn(), turn(); a == b {
		t.Error("all rest, and they do not take turns")
	}
	other.answers()
	silent.rests.Store(1) // long ago
	asked := 0
	for range 6 {
		if turn() == silent {
			asked++
		}
	}
	if asked != 1 {
		t.Errorf("%d attempts find out whether it answers", asked)
	}
	silent.answers()
	if a, b := turn(), turn(); a == b {
		t.Error("it has answered, and has no turn")
	}
	silent.failed(true) // while it answers others
	if a, b := turn(), turn(); a == b {
		t.Error("one rests that has answered just now")
	}
	a, refused := s.begin(directory.TCP, 80), turn()
	refused.failed(false)
	if x, _, _ := a.next(); x == refused {
		t.Error("the turn was lost")
	}
	if x, _, _ := a.next(); x != refused {
		t.Error("one that refuses rests")
	}
}

// TestOwnTurns are left for another attempt.
func TestOwnTurns(t *testing.T) {
	ts := newTurns()
	ts.update(serviceOf(1, 1, 2, 3))
	s := ts.byID("id")
	b, _, _ := s.begin(directory.TCP, 80).next()
	own := ts.byID("id").ready[(slices.Index(s.ready, b)+1)%3]
	for range 3 {
		if x, _, isOwn := s.begin(directory.TCP, 80).take(own.addr); x != nil || !isOwn {
			t.Fatalf("%v, %v", x, isOwn)
		}
	}
	if x, _, _ := s.begin(directory.TCP, 80).next(); x != own {
		t.Errorf("the turn of %s went to %s", own.addr, x.addr)
	}
}

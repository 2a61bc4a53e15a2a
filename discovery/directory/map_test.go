package directory

import (
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"testing"
)

func addr(i int) netip.Addr {
	if i%5 == 0 {
		return netip.AddrFrom16([16]byte{0xfd, 14: byte(i >> 8), 15: byte(i)})
	}
	return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
}

// A Map and a Go map get the same changes, in one edit or in many; versions that
// were kept stay as they were.
func TestMapIsAMap(t *testing.T) {
	type version struct {
		m    Map[netip.Addr, int]
		want map[netip.Addr]int
	}
	for seed := range uint64(4) {
		random := rand.New(rand.NewPCG(seed, 1))
		now := version{want: make(map[netip.Addr]int)}
		var kept []version
		for step := range 400 {
			e := now.m.Edit()
			want := maps.Clone(now.want)
			// Grows at first, then shrinks to nothing.
			adds := step < 200
			for range random.IntN(60) {
				a := addr(random.IntN(6000))
				if adds == (random.IntN(8) > 0) {
					e.Set(a, step)
					want[a] = step
				} else {
					e.Delete(a)
					delete(want, a)
				}
			}
			next := version{e.Map(), want}
			changed := slices.Collect(next.m.Changes(&now.m, func(a, b int) bool { return a == b }))
			if !sameKeys(changed, difference(now.want, want)) {
				t.Fatalf("seed %d, step %d: changes are %v, want %v", seed, step, changed, difference(now.want, want))
			}
			if step%37 == 0 {
				kept = append(kept, now)
			}
			now = next
		}
		for _, v := range append(kept, now) {
			if got := maps.Collect(v.m.All()); !maps.Equal(got, v.want) || v.m.Len() != len(v.want) {
				t.Fatalf("seed %d: %d entries, want %d", seed, len(got), len(v.want))
			}
			for i := range 6000 {
				got, ok := v.m.Get(addr(i))
				if want, has := v.want[addr(i)]; ok != has || got != want {
					t.Fatalf("seed %d: %v has %d, %t, want %d, %t", seed, addr(i), got, ok, want, has)
				}
			}
		}
	}
}

func difference(a, b map[netip.Addr]int) (keys []netip.Addr) {
	for k, v := range a {
		if w, ok := b[k]; !ok || v != w {
			keys = append(keys, k)
		}
	}
	for k := range b {
		if _, ok := a[k]; !ok {
			keys = append(keys, k)
		}
	}
	return keys
}

func sameKeys(a, b []netip.Addr) bool {
	slices.SortFunc(a, netip.Addr.Compare)
	slices.SortFunc(b, netip.Addr.Compare)
	return slices.Equal(a, b)
}

func TestMapZero(t *testing.T) {
	var m Map[string, int]
	if _, ok := m.Get("a"); ok || m.Len() != 0 || m.At("a") != 0 {
		t.Error("the zero Map has entries")
	}
	one := m.With("a", 1)
	none := one.Without("a")
	if one.At("a") != 1 || m.Len() != 0 || none.Len() != 0 || one.Len() != 1 {
		t.Error("a version changed")
	}
	if again := none.Without("a"); again.Len() != 0 {
		t.Error("deleted twice")
	}
}

// A change costs the same however many entries there are, and reading nothing.
func TestMapAllocations(t *testing.T) {
	for _, n := range []int{1000, 50_000, 200_000} {
		e := NewEditor[netip.Addr, int](n)
		for i := range n {
			e.Set(addr(i), i)
		}
		m := e.Map()
		i := 0
		change := testing.AllocsPerRun(200, func() {
			next := m.With(addr(i%n), -1)
			if i++; next.Len() != m.Len() {
				t.Fatal("an entry more")
			}
		})
		if change > 6 {
			t.Errorf("%d entries: a change costs %g allocations", n, change)
		}
		if read := testing.AllocsPerRun(200, func() { i++; m.Get(addr(i)) }); read != 0 {
			t.Errorf("%d entries: a look costs %g allocations", n, read)
		}
		bucket, deepest := 0, 0
		for _, page := range m.pages {
			for _, b := range page[:] {
				bucket, deepest = bucket+1, max(deepest, len(b))
			}
		}
		if deepest > 24 || bucket < m.Len()/full || bucket > 4*m.Len() {
			t.Errorf("%d entries: %d buckets, the fullest of %d", n, bucket, deepest)
		}
	}
}

func BenchmarkMapGet(b *testing.B) {
	for _, n := range []int{100, 1000, 10_000, 100_000} {
		goMap := make(map[netip.Addr]*int, n)
		keys := make([]netip.Addr, n)
		for i := range n {
			keys[i] = netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
			goMap[keys[i]] = new(int)
		}
		m := MapOf(goMap)
		rand.Shuffle(n, func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
		b.Run("Map/"+strconv.Itoa(n), func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				m.Get(keys[i%n])
			}
		})
		b.Run("map/"+strconv.Itoa(n), func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				_ = goMap[keys[i%n]]
			}
		})
	}
}

func BenchmarkMapChange(b *testing.B) {
	for _, n := range []int{100, 10_000, 1_000_000} {
		e := NewEditor[netip.Addr, int](n)
		for i := range n {
			e.Set(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), i)
		}
		m := e.Map()
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				m = m.With(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), i)
			}
		})
	}
}

package directory

import (
	"encoding/binary"
	"hash/maphash"
	"iter"
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"slices"
)

// A Map is an immutable hash table. Its versions share what they have in common,
// so a changed copy costs what has changed, however large it is, and two versions
// can be compared as cheaply ([Map.Changes]). The zero Map is empty. Reading takes
// no lock and allocates nothing.
//
// It is a table of pages of buckets; a change copies the bucket, its page, and the
// list of pages.
type Map[K Key, V any] struct {
	pages []*page[K, V]
	bits  uint8 // of the hash that choose a bucket
	n     int
}

// A Key is what a Map can be looked up by.
type Key interface{ netip.Addr | string }

// Neither a page nor a bucket is ever changed once a Map has it.
type (
	page[K Key, V any]   [pageSize]bucket[K, V]
	bucket[K Key, V any] []slot[K, V]
)

type slot[K Key, V any] struct {
	key   K
	value V
}

const (
	pageBits = 7
	pageSize = 1 << pageBits // buckets
	// full is how many entries a bucket has on average when the table is doubled;
	// it is halved at an eighth of that.
	full = 4
)

// Keys come from other nodes: where they go must not be theirs to choose.
var (
	seed      = maphash.MakeSeed()
	addrSeeds = [2]uint64{rand.Uint64() | 1, rand.Uint64()}
)

func hashOf[K Key](key K) uint64 {
	switch k := any(key).(type) {
	case netip.Addr:
		return hashAddr(k)
	case string:
		return maphash.String(seed, k)
	}
	panic("directory: a type of key without a hash")
}

func hashAddr(a netip.Addr) uint64 {
	var upper, lower uint64
	if a.Is4() {
		b := a.As4() // As16 takes five times as long
		lower = uint64(binary.BigEndian.Uint32(b[:]))
	} else {
		b := a.As16()
		upper, lower = binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
	}
	hi, lo := bits.Mul64(upper^addrSeeds[0], lower^addrSeeds[1])
	return (hi ^ lo) * 0x9e3779b97f4a7c15 // the upper bits choose the bucket: the lower ones are spread to them
}

// place returns the page and the bucket of key. m must not be empty.
func (m *Map[K, V]) place(key K) (page, bucket int) {
	i := int(hashOf(key) >> (64 - m.bits))
	return i >> pageBits, i & (pageSize - 1)
}

// Len returns the number of entries.
func (m *Map[K, V]) Len() int { return m.n }

// Get returns what key has, and whether it is there.
func (m *Map[K, V]) Get(key K) (value V, ok bool) {
	if m.n == 0 {
		return value, false
	}
	i := hashOf(key) >> (64 - m.bits)
	b := m.pages[i>>pageBits][i&(pageSize-1)]
	for i := range b {
		if b[i].key == key {
			return b[i].value, true
		}
	}
	return value, false
}

// At returns what key has, the zero value if it is not there.
func (m *Map[K, V]) At(key K) V {
	value, _ := m.Get(key)
	return value
}

// All returns the entries, in no order.
func (m *Map[K, V]) All() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		for _, page := range m.pages {
			for _, b := range page[:] {
				for i := range b {
					if !yield(b[i].key, b[i].value) {
						return
					}
				}
			}
		}
	}
}

// Values returns the values, in no order.
func (m *Map[K, V]) Values() iter.Seq[V] {
	return func(yield func(V) bool) {
		for _, v := range m.All() {
			if !yield(v) {
				return
			}
		}
	}
}

// With returns m with an entry more, or another value for it. A series of changes
// is cheaper with an [Editor].
func (m *Map[K, V]) With(key K, value V) Map[K, V] {
	e := m.Edit()
	e.Set(key, value)
	return e.Map()
}

// Without returns m less an entry, if it has it.
func (m *Map[K, V]) Without(key K) Map[K, V] {
	e := m.Edit()
	e.Delete(key)
	return e.Map()
}

// MapOf returns a Map with the entries of a Go map.
func MapOf[K Key, V any](entries map[K]V) Map[K, V] {
	e := NewEditor[K, V](len(entries))
	for key, value := range entries {
		e.Set(key, value)
	}
	return e.Map()
}

// Changes returns the keys that one of the two has and the other has not or, as
// same says, with another value; each once. It passes over what the two share.
func (m *Map[K, V]) Changes(old *Map[K, V], same func(a, b V) bool) iter.Seq[K] {
	return func(yield func(K) bool) {
		if m.bits != old.bits || len(m.pages) != len(old.pages) {
			changesOfAll(m, old, same, yield)
			return
		}
		for p, page := range m.pages {
			if page == old.pages[p] {
				continue
			}
			for i, b := range page[:] {
				if !b.changes(old.pages[p][i], same, yield) {
					return
				}
			}
		}
	}
}

func (b bucket[K, V]) changes(old bucket[K, V], same func(a, b V) bool, yield func(K) bool) bool {
	if len(b) == len(old) && (len(b) == 0 || &b[0] == &old[0]) {
		return true
	}
	for _, s := range b {
		if i := old.index(s.key); (i < 0 || !same(s.value, old[i].value)) && !yield(s.key) {
			return false
		}
	}
	for _, s := range old {
		if b.index(s.key) < 0 && !yield(s.key) {
			return false
		}
	}
	return true
}

// changesOfAll is Changes of two tables of different sizes.
func changesOfAll[K Key, V any](m, old *Map[K, V], same func(a, b V) bool, yield func(K) bool) {
	for key, value := range m.All() {
		if was, ok := old.Get(key); (!ok || !same(value, was)) && !yield(key) {
			return
		}
	}
	for key := range old.All() {
		if _, ok := m.Get(key); !ok && !yield(key) {
			return
		}
	}
}

func (b bucket[K, V]) index(key K) int {
	for i := range b {
		if b[i].key == key {
			return i
		}
	}
	return -1
}

// An Editor makes a changed copy of a Map. It is of one goroutine.
type Editor[K Key, V any] struct {
	m     Map[K, V]
	pages bool   // the list of pages is the editor's own
	own   []bool // by page: it is, too
}

// NewEditor returns an editor of an empty Map that will have about n entries.
func NewEditor[K Key, V any](n int) *Editor[K, V] {
	e := new(Editor[K, V])
	e.resize(bitsFor(n))
	return e
}

// Edit returns an editor of a copy of m.
func (m *Map[K, V]) Edit() *Editor[K, V] { return &Editor[K, V]{m: *m} }

// Map returns the copy as it is now. The editor can go on.
func (e *Editor[K, V]) Map() Map[K, V] {
	e.pages, e.own = false, nil
	return e.m
}

// Get returns what key has by now, and whether it is there.
func (e *Editor[K, V]) Get(key K) (V, bool) { return e.m.Get(key) }

// Set adds an entry or changes its value.
func (e *Editor[K, V]) Set(key K, value V) {
	if len(e.m.pages) == 0 {
		e.resize(0)
	} else if e.m.n >= full<<e.m.bits {
		e.resize(e.m.bits + 1)
	}
	page, at := e.m.place(key)
	e.take(page)
	b := &e.m.pages[page][at]
	if i := b.index(key); i >= 0 {
		*b = slices.Clone(*b)
		(*b)[i].value = value
		return
	}
	grown := make(bucket[K, V], len(*b)+1)
	copy(grown, *b)
	grown[len(*b)] = slot[K, V]{key, value}
	*b = grown
	e.m.n++
}

// Delete removes an entry, if it is there.
func (e *Editor[K, V]) Delete(key K) {
	if e.m.n == 0 {
		return
	}
	page, at := e.m.place(key)
	b := e.m.pages[page][at]
	i := b.index(key)
	if i < 0 {
		return
	}
	e.take(page)
	e.m.pages[page][at] = slices.Concat(b[:i], b[i+1:])
	e.m.n--
	if e.m.bits > 0 && e.m.n < full<<e.m.bits/8 {
		e.resize(e.m.bits - 1)
	}
}

// take makes a page the editor's own.
func (e *Editor[K, V]) take(page int) {
	if !e.pages {
		e.m.pages, e.pages = slices.Clone(e.m.pages), true
		e.own = make([]bool, len(e.m.pages))
	}
	if !e.own[page] {
		copied := *e.m.pages[page]
		e.m.pages[page], e.own[page] = &copied, true
	}
}

// bitsFor returns the size of a table for n entries.
func bitsFor(n int) uint8 { return uint8(bits.Len(uint(max(n-1, 0) / full))) }

// resize builds the table anew. Every bucket becomes two, or two become one, so
// that it costs little for each of the changes that led to it.
func (e *Editor[K, V]) resize(to uint8) {
	old := e.m
	e.m = Map[K, V]{bits: to, n: old.n}
	e.m.pages = make([]*page[K, V], max(1<<to>>pageBits, 1))
	e.pages, e.own = true, make([]bool, len(e.m.pages))
	for i := range e.m.pages {
		e.m.pages[i], e.own[i] = new(page[K, V]), true
	}
	for key, value := range old.All() {
		page, at := e.m.place(key)
		e.m.pages[page][at] = append(e.m.pages[page][at], slot[K, V]{key, value})
	}
}

package crypto

import (
	"bytes"
	"encoding/binary"
	"slices"
	"time"
)

// A stamp is the time in an initiation: seconds since 1970 (8 bytes) and
// nanoseconds (4), big endian, so that the order of stamps is that of their bytes.
type stamp [12]byte

func stampOf(t time.Time) (s stamp) {
	binary.BigEndian.PutUint64(s[:], uint64(t.Unix()))
	binary.BigEndian.PutUint32(s[8:], uint32(t.Nanosecond()))
	return s
}

func (s stamp) after(t stamp) bool { return bytes.Compare(s[:], t[:]) > 0 }

// A stamper gives out strictly increasing stamps. They follow the monotonic
// clock: a wall clock that is set back during a run does not bring them back.
type stamper struct{ start, last time.Time }

func (s *stamper) next(now time.Time) stamp {
	if s.start.IsZero() {
		s.start = now
	}
	t := s.start.Add(now.Sub(s.start)).Round(0)
	if !t.After(s.last) {
		t = s.last.Add(1)
	}
	s.last = t
	return stampOf(t)
}

// maxStaticKeys is how many static keys are remembered of one node, which makes
// a new one at each start.
const maxStaticKeys = 1024

// A stampTable remembers the greatest stamp of each static key that has proven
// to be a member's, so that an initiation is answered once. An initiation to an
// earlier run of this node does not decrypt, and one from an earlier run of the
// sender has a static key of its own: no comparison ever spans a restart, after
// which a clock may have gone back.
type stampTable struct {
	greatest map[[32]byte]stamp
	keys     map[string][][32]byte // by node, oldest first
}

func newStampTable() stampTable {
	return stampTable{greatest: make(map[[32]byte]stamp), keys: make(map[string][][32]byte)}
}

// fresh says whether no initiation of this or a later stamp was seen.
func (t *stampTable) fresh(static [32]byte, s stamp) bool {
	seen, known := t.greatest[static]
	return !known || s.after(seen)
}

// enter remembers the stamp of an initiation whose sender was verified.
func (t *stampTable) enter(node string, static [32]byte, s stamp) {
	if _, known := t.greatest[static]; !known {
		keys := t.keys[node]
		if len(keys) >= maxStaticKeys {
			delete(t.greatest, keys[0])
			keys = slices.Delete(keys, 0, 1)
		}
		t.keys[node] = append(keys, static)
	}
	t.greatest[static] = s
}

// forget drops what is remembered of a node, which is never answered again.
func (t *stampTable) forget(node string) {
	for _, k := range t.keys[node] {
		delete(t.greatest, k)
	}
	delete(t.keys, node)
}

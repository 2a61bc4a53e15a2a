package discovery

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// SubsystemGossip is the subsystem of the keys that seal gossip; SwarmKit hands
// out keys of other subsystems along with them.
const SubsystemGossip = "networking:gossip"

// A Key is one of the swarm's rotating keys, as SwarmKit distributes them.
type Key struct {
	Subsystem string `json:"subsystem"`
	Tag       uint64 `json:"tag"` // Lamport time at which a manager made it
	Key       []byte `json:"key"` // 16, 24 or 32 bytes
}

// gossipKeys picks the keys that seal gossip, in the order of the keyring: the
// primary, which seals what is sent, first. That is the second oldest, as
// libnetwork has it: the newest may not have reached every node yet, and the
// oldest is there for nodes that are one rotation behind.
func gossipKeys(keys []Key) ([]Key, error) {
	var ring []Key
	for _, k := range keys {
		if k.Subsystem != SubsystemGossip {
			continue
		}
		if n := len(k.Key); n != 16 && n != 24 && n != 32 {
			return nil, fmt.Errorf("gossip key %d has %d bytes, want 16, 24 or 32", k.Tag, n)
		}
		ring = append(ring, k)
	}
	if len(ring) == 0 {
		return nil, errors.New("no key of subsystem " + SubsystemGossip + ": gossip is never sent in clear text")
	}
	slices.SortFunc(ring, func(a, b Key) int { return cmp.Compare(a.Tag, b.Tag) })
	if len(ring) > 1 {
		ring[0], ring[1] = ring[1], ring[0]
	}
	return ring, nil
}

// rotator is the part of NetworkDB that changes its keyring.
type rotator interface {
	SetKey(key []byte)
	SetPrimaryKey(key []byte)
	RemoveKey(key []byte)
}

// rotate takes the keyring from old to ring. At no step does it lack a key that
// another node may be sending with, nor remove the one it sends with.
func rotate(r rotator, old, ring []Key) {
	for _, k := range ring {
		if !hasKey(old, k) {
			r.SetKey(bytes.Clone(k.Key))
		}
	}
	r.SetPrimaryKey(ring[0].Key)
	for _, k := range old {
		if !hasKey(ring, k) {
			r.RemoveKey(k.Key)
		}
	}
}

func hasKey(ring []Key, k Key) bool {
	return slices.ContainsFunc(ring, func(o Key) bool { return bytes.Equal(o.Key, k.Key) })
}

func equalKeys(a, b []Key) bool {
	return slices.EqualFunc(a, b, func(x, y Key) bool { return bytes.Equal(x.Key, y.Key) })
}

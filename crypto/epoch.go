package crypto

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"slices"
)

// An Epoch is one of the swarm's data-plane keys, which managers rotate. It
// enters each handshake as a secret that only members know.
type Epoch struct {
	Tag uint64 // Lamport time: names the epoch on the wire
	Key []byte // 16 bytes; not kept after SetEpochs has returned
}

// pskLabel starts the info of the key derivation.
const pskLabel = "ovnd psk v1"

// psk derives the preshared key of a handshake (RFC 5869):
//
//	HKDF-SHA256(secret = key, salt = cluster id, info = label ‖ tag, 32 bytes)
func (e Epoch) psk(clusterID string) ([]byte, error) {
	info := binary.BigEndian.AppendUint64([]byte(pskLabel), e.Tag)
	return hkdf.Key(sha256.New, e.Key, []byte(clusterID), string(info), keyLen)
}

// maxEpochs is how many epochs are kept: SwarmKit hands out three.
const maxEpochs = 4

// sortEpochs returns copies of the newest epochs, oldest first.
func sortEpochs(epochs []Epoch) []Epoch {
	sorted := slices.Clone(epochs)
	slices.SortFunc(sorted, func(a, b Epoch) int {
		if a.Tag < b.Tag {
			return -1
		}
		return 1
	})
	if n := len(sorted) - maxEpochs; n > 0 {
		sorted = sorted[n:]
	}
	for i := range sorted {
		sorted[i].Key = slices.Clone(sorted[i].Key)
	}
	return sorted
}

// inTurn returns the epochs that an initiator tries, first the primary: the
// second oldest, which every node has while each is at most one rotation behind
// or ahead; then newer ones, then the oldest.
func inTurn(sorted []Epoch) []Epoch {
	if len(sorted) < 2 {
		return sorted
	}
	return append(slices.Clone(sorted[1:]), sorted[0])
}

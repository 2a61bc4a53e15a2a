package discovery

import (
	"crypto/ed25519"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ovnd/ovnd/crypto"
	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/discovery/records"
)

// A signedClaim is what the peer record of an encrypted network says besides the
// place: who says so.
type signedClaim struct {
	crypto.EndpointClaim

	signature []byte
	since     time.Time // when it became the one that counts for its endpoint here

	// What the signature is worth under the key that it was last checked with.
	// Each key costs one verification.
	key   [32]byte
	valid bool
}

// parseClaim reads and checks what only the peer records of encrypted networks
// hold. It does not verify the signature, for which it takes the owner's key. One
// without owner and signature, as Docker's nodes make them, is nobody's.
func parseClaim(networkID, endpointID string, r *records.PeerRecord) (*signedClaim, error) {
	if r.Owner == "" && len(r.Signature) == 0 {
		return new(signedClaim), nil
	}
	if err := checkNodeID(r.Owner); err != nil {
		return nil, fmt.Errorf("peer record: owner: %w", err)
	}
	if len(r.Signature) != ed25519.SignatureSize {
		return nil, fmt.Errorf("peer record: signature of %d bytes, want %d", len(r.Signature), ed25519.SignatureSize)
	}
	return &signedClaim{
		EndpointClaim: crypto.EndpointClaim{
			NetworkID:  networkID,
			EndpointID: endpointID,
			EndpointIP: r.EndpointIp,
			MAC:        r.EndpointMac,
			VTEP:       r.TunnelEndpointIp,
			Owner:      r.Owner,
			Released:   r.Released,
			Sequence:   r.Sequence,
		},
		signature: r.Signature,
	}, nil
}

// checkNodeID refuses what cannot be the swarm's ID of a node.
func checkNodeID(id string) error {
	odd := func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && r != '-' && r != '_'
	}
	if id == "" || len(id) > crypto.MaxIDLen || strings.ContainsFunc(id, odd) {
		return fmt.Errorf("%q is not 1 to %d letters and digits", id, crypto.MaxIDLen)
	}
	return nil
}

// signedBy reports whether the holder of key made the claim.
func (c *signedClaim) signedBy(key [32]byte) bool {
	if key != c.key {
		c.key, c.valid = key, crypto.VerifyEndpoint(key, c.EndpointClaim, c.signature)
	}
	return c.valid
}

// putClaim encodes a signed peer record.
func putClaim(c crypto.EndpointClaim, signature []byte) ([]byte, error) {
	return proto.Marshal(&records.PeerRecord{
		EndpointIp:       c.EndpointIP,
		EndpointMac:      c.MAC,
		TunnelEndpointIp: c.VTEP,
		Owner:            c.Owner,
		Released:         c.Released,
		Sequence:         c.Sequence,
		Signature:        signature,
	})
}

// signEntry puts this node's signature to the records of a local endpoint of an
// encrypted network. Without an identity there is nothing yet that could be said
// of it. What old says is said again as it was if it still holds.
func (n *network) signEntry(ep *directory.Endpoint, bits int, e, old entry) (entry, error) {
	t := n.self.trust
	if t == nil || t.sign == nil {
		return entry{}, nil
	}
	claim := crypto.EndpointClaim{
		NetworkID:  n.cfg.ID,
		EndpointID: ep.ID,
		EndpointIP: prefixOf(ep.Addr, bits),
		MAC:        ep.MAC.String(),
		VTEP:       ep.VTEP.String(),
		Owner:      t.own.NodeID,
	}
	if claim == old.claim && t.own.Record == old.key {
		e.place, e.released, e.claim, e.key = old.place, old.released, old.claim, old.key
		return e, nil
	}
	e.claim, e.key = claim, t.own.Record
	var err error
	if e.place, err = t.putSigned(claim); err != nil {
		return entry{}, err
	}
	// Made now, so that whoever withdraws the endpoint needs no key.
	claim.Released = true
	e.released, err = t.putSigned(claim)
	return e, err
}

// putSigned signs a claim as the newest one and encodes its record.
func (t *trust) putSigned(c crypto.EndpointClaim) ([]byte, error) {
	t.sequence++
	c.Sequence = t.sequence
	return putClaim(c, t.sign(c))
}

// resign makes the records of the local endpoints anew, under an identity that
// has changed.
func (n *network) resign() error {
	n.ownIdentity = nil
	for id, ep := range n.local {
		ep.Owner = n.self.trust.own.NodeID
		bits := n.bits(ep.Addr)
		e, err := newEntry(&ep, bits)
		if err == nil {
			e, err = n.signEntry(&ep, bits, e, n.entries[id])
		}
		if err != nil {
			return fmt.Errorf("endpoint %s: %w", id, err)
		}
		n.local[id], n.entries[id] = ep, e
	}
	return nil
}

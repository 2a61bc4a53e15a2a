package crypto

import (
	"crypto/ed25519"
	"encoding/binary"
)

// An EndpointClaim is what the owner of an endpoint says about where it lives.
// The fields are those of the endpoint's gossip record, as they stand there:
// what is signed is their text.
type EndpointClaim struct {
	NetworkID, EndpointID string
	EndpointIP            string // with the subnet's length
	MAC                   string
	VTEP                  string
	Owner                 string // node id
	Released              bool   // the endpoint has ended: its address is free
	// Sequence orders the claims of one owner in one run, strictly, so that an
	// old one cannot be replayed against a newer one.
	Sequence uint64
}

func (c EndpointClaim) signed() []byte {
	released := byte(0)
	if c.Released {
		released = 1
	}
	return signedBytes(domainEndpoint, []byte(c.NetworkID), []byte(c.EndpointID), []byte(c.EndpointIP),
		[]byte(c.MAC), []byte(c.VTEP), []byte(c.Owner), []byte{released},
		binary.BigEndian.AppendUint64(nil, c.Sequence))
}

// SignEndpoint signs a claim with the record key of this run (64 bytes,
// Ed25519).
func (i *Identity) SignEndpoint(c EndpointClaim) []byte {
	return ed25519.Sign(i.keys.record, c.signed())
}

// VerifyEndpoint says whether the holder of a record key made this claim.
// Whose key it is, a verified [Statement] says: it must be that of c.Owner.
func VerifyEndpoint(record [32]byte, c EndpointClaim, sig []byte) bool {
	return len(sig) == ed25519.SignatureSize && ed25519.Verify(record[:], c.signed(), sig)
}

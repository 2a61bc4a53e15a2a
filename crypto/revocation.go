package crypto

import (
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// revocationVersion starts an encoded revocation.
const revocationVersion = 1

// A Revocation is a manager's word that a node was removed from the swarm.
// Node ids are never used twice, so it holds for ever.
type Revocation struct {
	NodeID    string    // who was removed
	Time      time.Time // when this was signed; kept to the second
	Chain     [][]byte  // of the manager that signed: DER, its certificate first
	Signature []byte    // by the key of that certificate
}

func (r Revocation) signed(clusterID string) []byte {
	at := binary.BigEndian.AppendUint64(nil, uint64(r.Time.Unix()))
	return signedBytes(domainRevocation, []byte(clusterID), []byte(r.NodeID), at)
}

// SignRevocation signs the removal of a node with the credentials of a
// manager. A worker's signature would be of no use, and is refused.
func SignRevocation(c Credentials, nodeID string, at time.Time) (Revocation, error) {
	if err := checkIDs(nodeID, c.ClusterID); err != nil {
		return Revocation{}, err
	}
	leaf, err := c.leaf()
	if err != nil {
		return Revocation{}, err
	}
	if err := checkSubject(leaf, c.NodeID, c.ClusterID); err != nil {
		return Revocation{}, err
	}
	if !hasRole(leaf, roleManager) {
		return Revocation{}, fmt.Errorf("%w: only managers revoke", ErrIdentity)
	}
	r := Revocation{NodeID: nodeID, Time: time.Unix(at.Unix(), 0), Chain: c.Chain}
	r.Signature, err = sign(c.Key, r.signed(c.ClusterID))
	return r, err
}

// Verify checks that a manager of the swarm signed r, and returns its node id:
// the word of one that was removed itself before counts no more, which the
// caller must know. A revocation is verified when it comes, with the time of
// then, and kept; the certificates of its chain expire before it does.
func (r Revocation) Verify(clusterID string, roots *x509.CertPool, now time.Time) (signer string, err error) {
	if err := checkIDs(r.NodeID, clusterID); err != nil {
		return "", err
	}
	leaf, err := verifyChain(r.Chain, roots, now)
	if err != nil {
		return "", err
	}
	signer = leaf.Subject.CommonName
	if err := errors.Join(checkIDs(signer), checkSubject(leaf, signer, clusterID)); err != nil {
		return "", err
	}
	switch {
	case !hasRole(leaf, roleManager):
		return "", fmt.Errorf("%w: node %s, which revokes %s, is no manager", ErrIdentity, signer, r.NodeID)
	case signer == r.NodeID:
		return "", fmt.Errorf("%w: node %s revokes itself", ErrIdentity, signer)
	case !verifySignature(leaf, r.signed(clusterID), r.Signature):
		return "", fmt.Errorf("%w: the revocation's signature is wrong", ErrIdentity)
	}
	return signer, nil
}

// AppendBinary appends r to b, for files and gossip: version (1 byte, 1), time
// (8 bytes, seconds since 1970), node id and signature, each after its length
// (2 bytes), and the chain as [AppendChain] writes it; big endian.
func (r Revocation) AppendBinary(b []byte) ([]byte, error) {
	if err := checkIDs(r.NodeID); err != nil {
		return b, err
	}
	if n := len(r.Signature); n > MaxSignatureLen {
		return b, fmt.Errorf("%w: a signature of %d bytes, want at most %d", ErrIdentity, n, MaxSignatureLen)
	}
	b = append(b, revocationVersion)
	b = binary.BigEndian.AppendUint64(b, uint64(r.Time.Unix()))
	b = appendField(b, r.NodeID)
	b = appendField(b, r.Signature)
	return AppendChain(b, r.Chain)
}

// ParseRevocation reads what AppendBinary wrote and nothing else. The result
// aliases b and is not verified.
func ParseRevocation(b []byte) (Revocation, error) {
	bad := fmt.Errorf("%w: a malformed revocation", ErrIdentity)
	if len(b) < 1+8 || b[0] != revocationVersion {
		return Revocation{}, bad
	}
	r := Revocation{Time: time.Unix(int64(binary.BigEndian.Uint64(b[1:])), 0)}
	id, b, ok := cutField(b[9:])
	if !ok || checkIDs(string(id)) != nil {
		return Revocation{}, bad
	}
	r.NodeID = string(id)
	if r.Signature, b, ok = cutField(b); !ok || len(r.Signature) > MaxSignatureLen {
		return Revocation{}, bad
	}
	if r.Chain, b, ok = ParseChain(b); !ok || len(b) != 0 {
		return Revocation{}, bad
	}
	return r, nil
}

// appendField writes what cutField reads.
func appendField[T string | []byte](b []byte, field T) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(field)))
	return append(b, field...)
}

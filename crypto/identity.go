package crypto

import (
	"bytes"
	stdcrypto "crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/flynn/noise"
)

// Roles that a swarm certificate states as its organizational unit.
const (
	roleManager = "swarm-manager"
	roleWorker  = "swarm-worker"
)

// Bounds of what a statement and a chain from outside may hold.
const (
	// MaxIDLen bounds node, cluster, network and endpoint ids, in bytes.
	// SwarmKit's have 25.
	MaxIDLen = 64
	// MaxSignatureLen is that of an ECDSA signature on P-521 (ASN.1, bytes).
	MaxSignatureLen = 139
)

// Domains of the signatures, so that none can be taken for another.
const (
	domainIdentity   = "ovnd identity v1"
	domainRevocation = "ovnd revocation v1"
	domainEndpoint   = "ovnd endpoint v1"
)

// ErrIdentity is what every error of [VerifyIdentity] and [Revocation.Verify]
// wraps.
var ErrIdentity = errors.New("identity not accepted")

// Credentials are a node's membership of its swarm.
type Credentials struct {
	NodeID    string
	ClusterID string           // organization of the swarm's certificates
	Chain     [][]byte         // DER: the node's certificate, then intermediates; no root
	Key       stdcrypto.Signer // of the node's certificate
	Roots     *x509.CertPool   // whom the swarm trusts
}

// Keys are the secrets of one run of a node. They are made anew at each start
// and never stored, so that what is stolen later opens nothing recorded before.
type Keys struct {
	static noise.DHKey // X25519
	record ed25519.PrivateKey
}

// NewKeys makes the keys of a run.
func NewKeys() (*Keys, error) {
	static, err := noise.DH25519.GenerateKeypair(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("static key: %w", err)
	}
	_, record, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("record key: %w", err)
	}
	return &Keys{static: static, record: record}, nil
}

// A Statement binds the keys of a run to a node of the swarm. It proves
// nothing before [VerifyIdentity].
type Statement struct {
	NodeID    string
	Static    [32]byte // X25519 public key of the handshakes
	Record    [32]byte // Ed25519 public key of the endpoint records
	Signature []byte   // by the key of the node's swarm certificate
}

// signed is what the signature is over.
func (s Statement) signed(clusterID string) []byte {
	return signedBytes(domainIdentity, []byte(clusterID), []byte(s.NodeID), s.Static[:], s.Record[:])
}

// An Identity is the keys of a run, stated by one set of credentials. It never
// changes and is safe for concurrent use.
type Identity struct {
	keys  *Keys
	cred  Credentials
	state Statement
	// since and until are when its certificate is good.
	since, until time.Time
}

// holds reports whether the identity's certificate is good at a time.
func (i *Identity) holds(now time.Time) bool { return !now.Before(i.since) && !now.After(i.until) }

// Identify states the keys with c, at the start and again after each renewal
// of the node's certificate. It refuses credentials whose parts do not belong
// together; whether chain and roots are valid now, the others check.
func (k *Keys) Identify(c Credentials) (*Identity, error) {
	if err := checkIDs(c.NodeID, c.ClusterID); err != nil {
		return nil, err
	}
	leaf, err := c.leaf()
	if err != nil {
		return nil, err
	}
	if err := checkSubject(leaf, c.NodeID, c.ClusterID); err != nil {
		return nil, err
	}
	i := &Identity{keys: k, cred: c, since: leaf.NotBefore, until: leaf.NotAfter, state: Statement{
		NodeID: c.NodeID,
		Static: [32]byte(k.static.Public),
		Record: [32]byte(k.record.Public().(ed25519.PublicKey)),
	}}
	i.state.Signature, err = sign(c.Key, i.state.signed(c.ClusterID))
	return i, err
}

// Statement is what others need to know of the identity.
func (i *Identity) Statement() Statement {
	s := i.state
	s.Signature = slices.Clone(s.Signature)
	return s
}

// Credentials are those that the identity was stated with.
func (i *Identity) Credentials() Credentials { return i.cred }

// leaf is the node's certificate, which Key belongs to.
func (c Credentials) leaf() (*x509.Certificate, error) {
	if c.Key == nil || c.Roots == nil {
		return nil, fmt.Errorf("%w: the credentials lack key or roots", ErrIdentity)
	}
	certs, err := parseCerts(c.Chain)
	if err != nil {
		return nil, err
	}
	pub, ok := c.Key.Public().(*ecdsa.PublicKey) // SwarmKit makes P-256
	if !ok {
		return nil, fmt.Errorf("%w: the node's key is a %T and not ECDSA", ErrIdentity, c.Key.Public())
	}
	if !pub.Equal(certs[0].PublicKey) {
		return nil, fmt.Errorf("%w: the key is not that of the certificate", ErrIdentity)
	}
	return certs[0], nil
}

// VerifyIdentity checks that s was made by the node that it names: that chain
// leads from a certificate of this node in the swarm clusterID to one of roots,
// is valid now, and that the certificate's key signed s. chain is DER, the
// node's certificate first. Whether the node was removed meanwhile, the
// caller must know.
func VerifyIdentity(s Statement, chain [][]byte, clusterID string, roots *x509.CertPool, now time.Time) error {
	if err := checkIDs(s.NodeID, clusterID); err != nil {
		return err
	}
	leaf, err := verifyChain(chain, roots, now)
	if err != nil {
		return err
	}
	if err := checkSubject(leaf, s.NodeID, clusterID); err != nil {
		return err
	}
	if !verifySignature(leaf, s.signed(clusterID), s.Signature) {
		return fmt.Errorf("%w: the statement's signature is wrong", ErrIdentity)
	}
	return nil
}

// verifyChain returns the first certificate of chain if it leads to one of
// roots and may be used as SwarmKit's nodes use theirs, at both ends.
func verifyChain(chain [][]byte, roots *x509.CertPool, now time.Time) (*x509.Certificate, error) {
	if roots == nil {
		return nil, fmt.Errorf("%w: no root certificates", ErrIdentity) // x509 would take the system's
	}
	certs, err := parseCerts(chain)
	if err != nil {
		return nil, err
	}
	leaf := certs[0]
	intermediates := x509.NewCertPool()
	for _, c := range certs[1:] {
		intermediates.AddCert(c)
	}
	_, err = leaf.Verify(x509.VerifyOptions{
		Roots:         roots,
		Intermediates: intermediates,
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrIdentity, err)
	}
	if !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth) {
		return nil, fmt.Errorf("%w: the certificate is not one for servers", ErrIdentity)
	}
	return leaf, nil
}

// checkSubject checks that a certificate names this node of this swarm, as
// SwarmKit's managers do (swarmkit/ca/auth.go).
func checkSubject(leaf *x509.Certificate, nodeID, clusterID string) error {
	switch s := leaf.Subject; {
	case len(s.Organization) == 0 || s.Organization[0] != clusterID:
		return fmt.Errorf("%w: the certificate is of another swarm", ErrIdentity)
	case !hasRole(leaf, roleManager) && !hasRole(leaf, roleWorker):
		return fmt.Errorf("%w: the certificate is neither a manager's nor a worker's", ErrIdentity)
	case s.CommonName != nodeID:
		return fmt.Errorf("%w: the certificate is not of node %q", ErrIdentity, nodeID)
	}
	return nil
}

func parseCerts(chain [][]byte) ([]*x509.Certificate, error) {
	if err := checkChain(chain); err != nil {
		return nil, err
	}
	certs := make([]*x509.Certificate, len(chain))
	for i, der := range chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("%w: certificate %d: %w", ErrIdentity, i+1, err)
		}
		certs[i] = c
	}
	return certs, nil
}

func hasRole(c *x509.Certificate, role string) bool {
	return slices.Contains(c.Subject.OrganizationalUnit, role)
}

// checkIDs refuses ids that no swarm has. They are looked at before anything
// is computed with them.
func checkIDs(ids ...string) error {
	for _, id := range ids {
		if id == "" || len(id) > MaxIDLen {
			return fmt.Errorf("%w: an id of %d bytes, want 1 to %d", ErrIdentity, len(id), MaxIDLen)
		}
	}
	return nil
}

// signatureContext starts what node keys sign, as in TLS 1.3 (RFC 8446
// §4.4.3): the same key serves the swarm's TLS, where nothing signed begins so
// unless TLS's own context follows.
var signatureContext = strings.Repeat(" ", 64)

// signedBytes joins domain and fields so that no two lists of fields give the
// same bytes: the domain ends with a zero byte, and each field follows its
// length (4 bytes).
func signedBytes(domain string, fields ...[]byte) []byte {
	n := len(domain) + 1
	for _, f := range fields {
		n += 4 + len(f)
	}
	b := bytes.NewBuffer(make([]byte, 0, n))
	b.WriteString(domain)
	b.WriteByte(0)
	for _, f := range fields {
		b.Write(binary.BigEndian.AppendUint32(b.AvailableBuffer(), uint32(len(f))))
		b.Write(f)
	}
	return b.Bytes()
}

// sign signs with a node's ECDSA key.
func sign(key stdcrypto.Signer, signed []byte) ([]byte, error) {
	sig, err := key.Sign(rand.Reader, digest(signed), stdcrypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("signing with the node's key: %w", err)
	}
	return sig, nil
}

func verifySignature(leaf *x509.Certificate, signed, sig []byte) bool {
	pub, ok := leaf.PublicKey.(*ecdsa.PublicKey)
	return ok && len(sig) <= MaxSignatureLen && ecdsa.VerifyASN1(pub, digest(signed), sig)
}

func digest(signed []byte) []byte {
	h := sha256.New()
	h.Write([]byte(signatureContext))
	h.Write(signed)
	return h.Sum(nil)
}

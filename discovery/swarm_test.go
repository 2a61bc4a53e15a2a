package discovery

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/netip"
	"testing"
	"time"

	"github.com/ovnd/ovnd/crypto"
	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/encap"
)

const testCluster = "xdxim8bzzwkeyw9wmg8hglxy3"

// A testSwarm has a certificate authority like SwarmKit's.
type testSwarm struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newTestSwarm(t testing.TB) *testSwarm {
	t.Helper()
	s := &testSwarm{t: t}
	s.key = s.newKey()
	ca := s.template(pkix.Name{CommonName: "swarm-ca"})
	ca.IsCA, ca.BasicConstraintsValid, ca.KeyUsage = true, true, x509.KeyUsageCertSign
	der := s.certify(ca, ca, s.key)
	var err error
	if s.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *testSwarm) newKey() *ecdsa.PrivateKey {
	s.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.t.Fatal(err)
	}
	return key
}

func (s *testSwarm) template(subject pkix.Name) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 158))
	return &x509.Certificate{
		SerialNumber: serial, Subject: subject,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * 24 * time.Hour),
	}
}

func (s *testSwarm) certify(template, parent *x509.Certificate, key *ecdsa.PrivateKey) []byte {
	s.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), s.key)
	if err != nil {
		s.t.Fatal(err)
	}
	return der
}

func (s *testSwarm) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(s.cert)
	return pool
}

func (s *testSwarm) credentials(nodeID, role string) crypto.Credentials {
	s.t.Helper()
	key := s.newKey()
	leaf := s.template(pkix.Name{
		CommonName: nodeID, OrganizationalUnit: []string{role}, Organization: []string{testCluster},
	})
	leaf.DNSNames = []string{role, nodeID}
	leaf.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment
	leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	return crypto.Credentials{
		NodeID: nodeID, ClusterID: testCluster, Chain: [][]byte{s.certify(leaf, s.cert, key)}, Key: key, Roots: s.roots(),
	}
}

// revocation is signed by the manager of that name.
func (s *testSwarm) revocation(manager, removed string) crypto.Revocation {
	s.t.Helper()
	r, err := crypto.SignRevocation(s.credentials(manager, "swarm-manager"), removed, time.Now())
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

func (s *testSwarm) verify(r crypto.Revocation) (signer string, err error) {
	return r.Verify(testCluster, s.roots(), time.Now())
}

// A member is one run of a node of the swarm.
type member struct {
	t    testing.TB
	id   *crypto.Identity
	node string // ID in the swarm
	name string // in gossip
	vtep netip.Addr
	seq  uint64
}

func (s *testSwarm) member(node, name, vtep string) *member {
	s.t.Helper()
	keys, err := crypto.NewKeys()
	if err != nil {
		s.t.Fatal(err)
	}
	id, err := keys.Identify(s.credentials(node, "swarm-worker"))
	if err != nil {
		s.t.Fatal(err)
	}
	return &member{t: s.t, id: id, node: node, name: name, vtep: netip.MustParseAddr(vtep)}
}

// identity is what the member says it is.
func (m *member) identity() directory.Identity {
	st := m.id.Statement()
	return directory.Identity{
		NodeID: st.NodeID, Static: st.Static, Record: st.Record, Signature: st.Signature, VTEP: m.vtep, Name: m.name,
	}
}

// entry is its record in identityTable; change makes it another's.
func (m *member) entry(networkID string, change ...func(*directory.Identity)) []byte {
	m.t.Helper()
	i := m.identity()
	for _, f := range change {
		f(&i)
	}
	b, err := putIdentity(networkID, &i, m.id.SignEndpoint)
	if err != nil {
		m.t.Fatal(err)
	}
	return b
}

// claim is the member's newest signed record of an endpoint on network 0; change
// alters what is signed.
func (m *member) claim(endpointID, ip string, change ...func(*crypto.EndpointClaim)) []byte {
	m.t.Helper()
	m.seq++
	c := crypto.EndpointClaim{
		NetworkID: testNet(0).ID, EndpointID: endpointID, EndpointIP: ip + "/16",
		MAC: encap.EndpointMAC(netip.MustParseAddr(ip)).String(), VTEP: m.vtep.String(), Owner: m.node, Sequence: m.seq,
	}
	for _, f := range change {
		f(&c)
	}
	b, err := putClaim(c, m.id.SignEndpoint(c))
	if err != nil {
		m.t.Fatal(err)
	}
	return b
}

func released(c *crypto.EndpointClaim) { c.Released = true }

// sealedNet is network i, encrypted.
func sealedNet(i int) NetworkConfig {
	cfg := testNet(i)
	cfg.Options = map[string]string{directory.OptionEncrypted: ""}
	return cfg
}

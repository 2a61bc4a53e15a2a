package crypto

import (
	"bytes"
	stdcrypto "crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"
)

const testCluster = "xdxim8bzzwkeyw9wmg8hglxy3"

// A testCA signs certificates as SwarmKit's does.
type testCA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	// cross is the root's certificate by another root, during a rotation.
	cross []byte
}

func newTestCA(tb testing.TB) *testCA {
	tb.Helper()
	key := testKey(tb)
	template := testTemplate(pkix.Name{CommonName: "swarm-ca"})
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	der := signCert(tb, template, template, key.Public(), key)
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	return &testCA{cert: cert, key: key}
}

// rotate makes a CA whose certificates old's nodes accept as well.
func (ca *testCA) rotate(tb testing.TB) *testCA {
	tb.Helper()
	fresh := newTestCA(tb)
	fresh.cross = signCert(tb, fresh.cert, ca.cert, fresh.key.Public(), ca.key)
	return fresh
}

func (ca *testCA) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	return pool
}

// credentials are those of a node; change may alter its certificate before it
// is signed.
func (ca *testCA) credentials(tb testing.TB, nodeID, role string, change ...func(*x509.Certificate)) Credentials {
	tb.Helper()
	key := testKey(tb)
	template := testTemplate(pkix.Name{
		CommonName: nodeID, OrganizationalUnit: []string{role}, Organization: []string{testCluster},
	})
	template.DNSNames = []string{role, nodeID}
	template.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment
	template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	for _, f := range change {
		f(template)
	}
	chain := [][]byte{signCert(tb, template, ca.cert, key.Public(), ca.key)}
	if ca.cross != nil {
		chain = append(chain, ca.cross)
	}
	return Credentials{NodeID: nodeID, ClusterID: testCluster, Chain: chain, Key: key, Roots: ca.roots()}
}

func testKey(tb testing.TB) *ecdsa.PrivateKey {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

func testTemplate(subject pkix.Name) *x509.Certificate {
	serial, _ := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 158))
	return &x509.Certificate{
		SerialNumber: serial, Subject: subject,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(90 * 24 * time.Hour),
	}
}

func signCert(tb testing.TB, template, parent *x509.Certificate, pub, key any) []byte {
	tb.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, pub, key)
	if err != nil {
		tb.Fatal(err)
	}
	return der
}

// testIdentity states fresh keys with c.
func testIdentity(tb testing.TB, c Credentials) *Identity {
	tb.Helper()
	keys, err := NewKeys()
	if err != nil {
		tb.Fatal(err)
	}
	id, err := keys.Identify(c)
	if err != nil {
		tb.Fatal(err)
	}
	return id
}

func TestIdentity(t *testing.T) {
	ca := newTestCA(t)
	rotated := ca.rotate(t)
	for _, tt := range []struct {
		name   string
		signer *testCA
		roots  *testCA
	}{
		{"the only root", ca, ca},
		{"during a rotation, by who trusts the old root", rotated, ca},
		{"during a rotation, by who trusts the new one", rotated, rotated},
	} {
		for _, role := range []string{roleManager, roleWorker} {
			c := tt.signer.credentials(t, "node1", role)
			s := testIdentity(t, c).Statement()
			if err := VerifyIdentity(s, c.Chain, testCluster, tt.roots.roots(), time.Now()); err != nil {
				t.Errorf("%s, %s: %v", tt.name, role, err)
			}
			if n := len(s.Signature); n == 0 || n > MaxSignatureLen {
				t.Errorf("signature of %d bytes", n)
			}
		}
	}
}

// TestIdentityRenewed: the same keys, stated by a new certificate.
func TestIdentityRenewed(t *testing.T) {
	ca := newTestCA(t)
	keys, err := NewKeys()
	if err != nil {
		t.Fatal(err)
	}
	first, second := ca.credentials(t, "node1", roleWorker), ca.credentials(t, "node1", roleManager)
	a, err := keys.Identify(first)
	if err != nil {
		t.Fatal(err)
	}
	b, err := keys.Identify(second)
	if err != nil {
		t.Fatal(err)
	}
	if a.Statement().Static != b.Statement().Static || a.Statement().Record != b.Statement().Record {
		t.Error("a renewal changed the keys")
	}
	if err := VerifyIdentity(b.Statement(), second.Chain, testCluster, ca.roots(), time.Now()); err != nil {
		t.Error(err)
	}
	if err := VerifyIdentity(a.Statement(), second.Chain, testCluster, ca.roots(), time.Now()); !errors.Is(err, ErrIdentity) {
		t.Errorf("old signature with the new certificate: %v", err)
	}
}

func TestVerifyIdentityRefuses(t *testing.T) {
	ca := newTestCA(t)
	other := testIdentity(t, ca.credentials(t, "node2", roleWorker)).Statement()
	type input struct {
		s     Statement
		chain [][]byte
		ca    *testCA
		at    time.Time
		org   string
	}
	for name, tt := range map[string]struct {
		cert   func(*x509.Certificate)
		change func(*input)
	}{
		"another swarm":           {change: func(in *input) { in.org = "another" }},
		"no cluster id":           {change: func(in *input) { in.org = "" }},
		"a certificate of others": {cert: func(c *x509.Certificate) { c.Subject.Organization = []string{"another"} }},
		"no organization":         {cert: func(c *x509.Certificate) { c.Subject.Organization = nil }},
		"swarm as second name":    {cert: func(c *x509.Certificate) { c.Subject.Organization = []string{"another", testCluster} }},
		"no role":                 {cert: func(c *x509.Certificate) { c.Subject.OrganizationalUnit = nil }},
		"an unknown role":         {cert: func(c *x509.Certificate) { c.Subject.OrganizationalUnit = []string{"swarm-ca"} }},
		"another node":            {cert: func(c *x509.Certificate) { c.Subject.CommonName = "node2" }},
		"for clients alone":       {cert: func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }},
		"for servers alone":       {cert: func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }},
		"expired":                 {change: func(in *input) { in.at = time.Now().Add(91 * 24 * time.Hour) }},
		"not valid yet":           {change: func(in *input) { in.at = time.Now().Add(-2 * time.Hour) }},
		"another root":            {change: func(in *input) { in.ca = newTestCA(t) }},
		"no chain":                {change: func(in *input) { in.chain = nil }},
		"an empty certificate":    {change: func(in *input) { in.chain = [][]byte{{}} }},
		"a cut certificate":       {change: func(in *input) { in.chain[0] = in.chain[0][:100] }},
		"a long chain":            {change: func(in *input) { in.chain = slices.Repeat(in.chain, MaxChain+1) }},
		"a large chain":           {change: func(in *input) { in.chain = append(in.chain, make([]byte, MaxChainLen)) }},
		"another's statement":     {change: func(in *input) { in.s = other }},
		"another's keys":          {change: func(in *input) { in.s.Static = other.Static }},
		"another's record key":    {change: func(in *input) { in.s.Record = other.Record }},
		"no node id":              {change: func(in *input) { in.s.NodeID = "" }},
		"a long node id":          {change: func(in *input) { in.s.NodeID = strings.Repeat("x", MaxIDLen+1) }},
		"no signature":            {change: func(in *input) { in.s.Signature = nil }},
		"a long signature":        {change: func(in *input) { in.s.Signature = make([]byte, MaxSignatureLen+1) }},
		"a flipped bit":           {change: func(in *input) { in.s.Signature[20] ^= 1 }},
	} {
		t.Run(name, func(t *testing.T) {
			c := ca.credentials(t, "node1", roleWorker)
			in := input{s: testIdentity(t, c).Statement(), chain: c.Chain, ca: ca, at: time.Now(), org: testCluster}
			if tt.cert != nil {
				// The key is the right one, and only the certificate is not.
				pub := c.Key.Public()
				template := testTemplate(pkix.Name{CommonName: "node1", OrganizationalUnit: []string{roleWorker}, Organization: []string{testCluster}})
				template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
				tt.cert(template)
				in.chain = [][]byte{signCert(t, template, ca.cert, pub, ca.key)}
			}
			if tt.change != nil {
				tt.change(&in)
			}
			if err := VerifyIdentity(in.s, in.chain, in.org, in.ca.roots(), in.at); !errors.Is(err, ErrIdentity) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestNoRoots: without roots, x509 would ask those of the machine.
func TestNoRoots(t *testing.T) {
	c := newTestCA(t).credentials(t, "node1", roleWorker)
	err := VerifyIdentity(testIdentity(t, c).Statement(), c.Chain, testCluster, nil, time.Now())
	if err == nil || !strings.Contains(err.Error(), "no root certificates") {
		t.Errorf("got %v", err)
	}
}

// TestForgedChain: a node's certificate is no CA's, so what it signs is void.
func TestForgedChain(t *testing.T) {
	ca := newTestCA(t)
	thief := ca.credentials(t, "node1", roleManager)
	cert, err := x509.ParseCertificate(thief.Chain[0])
	if err != nil {
		t.Fatal(err)
	}
	forger := &testCA{cert: cert, key: thief.Key.(*ecdsa.PrivateKey), cross: thief.Chain[0]}
	c := forger.credentials(t, "node2", roleManager)
	s := testIdentity(t, c).Statement()
	if err := VerifyIdentity(s, c.Chain, testCluster, ca.roots(), time.Now()); !errors.Is(err, ErrIdentity) {
		t.Errorf("got %v", err)
	}
}

func TestIdentifyRefuses(t *testing.T) {
	ca := newTestCA(t)
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Credentials){
		"another's key":  func(c *Credentials) { c.Key = testKey(t) },
		"an Ed25519 key": func(c *Credentials) { c.Key = stdcrypto.Signer(edKey) },
		"no key":         func(c *Credentials) { c.Key = nil },
		"no roots":       func(c *Credentials) { c.Roots = nil },
		"no chain":       func(c *Credentials) { c.Chain = nil },
		"another node":   func(c *Credentials) { c.NodeID = "node2" },
		"another swarm":  func(c *Credentials) { c.ClusterID = "another" },
		"no node id":     func(c *Credentials) { c.NodeID = "" },
	} {
		c := ca.credentials(t, "node1", roleWorker)
		change(&c)
		keys, err := NewKeys()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := keys.Identify(c); !errors.Is(err, ErrIdentity) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// TestSignedBytes: what is signed has one meaning.
func TestSignedBytes(t *testing.T) {
	seen := make(map[string]bool)
	for _, fields := range [][][]byte{{}, {nil}, {nil, nil}, {[]byte("ab")}, {[]byte("a"), []byte("b")}, {[]byte("ab"), nil}, {nil, []byte("ab")}} {
		for _, domain := range []string{domainIdentity, domainRevocation, domainEndpoint} {
			b := string(signedBytes(domain, fields...))
			if seen[b] {
				t.Errorf("%s %q: signed twice", domain, fields)
			}
			seen[b] = true
		}
	}
}

func TestChain(t *testing.T) {
	ca := newTestCA(t).rotate(t)
	chain := ca.credentials(t, "node1", roleManager).Chain
	b, err := AppendChain(nil, chain)
	if err != nil || len(b) != ChainLen(chain) {
		t.Fatalf("%d bytes, want %d: %v", len(b), ChainLen(chain), err)
	}
	got, rest, ok := ParseChain(append(b, "rest"...))
	if !ok || string(rest) != "rest" || !slices.EqualFunc(got, chain, bytes.Equal) {
		t.Errorf("got %d certificates, rest %q, %v", len(got), rest, ok)
	}
	for n := range b {
		if _, _, ok := ParseChain(b[:n]); ok {
			t.Errorf("a chain cut to %d of %d bytes was read", n, len(b))
		}
	}
	for _, bad := range [][][]byte{nil, slices.Repeat(chain, MaxChain), {make([]byte, MaxChainLen)}} {
		if _, err := AppendChain(nil, bad); !errors.Is(err, ErrIdentity) {
			t.Errorf("%d certificates: %v", len(bad), err)
		}
	}
}

func FuzzParseChain(f *testing.F) {
	ca := newTestCA(f).rotate(f)
	b, err := AppendChain(nil, ca.credentials(f, "node1", roleManager).Chain)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{1, 0, 1, 0x30})
	f.Fuzz(func(t *testing.T, b []byte) {
		chain, rest, ok := ParseChain(b)
		if !ok {
			return
		}
		again, err := AppendChain(nil, chain)
		if err != nil || !bytes.Equal(append(again, rest...), b) {
			t.Errorf("%d certificates, %v", len(chain), err)
		}
	})
}

// FuzzVerifyIdentity changes a byte of what is verified, or cuts it: nothing
// but the original is accepted.
func FuzzVerifyIdentity(f *testing.F) {
	c := newTestCA(f).credentials(f, "node1", roleWorker)
	good := testIdentity(f, c).Statement()
	encoded, err := AppendChain(nil, c.Chain)
	if err != nil {
		f.Fatal(err)
	}
	all := slices.Concat(good.Static[:], good.Record[:], good.Signature, encoded)
	f.Add(uint16(0), byte(0), uint16(len(all)))
	f.Add(uint16(40), byte(1), uint16(len(all)))
	f.Add(uint16(100), byte(0x80), uint16(len(all)))
	f.Add(uint16(300), byte(0xff), uint16(200))
	f.Fuzz(func(t *testing.T, at uint16, mask byte, n uint16) {
		b := bytes.Clone(all)
		b[int(at)%len(b)] ^= mask
		b = b[:min(int(n), len(b))]
		head := 64 + len(good.Signature)
		if len(b) < head {
			return
		}
		s := Statement{NodeID: good.NodeID, Static: [32]byte(b), Record: [32]byte(b[32:]), Signature: b[64:head]}
		chain, _, ok := ParseChain(b[head:])
		if !ok {
			return
		}
		err := VerifyIdentity(s, chain, testCluster, c.Roots, time.Now())
		if (err == nil) != bytes.Equal(b, all) {
			t.Errorf("byte %d changed by %#x, cut to %d: %v", at, mask, n, err)
		}
	})
}

// Package swarmtest makes certificates as SwarmKit's CA does, for tests and
// benchmarks of nodes that are in no swarm.
package swarmtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"time"

	"github.com/ovnd/ovnd/crypto"
)

// A CA issues the certificates of one swarm.
type CA struct {
	ClusterID string
	Roots     *x509.CertPool

	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	serial int64
}

// New makes the CA of a swarm. It is for one goroutine.
func New(clusterID string) (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("swarmtest: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "swarm-ca"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(20, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("swarmtest: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("swarmtest: %w", err)
	}
	ca := &CA{ClusterID: clusterID, Roots: x509.NewCertPool(), cert: cert, key: key, serial: 1}
	ca.Roots.AddCert(cert)
	return ca, nil
}

// Worker returns the credentials of a worker, valid for 90 days.
func (ca *CA) Worker(nodeID string) (crypto.Credentials, error) {
	return ca.issue(nodeID, "swarm-worker")
}

// Manager returns the credentials of a manager, valid for 90 days.
func (ca *CA) Manager(nodeID string) (crypto.Credentials, error) {
	return ca.issue(nodeID, "swarm-manager")
}

func (ca *CA) issue(nodeID, role string) (crypto.Credentials, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return crypto.Credentials{}, fmt.Errorf("swarmtest: %w", err)
	}
	ca.serial++
	template := &x509.Certificate{
		SerialNumber: big.NewInt(ca.serial),
		Subject:      pkix.Name{CommonName: nodeID, OrganizationalUnit: []string{role}, Organization: []string{ca.ClusterID}},
		DNSNames:     []string{role, nodeID},
		NotBefore:    time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(0, 0, 90),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, key.Public(), ca.key)
	if err != nil {
		return crypto.Credentials{}, fmt.Errorf("swarmtest: %w", err)
	}
	return crypto.Credentials{NodeID: nodeID, ClusterID: ca.ClusterID, Chain: [][]byte{der}, Key: key, Roots: ca.Roots}, nil
}

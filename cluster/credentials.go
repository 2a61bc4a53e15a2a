package cluster

import (
	"bytes"
	"context"
	stdcrypto "crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/moby/swarmkit/v2/ca"
	"github.com/moby/swarmkit/v2/ca/keyutils"

	"github.com/ovnd/ovnd/crypto"
)

// credentialsInterval is how often the files that SwarmKit keeps certificates
// in are looked at: it tells nobody of a renewal.
const credentialsInterval = time.Second

// Credentials are this node's membership of its swarm as the state folder
// holds it now: certificates are renewed before they end, when the node's role
// changes and when the swarm's root does. [TrustHooks] tell of it.
func (c *Cluster) Credentials() (crypto.Credentials, error) {
	if r, _ := c.current(); r == nil {
		return crypto.Credentials{}, errNoSwarm
	}
	kept, err := c.state.credentials()
	return kept.Credentials, err
}

// keptCredentials are credentials with the files that they were read from.
type keptCredentials struct {
	crypto.Credentials
	certPEM, rootPEM []byte
}

func (k keptCredentials) equal(o keptCredentials) bool {
	return bytes.Equal(k.certPEM, o.certPEM) && bytes.Equal(k.rootPEM, o.rootPEM)
}

// certPaths are where SwarmKit keeps the node's certificate, its key and the
// certificates of the swarm's root.
func (d *stateDir) certPaths() *ca.SecurityConfigPaths {
	return ca.NewConfigPaths(filepath.Dir(d.file(nodeCert)))
}

// credentials reads the node's credentials. SwarmKit's own reader
// (ca.KeyReadWriter) mends what an interrupted renewal left, by renaming and
// removing files, and two of them would take them from each other; this one
// changes nothing.
func (d *stateDir) credentials() (keptCredentials, error) {
	paths := d.certPaths()
	pair, certPEM, err := readKeyPair(paths.Node)
	if err != nil {
		return keptCredentials{}, fmt.Errorf("the node's certificate: %w", err)
	}
	rootPEM, err := os.ReadFile(paths.RootCA.Cert)
	if err != nil {
		return keptCredentials{}, fmt.Errorf("the swarm's root certificate: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(rootPEM) {
		return keptCredentials{}, fmt.Errorf("the swarm's root certificate: %s holds none", paths.RootCA.Cert)
	}
	key, ok := pair.PrivateKey.(stdcrypto.Signer)
	if !ok || len(pair.Leaf.Subject.Organization) == 0 {
		return keptCredentials{}, fmt.Errorf("%s is not the certificate of a swarm's node", paths.Node.Cert)
	}
	return keptCredentials{
		Credentials: crypto.Credentials{
			NodeID:    pair.Leaf.Subject.CommonName,
			ClusterID: pair.Leaf.Subject.Organization[0],
			Chain:     pair.Certificate,
			Key:       key,
			Roots:     roots,
		},
		certPEM: certPEM,
		rootPEM: rootPEM,
	}, nil
}

// readKeyPair reads key and certificate, which belong together. SwarmKit
// writes a new certificate beside the old one, then the key, then renames the
// certificate: at any moment one of the two fits, and a second look finds it
// if the renewal went on between two reads.
func readKeyPair(paths ca.CertPaths) (pair tls.Certificate, certPEM []byte, err error) {
	dir, name := filepath.Split(paths.Cert)
	for range 2 {
		var keyPEM []byte
		if keyPEM, err = os.ReadFile(paths.Key); err != nil {
			return tls.Certificate{}, nil, err
		}
		if block, _ := pem.Decode(keyPEM); block != nil && keyutils.IsEncryptedPEMBlock(block) {
			return tls.Certificate{}, nil, errors.New("its key is locked, by the swarm's autolock: switch that off with `docker swarm update --autolock=false`")
		}
		for _, path := range []string{paths.Cert, filepath.Join(dir, "."+name)} {
			var readErr error
			if certPEM, readErr = os.ReadFile(path); readErr != nil {
				err = errors.Join(err, readErr)
				continue
			}
			if pair, err = tls.X509KeyPair(certPEM, keyPEM); err == nil {
				return pair, certPEM, nil
			}
		}
	}
	return tls.Certificate{}, nil, err
}

// stamp tells one state of the certificates' files from another, without
// reading them.
func (d *stateDir) stamp() (s certStamp) {
	paths := d.certPaths()
	for i, path := range []string{paths.Node.Cert, paths.Node.Key, paths.RootCA.Cert} {
		if fi, err := os.Stat(path); err == nil {
			s[i] = fileStamp{fi.ModTime(), fi.Size()}
		}
	}
	return s
}

type (
	certStamp [3]fileStamp
	fileStamp struct {
		modified time.Time
		size     int64
	}
)

// A credentialsWatch is what watchCredentials has seen and told.
type credentialsWatch struct {
	told   keptCredentials
	seen   certStamp
	failed string // the last error
}

// watchCredentials tells of the credentials, at first and at each change,
// until ctx ends.
func (c *Cluster) watchCredentials(ctx context.Context) {
	var w credentialsWatch
	for {
		_, changed := c.current()
		c.whileMember(func() { c.refreshCredentials(&w) })
		select {
		case <-changed:
		case <-time.After(credentialsInterval):
		case <-ctx.Done():
			return
		}
	}
}

func (c *Cluster) refreshCredentials(w *credentialsWatch) {
	stamp := c.state.stamp()
	if stamp == w.seen {
		return
	}
	fresh, err := c.state.credentials()
	switch {
	case errors.Is(err, fs.ErrNotExist): // still joining
	case err != nil:
		if err.Error() != w.failed {
			w.failed = err.Error()
			c.log.Warn("the node's credentials cannot be read: encrypted networks keep to the last ones", "error", err)
		}
	default:
		w.seen, w.failed = stamp, ""
		if !fresh.equal(w.told) {
			w.told = fresh
			c.cfg.Trust.CredentialsChanged(fresh.Credentials)
		}
	}
}

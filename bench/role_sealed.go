package bench

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/ovnd/ovnd/crypto"
	"github.com/ovnd/ovnd/crypto/swarmtest"
	"github.com/ovnd/ovnd/dataplane"
	"github.com/ovnd/ovnd/discovery/directory"
)

// A sealedSpec makes a data plane's network an encrypted one: the node's
// certificate, as a swarm would issue it, and the key that the swarm shares.
type sealedSpec struct {
	Cipher    string `json:"cipher"` // as users write it
	NodeID    string `json:"node_id"`
	ClusterID string `json:"cluster_id"`
	Chain     []byte `json:"chain"` // DER of the leaf
	Key       []byte `json:"key"`   // PKCS #8
	Root      []byte `json:"root"`  // DER
	Shared    []byte `json:"shared"`
}

// sealedSpecs makes the specifications of nodes of one swarm.
func sealedSpecs(cipher directory.Cipher, nodes ...string) ([]*sealedSpec, error) {
	ca, err := swarmtest.New("bench")
	if err != nil {
		return nil, err
	}
	shared := make([]byte, 16)
	if _, err := rand.Read(shared); err != nil {
		return nil, err
	}
	specs := make([]*sealedSpec, 0, len(nodes))
	for _, id := range nodes {
		c, err := ca.Worker(id)
		if err != nil {
			return nil, err
		}
		key, err := x509.MarshalPKCS8PrivateKey(c.Key)
		if err != nil {
			return nil, err
		}
		specs = append(specs, &sealedSpec{
			Cipher: cipher.String(), NodeID: id, ClusterID: c.ClusterID, Chain: c.Chain[0], Key: key, Root: ca.DER(), Shared: shared,
		})
	}
	return specs, nil
}

// policy returns how the network is sealed, for the directory and for sessions.
func (s *sealedSpec) policy() (directory.Cipher, crypto.Policy, error) {
	switch s.Cipher {
	case directory.ChaCha20Poly1305.String():
		return directory.ChaCha20Poly1305, crypto.OnlyChaCha20Poly1305, nil
	case directory.AES256GCM.String():
		return directory.AES256GCM, crypto.OnlyAES256GCM, nil
	}
	return 0, 0, fmt.Errorf("unknown cipher %q", s.Cipher)
}

func (s *sealedSpec) identity() (*crypto.Identity, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(s.Key)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errors.New("the key is not ECDSA")
	}
	root, err := x509.ParseCertificate(s.Root)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(root)
	keys, err := crypto.NewKeys()
	if err != nil {
		return nil, err
	}
	return keys.Identify(crypto.Credentials{
		NodeID: s.NodeID, ClusterID: s.ClusterID, Chain: [][]byte{s.Chain}, Key: key, Roots: roots,
	})
}

// A sealer has the sessions of a data plane.
type sealer struct {
	spec     *sealedSpec
	identity *crypto.Identity
	engine   *crypto.Engine
	sw       *dataplane.Switch
	snap     *directory.Snapshot
}

func newSealer(spec *sealedSpec) (*sealer, error) {
	id, err := spec.identity()
	if err != nil {
		return nil, err
	}
	s := &sealer{spec: spec, identity: id}
	s.engine, err = crypto.New(crypto.Config{
		Identity: func() *crypto.Identity { return id },
		Send:     func(to netip.Addr, b []byte) { s.sw.SendControl(to, b) },
		Changed:  func(string) { s.sw.SessionsChanged() },
	})
	if err != nil {
		return nil, err
	}
	s.engine.SetEpochs([]crypto.Epoch{{Tag: 1, Key: spec.Shared}})
	return s, nil
}

// run runs the data plane and its sessions.
func (s *sealer) run(ctx context.Context, ready func()) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.engine.Run(ctx) })
	g.Go(func() error { return s.sw.Run(ctx) })
	ready()
	return g.Wait()
}

// An introduction is what a node tells another one of itself: gossip's part.
type introduction struct {
	crypto.Statement
	Addr netip.Addr
}

// try answers "identity" with the node's introduction, and takes another's with
// "meet INTRODUCTION".
func (s *sealer) try(args []string) (r reply, err error) {
	switch {
	case len(args) == 1 && args[0] == "identity":
		text, err := json.Marshal(introduction{Statement: s.identity.Statement(), Addr: s.sw.UnderlayAddr().Addr()})
		r.Text = string(text)
		return r, err
	case len(args) > 1 && args[0] == "meet":
		return r, s.meet(strings.Join(args[1:], " "))
	}
	return r, fmt.Errorf("unknown request %q", args)
}

func (s *sealer) meet(text string) error {
	var o introduction
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return err
	}
	_, policy, err := s.spec.policy()
	if err != nil {
		return err
	}
	next := *s.snap
	next.Version++
	next.Identities = map[string]directory.Identity{o.NodeID: {
		NodeID: o.NodeID, Static: o.Static, Record: o.Record, Signature: o.Signature, VTEP: o.Addr, Name: o.NodeID,
	}}
	s.sw.SetNetwork(&next)
	s.engine.SetPeers([]crypto.PeerInfo{{NodeID: o.NodeID, Static: o.Static, Addr: o.Addr, Policies: []crypto.Policy{policy}}})
	return nil
}

// seal makes the snapshot that of an encrypted network.
func (s *sealer) seal(snap *directory.Snapshot, owners map[netip.Addr]string) error {
	cipher, _, err := s.spec.policy()
	if err != nil {
		return err
	}
	snap.Encrypted, snap.Cipher = true, cipher
	for addr, ep := range snap.Endpoints.All() {
		ep.Owner = owners[addr]
	}
	s.snap = snap
	return nil
}

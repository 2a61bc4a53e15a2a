package crypto

import (
	"bytes"
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"time"
)

// maxGossip is what one message of gossip may hold, in bytes.
const maxGossip = 1400

func TestRevocation(t *testing.T) {
	ca := newTestCA(t)
	rotated := ca.rotate(t)
	for name, signer := range map[string]*testCA{"one root": ca, "during a rotation": rotated} {
		r, err := SignRevocation(signer.credentials(t, "manager1", roleManager), "node2", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		b, err := r.AppendBinary(nil)
		if err != nil || len(b) > maxGossip-100 {
			t.Fatalf("%s: %d bytes, %v", name, len(b), err)
		}
		got, err := ParseRevocation(b)
		if err != nil || got.NodeID != "node2" || !got.Time.Equal(r.Time) {
			t.Fatalf("%s: got %+v, %v", name, got, err)
		}
		if who, err := got.Verify(testCluster, ca.roots(), time.Now()); err != nil || who != "manager1" {
			t.Errorf("%s: signed by %q, %v", name, who, err)
		}
		for n := range b {
			if _, err := ParseRevocation(b[:n]); err == nil {
				t.Errorf("a revocation cut to %d of %d bytes was read", n, len(b))
			}
		}
		if _, err := ParseRevocation(append(b, 0)); err == nil {
			t.Error("a revocation with a byte too many was read")
		}
	}
}

func TestRevocationRefused(t *testing.T) {
	ca := newTestCA(t)
	for name, change := range map[string]func(r *Revocation, cluster *string, roots **x509.CertPool, at *time.Time){
		"another node": func(r *Revocation, _ *string, _ **x509.CertPool, _ *time.Time) { r.NodeID = "node3" },
		"no node":      func(r *Revocation, _ *string, _ **x509.CertPool, _ *time.Time) { r.NodeID = "" },
		"another time": func(r *Revocation, _ *string, _ **x509.CertPool, _ *time.Time) { r.Time = r.Time.Add(time.Second) },
		"another's chain": func(r *Revocation, _ *string, _ **x509.CertPool, _ *time.Time) {
			r.Chain = ca.credentials(t, "manager1", roleManager).Chain
		},
		"no signature":     func(r *Revocation, _ *string, _ **x509.CertPool, _ *time.Time) { r.Signature = nil },
		"another swarm":    func(_ *Revocation, cluster *string, _ **x509.CertPool, _ *time.Time) { *cluster = "another" },
		"another root":     func(_ *Revocation, _ *string, roots **x509.CertPool, _ *time.Time) { *roots = newTestCA(t).roots() },
		"no root":          func(_ *Revocation, _ *string, roots **x509.CertPool, _ *time.Time) { *roots = nil },
		"an expired chain": func(_ *Revocation, _ *string, _ **x509.CertPool, at *time.Time) { *at = at.Add(91 * 24 * time.Hour) },
	} {
		r, err := SignRevocation(ca.credentials(t, "manager1", roleManager), "node2", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		cluster, roots, at := testCluster, ca.roots(), time.Now()
		change(&r, &cluster, &roots, &at)
		if who, err := r.Verify(cluster, roots, at); !errors.Is(err, ErrIdentity) {
			t.Errorf("%s: accepted as of %q, %v", name, who, err)
		}
	}
}

// TestRevocationOfItself: nobody says of itself that it is no member.
func TestRevocationOfItself(t *testing.T) {
	c := newTestCA(t).credentials(t, "manager1", roleManager)
	r, err := SignRevocation(c, "manager1", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Verify(testCluster, c.Roots, time.Now()); err == nil || !strings.Contains(err.Error(), "itself") {
		t.Errorf("got %v", err)
	}
}

// TestRevocationByWorker: neither does a worker sign one, nor is one taken
// whose signature is right.
func TestRevocationByWorker(t *testing.T) {
	c := newTestCA(t).credentials(t, "node1", roleWorker)
	if _, err := SignRevocation(c, "node2", time.Now()); !errors.Is(err, ErrIdentity) {
		t.Errorf("signed: %v", err)
	}
	r := Revocation{NodeID: "node2", Time: time.Now(), Chain: c.Chain}
	var err error
	if r.Signature, err = sign(c.Key, r.signed(testCluster)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Verify(testCluster, c.Roots, time.Now()); err == nil || !strings.Contains(err.Error(), "no manager") {
		t.Errorf("got %v", err)
	}
}

func FuzzParseRevocation(f *testing.F) {
	r, err := SignRevocation(newTestCA(f).rotate(f).credentials(f, "manager1", roleManager), "node2", time.Now())
	if err != nil {
		f.Fatal(err)
	}
	b, err := r.AppendBinary(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseRevocation(b)
		if err != nil {
			return
		}
		again, err := r.AppendBinary(nil)
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("%x became %x, %v", b, again, err)
		}
	})
}

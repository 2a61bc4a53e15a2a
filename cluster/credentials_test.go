package cluster

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/moby/swarmkit/v2/ca"
)

// issue writes a node's certificate and key of a new root into dir.
func issue(t *testing.T, dir, nodeID string, kek []byte) *ca.SecurityConfigPaths {
	t.Helper()
	d := &stateDir{path: dir}
	paths := d.certPaths()
	root, err := ca.CreateRootCA(ca.DefaultRootCN)
	if err != nil {
		t.Fatal(err)
	}
	if err := ca.SaveRootCA(root, paths.RootCA); err != nil {
		t.Fatal(err)
	}
	if _, _, err := root.IssueAndSaveNewCertificates(ca.NewKeyReadWriter(paths.Node, kek, nil), nodeID, ca.WorkerRole, "swarm"); err != nil {
		t.Fatal(err)
	}
	return paths
}

func TestReadCredentials(t *testing.T) {
	dir := t.TempDir()
	d := &stateDir{path: dir}
	if _, err := d.credentials(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of no swarm: %v", err)
	}
	if d.stamp() != (certStamp{}) {
		t.Error("files that are not there have a stamp")
	}
	paths := issue(t, dir, "node1", nil)
	first, err := d.credentials()
	if err != nil || first.NodeID != "node1" || first.ClusterID != "swarm" || len(first.Chain) != 1 {
		t.Fatalf("%+v, %v", first.Credentials, err)
	}
	if got := testify(first.Credentials); got.Err != "" {
		t.Error(got.Err)
	}
	stamp := d.stamp()
	issue(t, dir, "node1", nil)
	if second, err := d.credentials(); err != nil || second.equal(first) || d.stamp() == stamp {
		t.Errorf("a renewal is not seen: %v", err)
	}

	if err := os.WriteFile(paths.RootCA.Cert, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.credentials(); err == nil || !strings.Contains(err.Error(), "holds none") {
		t.Errorf("without a root: %v", err)
	}
}

// TestReadRenewal reads in each moment of a renewal, and changes nothing.
func TestReadRenewal(t *testing.T) {
	before, after := t.TempDir(), t.TempDir()
	oldPaths, newPaths := issue(t, before, "old", nil), issue(t, after, "new", nil)
	d := &stateDir{path: before}
	copyTo := func(src, dst string) {
		t.Helper()
		data, err := os.ReadFile(src)
		if err == nil {
			err = os.WriteFile(dst, data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	want := func(moment, id string) {
		t.Helper()
		names := func() []byte {
			all, _ := filepath.Glob(filepath.Join(before, "certificates", "*"))
			hidden, _ := filepath.Glob(filepath.Join(before, "certificates", ".*"))
			return []byte(strings.Join(append(all, hidden...), "\n"))
		}
		files := names()
		got, err := d.credentials()
		if err != nil || got.NodeID != id {
			t.Errorf("%s: got %q, %v; want %q", moment, got.NodeID, err, id)
		}
		if !bytes.Equal(names(), files) {
			t.Errorf("%s: files changed from\n%s\nto\n%s", moment, files, names())
		}
	}
	tmp := filepath.Join(filepath.Dir(oldPaths.Node.Cert), "."+filepath.Base(oldPaths.Node.Cert))
	want("before", "old")
	copyTo(newPaths.Node.Cert, tmp)
	want("with the new certificate beside", "old")
	copyTo(newPaths.Node.Key, oldPaths.Node.Key)
	want("with the new key", "new")
	if err := os.Rename(tmp, oldPaths.Node.Cert); err != nil {
		t.Fatal(err)
	}
	want("after", "new")
	copyTo(issue(t, t.TempDir(), "other", nil).Node.Key, oldPaths.Node.Key)
	if _, err := d.credentials(); err == nil {
		t.Error("a key that fits no certificate is read")
	}
}

func TestReadLockedKey(t *testing.T) {
	dir := t.TempDir()
	issue(t, dir, "node1", []byte("a key encryption key"))
	if _, err := (&stateDir{path: dir}).credentials(); err == nil || !strings.Contains(err.Error(), "--autolock=false") {
		t.Errorf("got %v", err)
	}
}

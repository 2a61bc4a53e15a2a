package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// build makes a static program.
func build(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	source, binary := filepath.Join(dir, "main.go"), filepath.Join(dir, "main")
	if err := os.WriteFile(source, []byte("package main\n\nfunc main() {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "build", "-o", binary, source)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return binary
}

func TestRootfs(t *testing.T) {
	binary := build(t)
	var archives [2][]byte
	for i := range archives {
		out := filepath.Join(t.TempDir(), "rootfs.tar")
		if err := run(out, binary); err != nil {
			t.Fatal(err)
		}
		var err error
		if archives[i], err = os.ReadFile(out); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(archives[0], archives[1]) {
		t.Error("the same binary makes another archive")
	}
	want, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]*tar.Header{}
	for r := tar.NewReader(bytes.NewReader(archives[0])); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if parent := filepath.Dir(strings.TrimSuffix(h.Name, "/")); parent != "." && seen[parent+"/"] == nil {
			t.Errorf("%s comes before its folder", h.Name)
		}
		seen[h.Name] = h
		if h.Name == "usr/bin/ovnd" {
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) || h.Mode != 0o755 {
				t.Errorf("the program: %d bytes of %d, mode %o, %v", len(got), len(want), h.Mode, err)
			}
		}
	}
	if h := seen["var/lib/ovnd/"]; h == nil || h.Uid != nonroot || h.Mode != 0o700 {
		t.Errorf("state folder: %+v", h)
	}
	if h := seen["tmp/"]; h == nil || h.Mode != 0o1777 {
		t.Errorf("/tmp: %+v", h)
	}
}

func TestRefused(t *testing.T) {
	out := filepath.Join(t.TempDir(), "rootfs.tar")
	if err := run(out, out+".none"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if err := run(out, "/bin/sh"); err == nil || !strings.Contains(err.Error(), "CGO_ENABLED=0") {
		t.Error(err)
	}
	if _, err := os.Stat(out); err == nil {
		t.Error("an archive was written all the same")
	}
}

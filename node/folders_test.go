package node

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestResolvePaths(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", "/home/u/state")
	t.Setenv("XDG_RUNTIME_DIR", "/run/user/1000")
	p, err := ResolvePaths("/srv/n2")
	if err != nil {
		t.Fatal(err)
	}
	if p.StateDir != "/srv/n2" || p.APISocket != "/srv/n2/run/ovnd.sock" {
		t.Errorf("with --state-dir: %+v", p)
	}
	if os.Geteuid() != 0 {
		if p, err = ResolvePaths(""); err != nil || p.StateDir != "/home/u/state/ovnd" || p.APISocket != "/run/user/1000/ovnd/ovnd.sock" {
			t.Errorf("default: %+v, %v", p, err)
		}
	}
	if _, err := ResolvePaths("/" + strings.Repeat("long/", 30)); err == nil || !strings.Contains(err.Error(), "--state-dir") {
		t.Errorf("a socket path of more than %d bytes: %v", maxSocketPath, err)
	}
}

// testPaths are those of a node in a folder of its own, short enough for
// sockets.
func testPaths(t *testing.T) Paths {
	t.Helper()
	p, err := ResolvePaths(filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestFoldersAreLocked(t *testing.T) {
	p := testPaths(t)
	f, err := openFolders(p)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openFolders(p); !errors.Is(err, ErrRunning) {
		t.Errorf("a second node: %v, want ErrRunning", err)
	}
	f.close()
	f, err = openFolders(p)
	if err != nil {
		t.Fatalf("after the first node: %v", err)
	}
	f.close()
}

func TestPrivateDir(t *testing.T) {
	dir := t.TempDir()
	open := filepath.Join(dir, "open")
	if err := os.Mkdir(open, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := privateDir(open); err != nil {
		t.Errorf("an empty folder: %v", err)
	}
	if info, _ := os.Stat(open); info.Mode().Perm() != 0o700 {
		t.Errorf("mode is %v, want 0700", info.Mode().Perm())
	}
	if err := os.WriteFile(filepath.Join(open, "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := privateDir(open); err == nil {
		t.Error("a folder with files that is open to others was taken")
	}
	if info, _ := os.Stat(open); info.Mode().Perm() != 0o755 {
		t.Error("somebody's folder was closed to others")
	}
}

func TestInstallationID(t *testing.T) {
	path := filepath.Join(t.TempDir(), "id")
	first, err := installationID(path)
	if err != nil || len(first) != 32 {
		t.Fatalf("%q, %v", first, err)
	}
	if again, err := installationID(path); err != nil || again != first {
		t.Errorf("second run: %q, %v, want %q", again, err, first)
	}
}

package api

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// closeAtEnd closes c, which nothing was written to, when the test ends.
func closeAtEnd(t *testing.T, c io.Closer) {
	t.Cleanup(func() { _ = c.Close() })
}

func TestSocketModes(t *testing.T) {
	// With an umask that would let all in, for the whole process: no t.Parallel.
	defer syscall.Umask(syscall.Umask(0))
	path := filepath.Join(t.TempDir(), "a", "run", "ovnd.sock")
	ln, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]fs.FileMode{path: 0o600 | fs.ModeSocket, filepath.Dir(path): 0o700 | fs.ModeDir} {
		if info, err := os.Stat(file); err != nil || info.Mode() != want {
			t.Errorf("%s: mode %v, %v; want %v", file, info.Mode(), err, want)
		}
	}
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("socket is still there after Close: %v", err)
	}
}

func TestSocketStale(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "ovnd.sock")
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	// What a killed node leaves behind: a socket that nobody listens on.
	dead, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	dead.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	live, err := Listen(path)
	if err != nil {
		t.Fatalf("dead node's socket: %v", err)
	}
	closeAtEnd(t, live)

	_, err = Listen(path)
	if err == nil {
		t.Fatal("live node's socket was taken over")
	}
	for _, part := range []string{path, "is in use", "process ", "ovnd down", "--state-dir"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q does not say %q", err, part)
		}
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatalf("the live node's socket has suffered: %v", err)
	}
	closeAtEnd(t, conn)
}

func TestSocketRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "private")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	open := filepath.Join(dir, "open")
	if err := os.Mkdir(open, 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(open, "ovnd.sock"): "chmod 700",
		file:                             "is no socket",
		filepath.Join(file, "ovnd.sock"): "not a directory",
		filepath.Join(dir, strings.Repeat("x", 200)):  "at most 107",
		filepath.Join("/proc", "self", "x", "o.sock"): "no such file",
	} {
		ln, err := Listen(path)
		if err == nil {
			closeAtEnd(t, ln)
			t.Errorf("%s: no error", path)
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %q does not say %q", path, err, want)
		}
	}
	if b, err := os.ReadFile(file); err != nil || string(b) != "precious" {
		t.Errorf("the file in the way was touched: %q, %v", b, err)
	}
}

// TestPeer: requests count only over connections that the kernel vouches for.
func TestPeer(t *testing.T) {
	h := checkPeer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	try := func(c net.Conn) *httptest.ResponseRecorder {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/info", nil).WithContext(withPeer(context.Background(), c)))
		return rec
	}
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, ln)
	conn, err := net.Dial("unix", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, conn)
	if rec := try(conn); rec.Code != http.StatusNoContent {
		t.Errorf("own process: status %d, body %s", rec.Code, rec.Body)
	}
	a, b := net.Pipe()
	closeAtEnd(t, a)
	closeAtEnd(t, b)
	if rec := try(a); rec.Code != http.StatusForbidden || !strings.Contains(rec.Body.String(), `{"message":`) {
		t.Errorf("connection without credentials: status %d, body %s; want 403 and a message", rec.Code, rec.Body)
	}
}

// TestPeerUID: another user is refused, even where the mode let it connect.
func TestPeerUID(t *testing.T) {
	self := os.Geteuid()
	for uid, ok := range map[uint32]bool{uint32(self): true, 0: true, uint32(self) + 1: false, 65534: self == 65534} {
		if err := allowUID(uid); (err == nil) != ok {
			t.Errorf("uid %d: %v, want allowed: %t", uid, err, ok)
		}
	}
}

package discovery

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/ovnd/ovnd/discovery/directory"
)

// testLog keeps what a node logs, to be shown if its test fails.
type testLog struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *testLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *testLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// NetworkDB prints its configuration, keys and all, and parts of keys as they
// rotate. None of it may reach a log, whatever its level.
func TestKeysAreNotLogged(t *testing.T) {
	addr := freshAddr()
	n := startNode(t, addr, t.TempDir())
	var logged testLog
	routeLogs(slog.New(slog.NewTextHandler(&logged, &slog.HandlerOptions{Level: slog.LevelDebug})))
	for _, tags := range [][]uint64{{211, 212, 213}, {212, 213, 214}} {
		if err := n.SetKeys(testKeys(tags...)); err != nil {
			t.Fatal(err)
		}
		n.waitNodes(1)
		wait(t, soon, "the keys taken", func() bool { n.mu.Lock(); defer n.mu.Unlock(); return len(n.wake) == 0 })
	}
	n.stop()
	if !strings.Contains(logged.String(), "gossip cluster") {
		t.Fatalf("NetworkDB's log does not arrive: %q", logged.String())
	}
	for tag := byte(211); tag <= 214; tag++ {
		key := bytes.Repeat([]byte{tag}, 3)
		for _, form := range []string{fmt.Sprint(key[0], key[1]), hex.EncodeToString(key)[:5], string(key)} {
			if strings.Contains(logged.String(), form) {
				t.Errorf("key %d is in the log as %q", tag, form)
			}
		}
	}
}

// Files that cannot be read cost what is in them, and not the start.
func TestCorruptState(t *testing.T) {
	for name, content := range map[string]string{
		keysFile:          "[{",
		keysFile + " key": `[{"subsystem":"networking:gossip","key":"AQ=="}]`,
		peersFile:         "\x00\x00",
	} {
		dir := t.TempDir()
		file, _, _ := strings.Cut(name, " ")
		if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		var logged testLog
		d, err := New(Config{
			AdvertiseAddr: freshAddr(), StateDir: dir, Store: directory.NewStore(),
			Log: slog.New(slog.NewTextHandler(&logged, nil)),
		})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(d.keys) != 0 || len(d.saved.Networks) != 0 || !strings.Contains(logged.String(), "lost") {
			t.Errorf("%s: nothing said about it: %q", name, logged.String())
		}
	}
}

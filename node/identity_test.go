package node

import (
	"log/slog"
	"maps"
	"testing"
)

// TestIdentityIsKept restarts a node without saying again who it is.
func TestIdentityIsKept(t *testing.T) {
	dir := t.TempDir()
	settle := func(hostname string, labels map[string]string) *Node {
		t.Helper()
		n := &Node{cfg: Config{Hostname: hostname, Labels: labels}, log: slog.New(slog.DiscardHandler), stateDir: dir}
		if err := n.settleIdentity(); err != nil {
			t.Fatal(err)
		}
		return n
	}
	settle("w2", map[string]string{"zone": "a"})
	if n := settle("", nil); n.cfg.Hostname != "w2" || n.cfg.Labels["zone"] != "a" {
		t.Errorf("after a restart: %q, %v", n.cfg.Hostname, n.cfg.Labels)
	}
	settle("w3", map[string]string{})
	if n := settle("", nil); n.cfg.Hostname != "w3" || !maps.Equal(n.cfg.Labels, map[string]string{}) {
		t.Errorf("after a change: %q, %v", n.cfg.Hostname, n.cfg.Labels)
	}
}

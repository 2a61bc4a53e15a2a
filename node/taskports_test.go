package node

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/sandbox"
)

// TestRestorePorts: a task of a former life has its ports in host mode again,
// and gives them back under the lock, whoever connects meanwhile.
func TestRestorePorts(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := free.Addr().(*net.TCPAddr).AddrPort()
	if err := free.Close(); err != nil {
		t.Fatal(err)
	}
	s := &sandboxes{
		log:    slog.New(slog.DiscardHandler),
		member: &member{networks: &networks{publish: []netip.Addr{addr.Addr()}}},
	}
	st := &sandboxState{task: newTaskState(), record: record{
		Spec: sandbox.Spec{Name: "web.1"},
		Task: &taskRecord{HostPorts: []directory.Port{{Protocol: directory.TCP, Target: 80, Published: addr.Port()}}},
	}}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.restorePortsLocked(st)
	for range 10 {
		c, err := net.Dial("tcp", addr.String())
		if errors.Is(err, syscall.ECONNRESET) {
			continue // as soon as this: no bridge leads to the task
		}
		if err != nil {
			t.Fatalf("published port: %v", err)
		}
		defer func() { _ = c.Close() }()
	}
	start := time.Now()
	releaseAll(st.task.ports)
	if took := time.Since(start); took > stackPatience/2 {
		t.Errorf("given back after %v", took)
	}
	if _, err := net.Dial("tcp", addr.String()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("given back: %v", err)
	}
}

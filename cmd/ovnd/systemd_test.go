package main

import (
	"context"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A serviceManager is systemd's end: it reads what is sent.
type serviceManager struct{ *net.UnixConn }

func newServiceManager(t *testing.T, socket string) serviceManager {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return serviceManager{conn}
}

// next returns the lines of the next message, or "" if none comes in time.
func (m serviceManager) next(t *testing.T, within time.Duration) string {
	t.Helper()
	if err := m.SetReadDeadline(time.Now().Add(within)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4096)
	n, err := m.Read(b)
	if err != nil {
		return ""
	}
	return string(b[:n])
}

func TestSystemd(t *testing.T) {
	dir := shortDir(t)
	for _, socket := range []string{dir + "/notify", "\x00ovnd-test-" + strconv.Itoa(os.Getpid())} {
		manager := newServiceManager(t, socket)
		t.Setenv("NOTIFY_SOCKET", strings.Replace(socket, "\x00", "@", 1))
		t.Setenv("WATCHDOG_USEC", "200000")
		t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
		sd := openSystemd()
		for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} {
			if v, there := os.LookupEnv(name); there {
				t.Errorf("what the node starts inherits %s=%s", name, v)
			}
		}
		if sd == nil || sd.watchdog != 200*time.Millisecond {
			t.Fatalf("%+v", sd)
		}
		sd.stopping()
		if got := manager.next(t, 10*time.Second); got != "STOPPING=1\nSTATUS=stopping" {
			t.Errorf("%q", got)
		}
	}
}

// The watchdog hears of a node that answers, and nothing of one that does not.
func TestSystemdWatchdog(t *testing.T) {
	dir := shortDir(t)
	manager := newServiceManager(t, dir+"/notify")
	t.Setenv("NOTIFY_SOCKET", dir+"/notify")
	t.Setenv("WATCHDOG_USEC", "100000")
	sd := openSystemd()
	if err := os.Mkdir(dir+"/run", 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	sd.ready(ctx, dir)
	if got := manager.next(t, 10*time.Second); got != "READY=1\nSTATUS=ready" {
		t.Errorf("%q", got)
	}
	if got := manager.next(t, 300*time.Millisecond); got != "" {
		t.Errorf("a node that does not answer lives: %q", got)
	}
	n := newFakeNodeAt(t, dir+"/run/ovnd.sock")
	n.mu.Lock()
	n.on("GET /ovnd/status", 0, `{"NodeID":"x","Hostname":"h","Role":"worker"}`)
	n.mu.Unlock()
	for range 3 {
		if got := manager.next(t, 10*time.Second); got != "WATCHDOG=1\nSTATUS=node x (h), a worker" {
			t.Errorf("%q", got)
		}
	}
}

// Without a service manager nothing is said, and nothing fails.
func TestNoSystemd(t *testing.T) {
	for _, socket := range []string{"", "/nowhere/notify"} {
		t.Setenv("NOTIFY_SOCKET", socket)
		sd := openSystemd()
		if sd != nil {
			t.Errorf("%q: %+v", socket, sd)
		}
		sd.ready(t.Context(), "")
		sd.stopping()
	}
	// The variables of another process are not ours.
	dir := shortDir(t)
	newServiceManager(t, dir+"/notify")
	t.Setenv("NOTIFY_SOCKET", dir+"/notify")
	t.Setenv("WATCHDOG_USEC", "100000")
	t.Setenv("WATCHDOG_PID", "1")
	if sd := openSystemd(); sd == nil || sd.watchdog != 0 {
		t.Errorf("%+v", sd)
	}
}

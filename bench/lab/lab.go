package lab

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TB is the part of testing.TB that a lab uses. Fatalf must not return.
type TB interface {
	Helper()
	Fatalf(format string, args ...any)
	Logf(format string, args ...any)
	Cleanup(func())
}

// A Lab is a set of hosts and the links between them.
type Lab struct {
	tb TB

	mu    sync.Mutex
	hosts map[string]*Host
}

// New returns an empty lab that is torn down by tb.Cleanup. The process must
// have entered by [Enter] or [Main].
func New(tb TB) *Lab {
	tb.Helper()
	if os.Getenv(insideEnv) == "" {
		tb.Fatalf("lab.New outside the lab: call lab.Main(m) in TestMain, or lab.Enter() first in main")
	}
	return &Lab{tb: tb, hosts: make(map[string]*Host)}
}

// Cleanup has fn called when the lab is torn down, before what was set up earlier
// is.
func (l *Lab) Cleanup(fn func()) { l.tb.Cleanup(fn) }

// A Host is one network namespace. Its methods may be called from several
// goroutines, unless they say otherwise.
type Host struct {
	name  string
	tb    TB
	ns    *os.File
	nl    *netlink.Handle
	spawn chan func()   // runs on a thread that lives as long as the host
	stop  chan struct{} // closed to end that thread
	ended chan struct{} // closed when that thread has no more to do
}

// Host makes a namespace with lo up. The name must be new in this lab; it shows
// in messages only.
func (l *Lab) Host(name string) *Host {
	l.tb.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.hosts[name] != nil {
		l.tb.Fatalf("lab: host %q exists already", name)
	}
	h := &Host{
		name: name, tb: l.tb,
		spawn: make(chan func()), stop: make(chan struct{}), ended: make(chan struct{}),
	}
	ready := make(chan error)
	go func() {
		defer close(h.ended)
		h.thread(ready)
	}()
	if err := <-ready; err != nil {
		l.tb.Fatalf("lab: host %q: %v", name, err)
	}
	l.tb.Cleanup(func() {
		close(h.stop)
		<-h.ended
		h.nl.Close()
		h.ns.Close()
	})
	err := h.Do(func() (err error) {
		h.nl, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
	if err != nil {
		l.tb.Fatalf("lab: host %q: netlink: %v", name, err)
	}
	h.Up("lo")
	l.hosts[name] = h
	return h
}

// thread makes the namespace and then starts the host's processes. It keeps its
// thread to itself because Pdeathsig follows the thread that forked: when this
// one ends, by Cleanup or because the program died, they are killed.
func (h *Host) thread(ready chan<- error) {
	runtime.LockOSThread() // not unlocked: the thread ends with the goroutine
	if unix.Gettid() == unix.Getpid() {
		// The main thread cannot end, and /proc/self shows its namespaces as
		// the whole process's: leave it to others.
		done := make(chan struct{})
		go func() { h.thread(ready); close(done) }()
		<-done
		runtime.UnlockOSThread()
		return
	}
	err := unix.Unshare(unix.CLONE_NEWNET)
	if err == nil {
		h.ns, err = os.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()))
	}
	ready <- err
	for {
		select {
		case fn := <-h.spawn:
			fn()
		case <-h.stop:
			return
		}
	}
}

// Name returns the name that the host was made with.
func (h *Host) Name() string { return h.name }

// Do calls fn with the calling goroutine's thread in the host's namespace and
// returns its error. Sockets and TUN devices that fn opens stay in the
// namespace, and so do processes that it starts; goroutines that it starts do
// not. Calls may nest.
func (h *Host) Do(fn func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	old, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return fmt.Errorf("lab: own namespace: %w", err)
	}
	defer old.Close()
	if err := setns(h.ns); err != nil {
		return fmt.Errorf("lab: enter %s: %w", h.name, err)
	}
	defer func() {
		if err := setns(old); err != nil {
			// The runtime would hand this thread, in the wrong namespace, to
			// any goroutine.
			panic("lab: leave " + h.name + ": " + err.Error())
		}
	}()
	return fn()
}

func setns(ns *os.File) error { return unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET) }

// Netlink returns a route netlink handle of the namespace, for what this
// package has no method for. It is closed with the lab.
func (h *Host) Netlink() *netlink.Handle { return h.nl }

// Sysctl sets a network sysctl of the namespace, named as in sysctl(8):
// "net.ipv4.tcp_congestion_control".
func (h *Host) Sysctl(name, value string) {
	h.tb.Helper()
	path := "/proc/sys/" + strings.ReplaceAll(name, ".", "/")
	err := h.Do(func() error { return os.WriteFile(path, []byte(value), 0) })
	if err != nil {
		h.tb.Fatalf("lab: %s: sysctl %s=%s: %v", h.name, name, value, err)
	}
}

package discovery

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/ovnd/ovnd/bench/lab"
	"github.com/ovnd/ovnd/discovery/directory"
)

// A child is a node in a process of its own, so that it can be killed.
type child struct {
	Addr     netip.Addr
	Dir      string
	Keys     []Key    // nil: those of its last run
	Managers []string // nil: it knows none
	Host     int      // its endpoint on network 0
	Want     int      // an endpoint of another node

	kill func()      // ends the node without a word to anybody
	said chan string // "remembered" if Want is there before gossip, "seen" and "gone" as it comes and goes
}

const childEnv = "OVND_TEST_DISCOVERY_CHILD"

func TestMain(m *testing.M) {
	if spec := os.Getenv(childEnv); spec != "" {
		if err := childMain(spec); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	lab.Enter()
	lab.Exclusive()
	if err := loopbackUp(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// loopbackUp makes the addresses of nodes in this process usable.
func loopbackUp() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}

// childMain is the node: it runs until it is killed.
func childMain(spec string) error {
	var c child
	if err := json.Unmarshal([]byte(spec), &c); err != nil {
		return err
	}
	store := directory.NewStore()
	d, err := New(Config{AdvertiseAddr: c.Addr, StateDir: c.Dir, Store: store})
	if err != nil {
		return err
	}
	if c.Keys != nil {
		if err := d.SetKeys(c.Keys); err != nil {
			return err
		}
	}
	d.Join(c.Managers)
	if err := d.JoinNetwork(testNet(0)); err != nil {
		return err
	}
	if err := d.AddEndpoint(testNet(0).ID, testEP(0, c.Host)); err != nil {
		return err
	}
	// Nothing can have come by gossip yet.
	if _, ok := store.Load(testNet(0).ID).Lookup(testEP(0, c.Want).Addr); ok {
		fmt.Println("remembered")
	}
	go func() {
		for seen := false; ; time.Sleep(time.Millisecond) {
			if _, ok := store.Load(testNet(0).ID).Lookup(testEP(0, c.Want).Addr); ok != seen {
				seen = ok
				fmt.Println(map[bool]string{true: "seen", false: "gone"}[seen])
			}
		}
	}()
	return d.Run(context.Background())
}

// start runs the node in host, or beside the test if host is nil.
func (c *child) start(t *testing.T, host *lab.Host) {
	t.Helper()
	spec, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"="+string(spec))
	cmd.Stderr = os.Stderr
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = w
	if host != nil {
		c.kill = host.Start(cmd).Kill
	} else {
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		c.kill = sync.OnceFunc(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
		t.Cleanup(c.kill)
	}
	w.Close()
	said := make(chan string, 100) // more than a test makes it say
	c.said = said
	go func() {
		defer r.Close()
		for lines := bufio.NewScanner(r); lines.Scan(); {
			said <- lines.Text()
		}
	}()
}

func (c *child) waitSays(t *testing.T, want string, within time.Duration) {
	t.Helper()
	start := time.Now()
	timeout := time.After(within)
	for {
		select {
		case got := <-c.said:
			if got == want {
				t.Logf("%s: endpoint %d %s after %s", c.Addr, c.Want, want, time.Since(start).Round(time.Millisecond))
				return
			}
		case <-timeout:
			t.Fatalf("%s: endpoint %d not %s after %s", c.Addr, c.Want, want, within)
		}
	}
}

func TestKilledNodeDropped(t *testing.T) {
	t.Parallel()
	n := startNodes(t, 1)[0]
	n.join(0)
	n.add(0, 1)
	c := &child{Addr: freshAddr(), Dir: t.TempDir(), Keys: testKeys(1, 2, 3), Managers: []string{n.addr().String()}, Host: 2, Want: 1}
	c.start(t, nil)
	c.waitSays(t, "seen", soon)
	n.waitFor(soon, 0, 2)
	c.kill()
	n.waitGone(soon, 0, 2)
}

// A worker is killed and comes back while no manager is there: it has its keys,
// forwards by what it remembers at once, and finds the other worker again.
func TestRestartWithoutManager(t *testing.T) {
	t.Parallel()
	manager, worker, c := threeNodes(t)
	former := worker.find(0, c.Host).NodeID
	manager.stop()
	c.kill()
	c.Keys, c.Managers = nil, nil
	c.start(t, nil)
	c.waitSays(t, "remembered", soon)
	wait(t, soon, "the endpoint announced by its restarted owner", func() bool {
		ep := worker.find(0, c.Host)
		return ep != nil && ep.NodeID != "" && ep.NodeID != former
	})
	worker.waitNodes(2)
}

// The same, but the worker's first life was so short that it ended before the
// peers are written again.
func TestRestartAfterShortLife(t *testing.T) {
	t.Parallel()
	manager, worker, c := threeNodes(t)
	former := worker.find(0, c.Host).NodeID
	reborn := func() {
		c.start(t, nil)
		wait(t, soon, "the endpoint announced by its restarted owner", func() bool {
			ep := worker.find(0, c.Host)
			if ep == nil || ep.NodeID == "" || ep.NodeID == former {
				return false
			}
			former = ep.NodeID
			return true
		})
	}
	c.kill()
	c.Dir = t.TempDir() // it knows nobody but the manager
	reborn()
	c.kill()
	manager.stop()
	c.Keys, c.Managers = nil, nil
	reborn()
}

// The same, but the worker does not know its former name and so says no goodbye
// for it: the others tell it of a node at its own address, which NetworkDB takes
// for its successor.
func TestRestartTakenForFormer(t *testing.T) {
	t.Parallel()
	_, worker, c := threeNodes(t)
	former := worker.find(0, c.Host).NodeID
	c.kill()
	path := filepath.Join(c.Dir, peersFile)
	var s savedPeers
	if err := load(path, &s); err != nil || s.Name != former {
		t.Fatalf("saved name %q, %v, want %q", s.Name, err, former)
	}
	s.Name = ""
	if err := save(path, s, false); err != nil {
		t.Fatal(err)
	}
	c.start(t, nil)
	wait(t, soon, "the endpoint announced by its restarted owner", func() bool {
		ep := worker.find(0, c.Host)
		return ep != nil && ep.NodeID != "" && ep.NodeID != former && len(worker.Status().Nodes) == 3
	})
}

// threeNodes starts a manager, a worker with endpoint 1 and, in a process of its
// own, a worker with endpoint 2, and waits until that one has saved what it knows.
func threeNodes(t *testing.T) (manager, worker *testNode, c *child) {
	t.Helper()
	manager = startNodes(t, 1)[0]
	managers := []string{manager.addr().String() + ":2377"}
	worker = startNode(t, freshAddr(), t.TempDir())
	if err := worker.SetKeys(testKeys(1, 2, 3)); err != nil {
		t.Fatal(err)
	}
	worker.Join(managers)
	worker.join(0)
	worker.add(0, 1)

	dir := t.TempDir()
	c = &child{Addr: freshAddr(), Dir: dir, Keys: testKeys(1, 2, 3), Managers: managers, Host: 2, Want: 1}
	c.start(t, nil)
	c.waitSays(t, "seen", soon)
	worker.waitFor(soon, 0, 2)
	wait(t, soon, "the endpoint and the nodes remembered", func() bool {
		var s savedPeers
		if load(filepath.Join(dir, peersFile), &s) != nil {
			return false
		}
		return s.Networks[testNet(0).ID][testEP(0, 1).ID].Endpoint != nil && len(s.Nodes) == 2
	})
	for _, file := range []string{keysFile, peersFile} {
		if st, err := os.Stat(filepath.Join(dir, file)); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v, want mode 0600", file, st, err)
		}
	}
	return manager, worker, c
}

// Two machines over IPv6 lose the link between them and get it back: each drops
// the other's endpoint, and both come together again by themselves.
func TestPartitionHeals(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for nodes to be declared dead")
	}
	t.Parallel()
	l := lab.New(t)
	a, b := l.Host("a"), l.Host("b")
	l.Veth(1500, lab.End{Host: a, Name: "eth0", Addrs: []string{"2001:db8::1/64"}},
		lab.End{Host: b, Name: "eth0", Addrs: []string{"2001:db8::2/64"}})
	manager := &child{Addr: netip.MustParseAddr("2001:db8::1"), Dir: t.TempDir(), Keys: testKeys(1, 2, 3), Host: 1, Want: 2}
	worker := &child{
		Addr: netip.MustParseAddr("2001:db8::2"), Dir: t.TempDir(), Keys: testKeys(1, 2, 3), Host: 2, Want: 1,
		Managers: []string{"[2001:db8::1]:2377"},
	}
	manager.start(t, a)
	worker.start(t, b)
	both := func(what string, within time.Duration) {
		t.Helper()
		manager.waitSays(t, what, within)
		worker.waitSays(t, what, within)
	}
	both("seen", soon)
	// Frames go to a MAC that nobody has, while links and addresses stay.
	a.Neigh("eth0", worker.Addr, net.HardwareAddr{2, 0, 0, 0, 0, 9})
	b.Neigh("eth0", manager.Addr, net.HardwareAddr{2, 0, 0, 0, 0, 9})
	both("gone", soon)
	a.Neigh("eth0", worker.Addr, b.MAC("eth0"))
	b.Neigh("eth0", manager.Addr, a.MAC("eth0"))
	both("seen", soon)
}

// What a restarted node still has keeps its names and routes all the while; what
// it has no longer goes.
func TestRestartKeepsEndpoints(t *testing.T) {
	t.Parallel()
	_, worker, c := threeNodes(t)
	former := worker.find(0, 2).NodeID
	missed := make(chan int)
	done := make(chan struct{})
	go func() { // the snapshots that lack it
		var count int
		seen := worker.store.Load(testNet(0).ID)
		for {
			select {
			case <-done:
				missed <- count
				return
			case <-time.After(time.Millisecond):
			}
			if now := worker.store.Load(testNet(0).ID); now != seen {
				seen = now
				if _, ok := seen.Lookup(testEP(0, 2).Addr); !ok {
					count++
				}
			}
		}
	}()
	c.kill()
	c.start(t, nil)
	wait(t, soon, "the endpoint announced by its restarted owner", func() bool {
		ep := worker.find(0, 2)
		return ep != nil && ep.NodeID != "" && ep.NodeID != former
	})
	c.kill()
	c.Host = 3
	c.start(t, nil)
	worker.waitFor(soon, 0, 3)
	close(done)
	if count := <-missed; count > 0 {
		t.Errorf("%d snapshots lack the endpoint of a node that was restarting", count)
	}
	worker.waitGone(soon, 0, 2)
}

package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ovnd/ovnd/bench/lab"
	"github.com/ovnd/ovnd/encap"
)

// A test binary is also what it tests: an init, or `ovnd run`, which must be a
// process of its own to get signals and a terminal.
const runEnv = "OVND_TEST_RUN" // a testRun in JSON

type testRun struct {
	Spec Spec
	Args []string
	Env  []string
	Dir  string
}

func TestMain(m *testing.M) {
	MaybeInit()
	runHelper()
	enterWorld()
	if v, ok := os.LookupEnv(runEnv); ok {
		os.Unsetenv(runEnv)
		var r testRun
		if err := json.Unmarshal([]byte(v), &r); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		code, err := Run(context.Background(), r.Spec, Command{Args: r.Args, Env: r.Env, Dir: r.Dir})
		if err != nil {
			fmt.Fprintln(os.Stderr, "ovnd run:", err)
		}
		os.Exit(code)
	}
	lab.Exclusive()
	os.Exit(m.Run())
}

// A fakeNode has the node's end of sandboxes and no more.
type fakeNode struct {
	t      *testing.T
	socket string
	server *Server
	stop   func() // the server, as a node that dies

	mu       sync.Mutex
	attached map[string][]Devices
	pids     map[string]int
	sessions map[string]*Session
	count    int   // of successful Attach calls
	refuse   error // what Attach answers
	changed  chan struct{}
	asked    func() // called by Attach first, if not nil
}

func newFakeNode(t *testing.T) *fakeNode {
	t.Helper()
	n := &fakeNode{
		t: t, socket: filepath.Join(t.TempDir(), "sandbox.sock"),
		attached: make(map[string][]Devices), pids: make(map[string]int), sessions: make(map[string]*Session),
		changed: make(chan struct{}, 1),
	}
	n.start()
	t.Cleanup(func() { n.stop() })
	return n
}

func (n *fakeNode) start() {
	n.t.Helper()
	n.mu.Lock()
	clear(n.sessions) // those of the last server
	n.mu.Unlock()
	s, err := NewServer(n.socket, n, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	n.server = s
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			n.t.Errorf("Server.Run: %v", err)
		}
	})
}

const testToken = "0123456789abcdef"

func (n *fakeNode) Attach(_ context.Context, a Attachment) error {
	n.mu.Lock()
	asked := n.asked
	n.mu.Unlock()
	if asked != nil {
		asked()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.refuse != nil {
		return n.refuse
	}
	if a.Token != testToken {
		return errors.New("wrong token")
	}
	n.attached[a.ID], n.pids[a.ID], n.sessions[a.ID] = a.Devices, a.PID, a.Session
	if a.Resolver != nil {
		_ = a.Resolver.Close()
	}
	n.count++
	n.notify()
	return nil
}

func (n *fakeNode) Detach(id string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, d := range n.attached[id] {
		for _, q := range d.Queues {
			q.Close()
		}
	}
	delete(n.attached, id)
	delete(n.pids, id)
	n.notify()
}

func (n *fakeNode) notify() {
	select {
	case n.changed <- struct{}{}:
	default:
	}
}

// wait returns once cond, called with the lock held, holds.
func (n *fakeNode) wait(what string, cond func() bool) {
	n.t.Helper()
	deadline := time.After(15 * time.Second)
	for {
		n.mu.Lock()
		ok := cond()
		n.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-n.changed:
		case <-time.After(20 * time.Millisecond):
		case <-deadline:
			n.t.Fatalf("waited in vain: %s", what)
		}
	}
}

// lastID makes sandboxes' IDs differ, as they do.
var lastID atomic.Uint64

// spec returns a sandbox on n with one interface, 10.10.0.i.
func (n *fakeNode) spec(i int) Spec {
	return Spec{
		ID:         fmt.Sprintf("%064x", lastID.Add(1)),
		Name:       fmt.Sprintf("box%d", i),
		Interfaces: []Interface{testInterface("eth0", fmt.Sprintf("10.10.0.%d/16", i))},
		NodeSocket: n.socket,
		Token:      testToken,
	}
}

func testInterface(name string, addrs ...string) Interface {
	in := Interface{Name: name, NetworkName: "net-" + name, MTU: 1450, Queues: 1}
	for _, a := range addrs {
		in.Addrs = append(in.Addrs, netip.MustParsePrefix(a))
	}
	if len(addrs) > 0 {
		in.MAC = encap.EndpointMAC(in.Addrs[0].Addr())
	}
	return in
}

// output runs args in a sandbox and returns what it wrote and its exit code.
func output(t *testing.T, s Spec, c Command) (stdout string, code int, err error) {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	c.Stdin, c.Stdout = null, out
	if c.Stderr == nil {
		c.Stderr = out
	}
	code, err = Run(t.Context(), s, c)
	b, rerr := os.ReadFile(out.Name())
	if rerr != nil {
		t.Fatal(rerr)
	}
	return string(b), code, err
}

func mustOutput(t *testing.T, s Spec, args ...string) string {
	t.Helper()
	out, code, err := output(t, s, Command{Args: args})
	if err != nil || code != 0 {
		t.Fatalf("%q: exit code %d, error %v, output:\n%s", args, code, err, out)
	}
	return strings.TrimSpace(out)
}

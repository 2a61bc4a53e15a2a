package cluster

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/v2/daemon/server/backend"
	"github.com/moby/moby/v2/daemon/server/swarmbackend"

	"github.com/ovnd/ovnd/bench/lab"
	"github.com/ovnd/ovnd/crypto"
)

// SwarmKit allows one node in a process, so each node of a test is the test
// binary run again with childEnv set. It takes requests on stdin and answers
// on stdout, a JSON object in a line each.

const childEnv = "OVND_CLUSTER_CHILD"

func TestMain(m *testing.M) {
	if conf := os.Getenv(childEnv); conf != "" {
		os.Exit(childMain(conf))
	}
	lab.Exclusive()
	os.Exit(m.Run())
}

// A request asks a child to do Op.
type request struct {
	ID        int
	Op        string
	Container string
	Target    string
	Addrs     []string
	Timeout   time.Duration
	Force     bool
	Create    network.CreateRequest
	Init      swarm.InitRequest
	Join      swarm.JoinRequest
	Role      swarm.NodeRole
	Rotate    bool

	Service    swarm.ServiceSpec
	Data       string
	Templating *swarm.Driver
	Logs       backend.ContainerLogsOptions
}

// A message is an answer (ID > 0) or news of a child.
type message struct {
	ID    int
	Event string // ready, exit, assigned, removed, configured, keys, left, task, overlap, credentials, nodes
	Err   string
	Data  json.RawMessage
}

type childHooks struct{ send func(event string, data any) }

func (h childHooks) Keys(k []Key)                    { h.send("keys", k) }
func (h childHooks) NodeConfigured(s NodeState)      { h.send("configured", s) }
func (h childHooks) AttachmentAssigned(a Attachment) { h.send("assigned", a) }
func (h childHooks) AttachmentRemoved(id string)     { h.send("removed", id) }
func (h childHooks) Left()                           { h.send("left", nil) }

func (h childHooks) NodesRemoved(nodes map[string]time.Time)    { h.send("nodes", nodes) }
func (h childHooks) CredentialsChanged(cred crypto.Credentials) { h.send("credentials", testify(cred)) }

func childMain(conf string) int {
	var cfg Config
	if err := json.Unmarshal([]byte(conf), &cfg); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	if err := mountSmallDisk(cfg.StateDir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	var mu sync.Mutex
	enc := json.NewEncoder(os.Stdout)
	write := func(id int, event string, err error, data any) {
		m := message{ID: id, Event: event}
		if err != nil {
			m.Err = err.Error()
		}
		m.Data, _ = json.Marshal(data)
		mu.Lock()
		defer mu.Unlock()
		_ = enc.Encode(m)
	}
	hooks := childHooks{func(event string, data any) { write(0, event, nil, data) }}
	cfg.Hooks, cfg.Trust = hooks, hooks
	if maps.Equal(cfg.Labels, withTasks) {
		cfg.Tasks = newFakeRunner(tasksDir(cfg), func(event string, data any) { write(0, event, nil, data) })
		cfg.CheckPorts = checkPorts()
	}
	cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer cancel()
	if maps.Equal(cfg.Labels, asDocker) {
		return dockerMain(ctx, cfg, write)
	}
	start := time.Now()
	c, err := New(cfg)
	if err != nil {
		write(0, "exit", err, nil)
		return 1
	}
	go func() {
		select {
		case <-c.Ready():
			write(0, "ready", nil, time.Since(start))
		case <-ctx.Done():
		}
	}()
	go serveChild(ctx, c, write)
	err = c.Run(ctx)
	time.Sleep(100 * time.Millisecond) // what ends asynchronously may do so
	write(0, "exit", err, runtime.NumGoroutine())
	return 0
}

func serveChild(ctx context.Context, c *Cluster, write func(int, string, error, any)) {
	dec := json.NewDecoder(os.Stdin)
	for {
		var req request
		if err := dec.Decode(&req); err != nil {
			return
		}
		go func() {
			data, err := req.do(ctx, c)
			write(req.ID, "", err, data)
		}()
	}
}

func (req *request) do(ctx context.Context, c *Cluster) (any, error) {
	if req.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, req.Timeout)
		defer cancel()
	}
	switch req.Op {
	case "attach":
		return c.AttachNetwork(ctx, req.Container, req.Target, req.Addrs)
	case "detach":
		return nil, c.DetachNetwork(ctx, req.Target)
	case "attachments":
		return c.Attachments(), nil
	case "create":
		id, warning, err := c.CreateNetwork(ctx, req.Create)
		return []string{id, warning}, err
	case "network":
		return c.GetNetwork(ctx, req.Target)
	case "networks":
		return c.GetNetworks(ctx)
	case "rm":
		return nil, c.RemoveNetwork(ctx, req.Target)
	case "node":
		return c.GetNode(req.Target)
	case "nodes":
		return c.GetNodes(swarmbackend.NodeListOptions{})
	case "rmnode":
		return nil, c.RemoveNode(req.Target, req.Force)
	case "role":
		n, err := c.GetNode(req.Target)
		if err != nil {
			return nil, err
		}
		n.Spec.Role = req.Role
		return nil, c.UpdateNode(n.ID, n.Version.Index, n.Spec)
	case "swarm":
		return c.Inspect()
	case "rotate":
		sw, err := c.Inspect()
		if err != nil {
			return nil, err
		}
		return nil, c.Update(sw.Version.Index, sw.Spec, swarmbackend.UpdateFlags{RotateWorkerToken: true})
	case "rotate-root":
		sw, err := c.Inspect()
		if err != nil {
			return nil, err
		}
		sw.Spec.CAConfig.ForceRotate++
		return nil, c.Update(sw.Version.Index, sw.Spec, swarmbackend.UpdateFlags{})
	case "credentials":
		cred, err := c.Credentials()
		if err != nil {
			return nil, err
		}
		return testify(cred), nil
	case "autolock":
		sw, err := c.Inspect()
		if err != nil {
			return nil, err
		}
		sw.Spec.EncryptionConfig.AutoLockManagers = true
		return nil, c.Update(sw.Version.Index, sw.Spec, swarmbackend.UpdateFlags{})
	case "info":
		return c.Info(ctx), nil
	case "status":
		return c.Status(), nil
	case "events":
		return firstEvents(ctx, c), nil
	case "init":
		return c.Init(req.Init)
	case "join":
		return nil, c.Join(req.Join)
	case "leave":
		return nil, c.Leave(ctx, req.Force)
	}
	return req.doService(ctx, c)
}

// firstEvents collects events, as "type action name", until ctx ends.
func firstEvents(ctx context.Context, c *Cluster) []string {
	var out []string
	for m := range c.WatchEvents(ctx) {
		out = append(out, fmt.Sprintf("%s %s %s", m.Type, m.Action, m.Actor.Attributes["name"]))
	}
	return out
}

// A child is one node under test.
type child struct {
	t     *testing.T
	name  string
	cfg   Config
	cmd   *exec.Cmd
	stdin io.WriteCloser

	mu      sync.Mutex
	nextID  int
	msgs    []message
	changed chan struct{}
	gone    chan struct{} // closed when the process has ended
}

// testPort is a TCP port free on all of 127.0.0.0/8 a moment ago.
func testPort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort().Port()
}

// testConfig is a node at ip in a fresh state folder.
func testConfig(t *testing.T, ip string, port uint16) Config {
	t.Helper()
	dir := t.TempDir()
	addr := netip.AddrPortFrom(netip.MustParseAddr(ip), port)
	return Config{
		StateDir:      filepath.Join(dir, "state"),
		ControlSocket: filepath.Join(dir, "run", "swarm.sock"),
		Hostname:      "node-" + ip[strings.LastIndexByte(ip, '.')+1:],
		EngineVersion: "test",
		ListenAddr:    addr,
		AdvertiseAddr: addr,
	}
}

// startChild starts a node; it is killed at the test's end.
func startChild(t *testing.T, cfg Config) *child {
	t.Helper()
	return startChildWith(t, cfg, &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL})
}

func startChildWith(t *testing.T, cfg Config, attr *syscall.SysProcAttr) *child {
	t.Helper()
	conf, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	c := &child{t: t, name: cfg.Hostname, cfg: cfg, changed: make(chan struct{}), gone: make(chan struct{})}
	c.cmd = exec.Command("/proc/self/exe", "-test.run=^$")
	c.cmd.Env = append(os.Environ(), childEnv+"="+string(conf))
	c.cmd.Stderr = &testLog{t: t, prefix: cfg.Hostname}
	c.cmd.SysProcAttr = attr
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go c.read(stdout)
	t.Cleanup(c.kill)
	return c
}

func (c *child) read(stdout io.Reader) {
	dec := json.NewDecoder(bufio.NewReader(stdout))
	for {
		var m message
		if err := dec.Decode(&m); err != nil {
			break
		}
		c.mu.Lock()
		c.msgs = append(c.msgs, m)
		close(c.changed)
		c.changed = make(chan struct{})
		c.mu.Unlock()
	}
	_ = c.cmd.Wait()
	close(c.gone)
}

// await waits for a message that match accepts.
func (c *child) await(what string, timeout time.Duration, match func(message) bool) message {
	c.t.Helper()
	m, ok := c.tryAwait(timeout, match)
	if !ok {
		c.t.Fatalf("%s: no %s within %v", c.name, what, timeout)
	}
	return m
}

func (c *child) tryAwait(timeout time.Duration, match func(message) bool) (message, bool) {
	deadline := time.After(timeout)
	seen := 0
	for {
		c.mu.Lock()
		msgs, changed := c.msgs[seen:], c.changed
		seen = len(c.msgs)
		c.mu.Unlock()
		for _, m := range msgs {
			if match(m) {
				return m, true
			}
		}
		select {
		case <-changed:
		case <-deadline:
			return message{}, false
		case <-c.gone:
			c.mu.Lock()
			ended := seen == len(c.msgs)
			c.mu.Unlock()
			if ended {
				return message{}, false
			}
		}
	}
}

func (c *child) event(name string) message {
	c.t.Helper()
	return c.await(name, 20*time.Second, func(m message) bool { return m.ID == 0 && m.Event == name })
}

// ready waits for the node to be ready and fails if it ends instead.
func (c *child) ready() *child {
	c.t.Helper()
	m := c.await("ready", 30*time.Second, func(m message) bool { return m.Event == "ready" || m.Event == "exit" })
	if m.Event == "exit" {
		c.t.Fatalf("%s ended: %s", c.name, m.Err)
	}
	var took time.Duration
	_ = json.Unmarshal(m.Data, &took)
	c.t.Logf("%s ready after %v", c.name, took)
	return c
}

// call makes a request and returns its answer and error text.
func (c *child) call(req request, out any) string {
	c.t.Helper()
	c.mu.Lock()
	c.nextID++
	req.ID = c.nextID
	err := json.NewEncoder(c.stdin).Encode(req)
	c.mu.Unlock()
	if err != nil {
		c.t.Errorf("%s: %v", c.name, err)
		return err.Error()
	}
	m := c.await("answer to "+req.Op, 60*time.Second, func(m message) bool { return m.ID == req.ID })
	if m.Err == "" && out != nil {
		if err := json.Unmarshal(m.Data, out); err != nil {
			c.t.Fatalf("%s: %s: %v", c.name, req.Op, err)
		}
	}
	return m.Err
}

// must is call, and fails the test on an error.
func (c *child) must(req request, out any) {
	c.t.Helper()
	if err := c.call(req, out); err != "" {
		c.t.Fatalf("%s: %s: %s", c.name, req.Op, err)
	}
}

// kill ends the node as kill -9 does.
func (c *child) kill() {
	_ = c.cmd.Process.Kill()
	<-c.gone
}

// stop ends the node as `ovnd down` does and returns Run's error and the
// number of goroutines left.
func (c *child) stop() (string, int) {
	c.t.Helper()
	_ = c.cmd.Process.Signal(syscall.SIGTERM)
	m := c.await("end", 30*time.Second, func(m message) bool { return m.Event == "exit" })
	<-c.gone
	var goroutines int
	_ = json.Unmarshal(m.Data, &goroutines)
	return m.Err, goroutines
}

// exited waits for a node that cannot start and returns why.
func (c *child) exited() string {
	c.t.Helper()
	m := c.await("end", 40*time.Second, func(m message) bool { return m.Event == "exit" })
	<-c.gone
	return m.Err
}

// again starts the node from its state once more.
func (c *child) again() *child {
	c.t.Helper()
	<-c.gone
	cfg := c.cfg
	cfg.JoinAddr, cfg.JoinToken = "", ""
	return startChild(c.t, cfg)
}

// join is testConfig of a node that joins manager.
func (c *child) join(ip string, role swarm.NodeRole) Config {
	c.t.Helper()
	var sw swarm.Swarm
	c.must(request{Op: "swarm"}, &sw)
	cfg := testConfig(c.t, ip, c.cfg.ListenAddr.Port())
	cfg.Labels = c.cfg.Labels
	cfg.JoinAddr, cfg.JoinToken = c.cfg.AdvertiseAddr.String(), sw.JoinTokens.Worker
	if role == swarm.NodeRoleManager {
		cfg.JoinToken = sw.JoinTokens.Manager
	}
	return cfg
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, timeout time.Duration, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(timeout); !cond(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, timeout)
		}
	}
}

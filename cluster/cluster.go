package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/swarmkit/v2/agent/configs"
	"github.com/moby/swarmkit/v2/agent/exec"
	"github.com/moby/swarmkit/v2/agent/secrets"
	"github.com/moby/swarmkit/v2/ca"

	"github.com/ovnd/ovnd/discovery/directory"
)

const (
	// requestTimeout bounds one request to the control API, as in dockerd.
	requestTimeout = 20 * time.Second
	// joinTimeout bounds the wait for a join; dockerd waits as long.
	joinTimeout = 20 * time.Second
	// restoreGrace is how long a restarted node waits for its manager before
	// it counts as up without one: its sandboxes need it now.
	restoreGrace      = 2 * time.Second
	certRetryInterval = 200 * time.Millisecond
	// stopTimeout bounds a graceful stop of the SwarmKit node.
	stopTimeout = 15 * time.Second

	maxSocketPath = 107 // sun_path less its NUL, unix(7)
)

// A Config says how the cluster side of a node runs. Only StateDir,
// ControlSocket and Hooks must be set.
type Config struct {
	// StateDir is for this package alone: leaving the swarm empties it. It is
	// made with mode 0700. A manager's raft log takes 16 MB in it at once.
	StateDir string
	// ControlSocket is the path of SwarmKit's control API, which asks for no
	// credentials: it must lie in a folder of mode 0700. At most 107 bytes.
	ControlSocket string

	Hostname      string // shown by `node ls`; empty: the host's name
	EngineVersion string // shown by `node ls`
	// Labels are this node's engine labels; placement constraints see them as
	// engine.labels. LabelOvnd and LabelAddr are added.
	Labels map[string]string

	// ListenAddr is what a manager's TCP port binds and AdvertiseAddr what
	// other nodes connect to. Each follows the other where it is zero; both
	// zero: the address of the default route, port 2377.
	ListenAddr, AdvertiseAddr netip.AddrPort
	DataPathAddr              netip.Addr // zero: the address of AdvertiseAddr
	// DataPathPort is the UDP port of VXLAN in a new swarm; 0: 4789. A node
	// that joins takes the swarm's, see [Cluster.DataPathPort].
	DataPathPort uint16

	// JoinAddr (host:port) and JoinToken make a node without state join a
	// swarm; without them it starts one. A node with state ignores them.
	JoinAddr, JoinToken string
	Availability        swarm.NodeAvailability // at first; empty: active

	// DefaultAddrPool and SubnetSize say where a new swarm takes subnets
	// from; empty: 10.0.0.0/8 cut in /24s.
	DefaultAddrPool []netip.Prefix
	SubnetSize      uint32

	Hooks Hooks
	Trust TrustHooks // nil: nobody asks
	// Tasks runs the tasks of services. Without it this node refuses them, and
	// the creation of services.
	Tasks TaskRunner
	// CheckPorts says why this node cannot publish ports, before a service is
	// created that wants them; nil: nobody asks.
	CheckPorts func([]directory.Port) error `json:"-"`
	Log        *slog.Logger                 // nil: slog.Default
}

// Hooks tell the node what the swarm decided. They are called from SwarmKit's
// goroutines, one at a time for each kind, and must not block for long nor
// call Init, Join, Leave or Run.
type Hooks interface {
	// Keys brings the swarm's symmetric keys, all of them, at first and at
	// each rotation. The slices are the callee's.
	Keys([]Key)
	// NodeConfigured brings what the swarm gave this node, at first and at
	// each change.
	NodeConfigured(NodeState)
	// AttachmentAssigned brings a network attachment that runs now, once for
	// each task in the life of this process.
	AttachmentAssigned(Attachment)
	// AttachmentRemoved tells that the attachment is over: detached, or taken
	// away by the swarm, or the node stops.
	AttachmentRemoved(taskID string)
	// Left tells that this node is in no swarm any more, and its keys,
	// networks and peers are void.
	Left()
}

// A Key is one of the swarm's symmetric keys.
type Key struct {
	Subsystem string // SubsystemGossip or SubsystemIPsec
	Tag       uint64 // Lamport time: orders keys by age
	Key       []byte // 16 bytes
}

// Subsystems that keys are for, as SwarmKit names them.
const (
	SubsystemGossip = "networking:gossip"
	SubsystemIPsec  = "networking:ipsec"
)

// A NodeState is what the managers gave this node.
type NodeState struct {
	NodeID       string
	DataPathPort uint16 // of VXLAN, UDP
	// LoadBalancers are the networks that this node has tasks on, and the
	// ingress network, each with this node's own address on it.
	LoadBalancers []LoadBalancer
}

// A LoadBalancer is this node's own endpoint on a network (Docker's
// lb-<network> and ingress-sbox).
type LoadBalancer struct {
	Network Network
	Addr    netip.Prefix // with the subnet's length
}

// A Cluster is the swarm side of a node. Its methods are safe for concurrent
// use once Run has been called.
type Cluster struct {
	cfg   Config
	log   *slog.Logger
	state *stateDir
	ready chan struct{}

	attachments *attachments
	tasks       taskSet
	// What managers sent for the tasks of this node; kept in memory alone.
	secrets exec.SecretsManager
	configs exec.ConfigsManager
	// logTurn is held while a log message goes to a manager.
	logTurn sync.Mutex
	// trust is held while a TrustHooks call may speak of the swarm.
	trust sync.Mutex

	// control serialises what starts and stops the SwarmKit node.
	control sync.Mutex

	mu        sync.RWMutex
	askedCtx  context.Context // of Run's caller; nil before Run
	runCtx    context.Context // outlives askedCtx by the shutdown; nil before and after
	runner    *runner         // nil: in no swarm
	nodeState NodeState
	changed   chan struct{} // closed and replaced when runner, its connection or nodeState changes
}

// New opens the state folder and prepares a Cluster; nothing is bound before
// Run. Close gives up one that is never run.
func New(cfg Config) (*Cluster, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Hostname == "" {
		cfg.Hostname, _ = os.Hostname()
	}
	if n := len(cfg.ControlSocket); n > maxSocketPath {
		return nil, fmt.Errorf("socket path %s has %d bytes, a unix socket's may have %d: choose a shorter --state-dir", cfg.ControlSocket, n, maxSocketPath)
	}
	if err := checkDataPathPort(uint32(cfg.DataPathPort)); err != nil {
		return nil, err
	}
	if err := checkAddrPool(cfg.DefaultAddrPool, cfg.SubnetSize); err != nil {
		return nil, err
	}
	if !inProcess.CompareAndSwap(false, true) {
		return nil, errors.New("a process runs one Cluster, and one is there already")
	}
	c, err := newCluster(cfg)
	if err != nil {
		inProcess.Store(false)
	}
	return c, err
}

// inProcess is set while the process has a Cluster.
var inProcess atomic.Bool

func newCluster(cfg Config) (*Cluster, error) {
	if err := privateDir(filepath.Dir(cfg.ControlSocket)); err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	state, err := openState(cfg.StateDir)
	if err != nil {
		return nil, err
	}
	routeLogs(cfg.Log)
	// SwarmKit asks five times for its first certificate, whatever the answer
	// was. Waits of two seconds are too long for a user with a wrong token;
	// for a manager that is away, the runner waits longer anyway.
	ca.GetCertRetryInterval = certRetryInterval
	c := &Cluster{
		cfg:     cfg,
		log:     cfg.Log,
		state:   state,
		ready:   make(chan struct{}),
		changed: make(chan struct{}),
		secrets: secrets.NewManager(),
		configs: configs.NewManager(),
	}
	c.attachments = newAttachments(c)
	return c, nil
}

// Close releases the state folder of a Cluster that was not run.
func (c *Cluster) Close() {
	c.state.close()
	inProcess.Store(false)
}

// Ready is closed when the node is a member of its swarm and its API answers.
// A node that restarts from its state is also ready once no manager has
// answered for two seconds: its tasks are restored and run on without one.
func (c *Cluster) Ready() <-chan struct{} { return c.ready }

// Run runs the node until ctx ends: it restarts what the state folder holds,
// else joins, else starts a swarm of one node. It returns nil when ctx ended,
// and an error if the node could not start; a node that fails later is started
// again with growing delays. When ctx ends, Run gives back this node's
// addresses and stops SwarmKit gracefully. Run may be called once.
func (c *Cluster) Run(ctx context.Context) error {
	defer c.Close()
	// SwarmKit must outlive ctx for the addresses to be given back.
	runCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { c.attachments.releaseLoop(runCtx) })
	wg.Go(func() { c.reap(runCtx) })
	wg.Go(func() { c.keepRecord(runCtx) })
	if c.cfg.Trust != nil {
		wg.Go(func() { c.watchCredentials(runCtx) })
		wg.Go(func() { c.watchRemoved(runCtx) })
	}

	c.mu.Lock()
	c.askedCtx, c.runCtx = ctx, runCtx
	c.mu.Unlock()
	if err := c.startFirst(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	close(c.ready)
	<-ctx.Done()
	return c.shutdown()
}

// startFirst brings the node up as Config and state folder say.
func (c *Cluster) startFirst(ctx context.Context) error {
	c.control.Lock()
	defer c.control.Unlock()

	sc, restored, err := c.firstConfig()
	if err != nil {
		return err
	}
	if restored {
		return c.startRestored(ctx, sc)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, joinTimeout, c.joinTimeoutError(sc.joinAddr))
	defer cancel()
	r, err := c.start(ctx, sc)
	if err != nil {
		return err
	}
	if err := r.waitReady(ctx); err != nil {
		return errors.Join(err, c.abandon(r))
	}
	if sc.joinAddr != "" {
		return nil
	}
	spec := swarm.Spec{Dispatcher: swarm.DispatcherConfig{HeartbeatPeriod: heartbeatPeriod}}
	if err := c.applySpec(ctx, spec); err != nil {
		return errors.Join(err, c.abandon(r))
	}
	return nil
}

func (c *Cluster) joinTimeoutError(joinAddr string) error {
	if joinAddr == "" {
		return fmt.Errorf("the swarm did not start within %v", joinTimeout)
	}
	return fmt.Errorf("timeout was reached before node joined: no manager answered at %s within %v: check the address, that the manager runs, and that TCP port %s is open", joinAddr, joinTimeout, portOf(joinAddr))
}

// firstConfig says how to start, and whether from state.
func (c *Cluster) firstConfig() (sc startConfig, restored bool, err error) {
	restored, err = c.state.member()
	if err != nil {
		return sc, false, fmt.Errorf("state folder: %w", err)
	}
	if restored {
		if sc, err = c.state.load(); err != nil {
			return sc, true, err
		}
		if c.cfg.JoinAddr != "" {
			c.log.Info("restarting as a member of the swarm in the state folder; --join is not needed", "state", c.state.path)
		}
		sc.joinAddr, sc.Joining = sc.Joining, ""
		if err = sc.follow(&c.cfg, cmp.Or(sc.joinAddr, c.state.otherPeer(sc.AdvertiseAddr))); err != nil {
			return sc, true, err
		}
		if sc.former.IsValid() {
			c.log.Info("this node has another address than when it ran last", "address", sc.AdvertiseAddr, "former", sc.former)
		}
	} else {
		// What an interrupted first start left behind is of no use.
		if err := c.state.clear(); err != nil {
			return sc, false, fmt.Errorf("state folder: %w", err)
		}
		sc.joinToken = c.cfg.JoinToken
		if c.cfg.JoinAddr != "" {
			sc.joinAddr = withPort(c.cfg.JoinAddr)
		}
		sc.DataPathPort = c.cfg.DataPathPort
		sc.availability = c.cfg.Availability
		sc.addrPool, sc.subnetSize = c.cfg.DefaultAddrPool, c.cfg.SubnetSize
		c.overrideAddrs(&sc)
	}
	return sc, restored, sc.completeAddrs()
}

// overrideAddrs sets the addresses that the process was started with.
func (c *Cluster) overrideAddrs(sc *startConfig) {
	if c.cfg.ListenAddr.Addr().IsValid() {
		sc.ListenAddr = c.cfg.ListenAddr
	}
	if c.cfg.AdvertiseAddr.Addr().IsValid() {
		sc.AdvertiseAddr = c.cfg.AdvertiseAddr
	}
	if c.cfg.DataPathAddr.IsValid() {
		sc.DataPathAddr = c.cfg.DataPathAddr
	}
}

func (c *Cluster) startRestored(ctx context.Context, sc startConfig) error {
	r, err := c.start(ctx, sc)
	if err != nil {
		return err
	}
	grace, cancel := context.WithTimeout(ctx, restoreGrace)
	defer cancel()
	err = r.waitReady(grace)
	if err != nil && grace.Err() != nil && ctx.Err() == nil {
		c.log.Warn("no manager answers yet: running on what this node knows", "managers", c.Remotes())
		r.keepTrying()
		return nil
	}
	if err != nil {
		return errors.Join(err, c.stopRunner(r))
	}
	return nil
}

// startContext bounds an Init or Join, which also ends when the node is asked
// to stop.
func (c *Cluster) startContext(timeout error) (context.Context, context.CancelFunc) {
	c.mu.RLock()
	parent := c.askedCtx
	c.mu.RUnlock()
	if parent == nil {
		parent = context.Background() // start will refuse
	}
	return context.WithTimeoutCause(parent, joinTimeout, timeout)
}

// start makes the runner the cluster's own.
func (c *Cluster) start(ctx context.Context, sc startConfig) (*runner, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	becomesManager := sc.joinAddr == ""
	if becomesManager {
		if err := c.state.checkSpace(); err != nil {
			return nil, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.runCtx == nil {
		return nil, errors.New("the node is not running")
	}
	c.nodeState = NodeState{DataPathPort: sc.DataPathPort}
	c.tasks.begin()
	c.runner = newRunner(c, sc)
	c.wakeLocked()
	go c.runner.supervise(c.runCtx)
	return c.runner, nil
}

// abandon ends a first start or join that failed, so that the next one finds
// an empty folder.
func (c *Cluster) abandon(r *runner) error {
	return errors.Join(c.stopRunner(r), c.state.clear())
}

// stopRunner stops r, and the tasks before; the node is in no swarm afterwards.
func (c *Cluster) stopRunner(r *runner) error {
	c.EndTasks(context.Background())
	err := r.stop()
	c.mu.Lock()
	c.runner = nil
	c.wakeLocked()
	c.mu.Unlock()
	return err
}

func (c *Cluster) shutdown() error {
	c.control.Lock()
	defer c.control.Unlock()
	c.mu.Lock()
	r := c.runner
	c.runCtx = nil
	c.mu.Unlock()
	if r == nil {
		return nil
	}
	c.EndTasks(context.Background())
	c.attachments.detachAll()
	return c.stopRunner(r)
}

// wakeLocked tells waiters that the runner, its connection or what the managers
// gave this node changed.
func (c *Cluster) wakeLocked() {
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *Cluster) wake() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wakeLocked()
}

// current is the runner, or nil in no swarm, and the channel that closes when
// that or its connection changes.
func (c *Cluster) current() (*runner, <-chan struct{}) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.runner, c.changed
}

// NodeID is this node's ID in the swarm, or empty in none.
func (c *Cluster) NodeID() string {
	r, _ := c.current()
	return r.nodeID()
}

// IsManager says whether this node can read and change the swarm's state.
func (c *Cluster) IsManager() bool {
	r, _ := c.current()
	return r.snapshot().control != nil
}

// Remotes are the host:port addresses of the managers but this node.
func (c *Cluster) Remotes() []string {
	r, _ := c.current()
	return r.remotes()
}

// Addrs are the addresses that this node uses in its swarm; zero in none.
func (c *Cluster) Addrs() (listen, advertise netip.AddrPort, dataPath netip.Addr) {
	r, _ := c.current()
	if r == nil {
		return listen, advertise, dataPath
	}
	sc := r.snapshot().config
	return sc.ListenAddr, sc.AdvertiseAddr, sc.DataPathAddr
}

// DataPathPort is the swarm's UDP port of VXLAN.
func (c *Cluster) DataPathPort() uint16 {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if p := c.nodeState.DataPathPort; p != 0 {
		return p
	}
	return defaultDataPathPort
}

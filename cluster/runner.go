package cluster

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/moby/moby/v2/daemon/libnetwork/cnmallocator"
	swarmapi "github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/manager/allocator/networkallocator"
	swarmnode "github.com/moby/swarmkit/v2/node"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

const (
	minRestartDelay = 100 * time.Millisecond
	maxRestartDelay = 30 * time.Second

	// Raft ticks are seconds; SwarmKit asks for an election tick of ten
	// heartbeats, and the two are the defaults of a swarm's spec.
	heartbeatTick = 1
	electionTick  = 10
)

// A runner keeps one SwarmKit node running, from the moment this node becomes
// a member of a swarm until it stops or leaves.
type runner struct {
	c       *Cluster
	stopped chan struct{} // closed to ask supervise to end
	done    chan struct{} // closed when supervise has ended
	ready   chan struct{} // closed at the first time that the node is ready

	readyOnce sync.Once
	stopOnce  sync.Once
	stopErr   error // valid after done

	mu      sync.RWMutex
	st      runnerState
	settled bool // the node was ready, or need not be: failures are retried
}

// A runnerState is one moment of a runner.
type runnerState struct {
	config  startConfig
	id      string           // of this node; empty until it is known
	node    *swarmnode.Node  // nil between two starts
	conn    *grpc.ClientConn // to the local manager; nil on a worker
	control swarmapi.ControlClient
	ready   bool  // the node running now has been ready
	err     error // why the last one ended
}

func newRunner(c *Cluster, sc startConfig) *runner {
	return &runner{
		c:       c,
		stopped: make(chan struct{}),
		done:    make(chan struct{}),
		ready:   make(chan struct{}),
		st:      runnerState{config: sc},
	}
}

// snapshot is safe on a nil runner, which is in no swarm.
func (r *runner) snapshot() runnerState {
	if r == nil {
		return runnerState{}
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.st
}

// nodeID is cached: SwarmKit holds the lock of its own NodeID while it waits
// for tasks to end, and hooks may ask then.
func (r *runner) nodeID() string {
	st := r.snapshot()
	if st.id != "" || st.node == nil {
		return st.id
	}
	id := st.node.NodeID()
	r.mu.Lock()
	r.st.id = id
	r.mu.Unlock()
	return id
}

func (r *runner) remotes() []string {
	node := r.snapshot().node
	if node == nil {
		return nil
	}
	self := r.nodeID()
	var addrs []string
	for _, peer := range node.Remotes() {
		if peer.NodeID != self || self == "" {
			addrs = append(addrs, peer.Addr)
		}
	}
	slices.Sort(addrs)
	return addrs
}

// update changes the state and wakes those who wait for a change.
func (r *runner) update(f func(*runnerState)) {
	r.mu.Lock()
	f(&r.st)
	r.mu.Unlock()
	r.c.wake()
}

// keepTrying makes failures before the first ready one of those to retry.
func (r *runner) keepTrying() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.settled = true
}

// waitReady waits for the node to be ready the first time. It returns why it
// ended if it did before, and the cause of ctx's end if that comes first.
func (r *runner) waitReady(ctx context.Context) error {
	select {
	case <-r.ready:
		return nil
	case <-r.done:
		return r.snapshot().err
	case <-ctx.Done():
		if err := r.snapshot().err; err != nil {
			return fmt.Errorf("%w (last error: %w)", context.Cause(ctx), err)
		}
		return context.Cause(ctx)
	}
}

// stop stops the node gracefully and waits for it.
func (r *runner) stop() error {
	r.stopOnce.Do(func() { close(r.stopped) })
	<-r.done
	return r.stopErr
}

// supervise runs the node, again and again after failures once it is settled,
// until stop is called or ctx ends.
func (r *runner) supervise(ctx context.Context) {
	defer close(r.done)
	delay := minRestartDelay
	for {
		started := time.Now()
		err := r.runOnce(ctx)
		r.update(func(s *runnerState) { s.err = err })
		select {
		case <-r.stopped:
			r.stopErr = err
			return
		case <-ctx.Done():
			return
		default:
		}
		r.mu.RLock()
		settled := r.settled
		r.mu.RUnlock()
		if !settled && !managerAway(err) {
			return
		}
		if time.Since(started) > maxRestartDelay {
			delay = minRestartDelay
		}
		if settled {
			r.c.log.Warn("the swarm node ended and starts again", "error", err, "delay", delay)
		}
		select {
		case <-time.After(delay):
		case <-r.stopped:
			return
		case <-ctx.Done():
			return
		}
		delay = min(2*delay, maxRestartDelay)
	}
}

// runOnce runs one SwarmKit node from start to end.
func (r *runner) runOnce(ctx context.Context) error {
	sc := r.snapshot().config
	if err := r.c.state.forgetSelf(sc.AdvertiseAddr, sc.former); err != nil {
		return err
	}
	conf, err := r.nodeConfig(sc)
	if err != nil {
		return err
	}
	node, err := swarmnode.New(conf)
	if err != nil {
		return explain(err, sc)
	}
	if sc.joinAddr != "" {
		sc.Joining = sc.joinAddr
	}
	if err := r.c.state.save(sc); err != nil {
		return fmt.Errorf("state folder: %w", err)
	}
	// The node ends by Stop, not by a context: a cancelled context would cut
	// a manager's last raft messages.
	if err := node.Start(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	err = r.follow(ctx, node)
	r.update(func(s *runnerState) {
		if s.ready {
			// A promotion can pick, as the manager to join through, one that
			// is being demoted, and fail. A second try through the same one
			// would fail for ever: the node knows other managers by now.
			s.config.joinAddr, s.config.joinToken, s.config.forceNewCluster = "", "", false
		}
		s.node, s.conn, s.control, s.ready = nil, nil, nil, false
	})
	return explain(err, sc)
}

// follow keeps the runner's state in step with a node that was started, until
// it ends by itself or because the runner has to stop.
func (r *runner) follow(ctx context.Context, node *swarmnode.Node) error {
	r.update(func(s *runnerState) { s.node, s.ready = node, false })
	watchCtx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { r.watchReady(watchCtx, node) })
	wg.Go(func() { r.watchControl(watchCtx, node) })
	stopErr := make(chan error, 1)
	wg.Go(func() {
		select {
		case <-r.stopped:
		case <-ctx.Done():
		case <-watchCtx.Done():
			return
		}
		stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		stopErr <- node.Stop(stopCtx)
	})
	err := r.waitEnd(node, stopErr)
	cancel()
	wg.Wait()
	return err
}

// waitEnd waits for the node's end, or for its Stop to fail.
func (r *runner) waitEnd(node *swarmnode.Node, stopErr <-chan error) error {
	ended := make(chan error, 1)
	go func() { ended <- node.Err(context.Background()) }()
	select {
	case err := <-ended:
		return err
	case err := <-stopErr:
		if err != nil {
			return fmt.Errorf("the swarm node did not stop within %v: %w", stopTimeout, err)
		}
		<-ended // Stop returned because the node ended; its error is not news
		return nil
	}
}

func (r *runner) nodeConfig(sc startConfig) (*swarmnode.Config, error) {
	pool := make([]string, len(sc.addrPool))
	for i, p := range sc.addrPool {
		pool[i] = p.String()
	}
	subnetSize := sc.subnetSize
	if subnetSize == 0 {
		subnetSize = defaultSubnetSize
	}
	conf := &swarmnode.Config{
		Hostname:           r.c.cfg.Hostname,
		StateDir:           r.c.state.path,
		JoinAddr:           sc.joinAddr,
		JoinToken:          sc.joinToken,
		ForceNewCluster:    sc.forceNewCluster,
		ListenControlAPI:   r.c.cfg.ControlSocket,
		ListenRemoteAPI:    sc.ListenAddr.String(),
		AdvertiseRemoteAPI: sc.AdvertiseAddr.String(),
		NetworkProvider:    cnmallocator.NewProvider(nil),
		NetworkConfig: &networkallocator.Config{
			DefaultAddrPool: pool,
			SubnetSize:      subnetSize,
			VXLANUDPPort:    uint32(sc.DataPathPort),
		},
		Executor:      &executor{c: r.c, advertise: sc.AdvertiseAddr.Addr()},
		HeartbeatTick: heartbeatTick,
		ElectionTick:  electionTick,
	}
	if sc.availability != "" {
		a, ok := swarmapi.NodeSpec_Availability_value[strings.ToUpper(string(sc.availability))]
		if !ok {
			return nil, invalid("invalid Availability: %q", sc.availability)
		}
		conf.Availability = swarmapi.NodeSpec_Availability(a)
	}
	return conf, nil
}

func (r *runner) watchReady(ctx context.Context, node *swarmnode.Node) {
	select {
	case <-node.Ready():
	case <-ctx.Done():
		return
	}
	id := node.NodeID()
	r.mu.Lock()
	r.settled = true
	r.st.id, r.st.ready, r.st.err = id, true, nil
	r.st.config.Joining = ""
	sc := r.st.config
	r.mu.Unlock()
	if err := r.c.state.save(sc); err != nil {
		r.c.log.Warn("the addresses of this node could not be saved: after a restart give them on the command line", "error", err)
	}
	r.readyOnce.Do(func() { close(r.ready) })
	r.c.wake()
}

func (r *runner) watchControl(ctx context.Context, node *swarmnode.Node) {
	conns := node.ListenControlSocket(ctx)
	for {
		select {
		case conn, ok := <-conns:
			if !ok {
				return
			}
			r.update(func(s *runnerState) {
				s.conn, s.control = conn, nil
				if conn != nil {
					s.control = swarmapi.NewControlClient(conn)
				}
			})
		case <-ctx.Done():
			return // conns is closed late: only at the next change
		}
	}
}

// configured takes over what a manager told this node about itself.
func (r *runner) configured(id string, dataPathPort uint16) {
	r.mu.Lock()
	r.st.id = id
	sc := r.st.config
	fresh := sc.DataPathPort != dataPathPort
	r.st.config.DataPathPort = dataPathPort
	sc.DataPathPort = dataPathPort
	r.mu.Unlock()
	if !fresh {
		return
	}
	if err := r.c.state.save(sc); err != nil {
		r.c.log.Warn("the swarm's data path port could not be saved", "error", err)
	}
}

// explain turns the errors that users meet into ones that say what to do.
func explain(err error, sc startConfig) error {
	var cert x509.CertificateInvalidError
	switch {
	case err == nil || errors.Is(err, context.Canceled):
		return nil
	case errors.Is(err, swarmnode.ErrInvalidUnlockKey):
		return errSwarmLocked
	case errors.As(err, &cert) && cert.Reason == x509.Expired:
		return errCertExpired
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%s is in use: stop what listens there (another ovnd, or dockerd in swarm mode) or choose another address with --listen-addr: %w", sc.ListenAddr, err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%s is no address of this machine: correct --listen-addr: %w", sc.ListenAddr, err)
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("the state folder's disk is full: free space there: %w", err)
	}
	return err
}

// managerAway says whether a start failed because no manager answered, which
// the next try may find otherwise.
func managerAway(err error) bool {
	code := status.Code(err)
	return code == codes.Unavailable || code == codes.DeadlineExceeded
}

func portOf(hostport string) string {
	_, port, _ := net.SplitHostPort(hostport)
	return port
}

const (
	defaultDataPathPort = 4789 // RFC 7348 §8
	defaultSubnetSize   = 24
	// maxSubnetSize leaves eight addresses: of a smaller subnet, gateway and
	// the nodes' own endpoints leave none for tasks.
	maxSubnetSize = 29
)

func checkDataPathPort(port uint32) error {
	if port != 0 && (port < 1024 || port > 49151) {
		return invalid("Datapath port number is not in valid range (1024-49151) : %d", port)
	}
	return nil
}

func checkAddrPool(pool []netip.Prefix, size uint32) error {
	if size == 0 {
		size = defaultSubnetSize
	}
	if size > maxSubnetSize {
		return invalid("subnet size is out of range: %d", size)
	}
	for _, p := range pool {
		if !p.IsValid() || !p.Addr().Is4() {
			return invalid("default address pool %s: the swarm's allocator hands out IPv4 addresses only", p)
		}
		if size < uint32(p.Bits()) {
			return invalid("invalid CIDR: %q. Subnet size is too small for pool: %d", p, size)
		}
	}
	return nil
}

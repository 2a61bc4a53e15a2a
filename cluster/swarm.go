package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/v2/daemon/cluster/convert"
	"github.com/moby/moby/v2/daemon/server/swarmbackend"
	"github.com/moby/moby/v2/errdefs"
	swarmapi "github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/manager/encryption"
)

// Init starts a swarm with this node as its manager, if it is in none, and
// returns the node's ID.
func (c *Cluster) Init(req swarm.InitRequest) (string, error) {
	c.control.Lock()
	defer c.control.Unlock()
	if err := checkInit(&req); err != nil {
		return "", err
	}
	if r, _ := c.current(); r != nil {
		if !req.ForceNewCluster {
			return "", errSwarmExists
		}
		if r.snapshot().control == nil && !c.wasManager() {
			return "", errWorker
		}
		if err := c.stopRunner(r); err != nil {
			return "", err
		}
	}
	sc, err := c.requestAddrs(req.ListenAddr, req.AdvertiseAddr, req.DataPathAddr, "")
	if err != nil {
		return "", err
	}
	sc.DataPathPort = uint16(req.DataPathPort)
	sc.availability = req.Availability
	sc.addrPool, sc.subnetSize = req.DefaultAddrPool, req.SubnetSize
	sc.forceNewCluster = req.ForceNewCluster

	ctx, cancel := c.startContext(c.joinTimeoutError(""))
	defer cancel()
	r, err := c.start(ctx, sc)
	if err != nil {
		return "", err
	}
	if err := r.waitReady(ctx); err != nil {
		if req.ForceNewCluster { // the old state is worth keeping
			return "", errors.Join(err, c.stopRunner(r))
		}
		return "", errors.Join(err, c.abandon(r))
	}
	if !req.ForceNewCluster && req.Spec.Dispatcher.HeartbeatPeriod == 0 {
		req.Spec.Dispatcher.HeartbeatPeriod = heartbeatPeriod
	}
	return r.nodeID(), c.applySpec(ctx, req.Spec)
}

// heartbeatPeriod is how often the nodes of a new swarm tell a manager that
// they live, give or take half a second. The one that misses three is down and
// its tasks are replaced: at the earliest two periods after it died. With
// Docker's five seconds that is nine; a node that is back after ten must find
// its tasks.
const heartbeatPeriod = 6 * time.Second

func checkInit(req *swarm.InitRequest) error {
	if name := req.Spec.Name; name != "" && name != "default" {
		return invalid(`swarm spec must be named "default"`)
	}
	if req.AutoLockManagers || req.Spec.EncryptionConfig.AutoLockManagers {
		return errNoAutolock
	}
	if err := checkDataPathPort(req.DataPathPort); err != nil {
		return err
	}
	return checkAddrPool(req.DefaultAddrPool, req.SubnetSize)
}

// wasManager says whether the state folder has a raft log.
func (c *Cluster) wasManager() bool {
	return c.state.has("raft")
}

// requestAddrs reads the addresses of a request. What it leaves out is as the
// process was started with.
func (c *Cluster) requestAddrs(listen, advertise, dataPath, joinAddr string) (startConfig, error) {
	sc := startConfig{joinAddr: joinAddr}
	c.overrideAddrs(&sc)
	if listen != "" && (listen != dockerListenAddr || !sc.ListenAddr.IsValid()) {
		ap, err := ResolveAddr(listen, DefaultPort)
		if err != nil {
			return sc, fmt.Errorf("listen address: %w", err)
		}
		sc.ListenAddr = ap
	}
	if advertise != "" {
		ap, err := ResolveAddr(advertise, 0)
		if err != nil {
			return sc, fmt.Errorf("advertise address: %w", err)
		}
		if ap.Addr().IsUnspecified() {
			return sc, invalid("advertise address must be a non-zero IP address or network interface (with optional port number)")
		}
		sc.AdvertiseAddr = ap
	}
	if dataPath != "" {
		ap, err := ResolveAddr(dataPath, 0)
		if err != nil {
			return sc, fmt.Errorf("data path address: %w", err)
		}
		if ap.Port() != 0 || ap.Addr().IsUnspecified() {
			return sc, invalid("data path address must be a non-zero IP address or network interface (without a port number)")
		}
		sc.DataPathAddr = ap.Addr()
	}
	return sc, sc.completeAddrs()
}

// applySpec merges what the user said into the new swarm's spec.
func (c *Cluster) applySpec(ctx context.Context, spec swarm.Spec) error {
	_, err := onManager(ctx, c, func(ctx context.Context, ctl swarmapi.ControlClient) (*swarmapi.UpdateClusterResponse, error) {
		cl, err := waitSwarm(ctx, ctl)
		if err != nil {
			return nil, err
		}
		merged, err := convert.MergeSwarmSpecToGRPC(spec, cl.Spec)
		if err != nil {
			return nil, errdefs.InvalidParameter(err)
		}
		return ctl.UpdateCluster(ctx, &swarmapi.UpdateClusterRequest{
			ClusterID:      cl.ID,
			ClusterVersion: &cl.Meta.Version,
			Spec:           &merged,
		})
	})
	if err != nil {
		return fmt.Errorf("error updating cluster settings: %w", err)
	}
	return nil
}

// waitSwarm waits for the object that describes the swarm, which a new
// manager writes a moment after its API answers.
func waitSwarm(ctx context.Context, ctl swarmapi.ControlClient) (*swarmapi.Cluster, error) {
	for {
		cl, err := getSwarm(ctx, ctl)
		if err == nil || !errors.Is(err, errNoSwarm) {
			return cl, err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func getSwarm(ctx context.Context, ctl swarmapi.ControlClient) (*swarmapi.Cluster, error) {
	resp, err := ctl.ListClusters(ctx, &swarmapi.ListClustersRequest{})
	if err != nil {
		return nil, err
	}
	if len(resp.Clusters) == 0 {
		return nil, errNoSwarm
	}
	return resp.Clusters[0], nil
}

// Join makes this node, if it is in no swarm, a member of another one.
func (c *Cluster) Join(req swarm.JoinRequest) error {
	c.control.Lock()
	defer c.control.Unlock()
	if r, _ := c.current(); r != nil {
		return errSwarmExists
	}
	if len(req.RemoteAddrs) == 0 || req.RemoteAddrs[0] == "" {
		return invalid("at least 1 RemoteAddr is required to join")
	}
	sc, err := c.requestAddrs(req.ListenAddr, req.AdvertiseAddr, req.DataPathAddr, withPort(req.RemoteAddrs[0]))
	if err != nil {
		return err
	}
	sc.joinToken = req.JoinToken
	sc.availability = req.Availability

	ctx, cancel := c.startContext(errJoinTimeout)
	defer cancel()
	r, err := c.start(ctx, sc)
	if err != nil {
		return err
	}
	err = r.waitReady(ctx)
	switch {
	case errors.Is(err, errJoinTimeout):
		return err // as it says, the attempt goes on
	case err != nil:
		return errors.Join(err, c.abandon(r))
	}
	return nil
}

// Leave makes this node leave its swarm: it gives its addresses back, stops
// and forgets the swarm. A manager needs force.
func (c *Cluster) Leave(ctx context.Context, force bool) error {
	c.control.Lock()
	defer c.control.Unlock()
	r, _ := c.current()
	if r == nil {
		return errNoSwarm
	}
	if !force {
		if err := c.mayLeave(ctx, r); err != nil {
			return err
		}
	}
	c.EndTasks(ctx)
	c.attachments.detachAll()
	if err := c.stopRunner(r); err != nil {
		return err
	}
	c.attachments.reset()
	c.mu.Lock()
	c.nodeState = NodeState{}
	c.mu.Unlock()
	c.trustEnds()
	err := c.state.clear()
	c.cfg.Hooks.Left()
	return err
}

// mayLeave refuses, in Docker's words, to take a manager away.
func (c *Cluster) mayLeave(ctx context.Context, r *runner) error {
	st := r.snapshot()
	if st.node == nil || st.node.Manager() == nil {
		return nil
	}
	msg := "You are attempting to leave the swarm on a node that is participating as a manager. "
	if st.control != nil {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		active, reachable, unreachable, err := managerCounts(ctx, st.control, r.nodeID())
		if err == nil && active && reachable-2 <= unreachable { // the rest would lose the quorum
			if reachable == 1 && unreachable == 0 {
				return unavailable(msg + "Removing the last manager erases all current state of the swarm. Use `--force` to ignore this message. ")
			}
			msg += fmt.Sprintf("Removing this node leaves %v managers out of %v. Without a Raft quorum your swarm will be inaccessible. ", reachable-1, reachable+unreachable)
		}
	} else {
		msg += "Doing so may lose the consensus of your cluster. "
	}
	return unavailable(msg + "The only way to restore a swarm that has lost consensus is to reinitialize it with `--force-new-cluster`. Use `--force` to suppress this message.")
}

// Inspect describes the swarm, join tokens included.
func (c *Cluster) Inspect() (swarm.Swarm, error) {
	return onManager(context.Background(), c, func(ctx context.Context, ctl swarmapi.ControlClient) (swarm.Swarm, error) {
		cl, err := getSwarm(ctx, ctl)
		if err != nil {
			return swarm.Swarm{}, err
		}
		return convert.SwarmFromGRPC(*cl), nil
	})
}

// Update changes the swarm's settings and rotates what flags name; version is
// the one that the change is based on.
func (c *Cluster) Update(version uint64, spec swarm.Spec, flags swarmbackend.UpdateFlags) error {
	if spec.Name == "" {
		spec.Name = "default"
	} else if spec.Name != "default" {
		return invalid(`swarm spec must be named "default"`)
	}
	s, err := convert.SwarmSpecToGRPC(spec)
	if err != nil {
		return errdefs.InvalidParameter(err)
	}
	_, err = onManager(context.Background(), c, func(ctx context.Context, ctl swarmapi.ControlClient) (*swarmapi.UpdateClusterResponse, error) {
		cl, err := getSwarm(ctx, ctl)
		if err != nil {
			return nil, err
		}
		// A swarm may have it from a Docker manager.
		if s.EncryptionConfig.AutoLockManagers && !cl.Spec.EncryptionConfig.AutoLockManagers {
			return nil, errNoAutolock
		}
		return ctl.UpdateCluster(ctx, &swarmapi.UpdateClusterRequest{
			ClusterID:      cl.ID,
			Spec:           &s,
			ClusterVersion: &swarmapi.Version{Index: version},
			Rotation: swarmapi.KeyRotation{
				WorkerJoinToken:  flags.RotateWorkerToken,
				ManagerJoinToken: flags.RotateManagerToken,
				ManagerUnlockKey: flags.RotateManagerUnlockKey,
			},
		})
	})
	return err
}

// GetUnlockKey returns the key of a swarm with autolock, or an empty string.
func (c *Cluster) GetUnlockKey() (string, error) {
	if _, err := c.controlClient(); err != nil {
		return "", err
	}
	r, _ := c.current()
	conn := r.snapshot().conn
	if conn == nil {
		return "", errManagerNotReady
	}
	ctx, cancel := context.WithTimeout(context.Background(), requestTimeout)
	defer cancel()
	resp, err := swarmapi.NewCAClient(conn).GetUnlockKey(ctx, &swarmapi.GetUnlockKeyRequest{})
	if err != nil || len(resp.UnlockKey) == 0 {
		return "", err
	}
	return encryption.HumanReadableKey(resp.UnlockKey), nil
}

// UnlockSwarm has nothing to unlock: a locked node does not start.
func (c *Cluster) UnlockSwarm(swarm.UnlockRequest) error {
	if _, err := c.controlClient(); err != nil {
		return err
	}
	return errNotLocked
}

// Info is what `docker info` shows of the swarm.
func (c *Cluster) Info(ctx context.Context) swarm.Info {
	r, _ := c.current()
	st := r.snapshot()
	info := swarm.Info{LocalNodeState: localState(r, st), NodeID: r.nodeID()}
	if st.err != nil {
		info.Error = st.err.Error()
	}
	if r == nil {
		return info
	}
	info.NodeAddr = st.config.AdvertiseAddr.Addr().String()
	if st.node != nil {
		for _, p := range st.node.Remotes() {
			info.RemoteManagers = append(info.RemoteManagers, swarm.Peer{NodeID: p.NodeID, Addr: p.Addr})
		}
		slices.SortFunc(info.RemoteManagers, func(a, b swarm.Peer) int {
			return addrPort(a.Addr).Compare(addrPort(b.Addr))
		})
	}
	if st.control != nil {
		info.ControlAvailable = true
		if err := addManagerInfo(ctx, st.control, &info); err != nil {
			info.Error = err.Error()
		}
	}
	return info
}

func addManagerInfo(ctx context.Context, ctl swarmapi.ControlClient, info *swarm.Info) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	cl, err := getSwarm(ctx, ctl)
	if err != nil {
		return err
	}
	sw := convert.SwarmFromGRPC(*cl)
	info.Cluster = &sw.ClusterInfo
	resp, err := ctl.ListNodes(ctx, &swarmapi.ListNodesRequest{})
	if err != nil {
		return err
	}
	info.Nodes = len(resp.Nodes)
	for _, n := range resp.Nodes {
		if n.ManagerStatus != nil {
			info.Managers++
		}
	}
	if info.Managers == 2 {
		info.Warnings = append(info.Warnings, `WARNING: Running Swarm in a two-manager configuration. This configuration provides
         no fault tolerance, and poses a high risk to lose control over the cluster.
         Refer to https://docs.docker.com/engine/swarm/admin_guide/ to configure the
         Swarm for fault-tolerance.`)
	}
	return nil
}

func localState(r *runner, st runnerState) swarm.LocalNodeState {
	switch {
	case r == nil:
		return swarm.LocalNodeStateInactive
	case errors.Is(st.err, errSwarmLocked):
		return swarm.LocalNodeStateLocked
	case st.err != nil:
		return swarm.LocalNodeStateError
	case !st.ready:
		return swarm.LocalNodeStatePending
	}
	return swarm.LocalNodeStateActive
}

// Status is what `docker info` and the API's headers say in a word or two:
// inactive, pending, active/manager, active/worker, error, locked.
func (c *Cluster) Status() string {
	r, _ := c.current()
	st := r.snapshot()
	state := localState(r, st)
	switch {
	case state != swarm.LocalNodeStateActive:
		return string(state)
	case st.node != nil && st.node.Manager() != nil:
		return string(state) + "/manager"
	}
	return string(state) + "/worker"
}

func addrPort(s string) netip.AddrPort {
	ap, _ := netip.ParseAddrPort(s)
	return ap
}

package cluster

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"runtime"
	"strconv"

	"github.com/moby/swarmkit/v2/agent/exec"
	swarmapi "github.com/moby/swarmkit/v2/api"
	"golang.org/x/sys/unix"
)

// Engine labels that every ovnd node has.
const (
	// LabelOvnd is "true". In a swarm with Docker nodes, services constrained
	// by engine.labels.ovnd!=true stay on those.
	LabelOvnd = "ovnd"
	// LabelAddr is the address that the node advertises. Managers know a node
	// by the source address of its connection, which on one machine is
	// 127.0.0.1 for all.
	LabelAddr = "ovnd.addr"
	// LabelPortStart is the lowest port that the node may publish, its
	// net.ipv4.ip_unprivileged_port_start, or 0 where that does not bind it.
	LabelPortStart = "ovnd.port-start"
)

// An executor is the agent's side of this node (SwarmKit's exec.Executor).
type executor struct {
	c         *Cluster
	advertise netip.Addr
}

// Describe tells the managers what this node is. The agent asks every 20 s
// and opens a new session if the answer changed.
func (e *executor) Describe(context.Context) (*swarmapi.NodeDescription, error) {
	labels := maps.Clone(e.c.cfg.Labels)
	if labels == nil {
		labels = make(map[string]string)
	}
	labels[LabelOvnd] = "true"
	labels[LabelAddr] = e.advertise.String()
	labels[LabelPortStart] = strconv.Itoa(int(lowestPort()))
	d := e.nodeDescription()
	d.Engine = &swarmapi.EngineDescription{
		EngineVersion: e.c.cfg.EngineVersion,
		Labels:        labels,
		// The scheduler places a task only where the plugins are that its
		// networks and its log driver name.
		Plugins: []swarmapi.PluginDescription{
			{Type: "Log", Name: "json-file"},
			{Type: "Log", Name: "local"},
			{Type: "Network", Name: bridgeNetwork},
			{Type: "Network", Name: overlayDriver},
		},
	}
	d.Resources = &swarmapi.Resources{
		NanoCPUs:    int64(runtime.NumCPU()) * 1e9,
		MemoryBytes: totalMemory(),
	}
	return d, nil
}

// nodeDescription is what the templates of a task may say of its node.
func (e *executor) nodeDescription() *swarmapi.NodeDescription {
	return &swarmapi.NodeDescription{
		Hostname: e.c.cfg.Hostname,
		Platform: &swarmapi.Platform{Architecture: machine(), OS: runtime.GOOS},
	}
}

// Configure takes what the managers gave this node.
func (e *executor) Configure(_ context.Context, node *swarmapi.Node) error {
	st := NodeState{NodeID: node.ID, DataPathPort: defaultDataPathPort}
	if p := node.VXLANUDPPort; p > 0 && p <= 0xffff {
		st.DataPathPort = uint16(p)
	}
	attached := node.Attachments
	if len(attached) == 0 && node.Attachment != nil { // from a manager before Docker 18.09
		attached = []*swarmapi.NetworkAttachment{node.Attachment}
	}
	for _, na := range attached {
		if na == nil || na.Network == nil || len(na.Addresses) == 0 {
			continue // not allocated yet: the next message has it
		}
		nw, err := networkFromAPI(na.Network)
		if err != nil {
			e.c.log.Warn("this node cannot take part in a network", "error", err)
			continue
		}
		addrs, err := prefixesFromAPI(na.Addresses[:1])
		if err != nil {
			return err
		}
		st.LoadBalancers = append(st.LoadBalancers, LoadBalancer{Network: nw, Addr: addrs[0]})
	}

	e.c.mu.Lock()
	e.c.nodeState = st
	e.c.wakeLocked()
	r := e.c.runner
	e.c.mu.Unlock()
	if r != nil {
		r.configured(st.NodeID, st.DataPathPort)
	}
	e.c.cfg.Hooks.NodeConfigured(st)
	return nil
}

// SetNetworkBootstrapKeys takes the swarm's symmetric keys.
func (e *executor) SetNetworkBootstrapKeys(keys []*swarmapi.EncryptionKey) error {
	out := make([]Key, len(keys))
	for i, k := range keys {
		out[i] = Key{Subsystem: k.Subsystem, Tag: k.LamportTime, Key: append([]byte(nil), k.Key...)}
	}
	e.c.cfg.Hooks.Keys(out)
	return nil
}

// Controller makes the controller of a task. An error rejects the task. The
// agent's tables are locked meanwhile, so nothing here waits.
func (e *executor) Controller(t *swarmapi.Task) (exec.Controller, error) {
	if spec := t.Spec.GetAttachment(); spec != nil {
		return &attachmentController{
			set:         e.c.attachments,
			task:        t.Copy(),
			containerID: spec.ContainerID,
			// A task that had got this far belongs to a life of the node before
			// this one.
			restored: t.Status.State >= swarmapi.TaskStateStarting,
		}, nil
	}
	if e.c.cfg.Tasks == nil {
		return nil, fmt.Errorf("this node runs ovnd without tasks: constrain the service with engine.labels.%s!=true", LabelOvnd)
	}
	t = t.Copy()
	task, err := taskFromAPI(t, e.nodeDescription())
	if err != nil {
		return nil, err
	}
	tc := newTaskController(e, t, task)
	e.c.tasks.add(tc)
	return tc, nil
}

// machine is the hardware name, as Docker shows it (x86_64).
func machine() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return runtime.GOARCH
	}
	return unix.ByteSliceToString(u.Machine[:])
}

func totalMemory() int64 {
	var si unix.Sysinfo_t
	if err := unix.Sysinfo(&si); err != nil {
		return 0
	}
	return int64(si.Totalram * uint64(si.Unit))
}

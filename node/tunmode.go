package node

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"strconv"
	"time"

	"github.com/ovnd/ovnd/api/types"
	"github.com/ovnd/ovnd/sandbox"
)

// checkPatience is how long the attempt to make a sandbox may take.
const checkPatience = 10 * time.Second

// How a node treats a machine that allows no sandboxes.
const (
	TUNAuto    = "auto"    // tasks are processes of the machine there
	TUNRequire = "require" // the node does not start there
	TUNNever   = "never"   // tasks are processes of the machine anywhere
)

// labelTUN is the engine label that says whether a node's tasks live in
// sandboxes, labelEphemeral that of nodes which do not come back.
const (
	labelTUN       = "ovnd.tun"
	labelEphemeral = "ovnd.ephemeral"
)

// outfit gives the sandboxes what they need beside the swarm.
func (n *Node) outfit() (err error) {
	s := n.sandboxes
	if s.tun, err = n.chooseTUN(sandbox.Check); err != nil {
		return err
	}
	if s.tun.Sandboxes {
		n.log.Info("tasks live in namespaces of their own, behind TUN devices", "tun", s.tun.Mode)
	} else {
		n.log.Warn("tasks have no namespaces and no TUN devices: they are processes of this machine and reach their networks by a proxy", "tun", s.tun.Mode, "reason", s.tun.Reason)
	}
	s.services = n.cfg.Services
	s.places = newPlaces(s)
	s.proxies, err = newProxies(s, n.stateDir)
	return err
}

// chooseTUN settles how tasks live. check says why there can be no sandboxes.
func (n *Node) chooseTUN(check func(context.Context) error) (types.TUNState, error) {
	st := types.TUNState{Mode: cmp.Or(n.cfg.TUN, TUNAuto)}
	switch st.Mode {
	case TUNNever:
		st.Reason = "--tun never"
		return st, nil
	case TUNAuto, TUNRequire:
	default:
		return st, fmt.Errorf("--tun %q: want %s, %s or %s", st.Mode, TUNAuto, TUNRequire, TUNNever)
	}
	ctx, cancel := context.WithTimeout(context.Background(), checkPatience)
	defer cancel()
	err := check(ctx)
	switch {
	case err == nil:
		st.Sandboxes = true
	case st.Mode == TUNRequire:
		return st, fmt.Errorf("--tun %s: this machine allows no sandboxes: %w", TUNRequire, err)
	default:
		st.Reason = err.Error()
	}
	return st, nil
}

// engineLabels are the node's labels, and what it says of itself.
func (n *Node) engineLabels() map[string]string {
	labels := maps.Clone(n.cfg.Labels)
	if labels == nil {
		labels = make(map[string]string)
	}
	for name := range n.cfg.Services {
		labels[labelService+name] = "true"
	}
	if n.cfg.Ephemeral {
		labels[labelEphemeral] = "true"
	}
	labels[labelTUN] = strconv.FormatBool(n.sandboxes.tun.Sandboxes)
	return labels
}

// tunState says how tasks live here.
func (n *Node) tunState() types.TUNState { return n.sandboxes.tun }

// proxyStates describes what the node serves to programs outside sandboxes.
func (n *Node) proxyStates() []types.ProxyState { return n.sandboxes.proxies.states() }

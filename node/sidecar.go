package node

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/ovnd/ovnd/cluster"
	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/sandbox"
	"github.com/ovnd/ovnd/sandbox/health"
)

// A sidecar is a task of the image ovnd/sidecar: it stands for an application
// that runs already beside the node, in the same network namespace, a container's
// most often. Nothing is started but a process that waits. The endpoint's ports
// lead to the application's, or, where the node may make TUN devices there, the
// endpoint is a device in that namespace and the application its program.
const imageSidecar = "ovnd/sidecar"

// labelService precedes the name of a service in the engine label of nodes that
// have its application beside them.
const labelService = "ovnd.service."

// What the health check of an application is, whose service has none: whether it
// can be connected to. One that does not run yet is waited for.
var sidecarHealth = health.Config{
	Interval: 2 * time.Second, Timeout: 2 * time.Second, Retries: 3,
	StartPeriod: 365 * 24 * time.Hour, StartInterval: 250 * time.Millisecond,
}

// checkSidecar refuses a sidecar whose application nobody has named.
func (t tasks) checkSidecar(task *cluster.Task) error {
	if _, ok := t.services[task.ServiceName]; !ok {
		return fmt.Errorf("node %s has no application of service %s beside it: start it with \"ovnd up --service %s\", or constrain the service with --constraint engine.labels.%s%s==true", t.hostname, task.ServiceName, task.ServiceName, labelService, task.ServiceName)
	}
	return nil
}

// sidecarPorts are the ports of an application: those that its service names. The
// port that `up --service` gives stands for the first.
func sidecarPorts(task *cluster.Task, named uint16) ([]localPort, error) {
	targets, err := targetPorts(task)
	if err != nil {
		return nil, err
	}
	if len(targets) == 0 && named != 0 {
		targets = []directory.Port{{Protocol: directory.TCP, Target: named}}
	}
	if len(targets) == 0 {
		return nil, fmt.Errorf("which port has the application of service %s? Publish it, give the service --env PORT=…, or the node --service %s=PORT", task.ServiceName, task.ServiceName)
	}
	ports := make([]localPort, len(targets))
	for i, p := range targets {
		ports[i] = localPort{p.Protocol, p.Target, p.Target}
		if named != 0 && p.Target == targets[0].Target {
			ports[i].Local = named
		}
	}
	return ports, nil
}

// furnishSidecar finds out how the application is reached: by a device, if the
// node may make one in this namespace, no other task of the node has one, and
// the application listens where the service says.
func (t tasks) furnishSidecar(st *sandboxState) error {
	named := t.services[st.Task.Task.ServiceName]
	ports, portsErr := sidecarPorts(&st.Task.Task, named)
	device := t.tun.Mode != TUNNever && named == 0
	if device {
		if err := sandbox.OwnDevices(); err != nil {
			device = false
			t.log.Info("an application beside this node gets no device: its ports are reached at 127.0.0.1", "service", st.Task.Task.ServiceName, "reason", err)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	st.Task.Local = ports
	if st.Task.Device = device && !t.hasDeviceLocked(); st.Task.Device {
		return nil // all of its ports are reached
	}
	return portsErr
}

// withoutDevice has a sidecar reached by its ports after all.
func (t tasks) withoutDevice(st *sandboxState) {
	t.mu.Lock()
	defer t.mu.Unlock()
	st.Task.Device = false
	if err := t.files.save(st.record); err != nil {
		t.log.Warn("record of a task not kept", "task", st.Spec.Name, "error", err)
	}
}

// hasDeviceLocked reports whether a task has devices in the node's own namespace:
// with a second one on the same network, answers would leave by the first.
func (s *sandboxes) hasDeviceLocked() bool {
	for _, st := range s.byID {
		if st.Task != nil && st.Task.Device && !st.over() {
			return true
		}
	}
	return false
}

// sidecarProbe asks whether an application can be connected to.
func sidecarProbe(r *taskRecord) func(ctx context.Context) (code int, output string, err error) {
	return func(ctx context.Context) (int, string, error) {
		for _, p := range r.Local {
			if p.Protocol != directory.TCP {
				continue
			}
			to := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), p.Local)
			c, err := new(net.Dialer).DialContext(ctx, "tcp", to.String())
			if err != nil {
				return 1, err.Error(), nil //nolint:nilerr // it is what the check found
			}
			return 0, "port " + strconv.Itoa(int(p.Local)) + " is open", c.Close()
		}
		return 0, "no port of TCP to ask", nil
	}
}

// serveBesideLocked has the application beside this node, which has a device, find
// the names of its networks, where the container's resolv.conf may be written.
func (s *sandboxes) serveBesideLocked(st *sandboxState) {
	socks, restore, err := sandbox.OwnNames(s.resolvConf(st).Sandbox())
	if err == nil {
		st.restoreNames = restore
		if err = s.serveNamesLocked(st, socks); err != nil {
			restore()
			st.restoreNames = nil
		}
	}
	if err != nil {
		s.log.Info("an application beside this node reaches its networks by address alone: its resolver does not know their names", "task", st.Spec.Name, "reason", err)
	}
}

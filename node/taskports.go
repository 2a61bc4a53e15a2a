package node

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/netstack"
)

// publishAddrs are the host's addresses at which this node serves published
// ports: its own, and 127.0.0.1 for who sits at the machine.
func (n *Node) publishAddrs() []netip.Addr {
	_, advertise, _ := n.cluster.Addrs()
	own := n.gossipBind(advertise.Addr())
	if own.IsLoopback() || own.IsUnspecified() {
		return []netip.Addr{own}
	}
	return []netip.Addr{own, netip.AddrFrom4([4]byte{127, 0, 0, 1})}
}

// checkPorts says why this node could not publish ports.
func (n *Node) checkPorts(ports []directory.Port) error {
	m := n.current()
	if m == nil {
		return nil
	}
	in := m.networks.ingress()
	if in == nil {
		return nil
	}
	release, err := in.Reserve(ports)
	if err == nil {
		release()
	}
	return err
}

// holdPorts binds the published ports of a task on this node, so that one that
// cannot be had is known before it starts.
func (t tasks) holdPorts(ctx context.Context, m *member, st *sandboxState) error {
	var held []func()
	var hostPorts []directory.Port
	release := func() {
		for _, f := range held {
			f()
		}
	}
	task := &st.Task.Task
	if ports := ingressPorts(task); len(ports) > 0 {
		ingress, err := m.networks.awaitIngress(ctx)
		if err != nil {
			return err
		}
		give, err := ingress.Reserve(ports)
		if err != nil {
			return err
		}
		held = append(held, give)
	}
	for _, p := range task.Ports {
		if !p.HostMode {
			continue
		}
		forward, err := netstack.NewPortForward(netstack.PortForwardConfig{
			Addrs: m.networks.publish, Port: p.Port, Node: t.hostname, Log: t.log,
			Dial: func(ctx context.Context, network string) (net.Conn, error) {
				return t.dialBridge(ctx, st, network, p.Target)
			},
		})
		if err != nil {
			release()
			return err
		}
		serving := startStage(context.Background(), "port of "+st.Spec.Name, forward.Run)
		hostPorts = append(hostPorts, forward.Port())
		held = append(held, func() {
			if err := serving.stop(stackPatience); err != nil {
				t.log.Warn("published port not closed properly", "task", st.Spec.Name, "error", err)
			}
		})
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	st.task.ports, st.task.hostPorts = release, hostPorts
	return nil
}

// dialBridge connects to a task by the gateway bridge.
func (t tasks) dialBridge(ctx context.Context, st *sandboxState, network string, port uint16) (net.Conn, error) {
	t.mu.Lock()
	m, addr := t.member, st.Bridge
	t.mu.Unlock()
	if m == nil || !addr.IsValid() {
		return nil, errors.New("the task is not on the gateway bridge")
	}
	return m.bridge.DialContext(ctx, network, net.JoinHostPort(addr.String(), strconv.Itoa(int(port))))
}

// awaitIngress returns what serves the published ports, once the swarm has
// given this node its place on the ingress network.
func (n *networks) awaitIngress(ctx context.Context) (*netstack.Ingress, error) {
	ctx, cancel := context.WithTimeout(ctx, ingressPatience)
	defer cancel()
	for {
		if in := n.ingress(); in != nil {
			return in, nil
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return nil, errors.New("the swarm has not given this node a place on the ingress network")
		}
	}
}

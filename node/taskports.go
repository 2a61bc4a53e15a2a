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
		port, give, err := t.forwardPort(m, st, p.Port)
		if err != nil {
			releaseAll(held)
			return err
		}
		hostPorts, held = append(hostPorts, port), append(held, give)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if st.over() { // the node left its swarm meanwhile
		releaseAll(held)
		return errOver
	}
	st.task.ports, st.Task.HostPorts = held, hostPorts
	return nil
}

// releaseAll gives ports back.
func releaseAll(held []func()) {
	for _, f := range held {
		f()
	}
}

// forwardPort serves a port of the task that is published in host mode. It must
// not need the mutex of sandboxes, under which it is given back.
func (s *sandboxes) forwardPort(m *member, st *sandboxState, p directory.Port) (directory.Port, func(), error) {
	forward, err := netstack.NewPortForward(netstack.PortForwardConfig{
		Addrs: m.networks.publish, Port: p, Node: s.hostname, Log: s.log,
		Dial: func(ctx context.Context, network string) (net.Conn, error) {
			if st.Spec.Bare {
				return st.Task.dialLocal(ctx, network, p)
			}
			addr := st.task.reach.Load()
			if addr == nil {
				return nil, errors.New("the task is not on the gateway bridge")
			}
			return m.bridge.DialContext(ctx, network, net.JoinHostPort(addr.String(), strconv.Itoa(int(p.Target))))
		},
	})
	if err != nil {
		return directory.Port{}, nil, err
	}
	serving := startStage(context.Background(), "port of "+st.Spec.Name, forward.Run)
	return forward.Port(), func() {
		if err := serving.stop(stackPatience); err != nil {
			s.log.Warn("published port not closed properly", "task", st.Spec.Name, "error", err)
		}
	}, nil
}

// restorePortsLocked serves the ports of a task of a former life again that are
// published in host mode: those that it had, which others may remember.
func (s *sandboxes) restorePortsLocked(st *sandboxState) {
	for _, p := range st.Task.HostPorts {
		_, give, err := s.forwardPort(s.member, st, p)
		if err != nil {
			s.log.Error("published port is not served any more", "task", st.Spec.Name, "error", err)
			continue
		}
		st.task.ports = append(st.task.ports, give)
	}
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

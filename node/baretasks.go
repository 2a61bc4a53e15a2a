package node

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/ovnd/ovnd/cluster"
	"github.com/ovnd/ovnd/discovery/directory"
)

// Where no sandbox can be had, a task is a process of the machine ("bare"). What
// comes to its addresses goes to 127.0.0.1: each port that its service names has
// one of the machine's in its place, another one for each task, so that several
// fit on one machine. PORT says which.
const (
	// barePortFirst and barePorts are the machine's ports that bare tasks get:
	// below those that the swarm publishes (30000 on) and those that the kernel
	// gives to connections (32768 on).
	barePortFirst = 20000
	barePorts     = 10000
)

// A localPort is a port of a task's addresses and what stands for it on the
// machine.
type localPort struct {
	Protocol directory.Protocol
	Target   uint16 // on the networks
	Local    uint16 // of 127.0.0.1
}

// whoamiPorts are those of the built-in server.
var whoamiPorts = []directory.Port{
	{Protocol: directory.TCP, Target: 80}, {Protocol: directory.TCP, Target: 7}, {Protocol: directory.UDP, Target: 7},
}

// checkBare refuses what a task cannot have without namespaces.
func checkBare(task *cluster.Task, reason string) error {
	refuse := func(what string) error {
		return fmt.Errorf("this node has no sandboxes (%s): it runs no task with %s: constrain the service to nodes that have, with --constraint engine.labels.%s==true", reason, what, labelTUN)
	}
	switch {
	case len(task.Files) > 0:
		return refuse("secrets or configs")
	case len(task.Hosts) > 0:
		return refuse("--host")
	case len(task.DNS)+len(task.DNSSearch)+len(task.DNSOptions) > 0:
		return refuse("--dns options")
	}
	for _, m := range task.Mounts {
		if m.Source != m.Target || m.ReadOnly {
			return refuse("mounts, but those of a path on itself")
		}
	}
	return nil
}

// targetPorts are the ports that a task's service names, the first being what
// PORT stands for: the PORT of its own environment, which is where it listens on
// nodes with sandboxes; those that it publishes; those of the built-in server.
func targetPorts(task *cluster.Task) ([]directory.Port, error) {
	var ports []directory.Port
	add := func(p directory.Port) {
		p = directory.Port{Protocol: p.Protocol, Target: p.Target}
		if p.Target != 0 && !slices.Contains(ports, p) {
			ports = append(ports, p)
		}
	}
	for _, kv := range task.Env {
		if v, ok := strings.CutPrefix(kv, "PORT="); ok {
			n, err := strconv.ParseUint(v, 10, 16)
			if err != nil || n == 0 {
				return nil, fmt.Errorf("--env PORT=%s: this node has no sandboxes and takes it for the port on the network: want 1 to 65535", v)
			}
			add(directory.Port{Protocol: directory.TCP, Target: uint16(n)})
		}
	}
	for _, p := range task.Ports {
		if p.Protocol == directory.SCTP {
			return nil, errors.New("protocol sctp is not supported: publish tcp or udp")
		}
		add(p.Port)
	}
	if task.Command == imageWhoami {
		for _, p := range whoamiPorts {
			add(p)
		}
	}
	return ports, nil
}

// assignPorts gives a task its ports of the machine. TCP and UDP of one number
// have one number here too.
func (t tasks) assignPorts(st *sandboxState, targets []directory.Port) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	taken := t.localPortsLocked()
	byTarget := make(map[uint16]uint16)
	for _, p := range targets {
		local := byTarget[p.Target]
		if local == 0 {
			var err error
			if local, err = freeLocalPort(taken); err != nil {
				return err
			}
			taken[local], byTarget[p.Target] = true, local
		}
		st.Task.Local = append(st.Task.Local, localPort{p.Protocol, p.Target, local})
	}
	return nil
}

// localPortsLocked are the machine's ports that bare tasks have.
func (s *sandboxes) localPortsLocked() map[uint16]bool {
	taken := make(map[uint16]bool)
	for _, st := range s.byID {
		if st.Task == nil || st.over() {
			continue
		}
		for _, p := range st.Task.Local {
			taken[p.Local] = true
		}
	}
	return taken
}

// freeLocalPort finds a port that nobody has, at any address of the machine.
func freeLocalPort(taken map[uint16]bool) (uint16, error) {
	first := rand.IntN(barePorts)
	for i := range barePorts {
		port := uint16(barePortFirst + (first+i)%barePorts)
		if !taken[port] && canListen(port) {
			return port, nil
		}
	}
	return 0, fmt.Errorf("no port from %d to %d of this machine is free", barePortFirst, barePortFirst+barePorts-1)
}

// canListen reports whether a program could listen at the port, by TCP and UDP.
func canListen(port uint16) bool {
	addr := ":" + strconv.Itoa(int(port))
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return false
	}
	defer func() { _ = l.Close() }()
	c, err := net.ListenPacket("udp", addr)
	if err != nil {
		return false
	}
	return c.Close() == nil
}

// localTarget returns where what comes to a bare task's port goes.
func (r *taskRecord) localTarget(p directory.Protocol, port uint16) (netip.AddrPort, bool) {
	for _, l := range r.Local {
		if l.Protocol == p && l.Target == port {
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), l.Local), true
		}
	}
	return netip.AddrPort{}, false
}

// bareEnv adds to a task's environment where it is to listen, and by which
// proxy it reaches its networks, unless its service says otherwise.
func bareEnv(env []string, whoami bool, ports []localPort, proxy []string) []string {
	env = slices.DeleteFunc(env, func(kv string) bool { return strings.HasPrefix(kv, "PORT=") })
	for i, p := range ports {
		if i == 0 {
			env = append(env, fmt.Sprintf("PORT=%d", p.Local))
		}
		if kv := fmt.Sprintf("PORT_%d=%d", p.Target, p.Local); !slices.Contains(env, kv) {
			env = append(env, kv)
		}
		if whoami && p.Target == whoamiPorts[1].Target && i > 0 && p.Protocol == directory.TCP {
			env = append(env, fmt.Sprintf("ECHO_PORT=%d", p.Local))
		}
	}
	for _, kv := range proxy {
		name, _, _ := strings.Cut(kv, "=")
		if !slices.ContainsFunc(env, func(own string) bool { return strings.HasPrefix(own, name+"=") }) {
			env = append(env, kv)
		}
	}
	return env
}

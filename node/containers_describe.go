package node

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"

	"github.com/ovnd/ovnd/api"
	"github.com/ovnd/ovnd/sandbox/health"
)

// describeLocked is a sandbox as Docker's API shows it. The command of what
// `ovnd run` runs is not known to its record: see askProcess.
func (s *sandboxes) describeLocked(st *sandboxState) api.Container {
	c := api.Container{
		ID: st.Spec.ID, Name: st.Spec.Name, Created: st.Created,
		Hostname: st.Spec.Hostname, State: st.containerState(), Networks: st.containerNetworks(),
	}
	if c.Hostname == "" {
		c.Hostname = st.Spec.ID[:12]
	}
	if st.Task != nil {
		s.describeTaskLocked(&c, st)
	}
	return c
}

// describeTaskLocked adds what is known of a task.
func (s *sandboxes) describeTaskLocked(c *api.Container, st *sandboxState) {
	task := &st.Task.Task
	c.Image, c.Labels, c.Dir, c.User = task.Image, task.Labels, task.Dir, task.User
	// A program that is missing by now changes nothing about how it is called.
	c.Args, _, _ = tasks{s}.program(task)
	c.Env = taskEnv(task, s.hostname)
	c.TTY, c.OpenStdin, c.ReadOnly = task.TTY, task.OpenStdin, task.ReadOnly
	c.StopSignal, c.StopGrace = task.StopSignal, task.StopGrace
	c.Hosts, c.DNS, c.DNSSearch, c.DNSOptions = task.Hosts, task.DNS, task.DNSSearch, task.DNSOptions
	c.LogPath = s.logConfig(st.Spec.ID, task.Log).Path
	if h := task.Health; h != nil {
		c.Health = &container.HealthConfig{
			Test: h.Test, Interval: h.Interval, Timeout: h.Timeout,
			StartPeriod: h.StartPeriod, StartInterval: h.StartInterval, Retries: h.Retries,
		}
	}
	for _, m := range task.Mounts {
		c.Mounts = append(c.Mounts, container.MountPoint{
			Type: mount.TypeBind, Source: m.Source, Destination: m.Target, RW: !m.ReadOnly, Propagation: mount.PropagationRPrivate,
		})
	}
	for _, u := range task.Ulimits {
		c.Ulimits = append(c.Ulimits, container.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard})
	}
	c.Ports = st.containerPorts(s.publishedAt())
}

// publishedAt is the address at which this node serves published ports.
func (s *sandboxes) publishedAt() netip.Addr {
	if s.member == nil || len(s.member.networks.publish) == 0 {
		return netip.Addr{}
	}
	return s.member.networks.publish[0]
}

// containerPorts are the ports of a task: those in ingress mode, which its node
// does not lead to it alone, as Docker shows ports that are only exposed.
func (st *sandboxState) containerPorts(at netip.Addr) []api.ContainerPort {
	ports := make([]api.ContainerPort, 0, len(st.Task.Task.Ports))
	for _, p := range ingressPorts(&st.Task.Task) {
		ports = append(ports, api.ContainerPort{Protocol: p.Protocol.String(), Target: p.Target})
	}
	for _, p := range st.Task.HostPorts {
		ports = append(ports, api.ContainerPort{Protocol: p.Protocol.String(), Target: p.Target, Published: p.Published, HostIP: at})
	}
	return ports
}

// containerState is where the sandbox is in its life. The caller holds the lock.
func (st *sandboxState) containerState() api.ContainerState {
	s := api.ContainerState{Status: container.StateCreated}
	if t := st.Task; t != nil {
		s.StartedAt = t.Started
		if st.task.checks.Load() != nil {
			s.Health = healthOf(st.task.checks.Load())
		}
		if t.Exit != nil {
			s.Status, s.ExitStatus = container.StateExited, exitStatus(*t.Exit)
			return s
		}
		if t.Ready {
			s.Status = container.StateRunning // its init may not have come back after a restart of the node
		}
	}
	if st.session == nil {
		return s
	}
	pid, started := st.session.Command()
	switch {
	case closed(st.session.Exited()):
		s.Status, s.StartedAt, s.ExitStatus = container.StateExited, started, exitStatus(st.session.ExitStatus())
	case closed(st.session.Started()):
		s.Status, s.StartedAt, s.PID = container.StateRunning, started, pid
	}
	return s
}

func healthOf(s *health.State) *container.Health {
	h := &container.Health{Status: container.HealthStatus(s.Status), FailingStreak: s.FailingStreak}
	for _, r := range s.Log {
		h.Log = append(h.Log, &container.HealthcheckResult{Start: r.Start, End: r.End, ExitCode: r.ExitCode, Output: r.Output})
	}
	return h
}

// containerNetworks are the sandbox's networks; the gateway bridge, which
// Docker does not show either, is none of them.
func (st *sandboxState) containerNetworks() []api.ContainerNetwork {
	list := make([]api.ContainerNetwork, 0, len(st.Attachments))
	for i := range st.Attachments {
		in, att := &st.Spec.Interfaces[i], &st.Attachments[i]
		n := api.ContainerNetwork{
			Name: in.NetworkName, NetworkID: in.NetworkID, EndpointID: in.EndpointID,
			Addr: in.Addrs[0], MAC: in.MAC, Aliases: att.Aliases, Static: st.task != nil,
			DNSNames: append([]string{st.Spec.Name}, att.Aliases...),
		}
		n.DNSNames = append(n.DNSNames, st.Spec.ID[:12])
		if h := st.Spec.Hostname; h != "" && !slices.Contains(n.DNSNames, h) {
			n.DNSNames = append(n.DNSNames, h)
		}
		list = append(list, n)
	}
	return list
}

// askProcess fills in what only the processes themselves know: the command of
// an `ovnd run`, and by it what stands for an image. The process of a container
// whose command went into the background and ended is its init.
func askProcess(c *api.Container, initPID int) {
	if c.State.PID == 0 {
		return
	}
	if parent, ok := parentOf(c.State.PID); !ok || parent != initPID {
		c.State.PID = initPID
		return
	}
	if len(c.Args) > 0 {
		return
	}
	line, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(c.State.PID), "cmdline"))
	if err != nil || len(line) == 0 {
		return // it has just ended
	}
	for arg := range bytes.SplitSeq(bytes.TrimSuffix(line, []byte{0}), []byte{0}) {
		c.Args = append(c.Args, string(arg))
	}
	if c.Image == "" {
		c.Image = filepath.Base(c.Args[0])
	}
}

// descendants returns the PIDs of all processes below one, which adopts those
// whose parents have ended.
func descendants(root int) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	children := make(map[int][]int)
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if parent, ok := parentOf(pid); ok {
			children[parent] = append(children[parent], pid)
		}
	}
	var list []int
	for next := children[root]; len(next) > 0; {
		pid := next[0]
		next = append(next[1:], children[pid]...)
		list = append(list, pid)
	}
	return list, nil
}

// parentOf reads the fourth field of /proc/PID/stat; the second, in
// parentheses, may hold anything.
func parentOf(pid int) (parent int, ok bool) {
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return 0, false // it has just ended
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 2 {
		return 0, false
	}
	parent, err = strconv.Atoi(fields[1])
	return parent, err == nil
}

package api

import (
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// Running reports whether the container's command runs.
func (c Container) Running() bool { return c.State.Status == container.StateRunning }

func (c Container) isTask() bool { return c.Labels["com.docker.swarm.task.id"] != "" }

// name is what Docker calls a port of a container: "80/tcp".
func (p ContainerPort) name() string { return fmt.Sprintf("%d/%s", p.Target, p.Protocol) }

// summary is the container's line in `docker ps`.
func summary(c Container, now time.Time) container.Summary {
	out := container.Summary{
		ID: c.ID, Names: []string{"/" + c.Name}, Image: c.Image, Command: commandLine(c.Args),
		Created: c.Created.Unix(), Ports: []container.PortSummary{}, Labels: notNil(c.Labels),
		State: c.State.Status, Status: statusText(c.State, now),
		NetworkSettings: &container.NetworkSettingsSummary{Networks: endpointSettings(c)},
		Mounts:          append([]container.MountPoint{}, c.Mounts...),
	}
	out.HostConfig.NetworkMode = networkMode(c)
	for _, p := range c.Ports {
		out.Ports = append(out.Ports, container.PortSummary{IP: p.HostIP, PrivatePort: p.Target, PublicPort: p.Published, Type: p.Protocol})
	}
	if h := c.State.Health; h != nil {
		out.Health = &container.HealthSummary{Status: h.Status, FailingStreak: h.FailingStreak}
	}
	return out
}

// commandLine is a command as Docker shows it: what has spaces is in quotes.
func commandLine(args []string) string {
	out := slices.Clone(args)
	for i, arg := range out {
		if i > 0 && strings.Contains(arg, " ") {
			out[i] = "'" + arg + "'"
		}
	}
	return strings.Join(out, " ")
}

// statusText is the STATUS of `docker ps`.
func statusText(s ContainerState, now time.Time) string {
	switch {
	case s.Status == container.StateRunning:
		text := "Up " + units.HumanDuration(now.Sub(s.StartedAt))
		switch healthStatus(s.Health) {
		case container.NoHealthcheck:
			return text
		case container.Starting:
			return text + " (health: starting)"
		default:
			return text + " (" + string(s.Health.Status) + ")"
		}
	case s.StartedAt.IsZero() && s.FinishedAt.IsZero():
		return "Created"
	case s.FinishedAt.IsZero():
		return ""
	}
	return fmt.Sprintf("Exited (%d) %s ago", s.Code, units.HumanDuration(now.Sub(s.FinishedAt)))
}

func healthStatus(h *container.Health) container.HealthStatus {
	if h == nil || h.Status == "" {
		return container.NoHealthcheck
	}
	return h.Status
}

// inspectContainer is the container in the words of `docker inspect`. What
// ovnd has nothing for, such as images and cgroups, is empty.
func inspectContainer(c Container) container.InspectResponse {
	program, args := splitCommand(c.Args)
	return container.InspectResponse{
		ID: c.ID, Name: "/" + c.Name, Created: c.Created.UTC().Format(time.RFC3339Nano),
		Path: program, Args: args, Image: c.Image, LogPath: c.LogPath,
		Platform: runtime.GOOS, State: inspectState(c.State),
		HostConfig: hostConfig(c), Config: containerConfig(c),
		Mounts: append([]container.MountPoint{}, c.Mounts...),
		NetworkSettings: &container.NetworkSettings{
			SandboxID: c.ID, Ports: portMap(c.Ports), Networks: endpointSettings(c),
		},
	}
}

func splitCommand(args []string) (program string, rest []string) {
	if len(args) == 0 {
		return "", []string{}
	}
	return args[0], append([]string{}, args[1:]...)
}

func inspectState(s ContainerState) *container.State {
	return &container.State{
		Status: s.Status, Running: s.Status == container.StateRunning, Pid: s.PID,
		ExitCode: s.Code, Error: s.Error, Health: s.Health,
		StartedAt: s.StartedAt.UTC().Format(time.RFC3339Nano), FinishedAt: s.FinishedAt.UTC().Format(time.RFC3339Nano),
	}
}

func containerConfig(c Container) *container.Config {
	cfg := &container.Config{
		Hostname: c.Hostname, User: c.User, Tty: c.TTY, OpenStdin: c.OpenStdin,
		Env: append([]string{}, c.Env...), Cmd: c.Args, Healthcheck: c.Health, Image: c.Image,
		WorkingDir: c.Dir, Labels: notNil(c.Labels), StopSignal: c.StopSignal,
	}
	if c.StopGrace > 0 {
		seconds := int((c.StopGrace + time.Second - 1) / time.Second)
		cfg.StopTimeout = &seconds
	}
	for _, p := range c.Ports {
		if port, err := network.ParsePort(p.name()); err == nil {
			if cfg.ExposedPorts == nil {
				cfg.ExposedPorts = network.PortSet{}
			}
			cfg.ExposedPorts[port] = struct{}{}
		}
	}
	return cfg
}

func hostConfig(c Container) *container.HostConfig {
	hc := &container.HostConfig{
		NetworkMode:    container.NetworkMode(networkMode(c)),
		RestartPolicy:  container.RestartPolicy{Name: container.RestartPolicyDisabled},
		LogConfig:      container.LogConfig{Type: "local", Config: map[string]string{}},
		ReadonlyRootfs: c.ReadOnly,
		ExtraHosts:     c.Hosts, DNSOptions: c.DNSOptions, DNSSearch: c.DNSSearch,
		PortBindings: published(c.Ports),
	}
	for _, s := range c.DNS {
		if addr, err := netip.ParseAddr(s); err == nil {
			hc.DNS = append(hc.DNS, addr)
		}
	}
	for i := range c.Ulimits {
		hc.Ulimits = append(hc.Ulimits, &c.Ulimits[i])
	}
	for _, m := range c.Mounts {
		mode := "rw"
		if !m.RW {
			mode = "ro"
		}
		hc.Binds = append(hc.Binds, m.Source+":"+m.Destination+":"+mode)
	}
	return hc
}

// networkMode is what `docker ps` and inspect show as the main network:
// "default" of a task, as in Docker, else the first network.
func networkMode(c Container) string {
	if c.isTask() || len(c.Networks) == 0 {
		return "default"
	}
	return c.Networks[0].Name
}

func endpointSettings(c Container) map[string]*network.EndpointSettings {
	out := make(map[string]*network.EndpointSettings, len(c.Networks))
	for _, n := range c.Networks {
		s := &network.EndpointSettings{
			NetworkID: n.NetworkID, EndpointID: n.EndpointID, MacAddress: slices.Clone(n.MAC[:]),
			Aliases: n.Aliases, DNSNames: n.DNSNames,
		}
		addr := n.Addr.Addr()
		if addr.Is4() {
			s.IPAddress, s.IPPrefixLen, s.Gateway = addr, n.Addr.Bits(), n.Gateway
		} else if addr.Is6() {
			s.GlobalIPv6Address, s.GlobalIPv6PrefixLen, s.IPv6Gateway = addr, n.Addr.Bits(), n.Gateway
		}
		if n.Static {
			s.IPAMConfig = &network.EndpointIPAMConfig{IPv4Address: s.IPAddress, IPv6Address: s.GlobalIPv6Address}
		}
		out[n.Name] = s
	}
	return out
}

// portMap has all ports, those that are only exposed without a binding.
func portMap(ports []ContainerPort) network.PortMap {
	out := published(ports)
	for _, p := range ports {
		if port, err := network.ParsePort(p.name()); err == nil && out[port] == nil {
			out[port] = nil
		}
	}
	return out
}

// published has the ports of this node that lead to the container.
func published(ports []ContainerPort) network.PortMap {
	out := network.PortMap{}
	for _, p := range ports {
		port, err := network.ParsePort(p.name())
		if err == nil && p.Published != 0 {
			out[port] = append(out[port], network.PortBinding{HostIP: p.HostIP, HostPort: fmt.Sprint(p.Published)})
		}
	}
	return out
}

func notNil(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

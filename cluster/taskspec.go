package cluster

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/distribution/reference"
	"github.com/docker/go-units"
	gogotypes "github.com/gogo/protobuf/types"
	swarmapi "github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/api/naming"
	"github.com/moby/swarmkit/v2/manager/allocator/networkallocator"
	"github.com/moby/swarmkit/v2/template"

	"github.com/ovnd/ovnd/discovery/directory"
)

const (
	// defaultStopGrace is Docker's, for a service that names none.
	defaultStopGrace = 10 * time.Second
	// bridgeNetwork is a host's own network in Docker. Here it stands for the
	// gateway bridge, which each sandbox has anyway.
	bridgeNetwork = "bridge"
)

// taskFromAPI translates a task that the swarm gave to the node that desc
// describes, without its secrets and configs. The error says why this node
// cannot run it.
func taskFromAPI(t *swarmapi.Task, desc *swarmapi.NodeDescription) (*Task, error) {
	if err := checkTaskSpec(&t.Spec); err != nil {
		return nil, err
	}
	spec, err := template.ExpandContainerSpec(desc, t)
	if err != nil {
		return nil, err
	}
	task := &Task{
		ID:            t.ID,
		Name:          naming.Task(t),
		ServiceID:     t.ServiceID,
		ServiceName:   t.ServiceAnnotations.Name,
		NodeID:        t.NodeID,
		Slot:          t.Slot,
		Program:       spec.Command,
		Args:          spec.Args,
		Env:           spec.Env,
		Dir:           spec.Dir,
		User:          spec.User,
		Hostname:      spec.Hostname,
		TTY:           spec.TTY,
		OpenStdin:     spec.OpenStdin,
		ReadOnly:      spec.ReadOnly,
		StopSignal:    spec.StopSignal,
		StopGrace:     stopGrace(spec),
		Health:        healthFromAPI(spec.Healthcheck),
		Sysctls:       spec.Sysctls,
		Hosts:         spec.Hosts,
		ServiceLabels: t.ServiceAnnotations.Labels,
	}
	if task.Way, err = directory.ParseWay(task.ServiceLabels[directory.LabelWay]); err != nil {
		return nil, err
	}
	task.Image, task.Command = imageNames(spec.Image)
	task.Labels = containerLabels(t, spec, task.Name)
	if dns := spec.DNSConfig; dns != nil {
		task.DNS, task.DNSSearch, task.DNSOptions = dns.Nameservers, dns.Search, dns.Options
	}
	if err := checkMounts(spec.Mounts); err != nil { // again, expanded
		return nil, err
	}
	for _, m := range spec.Mounts {
		task.Mounts = append(task.Mounts, TaskMount{Source: m.Source, Target: m.Target, ReadOnly: m.ReadOnly})
	}
	for _, u := range spec.Ulimits {
		task.Ulimits = append(task.Ulimits, Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard})
	}
	if task.Log, err = logLimits(t.LogDriver); err != nil {
		return nil, err
	}
	if task.Networks, err = taskNetworks(t); err != nil {
		return nil, err
	}
	task.Ports = taskPorts(t.Endpoint)
	return task, nil
}

// imageNames returns a reference as Docker shows it, and without registry, tag
// and digest. What is no reference stands for itself.
func imageNames(image string) (familiar, command string) {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return image, image
	}
	command = reference.Path(named)
	if reference.Domain(named) == dockerHub {
		command = reference.FamiliarName(named) // without library/
	}
	return reference.FamiliarString(reference.TagNameOnly(named)), command
}

// dockerHub is the registry of a reference that names none.
const dockerHub = "docker.io"

func stopGrace(spec *swarmapi.ContainerSpec) time.Duration {
	if spec.StopGracePeriod == nil {
		return defaultStopGrace
	}
	d, _ := gogotypes.DurationFromProto(spec.StopGracePeriod)
	return max(d, 0)
}

func healthFromAPI(h *swarmapi.HealthConfig) *HealthConfig {
	if h == nil || len(h.Test) == 0 || h.Test[0] == "NONE" {
		return nil
	}
	duration := func(p *gogotypes.Duration) time.Duration {
		d, _ := gogotypes.DurationFromProto(p)
		return d
	}
	return &HealthConfig{
		Test:          h.Test,
		Interval:      duration(h.Interval),
		Timeout:       duration(h.Timeout),
		StartPeriod:   duration(h.StartPeriod),
		StartInterval: duration(h.StartInterval),
		Retries:       int(h.Retries),
	}
}

// containerLabels are those of the spec, and those by which Docker's tools
// recognise a task.
func containerLabels(t *swarmapi.Task, spec *swarmapi.ContainerSpec, name string) map[string]string {
	labels := maps.Clone(spec.Labels)
	if labels == nil {
		labels = make(map[string]string)
	}
	maps.Copy(labels, t.Annotations.Labels)
	for k, v := range map[string]string{
		"task":         "", // marks a task of a swarm
		"task.id":      t.ID,
		"task.name":    name,
		"node.id":      t.NodeID,
		"service.id":   t.ServiceID,
		"service.name": t.ServiceAnnotations.Name,
	} {
		labels[swarmLabelPrefix+k] = v
	}
	return labels
}

// swarmLabelPrefix starts the names that Docker keeps for itself.
const swarmLabelPrefix = "com.docker.swarm."

// logLimits reads the options max-size and max-file of Docker's log drivers.
func logLimits(d *swarmapi.Driver) (LogLimits, error) {
	var limits LogLimits
	if d == nil {
		return limits, nil
	}
	if d.Name != "" && d.Name != "json-file" && d.Name != "local" {
		return limits, fmt.Errorf("--log-driver %s is not supported: ovnd keeps logs in files of its own; leave it out or use json-file", d.Name)
	}
	for k, v := range d.Options {
		var err error
		switch k {
		case "max-size":
			limits.MaxSize, err = units.FromHumanSize(v)
		case "max-file":
			limits.MaxFiles, err = strconv.Atoi(v)
		default:
			return limits, fmt.Errorf("--log-opt %s is not supported: ovnd knows max-size and max-file", k)
		}
		if err != nil || limits.MaxSize < 0 || limits.MaxFiles < 0 {
			return limits, fmt.Errorf("--log-opt %s=%s: want a positive number, of bytes with k, m or g for max-size", k, v)
		}
	}
	return limits, nil
}

// taskNetworks are the task's networks, ingress first.
func taskNetworks(t *swarmapi.Task) ([]TaskNetwork, error) {
	var nets []TaskNetwork
	for _, na := range t.Networks {
		if na.Network == nil {
			continue
		}
		name := na.Network.Spec.Annotations.Name
		if na.Network.Spec.Annotations.Labels[networkallocator.PredefinedLabel] == "true" {
			if name == bridgeNetwork {
				continue
			}
			return nil, swarmScopeOnly(name)
		}
		nw, err := networkFromAPI(na.Network)
		if err != nil {
			return nil, err
		}
		tn := TaskNetwork{Network: nw, Aliases: na.Aliases, VIP: virtualIP(t.Endpoint, nw.ID)}
		if tn.Addrs, err = prefixesFromAPI(na.Addresses); err != nil {
			return nil, err
		}
		if len(tn.Addrs) == 0 {
			return nil, fmt.Errorf("the swarm allocated no address on network %s", name)
		}
		nets = append(nets, tn)
	}
	slices.SortStableFunc(nets, func(a, b TaskNetwork) int {
		switch {
		case a.Network.Ingress == b.Network.Ingress:
			return 0
		case a.Network.Ingress:
			return -1
		}
		return 1
	})
	return nets, nil
}

// virtualIP is a service's address on a network; zero if it has none.
func virtualIP(e *swarmapi.Endpoint, networkID string) netip.Addr {
	if e == nil {
		return netip.Addr{}
	}
	for _, v := range e.VirtualIPs {
		if v.NetworkID != networkID {
			continue
		}
		if p, err := netip.ParsePrefix(v.Addr); err == nil {
			return p.Addr()
		}
	}
	return netip.Addr{}
}

func taskPorts(e *swarmapi.Endpoint) []TaskPort {
	if e == nil {
		return nil
	}
	ports := make([]TaskPort, 0, len(e.Ports))
	for _, p := range e.Ports {
		ports = append(ports, TaskPort{Port: portFromAPI(p), HostMode: p.PublishMode == swarmapi.PublishModeHost})
	}
	return ports
}

// portFromAPI translates a port that has been checked. The numbers of protocols
// are SwarmKit's.
func portFromAPI(p *swarmapi.PortConfig) directory.Port {
	return directory.Port{
		Name:      p.Name,
		Protocol:  directory.Protocol(p.Protocol),
		Target:    uint16(p.TargetPort),
		Published: uint16(p.PublishedPort),
	}
}

// hostPortToAPI is an open host-mode port as `service ps` shows it.
func hostPortToAPI(p directory.Port) *swarmapi.PortConfig {
	return &swarmapi.PortConfig{
		Name:          p.Name,
		Protocol:      swarmapi.PortConfig_Protocol(p.Protocol),
		TargetPort:    uint32(p.Target),
		PublishedPort: uint32(p.Published),
		PublishMode:   swarmapi.PublishModeHost,
	}
}

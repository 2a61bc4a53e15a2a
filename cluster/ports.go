package cluster

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/v2/errdefs"
	swarmapi "github.com/moby/swarmkit/v2/api"
	"golang.org/x/sys/unix"

	"github.com/ovnd/ovnd/discovery/directory"
)

// lowestPort is the lowest port that this process may bind, or 0 if none is
// kept from it. It asks the kernel by binding a port, without listening on it:
// the capability that counts is one of the network namespace's owner, which the
// process's own set of capabilities does not tell.
func lowestPort() uint16 {
	data, err := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	if err != nil {
		return 0
	}
	start, err := strconv.ParseUint(strings.TrimSpace(string(data)), 10, 16)
	if err != nil || start <= 1 {
		return 0
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return uint16(start)
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written
	err = unix.Bind(fd, &unix.SockaddrInet4{Port: int(start) - 1, Addr: [4]byte{127, 0, 0, 1}})
	if errors.Is(err, fs.ErrPermission) {
		return uint16(start)
	}
	return 0 // bound, or taken: in either case permitted
}

// checkPublished refuses ports that a service cannot have on the nodes that
// this manager knows. What SwarmKit refuses itself is left to it, for its words.
func (c *Cluster) checkPublished(ctx context.Context, ctl swarmapi.ControlClient, e *swarmapi.EndpointSpec) error {
	if e == nil || e.Mode == swarmapi.ResolutionModeDNSRoundRobin && hasIngressPort(e.Ports) {
		return nil
	}
	ports, err := freshPorts(ctx, ctl, e.Ports)
	if err != nil || len(ports) == 0 {
		return err
	}
	nodes, err := ctl.ListNodes(ctx, &swarmapi.ListNodesRequest{})
	if err != nil {
		return err
	}
	var ingress []directory.Port
	for _, p := range ports {
		if err := checkPortStart(p, nodes.Nodes); err != nil {
			return err
		}
		if p.PublishMode == swarmapi.PublishModeIngress {
			ingress = append(ingress, portFromAPI(p))
		}
	}
	if c.cfg.CheckPorts == nil || len(ingress) == 0 {
		return nil
	}
	if err := c.cfg.CheckPorts(ingress); err != nil {
		return errdefs.InvalidParameter(err)
	}
	return nil
}

func hasIngressPort(ports []*swarmapi.PortConfig) bool {
	for _, p := range ports {
		if p.PublishMode == swarmapi.PublishModeIngress {
			return true
		}
	}
	return false
}

// freshPorts are those of ports that are named and that no service has on all
// nodes: nobody listens there yet.
func freshPorts(ctx context.Context, ctl swarmapi.ControlClient, ports []*swarmapi.PortConfig) ([]*swarmapi.PortConfig, error) {
	type key struct {
		port  uint32
		proto swarmapi.PortConfig_Protocol
	}
	wanted := make(map[key]*swarmapi.PortConfig)
	for _, p := range ports {
		if p.PublishedPort != 0 {
			wanted[key{p.PublishedPort, p.Protocol}] = p
		}
	}
	if len(wanted) == 0 {
		return nil, nil
	}
	resp, err := ctl.ListServices(ctx, &swarmapi.ListServicesRequest{})
	if err != nil {
		return nil, err
	}
	for _, s := range resp.Services {
		var have []*swarmapi.PortConfig
		if e := s.Spec.Endpoint; e != nil {
			have = e.Ports
		}
		if e := s.Endpoint; e != nil { // with those that the allocator chose
			have = slices.Concat(have, e.Ports)
		}
		for _, p := range have {
			if p.PublishMode == swarmapi.PublishModeIngress {
				delete(wanted, key{p.PublishedPort, p.Protocol})
			}
		}
	}
	fresh := make([]*swarmapi.PortConfig, 0, len(wanted))
	for _, p := range ports {
		if _, ok := wanted[key{p.PublishedPort, p.Protocol}]; ok {
			fresh = append(fresh, p)
		}
	}
	return fresh, nil
}

// checkPortStart refuses a port that a node may not bind: any node for an
// ingress port, which is opened on each, and all of them for one in host mode.
func checkPortStart(p *swarmapi.PortConfig, nodes []*swarmapi.Node) error {
	var refused error
	for _, n := range nodes {
		start, ok := portStart(n)
		if !ok {
			continue
		}
		if p.PublishedPort >= start {
			if p.PublishMode == swarmapi.PublishModeHost {
				return nil
			}
			continue
		}
		if refused == nil {
			refused = invalid("node %s cannot publish port %d/%s: permission denied: choose a port of %d or more, or lower net.ipv4.ip_unprivileged_port_start there",
				n.Description.Hostname, p.PublishedPort, directory.Protocol(p.Protocol), start)
		}
	}
	return refused
}

// portStart is the lowest port that a node says it may bind. Docker nodes and
// nodes that are away say nothing.
func portStart(n *swarmapi.Node) (uint32, bool) {
	if n.Status.State != swarmapi.NodeStatus_READY || n.Description == nil || n.Description.Engine == nil {
		return 0, false
	}
	start, err := strconv.ParseUint(n.Description.Engine.Labels[LabelPortStart], 10, 16)
	return uint32(start), err == nil
}

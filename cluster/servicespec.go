package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/v2/daemon/cluster/convert"
	"github.com/moby/moby/v2/daemon/server/swarmbackend"
	"github.com/moby/moby/v2/errdefs"
	swarmapi "github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/manager/allocator/networkallocator"

	"github.com/ovnd/ovnd/discovery/directory"
)

// CreateService creates a service. Its networks may be named or given by ID. An
// image stands for a program of the nodes, so no registry is asked, whatever
// the last argument says, and no credentials are kept.
func (c *Cluster) CreateService(spec swarm.ServiceSpec, _ string, _ bool) (*swarm.ServiceCreateResponse, error) {
	return onManager(context.Background(), c, func(ctx context.Context, ctl swarmapi.ControlClient) (*swarm.ServiceCreateResponse, error) {
		s, err := c.serviceSpec(ctx, ctl, spec, nil)
		if err != nil {
			return nil, err
		}
		resp, err := ctl.CreateService(ctx, &swarmapi.CreateServiceRequest{Spec: s})
		if err != nil {
			return nil, err
		}
		return &swarm.ServiceCreateResponse{ID: resp.Service.ID}, nil
	})
}

// UpdateService changes the service with this ID, name or unique ID prefix;
// version is the one that the change is based on. With a rollback to the
// previous spec, the given one counts for nothing.
func (c *Cluster) UpdateService(input string, version uint64, spec swarm.ServiceSpec, opts swarmbackend.ServiceUpdateOptions, _ bool) (*swarm.ServiceUpdateResponse, error) {
	rollback := swarmapi.UpdateServiceRequest_NONE
	switch opts.Rollback {
	case "", "none":
	case "previous":
		rollback = swarmapi.UpdateServiceRequest_PREVIOUS
	default:
		return nil, invalid("unrecognized rollback option %s", opts.Rollback)
	}
	return onManager(context.Background(), c, func(ctx context.Context, ctl swarmapi.ControlClient) (*swarm.ServiceUpdateResponse, error) {
		current, err := findService(ctx, ctl, input)
		if err != nil {
			return nil, err
		}
		s, err := c.serviceSpec(ctx, ctl, spec, current)
		if err != nil {
			return nil, err
		}
		_, err = ctl.UpdateService(ctx, &swarmapi.UpdateServiceRequest{
			ServiceID:      current.ID,
			Spec:           s,
			ServiceVersion: &swarmapi.Version{Index: version},
			Rollback:       rollback,
		})
		if err != nil {
			return nil, err
		}
		return &swarm.ServiceUpdateResponse{}, nil
	})
}

// serviceSpec translates and checks the spec of a service; current is what it
// is to change, or nil.
func (c *Cluster) serviceSpec(ctx context.Context, ctl swarmapi.ControlClient, spec swarm.ServiceSpec, current *swarmapi.Service) (*swarmapi.ServiceSpec, error) {
	if c.cfg.Tasks == nil {
		return nil, errNoServices
	}
	if err := checkRuntime(&spec); err != nil {
		return nil, errdefs.InvalidParameter(err)
	}
	nets, err := ctl.ListNetworks(ctx, &swarmapi.ListNetworksRequest{})
	if err != nil {
		return nil, err
	}
	spec.TaskTemplate.Networks, err = resolveNetworks(nets.Networks, spec.TaskTemplate.Networks)
	if err != nil {
		return nil, err
	}
	if spec.Name == "" {
		spec.Name = serviceName(spec.TaskTemplate.ContainerSpec.Image)
	}
	s, err := convert.ServiceSpecToGRPC(spec)
	if err != nil {
		return nil, errdefs.InvalidParameter(err)
	}
	if forOthers(&s) {
		return &s, nil
	}
	if err := checkServiceSpec(&s); err != nil {
		return nil, err
	}
	if err := checkWay(s.Annotations.Labels); err != nil {
		return nil, err
	}
	if err := checkServiceNetworks(ctx, ctl, nets.Networks, spec.TaskTemplate.Networks, current); err != nil {
		return nil, err
	}
	return &s, c.checkPublished(ctx, ctl, s.Endpoint)
}

// checkWay refuses labels that ask for a way to carry connections that there is
// not.
func checkWay(labels map[string]string) error {
	value, asked := labels[directory.LabelWay]
	way, err := directory.ParseWay(value)
	if err == nil && asked && way == directory.DefaultWay {
		err = fmt.Errorf("label %s is empty: want %s or %s", directory.LabelWay, directory.Proxied, directory.Direct)
	}
	if err != nil {
		return errdefs.InvalidParameter(err)
	}
	return nil
}

// checkRuntime refuses what is no command.
func checkRuntime(spec *swarm.ServiceSpec) error {
	t := &spec.TaskTemplate
	switch {
	case t.NetworkAttachmentSpec != nil || t.Runtime == swarm.RuntimeNetworkAttachment:
		return fmt.Errorf("invalid task spec: spec type %q not supported", swarm.RuntimeNetworkAttachment)
	case t.PluginSpec != nil || t.Runtime == swarm.RuntimePlugin:
		return fmt.Errorf("runtime type %q is not supported: ovnd runs commands; plugins need Docker nodes", swarm.RuntimePlugin)
	case t.Runtime != "" && t.Runtime != swarm.RuntimeContainer:
		return fmt.Errorf("unsupported runtime type: %q", t.Runtime)
	case t.ContainerSpec == nil:
		return errors.New("service does not use container tasks")
	case hasNull(t):
		return errors.New("a list in the service's spec has null as an element")
	}
	return nil
}

// hasNull recognises what moby's translation would dereference.
func hasNull(t *swarm.TaskSpec) bool {
	c := t.ContainerSpec
	if slices.Contains(c.Secrets, nil) || slices.Contains(c.Configs, nil) || slices.Contains(c.Ulimits, nil) {
		return true
	}
	if t.Resources == nil || t.Resources.Reservations == nil {
		return false
	}
	return slices.ContainsFunc(t.Resources.Reservations.GenericResources, func(g swarm.GenericResource) bool {
		return g.NamedResourceSpec == nil && g.DiscreteResourceSpec == nil
	})
}

// forOthers recognises services that keep off ovnd's nodes in a swarm that
// these share with Docker nodes: what ovnd cannot honour does not matter.
func forOthers(s *swarmapi.ServiceSpec) bool {
	if s.Task.Placement == nil {
		return false
	}
	return slices.ContainsFunc(s.Task.Placement.Constraints, func(c string) bool {
		return strings.ReplaceAll(c, " ", "") == "engine.labels."+LabelOvnd+"!=true"
	})
}

// hostNetworks are the names of networks that Docker's hosts have for
// themselves. A network of the swarm may have such a name as well, and wins.
var hostNetworks = []string{"host", "none", "docker_gwbridge"}

// resolveNetworks replaces names and ID prefixes of networks by IDs.
func resolveNetworks(nets []*swarmapi.Network, wanted []swarm.NetworkAttachmentConfig) ([]swarm.NetworkAttachmentConfig, error) {
	out := slices.Clone(wanted)
	for i := range out {
		n, err := serviceNetwork(nets, out[i].Target)
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(out[:i], func(o swarm.NetworkAttachmentConfig) bool { return o.Target == n.ID }) {
			return nil, invalid("network %s is named twice: leave one --network out", n.Spec.Annotations.Name)
		}
		out[i].Target = n.ID
	}
	return out, nil
}

// serviceNetwork finds a network that a service can be on.
func serviceNetwork(nets []*swarmapi.Network, input string) (*swarmapi.Network, error) {
	n, err := pickNetwork(nets, input)
	if err != nil {
		if isNotFound(err) && slices.Contains(hostNetworks, input) {
			return nil, swarmScopeOnly(input)
		}
		return nil, err
	}
	name := n.Spec.Annotations.Name
	if n.Spec.Annotations.Labels[networkallocator.PredefinedLabel] == "true" && name != bridgeNetwork {
		return nil, swarmScopeOnly(name)
	}
	return n, nil
}

// serviceName makes up a name for a service of this image.
func serviceName(image string) string {
	_, command := imageNames(image)
	base := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, command[strings.LastIndexByte(command, '/')+1:])
	if base == "" {
		base = "service"
	}
	return base[:min(len(base), 40)] + "-" + strings.ToLower(rand.Text()[:8])
}

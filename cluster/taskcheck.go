package cluster

import (
	"errors"
	"fmt"
	"math"
	"path"
	"strings"

	"github.com/moby/moby/v2/errdefs"
	swarmapi "github.com/moby/swarmkit/v2/api"
)

// A refusal is a field of a task's spec that ovnd cannot honour.
type refusal struct {
	set    bool
	flag   string
	remedy string
}

// checkTaskSpec refuses what this node could only ignore. A manager asks before
// it creates a service, and the node that gets a task of another manager asks
// again.
func checkTaskSpec(t *swarmapi.TaskSpec) error {
	c := t.GetContainer()
	if c == nil {
		return errors.New("this service has no container to run: ovnd runs commands; plugins and other runtimes need Docker nodes")
	}
	refusals := append(resourceRefusals(t, c), privilegeRefusals(c)...)
	for _, r := range refusals {
		if r.set {
			return fmt.Errorf("%s is not supported: %s", r.flag, r.remedy)
		}
	}
	if err := checkMounts(c.Mounts); err != nil {
		return err
	}
	if err := checkFiles(c); err != nil {
		return err
	}
	if err := checkHealth(c.Healthcheck); err != nil {
		return err
	}
	_, err := logLimits(t.LogDriver)
	return err
}

func resourceRefusals(t *swarmapi.TaskSpec, c *swarmapi.ContainerSpec) []refusal {
	const noCgroup = "ovnd's tasks are processes of its user without a cgroup of their own; leave it out, "
	limits := &swarmapi.Resources{}
	var swap, swappiness bool
	if r := t.Resources; r != nil {
		if r.Limits != nil {
			limits = r.Limits
		}
		swap, swappiness = r.SwapBytes != nil, r.MemorySwappiness != nil
	}
	return []refusal{
		{limits.NanoCPUs != 0, "--limit-cpu", noCgroup + "and spread load with --reserve-cpu"},
		{limits.MemoryBytes != 0, "--limit-memory", noCgroup + "and bound a process with --ulimit data=<bytes>"},
		{c.PidsLimit != 0, "--limit-pids", noCgroup + "and bound a user's processes with --ulimit nproc=<number>"},
		{swap, "--memory-swap", noCgroup + "swap is the host's affair"},
		{swappiness, "--memory-swappiness", noCgroup + "swap is the host's affair"},
		{c.OomScoreAdj != 0, "--oom-score-adj", "leave it out"},
	}
}

func privilegeRefusals(c *swarmapi.ContainerSpec) []refusal {
	p := c.Privileges
	if p == nil {
		p = &swarmapi.Privileges{}
	}
	return []refusal{
		{len(c.CapabilityAdd) > 0, "--cap-add", "a task of ovnd has no capabilities, as its user has none; leave it out"},
		{c.ReadOnly, "--read-only", "a task of ovnd sees its node's files as the node's user does; leave it out, and bind what must stay as it is with --mount …,readonly"},
		{len(c.Sysctls) > 0, "--sysctl", "leave it out"},
		{len(c.Groups) > 0, "--group", "a task of ovnd has its user's groups; leave it out"},
		{c.Isolation != swarmapi.ContainerIsolationDefault, "--isolation", "it is for Windows; leave it out"},
		{p.CredentialSpec != nil, "--credential-spec", "it is for Windows; leave it out"},
		{p.SELinuxContext != nil, "Privileges.SELinuxContext", "leave it out"},
		{p.Seccomp != nil && p.Seccomp.Mode != swarmapi.Privileges_SeccompOpts_DEFAULT, "Privileges.Seccomp", "leave it out"},
		{p.Apparmor != nil && p.Apparmor.Mode != swarmapi.Privileges_AppArmorOpts_DEFAULT, "Privileges.AppArmor", "leave it out"},
	}
}

func checkMounts(mounts []swarmapi.Mount) error {
	for _, m := range mounts {
		switch {
		case !isPath(m.Target):
			return fmt.Errorf("invalid mount target, must be an absolute path: %s", m.Target)
		case m.Type == swarmapi.MountTypeBind && !isPath(m.Source):
			return fmt.Errorf("invalid bind mount source, must be an absolute path: %s", m.Source)
		case m.Type == swarmapi.MountTypeTmpfs:
			return fmt.Errorf("--mount type=tmpfs,target=%s is not supported: /tmp and /run of a task are private already; leave it out", m.Target)
		case m.Type != swarmapi.MountTypeBind:
			return fmt.Errorf("--mount target=%s is not supported: ovnd keeps no volumes; use type=bind with a folder that each node has", m.Target)
		}
		b := m.BindOptions
		if b == nil {
			continue
		}
		if b.Propagation != swarmapi.MountPropagationRPrivate {
			return fmt.Errorf("--mount target=%s,bind-propagation is not supported: a mount in a task stays there (rprivate); leave bind-propagation out", m.Target)
		}
		if b.NonRecursive || b.CreateMountpoint || b.ReadOnlyNonRecursive || b.ReadOnlyForceRecursive {
			return fmt.Errorf("--mount target=%s: of the bind options ovnd knows none; leave them out", m.Target)
		}
	}
	return nil
}

// isPath accepts absolute paths, and templates, of which only the node that gets
// the task knows what they come to.
func isPath(s string) bool { return path.IsAbs(s) || strings.Contains(s, "{{") }

// checkFiles refuses owners of secrets and configs: a sandbox has one user.
func checkFiles(c *swarmapi.ContainerSpec) error {
	check := func(flag, name string, f *swarmapi.FileTarget) error {
		if f == nil {
			return fmt.Errorf("%s %s without a file is not supported: give it a target", flag, name)
		}
		if f.UID != "" && f.UID != "0" || f.GID != "" && f.GID != "0" {
			return fmt.Errorf("%s %s: uid and gid are not supported: the file belongs to the task's user; leave them out", flag, name)
		}
		return nil
	}
	for _, s := range c.Secrets {
		if err := check("--secret", s.SecretName, s.GetFile()); err != nil {
			return err
		}
	}
	for _, s := range c.Configs {
		if err := check("--config", s.ConfigName, s.GetFile()); err != nil {
			return err
		}
	}
	return nil
}

func checkHealth(h *swarmapi.HealthConfig) error {
	if h == nil || len(h.Test) == 0 {
		return nil
	}
	switch form, args := h.Test[0], len(h.Test)-1; form {
	case "NONE":
		return nil
	case "CMD":
		if args > 0 {
			return nil
		}
	case "CMD-SHELL":
		if args == 1 {
			return nil
		}
	default:
		return fmt.Errorf("health check %q: want NONE, CMD or CMD-SHELL first", form)
	}
	return fmt.Errorf("health check %s: want a command behind it, in one string for CMD-SHELL", h.Test[0])
}

// checkEndpointSpec refuses ports that cannot exist, which SwarmKit lets pass.
func checkEndpointSpec(e *swarmapi.EndpointSpec) error {
	if e == nil {
		return nil
	}
	for _, p := range e.Ports {
		switch {
		case p.TargetPort == 0 || p.TargetPort > math.MaxUint16:
			return fmt.Errorf("invalid port: target %d of -p is not in the range 1-65535", p.TargetPort)
		case p.PublishedPort > math.MaxUint16:
			return fmt.Errorf("invalid port: published %d of -p is not in the range 0-65535", p.PublishedPort)
		case p.Protocol == swarmapi.ProtocolSCTP:
			return fmt.Errorf("-p %d:%d/sctp is not supported: ovnd publishes tcp and udp; tasks speak sctp on their networks", p.PublishedPort, p.TargetPort)
		}
	}
	return nil
}

// checkServiceSpec refuses a service that ovnd could not run as it is meant.
func checkServiceSpec(s *swarmapi.ServiceSpec) error {
	err := checkTaskSpec(&s.Task)
	if err == nil {
		err = checkEndpointSpec(s.Endpoint)
	}
	for _, na := range s.Task.Networks {
		if err == nil && len(na.DriverAttachmentOpts) > 0 {
			err = errors.New("--network driver-opt is not supported: overlay networks have no options per task; leave it out")
		}
	}
	if err != nil {
		return errdefs.InvalidParameter(err)
	}
	return nil
}

// swarmScopeOnly is Docker's answer to a service on a network of one host.
func swarmScopeOnly(name string) error {
	return errdefs.Forbidden(fmt.Errorf("The network %s cannot be used with services. Only networks scoped to the swarm can be used, such as those created with the overlay driver.", name)) //nolint:staticcheck,revive // Docker's words
}

package cluster

import (
	"context"
	"strings"

	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/v2/daemon/cluster/convert"
	"github.com/moby/moby/v2/daemon/server/swarmbackend"
	swarmapi "github.com/moby/swarmkit/v2/api"
)

// GetServices lists services. Filters: name and id (prefixes), label, mode, runtime.
func (c *Cluster) GetServices(opts swarmbackend.ServiceListOptions) ([]swarm.Service, error) {
	accepted := map[string]bool{"name": true, "id": true, "label": true, "mode": true, "runtime": true}
	if err := opts.Filters.Validate(accepted); err != nil {
		return nil, err
	}
	runtimes := opts.Filters.Get("runtime")
	if len(runtimes) == 0 {
		runtimes = []string{string(swarm.RuntimeContainer)}
	}
	f := &swarmapi.ListServicesRequest_Filters{
		NamePrefixes: opts.Filters.Get("name"),
		IDPrefixes:   opts.Filters.Get("id"),
		Labels:       labelFilters(opts.Filters.Get("label")),
		Runtimes:     runtimes,
	}
	return onManager(context.Background(), c, func(ctx context.Context, ctl swarmapi.ControlClient) ([]swarm.Service, error) {
		resp, err := ctl.ListServices(ctx, &swarmapi.ListServicesRequest{Filters: f})
		if err != nil {
			return nil, err
		}
		services := make([]swarm.Service, 0, len(resp.Services))
		for _, s := range resp.Services {
			if opts.Filters.Contains("mode") && !opts.Filters.ExactMatch("mode", serviceMode(s)) {
				continue
			}
			svc, err := convert.ServiceFromGRPC(*s)
			if err != nil {
				return nil, err
			}
			services = append(services, svc)
		}
		if opts.Status {
			err = addStatuses(ctx, ctl, services)
		}
		return services, err
	})
}

func serviceMode(s *swarmapi.Service) string {
	switch s.Spec.GetMode().(type) {
	case *swarmapi.ServiceSpec_Global:
		return "global"
	case *swarmapi.ServiceSpec_ReplicatedJob:
		return "replicated-job"
	case *swarmapi.ServiceSpec_GlobalJob:
		return "global-job"
	}
	return "replicated"
}

// addStatuses adds the counts of tasks that `service ls` shows.
func addStatuses(ctx context.Context, ctl swarmapi.ControlClient, services []swarm.Service) error {
	if len(services) == 0 {
		return nil
	}
	byID := make(map[string]*swarm.Service, len(services))
	ids := make([]string, len(services))
	for i := range services {
		ids[i] = services[i].ID
		byID[ids[i]] = &services[i]
	}
	resp, err := ctl.ListServiceStatuses(ctx, &swarmapi.ListServiceStatusesRequest{Services: ids})
	if err != nil {
		return err
	}
	for _, st := range resp.Statuses {
		if svc := byID[st.ServiceID]; svc != nil {
			svc.ServiceStatus = &swarm.ServiceStatus{
				RunningTasks:   st.RunningTasks,
				DesiredTasks:   st.DesiredTasks,
				CompletedTasks: st.CompletedTasks,
			}
		}
	}
	return nil
}

// GetService returns the service with this ID, name or unique ID prefix.
func (c *Cluster) GetService(input string, insertDefaults bool) (swarm.Service, error) {
	return onManager(context.Background(), c, func(ctx context.Context, ctl swarmapi.ControlClient) (swarm.Service, error) {
		s, err := findService(ctx, ctl, input)
		if err != nil {
			return swarm.Service{}, err
		}
		if insertDefaults {
			resp, err := ctl.GetService(ctx, &swarmapi.GetServiceRequest{ServiceID: s.ID, InsertDefaults: true})
			if err != nil {
				return swarm.Service{}, err
			}
			s = resp.Service
		}
		return convert.ServiceFromGRPC(*s)
	})
}

// RemoveService removes the service with this ID, name or unique ID prefix.
func (c *Cluster) RemoveService(input string) error {
	_, err := onManager(context.Background(), c, func(ctx context.Context, ctl swarmapi.ControlClient) (*swarmapi.RemoveServiceResponse, error) {
		s, err := findService(ctx, ctl, input)
		if err != nil {
			return nil, err
		}
		return ctl.RemoveService(ctx, &swarmapi.RemoveServiceRequest{ServiceID: s.ID})
	})
	return err
}

// GetTasks lists the tasks of services, as Docker does: network attachments
// are not among them.
func (c *Cluster) GetTasks(opts swarmbackend.TaskListOptions) ([]swarm.Task, error) {
	accepted := map[string]bool{
		"name": true, "id": true, "label": true, "service": true, "node": true,
		"desired-state": true, "_up-to-date": true, "runtime": true,
	}
	if err := opts.Filters.Validate(accepted); err != nil {
		return nil, err
	}
	f := &swarmapi.ListTasksRequest_Filters{
		NamePrefixes: opts.Filters.Get("name"),
		IDPrefixes:   opts.Filters.Get("id"),
		Labels:       labelFilters(opts.Filters.Get("label")),
		UpToDate:     len(opts.Filters.Get("_up-to-date")) != 0,
		Runtimes:     opts.Filters.Get("runtime"),
	}
	if len(f.Runtimes) == 0 {
		f.Runtimes = []string{string(swarm.RuntimeContainer), ""}
	}
	for _, s := range opts.Filters.Get("desired-state") {
		state, ok := swarmapi.TaskState_value[strings.ToUpper(s)]
		if !ok {
			return nil, invalid("Invalid desired-state filter: '%s'", s)
		}
		f.DesiredStates = append(f.DesiredStates, swarmapi.TaskState(state))
	}
	return onManager(context.Background(), c, func(ctx context.Context, ctl swarmapi.ControlClient) ([]swarm.Task, error) {
		if err := addIDs(ctx, ctl, f, opts.Filters.Get("service"), opts.Filters.Get("node")); err != nil {
			return nil, err
		}
		resp, err := ctl.ListTasks(ctx, &swarmapi.ListTasksRequest{Filters: f})
		if err != nil {
			return nil, err
		}
		tasks := make([]swarm.Task, 0, len(resp.Tasks))
		for _, t := range resp.Tasks {
			task, err := convert.TaskFromGRPC(*t)
			if err != nil {
				return nil, err
			}
			tasks = append(tasks, task)
		}
		return tasks, nil
	})
}

// addIDs adds services and nodes, which users may name, by the IDs that the
// filter wants.
func addIDs(ctx context.Context, ctl swarmapi.ControlClient, f *swarmapi.ListTasksRequest_Filters, services, nodes []string) error {
	for _, input := range services {
		s, err := findService(ctx, ctl, input)
		if err != nil {
			return err
		}
		f.ServiceIDs = append(f.ServiceIDs, s.ID)
	}
	for _, input := range nodes {
		n, err := findNode(ctx, ctl, input)
		if err != nil {
			return err
		}
		f.NodeIDs = append(f.NodeIDs, n.ID)
	}
	return nil
}

// GetTask returns the task with this ID, name or unique ID prefix.
func (c *Cluster) GetTask(input string) (swarm.Task, error) {
	return onManager(context.Background(), c, func(ctx context.Context, ctl swarmapi.ControlClient) (swarm.Task, error) {
		t, err := findTask(ctx, ctl, input)
		if err != nil {
			return swarm.Task{}, err
		}
		return convert.TaskFromGRPC(*t)
	})
}

package cluster

import (
	"context"
	"errors"
	"fmt"

	"github.com/moby/moby/v2/errdefs"
	swarmapi "github.com/moby/swarmkit/v2/api"
)

// control returns the control API of the local manager, or Docker's words for
// why there is none.
func (c *Cluster) controlClient() (swarmapi.ControlClient, error) {
	r, _ := c.current()
	st := r.snapshot()
	switch {
	case st.control != nil:
		return st.control, nil
	case st.node == nil:
		if errors.Is(st.err, errSwarmLocked) || errors.Is(st.err, errCertExpired) {
			return nil, st.err
		}
		return nil, errNotInSwarm
	case st.node.Manager() != nil:
		return nil, errManagerNotReady
	}
	return nil, errWorker
}

// onManager makes one bounded request, or several, to the local manager.
func onManager[T any](ctx context.Context, c *Cluster, f func(context.Context, swarmapi.ControlClient) (T, error)) (T, error) {
	ctl, err := c.controlClient()
	if err != nil {
		var zero T
		return zero, err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return f(ctx, ctl)
}

// find looks an object up as Docker does: by full ID, else by full name, else
// by ID prefix, which must then be unique.
func find[T any](kind, input string, id func(T) string, list func(names, idPrefixes []string) ([]T, error)) (T, error) {
	var zero T
	byPrefix, err := list(nil, []string{input})
	if err != nil {
		return zero, err
	}
	for _, obj := range byPrefix {
		if id(obj) == input {
			return obj, nil
		}
	}
	matches, err := list([]string{input}, nil)
	if err != nil {
		return zero, err
	}
	if len(matches) == 0 {
		matches = byPrefix
	}
	switch len(matches) {
	case 0:
		return zero, notFound(kind, input)
	case 1:
		return matches[0], nil
	}
	return zero, errdefs.InvalidParameter(fmt.Errorf("%s %s is ambiguous (%d matches found)", kind, input, len(matches)))
}

func findNode(ctx context.Context, ctl swarmapi.ControlClient, input string) (*swarmapi.Node, error) {
	return find("node", input, func(o *swarmapi.Node) string { return o.ID }, func(names, idPrefixes []string) ([]*swarmapi.Node, error) {
		resp, err := ctl.ListNodes(ctx, &swarmapi.ListNodesRequest{
			Filters: &swarmapi.ListNodesRequest_Filters{Names: names, IDPrefixes: idPrefixes},
		})
		if err != nil {
			return nil, err
		}
		return resp.Nodes, nil
	})
}

func findService(ctx context.Context, ctl swarmapi.ControlClient, input string) (*swarmapi.Service, error) {
	return find("service", input, func(o *swarmapi.Service) string { return o.ID }, func(names, idPrefixes []string) ([]*swarmapi.Service, error) {
		resp, err := ctl.ListServices(ctx, &swarmapi.ListServicesRequest{
			Filters: &swarmapi.ListServicesRequest_Filters{Names: names, IDPrefixes: idPrefixes},
		})
		if err != nil {
			return nil, err
		}
		return resp.Services, nil
	})
}

func findTask(ctx context.Context, ctl swarmapi.ControlClient, input string) (*swarmapi.Task, error) {
	return find("task", input, func(o *swarmapi.Task) string { return o.ID }, func(names, idPrefixes []string) ([]*swarmapi.Task, error) {
		resp, err := ctl.ListTasks(ctx, &swarmapi.ListTasksRequest{
			Filters: &swarmapi.ListTasksRequest_Filters{Names: names, IDPrefixes: idPrefixes},
		})
		if err != nil {
			return nil, err
		}
		return resp.Tasks, nil
	})
}

func findSecret(ctx context.Context, ctl swarmapi.ControlClient, input string) (*swarmapi.Secret, error) {
	return find("secret", input, func(o *swarmapi.Secret) string { return o.ID }, func(names, idPrefixes []string) ([]*swarmapi.Secret, error) {
		resp, err := ctl.ListSecrets(ctx, &swarmapi.ListSecretsRequest{
			Filters: &swarmapi.ListSecretsRequest_Filters{Names: names, IDPrefixes: idPrefixes},
		})
		if err != nil {
			return nil, err
		}
		return resp.Secrets, nil
	})
}

func findConfig(ctx context.Context, ctl swarmapi.ControlClient, input string) (*swarmapi.Config, error) {
	return find("config", input, func(o *swarmapi.Config) string { return o.ID }, func(names, idPrefixes []string) ([]*swarmapi.Config, error) {
		resp, err := ctl.ListConfigs(ctx, &swarmapi.ListConfigsRequest{
			Filters: &swarmapi.ListConfigsRequest_Filters{Names: names, IDPrefixes: idPrefixes},
		})
		if err != nil {
			return nil, err
		}
		return resp.Configs, nil
	})
}

// labelFilters reads the key=value terms of a label filter.
func labelFilters(terms []string) map[string]string {
	m := make(map[string]string, len(terms))
	for _, t := range terms {
		k, v := cutLabel(t)
		m[k] = v
	}
	return m
}

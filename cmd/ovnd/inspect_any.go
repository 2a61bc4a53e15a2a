package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

// A kind is one type of thing that can be inspected.
type kind struct {
	name  string
	swarm bool // only managers know any
	get   func(ctx context.Context, api *client.Client, ref string) (object, error)
}

// kinds are those that a node has, in docker's order of trying them.
var kinds = []kind{
	{"container", false, func(ctx context.Context, api *client.Client, ref string) (object, error) {
		res, err := api.ContainerInspect(ctx, ref, client.ContainerInspectOptions{})
		return object{res.Container, res.Raw}, err
	}},
	{"network", false, func(ctx context.Context, api *client.Client, ref string) (object, error) {
		res, err := api.NetworkInspect(ctx, ref, client.NetworkInspectOptions{})
		return object{res.Network, res.Raw}, err
	}},
	{"service", true, func(ctx context.Context, api *client.Client, ref string) (object, error) {
		res, err := api.ServiceInspect(ctx, ref, client.ServiceInspectOptions{InsertDefaults: true})
		return object{res.Service, res.Raw}, err
	}},
	{"task", true, func(ctx context.Context, api *client.Client, ref string) (object, error) {
		res, err := api.TaskInspect(ctx, ref, client.TaskInspectOptions{})
		return object{res.Task, res.Raw}, err
	}},
	{"node", true, func(ctx context.Context, api *client.Client, ref string) (object, error) {
		res, err := api.NodeInspect(ctx, ref, client.NodeInspectOptions{})
		return object{res.Node, res.Raw}, err
	}},
}

func newInspectCommand(c *cli) *cobra.Command {
	var format, only string
	cmd := &cobra.Command{
		Use:   "inspect [OPTIONS] NAME|ID [NAME|ID...]",
		Short: "Return low-level information on tasks, networks, services and nodes",
		Example: `  ovnd inspect my-test my_net
  ovnd inspect --type task --format '{{.Status.State}}' js3kw89zbb09`,
		Args: someArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := knownKind(cmd, only); err != nil {
				return err
			}
			api, err := c.docker()
			if err != nil {
				return err
			}
			return inspect(cmd.Context(), c, args, format, func(ctx context.Context, ref string) (object, error) {
				return inspectAny(ctx, api, ref, only)
			})
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", inspectFormatHelp)
	cmd.Flags().StringVar(&only, "type", "", "Only inspect objects of the given type")
	completeValues(cmd, "type", kindNames()...)
	return cmd
}

func kindNames() []string {
	names := make([]string, 0, len(kinds))
	for _, k := range kinds {
		names = append(names, k.name)
	}
	return names
}

func knownKind(cmd *cobra.Command, name string) error {
	if !cmd.Flags().Changed("type") || slices.Contains(kindNames(), name) {
		return nil
	}
	known := strings.Join(kindNames(), `", "`)
	if name == "" {
		return fmt.Errorf(`type is empty: must be one of "%s"`, known)
	}
	return fmt.Errorf(`unknown type: %q: must be one of "%s"`, name, known)
}

// inspectAny finds the first thing of the name or ID. A node that is no
// manager has none of the kinds that only managers know.
func inspectAny(ctx context.Context, api *client.Client, ref, only string) (object, error) {
	for _, k := range kinds {
		if only != "" && only != k.name {
			continue
		}
		o, err := k.get(ctx, api, ref)
		notHere := errdefs.IsNotFound(err) || k.swarm && errdefs.IsUnavailable(err)
		if only == "" && notHere {
			continue
		}
		return o, err
	}
	return object{}, fmt.Errorf("error: no such object: %s", ref)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/docker/cli/opts"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

func newNodeUpdateCommand(c *cli) *cobra.Command {
	var availability, role string
	add, remove := opts.NewListOpts(opts.ValidateLabel), opts.NewListOpts(nil)
	cmd := &cobra.Command{
		Use:               "update [OPTIONS] NODE",
		Short:             "Update a node",
		Args:              oneArg,
		ValidArgsFunction: c.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			return updateNodes(cmd.Context(), c, args, func(_ string, spec *swarm.NodeSpec) error {
				if role != "" {
					spec.Role = swarm.NodeRole(role)
				}
				if availability != "" {
					spec.Availability = swarm.NodeAvailability(availability)
				}
				return updateLabels(spec, add.GetSlice(), remove.GetSlice())
			}, func(ref string) { fmt.Fprintln(c.out, ref) })
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&availability, "availability", "", `Availability of the node ("active", "pause", "drain")`)
	flags.Var(&add, "label-add", `Add or update a node label ("key=value")`)
	flags.Var(&remove, "label-rm", "Remove a node label if exists")
	flags.StringVar(&role, "role", "", `Role of the node ("worker", "manager")`)
	completeValues(cmd, "availability", "active", "pause", "drain")
	completeValues(cmd, "role", "worker", "manager")
	return cmd
}

func updateLabels(spec *swarm.NodeSpec, add, remove []string) error {
	if spec.Labels == nil {
		spec.Labels = make(map[string]string)
	}
	for _, key := range remove {
		if _, ok := spec.Labels[key]; !ok {
			return fmt.Errorf("key %s doesn't exist in node's labels", key)
		}
		delete(spec.Labels, key)
	}
	maps.Copy(spec.Labels, opts.ConvertKVStringsToMap(add))
	return nil
}

// errUnchanged stops an update without being a failure.
var errUnchanged = errors.New("nothing to change")

// updateNodes reads the spec of each node, lets change edit it, writes it back
// under the version it was read at, and calls done. It ends at the first error.
func updateNodes(ctx context.Context, c *cli, refs []string, change func(id string, spec *swarm.NodeSpec) error, done func(ref string)) error {
	api, err := c.docker()
	if err != nil {
		return err
	}
	for _, ref := range refs {
		res, err := api.NodeInspect(ctx, ref, client.NodeInspectOptions{})
		if err != nil {
			return err
		}
		err = change(res.Node.ID, &res.Node.Spec)
		if errors.Is(err, errUnchanged) {
			continue
		}
		if err != nil {
			return err
		}
		if _, err := api.NodeUpdate(ctx, res.Node.ID, client.NodeUpdateOptions{Version: res.Node.Version, Spec: res.Node.Spec}); err != nil {
			return err
		}
		done(ref)
	}
	return nil
}

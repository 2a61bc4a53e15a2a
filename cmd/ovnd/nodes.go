package main

import (
	"context"
	"fmt"

	"github.com/docker/cli/opts"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

func newNodeCommand(c *cli) *cobra.Command {
	return newGroup("node", "Manage Swarm nodes",
		newRoleCommand(c, "demote", "Demote one or more nodes from manager in the swarm", swarm.NodeRoleWorker),
		newNodeInspectCommand(c),
		newNodeListCommand(c),
		newRoleCommand(c, "promote", "Promote one or more nodes to manager in the swarm", swarm.NodeRoleManager),
		newNodeRemoveCommand(c),
		newNodeUpdateCommand(c),
	)
}

func newNodeListCommand(c *cli) *cobra.Command {
	filter := opts.NewFilterOpt()
	var format string
	var quiet bool
	cmd := &cobra.Command{
		Use:     "ls [OPTIONS]",
		Aliases: []string{"list"},
		Short:   "List nodes in the swarm",
		Example: `  ovnd node ls --filter role=manager
  ovnd node ls --format '{{.Hostname}}: {{.Status}}'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := c.docker()
			if err != nil {
				return err
			}
			list, err := api.NodeList(cmd.Context(), client.NodeListOptions{Filters: filter.Value()})
			if err != nil {
				return err
			}
			info, err := api.Info(cmd.Context(), client.InfoOptions{})
			if err != nil {
				return err
			}
			return writeNodes(c.out, list.Items, info.Info.Swarm, format, quiet)
		},
	}
	flags := cmd.Flags()
	flags.VarP(&filter, "filter", "f", "Filter output based on conditions provided")
	flags.StringVar(&format, "format", "", listFormatHelp)
	flags.BoolVarP(&quiet, "quiet", "q", false, "Only display IDs")
	return cmd
}

func newNodeInspectCommand(c *cli) *cobra.Command {
	var format string
	var pretty bool
	cmd := &cobra.Command{
		Use:               "inspect [OPTIONS] self|NODE [NODE...]",
		Short:             "Display detailed information on one or more nodes",
		Args:              someArgs,
		ValidArgsFunction: c.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.docker()
			if err != nil {
				return err
			}
			get := func(ctx context.Context, ref string) (object, error) {
				id, err := nodeRef(ctx, api, ref)
				if err != nil {
					return object{}, err
				}
				res, err := api.NodeInspect(ctx, id, client.NodeInspectOptions{})
				return object{res.Node, res.Raw}, err
			}
			if pretty {
				return prettyNodes(cmd.Context(), c.out, args, get)
			}
			return inspect(cmd.Context(), c, args, format, get)
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&format, "format", "f", "", inspectFormatHelp)
	flags.BoolVar(&pretty, "pretty", false, "Print the information in a human friendly format")
	return cmd
}

// nodeRef resolves "self". A node that is not a manager does not know itself
// by the API: it answers with the error that says so.
func nodeRef(ctx context.Context, api *client.Client, ref string) (string, error) {
	if ref != "self" {
		return ref, nil
	}
	info, err := api.Info(ctx, client.InfoOptions{})
	if err != nil {
		return "", err
	}
	if info.Info.Swarm.NodeID == "" {
		_, err := api.NodeList(ctx, client.NodeListOptions{})
		return "", err
	}
	return info.Info.Swarm.NodeID, nil
}

// newRoleCommand makes `promote` and `demote`.
func newRoleCommand(c *cli, verb, short string, role swarm.NodeRole) *cobra.Command {
	return &cobra.Command{
		Use:               verb + " NODE [NODE...]",
		Short:             short,
		Args:              someArgs,
		ValidArgsFunction: c.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			return updateNodes(cmd.Context(), c, args, func(id string, spec *swarm.NodeSpec) error {
				if spec.Role == role {
					fmt.Fprintf(c.out, "Node %s is already a %s.\n", id, role)
					return errUnchanged
				}
				spec.Role = role
				return nil
			}, func(ref string) {
				if role == swarm.NodeRoleManager {
					fmt.Fprintf(c.out, "Node %s promoted to a manager in the swarm.\n", ref)
				} else {
					fmt.Fprintf(c.out, "Manager %s demoted in the swarm.\n", ref)
				}
			})
		},
	}
}

func newNodeRemoveCommand(c *cli) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:               "rm [OPTIONS] NODE [NODE...]",
		Aliases:           []string{"remove"},
		Short:             "Remove one or more nodes from the swarm",
		Args:              someArgs,
		ValidArgsFunction: c.completeNodes,
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.docker()
			if err != nil {
				return err
			}
			return c.eachRef(cmd.Context(), args, func(ctx context.Context, ref string) error {
				if _, err := api.NodeRemove(ctx, ref, client.NodeRemoveOptions{Force: force}); err != nil {
					return err
				}
				fmt.Fprintln(c.out, ref)
				return nil
			})
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Force remove a node from the swarm")
	return cmd
}

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/cli/opts"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

func newNetworkCommand(c *cli) *cobra.Command {
	return newGroup("network", "Manage networks",
		newNetworkCreateCommand(c),
		newNetworkInspectCommand(c),
		newNetworkListCommand(c),
		newNetworkPruneCommand(c),
		newNetworkRemoveCommand(c),
	)
}

func newNetworkListCommand(c *cli) *cobra.Command {
	filter := opts.NewFilterOpt()
	var format string
	var quiet, noTrunc bool
	cmd := &cobra.Command{
		Use:     "ls [OPTIONS]",
		Aliases: []string{"list"},
		Short:   "List networks",
		Example: `  ovnd network ls --filter driver=overlay
  ovnd network ls --format 'table {{.ID}}\t{{.Name}}\t{{.Labels}}'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := c.docker()
			if err != nil {
				return err
			}
			list, err := api.NetworkList(cmd.Context(), client.NetworkListOptions{Filters: filter.Value()})
			if err != nil {
				return err
			}
			return writeNetworks(c.out, list.Items, format, quiet, !noTrunc)
		},
	}
	flags := cmd.Flags()
	flags.VarP(&filter, "filter", "f", `Provide filter values (e.g. "driver=overlay")`)
	flags.StringVar(&format, "format", "", listFormatHelp)
	flags.BoolVar(&noTrunc, "no-trunc", false, "Do not truncate the output")
	flags.BoolVarP(&quiet, "quiet", "q", false, "Only display network IDs")
	return cmd
}

func newNetworkInspectCommand(c *cli) *cobra.Command {
	var format string
	var verbose bool
	cmd := &cobra.Command{
		Use:   "inspect [OPTIONS] NETWORK [NETWORK...]",
		Short: "Display detailed information on one or more networks",
		Example: `  ovnd network inspect my_net
  ovnd network inspect --format '{{(index .IPAM.Config 0).Subnet}}' my_net`,
		Args:              someArgs,
		ValidArgsFunction: c.completeNetworks,
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.docker()
			if err != nil {
				return err
			}
			return inspect(cmd.Context(), c, args, format, func(ctx context.Context, ref string) (object, error) {
				res, err := api.NetworkInspect(ctx, ref, client.NetworkInspectOptions{Verbose: verbose})
				return object{res.Network, res.Raw}, err
			})
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&format, "format", "f", "", inspectFormatHelp)
	flags.BoolVarP(&verbose, "verbose", "v", false, "Show the endpoints of the whole swarm, not only this node's")
	return cmd
}

// ingressWarning is docker's, word for word but for the engine's name.
const ingressWarning = "WARNING! Before removing the routing-mesh network, make sure all the nodes in your swarm run the same ovnd version. " +
	"Otherwise, removal may not be effective and functionality of newly create ingress networks will be impaired."

func newNetworkRemoveCommand(c *cli) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:               "rm NETWORK [NETWORK...]",
		Aliases:           []string{"remove"},
		Short:             "Remove one or more networks",
		Args:              someArgs,
		ValidArgsFunction: c.completeNetworks,
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := c.docker()
			if err != nil {
				return err
			}
			err = c.eachRef(cmd.Context(), args, func(ctx context.Context, ref string) error {
				return removeNetwork(ctx, c, api, ref, force)
			})
			if err != nil {
				return &exitError{exitFailed, "exit status 1"} // docker's last line here
			}
			return nil
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not error if the network does not exist")
	return cmd
}

func removeNetwork(ctx context.Context, c *cli, api *client.Client, ref string, force bool) error {
	found, err := api.NetworkInspect(ctx, ref, client.NetworkInspectOptions{})
	if err == nil && found.Network.Ingress && !c.confirm(ingressWarning) {
		return nil
	}
	if _, err := api.NetworkRemove(ctx, ref, client.NetworkRemoveOptions{}); err != nil {
		if force && errdefs.IsNotFound(err) {
			return nil
		}
		return err
	}
	fmt.Fprintln(c.out, ref)
	return nil
}

func newNetworkPruneCommand(c *cli) *cobra.Command {
	filter := opts.NewFilterOpt()
	var force bool
	cmd := &cobra.Command{
		Use:   "prune [OPTIONS]",
		Short: "Remove all unused networks",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !force && !c.confirm("WARNING! This will remove all custom networks not used by at least one container.") {
				return nil
			}
			api, err := c.docker()
			if err != nil {
				return err
			}
			res, err := api.NetworkPrune(cmd.Context(), client.NetworkPruneOptions{Filters: filter.Value()})
			if err != nil {
				return err
			}
			if len(res.Report.NetworksDeleted) > 0 {
				fmt.Fprintf(c.out, "Deleted Networks:\n%s\n\n", strings.Join(res.Report.NetworksDeleted, "\n"))
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.Var(&filter, "filter", `Provide filter values (e.g. "until=<timestamp>")`)
	flags.BoolVarP(&force, "force", "f", false, "Do not prompt for confirmation")
	return cmd
}

// confirm asks on the terminal; no answer, or the end of the input, is a no.
func (c *cli) confirm(warning string) bool {
	fmt.Fprintf(c.out, "%s\nAre you sure you want to continue? [y/N] ", warning)
	answer, err := bufio.NewReader(c.in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return false
	}
	return strings.EqualFold(strings.TrimSpace(answer), "y")
}

package main

import (
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

// completeNetworks offers the names of the networks that the node knows.
func (c *cli) completeNetworks(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	api, err := c.docker()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	list, err := api.NetworkList(cmd.Context(), client.NetworkListOptions{})
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []cobra.Completion
	for _, n := range list.Items {
		names = append(names, n.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeNodes offers the host names of the swarm's nodes, and "self".
func (c *cli) completeNodes(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	api, err := c.docker()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	list, err := api.NodeList(cmd.Context(), client.NodeListOptions{})
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []cobra.Completion
	if cmd.Name() == "inspect" {
		names = append(names, "self")
	}
	for _, n := range list.Items {
		names = append(names, n.Description.Hostname)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeValues offers the values that a flag knows.
func completeValues(cmd *cobra.Command, flag string, values ...cobra.Completion) {
	// The only error is a flag that does not exist, or that has its values.
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}

package main

import (
	"context"
	"fmt"
	"io"

	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

func newSwarmCommand(c *cli) *cobra.Command {
	return newGroup("swarm", "Manage Swarm",
		newSwarmInitCommand(c),
		newSwarmJoinCommand(c),
		newSwarmJoinTokenCommand(c),
		newSwarmLeaveCommand(c),
		newSwarmUpdateCommand(c),
	)
}

func newSwarmInitCommand(c *cli) *cobra.Command {
	var o client.SwarmInitOptions
	var availability string
	var pools []string
	var spec specFlags
	cmd := &cobra.Command{
		Use:   "init [OPTIONS]",
		Short: "Initialize a swarm",
		Long: `Initialize a swarm on a node that runs and is in none.
"ovnd up" does it when it starts a new node.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if o.DefaultAddrPool, err = parsePools(pools); err != nil {
				return err
			}
			o.Availability = swarm.NodeAvailability(availability)
			spec.apply(&o.Spec, cmd.Flags())
			api, err := c.docker()
			if err != nil {
				return err
			}
			res, err := api.SwarmInit(cmd.Context(), o)
			if err != nil {
				return err
			}
			return printInitialized(cmd.Context(), c.out, api, res.NodeID)
		},
	}
	flags := cmd.Flags()
	addAddressFlags(flags, &o.AdvertiseAddr, &o.ListenAddr, &o.DataPathAddr)
	flags.Uint32Var(&o.DataPathPort, "data-path-port", 0, "Port number to use for data path traffic (1024 - 49151). If no value is set or is set to 0, the default port (4789) is used.")
	addPoolFlags(flags, &pools, &o.SubnetSize)
	flags.StringVar(&availability, "availability", "active", `Availability of the node ("active", "pause", "drain")`)
	flags.BoolVar(&o.ForceNewCluster, "force-new-cluster", false, "Force create a new cluster from current state")
	spec.add(flags)
	completeValues(cmd, "availability", "active", "pause", "drain")
	return cmd
}

func newSwarmJoinCommand(c *cli) *cobra.Command {
	var o client.SwarmJoinOptions
	var availability string
	cmd := &cobra.Command{
		Use:   "join [OPTIONS] HOST:PORT",
		Short: "Join a swarm as a node and/or manager",
		Long: `Join a swarm with a node that runs and is in none.
"ovnd up --join TOKEN HOST:PORT" starts a new node and does it.`,
		Args: oneArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.RemoteAddrs = args
			o.Availability = swarm.NodeAvailability(availability)
			api, err := c.docker()
			if err != nil {
				return err
			}
			if _, err := api.SwarmJoin(cmd.Context(), o); err != nil {
				return err
			}
			return printJoined(cmd.Context(), c.out, api)
		},
	}
	flags := cmd.Flags()
	addAddressFlags(flags, &o.AdvertiseAddr, &o.ListenAddr, &o.DataPathAddr)
	flags.StringVar(&availability, "availability", "active", `Availability of the node ("active", "pause", "drain")`)
	flags.StringVar(&o.JoinToken, "token", "", "Token for entry into the swarm")
	completeValues(cmd, "availability", "active", "pause", "drain")
	return cmd
}

func newSwarmJoinTokenCommand(c *cli) *cobra.Command {
	var quiet, rotate bool
	cmd := &cobra.Command{
		Use:   "join-token [OPTIONS] (worker|manager)",
		Short: "Manage join tokens",
		Example: `  ovnd swarm join-token worker
  ovnd up --join $(ovnd swarm join-token -q worker) 192.0.2.11:2377`,
		Args:      oneArg,
		ValidArgs: []string{"worker", "manager"},
		RunE: func(cmd *cobra.Command, args []string) error {
			role := swarm.NodeRole(args[0])
			if role != swarm.NodeRoleWorker && role != swarm.NodeRoleManager {
				return fmt.Errorf("unknown role %s", role)
			}
			api, err := c.docker()
			if err != nil {
				return err
			}
			if rotate {
				if err := rotateToken(cmd.Context(), api, role); err != nil {
					return err
				}
				if !quiet {
					fmt.Fprintf(c.out, "Successfully rotated %s join token.\n\n", role)
				}
			}
			return printToken(cmd.Context(), c.out, api, role, quiet)
		},
	}
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Only display token")
	cmd.Flags().BoolVar(&rotate, "rotate", false, "Rotate join token")
	return cmd
}

func rotateToken(ctx context.Context, api *client.Client, role swarm.NodeRole) error {
	res, err := api.SwarmInspect(ctx, client.SwarmInspectOptions{})
	if err != nil {
		return err
	}
	_, err = api.SwarmUpdate(ctx, client.SwarmUpdateOptions{
		Version:            res.Swarm.Version,
		Spec:               res.Swarm.Spec,
		RotateWorkerToken:  role == swarm.NodeRoleWorker,
		RotateManagerToken: role == swarm.NodeRoleManager,
	})
	return err
}

func printToken(ctx context.Context, w io.Writer, api *client.Client, role swarm.NodeRole, quiet bool) error {
	if !quiet {
		info, err := api.Info(ctx, client.InfoOptions{})
		if err != nil {
			return err
		}
		return printJoinCommand(ctx, w, api, info.Info.Swarm.NodeID, role)
	}
	res, err := api.SwarmInspect(ctx, client.SwarmInspectOptions{})
	if err != nil {
		return err
	}
	fmt.Fprintln(w, tokenFor(res.Swarm, role))
	return nil
}

func tokenFor(s swarm.Swarm, role swarm.NodeRole) string {
	if role == swarm.NodeRoleManager {
		return s.JoinTokens.Manager
	}
	return s.JoinTokens.Worker
}

// printJoinCommand prints what to type on the next machine. nodeID is a
// manager, whose address the command gets.
func printJoinCommand(ctx context.Context, w io.Writer, api *client.Client, nodeID string, role swarm.NodeRole) error {
	res, err := api.SwarmInspect(ctx, client.SwarmInspectOptions{})
	if err != nil {
		return err
	}
	n, err := api.NodeInspect(ctx, nodeID, client.NodeInspectOptions{})
	if err != nil || n.Node.ManagerStatus == nil {
		return err
	}
	fmt.Fprintf(w, "To add a %s to this swarm, run the following command:\n\n    ovnd up --join %s %s\n\n",
		role, tokenFor(res.Swarm, role), n.Node.ManagerStatus.Addr)
	return nil
}

// printInitialized is docker's answer to `swarm init`.
func printInitialized(ctx context.Context, w io.Writer, api *client.Client, nodeID string) error {
	fmt.Fprintf(w, "Swarm initialized: current node (%s) is now a manager.\n\n", nodeID)
	if err := printJoinCommand(ctx, w, api, nodeID, swarm.NodeRoleWorker); err != nil {
		return err
	}
	fmt.Fprintln(w, "To add a manager to this swarm, run 'ovnd swarm join-token manager' and follow the instructions.")
	return nil
}

// printJoined is docker's answer to `swarm join`.
func printJoined(ctx context.Context, w io.Writer, api *client.Client) error {
	info, err := api.Info(ctx, client.InfoOptions{})
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "This node joined a swarm as a %s.\n", roleOf(info.Info.Swarm))
	return nil
}

func roleOf(info swarm.Info) swarm.NodeRole {
	if info.ControlAvailable {
		return swarm.NodeRoleManager
	}
	return swarm.NodeRoleWorker
}

func newSwarmLeaveCommand(c *cli) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use:   "leave [OPTIONS]",
		Short: "Leave the swarm",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := c.docker()
			if err != nil {
				return err
			}
			if _, err := api.SwarmLeave(cmd.Context(), client.SwarmLeaveOptions{Force: force}); err != nil {
				return err
			}
			fmt.Fprintln(c.out, "Node left the swarm.")
			return nil
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Force this node to leave the swarm, ignoring warnings")
	return cmd
}

package main

import "github.com/spf13/cobra"

func newRootCommand(c *cli) *cobra.Command {
	root := newGroup("ovnd [OPTIONS] COMMAND", "Overlay networks in user space: a rootless Docker Swarm node",
		newUpCommand(c),
		newDownCommand(c),
		newStatusCommand(c),
		newDoctorCommand(c),
		newDemoCommand(c),
		newBenchCommand(c),
		newRunCommand(c),
		newAttachCommand(c),
		newProxyCommand(c),
		newForwardCommand(c),
		newExposeCommand(c),
		newNcCommand(c),
		newEnvCommand(c),
		newNetworkCommand(c),
		newNodeCommand(c),
		newSwarmCommand(c),
		newProbeCommand(c),
	)
	root.Example = `  ovnd demo                                              # all of it, by itself
  ovnd up                                                # start a node and a swarm
  ovnd network create --attachable my_net
  ovnd service create --network my_net -p 8080:80 nginx  # your nginx, as a service
  ovnd run --network my_net --name a -- sh               # a shell on the network
  ovnd swarm join-token worker                           # what to type on other machines`
	cobra.EnableCommandSorting = false
	// `service create --host` is another flag than ours: ours goes before.
	root.TraverseChildren = true
	addDockerCommands(root, c)
	root.AddCommand(
		newInspectCommand(c),
		newEventsCommand(c),
		newInfoCommand(c),
		newVersionCommand(c),
	)

	flags := root.PersistentFlags()
	flags.StringVarP(&c.host, "host", "H", "", "Socket of the node to talk to, as unix:///path (env OVND_HOST)")
	flags.StringVar(&c.stateDir, "state-dir", "", "Folder of the node's state (env OVND_STATE_DIR)")
	flags.StringVar(&c.logLevel, "log-level", "info", `Log messages of this level and above ("debug", "info", "warn", "error")`)
	root.InitDefaultCompletionCmd()
	setUsage(root)
	return root
}

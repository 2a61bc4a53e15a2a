package main

import (
	"fmt"
	_ "unsafe" // for go:linkname

	"github.com/docker/cli/cli/command"
	_ "github.com/docker/cli/cli/command/container" // registers ps, exec, logs, container and more
	_ "github.com/docker/cli/cli/command/node"      // registers node
	_ "github.com/docker/cli/cli/command/service"   // registers service
	"github.com/spf13/cobra"
)

// registered returns what makes Docker's own commands, those that the packages
// above put there when the program starts. Docker keeps the list in an
// internal package and exports none of the commands; there is no other way to
// its flags, columns and progress lines short of copying them. A docker/cli
// that moves or changes the function is told by the linker ("relocation target
// … not defined") or by TestDockerCommandsAreWhereTheyWere: then pin the
// version before, or follow the function to its new place.
//
//go:linkname registered github.com/docker/cli/internal/commands.Commands
func registered() []func(command.Cli) *cobra.Command

// dockerCommands makes the named ones of Docker's top-level commands.
func dockerCommands(cli command.Cli, names ...string) map[string]*cobra.Command {
	found := make(map[string]*cobra.Command)
	for _, newCommand := range registered() {
		cmd := newCommand(cli)
		found[cmd.Name()] = cmd
	}
	wanted := make(map[string]*cobra.Command, len(names))
	for _, name := range names {
		cmd, ok := found[name]
		if !ok {
			panic(fmt.Sprintf("docker/cli has no command %q any more", name))
		}
		wanted[name] = cmd
	}
	return wanted
}

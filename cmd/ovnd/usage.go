package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// usageTemplate lays a command's help out as docker does.
const usageTemplate = `Usage:  {{.UseLine}}{{if and .HasAvailableSubCommands .HasParent}} COMMAND{{end}}

{{with or .Long .Short}}{{trimTrailingWhitespaces .}}{{end}}
{{- with aliases .}}

Aliases:
  {{.}}
{{- end}}
{{- if .HasExample}}

Examples:
{{.Example}}
{{- end}}
{{- if .HasAvailableSubCommands}}

Commands:
{{- range .Commands}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}
{{- end}}{{end}}
{{- end}}
{{- with flagUsages .}}

{{if $.HasParent}}Options{{else}}Global Options{{end}}:
{{.}}
{{- end}}
{{- if .HasAvailableSubCommands}}

Run '{{.CommandPath}} COMMAND --help' for more information on a command.
{{- end}}
`

const narrowestHelp, usualHelp = 40, 80 // columns

func init() {
	cobra.AddTemplateFunc("flagUsages", func(cmd *cobra.Command) string {
		return strings.TrimRight(cmd.LocalFlags().FlagUsagesWrapped(terminalWidth()-1), "\n")
	})
	cobra.AddTemplateFunc("aliases", func(cmd *cobra.Command) string {
		if names, ok := cmd.Annotations["aliases"]; ok || len(cmd.Aliases) == 0 {
			return names // docker's, with those in other groups
		}
		paths := make([]string, 0, 1+len(cmd.Aliases))
		for _, name := range append([]string{cmd.Name()}, cmd.Aliases...) {
			paths = append(paths, cmd.Parent().CommandPath()+" "+name)
		}
		return strings.Join(paths, ", ")
	})
}

func terminalWidth() int {
	ws, err := unix.IoctlGetWinsize(int(os.Stdout.Fd()), unix.TIOCGWINSZ)
	if err != nil || ws.Col == 0 {
		return usualHelp
	}
	return max(int(ws.Col), narrowestHelp)
}

// setUsage gives root and all below it docker's help and its words for
// mistakes on the command line.
func setUsage(root *cobra.Command) {
	root.SetUsageTemplate(usageTemplate)
	root.SetHelpTemplate("{{.UsageString}}")
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &exitError{exitOwnFailure, fmt.Sprintf("%v\n\nUsage:  %s\n\nRun '%s --help' for more information", err, cmd.UseLine(), cmd.CommandPath())}
	})
	// cobra's own -h would take the letter from `run --hostname`.
	root.PersistentFlags().Bool("help", false, "Print usage")
	root.PersistentFlags().Lookup("help").Hidden = true
	eachCommand(root, func(cmd *cobra.Command) {
		cmd.DisableFlagsInUseLine = true
		if cmd.HasSubCommands() {
			cmd.Args, cmd.RunE = knownSubcommand, showCommands
		}
	})
}

// eachCommand calls do for cmd and all below it.
func eachCommand(cmd *cobra.Command, do func(*cobra.Command)) {
	do(cmd)
	for _, sub := range cmd.Commands() {
		eachCommand(sub, do)
	}
}

// newGroup is a command that only holds others; setUsage lets it list them.
func newGroup(use, short string, subcommands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short}
	cmd.AddCommand(subcommands...)
	return cmd
}

func showCommands(cmd *cobra.Command, _ []string) error {
	cmd.SetOut(cmd.ErrOrStderr())
	return cmd.Help()
}

func knownSubcommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	usage := ""
	if cmd.HasParent() {
		usage = "Usage:  " + cmd.UseLine() + "\n\n"
	}
	return fmt.Errorf("%s: unknown command: %s %s\n\n%sRun '%s --help' for more information",
		cmd.Root().Name(), cmd.CommandPath(), args[0], usage, cmd.CommandPath())
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return usageError(cmd, "accepts no arguments", "Run")
}

func oneArg(cmd *cobra.Command, args []string) error {
	if len(args) == 1 {
		return nil
	}
	return usageError(cmd, "requires 1 argument", "Run")
}

func someArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return nil
	}
	return usageError(cmd, "requires at least 1 argument", "See")
}

// usageError has docker's words, in which a hint begins with Run or with See.
func usageError(cmd *cobra.Command, mistake, hint string) error {
	return fmt.Errorf("%s: '%s' %s\n\nUsage:  %s\n\n%s '%s --help' for more information",
		cmd.Root().Name(), cmd.CommandPath(), mistake, cmd.UseLine(), hint, cmd.CommandPath())
}

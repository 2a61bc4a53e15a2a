package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// proxyVariables are those that `env` sets, in either case.
var proxyVariables = []string{"ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"}

func newEnvCommand(c *cli) *cobra.Command {
	var unset bool
	cmd := &cobra.Command{
		Use:   "env [OPTIONS]",
		Short: "Print what makes programs use the node's proxy",
		Long: `Print lines for a shell that make programs use the proxy of "ovnd up --proxy".
They hold a password: only this user can read it.`,
		Example: `  eval "$(ovnd env)"
  eval "$(ovnd env --unset)"`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if unset {
				for _, name := range proxyVariables {
					fmt.Fprintf(c.out, "unset %s %s\n", name, strings.ToLower(name))
				}
				return nil
			}
			api, err := c.ovnd()
			if err != nil {
				return err
			}
			env, err := api.Env(cmd.Context())
			if err != nil {
				return err
			}
			printEnv(c.out, env.Env)
			return nil
		},
	}
	cmd.Flags().BoolVarP(&unset, "unset", "u", false, "Print what takes them back")
	return cmd
}

// printEnv prints lines for a shell. No value has a quote.
func printEnv(w io.Writer, env []string) {
	for _, line := range env {
		name, value, _ := strings.Cut(line, "=")
		fmt.Fprintf(w, "export %s='%s'\n", name, value)
	}
}

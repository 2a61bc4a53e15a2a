package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/ovnd/ovnd/cmd/ovnd/demo"
	"github.com/ovnd/ovnd/node"
	"github.com/ovnd/ovnd/sandbox"
)

func newDemoCommand(c *cli) *cobra.Command {
	var asJSON, keep, encrypted bool
	var tun string
	cmd := &cobra.Command{
		Use:   "demo [OPTIONS]",
		Short: "Do the walk-through on three nodes on this machine",
		Long: `Start three nodes on loopback addresses of this machine, in a temporary folder,
and do the walk-through on them: a swarm, a network, services, names, virtual
addresses, a published port. Each step shows what it expects and what it saw.
It takes less than a minute, and nothing is left behind.

With --encrypted the network is encrypted, and the demo listens to what the
nodes send each other. For that all of it runs in a network namespace of its
own, which is why nobody outside reaches the published port then.

Where this machine allows no namespaces or TUN devices, or with --tun never,
the tasks are processes of the machine, and the demo shows what they have.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			// All such signals: the nodes are stopped first, however impatient
			// the user.
			ctx, stop := signal.NotifyContext(cmd.Context(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
			defer stop()
			cfg := demo.Config{ReadyEnv: readyEnv, Keep: keep, TUN: tun}
			cfg.Bare = tun == node.TUNNever || tun == node.TUNAuto && sandbox.Check(ctx) != nil
			if cfg.Bare && encrypted {
				return errors.New("demo: --encrypted listens in namespaces, which this machine or --tun does not allow")
			}
			if encrypted {
				wire, inside, code, err := demo.Isolate()
				if err != nil {
					return err
				}
				if !inside {
					return exitWith(code)
				}
				cfg.Wire = wire
			}
			return runDemo(ctx, c, cfg, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "Print a report in JSON format at the end, and nothing else")
	cmd.Flags().BoolVar(&keep, "keep", false, "Leave the nodes running")
	cmd.Flags().BoolVar(&encrypted, "encrypted", false, "Encrypt the network, and listen on the wire")
	cmd.Flags().StringVar(&tun, "tun", node.TUNAuto, `How tasks live ("auto", "require", "never"), as of "ovnd up"`)
	completeValues(cmd, "tun", node.TUNAuto, node.TUNRequire, node.TUNNever)
	return cmd
}

// exitWith ends the command with the exit status of another.
func exitWith(code int) error {
	if code == 0 {
		return nil
	}
	return &exitError{code: code}
}

func runDemo(ctx context.Context, c *cli, cfg demo.Config, asJSON bool) error {
	var err error
	if cfg.Self, err = os.Executable(); err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	if !asJSON {
		cfg.Out, cfg.Width = c.out, demoWidth(c.out)
	}
	report, err := demo.Run(ctx, cfg)
	if err != nil {
		return err
	}
	if asJSON {
		enc := json.NewEncoder(c.out)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		if err := enc.Encode(report); err != nil {
			return err
		}
	} else if cfg.Keep {
		printKept(c.out, report)
	} else if !report.OK {
		fmt.Fprintln(c.out, "The nodes' logs are gone with them: \"ovnd demo --keep\" leaves both.")
	}
	if !report.OK {
		return &exitError{code: exitFailed}
	}
	return nil
}

// widestDemo is how many columns of a wide terminal can still be read.
const widestDemo = 140

func demoWidth(w io.Writer) int {
	if out := outStream(w); out.IsTerminal() {
		return min(terminalWidth(), widestDemo)
	}
	return 0
}

func printKept(w io.Writer, r demo.Report) {
	fmt.Fprintf(w, "\nThe nodes go on; their logs are %s/*.log. To talk to them:\n", r.StateDir)
	for _, n := range r.Nodes {
		fmt.Fprintf(w, "  ovnd --state-dir %s ps\n", n.StateDir)
	}
	fmt.Fprintln(w, "To end them:")
	for _, n := range slices.Backward(r.Nodes) {
		fmt.Fprintf(w, "  ovnd --state-dir %s down\n", n.StateDir)
	}
	fmt.Fprintf(w, "  rm -r %s\n", r.StateDir)
}

// newProbeCommand is what the demo runs inside tasks.
func newProbeCommand(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:                demo.ProbeName + " PROBE [ARG...]",
		Short:              "Look at the network from inside a task",
		Hidden:             true,
		DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return demo.Probe(cmd.Context(), c.out, args)
		},
	}
}

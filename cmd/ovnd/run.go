package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/docker/cli/opts"
	"github.com/spf13/cobra"

	"github.com/ovnd/ovnd/api/types"
	"github.com/ovnd/ovnd/sandbox"
)

// runFlags are the flags of `run`.
type runFlags struct {
	networks       opts.NetworkOpt
	name, hostname string
	aliases        []string
	ip             string
	env            opts.ListOpts
	envFiles       []string
	workdir        string
}

func newRunCommand(c *cli) *cobra.Command {
	f := runFlags{env: opts.NewListOpts(opts.ValidateEnv)}
	cmd := &cobra.Command{
		Use:   "run [OPTIONS] [--] COMMAND [ARG...]",
		Short: "Run a command on one or more networks",
		Long: `Run a command of this machine, as this user, with overlay networks as its
network. Files stay the user's own; the terminal, signals and the exit status
are the command's.`,
		Example: `  ovnd run --network my_net --name a -- sh
  ovnd run --network my_net --ip 10.10.0.7 -- iperf3 -s
  ovnd run --network name=front,alias=web --network back -- ./server`,
		Args: someArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			code, err := f.run(cmd.Context(), c, args)
			switch {
			case err != nil && code == exitOwnFailure:
				return &exitError{code, "ovnd: " + c.explain(err) + "\n\nRun 'ovnd run --help' for more information"}
			case err != nil:
				return &exitError{code, "ovnd: " + err.Error()}
			case code != 0:
				return &exitError{code: code}
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.SetInterspersed(false) // what follows the command is the command's
	flags.Var(&f.networks, "network", "Connect to a network, by name or as name=NETWORK,alias=NAME,ip=ADDRESS; once for each network")
	flags.StringVar(&f.name, "name", "", "Assign a name")
	flags.StringSliceVar(&f.aliases, "network-alias", nil, "Add a name on the first network")
	flags.StringVar(&f.ip, "ip", "", "Address on the first network (e.g., 172.30.100.104)")
	flags.VarP(&f.env, "env", "e", "Set environment variables")
	flags.StringSliceVar(&f.envFiles, "env-file", nil, "Read in a file of environment variables")
	flags.StringVarP(&f.hostname, "hostname", "h", "", "Host name")
	flags.StringVarP(&f.workdir, "workdir", "w", "", "Working directory")
	// The network's long form is more than a name: only names are offered.
	_ = cmd.RegisterFlagCompletionFunc("network", c.completeNetworks)
	return cmd
}

// run attaches to the networks and runs args there. The code is the command's;
// with an error it is docker's for the kind of failure.
func (f *runFlags) run(ctx context.Context, c *cli, args []string) (code int, err error) {
	req, err := f.request()
	if err != nil {
		return exitOwnFailure, err
	}
	env, err := f.environment()
	if err != nil {
		return exitOwnFailure, err
	}
	api, err := c.ovnd()
	if err != nil {
		return exitOwnFailure, err
	}
	answer, err := api.Attach(ctx, req)
	if err != nil {
		return exitOwnFailure, err
	}
	code, err = sandbox.Run(ctx, answer.Spec, sandbox.Command{Args: args, Env: env, Dir: f.workdir})
	if err != nil && code == exitOwnFailure {
		// Its addresses go back now rather than when the node has waited for it
		// in vain, which it does if this fails.
		_ = api.Release(ctx, types.ReleaseRequest{ID: answer.Spec.ID, Token: answer.Spec.Token})
	}
	return code, err
}

func (f *runFlags) request() (types.AttachRequest, error) {
	req := types.AttachRequest{Name: f.name, Hostname: f.hostname}
	for _, n := range f.networks.Value() {
		if n.MacAddress != "" || n.IPv6Address.IsValid() || len(n.LinkLocalIPs) > 0 || len(n.DriverOpts) > 0 || n.GwPriority != 0 {
			return req, fmt.Errorf("--network %s: the fields are name, alias and ip", n.Target)
		}
		req.Networks = append(req.Networks, types.AttachNetwork{Target: n.Target, IP: n.IPv4Address, Aliases: n.Aliases})
	}
	if len(req.Networks) == 0 {
		return req, errors.New("a command needs a network: give --network NAME (\"ovnd network ls\" lists them)")
	}
	first := &req.Networks[0]
	if f.ip != "" {
		if first.IP.IsValid() {
			return req, errors.New("conflicting options: cannot specify both --ip and per-network IPv4 address")
		}
		addr, err := netip.ParseAddr(f.ip)
		if err != nil {
			return req, fmt.Errorf("--ip: %q is not an IP address", f.ip)
		}
		first.IP = addr
	}
	if len(f.aliases) > 0 {
		if len(first.Aliases) > 0 {
			return req, errors.New("conflicting options: cannot specify both --network-alias and per-network alias")
		}
		first.Aliases = f.aliases
	}
	return req, nil
}

// environment has the variables of the files, then those of the flags, which
// win. A name without a value is passed on from the caller, who may lack it.
func (f *runFlags) environment() ([]string, error) {
	all, err := opts.ReadKVEnvStrings(f.envFiles, f.env.GetSlice())
	if err != nil {
		return nil, fmt.Errorf("--env-file: %w", err)
	}
	var env []string
	for _, kv := range all {
		if strings.Contains(kv, "=") {
			env = append(env, kv)
		}
	}
	return env, nil
}

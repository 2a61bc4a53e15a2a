package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	ovnd "github.com/ovnd/ovnd/api/client"
	"github.com/ovnd/ovnd/api/types"
	"github.com/ovnd/ovnd/sandbox"
)

// attachFlags are the flags of `attach`: those of `run` that make sense, and
// its own.
type attachFlags struct {
	runFlags
	socket string
	dns    bool
}

func newAttachCommand(c *cli) *cobra.Command {
	var f attachFlags
	cmd := &cobra.Command{
		Use:   "attach [OPTIONS] [-- COMMAND [ARG...]]",
		Short: "Connect this container's own network to networks of the host's node",
		Long: `Connect the network namespace that this command runs in, that of a container and
of those that share it, to networks of the node on the host. The folder of the
node's sockets has to be mounted into the container, which needs NET_ADMIN and
/dev/net/tun, and gets no key: the node forwards.

It stays until it is interrupted, or until COMMAND ends. The addresses go back to
the swarm then, and when it is killed.`,
		Example: `  # in a container with NET_ADMIN, /dev/net/tun and the folder of the sockets
  ovnd attach --network my_net --socket /run/ovnd/ovnd.sock`,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), unix.SIGINT, unix.SIGTERM)
			defer stop()
			return f.attach(ctx, c, args)
		},
	}
	flags := cmd.Flags()
	flags.SetInterspersed(false) // what follows the command is the command's
	flags.Var(&f.networks, "network", "Connect to a network, by name or as name=NETWORK,alias=NAME,ip=ADDRESS; once for each network")
	flags.StringVar(&f.name, "name", "", "Assign a name (default the container's host name)")
	flags.StringSliceVar(&f.aliases, "network-alias", nil, "Add a name on the first network")
	flags.StringVar(&f.ip, "ip", "", "Address on the first network (e.g., 172.30.100.104)")
	flags.StringVar(&f.socket, "socket", "", "Path of the node's socket here (default that of --host)")
	flags.BoolVar(&f.dns, "dns", true, "Have /etc/resolv.conf name the node's resolver while attached")
	_ = cmd.RegisterFlagCompletionFunc("network", c.completeNetworks)
	return cmd
}

// attach asks the node for addresses and keeps the namespace attached.
func (f *attachFlags) attach(ctx context.Context, c *cli, args []string) error {
	if f.name == "" {
		f.name, _ = os.Hostname() // without one the node makes a name up
	}
	req, err := f.request()
	if err != nil {
		return err
	}
	req.Elsewhere = true
	if f.socket != "" {
		c.host = "unix://" + f.socket
	}
	host, err := c.apiHost()
	if err != nil {
		return err
	}
	api, err := c.ovnd()
	if err != nil {
		return err
	}
	answer, err := api.Attach(ctx, req)
	if err != nil {
		return err
	}
	// It is in the same folder, wherever that is mounted.
	answer.Spec.NodeSocket = filepath.Join(filepath.Dir(strings.TrimPrefix(host, "unix://")), filepath.Base(answer.Spec.NodeSocket))
	return f.stay(ctx, c, api, answer.Spec, args)
}

// stay keeps attached until ctx or the command ends.
func (f *attachFlags) stay(ctx context.Context, c *cli, api *ovnd.Client, spec sandbox.Spec, args []string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var ready bool
	var command sync.WaitGroup
	var commandErr error
	opts := sandbox.Attached{
		Notice: func(text string) { fmt.Fprintln(c.err, "ovnd attach: "+text) },
		Ready: func() {
			ready = true
			printAttached(c, spec)
			if len(args) > 0 {
				command.Go(func() {
					defer cancel()
					commandErr = runBeside(ctx, args)
				})
			}
		},
	}
	if f.dns {
		opts.ResolvConf = "/etc/resolv.conf"
	}
	err := sandbox.Attach(ctx, spec, opts)
	cancel()
	command.Wait()
	if !ready {
		// Its addresses go back now rather than when the node has waited for it
		// in vain.
		_ = api.Release(context.WithoutCancel(ctx), types.ReleaseRequest{ID: spec.ID, Token: spec.Token})
	}
	switch {
	case errors.Is(err, sandbox.ErrStopped):
		return nil
	case err != nil:
		return err
	}
	return commandErr
}

func printAttached(c *cli, spec sandbox.Spec) {
	var to []string
	for _, in := range spec.Interfaces {
		if !in.Gateway.IsValid() { // not the way out
			to = append(to, fmt.Sprintf("%s on %s", in.Addrs[0], in.NetworkName))
		}
	}
	fmt.Fprintf(c.out, "%s is attached: %s.\n", cmp.Or(spec.Name, spec.ID[:12]), strings.Join(to, ", "))
}

// commandGrace is what the command has between SIGTERM and SIGKILL, as with
// `docker stop`.
const commandGrace = 10 * time.Second

// runBeside runs a command here until it or ctx ends. What it exits with is
// ours to exit with.
func runBeside(ctx context.Context, args []string) error {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	cmd.WaitDelay = commandGrace
	err := cmd.Run()
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		if e.ExitCode() >= 0 {
			return &exitError{code: e.ExitCode()}
		}
		if st, ok := e.Sys().(syscall.WaitStatus); ok && st.Signaled() {
			return &exitError{code: 128 + int(st.Signal())}
		}
	}
	if errors.Is(err, exec.ErrNotFound) {
		return &exitError{sandbox.ExitNotFound, err.Error()}
	}
	return err
}

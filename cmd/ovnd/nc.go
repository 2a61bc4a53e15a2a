package main

import (
	"errors"
	"io"
	"net"
	"os/signal"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	ovnd "github.com/ovnd/ovnd/api/client"
	"github.com/ovnd/ovnd/api/types"
)

func newNcCommand(c *cli) *cobra.Command {
	req := types.ConnectRequest{}
	cmd := &cobra.Command{
		Use:   "nc [OPTIONS] NAME PORT",
		Short: "Connect standard input and output to a port of a network",
		Long: `Connect to PORT of NAME on a network: what is read from standard input goes
there, what comes from there goes to standard output. The exit status is 1 if
the connection cannot be made or is reset, and 125 if there is no node.`,
		Example: `  ssh -o ProxyCommand='ovnd nc --network my_net %h %p' my-task
  echo | ovnd nc my-service 7`,
		Args: twoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if req.Target, err = parseTarget(net.JoinHostPort(strings.Trim(args[0], "[]"), args[1])); err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
			defer stop()
			api, err := c.ovnd()
			if err != nil {
				return err
			}
			s, err := api.Connect(ctx, req)
			if errors.Is(err, ovnd.ErrNoNode) {
				return &exitError{exitOwnFailure, c.explain(err)}
			}
			if err != nil {
				return &exitError{exitFailed, "ovnd nc: " + strings.TrimPrefix(err.Error(), "Error response from daemon: ")}
			}
			defer s.Close()
			return c.pipe(s)
		},
	}
	addProxyNetworks(c, cmd, &req.Networks)
	return cmd
}

// pipe carries standard input and output until the far end has ended.
func (c *cli) pipe(s *ovnd.Stream) error {
	go func() {
		// The process ends with the far end: a terminal may be read for ever.
		if _, err := io.Copy(s, c.in); err == nil {
			_ = s.CloseWrite() // it has gone otherwise
		}
	}()
	if _, err := io.Copy(c.out, s); err != nil {
		return &exitError{exitFailed, "ovnd nc: " + err.Error()}
	}
	return nil
}

package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	ovnd "github.com/ovnd/ovnd/api/client"
	"github.com/ovnd/ovnd/api/types"
)

func newForwardCommand(c *cli) *cobra.Command {
	req := types.ForwardRequest{}
	cmd := &cobra.Command{
		Use:   "forward [OPTIONS] LOCAL NAME:PORT",
		Short: "Make a port of a network one of this machine",
		Long: `Listen at LOCAL, a port of 127.0.0.1, ADDR:PORT or the path of a unix socket, and
carry what connects there to NAME:PORT on a network, until it is interrupted.
Only programs of this user are let in.`,
		Example: `  ovnd forward 5432 db:5432
  ovnd forward --network my_net ./db.sock tasks.db:5432`,
		Args: twoArgs,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if req.Listen, err = listenAddr(args[0]); err != nil {
				return err
			}
			if req.Target, err = parseTarget(args[1]); err != nil {
				return err
			}
			return c.session(cmd.Context(), func(ctx context.Context, api *ovnd.Client) (*ovnd.Session, error) {
				return api.OpenForward(ctx, req)
			}, func(s *ovnd.Session) {
				fmt.Fprintf(c.out, "%s leads to %s on %s. Ctrl-C ends it.\n", s.Listen, req.Target, strings.Join(s.Networks, ", "))
			})
		},
	}
	addProxyNetworks(c, cmd, &req.Networks)
	addAllUsers(cmd.Flags(), &req.AllUsers)
	return cmd
}

package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/spf13/cobra"

	ovnd "github.com/ovnd/ovnd/api/client"
	"github.com/ovnd/ovnd/api/types"
)

func newExposeCommand(c *cli) *cobra.Command {
	req := types.ExposeRequest{}
	cmd := &cobra.Command{
		Use:   "expose [OPTIONS] NAME:PORT[/udp] LOCAL",
		Short: "Make a program of this machine an endpoint of a network",
		Long: `Give a network an endpoint with an address of its own, called NAME, whose PORT is
the program that listens at LOCAL, a port of 127.0.0.1 or ADDR:PORT, until it is
interrupted. All other ports of the endpoint are closed.`,
		Example: `  ovnd expose api:80 3000
  ovnd expose --network my_net dns:53/udp 127.0.0.1:5353`,
		Args: twoArgs,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if err = parseExpose(&req, args[0], args[1]); err != nil {
				return err
			}
			return c.session(cmd.Context(), func(ctx context.Context, api *ovnd.Client) (*ovnd.Session, error) {
				return api.OpenExpose(ctx, req)
			}, func(s *ovnd.Session) {
				fmt.Fprintf(c.out, "%s (%s) on %s leads to %s. Ctrl-C ends it.\n", args[0], s.Address, strings.Join(s.Networks, ", "), req.Target)
			})
		},
	}
	addProxyNetworks(c, cmd, &req.Networks)
	return cmd
}

// parseExpose reads NAME:PORT[/PROTOCOL] and where the program listens.
func parseExpose(req *types.ExposeRequest, name, local string) error {
	rest, protocol := splitProtocol(name)
	host, port, err := net.SplitHostPort(rest)
	host = strings.TrimSuffix(host, ".") // a name is absolute with and without
	if err != nil || host == "" {
		return fmt.Errorf("%q: want NAME:PORT, with /udp behind it for UDP", name)
	}
	if protocol != "" && protocol != "tcp" && protocol != "udp" {
		return fmt.Errorf("%q: protocol %q cannot be exposed: tcp and udp can", name, protocol)
	}
	req.Name, req.Protocol = host, protocol
	if req.Port, err = parsePort(port); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	given := local
	if !strings.Contains(local, ":") {
		local = "127.0.0.1:" + local
	}
	if port, ok := strings.CutPrefix(local, "localhost:"); ok {
		local = "127.0.0.1:" + port
	}
	if req.Target, err = netip.ParseAddrPort(local); err != nil || req.Target.Port() == 0 {
		return fmt.Errorf("%q: want where the program listens, as PORT or ADDR:PORT", given)
	}
	return nil
}

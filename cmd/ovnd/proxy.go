package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	ovnd "github.com/ovnd/ovnd/api/client"
	"github.com/ovnd/ovnd/api/types"
)

// proxyPort is where a proxy listens unless told otherwise: SOCKS's port
// (RFC 1928 §3).
const proxyPort = "1080"

func newProxyCommand(c *cli) *cobra.Command {
	req := types.ProxyRequest{}
	cmd := &cobra.Command{
		Use:   "proxy [OPTIONS]",
		Short: "Let programs of this machine reach networks by a SOCKS5 and HTTP proxy",
		Long: `Serve a proxy, SOCKS5 and HTTP on one port, until it is interrupted. Names are
those of the networks, then those of the world outside. Only programs of this
user may use it, or who has the password that is printed.`,
		Example: `  ovnd proxy --network my_net
  curl --proxy socks5h://127.0.0.1:1080 http://my-service/`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if req.Listen, err = listenAddr(req.Listen); err != nil {
				return err
			}
			return c.session(cmd.Context(), func(ctx context.Context, api *ovnd.Client) (*ovnd.Session, error) {
				return api.OpenProxy(ctx, req)
			}, func(s *ovnd.Session) {
				fmt.Fprintf(c.out, "SOCKS5 and HTTP proxy at %s for %s. Ctrl-C ends it.\n\n", s.Listen, strings.Join(s.Networks, ", "))
				printEnv(c.out, s.Env)
			})
		},
	}
	flags := cmd.Flags()
	addProxyNetworks(c, cmd, &req.Networks)
	flags.StringVarP(&req.Listen, "listen", "l", "127.0.0.1:"+proxyPort, "Address and port of this machine, or path of a unix socket")
	addAllUsers(flags, &req.AllUsers)
	return cmd
}

// addProxyNetworks adds --network of a command whose programs have no interface.
func addProxyNetworks(c *cli, cmd *cobra.Command, networks *[]string) {
	cmd.Flags().StringSliceVar(networks, "network", nil, "Network to reach, the first that knows a name wins (default the only attachable one)")
	_ = cmd.RegisterFlagCompletionFunc("network", c.completeNetworks)
}

func addAllUsers(flags *pflag.FlagSet, all *bool) {
	flags.BoolVar(all, "all-users", false, "Let in everybody who can connect, without a password")
}

// session opens something on the node, tells about it, and keeps it until it is
// interrupted or ends.
func (c *cli) session(ctx context.Context, open func(context.Context, *ovnd.Client) (*ovnd.Session, error), tell func(*ovnd.Session)) error {
	ctx, stop := signal.NotifyContext(ctx, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	api, err := c.ovnd()
	if err != nil {
		return err
	}
	defer api.Close()
	s, err := open(ctx, api)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }() // nothing was written to it
	tell(s)
	return s.Wait(ctx)
}

// listenAddr reads where to listen on this machine: PORT, ADDR, ADDR:PORT or the
// path of a unix socket, which has a slash.
func listenAddr(s string) (string, error) {
	if strings.Contains(s, "/") {
		return filepath.Abs(s)
	}
	if _, err := strconv.ParseUint(s, 10, 16); err == nil {
		return "127.0.0.1:" + s, nil
	}
	if addr, err := netip.ParseAddr(s); err == nil {
		return net.JoinHostPort(addr.String(), proxyPort), nil
	}
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		return "", fmt.Errorf("%q is no port, no ADDR:PORT and no path of a socket", s)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", fmt.Errorf("%q: %q is no port from 0 to 65535", s, port)
	}
	return s, nil
}

// parseTarget reads what is connected to, NAME:PORT.
func parseTarget(s string) (string, error) {
	name, port, err := net.SplitHostPort(s)
	switch {
	case strings.Contains(s, "/"):
		return "", fmt.Errorf("%q: want NAME:PORT, without scheme and path", s)
	case err != nil:
		return "", fmt.Errorf("%q: want NAME:PORT", s)
	case name == "":
		return "", fmt.Errorf("%q: the name is empty: want NAME:PORT", s)
	}
	if _, err := parsePort(port); err != nil {
		return "", fmt.Errorf("%q: %w", s, err)
	}
	return s, nil
}

// splitProtocol cuts "/tcp" or "/udp" off.
func splitProtocol(s string) (rest, protocol string) {
	rest, protocol, _ = strings.Cut(s, "/")
	return rest, protocol
}

// parsePort reads a port from 1 to 65535.
func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("%q is no port from 1 to 65535", s)
	}
	return uint16(n), nil
}

func twoArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 2 {
		return nil
	}
	return usageError(cmd, "requires 2 arguments", "Run")
}

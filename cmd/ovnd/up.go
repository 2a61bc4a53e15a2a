package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/docker/cli/opts"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	ovnd "github.com/ovnd/ovnd/api/client"
	"github.com/ovnd/ovnd/api/types"
	"github.com/ovnd/ovnd/node"
)

// upFlags are the flags of `up`.
type upFlags struct {
	joinToken                   string
	hostname                    string
	advertise, listen, dataPath string
	dataPathPort                uint16
	availability                string
	pools                       []string
	poolMask                    uint32
	labels                      opts.ListOpts
	ephemeral, foreground       bool
	dns                         string
	hostLoopback                bool
	proxy                       string
	proxyNetworks               []string
	tun                         string
	services                    []string
}

// dnsPort is where `up --dns` answers unless told otherwise: 53 needs root.
const dnsPort = 5353

func newUpCommand(c *cli) *cobra.Command {
	f := upFlags{labels: opts.NewListOpts(opts.ValidateLabel)}
	cmd := &cobra.Command{
		Use:   "up [OPTIONS] [--join TOKEN HOST:PORT]",
		Short: "Start a node, and with it a swarm unless it joins one",
		Long: `Start a node in the background and return when it is ready. A node that was in
a swarm goes on in it; a new one starts a swarm of its own, or joins one.`,
		Example: `  ovnd up
  ovnd up --join SWMTKN-1-... 192.0.2.11:2377
  ovnd up --state-dir ~/n2 --advertise-addr 127.0.0.3 --join SWMTKN-1-... 127.0.0.2:2377`,
		Args: func(cmd *cobra.Command, args []string) error {
			if f.joinToken == "" {
				return noArgs(cmd, args)
			}
			return oneArg(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := f.config(c, args)
			if err != nil {
				return err
			}
			// The second signal ends the program at once.
			ctx, stop := signal.NotifyContext(cmd.Context(), unix.SIGINT, unix.SIGTERM)
			context.AfterFunc(ctx, stop)
			defer stop()
			if f.foreground {
				return runForeground(ctx, cfg)
			}
			return runUp(ctx, c, cfg)
		},
	}
	f.add(cmd)
	return cmd
}

func (f *upFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.joinToken, "join", "", "Join the swarm of the manager at HOST:PORT with this token")
	flags.StringVar(&f.hostname, "hostname", "", "Name of the node (default the machine's)")
	addAddressFlags(flags, &f.advertise, &f.listen, &f.dataPath)
	flags.Uint16Var(&f.dataPathPort, "data-path-port", 0, "UDP port of the data path, for a new swarm (1024 - 49151, default 4789)")
	addPoolFlags(flags, &f.pools, &f.poolMask)
	flags.StringVar(&f.availability, "availability", "active", `Availability of the node ("active", "pause", "drain")`)
	flags.Var(&f.labels, "label", "Set metadata on the node, as engine.labels")
	flags.StringVar(&f.dns, "dns", "", "Answer for the names of the networks' services and tasks at ADDR[:PORT] of this machine too (default port 5353)")
	flags.BoolVar(&f.hostLoopback, "host-loopback", false, "Let what runs on the networks reach this machine's 127.0.0.1, at the address of their gateway")
	flags.StringVar(&f.proxy, "proxy", "", "Serve a SOCKS5 and HTTP proxy to this user's programs at ADDR[:PORT] of this machine (default port 1080), at a PORT of 127.0.0.1, or at the path of a unix socket")
	flags.StringSliceVar(&f.proxyNetworks, "proxy-network", nil, "Network that the proxy leads to, once for each (default the only attachable one)")
	flags.StringSliceVar(&f.services, "service", nil, "Be the sidecar of an application that runs beside this node: NAME of its service, or NAME=PORT where it listens at another port than the service's; see \"service create --sidecar\"")
	flags.StringVar(&f.tun, "tun", node.TUNAuto, `Where a machine allows no namespaces or TUN devices, run tasks as its processes ("auto"), do not start ("require"); or do so anywhere ("never")`)
	flags.BoolVar(&f.ephemeral, "ephemeral", false, "Leave the swarm and delete the state when the node stops")
	flags.BoolVar(&f.foreground, "foreground", false, "Stay in the foreground and log to standard error")
	completeValues(cmd, "availability", "active", "pause", "drain")
	completeValues(cmd, "tun", node.TUNAuto, node.TUNRequire, node.TUNNever)
}

func (f *upFlags) config(c *cli, args []string) (node.Config, error) {
	log, err := c.logger()
	if err != nil {
		return node.Config{}, err
	}
	cfg := node.Config{
		Ephemeral:    f.ephemeral,
		Hostname:     f.hostname,
		DataPathPort: f.dataPathPort,
		JoinToken:    f.joinToken,
		Availability: swarm.NodeAvailability(f.availability),
		SubnetSize:   f.poolMask,
		HostLoopback: f.hostLoopback,
		TUN:          f.tun,
		Log:          log,
	}
	if err := f.proxies(&cfg); err != nil {
		return cfg, err
	}
	if cfg.Services, err = parseSidecars(f.services); err != nil {
		return cfg, err
	}
	if labels := f.labels.GetSlice(); len(labels) > 0 {
		cfg.Labels = opts.ConvertKVStringsToMap(labels)
	}
	if len(args) > 0 {
		cfg.JoinAddr = args[0]
	}
	if dir := c.stateDirOrEnv(); dir != "" {
		if cfg.StateDir, err = filepath.Abs(dir); err != nil {
			return cfg, fmt.Errorf("--state-dir: %w", err)
		}
	}
	if cfg.DefaultAddrPool, err = parsePools(f.pools); err != nil {
		return cfg, err
	}
	return cfg, f.addresses(&cfg)
}

// proxies reads the flags of the node's own proxy.
func (f *upFlags) proxies(cfg *node.Config) (err error) {
	if f.proxy == "" {
		if len(f.proxyNetworks) > 0 {
			return errors.New("--proxy-network: there is no proxy without --proxy")
		}
		return nil
	}
	if cfg.ProxyAddr, err = listenAddr(f.proxy); err != nil {
		return fmt.Errorf("--proxy: %w", err)
	}
	cfg.ProxyNetworks = f.proxyNetworks
	return nil
}

func (f *upFlags) addresses(cfg *node.Config) (err error) {
	if f.advertise != "" {
		if cfg.AdvertiseAddr, err = node.ParseAddr("--advertise-addr", f.advertise); err != nil {
			return err
		}
	}
	if f.listen != "" {
		if cfg.ListenAddr, err = node.ParseAddr("--listen-addr", f.listen); err != nil {
			return err
		}
	}
	if f.dataPath != "" {
		addr, err := node.ParseAddr("--data-path-addr", f.dataPath)
		if err != nil {
			return err
		}
		if addr.Port() != 0 {
			return fmt.Errorf("--data-path-addr: %q has a port: --data-path-port sets it", f.dataPath)
		}
		cfg.DataPathAddr = addr.Addr()
	}
	if f.dns != "" {
		addr, err := node.ParseAddr("--dns", f.dns)
		if err != nil {
			return err
		}
		cfg.DNSAddr = netip.AddrPortFrom(addr.Addr(), cmp.Or(addr.Port(), dnsPort))
	}
	return nil
}

// logger is the log of a node: on standard error, which in the background is
// the log file.
func (c *cli) logger() (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.logLevel)); err != nil {
		return nil, fmt.Errorf(`--log-level: %q is not "debug", "info", "warn" or "error"`, c.logLevel)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})), nil
}

// runForeground runs the node in this process. If `up` in the background
// started it, that one is told how the start went.
func runForeground(ctx context.Context, cfg node.Config) error {
	sd := openSystemd()
	defer context.AfterFunc(ctx, sd.stopping)()
	report, err := openReport()
	if err != nil {
		return err
	}
	if report != nil {
		// Nobody's folder may stay busy because of a node in the background.
		if err := os.Chdir("/"); err != nil {
			return err
		}
	}
	n, err := node.New(cfg)
	if err == nil {
		err = n.Run(ctx, func() {
			report.send(startReport{Ready: true})
			sd.ready(ctx, cfg.StateDir)
		})
	}
	if err != nil {
		report.send(startReport{Error: err.Error()})
	}
	return err
}

// runUp starts the node in the background and prints what it has become.
func runUp(ctx context.Context, c *cli, cfg node.Config) error {
	paths, err := c.paths()
	if err != nil {
		return err
	}
	host := "unix://" + paths.APISocket
	status, err := nodeStatus(ctx, host)
	switch {
	case err == nil && cfg.JoinToken != "":
		return fmt.Errorf("a node is already up here (%s). Make it join with \"ovnd swarm join\", or stop it first with \"ovnd down\"", describe(status))
	case err == nil:
		fmt.Fprintf(c.out, "ovnd is already up: %s.\n", describe(status))
		return nil
	case !errors.Is(err, ovnd.ErrNoNode):
		return err
	}
	member := paths.HasSwarm() && !cfg.Ephemeral
	if err := startInBackground(ctx, c.args, paths); err != nil {
		return err
	}
	defer c.tellTUN(ctx, host)
	if member {
		return printUpAgain(ctx, c.out, host)
	}
	api, err := newDockerClient(host)
	if err != nil {
		return err
	}
	defer api.Close() //nolint:errcheck // nothing was written
	if cfg.JoinToken != "" {
		return printJoined(ctx, c.out, api)
	}
	info, err := api.Info(ctx, client.InfoOptions{})
	if err != nil {
		return err
	}
	return printInitialized(ctx, c.out, api, info.Info.Swarm.NodeID)
}

// statusPatience is for a node that holds its socket and does not answer.
const statusPatience = 10 * time.Second

func nodeStatus(ctx context.Context, host string) (types.Status, error) {
	api, err := ovnd.New(host)
	if err != nil {
		return types.Status{}, err
	}
	defer api.Close()
	ctx, cancel := context.WithTimeout(ctx, statusPatience)
	defer cancel()
	return api.Status(ctx)
}

// tellTUN says on standard error that a node's tasks have no sandboxes.
func (c *cli) tellTUN(ctx context.Context, host string) {
	if s, err := nodeStatus(ctx, host); err == nil && !s.TUN.Sandboxes {
		fmt.Fprintf(c.err, "\nTasks of this node have no namespaces and no TUN devices (%s):\nthey are processes of this machine, at the ports that PORT says, and reach their networks by a proxy.\n", s.TUN.Reason)
	}
}

func describe(s types.Status) string {
	switch {
	case s.NodeID == "":
		return fmt.Sprintf("node %s, in no swarm", s.Hostname)
	case s.Role == "": // on its way into the swarm
		return fmt.Sprintf("node %s (%s), %s", s.NodeID, s.Hostname, s.State)
	default:
		return fmt.Sprintf("node %s (%s), a %s", s.NodeID, s.Hostname, s.Role)
	}
}

func printUpAgain(ctx context.Context, w io.Writer, host string) error {
	status, err := nodeStatus(ctx, host)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "ovnd is up again: %s.\n", describe(status))
	return err
}

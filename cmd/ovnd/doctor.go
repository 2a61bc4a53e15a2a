package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	ovnd "github.com/ovnd/ovnd/api/client"
	"github.com/ovnd/ovnd/api/types"
	"github.com/ovnd/ovnd/doctor"
	"github.com/ovnd/ovnd/node"
)

// doctorFlags are the flags of `doctor`.
type doctorFlags struct {
	peers     []string
	advertise string
	mode      string
	asJSON    bool
}

func newDoctorCommand(c *cli) *cobra.Command {
	var f doctorFlags
	cmd := &cobra.Command{
		Use:   "doctor [OPTIONS]",
		Short: "Examine what this machine allows a node, and say what helps",
		Long: `Examine what this machine allows: TUN and namespaces, ports, sockets, the MTU of
the ways to other nodes, the clock, other overlays. Each line says what was
found, and what to do about it. Nothing needs root and nothing is changed.

The peers are those of the node that is up here, and those that --peer names.
The exit code is 1 if something fails, else 0.`,
		Example: `  ovnd doctor
  ovnd doctor --peer 192.0.2.11
  ovnd doctor --tun require --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runDoctor(cmd.Context(), c, f)
		},
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&f.peers, "peer", nil, "Examine the way to this machine too (ADDR or ADDR:PORT of a manager)")
	flags.StringVar(&f.advertise, "advertise-addr", "", "Examine this address as the node's own (default that of the node that is up, or of the default route)")
	flags.StringVar(&f.mode, "tun", string(doctor.Auto), `Whether a lack of sandboxes is a warning ("auto"), fails ("require") or does not matter ("never")`)
	flags.BoolVar(&f.asJSON, "json", false, "Print in JSON format")
	completeValues(cmd, "tun", string(doctor.Auto), string(doctor.Require), string(doctor.Never))
	return cmd
}

func runDoctor(ctx context.Context, c *cli, f doctorFlags) error {
	cfg, err := f.config()
	if err != nil {
		return err
	}
	if cfg, err = c.describeNode(ctx, cfg); err != nil {
		return err
	}
	report := doctor.Examine(ctx, cfg)
	if f.asJSON {
		enc := json.NewEncoder(c.out)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		err = enc.Encode(report)
	} else {
		err = printReport(c.out, report)
	}
	if err == nil && !report.OK {
		err = &exitError{code: exitFailed}
	}
	return err
}

// config is what the flags say.
func (f *doctorFlags) config() (cfg doctor.Config, err error) {
	switch cfg.Mode = doctor.Mode(f.mode); cfg.Mode {
	case doctor.Auto, doctor.Require, doctor.Never:
	default:
		return cfg, fmt.Errorf(`--tun: %q is not "auto", "require" or "never"`, f.mode)
	}
	if f.advertise != "" {
		addr, err := node.ParseAddr("--advertise-addr", f.advertise)
		if err != nil {
			return cfg, err
		}
		cfg.Addr, cfg.Control = addr.Addr(), addr.Port()
	}
	for _, s := range f.peers {
		peer, err := parsePeer(s)
		if err != nil {
			return cfg, fmt.Errorf("--peer: %w", err)
		}
		cfg.Peers = append(cfg.Peers, peer)
	}
	// A build from a work tree without its history has no time.
	if _, _, at := node.Build(); at != "" {
		if cfg.Built, err = time.Parse(time.RFC3339, at); err != nil {
			return cfg, fmt.Errorf("time of this build: %w", err)
		}
	}
	return cfg, nil
}

// parsePeer reads an address, or that of a manager's port.
func parsePeer(s string) (p doctor.Peer, err error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		host = s
	} else if number, err := strconv.ParseUint(port, 10, 16); err != nil || number == 0 {
		return p, fmt.Errorf("%q: %q is not a port", s, port)
	} else {
		p.Control = uint16(number)
	}
	if p.Addr, err = netip.ParseAddr(host); err == nil {
		p.Addr = p.Addr.Unmap()
		return p, nil
	}
	addrs, err := net.DefaultResolver.LookupNetIP(context.Background(), "ip", host)
	if err != nil {
		return p, fmt.Errorf("%q: %w", s, err)
	}
	p.Name, p.Addr = host, addrs[0].Unmap()
	return p, nil
}

// describeNode adds what the node that is up here knows, if one is.
func (c *cli) describeNode(ctx context.Context, cfg doctor.Config) (doctor.Config, error) {
	paths, err := c.paths()
	if err != nil {
		return cfg, err
	}
	cfg.StateDir = paths.StateDir
	host, err := c.apiHost()
	if err != nil {
		return cfg, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	s, err := nodeStatus(ctx, host)
	switch {
	case errors.Is(err, ovnd.ErrNoNode):
		return cfg, nil
	case err != nil:
		fmt.Fprintf(c.err, "The node that is up here does not answer, its peers are not examined: %v\n", err)
		return cfg, nil
	}
	return withNode(cfg, s), nil
}

func withNode(cfg doctor.Config, s types.Status) doctor.Config {
	cfg.NodePID, cfg.StateDir = s.PID, cmp.Or(s.StateDir, cfg.StateDir)
	if !cfg.Addr.IsValid() {
		cfg.Addr = s.Addresses.Advertise
	}
	cfg.Control = cmp.Or(cfg.Control, s.Addresses.Control.Port())
	cfg.Gossip, cfg.DataPath = s.Addresses.Gossip.Port(), s.Addresses.DataPath.Port()
	for _, p := range s.Peers {
		cfg.Peers = append(cfg.Peers, doctor.Peer{Name: p.Name, Addr: p.IP, Node: true})
	}
	for _, m := range s.Managers {
		if at, err := netip.ParseAddrPort(m); err == nil && at.Addr() != s.Addresses.Advertise {
			cfg.Peers = addManager(cfg.Peers, at)
		}
	}
	return cfg
}

// addManager notes the port of a manager, which may be known as a peer.
func addManager(peers []doctor.Peer, at netip.AddrPort) []doctor.Peer {
	for i := range peers {
		if peers[i].Addr == at.Addr() {
			peers[i].Control = at.Port()
			return peers
		}
	}
	return append(peers, doctor.Peer{Addr: at.Addr(), Control: at.Port(), Node: true})
}

// printReport is for a person: a line a finding, its remedy below.
func printReport(w io.Writer, r doctor.Report) error {
	width := 0
	for _, f := range r.Findings {
		width = max(width, len(f.Check))
	}
	for _, f := range r.Findings {
		fmt.Fprintf(w, "%-4s  %-*s  %s\n", f.Level, width, f.Check, f.Found)
		if f.Remedy != "" {
			fmt.Fprintf(w, "      %*s  -> %s\n", width, "", f.Remedy)
		}
	}
	_, err := fmt.Fprintf(w, "\n%s\n", verdict(r))
	return err
}

func verdict(r doctor.Report) string {
	switch {
	case r.Failures > 0:
		return fmt.Sprintf("%d of %d fail, %d warn.", r.Failures, len(r.Findings), r.Warnings)
	case r.Warnings > 0:
		return fmt.Sprintf("A node can run here; %d of %d warn.", r.Warnings, len(r.Findings))
	}
	return "All is as it should be."
}

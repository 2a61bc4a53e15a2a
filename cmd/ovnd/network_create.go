package main

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/docker/cli/opts"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

// createFlags are the flags of `network create`.
type createFlags struct {
	client.NetworkCreateOptions
	ipv6                     bool
	options                  *opts.MapOpts
	labels                   opts.ListOpts
	subnets, ranges, gateway []string
}

func newNetworkCreateCommand(c *cli) *cobra.Command {
	f := createFlags{options: opts.NewMapOpts(nil, nil), labels: opts.NewListOpts(opts.ValidateLabel)}
	cmd := &cobra.Command{
		Use:   "create [OPTIONS] NETWORK",
		Short: "Create a network",
		Example: `  ovnd network create my_net
  ovnd network create --attachable --subnet 10.10.0.0/16 my_net
  ovnd network create --opt encrypted my_net
  ovnd network create --opt com.docker.network.driver.mtu=1400 my_net`,
		Args: oneArg,
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("ipv6") {
				f.EnableIPv6 = &f.ipv6
			}
			return runNetworkCreate(cmd, c, args[0], &f)
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&f.Driver, "driver", "d", "overlay", "Driver to manage the Network")
	flags.VarP(f.options, "opt", "o", "Set driver specific options")
	flags.Var(&f.labels, "label", "Set metadata on a network")
	flags.StringSliceVar(&f.subnets, "subnet", nil, "Subnet in CIDR format that represents a network segment")
	flags.StringSliceVar(&f.ranges, "ip-range", nil, "Allocate addresses from a sub-range")
	flags.StringSliceVar(&f.gateway, "gateway", nil, "Gateway for the master subnet")
	flags.BoolVar(&f.Internal, "internal", false, "Restrict external access to the network")
	flags.BoolVar(&f.Attachable, "attachable", false, `Enable manual attachment, as "ovnd run" does it`)
	flags.BoolVar(&f.Ingress, "ingress", false, "Create swarm routing-mesh network")
	flags.BoolVar(&f.ipv6, "ipv6", false, "Enable or disable IPv6 address assignment")
	flags.StringVar(&f.Scope, "scope", "", "Control the network's scope")
	return cmd
}

func runNetworkCreate(cmd *cobra.Command, c *cli, name string, f *createFlags) error {
	config, err := ipamConfig(f.subnets, f.ranges, f.gateway)
	if err != nil {
		return err
	}
	f.IPAM = &network.IPAM{Driver: "default", Config: config}
	f.Options = f.options.GetAll()
	f.Labels = opts.ConvertKVStringsToMap(f.labels.GetSlice())
	api, err := c.docker()
	if err != nil {
		return err
	}
	res, err := api.NetworkCreate(cmd.Context(), name, f.NetworkCreateOptions)
	if err != nil {
		return err
	}
	for _, warning := range res.Warning {
		fmt.Fprintln(c.err, "WARNING:", warning)
	}
	fmt.Fprintln(c.out, res.ID)
	return nil
}

// ipamConfig gives every subnet the range and the gateway that lie in it, with
// docker's words where that cannot be done.
func ipamConfig(subnets, ranges, gateways []string) ([]network.IPAMConfig, error) {
	if len(subnets) < len(ranges) || len(subnets) < len(gateways) {
		return nil, errors.New("every ip-range or gateway must have a corresponding subnet")
	}
	var config []network.IPAMConfig
	for _, s := range subnets {
		subnet, err := netip.ParsePrefix(s)
		if err != nil {
			// Docker's client leaves this to its daemon. Moby's has types that
			// cannot even carry it, so that the daemon's words are said here.
			return nil, &exitError{exitFailed, "Error response from daemon: invalid network config:\ninvalid subnet " + s + ": invalid CIDR block notation"}
		}
		for _, other := range config {
			if subnet.Overlaps(other.Subnet) {
				return nil, errors.New("multiple overlapping subnet configuration is not supported")
			}
		}
		config = append(config, network.IPAMConfig{Subnet: subnet})
	}
	for _, s := range ranges {
		r, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("invalid CIDR address: %s", s)
		}
		in := subnetOf(config, r.Addr())
		if in == nil || r.Bits() < in.Subnet.Bits() {
			return nil, fmt.Errorf("no matching subnet for range %s", s)
		}
		if in.IPRange.IsValid() {
			return nil, fmt.Errorf("cannot configure multiple ranges (%s, %s) on the same subnet (%s)", s, in.IPRange, in.Subnet)
		}
		in.IPRange = r
	}
	for _, s := range gateways {
		gateway, err := netip.ParseAddr(s)
		in := subnetOf(config, gateway)
		if err != nil || in == nil {
			return nil, fmt.Errorf("no matching subnet for gateway %s", s)
		}
		if in.Gateway.IsValid() {
			return nil, fmt.Errorf("cannot configure multiple gateways (%s, %s) for the same subnet (%s)", s, in.Gateway, in.Subnet)
		}
		in.Gateway = gateway
	}
	return config, nil
}

func subnetOf(config []network.IPAMConfig, a netip.Addr) *network.IPAMConfig {
	for i := range config {
		if config[i].Subnet.Contains(a) {
			return &config[i]
		}
	}
	return nil
}

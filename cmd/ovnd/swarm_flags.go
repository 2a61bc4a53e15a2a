package main

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func newSwarmUpdateCommand(c *cli) *cobra.Command {
	var spec specFlags
	cmd := &cobra.Command{
		Use:   "update [OPTIONS]",
		Short: "Update the swarm",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !anyChanged(cmd.LocalFlags()) {
				return cmd.Help()
			}
			api, err := c.docker()
			if err != nil {
				return err
			}
			res, err := api.SwarmInspect(cmd.Context(), client.SwarmInspectOptions{})
			if err != nil {
				return err
			}
			spec.apply(&res.Swarm.Spec, cmd.Flags())
			if _, err := api.SwarmUpdate(cmd.Context(), client.SwarmUpdateOptions{Version: res.Swarm.Version, Spec: res.Swarm.Spec}); err != nil {
				return err
			}
			fmt.Fprintln(c.out, "Swarm updated.")
			return nil
		},
	}
	spec.add(cmd.Flags())
	return cmd
}

func anyChanged(flags *pflag.FlagSet) bool {
	changed := false
	flags.VisitAll(func(f *pflag.Flag) { changed = changed || f.Changed })
	return changed
}

// specFlags are the parts of the swarm's spec that `swarm init` and
// `swarm update` set.
type specFlags struct {
	taskHistory  int64
	heartbeat    time.Duration
	certExpiry   time.Duration
	maxSnapshots uint64
	interval     uint64
}

const (
	taskHistoryFlag  = "task-history-limit"
	heartbeatFlag    = "dispatcher-heartbeat"
	certExpiryFlag   = "cert-expiry"
	maxSnapshotsFlag = "max-snapshots"
	intervalFlag     = "snapshot-interval"
)

func (s *specFlags) add(flags *pflag.FlagSet) {
	flags.Int64Var(&s.taskHistory, taskHistoryFlag, 5, "Task history retention limit")
	flags.DurationVar(&s.heartbeat, heartbeatFlag, 5*time.Second, "Dispatcher heartbeat period (ns|us|ms|s|m|h)")
	flags.DurationVar(&s.certExpiry, certExpiryFlag, 90*24*time.Hour, "Validity period for node certificates (ns|us|ms|s|m|h)")
	flags.Uint64Var(&s.maxSnapshots, maxSnapshotsFlag, 0, "Number of additional Raft snapshots to retain")
	flags.Uint64Var(&s.interval, intervalFlag, 10000, "Number of log entries between Raft snapshots")
}

// apply sets what was given on the command line and leaves the rest alone:
// the swarm's present value, or in a new swarm the default.
func (s *specFlags) apply(spec *swarm.Spec, flags *pflag.FlagSet) {
	if flags.Changed(taskHistoryFlag) {
		spec.Orchestration.TaskHistoryRetentionLimit = &s.taskHistory
	}
	if flags.Changed(heartbeatFlag) {
		spec.Dispatcher.HeartbeatPeriod = s.heartbeat
	}
	if flags.Changed(certExpiryFlag) {
		spec.CAConfig.NodeCertExpiry = s.certExpiry
	}
	if flags.Changed(maxSnapshotsFlag) {
		spec.Raft.KeepOldSnapshots = &s.maxSnapshots
	}
	if flags.Changed(intervalFlag) {
		spec.Raft.SnapshotInterval = s.interval
	}
}

// addAddressFlags are the addresses of a node that init, join and up share.
func addAddressFlags(flags *pflag.FlagSet, advertise, listen, dataPath *string) {
	flags.StringVar(advertise, "advertise-addr", "", `Advertised address (format: "<ip|interface>[:port]")`)
	flags.StringVar(listen, "listen-addr", "", `Listen address (format: "<ip|interface>[:port]") (default the advertised address)`)
	flags.StringVar(dataPath, "data-path-addr", "", `Address or interface to use for data path traffic (format: "<ip|interface>")`)
}

func addPoolFlags(flags *pflag.FlagSet, pools *[]string, size *uint32) {
	flags.StringSliceVar(pools, "default-addr-pool", nil, "default address pool in CIDR format")
	flags.Uint32Var(size, "default-addr-pool-mask-length", 24, "default address pool subnet mask length")
}

func parsePools(pools []string) ([]netip.Prefix, error) {
	var parsed []netip.Prefix
	for _, s := range pools {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("--default-addr-pool: %q is not an address range such as 10.0.0.0/8", s)
		}
		parsed = append(parsed, p)
	}
	return parsed, nil
}

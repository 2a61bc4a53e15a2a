package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/docker/cli/cli/command/formatter"
	"github.com/docker/cli/templates"
	units "github.com/docker/go-units"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

// infoData is what templates of `info --format` see, as docker's.
type infoData struct {
	*system.Info
	ClientInfo clientVersion
}

func newInfoCommand(c *cli) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:     "info [OPTIONS]",
		Short:   "Display system-wide information",
		Example: `  ovnd info --format '{{.Swarm.LocalNodeState}}'`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := c.docker()
			if err != nil {
				return err
			}
			data := infoData{ClientInfo: clientInfo()}
			res, err := api.Info(cmd.Context(), client.InfoOptions{})
			if err == nil {
				data.Info = &res.Info
			}
			if format == "" {
				printInfo(c, data)
				return err
			}
			if err != nil {
				return err
			}
			return formatInfo(c.out, data, format)
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", inspectFormatHelp)
	return cmd
}

func formatInfo(w io.Writer, data infoData, format string) error {
	if format == formatter.JSONFormatKey {
		format = formatter.JSONFormat
	}
	tmpl, err := templates.Parse(format)
	if err != nil {
		return &exitError{exitBadFormat, "template parsing error: " + err.Error()}
	}
	err = tmpl.Execute(w, data)
	fmt.Fprintln(w)
	return err
}

// printInfo has docker's lines, less those about images and containers that a
// node without either would leave empty.
func printInfo(c *cli, data infoData) {
	p := func(label string, value any) { fmt.Fprintf(c.out, "%s: %v\n", label, value) }
	fmt.Fprintln(c.out, "Client:")
	p(" Version", data.ClientInfo.Version)
	fmt.Fprintln(c.out, "\nServer:")
	info := data.Info
	if info == nil {
		return
	}
	p(" Containers", info.Containers)
	p("  Running", info.ContainersRunning)
	p(" Server Version", info.ServerVersion)
	p(" Plugins:\n  Network", strings.Join(info.Plugins.Network, " "))
	p(" Swarm", info.Swarm.LocalNodeState)
	printSwarm(c.out, info.Swarm)
	if len(info.SecurityOptions) > 0 {
		fmt.Fprintln(c.out, " Security Options:")
		for _, option := range info.SecurityOptions {
			fmt.Fprintln(c.out, "  "+strings.TrimPrefix(option, "name="))
		}
	}
	p(" Kernel Version", info.KernelVersion)
	p(" Operating System", info.OperatingSystem)
	p(" OSType", info.OSType)
	p(" Architecture", info.Architecture)
	p(" CPUs", info.NCPU)
	p(" Total Memory", units.BytesSize(float64(info.MemTotal)))
	p(" Name", info.Name)
	p(" ID", info.ID)
	p(" Root Dir", info.DockerRootDir)
	fmt.Fprintln(c.out)
	for _, warning := range info.Warnings {
		fmt.Fprintln(c.err, warning)
	}
}

func printSwarm(w io.Writer, s swarm.Info) {
	p := func(label string, value any) { fmt.Fprintf(w, "%s: %v\n", label, value) }
	if s.LocalNodeState == swarm.LocalNodeStateInactive || s.LocalNodeState == swarm.LocalNodeStateLocked {
		return
	}
	p("  NodeID", s.NodeID)
	if s.Error != "" {
		p("  Error", s.Error)
	}
	p("  Is Manager", s.ControlAvailable)
	if s.Cluster != nil && s.ControlAvailable {
		p("  ClusterID", s.Cluster.ID)
		p("  Managers", s.Managers)
		p("  Nodes", s.Nodes)
		printCluster(p, s.Cluster)
	}
	p("  Node Address", s.NodeAddr)
	if len(s.RemoteManagers) > 0 {
		addrs := make([]string, 0, len(s.RemoteManagers))
		for _, m := range s.RemoteManagers {
			addrs = append(addrs, m.Addr)
		}
		slices.Sort(addrs)
		fmt.Fprintf(w, "  Manager Addresses:\n   %s\n", strings.Join(addrs, "\n   "))
	}
}

func printCluster(p func(string, any), c *swarm.ClusterInfo) {
	if len(c.DefaultAddrPool) > 0 {
		pools := make([]string, 0, len(c.DefaultAddrPool))
		for _, pool := range c.DefaultAddrPool {
			pools = append(pools, pool.String())
		}
		p("  Default Address Pool", strings.Join(pools, "  "))
		p("  SubnetSize", c.SubnetSize)
	}
	if c.DataPathPort > 0 {
		p("  Data Path Port", c.DataPathPort)
	}
	history := int64(0)
	if limit := c.Spec.Orchestration.TaskHistoryRetentionLimit; limit != nil {
		history = *limit
	}
	p("  Orchestration:\n   Task History Retention Limit", history)
	p("  Raft:\n   Snapshot Interval", c.Spec.Raft.SnapshotInterval)
	if keep := c.Spec.Raft.KeepOldSnapshots; keep != nil {
		p("   Number of Old Snapshots to Retain", *keep)
	}
	p("   Heartbeat Tick", c.Spec.Raft.HeartbeatTick)
	p("   Election Tick", c.Spec.Raft.ElectionTick)
	p("  Dispatcher:\n   Heartbeat Period", units.HumanDuration(c.Spec.Dispatcher.HeartbeatPeriod))
	p("  CA Configuration:\n   Expiry Duration", units.HumanDuration(c.Spec.CAConfig.NodeCertExpiry))
	p("   Force Rotate", c.Spec.CAConfig.ForceRotate)
	p("  Autolock Managers", c.Spec.EncryptionConfig.AutoLockManagers)
	p("  Root Rotation In Progress", c.RootRotationInProgress)
}

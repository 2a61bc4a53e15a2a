package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/docker/cli/cli/command/formatter"
	"github.com/docker/cli/templates"
	units "github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/ovnd/ovnd/api/types"
)

func newStatusCommand(c *cli) *cobra.Command {
	var format string
	var asJSON bool
	var wait waitFlag
	cmd := &cobra.Command{
		Use:   "status [OPTIONS]",
		Short: "Show the node: peers, ports, packets in, out and dropped",
		Example: `  ovnd status
  ovnd status --format '{{json .Ledger}}'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if asJSON {
				format = formatter.JSONFormatKey
			}
			write, err := statusWriter(format)
			if err != nil {
				return &exitError{exitBadFormat, "template parsing error: " + err.Error()}
			}
			api, err := c.ovnd()
			if err != nil {
				return err
			}
			s, err := wait.status(cmd.Context(), api)
			if err != nil {
				return err
			}
			return write(c.out, s)
		},
	}
	cmd.Flags().StringVarP(&format, "format", "f", "", inspectFormatHelp)
	cmd.Flags().BoolVar(&asJSON, "json", false, "Print in JSON format")
	wait.add(cmd)
	return cmd
}

func statusWriter(format string) (func(io.Writer, types.Status) error, error) {
	switch format {
	case "":
		return printStatus, nil
	case formatter.JSONFormatKey:
		format = formatter.JSONFormat
	}
	tmpl, err := templates.Parse(format)
	if err != nil {
		return nil, err
	}
	return func(w io.Writer, s types.Status) error {
		if err := tmpl.Execute(w, s); err != nil {
			return fmt.Errorf("template parsing error: %w", err)
		}
		_, err := fmt.Fprintln(w)
		return err
	}, nil
}

// printStatus is for a person: what the node is, then a table for each kind
// of thing that packets pass, then what became of them.
func printStatus(w io.Writer, s types.Status) error {
	tw := tabwriter.NewWriter(w, 0, 1, 3, ' ', 0)
	printNode(tw, s)
	printNetworkStates(tw, s.Networks)
	printPeerStates(tw, s.Peers)
	printSessions(tw, s.Peers)
	printPortStates(tw, s.Ports)
	printServices(tw, s)
	printPublished(tw, s.Published)
	printProxies(tw, s.Proxies)
	if err := tw.Flush(); err != nil {
		return err
	}
	printDrops(w, s)
	return nil
}

func printNode(w io.Writer, s types.Status) {
	line := func(label string, value any) { fmt.Fprintf(w, "%s:\t%v\n", label, value) }
	line("Node", strings.TrimSpace(s.Hostname+" "+s.NodeID))
	state := s.State
	if s.Role != "" {
		state = s.Role + ", " + s.State
	}
	if s.Error != "" {
		state += ": " + s.Error
	}
	line("Swarm", state)
	line("Running", fmt.Sprintf("%s (pid %d, version %s)", strings.ToLower(units.HumanDuration(time.Duration(s.Uptime)*time.Second)), s.PID, s.Version))
	line("State", s.StateDir)
	line("API", "unix://"+s.Addresses.API)
	if s.Addresses.Advertise.IsValid() {
		line("Address", s.Addresses.Advertise)
	}
	if s.Addresses.Control.IsValid() {
		line("Swarm port", s.Addresses.Control.String()+"/tcp")
	}
	if s.Addresses.Gossip.IsValid() {
		line("Gossip port", s.Addresses.Gossip.String()+"/tcp+udp")
	}
	if s.Addresses.DataPath.IsValid() {
		line("Data port", s.Addresses.DataPath.String()+"/udp")
	}
	if s.Addresses.DNS.IsValid() {
		line("DNS", s.Addresses.DNS.String()+"/tcp+udp")
	}
	if len(s.Managers) > 0 {
		line("Managers", strings.Join(s.Managers, ", "))
	}
	printSealing(w, s.Sealing)
	printTUN(w, s.TUN)
}

func printNetworkStates(w io.Writer, networks []types.NetworkState) {
	if len(networks) == 0 {
		return
	}
	fmt.Fprintln(w, "\nNETWORK\tID\tVXLAN ID\tMTU\tSUBNET\tENDPOINTS\tHERE\tPEERS\tDROPPED")
	for _, n := range networks {
		var subnets []string
		for _, p := range n.Subnets {
			subnets = append(subnets, p.String())
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%s\t%d\t%d\t%d\t%d\n", n.Name, formatter.TruncateID(n.ID), n.VNI, n.MTU,
			strings.Join(subnets, ","), n.Endpoints, n.LocalEndpoints, n.Peers, sum(n.Drops))
	}
}

func printPeerStates(w io.Writer, peers []types.PeerState) {
	if len(peers) == 0 {
		return
	}
	fmt.Fprintln(w, "\nPEER\tADDRESS\tNETWORKS\tPACKETS IN\tBYTES IN\tPACKETS OUT\tBYTES OUT")
	for _, p := range peers {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", p.Name, p.IP, strings.Join(p.Networks, ","), traffic(p.Traffic))
	}
}

func printPortStates(w io.Writer, ports []types.PortState) {
	if len(ports) == 0 {
		return
	}
	fmt.Fprintln(w, "\nPORT\tADDRESS\tNETWORK\tPACKETS IN\tBYTES IN\tPACKETS OUT\tBYTES OUT")
	for _, p := range ports {
		var addrs []string
		for _, a := range p.Addresses {
			addrs = append(addrs, a.String())
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", p.Name, strings.Join(addrs, ","), p.Network, traffic(p.Traffic))
	}
}

func printPublished(w io.Writer, ports []types.PublishedPort) {
	if len(ports) == 0 {
		return
	}
	fmt.Fprintln(w, "\nPUBLISHED\tSERVICE\tSTATE")
	for _, p := range ports {
		addrs := make([]string, 0, len(p.Addrs))
		for _, a := range p.Addrs {
			addrs = append(addrs, a.String())
		}
		state := "open at " + strings.Join(addrs, ", ")
		if p.Error != "" {
			state = "not open: " + p.Error
		}
		fmt.Fprintf(w, "%d/%s\t%s\t%s\n", p.Port, p.Protocol, p.Service, state)
	}
}

func traffic(t types.Traffic) string {
	return fmt.Sprintf("%d\t%s\t%d\t%s", t.RxPackets, units.HumanSize(float64(t.RxBytes)), t.TxPackets, units.HumanSize(float64(t.TxBytes)))
}

func printDrops(w io.Writer, s types.Status) {
	if s.Sealing != nil && len(s.Sealing.Refusals) > 0 {
		fmt.Fprintf(w, "\nRefused handshakes:\n%s", counts(s.Sealing.Refusals))
	}
	dropped := "Dropped: none\n"
	if len(s.Drops) > 0 {
		dropped = "Dropped:\n" + counts(s.Drops)
	}
	fmt.Fprintf(w, "\n%sLedger: %s\n", dropped, ledger(s.Ledger))
}

// counts lists reasons, a line each, the most frequent first.
func counts(byReason map[string]uint64) string {
	mostFirst := func(a, b string) int {
		return cmp.Or(cmp.Compare(byReason[b], byReason[a]), cmp.Compare(a, b))
	}
	var list strings.Builder
	for _, reason := range slices.SortedFunc(maps.Keys(byReason), mostFirst) {
		fmt.Fprintf(&list, "%12d  %s\n", byReason[reason], reason)
	}
	return list.String()
}

// ledger says whether every packet is accounted for. Packets that are being
// forwarded at this moment are sent and not yet delivered.
func ledger(l types.Ledger) string {
	sums := fmt.Sprintf("%d sent, %d delivered, %d dropped", l.Sent, l.Delivered, l.Dropped)
	if missing := int64(l.Sent - l.Delivered - l.Dropped); missing != 0 {
		return sums + ", " + strconv.FormatInt(missing, 10) + " on their way"
	}
	return sums + ": it closes"
}

func sum(counts map[string]uint64) (total uint64) {
	for _, n := range counts {
		total += n
	}
	return total
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/ovnd/ovnd/bench"
	"github.com/ovnd/ovnd/bench/lab"
	"github.com/ovnd/ovnd/bench/report"
)

func newBenchCommand(c *cli) *cobra.Command {
	return newGroup("bench", "Measure what this machine's overlay networks can do, beside others",
		newBenchEncapCommand(c),
		newBenchPathCommand(c),
		newBenchVIPCommand(c),
		newBenchDNSCommand(c),
		newBenchScaleCommand(c),
		newBenchShowCommand(c),
		newBenchChildCommand(),
	)
}

// newBenchChildCommand is what benchmarks start for their traffic and data planes.
func newBenchChildCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "child",
		Short:  "Traffic and data planes of benchmarks",
		Hidden: true,
		Args:   noArgs,
		RunE: func(*cobra.Command, []string) error {
			bench.RunChild()
			return errors.New("bench child is for ovnd's own use")
		},
	}
}

// A benchRun is what all benchmarks have in common: how long, what is shown and
// where it goes.
type benchRun struct {
	c       *cli
	timing  bench.Timing
	output  benchOutput
	verbose bool
}

func (b *benchRun) addFlags(cmd *cobra.Command, rounds int, window time.Duration) {
	flags := cmd.Flags()
	flags.IntVarP(&b.timing.Rounds, "rounds", "n", rounds, "How often to measure each; a difference needs four at least to be told from chance")
	flags.DurationVarP(&b.timing.Window, "time", "t", window, "How long to measure each time")
	flags.BoolVarP(&b.verbose, "verbose", "v", false, "Print every interval and every result as it comes, on the standard error")
	b.output.addFlags(cmd)
}

// inLab runs a benchmark in namespaces of its own. It does not return outside:
// this program starts itself again inside and exits as that does.
func (b *benchRun) inLab(ctx context.Context, run func(context.Context, bench.Progress) (*report.Report, error)) error {
	if err := b.output.prepare(); err != nil {
		return err
	}
	lab.Enter()
	return b.here(ctx, run)
}

// here runs a benchmark and shows its report, also one that was interrupted.
func (b *benchRun) here(ctx context.Context, run func(context.Context, bench.Progress) (*report.Report, error)) error {
	if err := b.output.prepare(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(ctx, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	show := newBenchProgress(b.c.err, b.verbose)
	r, err := run(ctx, show.hooks())
	show.clear()
	if r != nil && len(r.Benchmarks) > 0 {
		err = errors.Join(err, b.output.write(b.c, r))
	}
	if ctx.Err() != nil {
		return &exitError{code: 128 + int(unix.SIGINT), text: "bench: interrupted"}
	}
	return err
}

// commandLine is what repeats this run.
func (c *cli) commandLine() string {
	words := append(make([]string, 0, 1+len(c.args)), "ovnd")
	for _, arg := range c.args {
		if arg == "" || strings.ContainsAny(arg, " \t\n\"'`$&|;<>()*?[]{}~#!\\") {
			arg = "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
		}
		words = append(words, arg)
	}
	return strings.Join(words, " ")
}

func newBenchEncapCommand(c *cli) *cobra.Command {
	run := benchRun{c: c}
	cmd := &cobra.Command{
		Use:   "encap [OPTIONS]",
		Short: "Measure what each packet costs: parse, wrap, seal, open, in memory",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return run.here(cmd.Context(), func(ctx context.Context, p bench.Progress) (*report.Report, error) {
				return bench.RunEncap(ctx, bench.EncapConfig{Timing: run.timing, Command: c.commandLine(), Progress: p})
			})
		},
	}
	run.addFlags(cmd, 5, 50*time.Millisecond)
	return cmd
}

func newBenchPathCommand(c *cli) *cobra.Command {
	run := benchRun{c: c}
	cfg := bench.PathConfig{}
	cmd := &cobra.Command{
		Use:   "path [OPTIONS]",
		Short: "Measure the way between two nodes",
		Long: `Measure the way between two nodes: two data planes with TUN devices, each in a
network namespace, joined by veth. Baselines are measured in the same lab, in
turn, round by round, and ratios are made within a round.

It runs as an ordinary user, needs nothing installed and leaves nothing behind.`,
		Example: `  ovnd bench path --baseline kernel,wireguard
  ovnd bench path --mtu 1500,9000 --test tcp,tcp-many --rounds 10 --time 2s --out result
  ovnd bench path --subject ovnd-egress --baseline slirp4netns,pasta --test tcp,connect`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg.Timing, cfg.Command = run.timing, c.commandLine()
			if err := cfg.Check(); err != nil {
				return err
			}
			return run.inLab(cmd.Context(), func(ctx context.Context, p bench.Progress) (*report.Report, error) {
				cfg.Progress = p
				return bench.RunPath(ctx, cfg)
			})
		},
	}
	run.addFlags(cmd, 4, 400*time.Millisecond)
	addPlaneFlags(cmd, &cfg)
	flags := cmd.Flags()
	flags.StringSliceVar(&cfg.Subjects, "subject", bench.DefaultSubjects, "What of ovnd to measure ("+strings.Join(bench.Own(), ", ")+")")
	flags.StringSliceVar(&cfg.Tests, "test", bench.DefaultPathTests, "With which traffic ("+strings.Join(bench.PathTests, ", ")+")")
	flags.IntSliceVar(&cfg.MTUs, "mtu", []int{1500}, "MTUs of the underlay in bytes, each measured by itself")
	flags.BoolVar(&cfg.IPv6, "ipv6", false, "Use an IPv6 underlay")
	flags.BoolVar(&cfg.IPerf3, "iperf3", false, "Check the traffic generator: measure TCP with iperf3 too")
	completeValues(cmd, "subject", bench.Own()...)
	completeValues(cmd, "test", bench.PathTests...)
	return cmd
}

// addPlaneFlags adds the flags of what is measured by traffic.
func addPlaneFlags(cmd *cobra.Command, cfg *bench.PathConfig) {
	flags := cmd.Flags()
	flags.StringSliceVarP(&cfg.Baselines, "baseline", "b", nil, "What to compare with, as far as it is installed ("+strings.Join(bench.Baselines(), ", ")+")")
	flags.IntSliceVar(&cfg.Workers, "workers", nil, "Workers of ovnd's data planes, each number measured by itself (default the data plane's choice)")
	flags.IntVar(&cfg.Flows, "flows", 4, "TCP flows of the test with many")
	flags.IntVar(&cfg.UDPRate, "udp-rate", 80_000, "Datagrams a second that UDP tests offer")
	flags.IntSliceVar(&cfg.Sizes, "sizes", []int{64}, "Bytes of UDP payload, each a test")
	flags.StringVar(&cfg.Congestion, "congestion", "cubic", "TCP congestion control of all that is measured")
	flags.BoolVar(&cfg.Verify, "verify", false, "Compare every byte that arrives with what was sent; figures are then of this mode alone")
	completeValues(cmd, "baseline", bench.Baselines()...)
}

func newBenchVIPCommand(c *cli) *cobra.Command {
	run := benchRun{c: c}
	cfg := bench.PathConfig{}
	cmd := &cobra.Command{
		Use:   "vip [OPTIONS]",
		Short: "Measure services: both ways by a virtual address beside the one without",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg.Timing, cfg.Command = run.timing, c.commandLine()
			cfg.MTUs, cfg.Subjects = []int{1500}, bench.VIPSubjects
			if err := cfg.Check(); err != nil {
				return err
			}
			return run.inLab(cmd.Context(), func(ctx context.Context, p bench.Progress) (*report.Report, error) {
				cfg.Progress = p
				return bench.RunVIP(ctx, cfg)
			})
		},
	}
	run.addFlags(cmd, 5, 500*time.Millisecond)
	addPlaneFlags(cmd, &cfg)
	cmd.Flags().StringSliceVar(&cfg.Tests, "test", bench.DefaultVIPTests, "With which traffic ("+strings.Join(bench.PathTests, ", ")+")")
	completeValues(cmd, "test", bench.PathTests...)
	return cmd
}

func newBenchDNSCommand(c *cli) *cobra.Command {
	run := benchRun{c: c}
	cfg := bench.DNSConfig{}
	cmd := &cobra.Command{
		Use:   "dns [OPTIONS]",
		Short: "Measure the resolver of the sandboxes over loopback",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg.Timing, cfg.Command = run.timing, c.commandLine()
			if err := cfg.Check(); err != nil {
				return err
			}
			return run.inLab(cmd.Context(), func(ctx context.Context, p bench.Progress) (*report.Report, error) {
				cfg.Progress = p
				return bench.RunDNS(ctx, cfg)
			})
		},
	}
	run.addFlags(cmd, 5, time.Second)
	cmd.Flags().IntVar(&cfg.Rate, "rate", 10_000, "Queries a second to offer")
	return cmd
}

func newBenchScaleCommand(c *cli) *cobra.Command {
	run := benchRun{c: c}
	cfg := bench.ScaleConfig{}
	cmd := &cobra.Command{
		Use:   "scale [OPTIONS]",
		Short: "Measure the directory and the forwarding table of large networks, and simulate their gossip",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg.Timing, cfg.Command = run.timing, c.commandLine()
			if err := cfg.Check(); err != nil {
				return err
			}
			return run.inLab(cmd.Context(), func(ctx context.Context, p bench.Progress) (*report.Report, error) {
				cfg.Progress = p
				return bench.RunScale(ctx, cfg)
			})
		},
	}
	run.addFlags(cmd, 3, 100*time.Millisecond)
	flags := cmd.Flags()
	flags.IntSliceVar(&cfg.Endpoints, "endpoints", []int{1000, 10_000, 100_000, 1_000_000}, fmt.Sprintf("Endpoints of networks of %d nodes", bench.ScaleNodes))
	flags.IntSliceVar(&cfg.Nodes, "nodes", []int{10, 100, 1000}, fmt.Sprintf("Nodes of networks with %d endpoints", bench.ScaleEndpoints))
	return cmd
}

func newBenchShowCommand(c *cli) *cobra.Command {
	var output benchOutput
	var markdown bool
	cmd := &cobra.Command{
		Use:   "show [OPTIONS] FILE",
		Short: "Show a report that --json or --out wrote",
		Args:  oneArg,
		RunE: func(_ *cobra.Command, args []string) error {
			if err := output.prepare(); err != nil {
				return err
			}
			r, err := readReport(args[0])
			if err != nil {
				return err
			}
			if markdown {
				return r.WriteMarkdown(c.out)
			}
			return output.write(c, r)
		},
	}
	output.addFlags(cmd)
	cmd.Flags().BoolVar(&markdown, "markdown", false, "Print as a section of a README")
	return cmd
}

func readReport(path string) (*report.Report, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r, err := report.Read(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

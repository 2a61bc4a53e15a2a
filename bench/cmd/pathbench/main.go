// Pathbench measures ovnd's data plane between two network namespaces beside
// raw veth, kernel VXLAN and wireguard-go. It needs no root and nothing
// installed:
//
//	go run ./bench/cmd/pathbench
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/ovnd/ovnd/bench"
	"github.com/ovnd/ovnd/bench/lab"
)

func main() {
	bench.RunChild()
	lab.Enter()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx)
	stop()
	switch {
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(os.Stderr, "pathbench: interrupted")
		os.Exit(130)
	case err != nil:
		fmt.Fprintln(os.Stderr, "pathbench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	planes := flag.String("planes", strings.Join(bench.Planes, ","), "what to measure, in the table's order")
	tests := flag.String("tests", strings.Join(bench.TestNames(), ","), "which traffic to measure it with")
	asJSON := flag.Bool("json", false, "print the whole report as JSON")
	var cfg bench.PathConfig
	flag.IntVar(&cfg.Rounds, "rounds", 5, "how often to measure each")
	flag.DurationVar(&cfg.Window, "window", 1500*time.Millisecond, "how long to measure each time")
	flag.DurationVar(&cfg.Warmup, "warmup", 300*time.Millisecond, "how long traffic runs before it is measured")
	flag.IntVar(&cfg.MTU, "mtu", 1500, "of the underlay, in bytes")
	flag.BoolVar(&cfg.IPv6, "ipv6", false, "use an IPv6 underlay")
	flag.StringVar(&cfg.Congestion, "congestion", "cubic", "TCP congestion control of all planes")
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q (see -help)", flag.Arg(0))
	}
	if info, err := os.Stderr.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
		cfg.Progress = progress
	}
	cfg.Planes, cfg.Tests = strings.Split(*planes, ","), strings.Split(*tests, ",")

	report, err := bench.RunPath(ctx, cfg)
	if err != nil {
		return err
	}
	if *asJSON {
		out := json.NewEncoder(os.Stdout)
		out.SetIndent("", "  ")
		return out.Encode(report)
	}
	return report.WriteTable(os.Stdout)
}

// progress shows on a terminal how far the run is.
func progress(done, of int, s bench.Sample) {
	const startOfLine = "\r\x1b[K"
	fmt.Fprintf(os.Stderr, startOfLine+"%d/%d %s on %s, round %d", done, of, s.Test, s.Plane, s.Round+1)
	if done == of {
		fmt.Fprint(os.Stderr, startOfLine)
	}
}

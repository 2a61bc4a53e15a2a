// Dnsbench measures ovnd's resolver over loopback. It needs no root and nothing
// installed:
//
//	go run ./bench/cmd/dnsbench
//
// With -serve it only serves, for other programs to ask:
//
//	go run ./bench/cmd/dnsbench -serve 127.0.0.1:5300 &
//	echo 'service-7 A' | dnsperf -s 127.0.0.1 -p 5300 -Q 10000 -l 5 -d /dev/stdin
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/ovnd/ovnd/bench"
	"github.com/ovnd/ovnd/bench/lab"
)

var (
	asJSON   = flag.Bool("json", false, "print the whole report as JSON")
	listen   = flag.String("serve", "", "serve on this address instead, until interrupted")
	upstream = flag.String("upstream", "127.0.0.53:53", "whom -serve asks for other names")
	rounds   = flag.Int("rounds", 5, "how often to measure each")
	window   = flag.Duration("window", time.Second, "how long to measure each time")
	rate     = flag.Int("rate", 10_000, "queries a second to offer")
)

func main() {
	bench.RunChild()
	flag.Parse()
	if *listen == "" {
		lab.Enter()
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx)
	stop()
	switch {
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(os.Stderr, "dnsbench: interrupted")
		os.Exit(130)
	case err != nil:
		fmt.Fprintln(os.Stderr, "dnsbench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	if flag.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q (see -help)", flag.Arg(0))
	}
	if *listen != "" {
		return serve(ctx)
	}
	cfg := bench.DNSConfig{Rounds: *rounds, Window: *window, Rate: *rate}
	if info, err := os.Stderr.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
		cfg.Progress = progress
	}
	report, err := bench.RunDNS(ctx, cfg)
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
func progress(done, of int) {
	const startOfLine = "\r\x1b[K"
	fmt.Fprintf(os.Stderr, startOfLine+"%d/%d", done, of)
	if done == of {
		fmt.Fprint(os.Stderr, startOfLine)
	}
}

func serve(ctx context.Context) error {
	to, err := netip.ParseAddrPort(*upstream)
	if err != nil {
		return fmt.Errorf("-upstream: %w", err)
	}
	udp, err := net.ListenPacket("udp", *listen)
	if err != nil {
		return fmt.Errorf("-serve: %w", err)
	}
	tcp, err := net.Listen("tcp", *listen)
	if err != nil {
		_ = udp.Close()
		return fmt.Errorf("-serve: %w", err)
	}
	return bench.ServeDNS(ctx, to, udp, tcp)
}

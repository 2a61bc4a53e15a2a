// Package whoami is a tiny server that says which task of a service answered.
// It needs nothing installed: a node runs it, as a second personality of its own
// binary, for the image ovnd/whoami.
//
//	HTTP  port 80, PORT overrides
//	      GET /health      200, or what the last POST /health said
//	      POST /health     the body is the status code to answer with from now on
//	      anything else    who answers, and what arrived, a line each
//	TCP   port 7, ECHO_PORT overrides: one line, then what is sent comes back
//	UDP   the same port: each datagram comes back behind one line
//
// The task is known from the environment: OVND_TASK_NAME, OVND_TASK_SLOT,
// OVND_SERVICE_NAME and OVND_NODE_NAME, each optional.
package whoami

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"golang.org/x/sync/errgroup"
)

// Main runs the server with these arguments (without the program's name) until
// SIGINT or SIGTERM, and returns the exit status.
func Main(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	return run(ctx, args, os.Stdout, os.Stderr)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("whoami", flag.ContinueOnError)
	flags.SetOutput(stderr)
	web := flags.String("port", cmp.Or(os.Getenv("PORT"), "80"), "of HTTP (environment: PORT)")
	echo := flags.String("echo", cmp.Or(os.Getenv("ECHO_PORT"), "7"), "of TCP and UDP (environment: ECHO_PORT)")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(stderr, "whoami: unexpected argument %q (see -help)\n", flags.Arg(0))
		return 2
	}
	s, err := listen(*web, *echo)
	if err == nil {
		fmt.Fprintf(stdout, "%s: HTTP on %s, TCP and UDP on %s\n", s.who, s.web.Addr(), s.stream.Addr())
		err = s.run(ctx)
	}
	if err != nil {
		fmt.Fprintln(stderr, "whoami:", err)
		return 1
	}
	return 0
}

// A server has all sockets open.
type server struct {
	who      identity
	web      net.Listener
	stream   net.Listener
	datagram net.PacketConn
}

// listen opens the sockets. Port 0 has the kernel choose.
func listen(web, echo string) (*server, error) {
	for _, p := range []struct{ flag, port string }{{"-port", web}, {"-echo", echo}} {
		if _, err := strconv.ParseUint(p.port, 10, 16); err != nil {
			return nil, fmt.Errorf("%s=%q: want a port number from 0 to 65535", p.flag, p.port)
		}
	}
	s := &server{who: identify()}
	var err error
	if s.web, err = net.Listen("tcp", ":"+web); err != nil {
		return nil, fmt.Errorf("%w: choose another with -port or PORT", err)
	}
	if s.stream, err = net.Listen("tcp", ":"+echo); err != nil {
		s.web.Close()
		return nil, fmt.Errorf("%w: choose another with -echo or ECHO_PORT", err)
	}
	if s.datagram, err = net.ListenPacket("udp", ":"+echo); err != nil {
		s.web.Close()
		s.stream.Close()
		return nil, fmt.Errorf("%w: choose another with -echo or ECHO_PORT", err)
	}
	return s, nil
}

// run serves until ctx ends; HTTP requests that have come by then are answered.
// It owns the sockets.
func (s *server) run(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.serveHTTP(gctx) })
	g.Go(func() error { return s.serveStream(gctx) })
	g.Go(func() error { return s.serveDatagrams(gctx) })
	err := g.Wait()
	if ctx.Err() != nil {
		return nil // asked to stop
	}
	return err
}

// An identity says who answers.
type identity struct {
	host, task, slot, service, node string
}

func identify() identity {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return identity{
		host: host, task: os.Getenv("OVND_TASK_NAME"), slot: os.Getenv("OVND_TASK_SLOT"),
		service: os.Getenv("OVND_SERVICE_NAME"), node: os.Getenv("OVND_NODE_NAME"),
	}
}

// String is the task's name, or the host's.
func (i identity) String() string { return cmp.Or(i.task, i.host) }

// line says who answers whom, for protocols that have no more to tell.
func (i identity) line(local, remote net.Addr) string {
	return fmt.Sprintf("host=%s task=%s server=%s client=%s\n", i.host, cmp.Or(i.task, "-"), local, remote)
}

package traffic

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sync/errgroup"
)

// connectPatience bounds one connection of a source that opens many.
const connectPatience = 10 * time.Second

// greeter accepts connections, says one byte on each, and ends it: the server
// does it first, so that it is not the client's ports that rest in TIME-WAIT.
func (s *Sink) greeter(ctx context.Context) error {
	var g errgroup.Group // not with a context of its own: that would end after ctx has, and the listener is closed
	for {
		conn, err := s.greet.AcceptTCP()
		if err != nil {
			return errors.Join(stopped(ctx, err), g.Wait())
		}
		g.Go(func() error {
			_, _ = conn.Write([]byte{'!'})
			_ = conn.CloseWrite()
			_ = conn.SetReadDeadline(time.Now().Add(connectPatience))
			_, _ = io.Copy(io.Discard, conn)
			return conn.Close()
		})
	}
}

// GreetAddr returns where the sink at addr greets, and reflects datagrams.
func GreetAddr(addr netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(addr.Addr(), addr.Port()+1)
}

// runConnect opens connections one after the other, a number of them at a time,
// and counts those that were greeted.
func (s *Source) runConnect(ctx context.Context) error {
	// Ports of connections that ended a second ago may be used again. The file
	// is the network namespace's own.
	if err := os.WriteFile("/proc/sys/net/ipv4/tcp_tw_reuse", []byte("1"), 0o644); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	for range s.spec.Connect {
		g.Go(func() error {
			for ctx.Err() == nil {
				if err := s.connect(ctx); err != nil {
					return stopped(ctx, err)
				}
				s.packets.Add(1)
			}
			return nil
		})
	}
	return g.Wait()
}

func (s *Source) connect(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, connectPatience)
	defer cancel()
	conn, err := s.dialTCP(ctx, new(net.Dialer), GreetAddr(s.spec.To))
	if err != nil {
		return err
	}
	defer conn.Close()
	defer onEnd(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	b, err := io.ReadAll(conn)
	if err == nil && len(b) != 1 {
		err = errors.New("connection ended without a greeting")
	}
	return err
}

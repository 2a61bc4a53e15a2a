package resolver

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"
)

const (
	maxQuery = 4096 // bytes: a question with any EDNS options that make sense
	// idleTimeout is how long a TCP client may be silent, between queries or
	// within one (RFC 7766 §6.2.3).
	idleTimeout = 10 * time.Second
	// retryPause follows a socket's error that may pass, such as a lack of
	// memory; after maxRetries of them in a row the socket is given up.
	retryPause = 20 * time.Millisecond
	maxRetries = 250
)

// A client is one scope while it is served.
type client struct {
	s     *Server
	scope Scope
	names map[string][]netip.Addr // scope.Names in lower case
	own   netip.AddrPort          // address that is served, if it is the host's

	udp      net.PacketConn
	tcp      net.Listener
	inFlight chan struct{} // a token for each question passed on
}

// Serve answers queries from both sockets until ctx ends, then returns nil; an
// error is that of a socket that is of no use any more. It owns both and has
// closed them when it returns, and all that it started has ended.
func (s *Server) Serve(ctx context.Context, scope Scope, udp net.PacketConn, tcp net.Listener) error {
	c := s.client(scope)
	c.udp, c.tcp = udp, tcp
	if scope.All {
		c.own = addrPort(udp.LocalAddr())
	}

	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		<-gctx.Done()
		return errors.Join(udp.Close(), tcp.Close()) // unblocks both
	})
	g.Go(func() error { return c.serveUDP(gctx, g) })
	g.Go(func() error { return c.serveTCP(gctx, g) })
	err := g.Wait()
	if ctx.Err() != nil {
		return nil // asked to stop: the closed sockets are no news
	}
	return err
}

func (s *Server) client(scope Scope) *client {
	c := &client{
		s: s, scope: scope,
		names:    make(map[string][]netip.Addr, len(scope.Names)),
		inFlight: make(chan struct{}, s.cfg.ScopeInFlight),
	}
	for name, addrs := range scope.Names {
		name = strings.ToLower(strings.TrimSuffix(name, "."))
		c.names[name] = append(c.names[name], addrs...)
	}
	return c
}

func addrPort(a net.Addr) netip.AddrPort {
	if u, ok := a.(*net.UDPAddr); ok {
		p := u.AddrPort()
		return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
	}
	return netip.AddrPort{}
}

// serveUDP answers what it can in place; each question that is passed on has a
// goroutine, of which there are as many as tokens.
func (c *client) serveUDP(ctx context.Context, g *errgroup.Group) error {
	in, out := make([]byte, maxQuery), make([]byte, 0, maxQuery)
	for failures := 0; ; {
		n, from, err := c.udp.ReadFrom(in)
		if err != nil {
			if failures++; c.passing(ctx, failures, err) {
				continue
			}
			return fmt.Errorf("DNS over UDP: %w", err)
		}
		failures = 0
		c.s.stats.queries.Add(1)

		q, reply := c.read(in[:n], false)
		if q == nil {
			c.sendUDP(reply, dns.MinMsgSize, from, out)
			continue
		}
		if reply = c.answer(q); reply == nil && !c.acquire() {
			reply = q.failure(dns.RcodeServerFailure)
		}
		if reply != nil {
			c.sendUDP(reply, q.size, from, out)
			continue
		}
		g.Go(func() error {
			defer c.release()
			c.sendUDP(c.forward(ctx, q), q.size, from, nil)
			return nil
		})
	}
}

// sendUDP sends reply, of at most size bytes. A client that is gone is none of
// our concern. A nil reply is not sent; out is room for it.
func (c *client) sendUDP(reply *dns.Msg, size int, to net.Addr, out []byte) {
	if reply == nil {
		return
	}
	if packed := pack(reply, size, out); packed != nil {
		_, _ = c.udp.WriteTo(packed, to)
	}
}

// passing reports whether an error may pass, after a pause for it to do so.
func (c *client) passing(ctx context.Context, failures int, err error) bool {
	if ctx.Err() != nil || errors.Is(err, net.ErrClosed) || failures > maxRetries {
		return false
	}
	if failures == 1 {
		c.s.log.Warn("DNS socket", "error", err)
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(retryPause):
		return true
	}
}

// serveTCP has a goroutine for each connection. At the cap new ones wait in the
// kernel's queue until one ends, which idleTimeout sees to.
func (c *client) serveTCP(ctx context.Context, g *errgroup.Group) error {
	slots := make(chan struct{}, c.s.cfg.Connections)
	for failures := 0; ; {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		conn, err := c.tcp.Accept()
		if err != nil {
			<-slots
			if failures++; c.passing(ctx, failures, err) {
				continue
			}
			return fmt.Errorf("DNS over TCP: %w", err)
		}
		failures = 0
		g.Go(func() error {
			defer func() { <-slots }()
			c.serveConn(ctx, conn)
			return nil
		})
	}
}

// serveConn answers the queries of one connection in their order. It ends when
// the client does, or says what is no query.
func (c *client) serveConn(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	in := make([]byte, maxQuery)
	for {
		_ = conn.SetDeadline(time.Now().Add(idleTimeout))
		n, err := readFrame(conn, in)
		if err != nil {
			return
		}
		c.s.stats.queries.Add(1)
		c.s.stats.tcp.Add(1)

		q, reply := c.read(in[:n], true)
		if q != nil {
			if reply = c.answer(q); reply == nil {
				reply = c.forwardTCP(ctx, q)
			}
		}
		if reply == nil {
			return
		}
		packed := pack(reply, dns.MaxMsgSize, nil)
		if packed == nil {
			return
		}
		_ = conn.SetDeadline(time.Now().Add(idleTimeout))
		if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(packed))), packed...)); err != nil {
			return
		}
	}
}

func (c *client) forwardTCP(ctx context.Context, q *query) *dns.Msg {
	if !c.acquire() {
		return q.failure(dns.RcodeServerFailure)
	}
	defer c.release()
	return c.forward(ctx, q)
}

// readFrame reads one message behind its length (RFC 1035 §4.2.2).
func readFrame(r io.Reader, buf []byte) (int, error) {
	if _, err := io.ReadFull(r, buf[:2]); err != nil {
		return 0, err
	}
	n := int(binary.BigEndian.Uint16(buf))
	if n > len(buf) {
		return 0, fmt.Errorf("a query of %d bytes", n)
	}
	return io.ReadFull(r, buf[:n])
}

// acquire takes the tokens that passing a question on needs, unless there are
// too many in flight.
func (c *client) acquire() bool {
	select {
	case c.inFlight <- struct{}{}:
	default:
		c.s.stats.refused.Add(1)
		return false
	}
	select {
	case c.s.inFlight <- struct{}{}:
		c.s.stats.forwarded.Add(1)
		return true
	default:
		<-c.inFlight
		c.s.stats.refused.Add(1)
		return false
	}
}

func (c *client) release() {
	<-c.s.inFlight
	<-c.inFlight
}

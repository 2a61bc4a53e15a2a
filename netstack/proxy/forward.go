package proxy

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ovnd/ovnd/netstack"
)

// A Forward carries the connections of one listener to one place.
type Forward struct {
	Dial    func(ctx context.Context) (net.Conn, error)
	Anybody bool         // else only this user's own processes
	Log     *slog.Logger // nil discards

	once  sync.Once
	conns connections
}

func (f *Forward) init() {
	f.once.Do(func() {
		f.Log = cmp.Or(f.Log, slog.New(slog.DiscardHandler))
		f.conns.init()
	})
}

// Active returns how many clients are connected.
func (f *Forward) Active() int {
	f.init()
	return f.conns.count()
}

// Serve takes connections from ln until ctx ends. Then it closes ln and every
// connection, and returns nil when all are gone. One that leads nowhere is reset.
func (f *Forward) Serve(ctx context.Context, ln net.Listener) error {
	f.init()
	return accept(ctx, ln, &f.conns, f.Log, func(ctx context.Context, c net.Conn) {
		if !f.Anybody && !OwnProcess(c) {
			f.Log.Warn("connection refused: it is of no process of this user", "client", c.RemoteAddr())
			reset(c)
			return
		}
		far, err := dialFor(ctx, c, f.Dial)
		if err != nil {
			f.Log.Warn("connection not forwarded", "error", err)
			reset(c)
			return
		}
		stop := context.AfterFunc(ctx, func() { _ = far.Close() })
		defer stop()
		netstack.Splice(c, far)
	})
}

// reset closes a connection so that the other end sees an error.
func reset(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = c.Close()
}

// connections are those of one server.
type connections struct {
	slots  chan struct{} // taken by them, and by those who wait for the next
	active atomic.Int64
}

func (c *connections) init() { c.slots = make(chan struct{}, maxConnections) }

func (c *connections) count() int { return int(c.active.Load()) }

// accept has serve called for each connection, on a goroutine of its own, until
// ctx ends and serve has returned for all. It closes the listener and the
// connections; serve's context ends with the listener.
func accept(ctx context.Context, ln net.Listener, conns *connections, log *slog.Logger, serve func(context.Context, net.Conn)) error {
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	slots := conns.slots
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer func() {
		cancel()
		stop()
		_ = ln.Close()
		work.Wait()
	}()
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		c, err := ln.Accept()
		switch {
		case err == nil:
			conns.active.Add(1)
			work.Go(func() {
				defer func() {
					conns.active.Add(-1)
					<-slots
				}()
				defer func() { _ = c.Close() }()
				stop := context.AfterFunc(ctx, func() { _ = c.Close() })
				defer stop()
				serve(ctx, c)
			})
			continue
		case ctx.Err() != nil:
			<-slots
			return nil
		case errors.Is(err, net.ErrClosed):
			<-slots
			return err
		}
		<-slots
		log.Debug("no connection is taken for a moment", "err", err)
		time.Sleep(acceptPause)
	}
}

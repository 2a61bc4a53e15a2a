package proxy

import (
	"context"
	"errors"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// goneInterval is how often a client that waits for a connection is looked at.
const goneInterval = 250 * time.Millisecond

// dialFor dials on behalf of a client, and no longer than the client is there:
// what is dialed in vain takes a slot of the server's.
func dialFor(ctx context.Context, client net.Conn, dial func(context.Context) (net.Conn, error)) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		tick := time.NewTicker(goneInterval)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if gone(client) {
				cancel()
				return
			}
		}
	}()
	defer func() { <-watched }()
	defer cancel()
	return dial(ctx)
}

// gone reports whether the other end of a connection was closed. The end of what
// it sends is no sign of that: it may wait for an answer. The kernel knows whether
// a process still has the other socket; of another machine's it does not, nor do
// we.
func gone(c net.Conn) bool {
	switch c := c.(type) {
	case *net.UnixConn:
		return hungUp(c)
	case *net.TCPConn:
		if !ofThisMachine(c) {
			return false
		}
		peer, err := peerSocket(c.LocalAddr(), c.RemoteAddr())
		return errors.Is(err, errNoSocket) || err == nil && peer.inode == 0
	}
	return false
}

// hungUp reports whether the other end of a unix socket was closed (poll(2),
// POLLHUP).
func hungUp(c syscall.Conn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return true // closed by us
	}
	var p [1]unix.PollFd
	if err := raw.Control(func(fd uintptr) {
		p[0].Fd = int32(fd)
		_, err = unix.Poll(p[:], 0)
	}); err != nil {
		return true
	}
	return err == nil && p[0].Revents&unix.POLLHUP != 0
}

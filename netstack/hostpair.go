package netstack

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/waiter"
)

// A hostPair is a connection of a stack's and one of the host's, each of which is
// to hear what comes from the other. Bytes go from one socket's memory to the
// other's: neither direction has a buffer, and one that is idle holds nothing but
// a parked goroutine.
type hostPair struct {
	ep    tcpip.Endpoint
	queue *waiter.Queue // of ep's events
	far   *net.TCPConn
}

var errReset = errors.New("the stack's end reset the connection")

// upload passes on what the stack's end sends. The error is what breaks the
// connection; it is nil at its end.
func (c *hostPair) upload(raw syscall.RawConn) error {
	entry, readable := waiter.NewChannelEntry(waiter.ReadableEvents | waiter.EventErr | waiter.EventHUp)
	c.queue.EventRegister(&entry)
	defer c.queue.EventUnregister(&entry)
	for {
		var (
			terr tcpip.Error
			werr error
		)
		// The function is called again when the host's socket takes more.
		err := raw.Write(func(fd uintptr) bool {
			w := fdWriter{fd: int(fd)}
			var res tcpip.ReadResult
			res, terr = c.ep.Read(&w, tcpip.ReadOptions{})
			moderate(c.ep, res.Count)
			werr = w.err
			return !w.full
		})
		switch _, wait := terr.(*tcpip.ErrWouldBlock); {
		case err != nil:
			return err
		case werr != nil:
			return werr
		case wait:
			<-readable
		case isEnd(terr):
			if err := c.far.CloseWrite(); err != nil && !errors.Is(err, unix.ENOTCONN) {
				return err
			}
			return nil
		case terr != nil:
			return errReset
		}
	}
}

func isEnd(err tcpip.Error) bool {
	_, ok := err.(*tcpip.ErrClosedForReceive)
	return ok
}

// An fdWriter writes to a non-blocking socket.
type fdWriter struct {
	fd   int
	full bool  // it takes no more for now
	err  error // it is broken
}

// Write implements [io.Writer].
func (w *fdWriter) Write(b []byte) (n int, err error) {
	for n < len(b) {
		m, err := unix.Write(w.fd, b[n:])
		switch {
		case err == nil:
			n += m
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			w.full = true
			return n, err
		default:
			w.err = os.NewSyscallError("write", err)
			return n, err
		}
	}
	return n, nil
}

// download passes on what the far end sends.
func (c *hostPair) download(raw syscall.RawConn) error {
	entry, writable := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventErr | waiter.EventHUp)
	c.queue.EventRegister(&entry)
	defer c.queue.EventUnregister(&entry)
	for {
		var (
			terr  tcpip.Error
			rerr  error
			ended bool
		)
		err := raw.Read(func(fd uintptr) bool {
			r := fdReader{fd: int(fd)}
			r.left, ended, rerr = pendingBytes(r.fd)
			if r.left == 0 {
				return ended || rerr != nil
			}
			_, terr = c.ep.Write(&r, tcpip.WriteOptions{})
			if rerr = r.err; rerr != nil {
				terr = nil // it says the same
			}
			return true
		})
		switch _, wait := terr.(*tcpip.ErrWouldBlock); {
		case err != nil:
			return err
		case rerr != nil:
			return rerr
		case wait:
			<-writable
		case terr != nil:
			return errReset
		case ended:
			if c.ep.Shutdown(tcpip.ShutdownWrite) != nil {
				return errReset
			}
			return nil
		}
	}
}

// pendingBytes returns how much can be read from a socket at once. If that is
// nothing, it says whether the far end has ended, or why.
func pendingBytes(fd int) (n int, ended bool, err error) {
	if n, err = unix.IoctlGetInt(fd, unix.TIOCINQ); err != nil || n > 0 {
		return n, false, err
	}
	var b [1]byte
	n, _, err = unix.Recvfrom(fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	switch {
	case err == nil:
		return n, n == 0, nil
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return 0, false, nil
	default:
		return 0, false, os.NewSyscallError("read", err)
	}
}

// An fdReader reads the left bytes that wait in a socket.
type fdReader struct {
	fd, left int
	err      error
}

// Len implements [tcpip.Payloader].
func (r *fdReader) Len() int { return r.left }

// Read implements [io.Reader].
func (r *fdReader) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil // gVisor asks whether there is an end
	}
	for {
		n, err := unix.Read(r.fd, b)
		switch {
		case err == nil && n > 0:
			r.left -= n
			return n, nil
		case errors.Is(err, unix.EINTR):
		case err == nil:
			r.err = io.ErrUnexpectedEOF
			return 0, r.err
		default:
			r.err = os.NewSyscallError("read", err)
			return 0, r.err
		}
	}
}

package netstack

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// splice passes on what a and b say to each other until both have ended or one
// fails, and closes both. A direction that ends is ended on the other side while
// the other direction goes on; a reset is passed on as one. Connections that are
// idle hold no buffer if they are host sockets or [stackConn]s.
//
// Closing either connection ends it.
func splice(a, b net.Conn) {
	var both sync.WaitGroup
	if p, reset, ok := pairOf(a, b); ok {
		both.Go(func() { p.half(p.download, reset) })
		p.half(p.upload, reset)
		both.Wait()
		_ = a.Close()
		_ = b.Close()
		return
	}
	both.Go(func() { spliceHalf(a, b) })
	spliceHalf(b, a)
	both.Wait()
	_ = a.Close()
	_ = b.Close()
}

// pairOf returns the two as a pair, if they are one, and how both are reset.
func pairOf(a, b net.Conn) (p *hostPair, reset func(), ok bool) {
	stack, ok := a.(*stackConn)
	if !ok {
		a, b = b, a
		stack, ok = a.(*stackConn)
	}
	far, isHost := b.(*net.TCPConn)
	if !ok || !isHost {
		return nil, nil, false
	}
	return &hostPair{ep: stack.ep, queue: stack.queue, far: far}, func() { stack.reset(); resetFar(far) }, true
}

// half runs one direction, and resets both connections if it fails.
func (p *hostPair) half(direction func(syscall.RawConn) error, reset func()) {
	raw, err := p.far.SyscallConn()
	if err == nil {
		err = direction(raw)
	}
	if err != nil {
		reset()
	}
}

// spliceHalf passes on what from says to to.
func spliceHalf(to, from net.Conn) {
	src := newPooledReader(from)
	for {
		buf, n, err := src.read()
		if n > 0 {
			_, werr := to.Write(buf[:n])
			err = errors.Join(err, werr)
		}
		if buf != nil {
			pumpBuffers.Put(buf)
		}
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			if closeWrite(to) == nil {
				return
			}
			fallthrough
		default:
			resetConn(from)
			resetConn(to)
			return
		}
	}
}

// closeWrite ends the own direction of c.
func closeWrite(c net.Conn) error {
	h, ok := c.(interface{ CloseWrite() error })
	if !ok {
		return errors.ErrUnsupported
	}
	return h.CloseWrite()
}

// resetConn closes c with a reset.
func resetConn(c net.Conn) {
	switch c := c.(type) {
	case *stackConn:
		c.reset()
	case *net.TCPConn:
		_ = c.SetLinger(0)
		_ = c.Close()
	default:
		_ = c.Close()
	}
}

// A pooledReader reads into a buffer of pumpBuffers that it takes only when there
// is something to read.
type pooledReader struct {
	conn  net.Conn
	stack *stackConn      // conn, if it is one
	raw   syscall.RawConn // of conn, if it is a host socket
}

func newPooledReader(c net.Conn) pooledReader {
	r := pooledReader{conn: c}
	switch c := c.(type) {
	case *stackConn:
		r.stack = c
	case *net.TCPConn:
		if raw, err := c.SyscallConn(); err == nil {
			r.raw = raw
		}
	}
	return r
}

// read waits for bytes. The buffer, if there is one, is the caller's to put back.
func (r *pooledReader) read() (buf *[pumpBuffer]byte, n int, err error) {
	if r.raw != nil {
		return r.readRaw()
	}
	if r.stack != nil {
		r.stack.waitRead()
	}
	buf = pumpBuffers.Get().(*[pumpBuffer]byte)
	n, err = r.conn.Read(buf[:])
	return buf, n, err
}

func (r *pooledReader) readRaw() (buf *[pumpBuffer]byte, n int, err error) {
	rerr := r.raw.Read(func(fd uintptr) (done bool) {
		buf = pumpBuffers.Get().(*[pumpBuffer]byte)
		for {
			n, err = unix.Read(int(fd), buf[:])
			if !errors.Is(err, unix.EINTR) {
				break
			}
		}
		if errors.Is(err, unix.EAGAIN) {
			pumpBuffers.Put(buf)
			buf, n, err = nil, 0, nil
			return false
		}
		return true
	})
	switch {
	case rerr != nil:
		return buf, 0, rerr
	case err != nil:
		return buf, 0, err
	case n == 0:
		return buf, 0, io.EOF
	}
	return buf, n, nil
}

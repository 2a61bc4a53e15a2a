package api

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	mobytypes "github.com/moby/moby/api/types"
	"github.com/moby/moby/v2/daemon/server/httputils"
	"golang.org/x/sys/unix"
)

const (
	// goneInterval is how often a client that sends nothing more is looked
	// at: only poll(2) tells one that waits for output from one that has gone.
	goneInterval = time.Second
	// lingerTime is how long a client may take to close its end when it has
	// all the output.
	lingerTime = 2 * time.Second
)

// A hijacked connection carries a container's streams instead of HTTP.
type hijacked struct {
	net.Conn
	in io.Reader // behind what the HTTP server has read already
}

// hijack takes the request's connection over and answers it: by 101 to a
// client that asked for an upgrade, by 200 to an older one. Errors until then
// are the handler's to report; afterwards nothing may be written to w.
func hijack(ctx context.Context, w http.ResponseWriter, r *http.Request, multiplexed bool) (*hijacked, error) {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, fmt.Errorf("cannot take over the connection: %w", err)
	}
	answer := "HTTP/1.1 200 OK\r\nContent-Type: " + mobytypes.MediaTypeRawStream + "\r\n"
	if _, ok := r.Header["Upgrade"]; ok {
		answer = "HTTP/1.1 101 UPGRADED\r\nContent-Type: " + streamType(ctx, multiplexed) + "\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
	}
	_, _ = io.WriteString(conn, answer) // a client that has gone shows in the stream too
	_ = w.Header().WriteSubset(conn, map[string]bool{"Content-Type": true})
	_, _ = io.WriteString(conn, "\r\n")
	return &hijacked{conn, buffered.Reader}, nil
}

// streamType is the content type of a container's output. Clients before 1.42
// know the one of raw streams only.
func streamType(ctx context.Context, multiplexed bool) string {
	if multiplexed && !olderThan(httputils.VersionFromContext(ctx), 1, 42) {
		return mobytypes.MediaTypeMultiplexedStream
	}
	return mobytypes.MediaTypeRawStream
}

// finish ends the output and waits for the client to close its end, a moment
// at most: closed at once with input unread, the connection would be reset and
// the client told so. reader is closed when nothing reads from the connection.
func (h *hijacked) finish(reader <-chan struct{}) {
	if c, ok := h.Conn.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite() // the client has gone: nobody to tell
	}
	_ = h.SetReadDeadline(time.Now().Add(lingerTime))
	<-reader
	_ = h.Close() // likewise
}

// waitGone returns true when the client has closed its end altogether, and
// false when ctx ends first.
func (h *hijacked) waitGone(ctx context.Context) bool {
	tick := time.NewTicker(goneInterval)
	defer tick.Stop()
	for !h.gone() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// gone reports whether the client has closed both directions.
func (h *hijacked) gone() bool {
	c, ok := h.Conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	hungUp := false
	err = raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd)}}
		n, err := unix.Poll(fds, 0)
		hungUp = err == nil && n > 0 && fds[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
	})
	return err != nil || hungUp
}

// A multiplexer puts several streams onto one connection, in frames as
// stdcopy reads them: the stream's number, three zeros, the length of the data
// in four bytes of big endian, the data.
type multiplexer struct {
	mu  sync.Mutex
	w   io.Writer
	buf []byte
}

// frame writes one frame, as one write.
func (m *multiplexer) frame(stream stdcopy.StdType, data []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.buf = append(m.buf[:0], byte(stream), 0, 0, 0)
	m.buf = binary.BigEndian.AppendUint32(m.buf, uint32(len(data)))
	m.buf = append(m.buf, data...)
	_, err := m.w.Write(m.buf)
	return err
}

// stream returns a writer of one of the streams.
func (m *multiplexer) stream(t stdcopy.StdType) io.Writer { return streamWriter{m, t} }

type streamWriter struct {
	m      *multiplexer
	stream stdcopy.StdType
}

func (w streamWriter) Write(p []byte) (int, error) {
	if err := w.m.frame(w.stream, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// outputs returns the writers of stdout and stderr to a client: frames, or
// both the connection itself.
func outputs(w io.Writer, multiplexed bool) (stdout, stderr io.Writer) {
	if !multiplexed {
		return w, w
	}
	m := &multiplexer{w: w}
	return m.stream(stdcopy.Stdout), m.stream(stdcopy.Stderr)
}

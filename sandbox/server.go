package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Devices are one interface's device as an init hands it over.
type Devices struct {
	Interface Interface
	Queues    []*os.File
}

// An Attachment is what an init presents to the node.
type Attachment struct {
	ID, Token string
	PID       int // of the init, in this process's pid namespace
	Devices   []Devices
	Resolver  *Resolver // nil unless Spec.Resolver is set
	Session   *Session  // until Detach
}

// A Handler is what a Server tells of sandboxes. Calls for different sandboxes
// may come at the same time; calls for one come in order.
type Handler interface {
	// Attach is called when an init presents its devices: at its start, and
	// again after the node or the connection was lost. The handler checks the
	// token in constant time, and owns the devices' queues and the resolver's
	// sockets if it returns nil. Otherwise the Server closes them, and the error
	// is what the init reports; one that Gone holds for ends the command.
	Attach(ctx context.Context, a Attachment) error
	// Detach is called once for each Attach that returned nil, after the
	// init's connection has ended.
	Detach(id string)
}

const (
	// maxConnections bounds the sandboxes of a node.
	maxConnections = 4096
	// helloTimeout is how long a connection may stay silent at first.
	helloTimeout = 5 * time.Second
	// acceptRetry is the pause after a lack of descriptors or memory.
	acceptRetry = 100 * time.Millisecond
	// goodbyeTimeout bounds Goodbye: an init needs endGrace at most.
	goodbyeTimeout = endGrace + 2*time.Second
)

var errClosing = errors.New("the node is going down")

// A Server is the node's end of the sandboxes' connections.
type Server struct {
	path    string
	ln      *net.UnixListener
	handler Handler
	log     *slog.Logger

	mu      sync.Mutex
	closing bool // Goodbye was said
	peers   map[*peer]bool
	ids     map[string]*peer // one peer to a sandbox
	changed chan struct{}    // closed and replaced when peers shrinks
}

// NewServer listens on a unix socket at socketPath, mode 0600, in place of one
// that an earlier node left there. That no other node uses the path is the
// caller's to know. A nil log discards.
func NewServer(socketPath string, h Handler, log *slog.Logger) (*Server, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if err := os.Remove(socketPath); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("sandbox socket: %w", err)
	}
	addr, done, err := socketAddr(socketPath)
	if err != nil {
		return nil, fmt.Errorf("sandbox socket: %w", err)
	}
	defer done()
	ln, err := net.ListenUnix("unixpacket", addr)
	if err != nil {
		return nil, fmt.Errorf("sandbox socket: %w", err)
	}
	// By its own name, which may be another than socketPath.
	ln.SetUnlinkOnClose(false)
	if err := os.Chmod(socketPath, 0o600); err != nil {
		_ = ln.Close()
		return nil, fmt.Errorf("sandbox socket: %w", err)
	}
	return &Server{
		path: socketPath, ln: ln, handler: h, log: log,
		peers:   make(map[*peer]bool),
		ids:     make(map[string]*peer),
		changed: make(chan struct{}),
	}, nil
}

// Run serves until ctx ends, then closes the connections, which the inits
// answer by looking for a new node, and returns nil. The socket is removed.
func (s *Server) Run(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		<-gctx.Done()
		return errors.Join(os.Remove(s.path), s.ln.Close())
	})
	g.Go(func() error {
		for {
			c, err := s.ln.AcceptUnix()
			if scarce(err) {
				s.log.Warn("sandbox connection not accepted", "error", err)
				pause(gctx, acceptRetry)
				continue
			}
			if err != nil {
				return fmt.Errorf("sandbox socket: %w", err)
			}
			g.Go(func() error {
				s.serve(gctx, c)
				return nil
			})
		}
	})
	err := g.Wait()
	if ctx.Err() != nil {
		return nil // asked to stop
	}
	return err
}

// scarce reports whether err will pass without our doing.
func scarce(err error) bool {
	for _, e := range []error{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, unix.ECONNABORTED} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// End tells the init of sandbox id, if it is attached, that the sandbox is gone:
// the init ends its command and shows reason.
func (s *Server) End(id, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.ids[id]; p != nil && p.attached {
		p.answer(nodeGone, reason)
	}
}

// Goodbye tells all inits to end their commands and returns when they are gone,
// at the latest after 12 seconds. From then on the server refuses sandboxes.
// Run must be running.
func (s *Server) Goodbye() {
	s.mu.Lock()
	s.closing = true
	for p := range s.peers {
		if p.attached {
			p.answer(nodeGoodbye, "")
		}
	}
	s.mu.Unlock()

	deadline := time.After(goodbyeTimeout)
	for {
		s.mu.Lock()
		left, changed := len(s.peers), s.changed
		s.mu.Unlock()
		if left == 0 {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			s.log.Warn("sandboxes did not end", "left", left)
			return
		}
	}
}

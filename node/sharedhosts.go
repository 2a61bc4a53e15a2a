package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// sharedHosts are the places that a proxy, a forward or one connection leads to,
// one to a network, which they have in common with others. A place that was lost
// is replaced.
type sharedHosts struct {
	p     *places
	shown atomic.Pointer[[]string] // networks' names

	mu       sync.Mutex
	closed   bool
	auto     bool     // none was named: it is the only one, at the time
	networks []string // as they were named
	held     []heldPlace
}

type heldPlace struct {
	*place
	release func()
}

func (p *proxies) shared(networks []string) *sharedHosts {
	h := &sharedHosts{p: p.s.places, auto: len(networks) == 0, networks: networks}
	h.show()
	return h
}

// orOnly returns networks, or the only one where none was named.
func (p *proxies) orOnly(ctx context.Context, networks []string) ([]string, error) {
	if len(networks) > 0 {
		return networks, nil
	}
	name, err := p.s.places.onlyNetwork(ctx)
	return []string{name}, err
}

// list returns the hosts, those that are missing attached to.
func (h *sharedHosts) list(ctx context.Context) ([]dialHost, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, net.ErrClosed
	}
	if len(h.networks) == 0 {
		name, err := h.p.onlyNetwork(ctx)
		if err != nil {
			return nil, err
		}
		h.networks = []string{name}
	}
	if h.held == nil {
		h.held = make([]heldPlace, len(h.networks))
	}
	out := make([]dialHost, len(h.held))
	for i := range h.held {
		if err := h.hold(ctx, i); err != nil {
			return nil, err
		}
		pl := h.held[i].place
		out[i] = dialHost{
			stackHost: pl.stackHost, networkID: pl.att.Network.ID, network: pl.att.Network.Name,
			internal: pl.att.Network.Internal, since: pl.since,
		}
	}
	h.show()
	return out, nil
}

// hold makes sure that the place of the ith network is there. h.mu is held.
func (h *sharedHosts) hold(ctx context.Context, i int) error {
	held := &h.held[i]
	if held.place != nil && !closed(held.gone) {
		return nil
	}
	if held.place != nil {
		held.release()
	}
	*held = heldPlace{}
	pl, release, err := h.p.share(ctx, h.networks[i])
	if err != nil {
		return err
	}
	*held = heldPlace{pl, release}
	return nil
}

// names returns the networks' names, as far as they are known. It does not wait
// for one that is being attached to.
func (h *sharedHosts) names() []string { return *h.shown.Load() }

// show has names return what is known now. h.mu is held.
func (h *sharedHosts) show() {
	names := append([]string{}, h.networks...)
	for i := range h.held {
		if pl := h.held[i].place; pl != nil {
			names[i] = pl.att.Network.Name
		}
	}
	h.shown.Store(&names)
}

func (h *sharedHosts) close() {
	h.letGo()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
}

// letGo gives the places back until somebody asks for them again.
func (h *sharedHosts) letGo() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, held := range h.held {
		if held.place != nil {
			held.release()
		}
	}
	h.held = nil
	if h.auto {
		h.networks = nil
	}
	h.show()
}

// listenLocal listens at ADDR:PORT, or at the path of a unix socket that only
// this user may connect to.
func listenLocal(listen string) (net.Listener, error) {
	if !filepath.IsAbs(listen) {
		ln, err := net.Listen("tcp", listen)
		if err != nil {
			return nil, invalidProxy("%v: choose another address or port", err)
		}
		return ln, nil
	}
	if err := removeDead(listen); err != nil {
		return nil, err
	}
	// The mode of the socket before it is bound is that of its file.
	cfg := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		cerr := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) })
		return errors.Join(cerr, err)
	}}
	ln, err := cfg.Listen(context.Background(), "unix", listen)
	if err != nil {
		return nil, invalidProxy("%v: choose another path", err)
	}
	if err := os.Chmod(listen, 0o600); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return ln, nil
}

// removeDead removes a socket that nobody listens at any more.
func removeDead(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && info.Mode().Type() != fs.ModeSocket {
		return invalidProxy("%s exists and is no socket: choose another path", path)
	}
	if err != nil {
		return err
	}
	conn, err := net.DialTimeout("unix", path, time.Second)
	if errors.Is(err, unix.ECONNREFUSED) {
		return os.Remove(path)
	}
	if err == nil {
		_ = conn.Close() // nothing was written
		err = errors.New("somebody listens there")
	}
	return invalidProxy("%s: %v: choose another path", path, fmt.Sprint(err))
}

package netstack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/ovnd/ovnd/discovery/directory"
)

// maxHostConns is how many connections one published port has at a time. More
// wait in the kernel's backlog.
const maxHostConns = 16 << 10

// A hostPort is one port that the node listens at for somebody else.
type hostPort struct {
	port  directory.Port
	dial  func(ctx context.Context) (net.Conn, error) // to who serves it
	log   *slog.Logger
	slots chan struct{} // taken by connections

	addrs     []netip.Addr // at which it listens
	listeners []*net.TCPListener
	packets   []*net.UDPConn

	ctx    context.Context // of what comes in
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu    sync.Mutex
	conns map[*net.TCPConn]struct{}
}

// listenAt opens the port at addrs: at the first, or it is an error, and at the
// others if it can.
func listenAt(addrs []netip.Addr, port directory.Port, log *slog.Logger, dial func(context.Context) (net.Conn, error)) (*hostPort, error) {
	if len(addrs) == 0 {
		return nil, errors.New("no address to listen at")
	}
	if port.Published == 0 {
		return nil, errors.New("port 0 cannot be published: name one")
	}
	h := &hostPort{
		port: port, dial: dial, log: log.With("port", port.Published, "protocol", port.Protocol.String()),
		slots: make(chan struct{}, maxHostConns), conns: make(map[*net.TCPConn]struct{}),
	}
	h.ctx, h.cancel = context.WithCancel(context.Background())
	for i, addr := range addrs {
		if err := h.listen(netip.AddrPortFrom(addr, port.Published)); err == nil {
			h.addrs = append(h.addrs, addr)
		} else if i == 0 {
			h.close()
			return nil, err
		} else {
			h.log.Debug("published port not open at a further address", "addr", addr, "err", err)
		}
	}
	return h, nil
}

func (h *hostPort) listen(at netip.AddrPort) error {
	switch h.port.Protocol {
	case directory.TCP:
		l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
		if err != nil {
			return err
		}
		h.listeners = append(h.listeners, l)
	case directory.UDP:
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		if err != nil {
			return err
		}
		h.packets = append(h.packets, c)
	default:
		return fmt.Errorf("protocol %s is not supported: publish tcp or udp", h.port.Protocol)
	}
	return nil
}

// start begins to serve. Its goroutines end after close and reset.
func (h *hostPort) start() {
	for _, l := range h.listeners {
		h.work.Go(func() { h.accept(l) })
	}
	for _, c := range h.packets {
		h.work.Go(func() { newUDPRelay(h, c).run() })
	}
}

// close stops listening. Connections go on; UDP flows end.
func (h *hostPort) close() {
	for _, l := range h.listeners {
		_ = l.Close()
	}
	for _, c := range h.packets {
		_ = c.Close()
	}
}

// reset ends the connections, after close, and waits until nothing is left.
func (h *hostPort) reset() {
	h.cancel()
	h.mu.Lock()
	for c := range h.conns {
		resetConn(c)
	}
	h.mu.Unlock()
	h.work.Wait()
}

// idle reports whether no connection is left.
func (h *hostPort) idle() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.conns) == 0
}

// accept takes connections until the listener is closed. When the process has no
// descriptor left, it tries again after a while, which grows up to a second.
func (h *hostPort) accept(l *net.TCPListener) {
	pause := time.Duration(0)
	for {
		select {
		case h.slots <- struct{}{}:
		case <-h.ctx.Done():
			return
		}
		c, err := l.AcceptTCP()
		if err == nil {
			pause = 0
			h.work.Go(func() {
				defer func() { <-h.slots }()
				h.serve(c)
			})
			continue
		}
		<-h.slots
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if !errors.Is(err, syscall.ECONNABORTED) {
			if pause == 0 {
				h.log.Warn("published port takes no connection for a moment", "err", err)
			}
			pause = min(cmp.Or(2*pause, 5*time.Millisecond), time.Second)
			select {
			case <-time.After(pause):
			case <-h.ctx.Done():
			}
		}
	}
}

// serve connects one client. One that nobody serves is reset.
func (h *hostPort) serve(c *net.TCPConn) {
	if !h.enter(c) {
		resetConn(c)
		return
	}
	defer h.leave(c)
	far, err := h.dial(h.ctx)
	if err != nil {
		h.log.Debug("connection to a published port refused", "client", c.RemoteAddr(), "err", err)
		resetConn(c)
		return
	}
	splice(c, far)
}

func (h *hostPort) enter(c *net.TCPConn) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ctx.Err() != nil {
		return false
	}
	h.conns[c] = struct{}{}
	return true
}

func (h *hostPort) leave(c *net.TCPConn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.conns, c)
}

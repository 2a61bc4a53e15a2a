package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	maxDatagram = 65535 // bytes
	// maxFlows is how many far ends one association has at a time. For one more
	// the longest silent one gives way.
	maxFlows = 256
	// flowTimeout is how long a far end may be silent, and not be spoken to.
	flowTimeout = 3 * time.Minute
	// flowQueue is how many datagrams wait while their far end is looked up.
	flowQueue = 16
)

// An association passes on datagrams for one client, for as long as its TCP
// connection lasts (RFC 1928 §7).
type association struct {
	s      *Server
	dialer Dialer
	relay  *net.UDPConn
	uid    int // of the client's process; -1: not known
	work   sync.WaitGroup

	client atomic.Pointer[netip.AddrPort] // where its datagrams come from

	mu    sync.Mutex
	flows map[string]*flow
}

// A flow is what goes to and comes from one far end.
type flow struct {
	addr string
	out  chan []byte
	end  context.CancelFunc
	last atomic.Int64 // when it was used, Unix time in nanoseconds
}

// associate serves UDP ASSOCIATE. want is where the client says that its
// datagrams come from; zeros mean that it does not know.
func (s *Server) associate(ctx context.Context, c *client, dialer Dialer, want string) {
	at, ok := c.LocalAddr().(*net.TCPAddr)
	if !ok { // a unix socket: no address that the client could send to
		c.reply(replyNoCommand)
		return
	}
	relay, err := net.ListenUDP("udp", &net.UDPAddr{IP: at.IP, Zone: at.Zone})
	if err != nil {
		s.cfg.Log.Warn("proxy cannot open a socket", "err", err)
		c.reply(replyFailure)
		return
	}
	a := &association{s: s, dialer: dialer, relay: relay, uid: -1, flows: make(map[string]*flow)}
	if peer, err := peerSocket(c.LocalAddr(), c.RemoteAddr()); err == nil {
		a.uid = peer.uid
	}
	if from, err := netip.ParseAddrPort(want); err == nil && from.Port() != 0 && !from.Addr().IsUnspecified() {
		a.client.Store(&from)
	}
	ctx, cancel := context.WithCancel(ctx)
	a.work.Go(func() { a.receive(ctx, addrPort(c.RemoteAddr()).Addr()) })
	if _, err := c.Write(appendReply(nil, replySucceeded, addrPort(relay.LocalAddr()))); err == nil {
		_ = c.SetDeadline(time.Time{})
		_, _ = io.Copy(io.Discard, c.in) // until the client ends it
	}
	cancel()
	_ = relay.Close()
	a.work.Wait()
}

// receive takes the client's datagrams until the socket is closed. host is the
// address that it may send them from.
func (a *association) receive(ctx context.Context, host netip.Addr) {
	buf := make([]byte, maxDatagram)
	for {
		n, from, err := a.relay.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		if err != nil || from.Addr() != host || !a.ours(from) {
			continue
		}
		addr, payload, err := parseDatagram(buf[:n])
		if err != nil {
			continue // RFC 1928: dropped
		}
		f := a.flow(ctx, addr)
		f.last.Store(time.Now().UnixNano())
		select {
		case f.out <- append([]byte(nil), payload...):
		default: // as a full queue
		}
	}
}

// ours reports whether a datagram is the client's. One that did not say where
// it sends from is who sends first, unless that is another user's process.
func (a *association) ours(from netip.AddrPort) bool {
	if c := a.client.Load(); c != nil {
		return *c == from
	}
	if peer, err := peerSocket(a.relay.LocalAddr(), net.UDPAddrFromAddrPort(from)); err == nil && a.uid >= 0 && peer.uid != a.uid {
		return false
	}
	a.client.Store(&from)
	return true
}

// flow returns the flow to addr, which begins if there is none.
func (a *association) flow(ctx context.Context, addr string) *flow {
	a.mu.Lock()
	defer a.mu.Unlock()
	if f := a.flows[addr]; f != nil {
		return f
	}
	if len(a.flows) >= maxFlows {
		a.evict()
	}
	ctx, cancel := context.WithCancel(ctx)
	f := &flow{addr: addr, out: make(chan []byte, flowQueue), end: cancel}
	f.last.Store(time.Now().UnixNano())
	a.flows[addr] = f
	a.work.Go(func() {
		defer a.forget(f)
		a.run(ctx, f)
	})
	return f
}

// evict ends the flow that has been silent for longest. a.mu is held.
func (a *association) evict() {
	var oldest *flow
	for _, f := range a.flows {
		if oldest == nil || f.last.Load() < oldest.last.Load() {
			oldest = f
		}
	}
	delete(a.flows, oldest.addr)
	oldest.end()
}

func (a *association) forget(f *flow) {
	f.end()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.flows[f.addr] == f {
		delete(a.flows, f.addr)
	}
}

// run passes on the datagrams of one flow until ctx ends or it falls silent.
func (a *association) run(ctx context.Context, f *flow) {
	far, err := a.dialer.DialContext(ctx, "udp", f.addr)
	if err != nil {
		a.s.cfg.Log.Debug("proxy passes no datagrams on", "to", f.addr, "err", err)
		return // SOCKS has no way to tell
	}
	var answers sync.WaitGroup
	answers.Go(func() { a.answers(f, far) })
	defer answers.Wait()
	defer func() { _ = far.Close() }()
	for {
		select {
		case <-ctx.Done():
			return
		case b := <-f.out:
			// A far end that refused an earlier datagram says so with this one.
			_, _ = far.Write(b)
		}
	}
}

// answers passes on what the far end says.
func (a *association) answers(f *flow, far net.Conn) {
	defer f.end()
	head := appendDatagramHead(make([]byte, 0, datagramHead), addrPort(far.RemoteAddr()))
	buf := make([]byte, maxDatagram)
	copy(buf, head)
	for {
		_ = far.SetReadDeadline(time.Unix(0, f.last.Load()).Add(flowTimeout))
		n, err := far.Read(buf[len(head):])
		if err != nil {
			var netErr net.Error
			if errors.As(err, &netErr) && netErr.Timeout() && time.Since(time.Unix(0, f.last.Load())) < flowTimeout {
				continue // the client spoke meanwhile
			}
			if errors.Is(err, syscall.ECONNREFUSED) {
				continue
			}
			return
		}
		f.last.Store(time.Now().UnixNano())
		if c := a.client.Load(); c != nil {
			// What does not fit or comes too late is lost, as datagrams are.
			_, _ = a.relay.WriteToUDPAddrPort(buf[:len(head)+n], *c)
		}
	}
}

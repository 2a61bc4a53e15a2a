package proxy

import (
	"bufio"
	"cmp"
	"context"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/ovnd/ovnd/netstack"
)

const (
	// handshakeTime is how long a client may take to say what it wants.
	handshakeTime = 10 * time.Second
	// idleTime is how long a client of HTTP may keep a connection that it does
	// not use.
	idleTime = 2 * time.Minute
	// acceptPause is how long a listener rests that could not accept: out of
	// descriptors, most likely.
	acceptPause = 20 * time.Millisecond
	// maxConnections is how many connections one server has; more wait in the
	// kernel's backlog.
	maxConnections = 16 << 10
)

// A Dialer connects to what a client names: network is "tcp" or "udp", addr a
// name or IP address, and a port. Its errors say by the errors of this package
// and by [syscall.Errno] what the client is told; their text is for people.
type Dialer interface {
	DialContext(ctx context.Context, network, addr string) (net.Conn, error)
}

// Config says what a [Server] is.
type Config struct {
	// Authenticate returns what a user with this password may reach, nil if that
	// is not the password. It compares in constant time.
	Authenticate func(user, password string) Dialer
	// Own is for clients without credentials that are processes of this user, of
	// anybody if Anybody is set. Nil: there are none such.
	Own     Dialer
	Anybody bool
	Log     *slog.Logger // nil discards
}

// A Server serves proxies' clients. All methods are safe for concurrent use.
type Server struct {
	cfg   Config
	conns connections
}

// New returns a server that listens nowhere yet.
func New(cfg Config) *Server {
	cfg.Log = cmp.Or(cfg.Log, slog.New(slog.DiscardHandler))
	s := &Server{cfg: cfg}
	s.conns.init()
	return s
}

// Active returns how many clients are connected.
func (s *Server) Active() int { return s.conns.count() }

// Serve takes clients from ln, of TCP or of a unix socket whose mode says who
// may, until ctx ends. Then it closes ln and every connection, and returns nil
// when all are gone. It may be called for several listeners.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	web := newWeb(s, ln.Addr())
	var work sync.WaitGroup
	work.Go(func() { web.run(ctx) })
	defer work.Wait()
	defer cancel()
	return accept(ctx, ln, &s.conns, s.cfg.Log, func(ctx context.Context, c net.Conn) { s.serve(ctx, c, web) })
}

// A client is one connection of a client's.
type client struct {
	net.Conn
	in *bufio.Reader
}

// Read implements [net.Conn].
func (c *client) Read(b []byte) (int, error) { return c.in.Read(b) }

// serve serves one client to its end.
func (s *Server) serve(ctx context.Context, conn net.Conn, web *web) {
	_ = conn.SetDeadline(time.Now().Add(handshakeTime)) // a closed one fails below
	c := &client{Conn: conn, in: bufio.NewReader(conn)}
	first, err := c.in.Peek(1)
	if err != nil {
		return
	}
	if first[0] == socksVersion {
		s.serveSOCKS(ctx, c)
		return
	}
	web.serve(c)
}

// carry connects a client with the far end until both have ended. What a client
// that did not wait for the answer has sent is in its own buffer, or in ahead,
// which may be nil, before that.
func (c *client) carry(far net.Conn, ahead *bufio.Reader) {
	_ = c.SetDeadline(time.Time{})
	for _, r := range []*bufio.Reader{ahead, c.in} {
		if r == nil || r.Buffered() == 0 {
			continue
		}
		early, _ := r.Peek(r.Buffered())
		if _, err := far.Write(early); err != nil {
			_ = far.Close()
			return
		}
	}
	netstack.Splice(c.Conn, far)
}

// own returns what a client without credentials may reach; nil: nothing.
func (s *Server) own(c net.Conn) Dialer {
	if s.cfg.Own == nil || !s.cfg.Anybody && !OwnProcess(c) {
		return nil
	}
	return s.cfg.Own
}

// known returns what a client with credentials may reach; nil: nothing. Empty
// ones are none.
func (s *Server) known(c net.Conn, user, password string) Dialer {
	if user == "" && password == "" {
		return s.own(c)
	}
	if s.cfg.Authenticate == nil {
		return nil
	}
	return s.cfg.Authenticate(user, password)
}

// OwnProcess reports whether the process at the other end of a connection is of
// this user, or of root, whom nothing would stop. Of a unix socket its mode says
// who may connect.
func OwnProcess(c net.Conn) bool {
	if c.RemoteAddr().Network() == "unix" {
		return true
	}
	if !ofThisMachine(c) {
		return false
	}
	peer, err := peerSocket(c.LocalAddr(), c.RemoteAddr())
	return err == nil && ours(peer.uid)
}

// ofThisMachine reports whether the other end of a connection of TCP has an
// address that only this machine's own sockets have.
func ofThisMachine(c net.Conn) bool {
	local, remote := addrPort(c.LocalAddr()), addrPort(c.RemoteAddr())
	return remote.Addr().IsLoopback() || remote.Addr() == local.Addr()
}

// ours reports whether uid is this user's, or root's. In a user namespace all who
// have no number there have the overflow uid: if that is ours too, nobody can be
// told from them.
func ours(uid int) bool {
	const overflow = 65534 // of /proc/sys/kernel/overflowuid, as every kernel has it
	return uid == 0 || uid == os.Geteuid() && uid != overflow
}

// addrPort returns an address of TCP or UDP, the zero one of anything else.
func addrPort(a net.Addr) netip.AddrPort {
	var ap netip.AddrPort
	switch a := a.(type) {
	case *net.TCPAddr:
		ap = a.AddrPort()
	case *net.UDPAddr:
		ap = a.AddrPort()
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

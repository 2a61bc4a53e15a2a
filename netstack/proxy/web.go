package proxy

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"strconv"
	"strings"
	"sync"
	"time"
)

// web serves the clients of one listener that speak HTTP. It is a [net.Listener]
// of connections whose first byte was looked at.
type web struct {
	s     *Server
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
}

type clientKey struct{}

func newWeb(s *Server, addr net.Addr) *web {
	return &web{s: s, addr: addr, conns: make(chan net.Conn), done: make(chan struct{})}
}

// run serves until ctx ends.
func (w *web) run(ctx context.Context) {
	srv := &http.Server{
		Handler: http.HandlerFunc(w.handle), ReadHeaderTimeout: handshakeTime, IdleTimeout: idleTime,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, clientKey{}, c) },
		ErrorLog:    slog.NewLogLogger(w.s.cfg.Log.Handler(), slog.LevelDebug),
	}
	var closing sync.WaitGroup
	closing.Go(func() {
		<-ctx.Done()
		close(w.done)
		_ = srv.Close() // how its connections end is of no use
	})
	_ = srv.Serve(w) // until then
	closing.Wait()
}

// Accept implements [net.Listener].
func (w *web) Accept() (net.Conn, error) {
	select {
	case c := <-w.conns:
		return c, nil
	case <-w.done:
		return nil, net.ErrClosed
	}
}

// Close implements [net.Listener].
func (w *web) Close() error { return nil }

// Addr implements [net.Listener].
func (w *web) Addr() net.Addr { return w.addr }

// A webClient is a client that the HTTP server closes.
type webClient struct {
	*client
	once   sync.Once
	closed chan struct{}
}

// Close implements [net.Conn].
func (c *webClient) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// serve serves a client to its end.
func (w *web) serve(c *client) {
	_ = c.SetDeadline(time.Time{}) // the server has its own
	wc := &webClient{client: c, closed: make(chan struct{})}
	select {
	case w.conns <- wc:
		<-wc.closed
	case <-w.done:
	}
}

// handle answers one request.
func (w *web) handle(rw http.ResponseWriter, r *http.Request) {
	c := r.Context().Value(clientKey{}).(*webClient) // ConnContext has put it there
	dialer := w.s.admit(c.Conn, r)
	switch {
	case r.Method != http.MethodConnect && !r.URL.IsAbs():
		http.Error(rw, "This is a proxy (SOCKS5 and HTTP) of ovnd, not a web server: \"ovnd env\" prints how to use it.", http.StatusBadRequest)
	case dialer == nil:
		rw.Header().Set("Proxy-Authenticate", `Basic realm="ovnd"`)
		http.Error(rw, "ovnd: give the proxy's user and password: \"ovnd env\" prints them", http.StatusProxyAuthRequired)
		w.s.refused(c.client)
	case r.Method == http.MethodConnect:
		w.connect(rw, r, c, dialer)
	case r.URL.Scheme != "http":
		http.Error(rw, "ovnd: "+r.URL.Scheme+" goes through the proxy by CONNECT alone", http.StatusNotImplemented)
	default:
		w.forward(rw, r, dialer)
	}
}

// admit returns what the sender of a request may reach; nil: nothing.
func (s *Server) admit(c net.Conn, r *http.Request) Dialer {
	given := r.Header.Get("Proxy-Authorization")
	if given == "" {
		return s.own(c)
	}
	user, password, ok := (&http.Request{Header: http.Header{"Authorization": {given}}}).BasicAuth()
	if !ok {
		return nil
	}
	return s.known(c, user, password)
}

// connect serves CONNECT.
func (w *web) connect(rw http.ResponseWriter, r *http.Request, c *webClient, dialer Dialer) {
	// The server sees the client's end too, but not behind what it has sent.
	far, err := dialFor(r.Context(), c.Conn, func(ctx context.Context) (net.Conn, error) { return dialer.DialContext(ctx, "tcp", r.Host) })
	if err != nil {
		w.fail(rw, r, err)
		return
	}
	stop := context.AfterFunc(r.Context(), func() { _ = far.Close() })
	defer stop()
	_, buffered, err := http.NewResponseController(rw).Hijack()
	if err != nil {
		_ = far.Close()
		return
	}
	defer func() { _ = c.Close() }()
	if _, err := c.Write([]byte("HTTP/1.1 200 Connection established\r\n\r\n")); err != nil {
		_ = far.Close()
		return
	}
	c.carry(far, buffered.Reader)
}

// forward serves a plain request. Each has a connection of its own: two clients
// may mean different places by one name.
func (w *web) forward(rw http.ResponseWriter, r *http.Request, dialer Dialer) {
	transport := &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true, DisableCompression: true}
	defer transport.CloseIdleConnections()
	p := httputil.ReverseProxy{
		Transport: transport, FlushInterval: -1,
		Rewrite: func(p *httputil.ProxyRequest) {
			// What says who forwarded it before is none of our business.
			for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
				if v, ok := p.In.Header[name]; ok {
					p.Out.Header[name] = v
				}
			}
			p.Out.Header.Del("Proxy-Authorization")
			p.Out.Host = p.In.Host
		},
		ErrorHandler: w.fail,
		ErrorLog:     slog.NewLogLogger(w.s.cfg.Log.Handler(), slog.LevelDebug),
	}
	p.ServeHTTP(rw, r)
}

// fail tells a client why its request failed (RFC 9209 §2).
func (w *web) fail(rw http.ResponseWriter, r *http.Request, err error) {
	w.s.cfg.Log.Debug("proxy could not connect", "to", r.Host, "err", err)
	f := failureOf(err)
	rw.Header().Set("Proxy-Status", "ovnd; error="+f.kind+"; details="+structured(err.Error()))
	http.Error(rw, "ovnd: "+err.Error(), f.status)
}

// structured returns text as a string of RFC 8941 §3.3.3.
func structured(text string) string {
	plain := strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return '?'
		}
		return c
	}, text)
	return strconv.Quote(plain) // of such text it escapes quotes and backslashes alone
}

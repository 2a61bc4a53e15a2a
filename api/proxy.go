package api

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"

	"github.com/moby/moby/v2/daemon/server/httputils"
	"github.com/moby/moby/v2/daemon/server/router"

	"github.com/ovnd/ovnd/api/types"
)

// maxProxyNetworks bounds the networks of one proxy.
const maxProxyNetworks = 64

// A ProxyBackend serves programs that have no interface on a network. What it
// opens lasts until it is closed.
type ProxyBackend interface {
	OpenProxy(ctx context.Context, req types.ProxyRequest) (types.ProxySession, ProxySession, error)
	OpenForward(ctx context.Context, req types.ForwardRequest) (types.ProxySession, ProxySession, error)
	OpenExpose(ctx context.Context, req types.ExposeRequest) (types.ProxySession, ProxySession, error)
	// Connect returns once the connection stands.
	Connect(ctx context.Context, req types.ConnectRequest) (ProxyStream, error)
	ProxyEnv() (types.ProxyEnv, error)
}

// A ProxySession is something that a ProxyBackend has opened.
type ProxySession interface {
	// Done is closed when it has ended by itself; Err says why.
	Done() <-chan struct{}
	Err() error
	// Close ends it. It is called once, in any case.
	Close()
}

// A ProxyStream carries one connection until it has ended, and closes near. It is
// called once, in any case.
type ProxyStream func(near net.Conn)

// proxyAPI serves the calls of `ovnd proxy` and its kin.
type proxyAPI struct {
	backend ProxyBackend
	stop    context.Context // ends with the server
}

func proxyRoutes(stop context.Context, backend ProxyBackend) []router.Route {
	if backend == nil {
		return nil
	}
	a := &proxyAPI{backend, stop}
	return []router.Route{
		router.NewPostRoute("/ovnd/proxy", session(a, checkProxy, backend.OpenProxy)),
		router.NewPostRoute("/ovnd/forward", session(a, checkForward, backend.OpenForward)),
		router.NewPostRoute("/ovnd/expose", session(a, checkExpose, backend.OpenExpose)),
		router.NewPostRoute("/ovnd/connect", a.connect),
		router.NewGetRoute("/ovnd/env", a.env),
	}
}

// session serves a call that opens something, which ends with the request.
func session[R any](a *proxyAPI, check func(R) error, open func(context.Context, R) (types.ProxySession, ProxySession, error)) httputils.APIFunc {
	return func(ctx context.Context, w http.ResponseWriter, r *http.Request, _ map[string]string) error {
		var req R
		if err := httputils.ReadJSON(r, &req); err != nil {
			return err
		}
		if err := check(req); err != nil {
			return err
		}
		answer, s, err := open(ctx, req)
		if err != nil {
			return err
		}
		defer s.Close()
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusOK)
		out := json.NewEncoder(w)
		if out.Encode(answer) != nil || http.NewResponseController(w).Flush() != nil {
			return nil // the client has gone, and the status is sent
		}
		end := types.ProxyEnd{Error: "the node stops"}
		select {
		case <-ctx.Done():
			return nil
		case <-a.stop.Done():
		case <-s.Done():
			end.Error = s.Err().Error()
		}
		_ = out.Encode(end) // likewise
		return nil
	}
}

// connect makes a connection and then is it.
func (a *proxyAPI) connect(ctx context.Context, w http.ResponseWriter, r *http.Request, _ map[string]string) error {
	var req types.ConnectRequest
	if err := httputils.ReadJSON(r, &req); err != nil {
		return err
	}
	if err := checkNetworks(req.Networks); err != nil {
		return err
	}
	if err := checkTarget(req.Target); err != nil {
		return err
	}
	carry, err := a.backend.Connect(ctx, req)
	if err != nil {
		return err
	}
	conn, err := hijack(ctx, w, r, false)
	if err != nil {
		ours, theirs := net.Pipe()
		_ = ours.Close()
		carry(theirs) // which ends at once
		return err
	}
	stop := context.AfterFunc(a.stop, func() { _ = conn.Close() })
	defer stop()
	carry(conn.stream())
	return nil
}

// stream returns the connection, with what was read of it ahead if there is any.
func (h *hijacked) stream() net.Conn {
	if b, ok := h.in.(interface{ Buffered() int }); ok && b.Buffered() == 0 {
		return h.Conn
	}
	return aheadConn{h.Conn, h.in}
}

// An aheadConn is a connection of which something was read already.
type aheadConn struct {
	net.Conn
	in io.Reader
}

// Read implements [net.Conn].
func (c aheadConn) Read(b []byte) (int, error) { return c.in.Read(b) }

// CloseWrite ends the own direction.
func (c aheadConn) CloseWrite() error {
	if h, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return c.Close()
}

func (a *proxyAPI) env(_ context.Context, w http.ResponseWriter, _ *http.Request, _ map[string]string) error {
	env, err := a.backend.ProxyEnv()
	if err != nil {
		return err
	}
	return httputils.WriteJSON(w, http.StatusOK, env)
}

func checkProxy(req types.ProxyRequest) error {
	if req.Listen == "" {
		return invalid("no address to listen at")
	}
	return checkNetworks(req.Networks)
}

func checkForward(req types.ForwardRequest) error {
	if req.Listen == "" {
		return invalid("no address to listen at")
	}
	if err := checkTarget(req.Target); err != nil {
		return err
	}
	return checkNetworks(req.Networks)
}

func checkExpose(req types.ExposeRequest) error {
	if !nameRE.MatchString(req.Name) {
		return invalid("invalid name (%s): 1 to 128 of [a-zA-Z0-9_.-] are allowed, the first a letter or digit", req.Name)
	}
	return checkNetworks(req.Networks)
}

func checkTarget(target string) error {
	host, port, err := net.SplitHostPort(target)
	if err != nil || host == "" || port == "" {
		return invalid("invalid target (%s): want NAME:PORT", target)
	}
	return nil
}

func checkNetworks(networks []string) error {
	if len(networks) > maxProxyNetworks {
		return invalid("%d networks given: a proxy leads to at most %d", len(networks), maxProxyNetworks)
	}
	seen := make(map[string]bool)
	for _, n := range networks {
		if n == "" {
			return invalid("invalid network: name is empty")
		}
		if seen[n] {
			return invalid("network %s is given twice", n)
		}
		seen[n] = true
	}
	return nil
}

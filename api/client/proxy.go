package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"github.com/ovnd/ovnd/api/types"
)

// A Session is a proxy, forward or exposed program that the node serves for as
// long as the session is open.
type Session struct {
	types.ProxySession
	body io.ReadCloser
	in   *json.Decoder
}

// OpenProxy has the node serve proxies. ctx is the session's.
func (c *Client) OpenProxy(ctx context.Context, req types.ProxyRequest) (*Session, error) {
	return c.openSession(ctx, "/ovnd/proxy", req)
}

// OpenForward has the node forward an address of its machine.
func (c *Client) OpenForward(ctx context.Context, req types.ForwardRequest) (*Session, error) {
	return c.openSession(ctx, "/ovnd/forward", req)
}

// OpenExpose makes a program of the node's machine an endpoint of a network.
func (c *Client) OpenExpose(ctx context.Context, req types.ExposeRequest) (*Session, error) {
	return c.openSession(ctx, "/ovnd/expose", req)
}

func (c *Client) openSession(ctx context.Context, path string, body any) (*Session, error) {
	b, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://ovnd"+path, bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.dialError(err)
	}
	if resp.StatusCode != http.StatusOK {
		defer func() { _ = resp.Body.Close() }() // nothing was written to it
		return nil, answerError(resp, io.LimitReader(resp.Body, maxAnswer))
	}
	s := &Session{body: resp.Body, in: json.NewDecoder(resp.Body)}
	if err := s.in.Decode(&s.ProxySession); err != nil {
		_ = resp.Body.Close() // likewise
		return nil, fmt.Errorf("answer to %s: %w", path, err)
	}
	return s, nil
}

// Wait returns when the session has ended: nil if its context has, else why.
func (s *Session) Wait(ctx context.Context) error {
	var end types.ProxyEnd
	err := s.in.Decode(&end)
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		return errors.New("the node has gone")
	}
	return errors.New(end.Error)
}

// Close ends the session.
func (s *Session) Close() error { return s.body.Close() }

// Env says how programs use the node's own proxy.
func (c *Client) Env(ctx context.Context) (types.ProxyEnv, error) {
	return call[types.ProxyEnv](ctx, c, http.MethodGet, "/ovnd/env", nil)
}

// Connect returns a connection to a name and port of a network, which comes from
// the node. CloseWrite ends one direction.
func (c *Client) Connect(ctx context.Context, body types.ConnectRequest) (*Stream, error) {
	b, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", c.socket)
	if err != nil {
		return nil, c.dialError(err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	s, err := upgrade(conn.(*net.UnixConn), b)
	if err != nil {
		_ = conn.Close() // nothing was written that matters
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, err
	}
	return s, nil
}

// A Stream is a connection to a program on a network.
type Stream struct {
	*net.UnixConn
	in *bufio.Reader
}

// Read implements [net.Conn].
func (s *Stream) Read(b []byte) (int, error) { return s.in.Read(b) }

// upgrade asks for a connection and reads the answer.
func upgrade(conn *net.UnixConn, body []byte) (*Stream, error) {
	req, err := http.NewRequest(http.MethodPost, "http://ovnd/ovnd/connect", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "tcp")
	if err := req.Write(conn); err != nil {
		return nil, err
	}
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, req)
	if err != nil {
		return nil, fmt.Errorf("answer to /ovnd/connect: %w", err)
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		defer func() { _ = resp.Body.Close() }() // likewise
		return nil, answerError(resp, io.LimitReader(resp.Body, maxAnswer))
	}
	return &Stream{conn, in}, nil
}

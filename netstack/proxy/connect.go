package proxy

import (
	"context"
	"errors"
	"net"
	"time"
)

// serveSOCKS serves a client that speaks SOCKS5 to its end.
func (s *Server) serveSOCKS(ctx context.Context, c *client) {
	_, _ = c.in.Discard(1) // the version, which is there
	dialer, err := s.authenticate(c)
	if err != nil || dialer == nil {
		return
	}
	req, err := readRequest(c.in)
	switch {
	case errors.Is(err, errAddressType):
		c.reply(replyNoAddressType)
	case err != nil:
		return
	case req.command == commandConnect:
		s.connect(ctx, c, dialer, req.addr)
	case req.command == commandAssociate:
		s.associate(ctx, c, dialer, req.addr)
	default:
		c.reply(replyNoCommand)
	}
}

// authenticate settles the method of authentication and returns what the client
// may reach. It returns nil if that is nothing; the client was told.
func (s *Server) authenticate(c *client) (Dialer, error) {
	methods, err := readMethods(c.in)
	if err != nil {
		return nil, err
	}
	none := false
	for _, m := range methods {
		switch m {
		case methodPassword:
			return s.password(c)
		case methodNone:
			none = true
		}
	}
	var dialer Dialer
	answer := byte(methodRefused)
	if none {
		if dialer = s.own(c.Conn); dialer != nil {
			answer = methodNone
		}
	}
	if _, err := c.Write([]byte{socksVersion, answer}); err != nil {
		return nil, err
	}
	if dialer == nil {
		s.refused(c)
	}
	return dialer, nil
}

// password asks for credentials.
func (s *Server) password(c *client) (Dialer, error) {
	if _, err := c.Write([]byte{socksVersion, methodPassword}); err != nil {
		return nil, err
	}
	user, password, err := readPassword(c.in)
	if err != nil {
		return nil, err
	}
	const failed = 1 // anything but 0
	dialer := s.known(c.Conn, user, password)
	status := byte(0)
	if dialer == nil {
		status = failed
	}
	if _, err := c.Write([]byte{passwordVersion, status}); err != nil {
		return nil, err
	}
	if dialer == nil {
		s.refused(c)
	}
	return dialer, nil
}

func (s *Server) refused(c *client) {
	s.cfg.Log.Warn("a proxy's client gave no valid credentials and is no process of this user: refused", "client", c.RemoteAddr())
}

// reply tells the client that its request has failed.
func (c *client) reply(why byte) {
	_, _ = c.Write(appendReply(nil, why, addrPort(nil))) // it has gone otherwise
}

// connect serves CONNECT.
func (s *Server) connect(ctx context.Context, c *client, dialer Dialer, addr string) {
	_ = c.SetDeadline(time.Time{}) // its part is done
	far, err := dialFor(ctx, c.Conn, func(ctx context.Context) (net.Conn, error) { return dialer.DialContext(ctx, "tcp", addr) })
	if err != nil {
		s.cfg.Log.Debug("proxy could not connect", "to", addr, "err", err)
		c.reply(failureOf(err).reply)
		return
	}
	if _, err := c.Write(appendReply(nil, replySucceeded, addrPort(far.LocalAddr()))); err != nil {
		_ = far.Close()
		return
	}
	stop := context.AfterFunc(ctx, func() { _ = far.Close() })
	defer stop()
	c.carry(far, nil)
}

package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"
)

// A client that ended what it sends waits for an answer; one that closed its
// socket does not.
func TestGone(t *testing.T) {
	for _, at := range [][2]string{{"tcp4", "127.0.0.1:0"}, {"tcp6", "[::1]:0"}, {"unix", filepath.Join(t.TempDir(), "s")}} {
		ln, err := net.Listen(at[0], at[1])
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		for _, reset := range []bool{false, true} {
			theirs, err := net.Dial(at[0], ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			ours, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer ours.Close()
			if gone(ours) {
				t.Errorf("%s: a client that is there is gone", at[0])
			}
			_, _ = theirs.Write([]byte("early"))
			if err := theirs.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
				t.Fatal(err)
			}
			_, _ = io.ReadAll(ours) // its end has come
			if gone(ours) {
				t.Errorf("%s: a client that has said all is gone", at[0])
			}
			if tcp, ok := theirs.(*net.TCPConn); ok && reset {
				_ = tcp.SetLinger(0)
			}
			theirs.Close()
			until(t, at[0]+": a client that left is gone", func() bool { return gone(ours) })
		}
	}
}

func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited in vain: " + what)
		}
	}
}

// A silent dialer waits for an answer that does not come.
type silent struct {
	dialing chan struct{}
	ended   chan error
}

func newSilent() silent { return silent{make(chan struct{}, 1), make(chan error, 1)} }

func (s silent) DialContext(ctx context.Context, _, _ string) (net.Conn, error) {
	s.dialing <- struct{}{}
	<-ctx.Done()
	s.ended <- ctx.Err()
	return nil, ctx.Err()
}

// A client that leaves while it is being connected gives its slot back at once,
// whatever it has sent ahead.
func TestClientLeavesWhileDialing(t *testing.T) {
	for name, ask := range map[string]string{
		"SOCKS":             "\x05\x01\x00\x05\x01\x00\x03\x01a\x00\x50",
		"SOCKS, early data": "\x05\x01\x00\x05\x01\x00\x03\x01a\x00\x50GET / HTTP/1.0\r\n\r\n",
		"HTTP":              "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n",
		"HTTP, early data":  "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\nGET / HTTP/1.0\r\n\r\n",
		"plain HTTP":        "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			dialer := newSilent()
			s := serveOn(t, Config{Own: dialer, Anybody: true}, ln)
			leaves(t, ln.Addr(), ask, dialer, s.Active)
		})
	}
}

// The same of a forward's clients.
func TestForwardsClientLeavesWhileDialing(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dialer := newSilent()
	f := &Forward{Dial: func(ctx context.Context) (net.Conn, error) { return dialer.DialContext(ctx, "", "") }, Anybody: true}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Serve(ctx, ln) }()
	leaves(t, ln.Addr(), "early", dialer, f.Active)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func leaves(t *testing.T, at net.Addr, ask string, dialer silent, active func() int) {
	t.Helper()
	c := dialProxy(t, at.(*net.TCPAddr))
	if _, err := c.Write([]byte(ask)); err != nil {
		t.Fatal(err)
	}
	<-dialer.dialing
	if n := active(); n != 1 {
		t.Errorf("%d slots are taken", n)
	}
	c.Close()
	select {
	case err := <-dialer.ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("the dial ended with %v", err)
		}
	case <-time.After(patience):
		t.Fatal("the dial goes on")
	}
	until(t, "the slot is free", func() bool { return active() == 0 })
}

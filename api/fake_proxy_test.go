package api

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"

	cerrdefs "github.com/containerd/errdefs"

	"github.com/ovnd/ovnd/api/types"
)

// fakeProxies implements ProxyBackend.
type fakeProxies struct {
	mu       sync.Mutex
	opened   []any // requests
	sessions []*fakeSession
	carried  sync.WaitGroup // streams
}

// A fakeSession ends when it is told to.
type fakeSession struct {
	done   chan struct{}
	closed chan struct{}
}

func (s *fakeSession) Done() <-chan struct{} { return s.done }
func (s *fakeSession) Err() error            { return errors.New("the network is gone") }
func (s *fakeSession) Close()                { close(s.closed) }

func (p *fakeProxies) open(req any) *fakeSession {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := &fakeSession{done: make(chan struct{}), closed: make(chan struct{})}
	p.opened, p.sessions = append(p.opened, req), append(p.sessions, s)
	return s
}

func (p *fakeProxies) OpenProxy(_ context.Context, req types.ProxyRequest) (types.ProxySession, ProxySession, error) {
	if req.Listen == "taken" {
		return types.ProxySession{}, nil, cerrdefs.ErrInvalidArgument.WithMessage("address already in use")
	}
	return types.ProxySession{Listen: req.Listen, Networks: req.Networks, Env: []string{"ALL_PROXY=x"}}, p.open(req), nil
}

func (p *fakeProxies) OpenForward(_ context.Context, req types.ForwardRequest) (types.ProxySession, ProxySession, error) {
	return types.ProxySession{Listen: req.Listen, Networks: req.Networks}, p.open(req), nil
}

func (p *fakeProxies) OpenExpose(_ context.Context, req types.ExposeRequest) (types.ProxySession, ProxySession, error) {
	return types.ProxySession{Networks: req.Networks, Address: netip.MustParseAddr("10.10.0.9")}, p.open(req), nil
}

// Connect answers with what is sent, behind the name.
func (p *fakeProxies) Connect(_ context.Context, req types.ConnectRequest) (ProxyStream, error) {
	if req.Target == "nowhere:1" {
		return nil, cerrdefs.ErrNotFound.WithMessage("nowhere:1: no such name")
	}
	p.carried.Add(1)
	return func(near net.Conn) {
		defer p.carried.Done()
		defer near.Close()
		_, _ = io.WriteString(near, req.Target+"\n")
		_, _ = io.Copy(near, near)
	}, nil
}

func (p *fakeProxies) ProxyEnv() (types.ProxyEnv, error) {
	return types.ProxyEnv{Listen: "127.0.0.1:1080", Networks: []string{"net"}, Env: []string{"ALL_PROXY=x"}}, nil
}

var _ ProxyBackend = (*fakeProxies)(nil)

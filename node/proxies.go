package node

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	cerrdefs "github.com/containerd/errdefs"

	"github.com/ovnd/ovnd/api"
	"github.com/ovnd/ovnd/api/types"
	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/netstack"
	"github.com/ovnd/ovnd/netstack/proxy"
)

const (
	// proxyPatience is how long a proxy may take to end.
	proxyPatience = 5 * time.Second
	// proxyRetry is how often a network is asked for that `up --proxy` serves and
	// that is not there yet.
	proxyRetry = 2 * time.Second
	// proxyIdle is how often the node's own proxy is looked at: twice without a
	// connection is idle.
	proxyIdle = 5 * time.Second
	// proxyUser is the user name that stands for the node's own user.
	proxyUser = "ovnd"
)

// proxies are what this node serves to programs of its user that have no
// interface on a network. It implements api.ProxyBackend.
type proxies struct {
	s    *sandboxes
	file string // keeps what programs remember
	keptProxy

	mu       sync.Mutex
	sessions map[*proxySession]bool
	own      *proxySession // of `up --proxy`; nil: none
	tasks    *stage        // the proxy of bare tasks; nil: none was needed
}

// keptProxy is what outlives the node, since programs know it.
type keptProxy struct {
	Secret   string // of which passwords are made
	TaskPort uint16 // at which bare tasks have their proxy; 0: none yet
}

// newProxies takes the secret of the last run, so that programs which know a
// password may keep it.
func newProxies(s *sandboxes, stateDir string) (*proxies, error) {
	p := &proxies{s: s, file: filepath.Join(stateDir, "proxy.json"), sessions: make(map[*proxySession]bool)}
	if err := loadJSON(p.file, &p.keptProxy); err != nil || p.Secret == "" {
		p.keptProxy = keptProxy{Secret: randomID()}
		return p, saveJSON(p.file, p.keptProxy)
	}
	return p, nil
}

// tasksAt returns where bare tasks have their proxy, which is served from the
// first of them on.
func (p *proxies) tasksAt() (netip.AddrPort, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if p.tasks != nil {
		return netip.AddrPortFrom(loopback, p.TaskPort), nil
	}
	if p.TaskPort == 0 {
		port, err := freeLocalPort(nil)
		if err != nil {
			return netip.AddrPort{}, err
		}
		p.TaskPort = port
		if err := saveJSON(p.file, p.keptProxy); err != nil {
			return netip.AddrPort{}, err
		}
	}
	at := netip.AddrPortFrom(loopback, p.TaskPort)
	ln, err := net.Listen("tcp", at.String())
	if err != nil {
		return at, fmt.Errorf("proxy of tasks: %w: the port was this node's before, and is in %s", err, p.file)
	}
	server := proxy.New(proxy.Config{Authenticate: p.authenticate(nil), Log: p.s.log})
	p.tasks = startStage(context.Background(), "proxy of tasks", func(ctx context.Context) error { return server.Serve(ctx, ln) })
	return at, nil
}

// closeTasks ends the proxy of bare tasks, of which none is left.
func (p *proxies) closeTasks() {
	p.mu.Lock()
	stage := p.tasks
	p.tasks = nil
	p.mu.Unlock()
	if stage == nil {
		return
	}
	if err := stage.stop(proxyPatience); err != nil {
		p.s.log.Warn("proxy of tasks not closed properly", "error", err)
	}
}

// password returns the one of a user of the proxies.
func (p *proxies) password(user string) string {
	mac := hmac.New(sha256.New, []byte(p.Secret))
	mac.Write([]byte("ovnd proxy v1 " + user))
	return hex.EncodeToString(mac.Sum(nil)[:16])
}

// authenticate returns what a user may reach: own is for the node's user.
func (p *proxies) authenticate(own proxy.Dialer) func(user, password string) proxy.Dialer {
	return func(user, password string) proxy.Dialer {
		if subtle.ConstantTimeCompare([]byte(password), []byte(p.password(user))) != 1 {
			return nil
		}
		if user == proxyUser {
			return own
		}
		return p.s.taskDialer(user)
	}
}

// proxyEnv returns what makes programs use the proxy at addr.
func (p *proxies) proxyEnv(addr netip.AddrPort, user string) []string {
	if addr.Addr().IsUnspecified() {
		loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
		if addr.Addr().Is6() {
			loopback = netip.IPv6Loopback()
		}
		addr = netip.AddrPortFrom(loopback, addr.Port())
	}
	place := user + ":" + p.password(user) + "@" + addr.String()
	// Programs differ in which case they read.
	return []string{
		"ALL_PROXY=socks5h://" + place, "all_proxy=socks5h://" + place,
		"HTTP_PROXY=http://" + place, "http_proxy=http://" + place,
		"HTTPS_PROXY=http://" + place, "https_proxy=http://" + place,
		"NO_PROXY=localhost,127.0.0.1,::1", "no_proxy=localhost,127.0.0.1,::1",
	}
}

// A proxySession is one proxy, forward or exposed program. It implements
// api.ProxySession.
type proxySession struct {
	p     *proxies
	state types.ProxyState
	env   []string
	// networks are those that it leads to now; nil: those of state.
	networks func() []string
	active   func() int // TCP connections
	stage    *stage     // serves; nil for expose
	end      func()     // gives back what it holds
	gone     <-chan struct{}
	once     sync.Once
}

// Done implements api.ProxySession.
func (s *proxySession) Done() <-chan struct{} { return s.gone }

// Err implements api.ProxySession.
func (s *proxySession) Err() error {
	if s.stage != nil && closed(s.stage.done) && s.stage.err != nil {
		return s.stage.err
	}
	return errors.New("the node left its swarm, or the swarm took the address away")
}

// Close implements api.ProxySession.
func (s *proxySession) Close() {
	s.once.Do(func() {
		if s.stage != nil {
			if err := s.stage.stop(proxyPatience); err != nil {
				s.p.s.log.Warn("proxy not closed properly", "listen", s.state.Listen, "error", err)
			}
		}
		s.end()
		s.p.mu.Lock()
		defer s.p.mu.Unlock()
		delete(s.p.sessions, s)
	})
}

// enter makes a session known to status.
func (p *proxies) enter(s *proxySession) *proxySession {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sessions[s] = true
	return s
}

func (s *proxySession) answer() types.ProxySession {
	return types.ProxySession{Listen: s.state.Listen, Networks: s.state.Networks, Env: s.env}
}

// OpenProxy implements api.ProxyBackend.
func (p *proxies) OpenProxy(ctx context.Context, req types.ProxyRequest) (types.ProxySession, api.ProxySession, error) {
	hosts := p.shared(req.Networks)
	if _, err := hosts.list(ctx); err != nil {
		return types.ProxySession{}, nil, err
	}
	s, err := p.serveProxy(hosts, req.Listen, req.AllUsers)
	if err != nil {
		hosts.close()
		return types.ProxySession{}, nil, err
	}
	return s.answer(), s, nil
}

// serveProxy serves proxies that lead to hosts, which are the session's then.
func (p *proxies) serveProxy(hosts *sharedHosts, listen string, anybody bool) (*proxySession, error) {
	ln, err := listenLocal(listen)
	if err != nil {
		return nil, err
	}
	dialer := &overlayDialer{s: p.s, hosts: hosts.list}
	server := proxy.New(proxy.Config{Authenticate: p.authenticate(dialer), Own: dialer, Anybody: anybody, Log: p.s.log})
	s := &proxySession{
		p: p, active: server.Active, end: hosts.close, networks: hosts.names,
		state: types.ProxyState{Kind: "proxy", Listen: ln.Addr().String(), Networks: hosts.names()},
	}
	if at, ok := ln.Addr().(*net.TCPAddr); ok {
		s.env = p.proxyEnv(at.AddrPort(), proxyUser)
	}
	s.stage = startStage(context.Background(), "proxy at "+s.state.Listen, func(ctx context.Context) error { return server.Serve(ctx, ln) })
	s.gone = s.stage.done
	return p.enter(s), nil
}

// OpenForward implements api.ProxyBackend.
func (p *proxies) OpenForward(ctx context.Context, req types.ForwardRequest) (types.ProxySession, api.ProxySession, error) {
	if _, _, err := splitTarget(req.Target); err != nil {
		return types.ProxySession{}, nil, invalidProxy("invalid target %q: %v", req.Target, err)
	}
	if at, err := netip.ParseAddrPort(req.Listen); err == nil && !at.Addr().IsLoopback() && !req.AllUsers {
		return types.ProxySession{}, nil, invalidProxy("%s is no loopback address: nobody could tell who connects there; --all-users allows everybody", at)
	}
	hosts := p.shared(req.Networks)
	if _, err := hosts.list(ctx); err != nil {
		return types.ProxySession{}, nil, err
	}
	ln, err := listenLocal(req.Listen)
	if err != nil {
		hosts.close()
		return types.ProxySession{}, nil, err
	}
	dialer := &overlayDialer{s: p.s, hosts: hosts.list}
	f := &proxy.Forward{
		Dial:    func(ctx context.Context) (net.Conn, error) { return dialer.DialContext(ctx, "tcp", req.Target) },
		Anybody: req.AllUsers, Log: p.s.log,
	}
	s := &proxySession{
		p: p, active: f.Active, end: hosts.close,
		state: types.ProxyState{Kind: "forward", Listen: ln.Addr().String(), Target: req.Target, Networks: hosts.names()},
	}
	s.stage = startStage(context.Background(), "forward at "+s.state.Listen, func(ctx context.Context) error { return f.Serve(ctx, ln) })
	s.gone = s.stage.done
	p.enter(s)
	return s.answer(), s, nil
}

// OpenExpose implements api.ProxyBackend.
func (p *proxies) OpenExpose(ctx context.Context, req types.ExposeRequest) (types.ProxySession, api.ProxySession, error) {
	protocol, ok := map[string]directory.Protocol{"": directory.TCP, "tcp": directory.TCP, "udp": directory.UDP}[req.Protocol]
	switch {
	case !ok:
		return types.ProxySession{}, nil, invalidProxy("invalid protocol %q: tcp and udp can be exposed", req.Protocol)
	case req.Port == 0 || req.Target.Port() == 0 || !req.Target.IsValid():
		return types.ProxySession{}, nil, invalidProxy("a port on the network and an address and port of the machine are needed")
	case len(req.Networks) > 1:
		return types.ProxySession{}, nil, invalidProxy("a program is exposed on one network: give --network once")
	}
	networks, err := p.orOnly(ctx, req.Networks)
	if err != nil {
		return types.ProxySession{}, nil, err
	}
	pl, err := p.s.places.open(ctx, placeConfig{
		network: networks[0], name: req.Name,
		target: func(p directory.Protocol, port uint16) (netip.AddrPort, bool) {
			return req.Target, p == protocol && port == req.Port
		},
	})
	if err != nil {
		return types.ProxySession{}, nil, err
	}
	s := p.enter(&proxySession{
		p: p, gone: pl.gone, end: func() { p.s.places.close(pl) },
		active: func() int { return pl.Stats().Active },
		state: types.ProxyState{
			Kind: "expose", Listen: fmt.Sprintf("%s (%s) %d/%s", req.Name, pl.Addr(), req.Port, protocol),
			Target: req.Target.String(), Networks: []string{pl.att.Network.Name},
		},
	})
	return types.ProxySession{Networks: s.state.Networks, Address: pl.Addr()}, s, nil
}

// Connect implements api.ProxyBackend.
func (p *proxies) Connect(ctx context.Context, req types.ConnectRequest) (api.ProxyStream, error) {
	hosts := p.shared(req.Networks)
	dialer := &overlayDialer{s: p.s, hosts: hosts.list}
	far, err := dialer.DialContext(ctx, "tcp", req.Target)
	if err != nil {
		hosts.close()
		return nil, connectError(err)
	}
	return func(near net.Conn) {
		defer hosts.close()
		netstack.Splice(near, far)
	}, nil
}

// connectError gives err the class that makes the API's status.
func connectError(err error) error {
	switch {
	case errors.Is(err, proxy.ErrNoName):
		return cerrdefs.ErrNotFound.WithMessage(err.Error())
	case errors.Is(err, proxy.ErrForbidden):
		return cerrdefs.ErrPermissionDenied.WithMessage(err.Error())
	case cerrdefs.IsNotFound(err), cerrdefs.IsInvalidArgument(err), cerrdefs.IsPermissionDenied(err):
		return err
	}
	return cerrdefs.ErrUnavailable.WithMessage(err.Error())
}

// ProxyEnv implements api.ProxyBackend.
func (p *proxies) ProxyEnv() (types.ProxyEnv, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.own == nil {
		return types.ProxyEnv{}, cerrdefs.ErrNotFound.WithMessage("this node has no proxy: start it with \"ovnd up --proxy\", or run \"ovnd proxy\" beside it")
	}
	return types.ProxyEnv{Listen: p.own.state.Listen, Networks: p.own.networks(), Env: p.own.env}, nil
}

// states describes the sessions, for status.
func (p *proxies) states() []types.ProxyState {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := make([]types.ProxyState, 0, len(p.sessions))
	for s := range p.sessions {
		st := s.state
		if s.networks != nil {
			st.Networks = s.networks()
		}
		st.Connections = s.active()
		list = append(list, st)
	}
	slices.SortFunc(list, func(a, b types.ProxyState) int {
		return cmp.Or(strings.Compare(a.Kind, b.Kind), strings.Compare(a.Listen, b.Listen))
	})
	return list
}

// serveOwn serves the proxy of `up --proxy` until ctx ends. Its networks may
// come later. Where none was named it is on the only one while it is used: it
// must not keep a network that nobody chose from being removed.
func (p *proxies) serveOwn(ctx context.Context, s *proxySession, hosts *sharedHosts) {
	p.mu.Lock()
	p.own = s
	p.mu.Unlock()
	if hosts.auto {
		p.letGoIdle(ctx, s, hosts)
	} else {
		p.attachOwn(ctx, hosts)
	}
	select {
	case <-ctx.Done():
	case <-s.gone:
	}
	p.mu.Lock()
	p.own = nil
	p.mu.Unlock()
	s.Close()
}

// letGoIdle takes the node's own proxy off its network whenever it has had no
// connection for a while.
func (p *proxies) letGoIdle(ctx context.Context, s *proxySession, hosts *sharedHosts) {
	tick := time.NewTicker(proxyIdle)
	defer tick.Stop()
	for idle := true; ; {
		select {
		case <-ctx.Done():
			return
		case <-s.gone:
			return
		case <-tick.C:
		}
		used := s.active() > 0
		if idle && !used {
			hosts.letGo()
		}
		idle = !used
	}
}

// attachOwn attaches the node's own proxy to its networks, once they are there.
func (p *proxies) attachOwn(ctx context.Context, hosts *sharedHosts) {
	told := ""
	for ctx.Err() == nil {
		_, err := hosts.list(ctx)
		if err == nil {
			return
		}
		if text := err.Error(); text != told {
			told = text
			p.s.log.Warn("the proxy leads nowhere yet", "error", text)
		}
		select {
		case <-time.After(proxyRetry):
		case <-ctx.Done():
		}
	}
}

// invalidProxy is an error about what was asked for.
func invalidProxy(format string, args ...any) error {
	return cerrdefs.ErrInvalidArgument.WithMessage(fmt.Sprintf(format, args...))
}

var _ api.ProxyBackend = (*proxies)(nil)

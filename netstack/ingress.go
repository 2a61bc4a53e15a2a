package netstack

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/ovnd/ovnd/discovery/directory"
)

// retryPorts is how often a port that could not be opened is tried again.
const retryPorts = 5 * time.Second

// IngressConfig says where a node serves published ports.
type IngressConfig struct {
	// Addrs are the host's addresses to listen at. It must be possible at the
	// first, the node's own; the others, 127.0.0.1 say, are tried.
	Addrs    []netip.Addr
	Balancer *Balancer    // of the ingress network
	Node     string       // host name, for errors
	Log      *slog.Logger // nil: the default one
}

// An Ingress serves the published ports of a swarm at one node: whichever node a
// client connects to, the connection goes to the next backend of the port's
// service. All methods are safe for concurrent use.
type Ingress struct {
	cfg IngressConfig

	mu     sync.Mutex
	closed bool
	ports  map[portKey]*ingressPort
	old    []*hostPort // closed, but with connections
}

// A portKey is what a client sees of a published port.
type portKey struct {
	published uint16
	protocol  directory.Protocol
}

func keyOf(p directory.Port) portKey { return portKey{p.Published, p.Protocol} }

// An ingressPort is one published port. It exists while a service publishes it
// or somebody has reserved it. Ingress.mu guards it.
type ingressPort struct {
	port     directory.Port
	service  *directory.Service // nil: none publishes it yet
	reserved int
	open     *hostPort // nil if it could not be opened
	err      error     // why
}

// PortStatus is the state of one published port at this node.
type PortStatus struct {
	Port                   directory.Port
	ServiceID, ServiceName string       // "" for a port that is reserved only
	Addrs                  []netip.Addr // at which the node listens
	Err                    error        // why it does not; nil if it does
}

// NewIngress returns an ingress that listens nowhere yet.
func NewIngress(cfg IngressConfig) *Ingress {
	cfg.Log = cmp.Or(cfg.Log, slog.Default())
	return &Ingress{cfg: cfg, ports: make(map[portKey]*ingressPort)}
}

// Update opens the ports that the services of snap publish, and closes those
// that none does any more. Connections through a port that is closed go on. A
// port that cannot be opened is logged, shown by Ports, and tried again.
func (i *Ingress) Update(snap *directory.Snapshot) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed {
		return
	}
	published := make(map[portKey]bool)
	for _, s := range snap.SortedServices() {
		for _, port := range s.Ports {
			if published[keyOf(port)] {
				continue // of two services that claim it, the same one everywhere
			}
			published[keyOf(port)] = true
			p := i.port(port)
			p.port, p.service = port, s
			if p.open == nil && p.err == nil {
				if err := i.open(p); err != nil {
					i.cfg.Log.Error("published port not open", "service", s.Name, "err", err)
				}
			}
		}
	}
	for key, p := range i.ports {
		if !published[key] {
			p.service = nil
			i.release(p)
		}
	}
}

// Reserve opens ports before a service publishes them; connections are reset
// until one does. If one cannot be opened none is, and the error is a
// [*PortError]. release gives up the reservation: what a service publishes by
// then stays open.
func (i *Ingress) Reserve(ports []directory.Port) (release func(), err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed {
		return nil, net.ErrClosed
	}
	var held []*ingressPort
	giveUp := func() {
		for _, p := range held {
			p.reserved--
			i.release(p)
		}
		held = nil
	}
	for _, port := range ports {
		p := i.port(port)
		p.reserved++
		held = append(held, p)
		if p.open == nil {
			if err := i.open(p); err != nil {
				giveUp()
				return nil, err
			}
		}
	}
	return func() {
		i.mu.Lock()
		defer i.mu.Unlock()
		giveUp()
	}, nil
}

// port returns the entry of port, which it makes if there is none.
func (i *Ingress) port(port directory.Port) *ingressPort {
	p := i.ports[keyOf(port)]
	if p == nil {
		p = &ingressPort{port: port}
		i.ports[keyOf(port)] = p
	}
	return p
}

// open listens at p.
func (i *Ingress) open(p *ingressPort) error {
	open, err := listenAt(i.cfg.Addrs, p.port, i.cfg.Log, func(ctx context.Context) (net.Conn, error) {
		return i.dial(ctx, p)
	})
	if err != nil {
		p.err = &PortError{Node: i.cfg.Node, Port: p.port, Err: err}
		return p.err
	}
	p.open, p.err = open, nil
	open.start()
	return nil
}

// dial connects to the next backend of whoever publishes p.
func (i *Ingress) dial(ctx context.Context, p *ingressPort) (net.Conn, error) {
	i.mu.Lock()
	port, service := p.port, p.service
	i.mu.Unlock()
	if service == nil {
		return nil, errNoBackend
	}
	return i.cfg.Balancer.DialService(ctx, service.ID, port)
}

// release closes p unless somebody has it.
func (i *Ingress) release(p *ingressPort) {
	if p.service != nil || p.reserved > 0 {
		return
	}
	if p.open != nil {
		p.open.close()
		i.old = append(i.old, p.open)
	}
	delete(i.ports, keyOf(p.port))
}

// Run tries again what could not be opened, until ctx ends; then it closes all
// ports, resets their connections and ends every goroutine of the ingress.
func (i *Ingress) Run(ctx context.Context) error {
	tick := time.NewTicker(retryPorts)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			i.shutdown()
			return nil
		case <-tick.C:
			i.retry()
		}
	}
}

// retry opens what could not be opened, and forgets closed ports whose last
// connection has ended.
func (i *Ingress) retry() {
	i.mu.Lock()
	for _, p := range i.ports {
		if p.err != nil && i.open(p) == nil {
			i.cfg.Log.Info("published port open after all", "port", p.port.Published, "protocol", p.port.Protocol.String())
		}
	}
	var idle []*hostPort
	i.old = slices.DeleteFunc(i.old, func(h *hostPort) bool {
		if !h.idle() {
			return false
		}
		idle = append(idle, h)
		return true
	})
	i.mu.Unlock()
	for _, h := range idle {
		h.reset() // waits for what may ask dial, and so i.mu
	}
}

func (i *Ingress) shutdown() {
	i.mu.Lock()
	i.closed = true
	all := i.old
	for _, p := range i.ports {
		if p.open != nil {
			p.open.close()
			all = append(all, p.open)
		}
	}
	i.ports, i.old = nil, nil
	i.mu.Unlock()
	for _, h := range all {
		h.reset()
	}
}

// Ports returns the state of all ports, sorted by number and protocol.
func (i *Ingress) Ports() []PortStatus {
	i.mu.Lock()
	defer i.mu.Unlock()
	all := make([]PortStatus, 0, len(i.ports))
	for _, p := range i.ports {
		st := PortStatus{Port: p.port, Err: p.err}
		if p.service != nil {
			st.ServiceID, st.ServiceName = p.service.ID, p.service.Name
		}
		if p.open != nil {
			st.Addrs = slices.Clone(p.open.addrs)
		}
		all = append(all, st)
	}
	slices.SortFunc(all, func(a, b PortStatus) int {
		return cmp.Or(cmp.Compare(a.Port.Published, b.Port.Published), cmp.Compare(a.Port.Protocol, b.Port.Protocol))
	})
	return all
}

// A PortForward serves one port of one task at its node: what is published in
// host mode.
type PortForward struct{ open *hostPort }

// PortForwardConfig says what a [PortForward] is.
type PortForwardConfig struct {
	Addrs []netip.Addr // as in [IngressConfig]
	Port  directory.Port
	Node  string // host name, for errors
	// Dial connects to the task; network is "tcp" or "udp".
	Dial func(ctx context.Context, network string) (net.Conn, error)
	Log  *slog.Logger // nil: the default one
}

// NewPortForward listens at the port, or at a free one if Published is 0. It
// serves once Run is called. An error is a [*PortError].
func NewPortForward(cfg PortForwardConfig) (*PortForward, error) {
	network := cfg.Port.Protocol.String()
	if cfg.Port.Published == 0 {
		var err error
		if cfg.Port.Published, err = anyFreePort(cfg.Addrs, cfg.Port.Protocol); err != nil {
			return nil, &PortError{Node: cfg.Node, Port: cfg.Port, Err: err}
		}
	}
	open, err := listenAt(cfg.Addrs, cfg.Port, cmp.Or(cfg.Log, slog.Default()), func(ctx context.Context) (net.Conn, error) {
		return cfg.Dial(ctx, network)
	})
	if err != nil {
		return nil, &PortError{Node: cfg.Node, Port: cfg.Port, Err: err}
	}
	return &PortForward{open}, nil
}

// anyFreePort finds a port that nobody listens at. Somebody may before it is used:
// then the task fails, and the next one has another.
func anyFreePort(addrs []netip.Addr, p directory.Protocol) (uint16, error) {
	if len(addrs) == 0 {
		return 0, errors.New("no address to listen at")
	}
	h := &hostPort{port: directory.Port{Protocol: p}}
	defer h.close()
	if err := h.listen(netip.AddrPortFrom(addrs[0], 0)); err != nil {
		return 0, err
	}
	if p == directory.UDP {
		return h.packets[0].LocalAddr().(*net.UDPAddr).AddrPort().Port(), nil
	}
	return h.listeners[0].Addr().(*net.TCPAddr).AddrPort().Port(), nil
}

// Port returns the port, with the number that was found for 0.
func (f *PortForward) Port() directory.Port { return f.open.port }

// Addrs returns where it listens.
func (f *PortForward) Addrs() []netip.Addr { return slices.Clone(f.open.addrs) }

// Run serves until ctx ends; then it stops listening and resets what is left.
func (f *PortForward) Run(ctx context.Context) error {
	f.open.start()
	<-ctx.Done()
	f.open.close()
	f.open.reset()
	return nil
}

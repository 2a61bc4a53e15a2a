package netstack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/encap"
)

// hostDialTimeout is longer than a balancer takes to pass over a few backends
// that are silent.
const hostDialTimeout = 10 * time.Second

// HostConfig describes a [Host]. Addr, MTU and Send are required.
type HostConfig struct {
	Addr netip.Prefix // of the endpoint, with the subnet's length
	MTU  int          // of the network, in bytes
	Send func(frames [][]byte)
	// Target returns where on this machine what comes to a port of the endpoint
	// goes, and false for a port that is closed. Nil: all are. It is called for
	// each connection and flow that begins, from the switch's workers.
	Target func(p directory.Protocol, port uint16) (netip.AddrPort, bool)
	// Refused is told of each connection that was refused where Target said, by
	// the endpoint's port. It must not block. Nil: nobody is.
	Refused func(port uint16)
	Log     *slog.Logger // nil discards

	DialTimeout time.Duration // of DialContext, where its context says no less; 0: 10 s
}

// A Host is an endpoint of a network whose sockets are those of programs outside
// it: what comes to its ports is carried to sockets of this machine, and who has
// no device of the network connects from it. All methods are safe for concurrent
// use.
type Host struct {
	e       *Egress // which dials Target
	addr    netip.Addr
	timeout time.Duration
	dialed  atomic.Int64 // connections of DialContext that are not closed
}

// NewHost returns a host that passes on what Deliver gets at once. It has
// goroutines until Run has been called and has returned.
func NewHost(cfg HostConfig) (*Host, error) {
	e, err := newEgress(EgressConfig{Gateway: cfg.Addr, MTU: cfg.MTU, Send: cfg.Send, Log: cfg.Log})
	if err != nil {
		return nil, fmt.Errorf("host %s: %w", cfg.Addr, err)
	}
	e.target = func(protocol uint8, to netip.AddrPort) (netip.AddrPort, bool) {
		p, ok := directory.TCP, protocol == encap.ProtocolTCP
		if protocol == encap.ProtocolUDP {
			p, ok = directory.UDP, true
		}
		if !ok || cfg.Target == nil {
			return netip.AddrPort{}, false
		}
		return cfg.Target(p, to.Port())
	}
	if cfg.Refused != nil {
		e.refused = func(to netip.AddrPort) { cfg.Refused(to.Port()) }
	}
	e.handle()
	return &Host{e: e, addr: cfg.Addr.Addr(), timeout: cmp.Or(cfg.DialTimeout, hostDialTimeout)}, nil
}

// Deliver gives the host one super-packet behind its virtio metadata, lent until
// it returns. packets is how many wire packets it stands for.
func (h *Host) Deliver(frame []byte, packets int) { h.e.Deliver(frame, packets) }

// Run looks after flows until ctx ends; then it resets all connections, those of
// DialContext too, and ends every goroutine of the host. It is called once.
func (h *Host) Run(ctx context.Context) error { return h.e.Run(ctx) }

// Stats returns what came to the host.
func (h *Host) Stats() EgressStats { return h.e.Stats() }

// Addr returns the endpoint's address.
func (h *Host) Addr() netip.Addr { return h.addr }

// Dialed returns how many connections of DialContext are open.
func (h *Host) Dialed() int { return int(h.dialed.Load()) }

// closed notes that one of them was closed.
func (h *Host) closed() { h.dialed.Add(-1) }

// DialContext connects from the endpoint's address. network is "tcp" or "udp".
// An error of the far end's is a [syscall.Errno] inside: ECONNREFUSED, EHOSTUNREACH,
// ENETUNREACH, or ETIMEDOUT if nobody answers.
func (h *Host) DialContext(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	var c net.Conn
	var err error
	switch network {
	case "tcp":
		c, err = h.dialTCP(ctx, to)
	case "udp":
		c, err = h.dialUDP(to)
	default:
		err = net.UnknownNetworkError(network)
	}
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Addr: addrOf(network, to), Err: err}
	}
	return c, nil
}

func addrOf(network string, a netip.AddrPort) net.Addr {
	if network == "udp" {
		return net.UDPAddrFromAddrPort(a)
	}
	return net.TCPAddrFromAddrPort(a)
}

func (h *Host) dialTCP(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	queue := &waiter.Queue{}
	ep, terr := h.e.stack.NewEndpoint(tcp.ProtocolNumber, protocolOf(to.Addr()), queue)
	if terr != nil {
		return nil, toError(terr)
	}
	tune(ep)
	entry, ready := waiter.NewChannelEntry(waiter.WritableEvents | waiter.EventErr | waiter.EventHUp)
	queue.EventRegister(&entry)
	err := h.connect(ctx, ep, to, ready)
	queue.EventUnregister(&entry)
	if err != nil {
		ep.Abort()
		return nil, err
	}
	h.dialed.Add(1)
	return newStreamConn(ep, queue, h.closed), nil
}

func (h *Host) connect(ctx context.Context, ep tcpip.Endpoint, to netip.AddrPort, ready <-chan struct{}) error {
	if terr := ep.Bind(toFull(netip.AddrPortFrom(h.addr, 0))); terr != nil {
		return toError(terr)
	}
	terr := ep.Connect(toFull(to))
	if _, started := terr.(*tcpip.ErrConnectStarted); !started {
		return toError(terr)
	}
	timeout := time.NewTimer(h.timeout)
	defer timeout.Stop()
	select {
	case <-ready:
		return toError(ep.LastError())
	case <-timeout.C:
		return syscall.ETIMEDOUT
	case <-ctx.Done():
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return syscall.ETIMEDOUT
		}
		return ctx.Err()
	case <-h.e.ctx.Done():
		return net.ErrClosed
	}
}

func (h *Host) dialUDP(to netip.AddrPort) (net.Conn, error) {
	from, remote := toFull(netip.AddrPortFrom(h.addr, 0)), toFull(to)
	queue := &waiter.Queue{}
	ep, terr := h.e.stack.NewEndpoint(udp.ProtocolNumber, protocolOf(to.Addr()), queue)
	if terr == nil {
		if terr = ep.Bind(from); terr == nil {
			terr = ep.Connect(remote)
		}
		if terr != nil {
			ep.Close()
		}
	}
	if terr != nil {
		return nil, toError(terr)
	}
	h.dialed.Add(1)
	return newDatagramConn(ep, queue, h.closed), nil
}

// Splice passes on what a and b say to each other until both have ended or one
// fails, and closes both; see [Host.DialContext] for what makes a connection
// that is idle hold no buffer.
func Splice(a, b net.Conn) { splice(a, b) }

package netstack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"github.com/ovnd/ovnd/dataplane/pkt"
	"github.com/ovnd/ovnd/encap"
)

// EgressConfig describes the way out of a node's sandboxes. Gateway, MTU and Send
// are required. A sandbox gets at most two thirds of each cap.
type EgressConfig struct {
	Gateway netip.Prefix          // the hub's address and the sandboxes' subnet: 172.18.0.1/16
	MTU     int                   // of the network, in bytes: 1500
	Send    func(frames [][]byte) // as in [NewLink]

	// HostLoopback has the gateway's address stand for the host's own loopback
	// address; else nobody answers there.
	HostLoopback bool
	// Refuse reports whether an address is not to be reached, besides those that
	// never are: nil refuses none. It is called from the switch's workers, for
	// each connection and flow that begins.
	Refuse func(netip.Addr) bool
	// VXLANPort is the port of the overlay's data path; 0: 4789. No datagram goes
	// there, to whatever address: it would come from this node's own, which the
	// other nodes take for its switch.
	VXLANPort uint16
	Log       *slog.Logger // nil discards

	MaxConnections int           // TCP connections; 0: 8,192
	MaxDials       int           // of them, those that are not established yet, counted apart; 0: 1,024
	MaxFlows       int           // of UDP and ping, beyond which the longest idle one ends; 0: 4,096
	DialTimeout    time.Duration // after which the client has to ask again; 0: 30 s
	FlowTimeout    time.Duration // idle time of a UDP flow that had an answer; 0: 3 min
}

// unansweredTimeout is how long a flow waits for its first answer.
const unansweredTimeout = 30 * time.Second

func (c *EgressConfig) setDefaults() {
	c.MaxConnections = cmp.Or(c.MaxConnections, 8<<10)
	c.MaxDials = cmp.Or(c.MaxDials, 1<<10)
	c.MaxFlows = cmp.Or(c.MaxFlows, 4<<10)
	c.VXLANPort = cmp.Or(c.VXLANPort, encap.VXLANPort)
	c.DialTimeout = cmp.Or(c.DialTimeout, 30*time.Second)
	c.FlowTimeout = cmp.Or(c.FlowTimeout, 3*time.Minute)
	c.Log = cmp.Or(c.Log, slog.New(slog.DiscardHandler))
	if c.Refuse == nil {
		c.Refuse = func(netip.Addr) bool { return false }
	}
}

func (c *EgressConfig) check() error {
	if !c.Gateway.IsValid() || c.Gateway.Addr() == c.Gateway.Masked().Addr() {
		return fmt.Errorf("EgressConfig.Gateway: %s: an address of this node in the sandboxes' subnet is needed, 172.18.0.1/16 say", c.Gateway)
	}
	if c.MTU < encap.MinMTU4 || c.MTU > encap.MaxMTU {
		return fmt.Errorf("EgressConfig.MTU: %d is not from %d to %d", c.MTU, encap.MinMTU4, encap.MaxMTU)
	}
	if c.Send == nil {
		return errors.New("EgressConfig.Send: what the stack sends has to go somewhere")
	}
	return nil
}

// An Egress is the hub of the network that sandboxes reach the world by: it dials
// from the host, as the user who runs the node, what they ask for. All methods
// are safe for concurrent use.
type Egress struct {
	cfg     EgressConfig
	log     *slog.Logger
	gateway netip.Addr
	link    *Link
	answers *answers
	stack   *stack.Stack
	syns    *tcp.Forwarder
	dialer  net.Dialer
	clients egressClients
	flows   egressFlows
	open    func(protocol uint8, to netip.AddrPort) (*datagramSocket, error)
	// target returns where on the host what goes to an address is to go, and
	// false if nowhere.
	target  func(protocol uint8, to netip.AddrPort) (netip.AddrPort, bool)
	refused func(to netip.AddrPort) // is told what the host refuses; nil: nobody
	errors  errorLimit
	warned  atomic.Int64 // Unix time in seconds of the last warning about a shortage

	ctx    context.Context // ends dials
	cancel context.CancelFunc
	work   sync.WaitGroup // connections, flows, and goroutines that wait for some
	crew   *crew

	counters egressCounters
}

type egressCounters struct {
	connections, refused, unreachable, timeouts, failed, overCap atomic.Uint64
	flows, pings, pingsDenied, evicted, datagramsLost            atomic.Uint64
}

// EgressStats is what an egress has done since it was made.
type EgressStats struct {
	Connections uint64 `json:"connections"` // TCP connections established, in all
	Active      int    `json:"active"`      // of them, now
	Dialing     int    `json:"dialing"`
	Refused     uint64 `json:"refused"`     // connections, datagrams and pings to where nobody may go
	Unreachable uint64 `json:"unreachable"` // connections that the far end or the host's network refused
	Timeouts    uint64 `json:"timeouts"`    // connections that nobody answered
	Failed      uint64 `json:"failed"`      // connections and flows that this host had no means for
	OverCap     uint64 `json:"over_cap"`    // connections beyond a cap

	Flows         uint64 `json:"flows"` // of UDP and ping, in all
	ActiveFlows   int    `json:"active_flows"`
	Evicted       uint64 `json:"evicted"`        // flows that ended for another's sake
	Pings         uint64 `json:"pings"`          // echo requests passed on
	PingsDenied   uint64 `json:"pings_denied"`   // the host lets this user send none
	DatagramsLost uint64 `json:"datagrams_lost"` // the host's socket buffer was full, or the datagram malformed

	Link LinkStats `json:"link"`
}

// NewEgress returns an egress that passes on what Deliver gets at once. It has
// goroutines until Run has been called and has returned.
func NewEgress(cfg EgressConfig) (*Egress, error) {
	e, err := newEgress(cfg)
	if err != nil {
		return nil, err
	}
	e.target = e.Permits
	if err := e.answerForAll(); err != nil {
		e.stack.Destroy()
		return nil, fmt.Errorf("egress: %w", err)
	}
	e.handle()
	return e, nil
}

// newEgress returns an egress that takes no packets yet.
func newEgress(cfg EgressConfig) (*Egress, error) {
	cfg.setDefaults()
	if err := cfg.check(); err != nil {
		return nil, err
	}
	e := &Egress{
		cfg: cfg, log: cfg.Log, gateway: cfg.Gateway.Addr(),
		answers: newAnswers(cfg.Send),
		open:    openDatagram,
		dialer:  net.Dialer{Timeout: cfg.DialTimeout, KeepAliveConfig: hostKeepAlive},
	}
	e.link = NewLink(cfg.MTU, e.answers.send)
	e.crew = newCrew(&e.work)
	e.ctx, e.cancel = context.WithCancel(context.Background())
	e.clients.init(&e.cfg)
	e.flows.init()
	var err error
	if e.stack, err = newStack(e.link); err != nil {
		return nil, fmt.Errorf("egress: %w", err)
	}
	if err := addAddr(e.stack, e.gateway, true); err != nil {
		e.stack.Destroy()
		return nil, fmt.Errorf("egress: %w", err)
	}
	return e, nil
}

// answerForAll has the stack take packets to every address, and answer from it.
func (e *Egress) answerForAll() error {
	if err := e.stack.SetPromiscuousMode(nic, true); err != nil {
		return toError(err)
	}
	if err := e.stack.SetSpoofing(nic, true); err != nil {
		return toError(err)
	}
	return nil
}

// handle has what comes to the stack carried.
func (e *Egress) handle() {
	// clients caps what is pending, so that the forwarder never does.
	e.syns = tcp.NewForwarder(e.stack, tcpBufferDefault, 2*e.cfg.MaxDials, func(r *tcp.ForwarderRequest) {
		e.crew.do(&egressRequest{e, r})
	})
	e.work.Go(func() { e.answers.run(e.ctx.Done()) })
	e.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, e.handleTCP)
	e.stack.SetTransportProtocolHandler(udp.ProtocolNumber, e.handleUDP)
	e.stack.SetTransportProtocolHandler(icmp.ProtocolNumber4, e.handlePing)
	e.stack.SetTransportProtocolHandler(icmp.ProtocolNumber6, e.handlePing)
}

// Deliver gives the egress one super-packet behind its virtio metadata, lent
// until it returns. packets is how many wire packets it stands for.
func (e *Egress) Deliver(frame []byte, packets int) {
	if len(frame) > pkt.MetaLen {
		makeWay(e.stack, frame[pkt.MetaLen:])
	}
	e.link.Deliver(frame, packets)
}

// Run looks after flows until ctx ends; then it resets all connections and ends
// every goroutine of the egress. It is called once.
func (e *Egress) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			e.shutdown()
			return nil
		case now := <-tick.C:
			e.expireFlows(now)
		}
	}
}

func (e *Egress) shutdown() {
	e.cancel()
	e.crew.dismiss()
	e.clients.close()
	e.closeFlows()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		e.work.Wait()
	}()
	// Handshakes that begin while this ends are endpoints only then.
	for done := false; !done; {
		for _, ep := range e.stack.RegisteredEndpoints() {
			ep.Abort()
		}
		select {
		case <-ended:
			done = true
		case <-time.After(10 * time.Millisecond):
		}
	}
	e.stack.Destroy()
}

// Stats returns what the egress has done.
func (e *Egress) Stats() EgressStats {
	c := &e.counters
	dialing, active, flows := e.clients.count()
	return EgressStats{
		Connections: c.connections.Load(), Active: active, Dialing: dialing,
		Refused: c.refused.Load(), Unreachable: c.unreachable.Load(), Timeouts: c.timeouts.Load(),
		Failed: c.failed.Load(), OverCap: c.overCap.Load(),
		Flows: c.flows.Load(), ActiveFlows: flows, Evicted: c.evicted.Load(),
		Pings: c.pings.Load(), PingsDenied: c.pingsDenied.Load(), DatagramsLost: c.datagramsLost.Load(),
		Link: e.link.Stats(),
	}
}

// DialContext connects from the gateway to a sandbox: network is "tcp" or "udp",
// addr a sandbox's address and port. What a host-mode port takes goes this way.
func (e *Egress) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil || !e.cfg.Gateway.Contains(to.Addr()) || to.Addr() == e.gateway {
		return nil, fmt.Errorf("egress: dial %s: not a sandbox's address in %s", addr, e.cfg.Gateway.Masked())
	}
	from, remote := toFull(netip.AddrPortFrom(e.gateway, 0)), toFull(to)
	switch network {
	case "tcp":
		return gonet.DialTCPWithBind(ctx, e.stack, from, remote, protocolOf(to.Addr()))
	case "udp":
		return gonet.DialUDP(e.stack, &from, &remote, protocolOf(to.Addr()))
	}
	return nil, net.UnknownNetworkError(network)
}

// shortage notes that this host had no means for what a sandbox wants: no
// descriptors left, say. It may be asked for many times a second.
func (e *Egress) shortage(to netip.AddrPort, err error) {
	const interval = 10
	e.counters.failed.Add(1)
	now, last := time.Now().Unix(), e.warned.Load()
	if now-last >= interval && e.warned.CompareAndSwap(last, now) {
		e.log.Warn("egress cannot open a socket", "to", to, "err", err)
	}
}

// Permits returns where what a sandbox sends to an address is to go, and false
// if nowhere. protocol is an IP protocol number.
func (e *Egress) Permits(protocol uint8, to netip.AddrPort) (netip.AddrPort, bool) {
	a := to.Addr().Unmap()
	if protocol == encap.ProtocolUDP && to.Port() == e.cfg.VXLANPort {
		return to, false
	}
	if a == e.gateway {
		loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
		if a.Is6() {
			loopback = netip.IPv6Loopback()
		}
		return netip.AddrPortFrom(loopback, to.Port()), e.cfg.HostLoopback
	}
	const class, reserved = 0, 240 // 0/8 is this network, 240/4 for future use
	if a.Is4() && (a.As4()[0] == class || a.As4()[0] >= reserved) {
		return to, false
	}
	ok := a.IsValid() && !a.IsUnspecified() && !a.IsLoopback() && !a.IsMulticast() && !a.IsLinkLocalUnicast() &&
		!e.cfg.Gateway.Contains(a) && !e.cfg.Refuse(a)
	return netip.AddrPortFrom(a, to.Port()), ok
}

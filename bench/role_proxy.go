package bench

import (
	"context"
	"net"
	"net/netip"

	"golang.org/x/sync/errgroup"

	"github.com/ovnd/ovnd/bench/lab"
	"github.com/ovnd/ovnd/dataplane"
	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/encap"
	"github.com/ovnd/ovnd/netstack"
	"github.com/ovnd/ovnd/netstack/proxy"
)

// loopback is where programs without an interface meet their node.
var loopback = netip.MustParseAddr("127.0.0.1")

// socksPort is the proxy's.
const socksPort = 1080

// A hostSpec says that a data plane has an endpoint without a device: what comes
// to it goes to the same port of 127.0.0.1, and with Proxy programs of the host
// reach To from it: TCP by SOCKS5 at 127.0.0.1:1080, UDP at sinkPort of 127.0.0.1
// and the one after it.
type hostSpec struct {
	Addr  netip.Addr `json:"addr"`
	Proxy bool       `json:"proxy,omitempty"`
	To    netip.Addr `json:"to,omitzero"`
}

// run runs the data plane, the endpoint's stack and the proxies.
func (s *hostSpec) run(ctx context.Context, sw *dataplane.Switch, snap *directory.Snapshot, ready func()) error {
	var wire stackWire
	h, err := netstack.NewHost(netstack.HostConfig{
		Addr: netip.PrefixFrom(s.Addr, snap.Subnets[0].Prefix.Bits()), MTU: snap.MTU, Send: wire.send,
		Target: func(_ directory.Protocol, port uint16) (netip.AddrPort, bool) {
			return netip.AddrPortFrom(loopback, port), true
		},
	})
	if err != nil {
		sw.Close()
		return err
	}
	stack := h.Run
	if s.Proxy {
		stack = func(ctx context.Context) error {
			g, ctx := errgroup.WithContext(ctx)
			g.Go(func() error { return h.Run(ctx) })
			g.Go(func() error { return s.serve(ctx, h) })
			return g.Wait()
		}
	}
	return wire.run(ctx, sw, stack, ready, dataplane.StackPortConfig{
		NetworkID: snap.ID, EndpointID: s.Addr.String(), Name: "host", MAC: encap.EndpointMAC(s.Addr),
		Addrs: []netip.Addr{s.Addr}, MTU: snap.MTU, Deliver: h.Deliver,
	})
}

// serve serves the programs of the host until ctx ends.
func (s *hostSpec) serve(ctx context.Context, h *netstack.Host) error {
	ln, err := net.Listen("tcp", netip.AddrPortFrom(loopback, socksPort).String())
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	server := proxy.New(proxy.Config{Own: hostDialer{h}})
	g.Go(func() error { return server.Serve(ctx, ln) })
	for _, port := range []uint16{sinkPort, sinkPort + 1} {
		forward, err := netstack.NewPortForward(netstack.PortForwardConfig{
			Addrs: []netip.Addr{loopback}, Port: directory.Port{Protocol: directory.UDP, Published: port, Target: port},
			Dial: func(ctx context.Context, network string) (net.Conn, error) {
				return h.DialContext(ctx, network, netip.AddrPortFrom(s.To, port))
			},
		})
		if err != nil {
			return err
		}
		g.Go(func() error { return forward.Run(ctx) })
	}
	return g.Wait()
}

// A hostDialer is where the proxy leads.
type hostDialer struct{ host *netstack.Host }

// DialContext implements [proxy.Dialer].
func (d hostDialer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, err
	}
	return d.host.DialContext(ctx, network, to)
}

// buildPort connects the hosts by a node's data plane on each; that on b has no
// device, and its endpoint is a port of the host.
func (p *plane) buildPort() error {
	if err := p.withHost(1, hostSpec{Addr: inner[1]}); err != nil {
		return err
	}
	p.ends[0].addr = netip.AddrPort{} // measured in one direction
	p.ends[1].addr = netip.AddrPortFrom(inner[1], sinkPort)
	p.ends[1].bind = netip.AddrPortFrom(loopback, sinkPort)
	return nil
}

// buildProxy connects the hosts by a node's data plane on each; that on a has no
// device, and programs there reach b by its proxy.
func (p *plane) buildProxy() error {
	if err := p.withHost(0, hostSpec{Addr: inner[0], Proxy: true, To: inner[1]}); err != nil {
		return err
	}
	p.socks = netip.AddrPortFrom(loopback, socksPort)
	p.ends[0].addr = netip.AddrPort{}
	p.ends[1].addr = netip.AddrPortFrom(loopback, sinkPort) // of a, for UDP
	p.ends[1].bind = netip.AddrPortFrom(inner[1], sinkPort)
	return nil
}

// withHost is buildOvnd with an endpoint without a device on one side.
func (p *plane) withHost(side int, host hostSpec) error {
	if p.setup.ipv6 {
		return errIPv4Only
	}
	p.link()
	p.mtu = encap.InnerMTU(p.setup.mtu, false)
	p.proxied, p.noICMP = true, true
	under := p.setup.under()
	for i, e := range p.ends {
		spec := switchSpec{
			Underlay: netip.AddrPortFrom(under[i], encap.VXLANPort), MTU: p.mtu, Workers: p.setup.workers, Subnet: innerSubnet,
		}
		for j := range p.ends {
			spec.Endpoints = append(spec.Endpoints, switchEndpoint{Addr: inner[j], VTEP: under[j], Local: i == j && i != side})
		}
		taps := []*lab.Host{e.host}
		if i == side {
			spec.Host, taps = &host, nil
		}
		if err := p.startSwitch(e, spec, taps); err != nil {
			return err
		}
	}
	return nil
}

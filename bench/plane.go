package bench

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/ovnd/ovnd/bench/lab"
	"github.com/ovnd/ovnd/bench/traffic"
	"github.com/ovnd/ovnd/dataplane/tun"
	"github.com/ovnd/ovnd/encap"
)

const (
	sinkPort   = 5201 // and the one after it
	iperf3Port = 5301
	benchVNI   = 4242
)

// Addresses of the hosts a and b: of the veth between them, and inside an
// overlay.
var (
	under4 = [2]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")}
	under6 = [2]netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")}
	inner  = [2]netip.Addr{netip.MustParseAddr("10.10.0.2"), netip.MustParseAddr("10.10.0.3")}

	innerSubnet = netip.MustParsePrefix("10.10.0.0/16")
)

// A setup is what all planes of a run have in common.
type setup struct {
	mtu        int  // bytes, of the underlay
	ipv6       bool // the underlay's family
	workers    int  // of ovnd's data planes; 0: their choice
	congestion string
	verify     bool
}

// under returns the underlay addresses of a and b.
func (s *setup) under() [2]netip.Addr {
	if s.ipv6 {
		return under6
	}
	return under4
}

// An end is one side of a plane: where traffic begins, or ends.
type end struct {
	host  *lab.Host
	addr  netip.AddrPort // of its sink, by way of the plane; zero if it cannot be reached
	bind  netip.AddrPort // where its sink listens; addr if it is zero
	sink  *child         // nil if it cannot be reached
	tools []*process     // the plane's own on this side; none if it is in the kernel
}

// A plane is one way from a source on one host to a sink on another, and most
// often back.
type plane struct {
	subject string
	ends    [2]*end
	mtu     int  // bytes, what the packets may have inside
	noICMP  bool // only UDP and TCP go through, or something on the way answers
	// proxied marks a plane whose program uses sockets of streams: the kernel's
	// accounts do not tell how often it called, and how much it copied.
	proxied  bool
	socks    netip.AddrPort // the proxy of the source's host; zero: none
	offloads []string

	capacity float64 // bits a second of the last TCP test; 0: not known

	lab   *lab.Lab
	setup *setup
	lost  context.Context // ended, with the cause, when a process of the plane has
	lose  context.CancelCauseFunc
	close func() // set by open
}

// A process is one whose processor time is the plane's.
type process struct {
	*lab.Process
	child *child // nil if it is another program
}

// open builds the subject's plane in a lab of its own: one that cannot be had
// here does not hinder others. It lives until close.
func open(ctx context.Context, s *setup, subject string) (*plane, error) {
	sub, ok := findSubject(subject)
	if !ok {
		return nil, fmt.Errorf("unknown subject %q", subject)
	}
	p := &plane{subject: subject, setup: s}
	p.lost, p.lose = context.WithCancelCause(context.Background())
	opened, closing, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- lab.Run(func(l *lab.Lab) error {
			p.lab = l
			if err := p.build(sub); err != nil {
				return err
			}
			close(opened)
			<-closing
			p.expectEnd()
			return nil
		})
	}()
	select {
	case <-opened:
	case err := <-ended:
		return nil, fmt.Errorf("%s: %w", subject, err)
	}
	p.close = func() {
		close(closing)
		<-ended
		p.lose(errors.New("closed"))
	}
	if err := p.settle(ctx); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *plane) build(sub subjectSpec) error {
	p.ends = [2]*end{{host: p.lab.Host("a")}, {host: p.lab.Host("b")}}
	if err := sub.build(p); err != nil {
		return err
	}
	for _, e := range p.ends {
		if !e.addr.IsValid() {
			continue
		}
		if !e.bind.IsValid() {
			e.bind = e.addr
		}
		var err error
		e.sink, err = startChild(e.host, childSpec{Sink: &traffic.SinkSpec{Listen: e.bind, Verify: p.setup.verify}})
		if err != nil {
			return err
		}
		e.sink.watch(p.lose)
	}
	return nil
}

// expectEnd says that the plane's processes end from now on because they are
// told to.
func (p *plane) expectEnd() {
	for _, e := range p.ends {
		if e.sink != nil {
			e.sink.ending.Store(true)
		}
		for _, t := range e.tools {
			if t.child != nil {
				t.child.ending.Store(true)
			}
		}
	}
}

// settle waits until the plane carries packets: handshakes and neighbour
// discovery are not what is measured.
func (p *plane) settle(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, childPatience, errors.New("no answer"))
	defer cancel()
	defer context.AfterFunc(p.lost, cancel)()
	for ctx.Err() == nil {
		if p.reaches(ctx) {
			return nil
		}
	}
	return fmt.Errorf("%s does not carry packets: %w", p.subject, p.cause(ctx))
}

// reaches reports whether a datagram comes back from the far end.
func (p *plane) reaches(ctx context.Context) bool {
	source, err := startChild(p.ends[0].host, childSpec{Source: &traffic.Spec{
		To: p.ends[1].addr, EchoInterval: 20 * time.Millisecond, EchoUDP: true,
	}})
	if err != nil {
		return false
	}
	defer source.end()
	for range 50 {
		if sleep(ctx, 20*time.Millisecond) != nil {
			return false
		}
		if c, err := source.counters(); err != nil || c.Answered > 0 {
			return err == nil
		}
	}
	return false
}

// cause says why ctx, or the plane, has ended.
func (p *plane) cause(ctx context.Context) error {
	if p.lost.Err() != nil {
		return context.Cause(p.lost)
	}
	return context.Cause(ctx)
}

// tool makes a child part of the plane.
func (p *plane) tool(e *end, c *child) {
	e.tools = append(e.tools, &process{Process: c.Process, child: c})
	c.watch(p.lose)
}

// link joins the hosts by veth.
func (p *plane) link() {
	var ends [2]lab.End
	for i, e := range p.ends {
		ends[i] = lab.End{Host: e.host, Name: "eth0", Addrs: []string{under4[i].String() + "/24", under6[i].String() + "/64"}}
	}
	p.lab.Veth(p.setup.mtu, ends[0], ends[1])
	p.offloads, _ = p.ends[0].host.Offloads("eth0") // shown, not needed
}

// reachInside says that both sinks are reached by the inner addresses.
func (p *plane) reachInside() {
	for i, e := range p.ends {
		e.addr = netip.AddrPortFrom(inner[i], sinkPort)
	}
}

// address gives a device its address inside the overlay and takes it up.
func address(h *lab.Host, dev string, addr netip.Addr) {
	h.Addr(dev, netip.PrefixFrom(addr, innerSubnet.Bits()).String())
	h.Up(dev)
}

// buildVeth is the link alone.
func (p *plane) buildVeth() error {
	p.link()
	p.mtu = p.setup.mtu
	for i, e := range p.ends {
		e.addr = netip.AddrPortFrom(p.setup.under()[i], sinkPort)
	}
	return nil
}

// buildKernel connects the hosts by VXLAN devices with static entries, as
// Docker's overlay driver does.
func (p *plane) buildKernel() error {
	p.link()
	p.mtu = encap.InnerMTU(p.setup.mtu, p.setup.ipv6)
	under := p.setup.under()
	for i, e := range p.ends {
		mac := encap.EndpointMAC(inner[i])
		e.host.VXLAN(lab.VXLAN{
			Name: "ov0", VNI: benchVNI, Local: under[i], MTU: p.mtu, MAC: mac[:],
			Addrs: []string{netip.PrefixFrom(inner[i], innerSubnet.Bits()).String()},
		})
		peer := encap.EndpointMAC(inner[1-i])
		e.host.Neigh("ov0", inner[1-i], peer[:])
		e.host.FDB("ov0", peer[:], under[1-i])
	}
	p.reachInside()
	return nil
}

// taps makes a TUN device on each of the hosts, with the given addresses. The
// queues are the caller's to close.
func (p *plane) taps(queues int, hosts []*lab.Host, addrs []netip.Addr) (files [][]*os.File, err error) {
	for i, h := range hosts {
		err = h.Do(func() error {
			fs, watcher, err := tun.Create("ov0", p.mtu, queues)
			if err != nil {
				return err
			}
			files = append(files, fs)
			return watcher.Close()
		})
		if err != nil {
			return files, err
		}
		address(h, "ov0", addrs[i])
	}
	return files, nil
}

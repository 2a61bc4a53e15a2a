package bench

import (
	"crypto/ecdh"
	"crypto/rand"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/ovnd/ovnd/bench/lab"
	"github.com/ovnd/ovnd/dataplane/tun"
	"github.com/ovnd/ovnd/encap"
)

// Names of the planes.
const (
	PlaneVeth      = "veth"       // the link alone
	PlaneKernel    = "kernel"     // kernel VXLAN devices
	PlaneWireGuard = "wireguard"  // wireguard-go
	PlaneOvnd      = "ovnd"       // two nodes
	PlaneLocal     = "ovnd-local" // one node, from one of its TUN devices to another
	PlaneVIP       = "ovnd-vip"   // the same by way of a VIP: ended and dialed anew by the balancer
)

// Planes are all planes, those that others are compared with first.
var Planes = []string{PlaneVeth, PlaneKernel, PlaneWireGuard, PlaneOvnd, PlaneLocal, PlaneVIP}

const (
	sinkPort      = 5201
	wireguardPort = 51820
	// wireguardOverhead is what WireGuard adds to a packet, over IPv6 at worst:
	// wg-quick(8) subtracts it from the underlay's MTU whatever the family.
	wireguardOverhead = 80
	benchVNI          = 4242
)

// Addresses of the hosts a and b: of the veth between them, and inside an
// overlay.
var (
	under4 = [2]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")}
	under6 = [2]netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")}
	inner  = [2]netip.Addr{netip.MustParseAddr("10.10.0.2"), netip.MustParseAddr("10.10.0.3")}

	innerSubnet = netip.MustParsePrefix("10.10.0.0/16")
)

// A plane is one way from a source on one host to a sink on another.
type plane struct {
	name   string
	host   *lab.Host      // of the source
	target netip.AddrPort // of the sink, by way of the plane
	mtu    int            // bytes, what the source's packets may have
	procs  []*child       // the plane's own processes; none if it is in the kernel
	sink   *child
}

// cpu returns the processor time of the plane's processes.
func (p *plane) cpu() (time.Duration, error) {
	var sum time.Duration
	for _, c := range p.procs {
		t, err := c.CPU()
		if err != nil {
			return 0, err
		}
		sum += t
	}
	return sum, nil
}

// A builder sets planes up in a lab.
type builder struct {
	lab  *lab.Lab
	mtu  int  // bytes, of the underlay
	ipv6 bool // the underlay's family
}

// build sets up the named plane with a sink on its far host.
func (b *builder) build(name string) (*plane, error) {
	hosts := [2]*lab.Host{b.lab.Host(name + "-a"), b.lab.Host(name + "-b")}
	p := &plane{name: name, host: hosts[0], target: netip.AddrPortFrom(inner[1], sinkPort)}
	if name != PlaneLocal && name != PlaneVIP {
		ends := [2]lab.End{}
		for i, h := range hosts {
			ends[i] = lab.End{Host: h, Name: "eth0", Addrs: []string{under4[i].String() + "/24", under6[i].String() + "/64"}}
		}
		b.lab.Veth(b.mtu, ends[0], ends[1])
	}
	var err error
	var listen netip.AddrPort // of the sink; the target if it is zero
	switch name {
	case PlaneVeth:
		p.mtu, p.target = b.mtu, netip.AddrPortFrom(b.under()[1], sinkPort)
	case PlaneKernel:
		b.kernel(p, hosts)
	case PlaneWireGuard:
		err = b.wireguard(p, hosts)
	case PlaneOvnd:
		err = b.ovnd(p, hosts)
	case PlaneLocal:
		err = b.local(p, hosts, nil)
	case PlaneVIP:
		listen = p.target
		p.target = netip.AddrPortFrom(innerVIP, sinkPort)
		err = b.local(p, hosts, &vipSpec{VIP: innerVIP, Balancer: innerLB, Backend: inner[1]})
	default:
		err = fmt.Errorf("unknown plane %q: choose from %v", name, Planes)
	}
	if err != nil {
		return nil, fmt.Errorf("plane %s: %w", name, err)
	}
	if !listen.IsValid() {
		listen = p.target
	}
	p.sink, err = startChild(hosts[1], childSpec{Sink: &sinkSpec{Listen: listen}})
	return p, err
}

// under returns the underlay addresses of a and b.
func (b *builder) under() [2]netip.Addr {
	if b.ipv6 {
		return under6
	}
	return under4
}

// address gives a device its address inside the overlay and takes it up.
func address(h *lab.Host, dev string, i int) {
	h.Addr(dev, netip.PrefixFrom(inner[i], innerSubnet.Bits()).String())
	h.Up(dev)
}

// kernel connects the hosts by VXLAN devices with static entries, as Docker's
// overlay driver does.
func (b *builder) kernel(p *plane, hosts [2]*lab.Host) {
	p.mtu = encap.InnerMTU(b.mtu, b.ipv6)
	for i, h := range hosts {
		mac := encap.EndpointMAC(inner[i])
		h.VXLAN(lab.VXLAN{
			Name: "ov0", VNI: benchVNI, Local: b.under()[i], MTU: p.mtu, MAC: mac[:],
			Addrs: []string{netip.PrefixFrom(inner[i], innerSubnet.Bits()).String()},
		})
		peer := encap.EndpointMAC(inner[1-i])
		h.Neigh("ov0", inner[1-i], peer[:])
		h.FDB("ov0", peer[:], b.under()[1-i])
	}
}

func (b *builder) wireguard(p *plane, hosts [2]*lab.Host) error {
	p.mtu = b.mtu - wireguardOverhead
	var keys [2]*ecdh.PrivateKey
	for i := range keys {
		var err error
		if keys[i], err = ecdh.X25519().GenerateKey(rand.Reader); err != nil {
			return err
		}
	}
	for i, h := range hosts {
		c, err := startChild(h, childSpec{WireGuard: &wireguardSpec{
			Name: "ov0", MTU: p.mtu, Port: wireguardPort,
			PrivateKey: keys[i].Bytes(), PeerKey: keys[1-i].PublicKey().Bytes(),
			Peer: netip.AddrPortFrom(b.under()[1-i], wireguardPort),
		}})
		if err != nil {
			return err
		}
		p.procs = append(p.procs, c)
		address(h, "ov0", i)
	}
	return nil
}

// ovnd connects the hosts by a node's data plane on each.
func (b *builder) ovnd(p *plane, hosts [2]*lab.Host) error {
	p.mtu = encap.InnerMTU(b.mtu, b.ipv6)
	for i, h := range hosts {
		spec := switchSpec{Underlay: netip.AddrPortFrom(b.under()[i], encap.VXLANPort), MTU: p.mtu}
		for j := range hosts {
			spec.Endpoints = append(spec.Endpoints, switchEndpoint{Addr: inner[j], VTEP: b.under()[j], Local: i == j})
		}
		if err := b.startSwitch(p, h, spec, []*lab.Host{h}, i); err != nil {
			return err
		}
	}
	return nil
}

// local connects the hosts by one data plane with a TUN device on each, and with a
// balancer if vip is not nil.
func (b *builder) local(p *plane, hosts [2]*lab.Host, vip *vipSpec) error {
	p.mtu = encap.InnerMTU(b.mtu, false)
	loopback := netip.MustParseAddr("127.0.0.1")
	spec := switchSpec{Underlay: netip.AddrPortFrom(loopback, encap.VXLANPort), MTU: p.mtu, VIP: vip}
	for j := range hosts {
		spec.Endpoints = append(spec.Endpoints, switchEndpoint{Addr: inner[j], VTEP: loopback, Local: true})
	}
	return b.startSwitch(p, hosts[0], spec, hosts[:], 0)
}

// startSwitch starts a data plane on h, which gets a TUN device of each of the
// given hosts, in the order of the specification's local endpoints. The first of
// them has the inner address number first.
func (b *builder) startSwitch(p *plane, h *lab.Host, spec switchSpec, taps []*lab.Host, first int) error {
	var files []*os.File
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	for i, tap := range taps {
		err := tap.Do(func() error {
			queues, watcher, err := tun.Create("ov0", p.mtu, 1)
			if err != nil {
				return err
			}
			files = append(files, queues...)
			return watcher.Close()
		})
		if err != nil {
			return err
		}
		address(tap, "ov0", first+i)
	}
	c, err := startChild(h, childSpec{Switch: &spec}, files...)
	if err != nil {
		return err
	}
	p.procs = append(p.procs, c)
	return nil
}

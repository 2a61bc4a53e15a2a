package bench

import (
	"net/netip"
	"os"

	"github.com/ovnd/ovnd/bench/lab"
	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/encap"
)

// buildOvnd connects the hosts by a node's data plane on each.
func (p *plane) buildOvnd() error {
	p.link()
	p.mtu = encap.InnerMTU(p.setup.mtu, p.setup.ipv6)
	under := p.setup.under()
	for i, e := range p.ends {
		spec := switchSpec{
			Underlay: netip.AddrPortFrom(under[i], encap.VXLANPort), MTU: p.mtu, Workers: p.setup.workers, Subnet: innerSubnet,
		}
		for j := range p.ends {
			spec.Endpoints = append(spec.Endpoints, switchEndpoint{Addr: inner[j], VTEP: under[j], Local: i == j})
		}
		if err := p.startSwitch(e, spec, []*lab.Host{e.host}); err != nil {
			return err
		}
	}
	p.reachInside()
	return nil
}

// buildChaCha and buildAES connect the hosts by encrypted networks.
func (p *plane) buildChaCha() error { return p.buildSealed(directory.ChaCha20Poly1305) }
func (p *plane) buildAES() error    { return p.buildSealed(directory.AES256GCM) }

func (p *plane) buildSealed(cipher directory.Cipher) error {
	nodes := []string{"node-a", "node-b"}
	sealed, err := sealedSpecs(cipher, nodes...)
	if err != nil {
		return err
	}
	p.link()
	p.mtu = encap.EncryptedInnerMTU(p.setup.mtu, p.setup.ipv6)
	under := p.setup.under()
	for i, e := range p.ends {
		spec := switchSpec{
			Underlay: netip.AddrPortFrom(under[i], encap.VXLANPort), MTU: p.mtu, Workers: p.setup.workers, Subnet: innerSubnet,
			Sealed: sealed[i],
		}
		for j := range p.ends {
			spec.Endpoints = append(spec.Endpoints, switchEndpoint{Addr: inner[j], VTEP: under[j], Local: i == j, Owner: nodes[j]})
		}
		if err := p.startSwitch(e, spec, []*lab.Host{e.host}); err != nil {
			return err
		}
	}
	p.reachInside()
	return p.introduce()
}

// introduce tells the nodes of each other, as gossip would.
func (p *plane) introduce() error {
	var says [2]string
	for i, e := range p.ends {
		r, err := e.tools[0].child.ask("try identity", childPatience)
		if err != nil {
			return err
		}
		says[i] = r.Text
	}
	for i, e := range p.ends {
		if _, err := e.tools[0].child.ask("try meet "+says[1-i], childPatience); err != nil {
			return err
		}
	}
	return nil
}

// buildLocal connects the hosts by one data plane with a TUN device on each.
func (p *plane) buildLocal() error { return p.oneNode(nil) }

// buildVIP is buildLocal with a balancer, which picks the backend of each
// connection.
func (p *plane) buildVIP() error { return p.byVIP(directory.Direct) }

// buildProxiedVIP is buildVIP where connections end in the balancer and are dialed
// anew.
func (p *plane) buildProxiedVIP() error { return p.byVIP(directory.Proxied) }

func (p *plane) byVIP(way directory.Way) error {
	if err := p.oneNode(&vipSpec{VIP: innerVIP, Balancer: innerLB, Backend: inner[1], Way: way}); err != nil {
		return err
	}
	p.ends[0].addr = netip.AddrPort{} // it has no VIP of its own
	p.ends[1].bind = p.ends[1].addr
	p.ends[1].addr = netip.AddrPortFrom(innerVIP, sinkPort)
	p.noICMP = true // the balancer would answer by itself
	return nil
}

func (p *plane) oneNode(vip *vipSpec) error {
	p.mtu = encap.InnerMTU(p.setup.mtu, false)
	loopback := netip.MustParseAddr("127.0.0.1")
	spec := switchSpec{
		Underlay: netip.AddrPortFrom(loopback, encap.VXLANPort), MTU: p.mtu, Workers: p.setup.workers, Subnet: innerSubnet, VIP: vip,
	}
	hosts := make([]*lab.Host, 0, len(p.ends))
	for i, e := range p.ends {
		spec.Endpoints = append(spec.Endpoints, switchEndpoint{Addr: inner[i], VTEP: loopback, Local: true})
		hosts = append(hosts, e.host)
	}
	p.reachInside()
	return p.startSwitch(p.ends[0], spec, hosts)
}

// buildEgress has a sandbox reach host b by way of a node on host a, whose
// gateway dials from there: what slirp4netns and pasta do.
func (p *plane) buildEgress() error {
	sandbox, err := p.behindA()
	if err != nil {
		return err
	}
	spec := switchSpec{
		Underlay: netip.AddrPortFrom(p.setup.under()[0], encap.VXLANPort), MTU: p.mtu, Workers: p.setup.workers,
		Subnet: innerSubnet, Gateway: innerGateway,
		Endpoints: []switchEndpoint{{Addr: inner[0], VTEP: p.setup.under()[0], Local: true}},
	}
	node := p.ends[0]
	if err := p.startSwitch(node, spec, []*lab.Host{sandbox}); err != nil {
		return err
	}
	sandbox.Route("0.0.0.0/0", "ov0", innerGateway)
	p.moveSource(sandbox)
	return nil
}

// behindA links the hosts and makes another one that is to reach b by way of a
// program on a.
func (p *plane) behindA() (*lab.Host, error) {
	if p.setup.ipv6 {
		return nil, errIPv4Only
	}
	p.link()
	p.mtu, p.proxied = p.setup.mtu, true
	p.noICMP = true // whether ping goes through depends on the machine's settings
	under := p.setup.under()
	p.ends[0].host.Route("0.0.0.0/0", "eth0", under[1])
	p.ends[1].addr = netip.AddrPortFrom(under[1], sinkPort)
	return p.lab.Host("sandbox"), nil
}

// moveSource has the traffic begin at the sandbox. Nothing reaches it from b.
func (p *plane) moveSource(sandbox *lab.Host) {
	p.ends[0].host = sandbox
}

// startSwitch starts a data plane at an end, which gets a TUN device of each of the
// given hosts, in the order of the specification's local endpoints.
func (p *plane) startSwitch(e *end, spec switchSpec, taps []*lab.Host) error {
	var addrs []netip.Addr
	for _, ep := range spec.Endpoints {
		if ep.Local {
			addrs = append(addrs, ep.Addr)
		}
	}
	spec.Queues = max(spec.Workers, 1)
	byHost, err := p.taps(spec.Queues, taps, addrs)
	var files []*os.File
	for _, queues := range byHost {
		files = append(files, queues...)
	}
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	if err != nil {
		return err
	}
	c, err := startChild(e.host, childSpec{Switch: &spec}, files...)
	if err != nil {
		return err
	}
	p.tool(e, c)
	return nil
}

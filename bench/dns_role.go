package bench

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"github.com/miekg/dns"

	"github.com/ovnd/ovnd/bench/traffic"
	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/discovery/resolver"
)

const (
	dnsServices = 50
	dnsTasks    = 3 // of each service
	dnsName     = "service-7"
	dnsReverse  = "10.7.10.10.in-addr.arpa"
	dnsOutside  = "www.example.com"
)

// A dnsSpec is a name server: a resolver as a node has it, or the upstream of
// one.
type dnsSpec struct {
	Listen   netip.AddrPort `json:"listen"`
	Upstream bool           `json:"upstream,omitempty"`
	Forward  netip.AddrPort `json:"forward"` // where the resolver asks
}

type dnsRole struct{ spec dnsSpec }

func (r *dnsRole) run(ctx context.Context, ready func()) error {
	udp, err := net.ListenPacket("udp", r.spec.Listen.String())
	if err != nil {
		return err
	}
	if r.spec.Upstream {
		ready()
		return serveUpstream(ctx, udp)
	}
	tcp, err := net.Listen("tcp", r.spec.Listen.String())
	if err != nil {
		_ = udp.Close()
		return err
	}
	ready()
	return ServeDNS(ctx, r.spec.Forward, udp, tcp)
}

func (*dnsRole) counters() traffic.Counters { return traffic.Counters{} }

// ServeDNS serves the resolver that RunDNS measures, so that other programs can
// measure it too, until ctx ends. It owns the sockets.
func ServeDNS(ctx context.Context, upstream netip.AddrPort, udp net.PacketConn, tcp net.Listener) error {
	store := directory.NewStore()
	snap := dnsSnapshot()
	store.Publish(snap)
	srv := resolver.New(resolver.Config{
		Store:     store,
		Upstreams: func() []netip.AddrPort { return []netip.AddrPort{upstream} },
	})
	return srv.Serve(ctx, resolver.Scope{Networks: []string{snap.ID}}, udp, tcp)
}

// dnsSnapshot is a network with dnsServices services: service-N has the VIP
// 10.10.N.2 and its tasks 10.10.N.10 and up.
func dnsSnapshot() *directory.Snapshot {
	snap := &directory.Snapshot{
		Version: 1, ID: "bench", Name: "bench", VNI: benchVNI,
		Subnets: []directory.Subnet{{Prefix: innerSubnet}},
	}
	for service := range dnsServices {
		for slot := range dnsTasks {
			name := fmt.Sprintf("service-%d", service)
			addr := netip.AddrFrom4([4]byte{10, 10, byte(service), byte(10 + slot)})
			snap.Endpoints = snap.Endpoints.With(addr, &directory.Endpoint{
				ID: addr.String(), Name: fmt.Sprintf("%s.%d.task", name, slot+1), Addr: addr,
				ServiceID: name, ServiceName: name, VIP: netip.AddrFrom4([4]byte{10, 10, byte(service), 2}),
			})
		}
	}
	snap.Services, snap.VIPs = directory.Services(snap.Endpoints)
	return snap
}

// serveUpstream answers every question with one address.
func serveUpstream(ctx context.Context, udp net.PacketConn) error {
	stop := context.AfterFunc(ctx, func() { _ = udp.Close() })
	defer stop()
	in := make([]byte, dns.MaxMsgSize)
	for {
		n, from, err := udp.ReadFrom(in)
		if err != nil {
			return err
		}
		q := new(dns.Msg)
		if err := q.Unpack(in[:n]); err != nil || len(q.Question) != 1 {
			continue
		}
		m := new(dns.Msg).SetReply(q)
		m.Answer = []dns.RR{&dns.A{
			Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 300},
			A:   net.IPv4(192, 0, 2, 80),
		}}
		if wire, err := m.Pack(); err == nil {
			_, _ = udp.WriteTo(wire, from)
		}
	}
}

package resolver

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/miekg/dns"

	"github.com/ovnd/ovnd/discovery/directory"
)

// service answers a question about _PORT._PROTO.NAME; nil if that is no name of
// a service here. Other types than SRV, and ports that the service does not
// publish, get an empty answer.
func (c *client) service(q *query, networks []*index) *dns.Msg {
	port, rest, _ := strings.Cut(q.name, ".")
	proto, name, ok := strings.Cut(rest, ".")
	if !ok || !strings.HasPrefix(port, "_") || !strings.HasPrefix(proto, "_") {
		return nil
	}
	r, on := find(networks, name)
	if r == nil || len(r.services) == 0 {
		return nil
	}
	reply := q.reply()
	if q.q.Qtype == dns.TypeSRV || q.q.Qtype == dns.TypeANY {
		asked := q.q.Name[len(q.q.Name)-len(name)-1:] // as the client writes it
		for _, svc := range r.services {
			for _, p := range c.ports(svc.ID, port[1:], proto[1:]) {
				q.addService(reply, svc, p, r.tasks, asked, on)
			}
		}
	}
	return withSOA(reply, on.snap.Version)
}

// ports returns the ports of the service that go by that name or target number
// and protocol. Only the ingress network has them.
func (c *client) ports(serviceID, name, proto string) []directory.Port {
	var out []directory.Port
	for _, snap := range c.s.cfg.Store.Networks() {
		svc := snap.Services.At(serviceID)
		if !snap.Ingress || svc == nil {
			continue
		}
		for _, p := range svc.Ports {
			named := strings.EqualFold(p.Name, name) || strconv.Itoa(int(p.Target)) == name
			if named && p.Protocol.String() == proto {
				out = append(out, p)
			}
		}
	}
	return out
}

// addService adds the records of one port: one that points at asked, which is
// the service's VIP, or one for each task.
func (q *query) addService(reply *dns.Msg, svc *directory.Service, p directory.Port, tasks bool, asked string, on *index) {
	if svc.VIP.IsValid() && !tasks {
		addTarget(reply, asked, p.Target, svc.VIP)
		return
	}
	for i, ep := range shuffled(svc.Backends) {
		if target, ok := on.reverse[ep.Addr]; ok && i < q.mostRecords() {
			addTarget(reply, target, p.Target, ep.Addr)
		}
	}
}

// addTarget adds a SRV record and the address of its target.
func addTarget(reply *dns.Msg, target string, port uint16, addr netip.Addr) {
	reply.Answer = append(reply.Answer, &dns.SRV{
		Hdr:  dns.RR_Header{Name: reply.Question[0].Name, Rrtype: dns.TypeSRV, Class: dns.ClassINET, Ttl: ttl},
		Port: port, Target: target,
	})
	reply.Extra = append(reply.Extra, addressRecords(target, dns.TypeANY, []netip.Addr{addr}, 1)...)
}

package directory

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
)

// A Service is a service as one network sees it. It is part of a snapshot and
// as immutable.
type Service struct {
	ID, Name string
	VIP      netip.Addr // virtual address on this network; the zero Addr: dnsrr
	Way      Way        // how connections to VIP are carried
	Aliases  []string   // further names of the service, sorted
	// Ports are those published in ingress mode, on the ingress network only,
	// sorted by published port and protocol, of which each pair stands once. While
	// an update is under way a backend may have another target for the same
	// published port: [Endpoint.Target] says which.
	Ports []Port

	Backends []*Endpoint // take new connections; sorted by Addr
	Draining []*Endpoint // keep the connections that they have; sorted by Addr

	claim netip.Addr // VIP that it has unless another service does; see Builder.award
}

// A Protocol is a transport protocol of a published port. The numbers are those
// of libnetwork's and SwarmKit's records.
type Protocol uint8

// The protocols that a port can be published for.
const (
	TCP Protocol = iota
	UDP
	SCTP
)

// String returns "tcp", "udp" or "sctp".
func (p Protocol) String() string {
	switch p {
	case TCP:
		return "tcp"
	case UDP:
		return "udp"
	case SCTP:
		return "sctp"
	}
	return fmt.Sprintf("protocol %d", uint8(p))
}

// A Port is a port of a service that can be reached from outside the network.
type Port struct {
	Name      string
	Protocol  Protocol
	Target    uint16 // at which the tasks listen
	Published uint16 // on the nodes
}

// Services returns the services that the endpoints of one network serve, by ID,
// and those that have a VIP by that. Pending endpoints and load balancers serve
// none. [Builder] does it change by change.
//
// Endpoints of one service that say different things about it, as they do while
// an update replaces them one by one, are settled the same way on all nodes: by
// the endpoint that takes new connections and has the smallest address; aliases
// and published ports are those of all that take new connections. A VIP that two
// services claim goes to the one with the smaller ID, and one that is the
// address of an endpoint to nobody.
func Services(endpoints Map[netip.Addr, *Endpoint]) (byID Map[string, *Service], byVIP Map[netip.Addr, *Service]) {
	b := NewBuilder(endpoints.Len())
	for _, ep := range endpoints.All() {
		b.Set(ep)
	}
	b.settle()
	return b.services.Map(), b.vips.Map()
}

// settle fills in what the endpoints of s say about it, and which VIP it claims.
func (s *Service) settle(endpoints *Editor[netip.Addr, *Endpoint]) {
	byAddr := func(a, b *Endpoint) int { return a.Addr.Compare(b.Addr) }
	slices.SortFunc(s.Backends, byAddr)
	slices.SortFunc(s.Draining, byAddr)
	says := s.Backends
	if len(says) == 0 {
		says = s.Draining
	}
	s.Name, s.Way = says[0].ServiceName, says[0].Way
	for _, ep := range says {
		s.Aliases = append(s.Aliases, ep.Aliases...)
		s.addPorts(ep.Ports)
	}
	slices.Sort(s.Aliases)
	s.Aliases = slices.Compact(s.Aliases)
	slices.SortFunc(s.Ports, comparePorts)

	// The VIP stays while anybody holds on to it: connections go through it.
	for _, list := range [][]*Endpoint{s.Backends, s.Draining} {
		for _, ep := range list {
			if _, taken := endpoints.Get(ep.VIP); ep.VIP.IsValid() && !taken {
				s.claim = ep.VIP
				return
			}
		}
	}
}

// named returns the virtual addresses that the endpoints of s name, sorted, each
// once. s may be nil.
func (s *Service) named() (vips []netip.Addr) {
	if s == nil {
		return nil
	}
	for _, list := range [][]*Endpoint{s.Backends, s.Draining} {
		for _, ep := range list {
			if ep.VIP.IsValid() && (len(vips) == 0 || ep.VIP != vips[len(vips)-1]) {
				vips = append(vips, ep.VIP)
			}
		}
	}
	slices.SortFunc(vips, netip.Addr.Compare)
	return slices.Compact(vips)
}

// addPorts adds the ports that are not published yet.
func (s *Service) addPorts(ports []Port) {
	for _, p := range ports {
		if !slices.ContainsFunc(s.Ports, func(q Port) bool { return comparePorts(p, q) == 0 }) {
			s.Ports = append(s.Ports, p)
		}
	}
}

// comparePorts orders ports by what clients use.
func comparePorts(a, b Port) int {
	return cmp.Or(cmp.Compare(a.Published, b.Published), cmp.Compare(a.Protocol, b.Protocol))
}

// Target returns the port at which the endpoint serves what its service
// publishes as p, and whether it does.
func (ep *Endpoint) Target(p Port) (target uint16, ok bool) {
	for _, own := range ep.Ports {
		if comparePorts(own, p) == 0 {
			return own.Target, true
		}
	}
	return 0, false
}

// SortedServices returns the services of the network, sorted by name.
func (s *Snapshot) SortedServices() []*Service {
	return slices.SortedFunc(s.Services.Values(), func(a, b *Service) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
}

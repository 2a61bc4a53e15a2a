package directory

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
)

// A Service is a service as one network sees it. It is part of a snapshot and
// as immutable.
type Service struct {
	ID, Name string
	VIP      netip.Addr // virtual address on this network; the zero Addr: dnsrr
	Aliases  []string   // further names of the service, sorted
	// Ports are those published in ingress mode, on the ingress network only,
	// sorted by published port and protocol, of which each pair stands once. While
	// an update is under way a backend may have another target for the same
	// published port: [Endpoint.Target] says which.
	Ports []Port

	Backends []*Endpoint // take new connections; sorted by Addr
	Draining []*Endpoint // keep the connections that they have; sorted by Addr
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
// none.
//
// Endpoints of one service that say different things about it, as they do while
// an update replaces them one by one, are settled the same way on all nodes: by
// the endpoint that takes new connections and has the smallest address; aliases
// and published ports are those of all that take new connections. A VIP that two
// services claim goes to the one with the smaller ID, and one that is the
// address of an endpoint to nobody.
func Services(endpoints map[netip.Addr]*Endpoint) (byID map[string]*Service, byVIP map[netip.Addr]*Service) {
	byID = make(map[string]*Service)
	byVIP = make(map[netip.Addr]*Service)
	for _, ep := range endpoints {
		if ep.ServiceID == "" || ep.Pending || ep.Kind != Task {
			continue
		}
		s := byID[ep.ServiceID]
		if s == nil {
			s = &Service{ID: ep.ServiceID}
			byID[ep.ServiceID] = s
		}
		if ep.Disabled {
			s.Draining = append(s.Draining, ep)
		} else {
			s.Backends = append(s.Backends, ep)
		}
	}
	for _, s := range byID {
		s.settle(endpoints)
		if !s.VIP.IsValid() {
			continue
		}
		if rival, claimed := byVIP[s.VIP]; !claimed || s.ID < rival.ID {
			byVIP[s.VIP] = s
		}
	}
	for _, s := range byID {
		if byVIP[s.VIP] != s {
			s.VIP = netip.Addr{}
		}
	}
	return byID, byVIP
}

// settle fills in what the endpoints of s say about it.
func (s *Service) settle(endpoints map[netip.Addr]*Endpoint) {
	byAddr := func(a, b *Endpoint) int { return a.Addr.Compare(b.Addr) }
	slices.SortFunc(s.Backends, byAddr)
	slices.SortFunc(s.Draining, byAddr)
	says := s.Backends
	if len(says) == 0 {
		says = s.Draining
	}
	s.Name = says[0].ServiceName
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
			if _, taken := endpoints[ep.VIP]; ep.VIP.IsValid() && !taken {
				s.VIP = ep.VIP
				return
			}
		}
	}
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
	return slices.SortedFunc(maps.Values(s.Services), func(a, b *Service) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
}

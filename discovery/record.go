package discovery

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"unicode"

	"google.golang.org/protobuf/proto"

	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/discovery/records"
	"github.com/ovnd/ovnd/encap"
)

// The NetworkDB tables of libnetwork. Entries are keyed by endpoint ID.
const (
	endpointTable = "endpoint_table"     // records.EndpointRecord
	peerTable     = "overlay_peer_table" // records.PeerRecord
)

// Bounds of what one record may hold. Gossip sends records of up to 1,400 bytes,
// a bulk sync larger ones.
const (
	maxRecord  = 16 << 10 // bytes
	maxString  = 255      // bytes in one name or ID
	maxAliases = 128      // names in one list
	maxPorts   = 1024     // published by one service
)

// A place is where an endpoint is: its entry in the peer table.
type place struct {
	raw    []byte // the record as it came
	cached bool   // remembered from the last run, not confirmed by gossip yet
	addr   netip.Addr
	mac    encap.MAC
	vtep   netip.Addr
	claim  *signedClaim // who says so, on an encrypted network
}

// A naming is what an endpoint is called: its entry in the endpoint table.
type naming struct {
	raw    []byte // the record as it came
	cached bool   // remembered from the last run, not confirmed by gossip yet
	ep     directory.Endpoint
}

// unmarshalPeer reads an entry of the peer table.
func unmarshalPeer(b []byte) (*records.PeerRecord, error) {
	if len(b) > maxRecord {
		return nil, fmt.Errorf("peer record of %d bytes", len(b))
	}
	r := new(records.PeerRecord)
	if err := proto.Unmarshal(b, r); err != nil {
		return nil, fmt.Errorf("peer record: %w", err)
	}
	return r, nil
}

// parsePlace checks the place in a peer record, which came as b. The result keeps
// b.
func parsePlace(r *records.PeerRecord, b []byte) (*place, error) {
	prefix, err := netip.ParsePrefix(r.EndpointIp)
	if err != nil {
		return nil, fmt.Errorf("peer record: endpoint address: %w", err)
	}
	p := &place{raw: b, addr: prefix.Addr().Unmap()}
	if !isHost(p.addr) {
		return nil, fmt.Errorf("peer record: %s is not the address of one endpoint", p.addr)
	}
	if p.mac, err = directory.ParseUnicastMAC(r.EndpointMac); err != nil {
		return nil, fmt.Errorf("peer record: %w", err)
	}
	if p.vtep, err = netip.ParseAddr(r.TunnelEndpointIp); err != nil {
		return nil, fmt.Errorf("peer record: VTEP: %w", err)
	}
	p.vtep = p.vtep.Unmap()
	if !isHost(p.vtep) {
		return nil, fmt.Errorf("peer record: VTEP %s is not the address of one node", p.vtep)
	}
	return p, nil
}

// isHost reports whether a can be the address of one interface.
func isHost(a netip.Addr) bool {
	return a.IsValid() && !a.IsUnspecified() && !a.IsMulticast() && a.Zone() == "" &&
		a != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// putPlace encodes the peer record of a local endpoint; bits is the prefix
// length of its subnet.
func putPlace(ep *directory.Endpoint, bits int) ([]byte, error) {
	return proto.Marshal(&records.PeerRecord{
		EndpointIp:       prefixOf(ep.Addr, bits),
		EndpointMac:      ep.MAC.String(),
		TunnelEndpointIp: ep.VTEP.String(),
	})
}

// prefixOf writes an address with the prefix length of its subnet.
func prefixOf(addr netip.Addr, bits int) string { return netip.PrefixFrom(addr, bits).String() }

// parseNaming reads and checks an entry of the endpoint table. The result keeps
// b.
func parseNaming(b []byte) (*naming, error) {
	if len(b) > maxRecord {
		return nil, fmt.Errorf("endpoint record of %d bytes", len(b))
	}
	var r records.EndpointRecord
	if err := proto.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("endpoint record: %w", err)
	}
	addr, err := netip.ParseAddr(r.EndpointIp)
	if err != nil {
		return nil, fmt.Errorf("endpoint record: address: %w", err)
	}
	if r.Name == "" {
		return nil, errors.New("endpoint record without a name")
	}
	if err := checkNames(r.Name, r.ServiceId, r.ServiceName); err != nil {
		return nil, err
	}
	for _, list := range [][]string{r.Aliases, r.TaskAliases} {
		if len(list) > maxAliases {
			return nil, fmt.Errorf("endpoint record with %d aliases", len(list))
		}
		if err := checkNames(list...); err != nil {
			return nil, err
		}
	}
	ports, err := parsePorts(r.IngressPorts)
	if err != nil {
		return nil, err
	}
	// Docker writes "<nil>" where a service has no address of its own.
	vip, _ := netip.ParseAddr(r.VirtualIp)
	if vip = vip.Unmap(); !isHost(vip) {
		vip = netip.Addr{}
	}
	return &naming{raw: b, ep: directory.Endpoint{
		Name:        r.Name,
		Addr:        addr.Unmap(),
		ServiceID:   r.ServiceId,
		ServiceName: r.ServiceName,
		VIP:         vip,
		Aliases:     r.Aliases,
		TaskAliases: r.TaskAliases,
		Disabled:    r.ServiceDisabled,
		Way:         wayOf(r.VipWay),
		Ports:       ports,
	}}, nil
}

// parsePorts checks the published ports of a record.
func parsePorts(in []*records.PortConfig) (ports []directory.Port, err error) {
	if len(in) > maxPorts {
		return nil, fmt.Errorf("endpoint record with %d ports", len(in))
	}
	for _, p := range in {
		if err := checkNames(p.Name); err != nil {
			return nil, err
		}
		if p.Protocol < records.PortConfig_TCP || p.Protocol > records.PortConfig_SCTP {
			return nil, fmt.Errorf("endpoint record with a port of protocol %d", p.Protocol)
		}
		if p.TargetPort == 0 || p.TargetPort > math.MaxUint16 || p.PublishedPort == 0 || p.PublishedPort > math.MaxUint16 {
			return nil, fmt.Errorf("endpoint record with port %d published as %d", p.TargetPort, p.PublishedPort)
		}
		ports = append(ports, directory.Port{
			Name:      p.Name,
			Protocol:  directory.Protocol(p.Protocol),
			Target:    uint16(p.TargetPort),
			Published: uint16(p.PublishedPort),
		})
	}
	return ports, nil
}

// wayOf reads the way of a service's connections: one that a later version has is
// the default here.
func wayOf(w records.EndpointRecord_VIPWay) directory.Way {
	if w < records.EndpointRecord_DEFAULT || w > records.EndpointRecord_DIRECT {
		return directory.DefaultWay
	}
	return directory.Way(w)
}

// checkNames refuses names that would not survive being printed or logged.
// Which of them make good DNS names is for DNS to say.
func checkNames(names ...string) error {
	for _, s := range names {
		if len(s) > maxString {
			return fmt.Errorf("endpoint record with a name of %d bytes", len(s))
		}
		if strings.ContainsFunc(s, func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) }) {
			return fmt.Errorf("endpoint record with the name %q", s)
		}
	}
	return nil
}

// putNaming encodes the endpoint record of a local endpoint.
func putNaming(ep *directory.Endpoint) ([]byte, error) {
	r := &records.EndpointRecord{
		Name:            ep.Name,
		ServiceName:     ep.ServiceName,
		ServiceId:       ep.ServiceID,
		EndpointIp:      ep.Addr.String(),
		Aliases:         ep.Aliases,
		TaskAliases:     ep.TaskAliases,
		ServiceDisabled: ep.Disabled,
		VipWay:          records.EndpointRecord_VIPWay(ep.Way),
	}
	if ep.VIP.IsValid() {
		r.VirtualIp = ep.VIP.String()
	}
	for _, p := range ep.Ports {
		r.IngressPorts = append(r.IngressPorts, &records.PortConfig{
			Name:          p.Name,
			Protocol:      records.PortConfig_Protocol(p.Protocol),
			TargetPort:    uint32(p.Target),
			PublishedPort: uint32(p.Published),
		})
	}
	return proto.Marshal(r)
}

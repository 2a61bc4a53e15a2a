package dataplane

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/ovnd/ovnd/dataplane/vip"
)

// Stats is the account of a switch since it was made. Packets are wire packets:
// each that a super-packet stands for counts. Bytes are those of inner IP
// packets.
type Stats struct {
	Underlay netip.AddrPort `json:"underlay"`
	Total    Ledger         `json:"total"`
	// ReceiveOverflow counts what the kernel dropped before the switch saw it,
	// since a receive buffer was full: datagrams, or runs of them that arrived
	// as one super-packet.
	ReceiveOverflow uint64         `json:"receive_overflow"`
	Networks        []NetworkStats `json:"networks"`
	Ports           []PortStats    `json:"ports"`
	Peers           []PeerStats    `json:"peers"`
	VIPs            vip.Stats      `json:"vips"` // flows to VIPs that the switch carries
}

// Count is a number of packets and of bytes.
type Count struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// A Ledger accounts for every packet. When nothing is under way,
//
//	PortIn + WireIn + Originated = PortOut + WireOut + Consumed + Σ Drops + Held
type Ledger struct {
	PortIn     Count             `json:"port_in"`    // from sandboxes
	WireIn     Count             `json:"wire_in"`    // from the underlay
	Originated Count             `json:"originated"` // made here: ARP, ND, ICMP errors
	PortOut    Count             `json:"port_out"`   // to sandboxes
	WireOut    Count             `json:"wire_out"`   // to the underlay
	Consumed   Count             `json:"consumed"`   // ARP and ND that was for the switch
	Held       uint64            `json:"held"`       // waits until its destination is learned
	Drops      map[string]uint64 `json:"drops"`      // by reason; those that are not zero
}

// Dropped returns the number of packets dropped for any reason.
func (l Ledger) Dropped() (n uint64) {
	for _, d := range l.Drops {
		n += d
	}
	return n
}

// Closed reports whether the ledger's equation holds.
func (l Ledger) Closed() bool {
	return l.PortIn.Packets+l.WireIn.Packets+l.Originated.Packets ==
		l.PortOut.Packets+l.WireOut.Packets+l.Consumed.Packets+l.Dropped()+l.Held
}

// NetworkStats is the account of one network.
type NetworkStats struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	VNI    uint32 `json:"vni"`
	MTU    int    `json:"mtu"`
	Ledger Ledger `json:"ledger"`
}

// PortStats is the traffic of one port, as its sandbox sees it: Out was sent by
// the sandbox, In delivered to it. Dropped holds both what it sent and what
// could not be delivered.
type PortStats struct {
	NetworkID  string       `json:"network_id"`
	EndpointID string       `json:"endpoint_id"`
	Name       string       `json:"name"`
	Addrs      []netip.Addr `json:"addrs"`
	MTU        int          `json:"mtu"`
	In         Count        `json:"in"`
	Out        Count        `json:"out"`
	Dropped    uint64       `json:"dropped"`
}

// PeerStats is the traffic with one VTEP. In counts what arrived, before it was
// checked.
type PeerStats struct {
	VTEP netip.Addr `json:"vtep"`
	In   Count      `json:"in"`
	Out  Count      `json:"out"`
}

// Stats returns the account. While traffic flows its numbers are not of one
// moment.
func (s *Switch) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stats{Underlay: s.local, VIPs: s.services.tables.Stats()}
	total := sum(s.stray)
	held := 0
	for id, a := range s.accounts {
		l := sum(a.ledgers)
		waiting := a.waits()
		total.merge(l)
		held += waiting
		if snap := s.nets[id]; snap != nil {
			st.Networks = append(st.Networks, NetworkStats{
				ID: id, Name: snap.Name, VNI: uint32(snap.VNI), MTU: snap.MTU, Ledger: l.export(waiting),
			})
		}
	}
	st.Total = total.export(held)
	for _, p := range s.ports {
		if p != nil {
			in, out := traffics(p.traffic)
			st.Ports = append(st.Ports, PortStats{
				NetworkID: p.cfg.NetworkID, EndpointID: p.cfg.EndpointID, Name: p.cfg.Name,
				Addrs: p.cfg.Addrs, MTU: p.cfg.MTU, In: out, Out: in, Dropped: p.dropped.Load(),
			})
		}
	}
	st.Peers = s.peerStats()
	if !s.closed {
		st.ReceiveOverflow = s.under.Dropped()
	}
	slices.SortFunc(st.Networks, func(a, b NetworkStats) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(st.Ports, func(a, b PortStats) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.EndpointID, b.EndpointID))
	})
	slices.SortFunc(st.Peers, func(a, b PeerStats) int { return a.VTEP.Compare(b.VTEP) })
	return st
}

// peerStats sums up the traffic with each VTEP, in clear text and sealed. s.mu is
// held.
func (s *Switch) peerStats() (list []PeerStats) {
	byVTEP := make(map[netip.Addr]*PeerStats, len(s.peers)+len(s.nodes))
	add := func(vtep netip.Addr, t []traffic) {
		in, out := traffics(t)
		p := byVTEP[vtep]
		if p == nil {
			p = &PeerStats{VTEP: vtep}
			byVTEP[vtep] = p
		}
		p.In.add(in)
		p.Out.add(out)
	}
	for addr, p := range s.peers {
		add(addr, p.traffic)
	}
	for _, p := range s.nodes {
		add(p.vtep, p.traffic)
	}
	for _, p := range byVTEP {
		list = append(list, *p)
	}
	return list
}

func (c *Count) add(o Count) {
	c.Packets += o.Packets
	c.Bytes += o.Bytes
}

func (c *counter) count() Count {
	return Count{Packets: c.packets.Load(), Bytes: c.bytes.Load()}
}

func (c *counter) merge(from *counter) {
	c.packets.Add(from.packets.Load())
	c.bytes.Add(from.bytes.Load())
}

// merge adds what another ledger counted.
func (l *ledger) merge(from *ledger) {
	l.portIn.merge(&from.portIn)
	l.wireIn.merge(&from.wireIn)
	l.originated.merge(&from.originated)
	l.portOut.merge(&from.portOut)
	l.wireOut.merge(&from.wireOut)
	l.consumed.merge(&from.consumed)
	for i := range l.drops {
		l.drops[i].Add(from.drops[i].Load())
	}
}

func sum(byWorker []ledger) *ledger {
	total := &ledger{}
	for i := range byWorker {
		total.merge(&byWorker[i])
	}
	return total
}

func (l *ledger) export(held int) Ledger {
	out := Ledger{
		PortIn: l.portIn.count(), WireIn: l.wireIn.count(), Originated: l.originated.count(),
		PortOut: l.portOut.count(), WireOut: l.wireOut.count(), Consumed: l.consumed.count(),
		Held: uint64(held), Drops: make(map[string]uint64),
	}
	for why := range numDrops {
		if n := l.drops[why].Load(); n > 0 {
			out.Drops[why.String()] = n
		}
	}
	return out
}

func traffics(byWorker []traffic) (in, out Count) {
	var i, o counter
	for w := range byWorker {
		i.merge(&byWorker[w].in)
		o.merge(&byWorker[w].out)
	}
	return i.count(), o.count()
}

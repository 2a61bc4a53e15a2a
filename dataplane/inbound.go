package dataplane

import (
	"bytes"
	"errors"
	"net/netip"
	"time"

	"github.com/ovnd/ovnd/dataplane/pkt"
	"github.com/ovnd/ovnd/dataplane/udp"
	"github.com/ovnd/ovnd/encap"
)

// An inbound worker owns a socket of the underlay: it checks what peers send and
// writes it to local ports.
type inbound struct {
	sw      *Switch
	worker  int
	section *section
	recv    *udp.Receiver
	join    *pkt.Joiner
	tx      *transmitter // answers ARP, sends what was held
	now     row
}

// A row is datagrams for which all decisions are the same: equal outer source
// and ECN, VXLAN and Ethernet headers, inner addresses and protocol.
type row struct {
	from    netip.Addr
	ecn     uint8
	header  []byte   // VXLAN and Ethernet of the first; nil if no other is like it
	ip      encap.IP // the first
	verdict verdict
	packets int
	bytes   int
	joining bool // the last datagram went to the joiner, and needed nothing else
}

// A verdict says what becomes of a datagram: it is delivered to port, or
// consumed, or dropped. Without net it belongs to no network.
type verdict struct {
	net      *network
	peer     *peer
	port     *Port
	why      Drop
	consumed bool
}

func newInbound(s *Switch, worker int, recv *udp.Receiver) *inbound {
	return &inbound{
		sw: s, worker: worker, section: &s.sections[worker],
		recv: recv, join: pkt.NewJoiner(), tx: newTransmitter(s, worker),
	}
}

func (w *inbound) run() error {
	var pace pace
	for {
		n, err := w.recv.Receive()
		if errors.Is(err, udp.ErrClosed) {
			return nil
		}
		if err != nil {
			// Nothing is known to cause one; it must not spin.
			w.sw.log.Warn("receive from underlay", "err", err)
			time.Sleep(10 * time.Millisecond)
			continue
		}
		pace.pass()
		w.section.enter()
		t := w.sw.table.Load()
		for i := range n {
			w.message(t, w.recv.Message(i))
		}
		w.endRow()
		w.join.Flush()
		w.tx.flush()
		w.section.leave()
	}
}

// message handles a run of datagrams from one sender.
func (w *inbound) message(t *table, m udp.Message) {
	if m.From != w.now.from || m.ECN != w.now.ecn {
		w.endRow()
		w.now.from, w.now.ecn = m.From, m.ECN
	}
	for b := m.Data; len(b) > 0; {
		n := min(m.SegSize, len(b))
		if m.Truncated && n == len(b) {
			w.endRow()
			w.now.verdict = verdict{why: DropTruncated}
			w.now.packets, w.now.bytes = 1, n
			return
		}
		w.datagram(t, b[:n:n])
		b = b[n:]
	}
	if len(m.Data) == 0 {
		w.datagram(t, nil)
	}
}

// datagram handles one, as the one before it if that is possible.
func (w *inbound) datagram(t *table, b []byte) {
	if w.now.joining && w.now.sameHeader(b) && w.join.Extend(b[prefixLen:]) {
		w.now.packets++
		w.now.bytes += len(b) - prefixLen
		return
	}
	ip, ok := w.now.continuedBy(b)
	if !ok {
		w.endRow()
		if w.now.verdict, ip = w.decide(t, b); ip.Packet != nil && ip.Protocol != encap.ProtocolICMPv6 {
			w.now.header, w.now.ip = b[:prefixLen], ip
		}
	}
	w.now.packets++
	w.now.bytes += max(len(b)-prefixLen, 0)
	if w.now.verdict.port != nil {
		w.deliver(b, ip)
	}
}

// sameHeader reports whether b has the row's VXLAN and Ethernet headers.
func (r *row) sameHeader(b []byte) bool {
	return r.header != nil && len(b) > prefixLen && [prefixLen]byte(b) == [prefixLen]byte(r.header)
}

// continuedBy reports whether b is decided as the row is, and parses it.
func (r *row) continuedBy(b []byte) (encap.IP, bool) {
	if !r.sameHeader(b) {
		return encap.IP{}, false
	}
	ip, err := encap.ParseIP(b[prefixLen:])
	if err != nil || ip.Protocol != r.ip.Protocol || ip.Is6() != r.ip.Is6() {
		return encap.IP{}, false
	}
	if ip.Is6() {
		return ip, bytes.Equal(ip.Packet[8:40], r.ip.Packet[8:40])
	}
	return ip, bytes.Equal(ip.Packet[12:20], r.ip.Packet[12:20])
}

// endRow accounts for the row.
func (w *inbound) endRow() {
	r := &w.now
	if r.packets > 0 {
		l := &w.sw.stray[w.worker]
		if r.verdict.net != nil {
			l = &r.verdict.net.ledgers[w.worker]
		}
		l.wireIn.add(r.packets, r.bytes)
		if r.verdict.peer != nil {
			r.verdict.peer.traffic[w.worker].in.add(r.packets, r.bytes)
		}
		switch {
		case r.verdict.consumed:
			l.consumed.add(r.packets, r.bytes)
		case r.verdict.port == nil:
			l.drop(r.verdict.why, r.packets)
		}
	}
	r.header, r.ip, r.verdict, r.packets, r.bytes, r.joining = nil, encap.IP{}, verdict{}, 0, 0, false
}

// decide looks a datagram up. ip is set if it carries one, so that the verdict
// holds for others with the same headers.
func (w *inbound) decide(t *table, b []byte) (v verdict, ip encap.IP) {
	vni, frame, err := encap.ParseVXLAN(b, encap.ReservedDrop)
	if err != nil && !errors.Is(err, encap.ErrReserved) {
		return verdict{why: DropBadVXLAN}, ip
	}
	v.net = t.byVNI[vni]
	if v.net == nil {
		return verdict{why: DropUnknownVNI}, ip
	}
	from, ok := v.net.peers[w.now.from]
	if !ok {
		v.why = DropUnknownVTEP
		return v, ip
	}
	v.peer = from.peer
	if err != nil && v.net.snap.Reserved == encap.ReservedDrop {
		v.why = DropReserved
		return v, ip
	}
	dst, src, etherType, payload, err := encap.ParseEthernet(frame)
	switch {
	case errors.Is(err, encap.ErrVLAN):
		v.why = DropVLAN
	case err != nil || src.IsMulticast():
		v.why = DropBadFrame
	case etherType == encap.EtherTypeARP:
		v.why, v.consumed = w.tx.arp(v.net, from, payload)
	case etherType == encap.EtherTypeIPv4 || etherType == encap.EtherTypeIPv6:
		if ip, err = encap.ParseIP(payload); err != nil || ip.EtherType() != etherType {
			v.why = DropMalformed
			return v, encap.IP{}
		}
		w.decideIP(&v, from, dst, src, ip)
	default:
		v.why = DropEtherType
	}
	return v, ip
}

// decideIP goes on with an IP packet.
func (w *inbound) decideIP(v *verdict, from vtep, dstMAC, srcMAC encap.MAC, ip encap.IP) {
	n := v.net
	if isNeighbourDiscovery(ip) {
		v.why, v.consumed = w.tx.neighbourDiscovery(n, from, ip)
		return
	}
	r, known := n.fib[ip.Dst()]
	if dstMAC.IsMulticast() || r.group || isGroup(ip.Dst()) {
		v.why = DropMulticast
		return
	}
	if why, ok := w.tx.heard(n, from, ip.Src(), srcMAC); !ok {
		v.why = why
		return
	}
	switch {
	case r.vip && !from.static:
		v.why = DropForeignVIP
	case r.port != nil && srcMAC == r.mac:
		v.why = DropStolenSource // as a kernel VXLAN device has it: a loop
	case r.port != nil && dstMAC == r.mac:
		v.port = r.port
	case r.port != nil:
		v.why = DropWrongMAC
	case known && r.peer == nil || !known && n.snap.Contains(ip.Dst()):
		v.why = DropNoEndpoint
	case known:
		v.why = DropSplitHorizon
	default:
		v.why = DropNoRoute
	}
}

// deliver hands a packet to the port, together with its neighbours if they make
// a super-packet.
func (w *inbound) deliver(b []byte, ip encap.IP) {
	v := &w.now.verdict
	w.now.joining = w.now.ecn == encap.ECNNotECT
	if w.now.ecn != encap.ECNNotECT {
		inner := ip.ECN()
		ecn, drop := encap.ECNInner(w.now.ecn, inner)
		if drop {
			v.net.ledgers[w.worker].drop(DropECN, 1)
			return
		}
		if ecn != inner {
			ip.SetECN(ecn)
		}
	}
	if isSYN(ip) {
		if field := pkt.PartialChecksum(ip); field >= 0 {
			_ = encap.CompleteChecksum(ip.Packet, ip.Transport, field)
		}
		clampMSS(v.net, ip, ip.Packet)
	}
	// The metadata goes where the Ethernet header was. A frame may be padded
	// behind the packet, and have priority tags before it.
	at := cap(b) - cap(ip.Packet) - pkt.MetaLen
	w.join.Add(&v.port.writers[w.worker], b[at:], ip)
}

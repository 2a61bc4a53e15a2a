package dataplane

import (
	"errors"

	"github.com/ovnd/ovnd/dataplane/pkt"
	"github.com/ovnd/ovnd/encap"
)

// This file is the one that writes and reads VXLAN: all that is ever in clear
// text. It takes its destinations as VTEPs, which encrypted networks have none
// of, and finds networks by [table.byVNI], where those are not.

// plainPrefix is what precedes each inner packet in a VXLAN datagram, in bytes.
const plainPrefix = encap.VXLANHeaderLen + encap.EthernetHeaderLen

// addPlain wraps the wire packets of plan, the super-packet ip, for the endpoint
// mac behind the VTEP to, from the endpoint src.
func (t *transmitter) addPlain(n *network, to *peer, mac, src encap.MAC, ip encap.IP, plan pkt.Plan) {
	var prefix [plainPrefix]byte
	putPlainPrefix(prefix[:], n, mac, src, ip.EtherType())
	key := batch{net: n, to: to.addr, traffic: to.traffic, extra: plainPrefix}
	t.gather(&key, prefix[:], ip, plan)
}

func putPlainPrefix(b []byte, n *network, dst, src encap.MAC, etherType uint16) {
	encap.PutVXLAN(b, n.snap.VNI)
	encap.PutEthernet(b[encap.VXLANHeaderLen:], dst, src, etherType)
}

// originate sends a frame that this node made, the first n bytes of t.frame, at
// once.
func (t *transmitter) originate(net *network, to *peer, n int) {
	l := &net.ledgers[t.worker]
	l.originated.add(1, n-plainPrefix)
	_, err := t.sender.Send(to.addr, 0, t.frame[:n], n, encap.ECNNotECT)
	if err != nil {
		l.drop(sendDrop(err), 1)
		return
	}
	l.wireOut.add(1, n-plainPrefix)
	to.traffic[t.worker].out.add(1, n-plainPrefix)
}

// decidePlain looks a datagram up that is not sealed. ip is set if it carries
// one, so that the verdict holds for others with the same headers.
func (w *inbound) decidePlain(t *table, b []byte) (v verdict, ip encap.IP) {
	vni, frame, err := encap.ParseVXLAN(b, encap.ReservedDrop)
	if err != nil && !errors.Is(err, encap.ErrReserved) {
		return verdict{why: DropBadVXLAN}, ip
	}
	v.net = t.byVNI[vni]
	if v.net == nil {
		if v.net = t.sealed[vni]; v.net != nil {
			v.why = DropClearText
			return v, ip
		}
		return verdict{why: DropUnknownVNI}, ip
	}
	from, ok := v.net.peers[w.now.from]
	if !ok {
		v.why = DropUnknownVTEP
		return v, ip
	}
	v.traffic = from.peer.traffic
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
		w.decidePlainIP(&v, from, dst, src, ip)
	default:
		v.why = DropEtherType
	}
	return v, ip
}

// decidePlainIP goes on with an IP packet.
func (w *inbound) decidePlainIP(v *verdict, from vtep, dstMAC, srcMAC encap.MAC, ip encap.IP) {
	if isNeighbourDiscovery(ip) {
		v.why, v.consumed = w.tx.neighbourDiscovery(v.net, from, ip)
		return
	}
	if v.net.isGroup(dstMAC, ip.Dst()) {
		v.why = DropMulticast
		return
	}
	if why, ok := w.tx.heard(v.net, from, ip.Src(), srcMAC); !ok {
		v.why = why
		return
	}
	v.toPort(dstMAC, srcMAC, ip.Dst(), from.static)
}

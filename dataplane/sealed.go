package dataplane

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"sync/atomic"
	"time"

	"github.com/ovnd/ovnd/crypto"
	"github.com/ovnd/ovnd/dataplane/pkt"
	"github.com/ovnd/ovnd/dataplane/udp"
	"github.com/ovnd/ovnd/encap"
)

// This file is the way of encrypted networks to the wire and back; see
// PROTOCOL.md. It takes its destinations as nodes, which have an address only by
// their session, and finds networks by [table.sealed].

// What is sealed begins with a shim of four bytes: VNI and flags.
const (
	shimLen    = 4
	shimFlags  = 3                                 // offset of the flags
	shimPrefix = shimLen + encap.EthernetHeaderLen // before the inner packet, opened
	// sealedPrefix and sealedExtra are the same for a sealed datagram, and all
	// that it has more than the inner packet.
	sealedPrefix = crypto.HeaderLen + shimPrefix
	sealedExtra  = sealedPrefix + crypto.TagLen

	// flagPartial says that the inner transport checksum is the sum of the
	// pseudo-header alone: what it would protect from, the seal does.
	flagPartial = 0x01
)

// A sealedPeer is another node as networks with one policy of ciphers know it.
// It is reached where its session says that it is, and not without one.
type sealedPeer struct {
	crypto  *crypto.Peer
	vtep    netip.Addr // as gossip has it, for Stats; guarded by the switch's lock
	traffic []traffic  // by worker
	addr    atomic.Pointer[udp.Addr]
	waiting waiting
	// narrow is the MTU of the way there, if the underlay has refused packets.
	narrow atomic.Pointer[narrowing]
}

// A narrowing is what is known of a way that carries less than its network's MTU.
type narrowing struct {
	mtu   int // bytes, of the inner packet
	until time.Time
}

// narrowLife is how long such a thing is believed, as path MTUs are (RFC 1191
// §6.3).
const narrowLife = 10 * time.Minute

func (p *sealedPeer) limit(mtu int, now time.Time) {
	p.narrow.Store(&narrowing{mtu: mtu, until: now.Add(narrowLife)})
}

// mtu returns the largest inner packet for p on a network whose MTU is mtu.
func (p *sealedPeer) mtu(mtu int) int {
	if n := p.narrow.Load(); n != nil && n.mtu < mtu && time.Now().Before(n.until) {
		return n.mtu
	}
	return mtu
}

// at returns where session says that p is.
func (p *sealedPeer) at(session *crypto.Session, port uint16) *udp.Addr {
	addr := session.Addr()
	if a := p.addr.Load(); a != nil && a.AddrPort().Addr() == addr {
		return a
	}
	a := udp.NewAddr(netip.AddrPortFrom(addr, port))
	p.addr.Store(a)
	return a
}

// toNode sends to an endpoint of another node, or keeps the packet until there is
// a session with it.
func (f *forwarder) toNode(n *network, p *Port, r route, ip encap.IP, plan pkt.Plan, frame []byte) {
	to := r.behind.node
	if mtu := to.mtu(n.mtu); plan.Len() > mtu {
		f.drop(p, DropTooBig, plan.Count())
		f.tx.answerTooBig(n, p, ip, mtu)
		return
	}
	if session := to.crypto.Sending(); session != nil {
		f.tx.addSealed(n, to, session, r.mac, p.cfg.MAC, ip, plan)
		return
	}
	to.crypto.Want()
	if !to.waiting.hold(n.account, n.snap.ID, r.mac, p.cfg.MAC, frame[:pkt.MetaLen+len(ip.Packet)], plan.Count()) {
		f.drop(p, DropHoldFull, plan.Count())
		return
	}
	f.sw.keeper.wakeUp()
}

// addSealed prepares the wire packets of plan, the super-packet ip, to be sealed
// by session for the endpoint mac at the node to, from the endpoint src.
func (t *transmitter) addSealed(n *network, to *sealedPeer, session *crypto.Session, mac, src encap.MAC, ip encap.IP, plan pkt.Plan) {
	var prefix [sealedPrefix]byte
	shim := prefix[crypto.HeaderLen:]
	binary.BigEndian.PutUint32(shim, uint32(n.snap.VNI)<<8)
	// The MSS of a SYN is changed, for which its checksum must be complete.
	if !isSYN(ip) && plan.LeavePartial() {
		shim[shimFlags] |= flagPartial
	}
	encap.PutEthernet(shim[shimLen:], mac, src, ip.EtherType())
	key := batch{
		net: n, to: to.at(session, t.sw.local.Port()), traffic: to.traffic,
		node: to, session: session, extra: sealedExtra,
	}
	t.gather(&key, prefix[:], ip, plan)
}

// seal seals every datagram of b where it lies. It reports false if the session
// must not seal any more.
func (b *batch) seal() bool {
	counter, ok := b.session.Reserve(b.count)
	if !ok {
		return false
	}
	for at := 0; at < b.n; at += b.size {
		b.session.Seal(b.buf[at:min(at+b.size, b.n)], counter)
		counter++
	}
	return true
}

// A run is what arrived for one session and was opened, and is not known to be
// new yet.
type run struct {
	session  *crypto.Session
	index    uint32
	n        int
	plain    [udp.MaxSegments][]byte
	counters [udp.MaxSegments]uint64
	fresh    [udp.MaxSegments]bool
}

// open opens a sealed datagram, for endRun to go on with.
func (w *inbound) open(t *table, b []byte) {
	r := &w.opened
	index := crypto.Index(b)
	if r.n == len(r.plain) || r.n > 0 && r.index != index {
		w.endRun(t)
	}
	if r.n == 0 {
		r.index, r.session = index, w.sw.sessions.Receiving(index)
	}
	if r.session == nil {
		w.single(verdict{why: DropUnknownSession}, len(b))
		return
	}
	plain, counter, ok := r.session.Open(b)
	if !ok {
		w.single(verdict{why: DropBadSealed}, len(b))
		return
	}
	r.plain[r.n], r.counters[r.n] = plain, counter
	r.n++
}

// endRun delivers what was opened and had not been here before.
func (w *inbound) endRun(t *table) {
	r := &w.opened
	if r.n == 0 {
		return
	}
	r.session.Accept(r.counters[:r.n], r.fresh[:r.n])
	if slices.Contains(r.fresh[:r.n], true) {
		r.session.Opened(w.now.from)
	}
	for i, b := range r.plain[:r.n] {
		switch {
		case !r.fresh[i]:
			w.single(verdict{why: DropReplayed}, len(b))
		case len(b) == 0:
			w.single(verdict{consumed: true}, 0) // keeps the session alive
		default:
			w.datagram(t, r.session, b)
		}
		r.plain[i] = nil
	}
	r.n, r.session = 0, nil
}

// decideSealed looks up what was sealed in a datagram. ip is set as by
// decidePlain.
func (w *inbound) decideSealed(t *table, session *crypto.Session, b []byte) (v verdict, ip encap.IP) {
	if len(b) < shimLen || b[shimFlags]&^flagPartial != 0 {
		return verdict{why: DropBadSealed}, ip
	}
	v.net = t.sealed[encap.VNI(binary.BigEndian.Uint32(b)>>8)]
	if v.net == nil {
		return verdict{why: DropUnknownVNI}, ip
	}
	from := v.net.nodes[session.Peer()]
	if from == nil {
		v.why = DropForeignNode
		return v, ip
	}
	v.traffic = from.traffic
	dst, src, etherType, payload, err := encap.ParseEthernet(b[shimLen:])
	switch {
	case errors.Is(err, encap.ErrVLAN):
		v.why = DropVLAN
	case err != nil || src.IsMulticast():
		v.why = DropBadFrame
	case etherType == encap.EtherTypeIPv4 || etherType == encap.EtherTypeIPv6:
		if ip, err = encap.ParseIP(payload); err != nil || ip.EtherType() != etherType || len(b) != shimPrefix+len(ip.Packet) {
			v.why = DropMalformed
			return v, encap.IP{}
		}
		return w.decideSealedIP(v, from, dst, src, ip)
	default:
		v.why = DropEtherType // nobody asks by ARP where the directory says all
	}
	return v, ip
}

// decideSealedIP goes on with an IP packet. Without ip the verdict is for this
// one alone.
func (w *inbound) decideSealedIP(v verdict, from *sealedPeer, dstMAC, srcMAC encap.MAC, ip encap.IP) (verdict, encap.IP) {
	src := ip.Src()
	_, claimed := v.net.fib.Get(src)
	why, ok := v.net.mayComeFrom(src, place{node: from})
	switch {
	case v.net.isGroup(dstMAC, ip.Dst()):
		v.why = DropMulticast
	case !ok:
		v.why = why
	case !claimed:
		v.why, v.held = w.holdUnclaimed(&v, from, dstMAC, srcMAC, ip)
		return v, encap.IP{}
	default:
		v.toPort(dstMAC, srcMAC, ip.Dst(), false)
	}
	return v, ip
}

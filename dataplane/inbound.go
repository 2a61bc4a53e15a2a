package dataplane

import (
	"bytes"
	"errors"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ovnd/ovnd/crypto"
	"github.com/ovnd/ovnd/dataplane/pkt"
	"github.com/ovnd/ovnd/dataplane/udp"
	"github.com/ovnd/ovnd/encap"
)

// An inbound is the half of a worker that owns a socket of the underlay: it
// checks what peers send and writes it to local ports.
type inbound struct {
	sw      *Switch
	worker  int
	recv    *udp.Receiver
	join    *pkt.Joiner
	tx      *transmitter // the worker's; answers ARP
	opened  run
	queue   queueManager
	marking bool // the queue is why now.ecn says congestion
	now     row
}

// A row is datagrams for which all decisions are the same: equal outer source
// and ECN, session, header up to the inner packet, inner addresses and protocol.
type row struct {
	from    netip.Addr
	ecn     uint8
	session *crypto.Session // nil: in clear text
	header  []byte          // of the first, before its packet; nil if no other is like it
	ip      encap.IP        // the first
	verdict verdict
	packets int
	bytes   int
	joining bool // the last datagram went to the joiner, and needed nothing else
	partial bool // the inner transport checksums were left partial
}

// A verdict says what becomes of a datagram: it is delivered to port, or
// consumed, or held, or dropped. Without net it belongs to no network.
type verdict struct {
	net      *network
	traffic  []traffic // of the sender, by worker
	port     *Port
	why      Drop
	consumed bool
	held     bool
}

func newInbound(f *forwarder, recv *udp.Receiver) *inbound {
	return &inbound{sw: f.sw, worker: f.worker, recv: recv, join: pkt.NewJoiner(), tx: f.tx}
}

// receive handles what one system call takes, and returns how many bytes that
// were: 0 if nothing waits.
func (w *inbound) receive(t *table) (bytes int) {
	n, err := w.recv.Receive()
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, udp.ErrClosed):
		return 0
	case err != nil:
		// Nothing is known to cause one; it must not spin.
		w.sw.log.Warn("receive from underlay", "err", err)
		time.Sleep(10 * time.Millisecond)
		return 0
	}
	for i := range n {
		m := w.recv.Message(i)
		bytes += len(m.Data)
		w.message(t, m)
	}
	w.endRow()
	w.join.Flush()
	return max(bytes, 1)
}

// message handles a run of datagrams from one sender.
func (w *inbound) message(t *table, m udp.Message) {
	if m.From != w.now.from || m.ECN != w.now.ecn {
		w.endRow()
		w.now.from, w.now.ecn = m.From, m.ECN
	}
	b := m.Data
	if len(b) >= bulkRun && w.queue.tell(w.recv.Queued(), time.Now()) {
		w.mark(t, b[:m.SegSize:m.SegSize])
		b = b[m.SegSize:]
	}
	for len(b) > 0 {
		n := min(m.SegSize, len(b))
		if m.Truncated && n == len(b) {
			w.single(verdict{why: DropTruncated}, n)
			break
		}
		w.take(t, b[:n:n])
		b = b[n:]
	}
	if len(m.Data) == 0 {
		w.take(t, nil)
	}
	w.endRun(t)
}

// mark handles one datagram as if it had experienced congestion on its way, as it
// has: its sender is told, by ECN or by a loss.
func (w *inbound) mark(t *table, b []byte) {
	w.endRow()
	ecn := w.now.ecn
	w.now.ecn, w.marking = encap.ECNCE, true
	w.take(t, b)
	w.endRun(t)
	w.endRow()
	w.now.ecn, w.marking = ecn, false
}

// congestion returns the reason to drop a packet that cannot be marked.
func (w *inbound) congestion() Drop {
	if w.marking {
		return DropQueue
	}
	return DropECN
}

// take handles one datagram by its kind.
func (w *inbound) take(t *table, b []byte) {
	kind, ok := crypto.ParseType(b)
	switch {
	case !ok || w.sw.sessions == nil:
		w.datagram(t, nil, b)
	case kind == crypto.Transport:
		w.open(t, b)
	default:
		_, ok := w.sw.sessions.HandleHandshake(w.now.from, b)
		w.single(verdict{why: DropHandshake, consumed: ok}, len(b))
	}
}

// single accounts for a datagram that is no packet of a network.
func (w *inbound) single(v verdict, size int) {
	w.endRow()
	w.now.verdict, w.now.packets, w.now.bytes = v, 1, size
	w.endRow()
}

// datagram handles one, as the one before it if that is possible: a VXLAN
// datagram, or with a session what was sealed in one.
func (w *inbound) datagram(t *table, session *crypto.Session, b []byte) {
	r := &w.now
	if r.session == session && r.joining && r.sameHeader(b) && w.join.Extend(b[len(r.header):], r.partial) {
		r.packets++
		r.bytes += len(b) - len(r.header)
		return
	}
	ip, ok := r.continuedBy(session, b)
	if !ok {
		w.endRow()
		ip = w.begin(t, session, b)
	}
	r.packets++
	r.bytes += max(len(b)-prefixOf(session), 0)
	if r.verdict.port != nil {
		w.deliver(b, ip)
	}
}

// begin decides a datagram for which there is no row yet.
func (w *inbound) begin(t *table, session *crypto.Session, b []byte) (ip encap.IP) {
	r := &w.now
	r.session = session
	if session == nil {
		r.verdict, ip = w.decidePlain(t, b)
	} else {
		r.verdict, ip = w.decideSealed(t, session, b)
	}
	if ip.Packet != nil && ip.Protocol != encap.ProtocolICMPv6 {
		r.header, r.ip = b[:prefixOf(session)], ip
		r.partial = session != nil && b[shimFlags]&flagPartial != 0
	}
	return ip
}

// prefixOf returns how many bytes come before the inner packet.
func prefixOf(session *crypto.Session) int {
	if session == nil {
		return plainPrefix
	}
	return shimPrefix
}

// sameHeader reports whether b has the row's header.
func (r *row) sameHeader(b []byte) bool {
	return r.header != nil && len(b) > len(r.header) && string(b[:len(r.header)]) == string(r.header)
}

// continuedBy reports whether b is decided as the row is, and parses it.
func (r *row) continuedBy(session *crypto.Session, b []byte) (encap.IP, bool) {
	if r.session != session || !r.sameHeader(b) {
		return encap.IP{}, false
	}
	ip, err := encap.ParseIP(b[len(r.header):])
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
		if r.verdict.traffic != nil {
			r.verdict.traffic[w.worker].in.add(r.packets, r.bytes)
		}
		switch {
		case r.verdict.consumed:
			l.consumed.add(r.packets, r.bytes)
		case r.verdict.held:
		case r.verdict.port == nil:
			l.drop(r.verdict.why, r.packets)
		}
	}
	*r = row{from: r.from, ecn: r.ecn}
}

// isGroup reports whether a frame is for more than one endpoint.
func (n *network) isGroup(mac encap.MAC, dst netip.Addr) bool {
	return mac.IsMulticast() || n.fib.At(dst).group || isGroup(dst)
}

// toPort finishes the verdict on a packet whose source is accepted: it is
// delivered if its destination is at a port of this node. static says that it
// comes from outside the cluster, whose VTEPs may send to VIPs.
func (v *verdict) toPort(dstMAC, srcMAC encap.MAC, dst netip.Addr, static bool) {
	r, known := v.net.fib.Get(dst)
	switch {
	case r.vip && !static:
		v.why = DropForeignVIP
	case r.port != nil && srcMAC == r.mac:
		v.why = DropStolenSource // as a kernel VXLAN device has it: a loop
	case r.port != nil && dstMAC == r.mac:
		v.port = r.port
	case r.port != nil:
		v.why = DropWrongMAC
	case known && r.behind == place{} || !known && v.net.snap.Contains(dst):
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
	if !w.accept(v.net, &ip) {
		v.net.ledgers[w.worker].drop(w.congestion(), 1)
		return
	}
	// The metadata goes where the Ethernet header was. A frame may be padded
	// behind the packet, and have priority tags before it.
	at := cap(b) - cap(ip.Packet) - pkt.MetaLen
	w.join.Add(&v.port.writers[w.worker], b[at:], ip, w.now.partial)
}

// accept makes a packet fit for its destination: the outer header's congestion
// mark is carried over (RFC 6040), and a SYN's MSS is what the network carries. It
// reports false for a packet that must be dropped since congestion was
// experienced and it cannot say so.
func (w *inbound) accept(n *network, ip *encap.IP) bool {
	if w.now.ecn != encap.ECNNotECT {
		inner := ip.ECN()
		ecn, drop := encap.ECNInner(w.now.ecn, inner)
		if drop {
			return false
		}
		if ecn != inner {
			ip.SetECN(ecn)
		}
	}
	if isSYN(*ip) {
		if field := pkt.PartialChecksum(*ip); field >= 0 {
			_ = encap.CompleteChecksum(ip.Packet, ip.Transport, field)
		}
		clampMSS(n, *ip, ip.Packet)
	}
	return true
}

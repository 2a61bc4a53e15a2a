package dataplane

import (
	"errors"

	"golang.org/x/sys/unix"

	"github.com/ovnd/ovnd/crypto"
	"github.com/ovnd/ovnd/dataplane/pkt"
	"github.com/ovnd/ovnd/dataplane/udp"
	"github.com/ovnd/ovnd/encap"
)

const (
	// maxBatches bounds the sends under way; the packets of many flows and
	// sizes fit.
	maxBatches = 16
	// flushAt is how many bytes are gathered before they leave: a bulk flow's
	// super-packet goes at once, while it is in the cache.
	flushAt = 32 << 10
)

// A batch is one UDP_SEGMENT send that grows: datagrams of one network, for one
// destination, from one source port, of one size.
type batch struct {
	net     *network
	to      *udp.Addr
	traffic []traffic // of the destination, by worker
	// On an encrypted network alone: who it is for, and what seals it.
	node    *sealedPeer
	session *crypto.Session

	port   int
	ecn    uint8
	prefix int // bytes before the inner packet in each datagram
	extra  int // bytes of each datagram that are not the inner packet
	size   int // bytes of each datagram but the last
	count  int
	short  bool // the last datagram is shorter: nothing may follow
	n      int  // bytes in buf
	buf    []byte
}

// room returns how many datagrams of b.size bytes still fit.
func (b *batch) room() int {
	if b.short {
		return 0
	}
	return min(udp.MaxSegments-b.count, (udp.MaxSend-b.n)/b.size)
}

// A transmitter wraps inner packets and gathers them into batches. The packets
// of a flow leave in the order in which they came: batches leave in the order
// in which they were begun, and no packet goes into one that was begun before
// the batch of its flow's last packet.
type transmitter struct {
	sw      *Switch
	worker  int
	sender  *udp.Sender
	toobig  icmpError
	batches [maxBatches]batch
	open    int // batches in use
	bytes   int // in them
	// flows has, for each value of the low bits of a flow's hash, one more than
	// the batch of the last packet, and 0 for none.
	flows [256]uint8
	frame [plainPrefix + encap.NDLen]byte // of ARP and ND

	unreachable icmpError
	absent      absentees
	// defers has the keeper deliver what is originated for a stack, since it is
	// the stack's own goroutine that sends: it holds locks of the stack.
	defers bool
}

func newTransmitter(s *Switch, worker int) *transmitter {
	t := &transmitter{sw: s, worker: worker, sender: s.under.NewSender()}
	mem := make([]byte, maxBatches*udp.MaxSend)
	for i := range t.batches {
		t.batches[i].buf = mem[i*udp.MaxSend : (i+1)*udp.MaxSend]
	}
	return t
}

// gather puts the wire packets of plan, the super-packet ip, into batches like
// key, each behind prefix and before the rest of key.extra.
func (t *transmitter) gather(key *batch, prefix []byte, ip encap.IP, plan pkt.Plan) {
	hash := ip.FlowHash()
	key.port, key.ecn = int(hash>>8)%t.sender.Ports(), encap.ECNOuter(ip.ECN())
	key.prefix, key.size = len(prefix), key.extra+plan.Len()
	for first := 0; first < plan.Count(); {
		b := t.batch(key, plan, hash)
		end := min(first+b.room(), plan.Count())
		at := b.n
		b.n += plan.Put(b.buf[at:], prefix, key.extra-key.prefix, first, end)
		b.count += end - first
		b.short = b.n-at < (end-first)*b.size
		t.bytes += b.n - at
		if isSYN(ip) {
			clampMSS(key.net, ip, b.buf[at+key.prefix:b.n-(key.extra-key.prefix)])
		}
		first = end
	}
	if t.bytes >= flushAt {
		t.flush()
	}
}

// batch returns the one that the packets of plan go to: an open one that takes
// all of them, or else a new one.
func (t *transmitter) batch(key *batch, plan pkt.Plan, hash uint32) *batch {
	flow := &t.flows[hash%uint32(len(t.flows))]
	for i := max(int(*flow)-1, 0); i < t.open; i++ {
		b := &t.batches[i]
		if b.net == key.net && b.to == key.to && b.session == key.session && b.port == key.port &&
			b.ecn == key.ecn && b.size == key.size && b.room() >= plan.Count() {
			*flow = uint8(i + 1)
			return b
		}
	}
	if t.open == maxBatches {
		t.flush()
	}
	b := &t.batches[t.open]
	t.open++
	buf := b.buf
	*b = *key
	b.buf = buf
	*flow = uint8(t.open)
	return b
}

// flush sends every batch.
func (t *transmitter) flush() {
	if t.open == 0 {
		return
	}
	for i := range t.open {
		t.send(&t.batches[i])
	}
	t.open, t.bytes = 0, 0
	clear(t.flows[:])
}

func (t *transmitter) send(b *batch) {
	l := &b.net.ledgers[t.worker]
	defer b.done()
	if b.session != nil && !b.seal() {
		b.node.crypto.Want()
		l.drop(DropNoSession, b.count)
		return
	}
	sent, err := t.sender.Send(b.to, b.port, b.buf[:b.n], b.size, b.ecn)
	if sent > 0 {
		bytes := min(b.n, sent*b.size) - sent*b.extra
		l.wireOut.add(sent, bytes)
		b.traffic[t.worker].out.add(sent, bytes)
	}
	if lost := b.count - sent; lost > 0 {
		l.drop(sendDrop(err), lost)
		if errors.Is(err, unix.EMSGSIZE) {
			t.tooBigForUnderlay(b)
		}
	}
}

// done lets go of what the batch refers to.
func (b *batch) done() { b.net, b.to, b.traffic, b.node, b.session = nil, nil, nil, nil, nil }

func sendDrop(err error) Drop {
	switch {
	case errors.Is(err, unix.EMSGSIZE):
		return DropTooBig
	case errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOMEM):
		return DropNoBuffers
	case errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ENETDOWN),
		errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.EADDRNOTAVAIL):
		return DropUnreachable
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return DropFirewall
	}
	return DropSend
}

// isSYN reports whether ip is a TCP segment that announces an MSS.
func isSYN(ip encap.IP) bool {
	if ip.Protocol != encap.ProtocolTCP || ip.FragmentOffset != 0 {
		return false
	}
	b := ip.Payload()
	return len(b) >= encap.TCPHeaderLen && encap.TCP(b).Flags()&encap.TCPFlagSYN != 0
}

// clampMSS lowers the MSS that a SYN announces to what n carries. like is the
// packet or one with the same headers; wire is the packet, checksums complete.
func clampMSS(n *network, like encap.IP, wire []byte) {
	mss := n.mss4
	if like.Is6() {
		mss = n.mss6
	}
	like.Packet = wire
	encap.ClampMSS(like, mss)
}

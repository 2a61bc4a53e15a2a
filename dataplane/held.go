package dataplane

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/ovnd/ovnd/dataplane/pkt"
	"github.com/ovnd/ovnd/encap"
)

// Two kinds of packets of encrypted networks wait, both bounded and not for
// long: those for a node with which a session is being made, and those that a
// node has sealed before gossip told that their source is its. The keeper sends
// and delivers them, or gives them up.

const (
	// maxHeldFrames and maxHeldBytes bound what waits for one node, and what is
	// unclaimed on one network.
	maxHeldFrames = 64
	// maxUnclaimedEach is how many of the unclaimed on a network may be of one
	// node, so that none takes the others' room.
	maxUnclaimedEach = 16
	// sessionWait is how long a packet waits for a session, which takes one round
	// trip unless its first message is lost.
	sessionWait = 3 * time.Second
	// claimWait is how long one waits for gossip, which takes part of a second.
	claimWait = time.Second
)

// A sealedFrame is a super-packet behind its metadata, on its way to or from
// another node.
type sealedFrame struct {
	network  string
	account  *account
	from     *sealedPeer // of an unclaimed one
	dst, src encap.MAC
	frame    []byte
	packets  int
	until    time.Time
}

// waiting are frames that wait. It is safe for concurrent use.
type waiting struct {
	mu     sync.Mutex
	frames []sealedFrame // at most maxHeldFrames
	bytes  int           // at most maxHeldBytes
	ended  bool          // nothing is taken any more
}

// hold keeps a copy of frame, unless there is no room.
func (w *waiting) hold(a *account, network string, dst, src encap.MAC, frame []byte, packets int) bool {
	return w.add(sealedFrame{
		network: network, account: a, dst: dst, src: src, frame: frame, packets: packets,
		until: time.Now().Add(sessionWait),
	})
}

func (w *waiting) add(f sealedFrame) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended || len(w.frames) >= maxHeldFrames || w.bytes+len(f.frame) > maxHeldBytes {
		return false
	}
	f.frame = slices.Clone(f.frame)
	w.frames = append(w.frames, f)
	w.bytes += len(f.frame)
	f.account.held.Add(int64(f.packets))
	return true
}

// take removes the frames for which which is true and returns them in order.
func (w *waiting) take(which func(*sealedFrame) bool) (taken []sealedFrame) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.frames = slices.DeleteFunc(w.frames, func(f sealedFrame) bool {
		if !which(&f) {
			return false
		}
		w.bytes -= len(f.frame)
		f.account.held.Add(-int64(f.packets))
		taken = append(taken, f)
		return true
	})
	return taken
}

// end returns all that waits, and has nothing wait any more.
func (w *waiting) end() []sealedFrame {
	w.mu.Lock()
	w.ended = true
	w.mu.Unlock()
	return w.take(func(*sealedFrame) bool { return true })
}

// of returns how many of the frames come from a node.
func (w *waiting) of(from *sealedPeer) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.frames {
		if w.frames[i].from == from {
			n++
		}
	}
	return n
}

// empty reports whether nothing waits.
func (w *waiting) empty() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.frames) == 0
}

// holdUnclaimed keeps a packet from a source that the directory does not know.
// It returns the reason if it does not.
func (w *inbound) holdUnclaimed(v *verdict, from *sealedPeer, dst, src encap.MAC, ip encap.IP) (why Drop, held bool) {
	if !w.accept(v.net, &ip) {
		return w.congestion(), false
	}
	if v.net.unclaimed.of(from) >= maxUnclaimedEach {
		return DropHoldFull, false
	}
	frame := make([]byte, pkt.MetaLen+len(ip.Packet))
	copy(frame[pkt.MetaLen:], ip.Packet)
	pkt.SingleMeta(ip).Put(frame)
	held = v.net.unclaimed.add(sealedFrame{
		network: v.net.snap.ID, account: v.net.account, from: from, dst: dst, src: src, frame: frame, packets: 1,
		until: time.Now().Add(claimWait),
	})
	w.sw.keeper.wakeUp()
	return DropHoldFull, held
}

// resume sends what waited for sessions that there are now, and delivers what
// waited for a claim that was made. It reports whether anything still waits.
func (k *keeper) resume() (pending bool) {
	k.section.enter()
	defer k.section.leave()
	t, now := k.sw.table.Load(), time.Now()
	for _, n := range t.sealed {
		for _, p := range n.nodes {
			k.resumeNode(t, p, now)
			pending = pending || !p.waiting.empty()
		}
		k.resumeClaims(n, now)
		pending = pending || !n.unclaimed.empty()
	}
	k.tx.flush()
	return pending
}

func (k *keeper) resumeNode(t *table, p *sealedPeer, now time.Time) {
	session := p.crypto.Sending()
	for _, f := range p.waiting.take(func(f *sealedFrame) bool { return session != nil || now.After(f.until) }) {
		n := t.networks[f.network]
		plan, ip, err := parse(f.frame)
		switch {
		case n == nil || n.nodes[p.crypto] != p || err != nil: // it was read before it was held
			f.account.ledgers[k.worker].drop(DropNoNetwork, f.packets)
		case session == nil:
			n.ledgers[k.worker].drop(DropNoSession, f.packets)
		default:
			k.tx.addSealed(n, p, session, f.dst, f.src, ip, plan)
		}
	}
}

func (k *keeper) resumeClaims(n *network, now time.Time) {
	claimed := func(f *sealedFrame) bool {
		_, known := n.fib.Get(sourceOf(f.frame))
		return known || now.After(f.until)
	}
	for _, f := range n.unclaimed.take(claimed) {
		k.deliverClaimed(n, &f)
	}
}

// deliverClaimed finishes with a packet that waited for its claim.
func (k *keeper) deliverClaimed(n *network, f *sealedFrame) {
	ip, err := encap.ParseIP(f.frame[pkt.MetaLen:])
	if err != nil {
		return // it was read before it was held
	}
	v := verdict{net: n, why: DropUnclaimed}
	if _, known := n.fib.Get(ip.Src()); known {
		var ok bool
		if v.why, ok = n.mayComeFrom(ip.Src(), place{node: f.from}); ok {
			v.toPort(f.dst, f.src, ip.Dst(), false)
		}
	}
	if v.port == nil {
		n.ledgers[k.worker].drop(v.why, 1)
		return
	}
	v.port.writers[k.worker].write(f.frame, 1, len(ip.Packet))
}

// forgetHeld gives up what waits on a network that is gone. s.mu is held.
func (s *Switch) forgetHeld(id string) (packets int) {
	of := func(f *sealedFrame) bool { return f.network == id }
	for _, p := range s.nodes {
		for _, f := range p.waiting.take(of) {
			packets += f.packets
		}
	}
	if a := s.accounts[id]; a != nil {
		for _, f := range a.unclaimed.take(of) {
			packets += f.packets
		}
	}
	return packets
}

// sourceOf returns the inner source of a packet behind its metadata.
func sourceOf(frame []byte) netip.Addr {
	ip, err := encap.ParseIP(frame[pkt.MetaLen:])
	if err != nil {
		return netip.Addr{}
	}
	return ip.Src()
}

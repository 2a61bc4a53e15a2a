package dataplane

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ovnd/ovnd/encap"
)

// Bounds of what one network learns and holds.
const (
	maxNeighbours = 1024
	// neighbourLife is how long an address counts as known after its last
	// packet: the default ageing of a Linux VXLAN device.
	neighbourLife = 300 * time.Second
	// earlyLife is the same for an address behind a node of the cluster, whose
	// endpoint gossip is about to announce: it takes part of a second.
	earlyLife = 10 * time.Second

	maxQuestions = 64
	maxHeldEach  = 3 // frames a question, as Linux's unres_qlen once was
	maxHeldBytes = 256 << 10
	askInterval  = time.Second
	maxAsk       = 3
)

// neighbours are the addresses behind VTEPs outside the cluster, learned from
// their frames and ARP, and the packets that wait for an answer; and new
// endpoints of the cluster that sent before gossip announced them, so that they
// are answered. The directory is asked first: nothing learned overrides it.
type neighbours struct {
	mu        sync.RWMutex
	known     map[netip.Addr]*neighbour // at most maxNeighbours
	questions map[netip.Addr]*question  // at most maxQuestions
	held      int                       // wire packets in questions
	heldBytes int
}

// A neighbour is where one address was last seen.
type neighbour struct {
	mac  encap.MAC
	peer *peer
	life time.Duration
	seen atomic.Int64 // Unix time in seconds
}

// A question is an address that was asked for, and what waits for the answer.
type question struct {
	src    netip.Addr // of the first packet: who asks
	mac    encap.MAC
	asked  time.Time
	times  int
	frames []heldFrame
}

// A heldFrame is a super-packet behind its metadata.
type heldFrame struct {
	mac     encap.MAC // of the endpoint that sent it
	frame   []byte
	packets int
}

// lookup returns where an address was seen, if that is not too long ago.
func (t *neighbours) lookup(a netip.Addr) (encap.MAC, *peer, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	e := t.known[a]
	if e == nil || time.Now().Unix()-e.seen.Load() > int64(e.life/time.Second) {
		return encap.MAC{}, nil, false
	}
	return e.mac, e.peer, true
}

// learn notes for a time that an address was seen at mac behind p, and returns
// what waited for it, which is the caller's to send.
func (t *neighbours) learn(a netip.Addr, mac encap.MAC, p *peer, life time.Duration) []heldFrame {
	now := time.Now().Unix()
	t.mu.RLock()
	e := t.known[a]
	same := e != nil && e.mac == mac && e.peer == p
	if same && e.seen.Load() != now {
		e.seen.Store(now)
	}
	waiting := len(t.questions) > 0
	t.mu.RUnlock()
	if same && !waiting {
		return nil
	}

	t.mu.Lock()
	defer t.mu.Unlock()
	if !same {
		t.insert(a, mac, p, life, now)
	}
	q := t.questions[a]
	if q == nil {
		return nil
	}
	t.remove(a, q)
	return q.frames
}

// insert adds an entry in place of the one that was not seen for longest, if the
// table is full. t.mu is held.
func (t *neighbours) insert(a netip.Addr, mac encap.MAC, p *peer, life time.Duration, now int64) {
	if t.known == nil {
		t.known = make(map[netip.Addr]*neighbour)
	}
	if _, ok := t.known[a]; !ok && len(t.known) >= maxNeighbours {
		var oldest netip.Addr
		for addr, e := range t.known {
			if !oldest.IsValid() || e.seen.Load() < t.known[oldest].seen.Load() {
				oldest = addr
			}
		}
		delete(t.known, oldest)
	}
	e := &neighbour{mac: mac, peer: p, life: life}
	e.seen.Store(now)
	t.known[a] = e
}

// hold keeps a copy of a frame from src at mac until a is learned. It reports
// whether it did, and whether the question is new, so that it must be asked.
func (t *neighbours) hold(a, src netip.Addr, mac encap.MAC, frame []byte, packets int) (held, ask bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	q := t.questions[a]
	if q == nil {
		if len(t.questions) >= maxQuestions || t.heldBytes+len(frame) > maxHeldBytes {
			return false, false
		}
		if t.questions == nil {
			t.questions = make(map[netip.Addr]*question)
		}
		q = &question{src: src, mac: mac, asked: time.Now(), times: 1}
		t.questions[a] = q
		ask = true
	}
	if len(q.frames) >= maxHeldEach || t.heldBytes+len(frame) > maxHeldBytes {
		return false, ask
	}
	q.frames = append(q.frames, heldFrame{mac: mac, frame: append([]byte(nil), frame...), packets: packets})
	t.held += packets
	t.heldBytes += len(frame)
	return true, ask
}

// due returns the questions to be asked again, and the number of wire packets
// that were given up with the questions that have been asked often enough.
func (t *neighbours) due(now time.Time) (ask map[netip.Addr]*question, dropped int, pending bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for a, q := range t.questions {
		switch {
		case now.Sub(q.asked) < askInterval:
		case q.times >= maxAsk:
			dropped += t.remove(a, q)
		default:
			q.asked, q.times = now, q.times+1
			if ask == nil {
				ask = make(map[netip.Addr]*question)
			}
			ask[a] = q
		}
	}
	return ask, dropped, len(t.questions) > 0
}

// remove takes a question out and returns how many wire packets it held. t.mu
// is held.
func (t *neighbours) remove(a netip.Addr, q *question) (packets int) {
	for _, f := range q.frames {
		packets += f.packets
		t.heldBytes -= len(f.frame)
	}
	t.held -= packets
	delete(t.questions, a)
	return packets
}

// clear forgets everything, and returns how many wire packets it held.
func (t *neighbours) clear() (packets int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for a, q := range t.questions {
		packets += t.remove(a, q)
	}
	clear(t.known)
	return packets
}

// waiting returns how many wire packets are held.
func (t *neighbours) waiting() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.held
}

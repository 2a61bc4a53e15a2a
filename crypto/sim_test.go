package crypto

import (
	"bytes"
	"container/heap"
	"context"
	"crypto/cipher"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"
)

// A sim is a network of engines in virtual time. One goroutine does everything:
// what happens is the same whatever the machine is doing.
type sim struct {
	tb     testing.TB
	now    time.Time
	rng    *rand.Rand
	ca     *testCA
	nodes  []*simNode
	events eventQueue
	asked  map[[2]netip.Addr]int // size of the last initiation, from and to
	keys   keyRecorder

	delay     time.Duration // of each datagram
	jitter    time.Duration // added at random: datagrams overtake each other
	loss      float64
	duplicate float64
	// tap sees each datagram that is sent; false drops it.
	tap func(from, to netip.Addr, datagram []byte) bool
}

// A simNode is one node: its engine, and what data came to it.
type simNode struct {
	sim      *sim
	id       string
	addr     netip.Addr
	cred     Credentials
	identity *Identity
	engine   *Engine
	wake     time.Time
	got      map[string]int // by plaintext
	refused  int            // transport datagrams that did not open or were not fresh
	changed  int
	skew     time.Duration // of the node's clock
}

func newSim(tb testing.TB, ids ...string) *sim {
	tb.Helper()
	s := &sim{
		tb: tb, now: time.Now(), rng: rand.New(rand.NewPCG(1, 2)), ca: newTestCA(tb),
		delay: time.Millisecond, keys: keyRecorder{}, asked: map[[2]netip.Addr]int{},
	}
	for i, id := range ids {
		addr := netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})
		n := &simNode{sim: s, id: id, addr: addr, cred: s.ca.credentials(tb, id, roleWorker), got: map[string]int{}}
		n.start()
		s.nodes = append(s.nodes, n)
	}
	return s
}

// size returns how much a test does: in the long form of `make soak`, as a rule, and in the
// short form.
func size[T any](soak, usual, short T) T {
	switch {
	case os.Getenv("OVND_SOAK") != "":
		return soak
	case testing.Short():
		return short
	}
	return usual
}

func testEpochs(tags ...uint64) (list []Epoch) {
	for _, tag := range tags {
		list = append(list, Epoch{Tag: tag, Key: fmt.Appendf(nil, "sixteen byte %03d", tag%1000)})
	}
	return list
}

// start begins a run of the node: new keys, nothing remembered.
func (n *simNode) start() {
	n.identity = testIdentity(n.sim.tb, n.cred)
	n.startWith(Config{})
}

func (n *simNode) startWith(cfg Config) {
	s := n.sim
	cfg.Identity = func() *Identity { return n.identity }
	cfg.Send = func(to netip.Addr, b []byte) { s.transmit(n.addr, to, b) }
	cfg.Changed = func(string) { n.changed++ }
	cfg.Clock = func() time.Time { return s.now.Add(n.skew) }
	cfg.ciphers = s.keys.aead
	e, err := New(cfg)
	if err != nil {
		s.tb.Fatal(err)
	}
	if n.engine != nil {
		n.engine.end()
	}
	n.engine, n.wake = e, s.now
	e.SetEpochs(testEpochs(1, 2, 3))
}

// meet names all nodes to each other.
func (s *sim) meet(policies ...Policy) {
	if len(policies) == 0 {
		policies = []Policy{Auto}
	}
	for _, n := range s.nodes {
		n.engine.SetPeers(s.infos(n, policies))
	}
}

func (s *sim) infos(but *simNode, policies []Policy) (list []PeerInfo) {
	for _, n := range s.nodes {
		if n != but {
			list = append(list, PeerInfo{NodeID: n.id, Static: n.identity.state.Static, Addr: n.addr, Policies: policies})
		}
	}
	return list
}

func (s *sim) at(addr netip.Addr) *simNode {
	for _, n := range s.nodes {
		if n.addr == addr {
			return n
		}
	}
	return nil
}

// transmit carries a datagram over the network.
func (s *sim) transmit(from, to netip.Addr, datagram []byte) {
	s.checkSize(from, to, datagram)
	if s.tap != nil && !s.tap(from, to, datagram) {
		return
	}
	if s.rng.Float64() < s.loss {
		return
	}
	copies := 1
	if s.rng.Float64() < s.duplicate {
		copies = 2
	}
	for range copies {
		d := s.delay
		if s.jitter > 0 {
			d += time.Duration(s.rng.Int64N(int64(s.jitter)))
		}
		s.inject(d, from, to, datagram)
	}
}

// inject delivers a datagram after a while, past the tap.
func (s *sim) inject(after time.Duration, from, to netip.Addr, datagram []byte) {
	datagram = bytes.Clone(datagram)
	if kind, _ := ParseType(datagram); kind == Initiation {
		s.asked[[2]netip.Addr{from, to}] = len(datagram)
	}
	heap.Push(&s.events, event{s.now.Add(after), len(s.events), func() {
		if n := s.at(to); n != nil {
			n.receive(from, datagram)
		}
	}})
}

// checkSize wants no answer to be larger than what it answers.
func (s *sim) checkSize(from, to netip.Addr, datagram []byte) {
	if kind := MessageType(datagram[0]); kind == Response || kind == CookieReply {
		if asked := s.asked[[2]netip.Addr{to, from}]; len(datagram) > asked {
			s.tb.Errorf("%d bytes answer %d", len(datagram), asked)
		}
	}
}

// receive is the data plane of a node.
func (n *simNode) receive(from netip.Addr, datagram []byte) {
	kind, ok := ParseType(datagram)
	if ok && kind != Transport {
		n.engine.HandleHandshake(from, datagram)
		return
	}
	if !ok {
		n.refused++
		return
	}
	s := n.engine.Receiving(Index(datagram))
	if s == nil {
		n.refused++
		return
	}
	text, counter, ok := s.Open(datagram)
	fresh := []bool{false}
	if ok {
		s.Accept([]uint64{counter}, fresh)
	}
	if !fresh[0] {
		n.refused++
		return
	}
	s.Opened(from)
	if len(text) > 0 {
		n.got[string(text)]++
	}
}

// send seals a text for a peer; false: there is no session.
func (n *simNode) send(to *simNode, policy Policy, text string) bool {
	s, datagram := sealText(n.engine.Peer(to.id, policy), text)
	if s == nil {
		return false
	}
	n.sim.transmit(n.addr, s.Addr(), datagram)
	return true
}

// sealText seals a text for a peer, and returns the session by which it did; nil:
// there is none that seals.
func sealText(p *Peer, text string) (*Session, []byte) {
	s := p.Sending()
	if s == nil {
		p.Want()
		return nil, nil
	}
	counter, ok := s.Reserve(1)
	if !ok {
		return nil, nil
	}
	d := make([]byte, Overhead+len(text))
	copy(d[HeaderLen:], text)
	s.Seal(d, counter)
	return s, d
}

func (n *simNode) sending(to *simNode) *Session { return n.engine.Peer(to.id, Auto).Sending() }

func (n *simNode) refusals(r Refusal) uint64 { return n.engine.refused[r].Load() }

// run lets virtual time pass.
func (s *sim) run(d time.Duration) {
	s.tb.Helper()
	end := s.now.Add(d)
	for idle := 0; ; idle++ {
		if idle > 10000 {
			s.tb.Fatal("the engines go round without time passing")
		}
		s.settle()
		next := end
		if len(s.events) > 0 && s.events[0].at.Before(next) {
			next = s.events[0].at
		}
		for _, n := range s.nodes {
			if !n.wake.IsZero() && n.wake.Before(next) {
				next = n.wake
			}
		}
		if next.After(s.now) {
			s.now, idle = next, 0
		}
		for len(s.events) > 0 && !s.events[0].at.After(s.now) {
			heap.Pop(&s.events).(event).do()
		}
		due := false
		for _, n := range s.nodes {
			if !n.wake.IsZero() && !n.wake.After(s.now) {
				n.round()
				due = true
			}
		}
		if !due && !s.now.Before(end) {
			s.settle()
			return
		}
	}
}

// round lets the engine of a node do what is due.
func (n *simNode) round() {
	n.wake = n.engine.round(context.Background())
	if !n.wake.IsZero() {
		n.wake = n.wake.Add(-n.skew)
	}
}

// settle lets the engines do what they can do now.
func (s *sim) settle() {
	for busy := true; busy; {
		busy = false
		for _, n := range s.nodes {
			n.engine.catchUp(queueLen)
			select {
			case <-n.engine.kicks:
				n.round()
				busy = true
			default:
			}
		}
	}
}

// until lets time pass until a condition holds, and fails after a limit.
func (s *sim) until(limit time.Duration, what string, ok func() bool) {
	s.tb.Helper()
	for end := s.now.Add(limit); !ok(); s.run(time.Millisecond) {
		if s.now.After(end) {
			s.tb.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// connected lets time pass until each node can send to each other.
func (s *sim) connected(policy Policy) {
	s.tb.Helper()
	s.until(time.Minute, "sessions between all", func() bool {
		return !slices.ContainsFunc(s.nodes, func(a *simNode) bool {
			return slices.ContainsFunc(s.nodes, func(b *simNode) bool {
				return a != b && a.engine.Peer(b.id, policy).Sending() == nil
			})
		})
	})
}

type event struct {
	at  time.Time
	seq int
	do  func()
}

type eventQueue []event

func (q eventQueue) Len() int { return len(q) }
func (q eventQueue) Less(i, j int) bool {
	return q[i].at.Before(q[j].at) || q[i].at.Equal(q[j].at) && q[i].seq < q[j].seq
}
func (q eventQueue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *eventQueue) Push(x any)   { *q = append(*q, x.(event)) }
func (q *eventQueue) Pop() any {
	old := *q
	x := old[len(old)-1]
	*q = old[:len(old)-1]
	return x
}

// A keyRecorder knows each key that was sealed with, and each nonce under it.
type keyRecorder map[[keyLen]byte]map[string]bool

func (r keyRecorder) aead(suite Suite, key [keyLen]byte) (cipher.AEAD, error) {
	c, err := suite.aead(key)
	return recordedAEAD{c, r, key}, err
}

type recordedAEAD struct {
	cipher.AEAD
	recorder keyRecorder
	key      [keyLen]byte
}

func (a recordedAEAD) Seal(dst, nonce, text, data []byte) []byte {
	used := a.recorder[a.key]
	if used == nil {
		used = map[string]bool{}
		a.recorder[a.key] = used
	}
	if used[string(nonce)] {
		panic(fmt.Sprintf("nonce %x twice under one key", nonce))
	}
	used[string(nonce)] = true
	return a.AEAD.Seal(dst, nonce, text, data)
}

func (r keyRecorder) sealed() (n int) {
	for _, used := range r {
		n += len(used)
	}
	return n
}

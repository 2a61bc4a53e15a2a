package crypto

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A live network carries datagrams between engines that run, in real time.
type live struct {
	tb    testing.TB
	nodes map[netip.Addr]*liveNode
}

type liveNode struct {
	net      *live
	id       string
	addr     netip.Addr
	identity *Identity
	engine   *Engine
	got      atomic.Int64
	changed  chan struct{}
}

func newLive(tb testing.TB, ids ...string) (*live, []*liveNode) {
	tb.Helper()
	l := &live{tb: tb, nodes: map[netip.Addr]*liveNode{}}
	ca := newTestCA(tb)
	var list []*liveNode
	for i, id := range ids {
		n := &liveNode{
			net: l, id: id, addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}),
			identity: testIdentity(tb, ca.credentials(tb, id, roleWorker)), changed: make(chan struct{}, 1),
		}
		e, err := New(Config{
			Identity: func() *Identity { return n.identity },
			Send: func(to netip.Addr, d []byte) {
				if peer := l.nodes[to]; peer != nil {
					peer.receive(n.addr, append([]byte(nil), d...))
				}
			},
			Changed: func(string) {
				select {
				case n.changed <- struct{}{}:
				default:
				}
			},
		})
		if err != nil {
			tb.Fatal(err)
		}
		n.engine = e
		e.SetEpochs(testEpochs(1, 2, 3))
		l.nodes[n.addr], list = n, append(list, n)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for _, n := range list {
		running.Go(func() {
			if err := n.engine.Run(ctx); err != nil {
				tb.Error(err)
			}
		})
	}
	tb.Cleanup(func() { cancel(); running.Wait() })
	return l, list
}

func (n *liveNode) receive(from netip.Addr, d []byte) {
	if kind, _ := ParseType(d); kind != Transport {
		n.engine.HandleHandshake(from, d)
		return
	}
	s := n.engine.Receiving(Index(d))
	if s == nil {
		return
	}
	fresh := []bool{false}
	text, counter, ok := s.Open(d)
	if ok {
		s.Accept([]uint64{counter}, fresh)
	}
	if fresh[0] {
		s.Opened(from)
		if len(text) > 0 {
			n.got.Add(1)
		}
	}
}

func (n *liveNode) send(to *liveNode, text string) bool {
	s, d := sealText(n.engine.Peer(to.id, Auto), text)
	if s == nil {
		return false
	}
	n.net.nodes[s.Addr()].receive(n.addr, d)
	return true
}

func (l *live) meet() {
	for _, n := range l.nodes {
		var infos []PeerInfo
		for _, m := range l.nodes {
			if m != n {
				infos = append(infos, PeerInfo{NodeID: m.id, Static: m.identity.state.Static, Addr: m.addr, Policies: []Policy{Auto}})
			}
		}
		n.engine.SetPeers(infos)
	}
}

// session waits for one to a peer.
func (n *liveNode) session(to *liveNode) *Session {
	n.net.tb.Helper()
	deadline := time.After(30 * time.Second)
	for {
		if s := n.engine.Peer(to.id, Auto).Sending(); s != nil {
			return s
		}
		select {
		case <-n.changed:
		case <-deadline:
			n.net.tb.Fatalf("%s has no session with %s: %+v", n.id, to.id, n.engine.Stats())
		}
	}
}

// TestConcurrently has many goroutines send, receive, ask and change peers at
// once, and the rekeying limit reached again and again: nothing is lost.
func TestConcurrently(t *testing.T) {
	l, nodes := newLive(t, "a", "b", "c")
	l.meet()
	a, b, c := nodes[0], nodes[1], nodes[2]
	a.session(b)
	b.session(a)
	var work sync.WaitGroup
	var flying sync.RWMutex
	var jumps atomic.Int64
	const each = 2000
	for _, way := range [][2]*liveNode{{a, b}, {b, a}, {a, b}, {b, a}} {
		work.Go(func() {
			for i := range each {
				flying.RLock()
				if !way[0].send(way[1], fmt.Sprint(i)) {
					t.Error("no session")
				}
				flying.RUnlock()
				if i%500 == 250 {
					flying.Lock() // the window goes on by millions
					if s := way[0].session(way[1]); s.next.Load() < s.limits.rekey {
						s.next.Store(s.limits.rekey - 3)
						jumps.Add(1)
					}
					flying.Unlock()
				}
			}
		})
	}
	done := make(chan struct{})
	var around sync.WaitGroup
	around.Go(func() {
		for i := uint64(0); ; i++ {
			select {
			case <-done:
				return
			default:
				l.meet()
				a.engine.SetEpochs(testEpochs(1, 2, 3))
				b.engine.SetEpochs(testEpochs(2, 3, 4))
				a.engine.Stats()
				a.engine.Alive("b")
				b.engine.Verified("a")
				c.engine.SetPeers(nil)
				c.send(a, "whether it comes or not")
			}
		}
	})
	work.Wait()
	close(done)
	around.Wait()
	if got := b.got.Load(); got != 2*each {
		t.Errorf("b got %d of %d", got, 2*each)
	}
	if got := a.got.Load(); got < 2*each {
		t.Errorf("a got %d of %d", got, 2*each)
	}
	for deadline := time.After(10 * time.Second); ; {
		if s := a.session(b); s.next.Load() < s.limits.rekey {
			break
		}
		select {
		case <-a.changed:
		case <-deadline:
			t.Fatal("no new key")
		}
	}
	t.Logf("%d times to the limit", jumps.Load())
}

// TestFloodLive has a session go on while 20,000 forged initiations with a good
// mac1 come as fast as they can.
func TestFloodLive(t *testing.T) {
	l, nodes := newLive(t, "a", "b")
	l.meet()
	a, b := nodes[0], nodes[1]
	a.session(b)
	b.session(a)
	forged := initiationOf(t, testIdentity(t, newTestCA(t).credentials(t, "x", roleWorker)), a.identity.state.Static, time.Now())
	forged[100] ^= 1
	remac(a.identity.state.Static, forged)
	var flood sync.WaitGroup
	flood.Go(func() {
		for i := range 20000 {
			a.engine.HandleHandshake(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1}), forged)
			if n := len(a.engine.queue); n > queueLen {
				t.Errorf("%d messages wait", n)
			}
		}
	})
	sent := int64(0)
	for range 5000 {
		if a.send(b, "x") && b.send(a, "y") {
			sent++
		}
	}
	flood.Wait()
	if sent != 5000 || a.got.Load() != sent || b.got.Load() != sent {
		t.Errorf("%d sent, %d and %d came", sent, a.got.Load(), b.got.Load())
	}
	if costly := a.engine.refused[RefusedHandshake].Load(); costly > 2000 {
		t.Errorf("%d forged initiations were computed with", costly)
	}
}

// TestHandlesAllocateNothing holds the promise of the package comment for what
// leads to a session.
func TestHandlesAllocateNothing(t *testing.T) {
	s := newSim(t, "a", "b")
	s.meet()
	s.connected(Auto)
	a, b := s.nodes[0], s.nodes[1]
	p, none := a.engine.Peer(b.id, Auto), a.engine.Peer("nobody", Auto)
	session := p.Sending()
	if n := testing.AllocsPerRun(100, func() {
		p.Want()
		none.Want()
		if a.engine.Receiving(session.local) != p.Sending() || !session.Addr().IsValid() {
			t.Error("another session")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkRefuse is what a message of a flood costs who receives it: without a good
// mac1, with one, and with one and a mac2.
func BenchmarkRefuse(b *testing.B) {
	s := newSim(b, "a")
	a, f := s.nodes[0], newForger(b, s.nodes[0])
	s.tap = func(netip.Addr, netip.Addr, []byte) bool { return false }
	s.asked[[2]netip.Addr{a.addr, a.addr}] = HandshakeLen // past the network
	a.engine.gate.loadedUntil.Store(int64(time.Hour))
	f.next(s.now)
	a.engine.identity().checker.reply(f.m, a.addr, s.now) // there is a secret from now on
	for _, bm := range []struct {
		name  string
		spoil int // byte before the end; 0: none
		mac2  bool
	}{{"stranger", macsLen, false}, {"member", 0, false}, {"mac2", 0, true}} {
		messages := make([][]byte, 4*addressCells) // no repetitions
		for i := range messages {
			m := bytes.Clone(f.next(s.now))
			if bm.mac2 {
				m[len(m)-1] = 1
			}
			if bm.spoil > 0 {
				m[len(m)-bm.spoil] ^= 1
			}
			messages[i] = m
		}
		b.Run(bm.name, func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				a.engine.HandleHandshake(a.addr, messages[i%len(messages)])
				i++
			}
			a.engine.catchUp(queueLen)
		})
	}
}

// BenchmarkHandshake is a whole handshake, both ends.
func BenchmarkHandshake(b *testing.B) {
	s := newSim(b, "a", "b")
	x, y := s.nodes[0], s.nodes[1]
	for b.Loop() {
		x.engine.SetPeers(s.infos(x, []Policy{Auto}))
		s.run(10 * time.Millisecond)
		if x.sending(y) == nil {
			b.Fatal("no session")
		}
		x.engine.SetPeers(nil)
	}
}

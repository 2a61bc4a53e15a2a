package vip

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ovnd/ovnd/dataplane/pkt"
	"github.com/ovnd/ovnd/encap"
)

// A countingBackend is a backend that workers share.
type countingBackend struct {
	addr           netip.Addr
	opened, closed atomic.Int64
	gone           atomic.Bool
}

func (b *countingBackend) Addr() netip.Addr   { return b.addr }
func (b *countingBackend) EndpointID() string { return b.addr.String() }
func (b *countingBackend) Opened()            { b.opened.Add(1) }
func (b *countingBackend) Closed()            { b.closed.Add(1) }
func (b *countingBackend) Failed(bool)        {}
func (b *countingBackend) Serving() bool      { return !b.gone.Load() }

// A crowd is one sandbox of which several workers have packets at once, to a
// service and past it, and those who look after its flows.
type crowd struct {
	*Table
	tables   *Tables
	backends []*countingBackend
	gone     atomic.Bool // the backends' endpoints
	done     chan struct{}
}

func (c *crowd) Begin(uint8, netip.AddrPort, netip.AddrPort) Attempt { return &crowdAttempt{crowd: c} }

func (c *crowd) Has(any, netip.Addr, string) (has, known bool) { return !c.gone.Load(), true }
func (c *crowd) Reset(any, []byte)                             {}

type crowdAttempt struct {
	*crowd
	n int
}

func (a *crowdAttempt) Exhausted() {}
func (a *crowdAttempt) Next() (Backend, bool) {
	if a.n++; a.n > len(a.backends) {
		return nil, rand.IntN(3) == 0
	}
	return a.backends[a.n-1], false
}

// look has time pass, and backends come and go.
func (c *crowd) look() {
	for now := uint32(1); ; now += uint32(rand.IntN(6)) {
		select {
		case <-c.done:
			return
		default:
		}
		c.gone.Store(rand.IntN(4) == 0)
		c.backends[rand.IntN(len(c.backends))].gone.Store(rand.IntN(4) == 0)
		c.tables.Look(now, c)
	}
}

func (c *crowd) work() {
	for {
		select {
		case <-c.done:
			return
		case j := <-c.tables.Jobs():
			j.Run()
		}
	}
}

func (c *crowd) send(m message, b Balancer, known bool) {
	frame := m.frame()
	ip, _ := encap.ParseIP(frame[pkt.MetaLen:])
	c.Out(frame, ip, b, known)
}

// packet has something pass: few ports and sequence numbers, so that much meets.
func (c *crowd) packet(r *rand.Rand) {
	client := netip.AddrPortFrom(client4.Addr(), uint16(40000+r.IntN(100)))
	backend := netip.AddrPortFrom(c.backends[r.IntN(len(c.backends))].addr, service4.Port())
	m := message{from: client, to: service4, udp: r.IntN(3) == 0, seq: uint32(r.IntN(2)), ack: uint32(1 + r.IntN(2))}
	flags := func(choice ...uint16) {
		if !m.udp {
			m.flags = choice[r.IntN(len(choice))]
		}
	}
	switch r.IntN(5) {
	case 0, 1:
		flags(syn, syn, syn, ack, ack, fin|ack, rst)
		c.send(m, c, false)
	case 2:
		flags(syn, ack, rst)
		m.to = backend
		c.send(m, nil, true)
	case 3:
		flags(synAck, synAck, rst|ack, ack, fin|ack, rst)
		m.from, m.to = backend, client
		c.In(m.frame())
	default:
		m.to = backend
		quoted := m.frame()
		ip, _ := encap.ParseIP(quoted[pkt.MetaLen:])
		e := make([]byte, pkt.MetaLen+encap.MaxPacketTooBigLen)
		n := encap.PutUnreachable(e[pkt.MetaLen:], ip, encap.HostUnreachable, backend.Addr())
		c.In(e[:pkt.MetaLen+n])
	}
	if r.IntN(50) == 0 { // all have waited
		c.mu.Lock()
		c.index.Load().each(func(f *flow) { f.asked = f.asked.Add(-time.Second) })
		c.mu.Unlock()
	}
}

// TestConcurrently: whatever meets whatever, each flow has its room once and gives
// it back once, and what was opened is closed.
func TestConcurrently(t *testing.T) {
	c := &crowd{tables: NewTables(), done: make(chan struct{})}
	for _, a := range []string{"10.10.0.11", "10.10.0.12", "10.10.0.13"} {
		c.backends = append(c.backends, &countingBackend{addr: netip.MustParseAddr(a)})
	}
	c.Table, c.tables.limit = c.tables.New("port"), 300
	var workers, others sync.WaitGroup
	others.Go(c.look)
	others.Go(c.work)
	for w := range uint64(4) {
		workers.Go(func() {
			r := rand.New(rand.NewPCG(w, 1))
			for range 20_000 {
				c.packet(r)
			}
		})
	}
	workers.Wait()
	close(c.done)
	others.Wait()
	flows, keys := 0, 0
	if x := c.index.Load(); x != nil {
		x.each(func(*flow) { flows++ })
		keys = x.entries
	}
	if st := c.tables.Stats(); st.Flows != flows || int(c.live.Load()) != flows || keys != 2*flows || st.Begun == 0 {
		t.Errorf("%d flows, %d keys; %+v", flows, keys, st)
	}
	c.Close()
	if st := c.tables.Stats(); st.Flows != 0 || st.UDP != 0 || c.live.Load() != 0 || c.others.Load() != 0 || c.udp.Load() != 0 {
		t.Errorf("after the end: %+v", st)
	}
	for _, b := range c.backends {
		if o, n := b.opened.Load(), b.closed.Load(); o != n || o == 0 {
			t.Errorf("%s was opened %d times and closed %d times", b.addr, o, n)
		}
	}
}

package vip

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"

	"github.com/ovnd/ovnd/dataplane/pkt"
	"github.com/ovnd/ovnd/encap"
)

// TestManyFlows: the index grows while others read it.
func TestManyFlows(t *testing.T) {
	p := newPort(t, &turns{backends: newTurns("10.10.0.11").backends})
	first := message{from: client4, to: service4, flags: ack, data: 10}
	_, to := p.connect(client4, service4)
	stop := make(chan struct{})
	var work sync.WaitGroup
	for range 2 {
		work.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				frame := first.frame()
				ip, _ := encap.ParseIP(frame[pkt.MetaLen:])
				if p.Out(frame, ip, p.b, false) != Translated || p.In(message{from: to, to: client4, flags: ack}.frame()) != Translated {
					t.Error("a flow is lost while others come and go")
					return
				}
			}
		})
	}
	for i := range 20_000 {
		from := netip.AddrPortFrom(client4.Addr(), uint16(1+i%30_000))
		p.connect(from, service4)
		if rand.IntN(2) == 0 {
			p.send(message{from: from, to: service4, flags: rst})
		}
		if i%5000 == 0 {
			p.all.Look(uint32(i/1000+1), p)
		}
	}
	close(stop)
	work.Wait()
	if n := len(p.index.Load().buckets); n <= minBuckets {
		t.Errorf("%d buckets", n)
	}
}

// TestAllocates nothing per packet of a flow.
func TestAllocates(t *testing.T) {
	p := newPort(t, newTurns("10.10.0.11"))
	_, to := p.connect(client4, service4)
	out, in := message{from: client4, to: service4, flags: ack, data: 10}.frame(), message{from: to, to: client4, flags: ack}.frame()
	var b Balancer = p.b
	back := newChange(netip.AddrPortFrom(to.Addr(), client4.Port()), netip.AddrPortFrom(service4.Addr(), client4.Port()))
	forth := newChange(netip.AddrPortFrom(service4.Addr(), client4.Port()), netip.AddrPortFrom(to.Addr(), client4.Port()))
	if n := testing.AllocsPerRun(1000, func() {
		ip, _ := encap.ParseIP(out[pkt.MetaLen:])
		if p.Out(out, ip, b, false) != Translated || p.In(in) != Translated {
			t.Fatal("not translated")
		}
		q, _ := locate(out)
		back.apply(&q, true)
		q, _ = locate(in)
		forth.apply(&q, false)
	}); n != 0 {
		t.Errorf("%v allocations per packet", n)
	}
}

func BenchmarkOut(b *testing.B) {
	balancer := newTurns("10.10.0.11")
	table := NewTables().New(nil)
	defer table.Close()
	first := message{from: client4, to: service4, udp: true}.frame()
	ip, _ := encap.ParseIP(first[pkt.MetaLen:])
	table.Out(first, ip, balancer, false)
	frame := message{from: client4, to: service4, udp: true, data: 1000}.frame()
	was := append([]byte(nil), frame...)
	for b.Loop() {
		copy(frame, was[:60])
		ip, _ := encap.ParseIP(frame[pkt.MetaLen:])
		if table.Out(frame, ip, balancer, false) != Translated {
			b.Fatal("not translated")
		}
	}
}

func BenchmarkIn(b *testing.B) {
	balancer := newTurns("10.10.0.11")
	table := NewTables().New(nil)
	defer table.Close()
	first := message{from: client4, to: service4, udp: true}.frame()
	ip, _ := encap.ParseIP(first[pkt.MetaLen:])
	table.Out(first, ip, balancer, false)
	frame := message{from: netip.MustParseAddrPort("10.10.0.11:80"), to: client4, udp: true, data: 1000}.frame()
	was := append([]byte(nil), frame...)
	for b.Loop() {
		copy(frame, was[:60])
		if table.In(frame) != Translated {
			b.Fatal("not translated")
		}
	}
}

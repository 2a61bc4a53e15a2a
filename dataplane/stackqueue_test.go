package dataplane

import (
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/ovnd/ovnd/dataplane/pkt"
	"github.com/ovnd/ovnd/encap"
)

// echoRequest is a ping behind its metadata.
func echoRequest(src, dst netip.Addr) []byte {
	b := make([]byte, pkt.MetaLen+28)
	p := encap.PutIPv4(b[pkt.MetaLen:], src, dst, encap.ProtocolICMP, 8)
	p[20] = 8
	return b
}

// TestStacksSpeak has two stacks of one node send to each other, from many
// goroutines and with a lock of each held that its deliveries take: nobody waits
// for himself, and all answers arrive.
func TestStacksSpeak(t *testing.T) {
	w := twoNodes(t, 1500, false)
	w.network("net", 4097, 1450, "10.10.0.0/16")
	addrs := []netip.Addr{netip.MustParseAddr("10.10.0.5"), netip.MustParseAddr("10.10.0.6")}
	var stacks []*echoStack
	for _, a := range addrs {
		stacks = append(stacks, w.nodes[0].stack(StackPortConfig{NetworkID: "net", Addrs: []netip.Addr{a}}, false))
	}
	const senders, pings = 8, 100
	var all sync.WaitGroup
	for i := range senders {
		me, other := stacks[i%2], addrs[(i+1)%2]
		all.Go(func() {
			for range pings {
				me.mu.Lock() // as gVisor's, which deliver takes
				me.port.Inject([][]byte{echoRequest(addrs[i%2], other)})
				me.mu.Unlock()
			}
		})
	}
	all.Wait()
	const each = senders / 2 * pings * 2 // requests of the other, and answers
	for i, s := range stacks {
		for began := time.Now(); s.count(addrs[i].String()) < each; time.Sleep(time.Millisecond) {
			if time.Since(began) > 10*time.Second {
				t.Fatalf("stack %d heard %d packets of %d; drops %v", i, s.count(addrs[i].String()), each, w.nodes[0].sw.Stats().Total.Drops)
			}
		}
	}
	w.closed()
}

// TestStackQueueFull: what a stack does not take in time is dropped and counted.
func TestStackQueueFull(t *testing.T) {
	w := twoNodes(t, 1500, false)
	w.network("net", 4097, 1450, "10.10.0.0/16")
	own, other := netip.MustParseAddr("10.10.0.5"), netip.MustParseAddr("10.10.0.6")
	sender := w.nodes[0].stack(StackPortConfig{NetworkID: "net", Addrs: []netip.Addr{own}}, false)
	slow := w.nodes[0].stack(StackPortConfig{NetworkID: "net", Addrs: []netip.Addr{other}}, false)
	slow.mu.Lock() // holds up its deliveries
	const more = 10
	for range maxStackFrames + 1 + more { // one is being delivered, perhaps
		sender.port.Inject([][]byte{echoRequest(own, other)})
	}
	w.nodes[0].drops(DropStackFull, more)
	slow.mu.Unlock()
	w.closed()
}

package dataplane_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ovnd/ovnd/bench/lab"
	"github.com/ovnd/ovnd/crypto"
	"github.com/ovnd/ovnd/dataplane"
)

// A counted is a flow of numbered datagrams at a steady pace, far below what the
// nodes carry: none may be lost.
type counted struct {
	sent, got, out atomic.Int64 // out: arrived out of their order
}

func count(t *testing.T, from, to *lab.Host, addr string) (*counted, func()) {
	t.Helper()
	var in net.PacketConn
	var out net.Conn
	if err := to.Do(func() (err error) { in, err = net.ListenPacket("udp", addr); return err }); err != nil {
		t.Fatal(err)
	}
	if err := from.Do(func() (err error) { out, err = net.Dial("udp", addr); return err }); err != nil {
		t.Fatal(err)
	}
	c, done, ended := &counted{}, make(chan struct{}), make(chan struct{})
	go func() {
		b, last := make([]byte, 64), int64(-1)
		for {
			if _, _, err := in.ReadFrom(b); err != nil {
				return
			}
			n := int64(binary.BigEndian.Uint64(b))
			if n < last {
				c.out.Add(1)
			}
			last = n
			c.got.Add(1)
		}
	}()
	go func() {
		defer close(ended)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for b := make([]byte, 64); ; {
			select {
			case <-done:
				return
			case <-tick.C:
				binary.BigEndian.PutUint64(b, uint64(c.sent.Load()))
				if _, err := out.Write(b); err == nil {
					c.sent.Add(1)
				}
			}
		}
	}()
	t.Cleanup(func() { _, _ = in.Close(), out.Close() })
	return c, func() { close(done); <-ended }
}

// stream sends over one connection at a steady pace until stop is called, which
// compares what arrived.
func stream(t *testing.T, from, to *lab.Host, addr string) (stop func()) {
	t.Helper()
	conn, far := connect(t, from, to, addr)
	got := make(chan error, 1)
	block := noise(64<<10, 9)
	blocks := new(atomic.Int64)
	go func() {
		b := make([]byte, len(block))
		for {
			if _, err := io.ReadFull(far, b); err != nil {
				got <- nil
				return
			}
			if string(b) != string(block) {
				got <- fmt.Errorf("block %d arrived changed", blocks.Load())
				return
			}
			blocks.Add(1)
		}
	}()
	done, ended := make(chan struct{}), make(chan int64)
	go func() {
		tick := time.NewTicker(5 * time.Millisecond) // 100 Mbit/s
		defer tick.Stop()
		for n := int64(0); ; {
			select {
			case <-done:
				_ = conn.Close()
				ended <- n
				return
			case <-tick.C:
				if _, err := conn.Write(block); err == nil {
					n++
				}
			}
		}
	}()
	return func() {
		t.Helper()
		close(done)
		sent := <-ended
		if err := <-got; err != nil {
			t.Error(err)
		}
		if n := blocks.Load(); n != sent || n == 0 {
			t.Errorf("%d of %d blocks arrived", n, sent)
		}
	}
}

// TestRotation rotates the swarm's keys under traffic, one node always a step
// behind the other, with new sessions for each: no packet is lost.
func TestRotation(t *testing.T) {
	rotations := 4
	if os.Getenv("OVND_SOAK") != "" {
		rotations = 100
	}
	w := sealed(t, 2, false)
	n1, n2 := w.nodes[0], w.nodes[1]
	a, b := w.task(n1, "10.0.0.1"), w.task(n2, "10.0.0.2")
	w.session(n1, n2)
	flow, stopFlow := count(t, a, b, "10.0.0.2:7000")
	back, stopBack := count(t, b, a, "10.0.0.1:7000")
	stopStream := stream(t, a, b, "10.0.0.2:8080")
	seen := make(map[*crypto.Session]bool)
	for i := range uint64(rotations) {
		first, second := n1, n2
		if i%2 == 1 {
			first, second = n2, n1
		}
		before := w.session(n1, n2)
		for _, n := range []*sealedNode{first, second} {
			n.engine.SetEpochs(ring(10 + i))
			w.pass(61*time.Second, flow, back)
		}
		w.until("a new session", func() bool { w.wake(); return w.session(n1, n2) != before })
		seen[w.session(n1, n2)] = true
	}
	stopFlow()
	stopBack()
	stopStream()
	w.until("the last datagrams", func() bool { return flow.got.Load() == flow.sent.Load() && back.got.Load() == back.sent.Load() })
	t.Logf("%d rotations, %d sessions, %d and %d datagrams", rotations, len(seen), flow.got.Load(), back.got.Load())
	if len(seen) != rotations {
		t.Errorf("%d sessions of %d rotations", len(seen), rotations)
	}
	for _, n := range w.nodes {
		for _, why := range []dataplane.Drop{
			dataplane.DropNoSession, dataplane.DropUnknownSession, dataplane.DropBadSealed, dataplane.DropReplayed, dataplane.DropHoldFull,
		} {
			if d := drops(n.sw)[why.String()]; d != 0 {
				t.Errorf("%s: %d packets dropped as %s", n.id, d, why)
			}
		}
		closes(t, n.sw)
	}
}

// ring is the three keys of the swarm whose newest is number n.
func ring(n uint64) (epochs []crypto.Epoch) {
	for tag := n - 2; tag <= n; tag++ {
		epochs = append(epochs, crypto.Epoch{Tag: tag, Key: fmt.Appendf(nil, "key number %5d", tag)})
	}
	return epochs
}

// pass lets time pass for the engines, and datagrams on their way all the while, so
// that no peer seems silent.
func (w *sealedWorld) pass(d time.Duration, flows ...*counted) {
	w.t.Helper()
	const step = time.Second
	for ; d > 0; d -= step {
		w.ahead.Add(int64(step))
		w.wake()
		for _, f := range flows {
			want := f.got.Load() + 2
			w.until("datagrams pass", func() bool { return f.got.Load() >= want })
		}
	}
}

// wake has the engines look at their clock, which has jumped.
func (w *sealedWorld) wake() {
	for _, n := range w.nodes {
		n.meet(w)
	}
}

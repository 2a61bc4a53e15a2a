package dataplane_test

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/blake2s"
	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/sys/unix"

	"github.com/ovnd/ovnd/bench/lab"
	"github.com/ovnd/ovnd/crypto"
)

// A forger sends first messages to a port, many a second.
type forger struct {
	from      *net.UDPConn
	forged    [][]byte // made before, so that it takes no more of this machine than it must
	perSecond int
}

// newForger has a node's host forge messages to another node, with known as who
// knows the node's public key, as members do: then they have a good mac1.
func newForger(w *sealedWorld, at, to *sealedNode, known bool) *forger {
	w.t.Helper()
	static := to.identity.Statement().Static
	key := blake2s.Sum256(append([]byte("mac1----"), static[:]...))
	mac1, err := chacha20poly1305.New(key[:])
	if err != nil {
		w.t.Fatal(err)
	}
	f := &forger{from: w.from(at.host, at.addr), forged: make([][]byte, 8192), perSecond: 20000}
	for i := range f.forged {
		b := make([]byte, crypto.HandshakeLen)
		_, _ = rand.Read(b) // never fails (crypto/rand)
		b[0] = byte(crypto.Initiation)
		binary.BigEndian.PutUint64(b[4:], epoch[0].Tag)
		if known {
			clear(b[len(b)-16:])
			mac1.Seal(b[:len(b)-32], b[12:24], nil, b[:len(b)-32])
		}
		f.forged[i] = b
	}
	return f
}

// send does it until stop is called, which returns how many there were and what
// they took of a processor, the kernel's way to the receiver's queue with it.
func (f *forger) send(to netip.AddrPort) (stop func() (sent int, used time.Duration)) {
	var sent int
	var used time.Duration
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		before, began := processor(unix.CLOCK_THREAD_CPUTIME_ID), time.Now()
		for {
			select {
			case <-done:
				used = processor(unix.CLOCK_THREAD_CPUTIME_ID) - before
				return
			default:
			}
			for due := int(time.Since(began).Seconds() * float64(f.perSecond)); sent < due; sent++ {
				_, _ = f.from.WriteToUDPAddrPort(f.forged[sent%len(f.forged)], to)
			}
			_ = unix.Nanosleep(&unix.Timespec{Nsec: int64(time.Millisecond)}, nil)
		}
	}()
	return func() (int, time.Duration) {
		close(done)
		<-ended
		return sent, used
	}
}

// processor returns what a clock of processor time says.
func processor(clock int32) time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(clock, &ts) // of a clock that there is
	return time.Duration(ts.Nano())
}

// connect opens a connection between two hosts, which lasts until the test ends.
func connect(t *testing.T, from, to *lab.Host, addr string) (near, far net.Conn) {
	t.Helper()
	var ln net.Listener
	if err := to.Do(func() (err error) { ln, err = net.Listen("tcp", addr); return err }); err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if err := from.Do(func() (err error) { near, err = net.DialTimeout("tcp", addr, patience); return err }); err != nil {
		t.Fatal(err)
	}
	far, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = near.Close(), far.Close() })
	return near, far
}

// pour sends over one connection as fast as it goes until the test ends, and
// counts what arrives.
func pour(t *testing.T, from, to *lab.Host, addr string) *atomic.Int64 {
	t.Helper()
	conn, far := connect(t, from, to, addr)
	arrived := new(atomic.Int64)
	go func() {
		b := make([]byte, 256<<10)
		for {
			n, err := far.Read(b)
			arrived.Add(int64(n))
			if err != nil {
				return
			}
		}
	}()
	go func() { _, _ = io.Copy(conn, zeros{}) }()
	return arrived
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

// A floodRate is what established traffic does for a while: its rate, and what its
// bytes cost of the processors, that of a forger left out.
type floodRate struct{ rate, cost float64 }

// measure lets traffic go on for a while, next to a forger if there is one.
func measure(arrived *atomic.Int64, window time.Duration, f *forger, to netip.AddrPort) (r floodRate, forger time.Duration, sent int) {
	stop := func() (int, time.Duration) { return 0, 0 }
	if f != nil {
		stop = f.send(to)
	}
	before, began, used := arrived.Load(), time.Now(), processor(unix.CLOCK_PROCESS_CPUTIME_ID)
	time.Sleep(window)
	bytes := float64(arrived.Load() - before)
	r.rate = bytes / time.Since(began).Seconds()
	sent, forger = stop()
	r.cost = (processor(unix.CLOCK_PROCESS_CPUTIME_ID) - used - forger).Seconds() / bytes
	return r, forger, sent
}

// TestFlood has strangers and members forge 20,000 first messages a second: what
// is established goes on, and nothing grows. The rates are reported: as they are,
// and compared with the forger at work towards a socket that nobody reads, since it
// has its part of this machine either way; and what a byte costs the nodes and the
// traffic's ends, which who else uses the machine does not change. With OVND_SOAK
// the rate is held to what is promised.
func TestFlood(t *testing.T) {
	soak := os.Getenv("OVND_SOAK") != ""
	window, rounds := 200*time.Millisecond, 2
	if soak {
		window, rounds = 2*time.Second, 7
	}
	for _, known := range []bool{false, true} {
		t.Run(fmt.Sprintf("public key known=%t", known), func(t *testing.T) {
			w := sealed(t, 3, false)
			a, b := w.task(w.nodes[0], "10.0.0.1"), w.task(w.nodes[1], "10.0.0.2")
			w.session(w.nodes[0], w.nodes[1])
			attacker := newForger(w, w.nodes[2], w.nodes[1], known)
			deaf := w.from(w.nodes[1].host, w.nodes[1].addr).LocalAddr().(*net.UDPAddr).AddrPort()
			arrived := pour(t, a, b, "10.0.0.2:8080")
			measure(arrived, window, nil, deaf) // slow start
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			var plain, fair, cost []float64
			var used time.Duration
			for range rounds {
				calm, _, _ := measure(arrived, window, nil, deaf)
				beside, _, _ := measure(arrived, window, attacker, deaf)
				flooded, forger, sent := measure(arrived, window, attacker, w.nodes[1].sw.UnderlayAddr())
				if sent < int(15000*window.Seconds()) {
					t.Logf("only %d sent", sent)
				}
				plain, fair = append(plain, flooded.rate/calm.rate), append(fair, flooded.rate/beside.rate)
				cost = append(cost, flooded.cost/calm.cost)
				used += forger
			}
			runtime.GC()
			runtime.ReadMemStats(&after)
			r := median(fair)
			t.Logf("at %.2f of the rate without, %.2f of that beside the forger, which takes %.0f %% of a processor; a byte costs %.2f times as much; heap %d → %d KiB",
				median(plain), r, 100*used.Seconds()/(float64(rounds)*window.Seconds()), median(cost), before.HeapAlloc>>10, after.HeapAlloc>>10)
			t.Logf("each: %.2f, %.2f, %.2f", plain, fair, cost)
			if soak && r < 0.8 {
				t.Errorf("established traffic kept %.2f of its rate, want 0.8", r)
			}
			if r == 0 {
				t.Error("nothing arrived during the flood")
			}
			if after.HeapAlloc > before.HeapAlloc+8<<20 {
				t.Errorf("the heap grew from %d to %d KiB", before.HeapAlloc>>10, after.HeapAlloc>>10)
			}
			w.until("forged messages are refused", func() bool { return len(w.nodes[1].engine.Stats().Refused) > 0 })
			if load := w.nodes[1].engine.Stats().Refused[crypto.RefusedHandshake]; load > 1000 {
				t.Errorf("%d forged messages were computed with", load)
			}
		})
	}
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

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

	"golang.zx2c4.com/wireguard/device"

	"github.com/ovnd/ovnd/bench/lab"
	"github.com/ovnd/ovnd/crypto"
)

// A flood sends forged first messages to a node until stop is called, which
// returns how many.
func flood(t *testing.T, w *sealedWorld, from *net.UDPConn, to *sealedNode, perSecond int, known bool) (stop func() int) {
	t.Helper()
	var macs device.CookieGenerator
	macs.Init(device.NoisePublicKey(to.identity.Statement().Static))
	// Made before, so that the forger takes no more of this machine than it must.
	forged := make([][]byte, 256)
	for i := range forged {
		b := make([]byte, crypto.HandshakeLen)
		_, _ = rand.Read(b) // never fails (crypto/rand)
		b[0] = byte(crypto.Initiation)
		binary.BigEndian.PutUint64(b[4:], epoch[0].Tag)
		if known { // to who knows the public key, as members do
			macs.AddMacs(b)
		}
		forged[i] = b
	}
	done, ended := make(chan struct{}), make(chan int)
	go func() {
		sent, began := 0, time.Now()
		defer func() { ended <- sent }()
		for {
			select {
			case <-done:
				return
			default:
			}
			for due := int(time.Since(began).Seconds() * float64(perSecond)); sent < due; sent++ {
				_, _ = from.WriteToUDPAddrPort(forged[sent%len(forged)], to.sw.UnderlayAddr())
			}
			time.Sleep(time.Millisecond)
		}
	}()
	return func() int { close(done); return <-ended }
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

// TestFlood has strangers and members forge 20,000 first messages a second: what
// is established goes on, and nothing grows. The rates are reported; with
// OVND_SOAK the ratio is held to what is promised.
func TestFlood(t *testing.T) {
	soak := os.Getenv("OVND_SOAK") != ""
	window, rounds := 300*time.Millisecond, 2
	if soak {
		window, rounds = 2*time.Second, 5
	}
	for _, known := range []bool{false, true} {
		t.Run(fmt.Sprintf("public key known=%t", known), func(t *testing.T) {
			w := sealed(t, 3, false)
			a, b := w.task(w.nodes[0], "10.0.0.1"), w.task(w.nodes[1], "10.0.0.2")
			w.session(w.nodes[0], w.nodes[1])
			arrived := pour(t, a, b, "10.0.0.2:8080")
			attacker := w.from(w.nodes[2].host, netip.MustParseAddr("192.0.2.3"))
			rate := func() float64 {
				before, began := arrived.Load(), time.Now()
				time.Sleep(window)
				return float64(arrived.Load()-before) / time.Since(began).Seconds()
			}
			rate() // slow start
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			ratios := make([]float64, 0, rounds)
			for range rounds {
				calm := rate()
				stop := flood(t, w, attacker, w.nodes[1], 20000, known)
				ratios = append(ratios, rate()/calm)
				if sent := stop(); sent < int(15000*window.Seconds()) {
					t.Logf("only %d sent", sent)
				}
			}
			runtime.GC()
			runtime.ReadMemStats(&after)
			r := median(ratios)
			t.Logf("at %.2f of the rate without, %v; heap %d → %d KiB", r, ratios, before.HeapAlloc>>10, after.HeapAlloc>>10)
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
		})
	}
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

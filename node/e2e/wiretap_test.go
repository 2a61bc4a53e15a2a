package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ovnd/ovnd/bench/lab"
)

// A wiretap looks for strings of bytes in every frame that an underlay carries.
type wiretap struct {
	t    *testing.T
	mu   sync.Mutex
	want map[string][]byte
	seen map[string]int // frames, by the name of what is in them
	all  int
}

// tap listens on an interface of each host until the test ends.
func tap(t *testing.T, dev string, hosts ...*lab.Host) *wiretap {
	t.Helper()
	w := &wiretap{t: t, want: map[string][]byte{}, seen: map[string]int{}}
	tapped := map[*lab.Host]bool{}
	for _, h := range hosts {
		if tapped[h] {
			continue
		}
		tapped[h] = true
		wire := h.Wire(dev)
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan struct{})
		t.Cleanup(func() { cancel(); <-ended }) // before the wire is closed
		go func() {
			defer close(ended)
			for {
				f, err := wire.Next(ctx)
				if errors.Is(err, unix.ENETDOWN) {
					continue // it may be up again
				}
				if err != nil {
					if ctx.Err() == nil {
						t.Errorf("wiretap: %v", err)
					}
					return
				}
				w.look(f.Data)
			}
		}()
	}
	return w
}

func (w *wiretap) look(frame []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all++
	for name, b := range w.want {
		if bytes.Contains(frame, b) {
			w.seen[name]++
		}
	}
}

// watch looks for b from now on.
func (w *wiretap) watch(name string, b []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.want[name] = b
}

// watchNetwork looks for VXLAN frames of the network, wherever they begin: the
// frames of a wiretap may hold many datagrams, which the kernel has not cut yet.
func (w *wiretap) watchNetwork(n *node, network string) {
	w.t.Helper()
	w.watch("VXLAN of "+network, vxlanHeader(n.vni(network)))
}

// vxlanHeader is the header of RFC 7348 §5: flags, reserved, VNI, reserved.
func vxlanHeader(vni uint32) []byte {
	h := binary.BigEndian.AppendUint32(nil, 0x08<<24)
	return binary.BigEndian.AppendUint32(h, vni<<8)
}

func (w *wiretap) count(name string) (frames, all int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen[name], w.all
}

// expectSeen waits for frames with what has this name: the wiretap works.
func (w *wiretap) expectSeen(name string) {
	w.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		seen, all := w.count(name)
		if seen > 0 {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("%s is in none of %d frames: the wiretap is deaf", name, all)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// expectUnseen checks that nothing with one of these names was on the wire.
func (w *wiretap) expectUnseen(names ...string) {
	w.t.Helper()
	for _, name := range names {
		if seen, all := w.count(name); seen > 0 {
			w.t.Errorf("%s is in %d of %d frames on the underlay", name, seen, all)
		}
	}
}

// vni is the network's VXLAN ID.
func (n *node) vni(network string) uint32 {
	n.t.Helper()
	out := n.must("network", "inspect", "--format", fmt.Sprintf(`{{index .Options %q}}`, vniOption), network)
	vni, err := strconv.ParseUint(strings.TrimSpace(out), 10, 24)
	if err != nil {
		n.t.Fatal(err)
	}
	return uint32(vni)
}

// Strings that must never be seen on an underlay, and one that must: the same
// traffic on a plain network, which shows that the wiretap works.
const (
	canary      = "canary-sealed-5be1f2a07c"
	plainCanary = "canary-plain-9d3377e810"
)

// tapCanaries is a wiretap for a sealed and a plain network.
func tapCanaries(t *testing.T, dev string, m *node, hosts ...*lab.Host) *wiretap {
	t.Helper()
	w := tap(t, dev, hosts...)
	w.watch(canary, []byte(canary))
	w.watch(plainCanary, []byte(plainCanary))
	w.watchNetwork(m, "sealed")
	w.watchNetwork(m, "plain")
	return w
}

// checkCanaries checks what a wiretap of tapCanaries has seen.
func (w *wiretap) checkCanaries() {
	w.t.Helper()
	w.expectSeen(plainCanary)
	w.expectSeen("VXLAN of plain")
	w.expectUnseen(canary, "VXLAN of sealed")
}

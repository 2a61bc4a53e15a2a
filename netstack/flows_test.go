package netstack

import (
	"bytes"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"

	"github.com/ovnd/ovnd/discovery/directory"
)

// serveUDP has h answer each datagram to port with what answer makes of it.
func serveUDP(t *testing.T, h *host, port uint16, answer func([]byte) []byte) {
	t.Helper()
	local := h.full(port)
	c, err := gonet.DialUDP(h.Stack, &local, nil, h.protocol())
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	work.Go(func() {
		buf := make([]byte, 65535)
		for {
			n, from, err := c.ReadFrom(buf)
			if err != nil {
				return
			}
			c.WriteTo(answer(buf[:n]), from)
		}
	})
	t.Cleanup(func() {
		c.Close()
		work.Wait()
	})
}

// named prefixes what came with the host's last byte.
func named(h *host) func([]byte) []byte {
	return func(b []byte) []byte { return fmt.Appendf(nil, "%d %s", h.addr.As4()[3], b) }
}

// dialUDP opens a flow from h to the VIP.
func dialUDP(t *testing.T, h *host, port uint16) net.Conn {
	t.Helper()
	c, err := gonet.DialUDP(h.Stack, nil, &tcpip.FullAddress{Addr: toAddr(vipA), Port: port}, h.protocol())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// exchange sends a datagram and returns the answer, "" if none came soon. gonet
// reports an ICMP error on the next call.
func exchange(t *testing.T, c net.Conn, b []byte, patience time.Duration) string {
	t.Helper()
	if _, err := c.Write(b); err != nil {
		return "error: " + err.Error()
	}
	c.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 65535)
	n, err := c.Read(buf)
	if err != nil {
		return ""
	}
	return string(buf[:n])
}

func TestUDPFlows(t *testing.T) {
	l := newLAN(t)
	for _, addr := range []string{"10.10.0.11", "10.10.0.12", "10.10.0.13"} {
		h := l.addBackend(addr)
		serveUDP(t, h, 53, named(h))
	}
	client := l.addHost("10.10.0.20")
	l.publish()
	got := make(map[string]int)
	for range 6 {
		c := dialUDP(t, client, 53)
		first := exchange(t, c, []byte("a"), 5*time.Second)
		for range 3 {
			if again := exchange(t, c, []byte("a"), 5*time.Second); again != first {
				t.Errorf("a flow went from %q to %q", first, again)
			}
		}
		got[first]++
	}
	if len(got) != 3 || got["11 a"] != 2 || got["12 a"] != 2 || got["13 a"] != 2 {
		t.Errorf("answers %v", got)
	}
	if st := l.b.Stats(); st.ActiveFlows != 6 || st.Flows != 6 {
		t.Errorf("stats %+v", st)
	}
	// A datagram far above the MTU, which travels in fragments.
	big := bytes.Repeat([]byte("x"), 20000)
	if got := exchange(t, dialUDP(t, client, 53), big, 5*time.Second); len(got) != len(big)+3 || !strings.HasSuffix(got, string(big)) {
		t.Errorf("a datagram of %d bytes came back as one of %d", len(big), len(got))
	}
}

// TestUDPRefused: the next datagram goes to the next backend; when all have
// refused, the client is refused.
func TestUDPRefused(t *testing.T) {
	l := newLAN(t)
	l.addBackend("10.10.0.11")
	l.addBackend("10.10.0.12")
	alive := l.addBackend("10.10.0.13")
	serveUDP(t, alive, 53, named(alive))
	client := l.addHost("10.10.0.20")
	l.publish()
	for range 3 { // wherever the turn stands
		c := dialUDP(t, client, 53)
		eventually(t, "the backend that is alive answers", func() bool {
			return exchange(t, c, []byte("a"), 50*time.Millisecond) == "13 a"
		})
	}
	c := dialUDP(t, client, 54)
	eventually(t, "a port that all refuse is refused", func() bool {
		return strings.Contains(exchange(t, c, []byte("a"), 50*time.Millisecond), "refused")
	})
	eventually(t, "failures are counted", func() bool {
		var n uint64
		for _, b := range l.b.Stats().Services[0].Backends {
			n += b.Failures
		}
		return n >= 3
	})
}

// TestUDPFlowsEnd: at once when the backend is removed, not while it drains.
func TestUDPFlowsEnd(t *testing.T) {
	l := newLAN(t)
	old := l.addBackend("10.10.0.11")
	serveUDP(t, old, 53, named(old))
	client := l.addHost("10.10.0.20")
	l.publish()
	c := dialUDP(t, client, 53)
	exchange(t, c, []byte("a"), 5*time.Second)
	fresh := l.addBackend("10.10.0.12")
	serveUDP(t, fresh, 53, named(fresh))
	l.drain(old)
	l.publish()
	if got := exchange(t, c, []byte("b"), 5*time.Second); got != "11 b" {
		t.Errorf("while its backend drains a flow got %q", got)
	}
	if got := exchange(t, dialUDP(t, client, 53), []byte("b"), 5*time.Second); got != "12 b" {
		t.Errorf("a new flow got %q", got)
	}
	l.remove(old)
	l.publish()
	if n := l.b.Stats().ActiveFlows; n != 1 {
		t.Errorf("%d flows after the backend was removed", n)
	}
	if got := exchange(t, c, []byte("c"), 5*time.Second); got != "12 c" {
		t.Errorf("the flow of a backend that was removed got %q", got)
	}
}

// TestUDPFlowsExpire, those that had no answer sooner.
func TestUDPFlowsExpire(t *testing.T) {
	l := newLAN(t)
	h := l.addBackend("10.10.0.11")
	serveUDP(t, h, 53, named(h))
	client := l.addHost("10.10.0.20")
	l.publish()
	answered := dialUDP(t, client, 53)
	exchange(t, answered, []byte("a"), 5*time.Second)
	l.cut(h.addr)
	exchange(t, dialUDP(t, client, 53), []byte("a"), time.Millisecond)
	if n := l.b.flows.count(); n != 2 {
		t.Fatalf("%d flows", n)
	}
	now := time.Now()
	l.b.expireFlows(now.Add(l.b.cfg.FlowTimeout - 5*time.Second))
	if n := l.b.flows.count(); n != 2 {
		t.Errorf("%d flows before any timeout", n)
	}
	l.b.expireFlows(now.Add(l.b.cfg.FlowTimeout + time.Second))
	if n := l.b.flows.count(); n != 1 {
		t.Errorf("%d flows after the timeout of those without an answer", n)
	}
	l.b.expireFlows(now.Add(l.b.cfg.FlowIdleTimeout + time.Second))
	if n := l.b.flows.count(); n != 0 {
		t.Errorf("%d flows after the timeout of all", n)
	}
}

// TestUDPFlowsAreCapped: one client has two thirds at most; a flow that had no
// answer gives way, one that had does not.
func TestUDPFlowsAreCapped(t *testing.T) {
	l := newLAN(t, func(c *BalancerConfig) { c.MaxFlows = 6 })
	h := l.addBackend("10.10.0.11")
	serveUDP(t, h, 53, func(b []byte) []byte { return slices.Clone(b) })
	greedy, other := l.addHost("10.10.0.20"), l.addHost("10.10.0.21")
	l.publish()
	for i := range 4 {
		if got := exchange(t, dialUDP(t, greedy, 53), []byte("a"), 5*time.Second); got != "a" {
			t.Fatalf("flow %d: %q", i, got)
		}
	}
	if got := exchange(t, dialUDP(t, greedy, 53), []byte("a"), 20*time.Millisecond); got != "" {
		t.Errorf("a client has more than its share: %q", got)
	}
	l.cut(h.addr)
	for range 2 {
		exchange(t, dialUDP(t, other, 53), []byte("a"), time.Millisecond)
	}
	eventually(t, "all places are taken", func() bool { return l.b.Stats().ActiveFlows == 6 })
	exchange(t, dialUDP(t, other, 53), []byte("a"), time.Millisecond)
	eventually(t, "a flow gave way to another", func() bool { st := l.b.Stats(); return st.Flows == 7 && st.ActiveFlows == 6 })
	answered := 0
	l.b.flows.mu.Lock()
	for _, f := range l.b.flows.flows {
		if f.answered.Load() {
			answered++
		}
	}
	l.b.flows.mu.Unlock()
	if answered != 4 {
		t.Errorf("%d of 4 flows that had answers are left", answered)
	}
	if l.b.Stats().FlowsOverCap == 0 {
		t.Error("nothing was counted as over the cap")
	}
}

// TestUDPDialService: what the ingress uses ends with the backend as well.
func TestUDPDialService(t *testing.T) {
	l := newLAN(t)
	h := l.addBackend("10.10.0.11")
	serveUDP(t, h, 53, named(h))
	l.publish()
	c, err := l.b.DialService(t.Context(), "id-web", directory.Port{Protocol: directory.UDP, Target: 53, Published: 5353})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := exchange(t, c, []byte("a"), 5*time.Second); got != "11 a" {
		t.Errorf("answer %q", got)
	}
	l.remove(h)
	l.publish()
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the flow of a backend that was removed goes on")
	}
	if st := l.b.Stats(); st.Active != 0 {
		t.Errorf("stats %+v", st)
	}
}

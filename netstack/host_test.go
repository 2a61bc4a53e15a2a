package netstack

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ovnd/ovnd/discovery/directory"
)

// newTestHost puts a Host on the lan, whose ports lead where target says.
func newTestHost(t *testing.T, l *lan, addr string, target func(directory.Protocol, uint16) (netip.AddrPort, bool)) *Host {
	t.Helper()
	h, err := NewHost(HostConfig{
		Addr: netip.PrefixFrom(netip.MustParseAddr(addr), 24), MTU: 1450, Send: l.forward, Target: target, DialTimeout: 5 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	l.plug(h.Deliver, h.Addr())
	return h
}

// local serves the echo of TCP and of UDP at one port of 127.0.0.1.
func local(t *testing.T) netip.AddrPort {
	t.Helper()
	at := serve(t, func(c *net.TCPConn) {
		defer c.Close()
		_, _ = io.Copy(c, c)
	})
	at = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), at.Port())
	u, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
	if err != nil {
		t.Skip(err) // somebody else's
	}
	var work sync.WaitGroup
	work.Go(func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := u.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = u.WriteToUDPAddrPort(buf[:n], from)
		}
	})
	t.Cleanup(func() {
		u.Close()
		work.Wait()
	})
	return at
}

// TestHost: what comes to a host's ports is carried to where they lead, the
// others refuse; and who connects from it comes from its address.
func TestHost(t *testing.T) {
	l := newLAN(t)
	at := local(t)
	h := newTestHost(t, l, "10.10.0.30", func(_ directory.Protocol, port uint16) (netip.AddrPort, bool) { return at, port == 80 })
	peer := newTestHost(t, l, "10.10.0.31", nil)
	for _, network := range []string{"tcp", "udp"} {
		c, err := peer.DialContext(t.Context(), network, netip.AddrPortFrom(h.Addr(), 80))
		if err != nil {
			t.Fatalf("%s: %v", network, err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		if got := say(t, c, "hello "+network); got != "hello "+network {
			t.Errorf("%s: %q came back", network, got)
		}
		if from := c.LocalAddr().String(); netip.MustParseAddrPort(from).Addr() != peer.Addr() {
			t.Errorf("%s: it comes from %s", network, from)
		}
	}
	for _, to := range []netip.AddrPort{netip.AddrPortFrom(h.Addr(), 81), netip.AddrPortFrom(peer.Addr(), 80)} {
		from := peer
		if to.Addr() == peer.Addr() {
			from = h
		}
		_, err := from.DialContext(t.Context(), "tcp", to)
		if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s: %v, want refused", to, err)
		}
	}
	eventually(t, "a closed port of UDP is refused", func() bool {
		c, err := peer.DialContext(t.Context(), "udp", netip.AddrPortFrom(h.Addr(), 81))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for range 20 {
			if _, err := c.Write([]byte("?")); err != nil {
				return true
			}
			time.Sleep(time.Millisecond)
		}
		return false
	})
	if peer.Dialed() < 2 {
		t.Errorf("%d connections are open", peer.Dialed())
	}
	if st := h.Stats(); st.Connections != 1 || st.Flows != 1 || st.Refused == 0 {
		t.Errorf("stats %+v", st)
	}
}

// TestHostReachesVIP: a VIP of the same node, through both stacks.
func TestHostReachesVIP(t *testing.T) {
	l := newLAN(t)
	backend := l.addBackend("10.10.0.11")
	serveTCP(t, backend, 80, nameOf(backend))
	l.publish()
	h := newTestHost(t, l, "10.10.0.30", nil)
	c, err := h.DialContext(t.Context(), "tcp", netip.AddrPortFrom(vipA, 80))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if got, err := io.ReadAll(c); err != nil || len(got) == 0 {
		t.Errorf("%q, %v", got, err)
	}
}

// TestHostDialFails: a target that refuses refuses, and nobody's silence ends a
// dial in time, by its context too.
func TestHostDialFails(t *testing.T) {
	l := newLAN(t)
	closed := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 1)
	h := newTestHost(t, l, "10.10.0.30", func(directory.Protocol, uint16) (netip.AddrPort, bool) { return closed, true })
	peer := newTestHost(t, l, "10.10.0.31", nil)
	if _, err := peer.DialContext(t.Context(), "tcp", netip.AddrPortFrom(h.Addr(), 80)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a program that does not listen: %v, want refused", err)
	}
	nobody := netip.MustParseAddrPort("10.10.0.99:80")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := peer.DialContext(ctx, "tcp", nobody); !errors.Is(err, syscall.ETIMEDOUT) {
		t.Errorf("silence until the deadline: %v, want a timeout", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	if _, err := peer.DialContext(ctx, "tcp", nobody); !errors.Is(err, context.Canceled) {
		t.Errorf("a dial that was cancelled: %v", err)
	}
	if _, err := peer.DialContext(t.Context(), "sctp", nobody); err == nil {
		t.Error("an unknown network was dialed")
	}
}

// TestHostEnds: what is connected is reset when the host ends, in both
// directions, and nothing is left.
func TestHostEnds(t *testing.T) {
	l := newLAN(t)
	at := local(t)
	target := func(directory.Protocol, uint16) (netip.AddrPort, bool) { return at, true }
	h, err := NewHost(HostConfig{Addr: netip.MustParsePrefix("10.10.0.30/24"), MTU: 1450, Send: l.forward, Target: target})
	if err != nil {
		t.Fatal(err)
	}
	l.plug(h.Deliver, h.Addr())
	peer := newTestHost(t, l, "10.10.0.31", target)
	in, err := peer.DialContext(t.Context(), "tcp", netip.AddrPortFrom(h.Addr(), 80))
	if err != nil {
		t.Fatal(err)
	}
	out, err := h.DialContext(t.Context(), "tcp", netip.AddrPortFrom(peer.Addr(), 80))
	if err != nil {
		t.Fatal(err)
	}
	say(t, in, "in")
	say(t, out, "out")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := h.Run(ctx); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]net.Conn{"to": in, "from": out} {
		_ = c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Errorf("a connection %s a host that has ended goes on", name)
		}
		_ = c.Close()
	}
}

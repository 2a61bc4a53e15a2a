package dataplane_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ovnd/ovnd/bench/lab"
	"github.com/ovnd/ovnd/dataplane"
	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/encap"
	"github.com/ovnd/ovnd/netstack"
)

// The world outside is this process's own network namespace, where the egress
// dials: outside is an address of it that is no loopback address.
var (
	outside    = netip.MustParseAddr("198.51.100.1")
	gateway    = netip.MustParseAddr("172.18.0.1")
	sandboxes  = []netip.Addr{netip.MustParseAddr("172.18.0.2"), netip.MustParseAddr("172.18.0.3")}
	unroutable = netip.MustParseAddr("203.0.113.9")
)

// An outlet is a node with an egress and two sandboxes.
type outlet struct {
	sw     *dataplane.Switch
	egress *netstack.Egress
	boxes  []*lab.Host
}

func newOutlet(t testing.TB) *outlet {
	t.Helper()
	l, hosts := star(t, "node")
	openWorld(t)
	o := &outlet{sw: startSwitch(t, hosts[0], under4(1))}
	snap := &directory.Snapshot{
		Version: 1, ID: "docker_gwbridge", Name: "docker_gwbridge", MTU: 1500,
		Subnets: []directory.Subnet{{Prefix: netip.MustParsePrefix("172.18.0.0/16"), Gateway: gateway}},
	}
	o.sw.SetNetwork(snap)
	var port atomic.Pointer[dataplane.StackPort]
	var err error
	o.egress, err = netstack.NewEgress(netstack.EgressConfig{
		Gateway: netip.PrefixFrom(gateway, 16), MTU: 1500,
		Send: func(frames [][]byte) { port.Load().Inject(frames) },
	})
	if err != nil {
		t.Fatal(err)
	}
	p, err := o.sw.AddStackPort(dataplane.StackPortConfig{
		NetworkID: snap.ID, EndpointID: "gateway", Name: "gateway", MAC: encap.EndpointMAC(gateway),
		Addrs: []netip.Addr{gateway}, MTU: 1500, Hub: true, Deliver: o.egress.Deliver,
	})
	if err != nil {
		t.Fatal(err)
	}
	port.Store(p)
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- o.egress.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("egress: %v", err)
		}
		_ = p.Close()
	})
	for i, addr := range sandboxes {
		box := l.Host(fmt.Sprint("box", i))
		plug(t, o.sw, box, "eth0", snap, addr)
		box.Route("0.0.0.0/0", "eth0", gateway)
		o.boxes = append(o.boxes, box)
	}
	return o
}

// openWorld gives this process's namespace the address outside, and lets the one
// group that there is open ping sockets.
func openWorld(t testing.TB) {
	t.Helper()
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err == nil {
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: outside.AsSlice(), Mask: net.CIDRMask(32, 32)}}
		err = netlink.AddrReplace(lo, addr)
	}
	if err == nil {
		err = os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte("0 0"), 0)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// dial connects from a sandbox.
func (o *outlet) dial(t testing.TB, box int, network string, to netip.AddrPort) (c net.Conn, err error) {
	t.Helper()
	_ = o.boxes[box].Do(func() error {
		c, err = (&net.Dialer{Timeout: 5 * time.Second}).DialContext(t.Context(), network, to.String())
		return nil
	})
	if c != nil {
		t.Cleanup(func() { c.Close() })
		_ = c.SetDeadline(time.Now().Add(patience))
	}
	return c, err
}

// listen takes connections at the address outside.
func listen(t testing.TB, handle func(net.Conn)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", netip.AddrPortFrom(outside, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go handle(c)
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// TestEgress: a sandbox's own kernel reaches the world outside, gets its errors,
// and does not reach other sandboxes or the host itself.
func TestEgress(t *testing.T) {
	o := newOutlet(t)
	up, down := noise(5<<20, 1), noise(5<<20, 2)
	served := make(chan error, 1)
	at := listen(t, func(c net.Conn) { served <- both(c, down, up) })
	c, err := o.dial(t, 0, "tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	if err := both(c, up, down); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}

	neighbour := netip.AddrPortFrom(sandboxes[1], 80)
	var l net.Listener
	if err := o.boxes[1].Do(func() (err error) { l, err = net.Listen("tcp", neighbour.String()); return err }); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, test := range []struct {
		to   netip.AddrPort
		want error
	}{
		{netip.AddrPortFrom(outside, 1), unix.ECONNREFUSED},
		{netip.AddrPortFrom(unroutable, 80), unix.ENETUNREACH},
		{neighbour, unix.EHOSTUNREACH},
		{netip.AddrPortFrom(gateway, at.Port()), unix.ECONNREFUSED},
		{netip.MustParseAddrPort("169.254.169.254:80"), unix.ECONNREFUSED},
	} {
		began := time.Now()
		if _, err := o.dial(t, 0, "tcp", test.to); !errors.Is(err, test.want) || time.Since(began) > time.Second {
			t.Errorf("dial %s: %v after %v, want %v at once", test.to, err, time.Since(began), test.want)
		}
	}

	udp(t, o)
	for _, size := range []int{0, 1500, 3000} {
		if err := o.boxes[0].Ping(limited(t), outside, lab.Ping{Size: size}); err != nil {
			t.Errorf("ping of %d bytes: %v", size, err)
		}
	}
	if err := o.boxes[0].Ping(limited(t), gateway, lab.Ping{}); err != nil {
		t.Errorf("ping the gateway: %v", err)
	}
	closes(t, o.sw)
	st := o.sw.Stats()
	if st.Total.WireOut.Packets != 0 {
		t.Errorf("%d packets on the wire", st.Total.WireOut.Packets)
	}
	for _, p := range st.Ports {
		if p.Name == "box1-eth0" && p.In.Packets != 0 {
			t.Errorf("%d packets reached the other sandbox", p.In.Packets)
		}
	}
}

// udp has datagrams answered, and refused.
func udp(t *testing.T, o *outlet) {
	t.Helper()
	server, err := net.ListenPacket("udp", netip.AddrPortFrom(outside, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		b := make([]byte, 65536)
		for {
			n, from, err := server.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = server.WriteTo(b[:n], from)
		}
	}()
	c, err := o.dial(t, 0, "udp", server.LocalAddr().(*net.UDPAddr).AddrPort())
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{1, 1472, 20000} {
		want := noise(size, 3)
		got := make([]byte, size+1)
		if _, err := c.Write(want); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Read(got); err != nil || !bytes.Equal(got[:n], want) {
			t.Errorf("datagram of %d bytes: %d came back, %v", size, n, err)
		}
	}
	if c, err = o.dial(t, 0, "udp", netip.AddrPortFrom(outside, 1)); err != nil {
		t.Fatal(err)
	}
	_, _ = c.Write([]byte("x"))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("a closed UDP port: %v", err)
	}
}

// BenchmarkEgress is one TCP flow between a sandbox and the host, MTU 1500.
func BenchmarkEgress(b *testing.B) {
	const chunk = 128 << 10
	o := newOutlet(b)
	at := listen(b, func(c net.Conn) {
		defer c.Close()
		first := make([]byte, 1)
		if _, err := c.Read(first); err != nil || first[0] == 'u' {
			_, _ = io.Copy(io.Discard, c)
			_, _ = c.Write(first)
			return
		}
		for zeros := make([]byte, chunk); ; {
			if _, err := c.Write(zeros); err != nil {
				return
			}
		}
	})
	b.Run("up", func(b *testing.B) {
		c, err := o.dial(b, 0, "tcp", at)
		if err != nil {
			b.Fatal(err)
		}
		_, _ = c.Write([]byte("u"))
		buf := make([]byte, chunk)
		b.SetBytes(chunk)
		for b.Loop() {
			if _, err := c.Write(buf); err != nil {
				b.Fatal(err)
			}
		}
		// What is on its way counts as well.
		_ = c.(*net.TCPConn).CloseWrite()
		_, _ = c.Read(buf)
		gbits(b)
	})
	b.Run("down", func(b *testing.B) {
		c, err := o.dial(b, 0, "tcp", at)
		if err != nil {
			b.Fatal(err)
		}
		_, _ = c.Write([]byte("d"))
		buf := make([]byte, chunk)
		b.SetBytes(chunk)
		for b.Loop() {
			if _, err := io.ReadFull(c, buf); err != nil {
				b.Fatal(err)
			}
		}
		gbits(b)
	})
	b.Run("connect", func(b *testing.B) {
		for b.Loop() {
			c, err := o.dial(b, 0, "tcp", at)
			if err != nil {
				b.Fatal(err)
			}
			_ = c.(*net.TCPConn).SetLinger(0)
			c.Close()
		}
	})
}

func gbits(b *testing.B) {
	b.ReportMetric(float64(b.N)*128*1024*8/b.Elapsed().Seconds()/1e9, "Gbit/s")
}

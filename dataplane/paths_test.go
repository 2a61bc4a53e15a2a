package dataplane

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/ovnd/ovnd/bench/lab"
	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/encap"
)

// TestLocal has two sandboxes on one node: nothing reaches the underlay.
func TestLocal(t *testing.T) {
	w := twoNodes(t, 1500, false)
	w.network("net", 4097, 1450, "10.10.0.0/16")
	a := w.nodes[0].sandbox("sa", "net", "10.10.0.3/16")
	b := w.nodes[0].sandbox("sb", "net", "10.10.0.4/16")
	a.ping(b, lab.Ping{Size: 1450, DF: true})
	transfer(t, a, b, 50<<20)
	w.closed()
	if st := w.nodes[0].sw.Stats(); st.Total.WireOut.Packets != 0 || st.Total.PortOut.Bytes < 50<<20 {
		t.Errorf("local traffic: %+v", st.Total)
	}
}

// TestSmallUnderlay has an underlay that does not carry the network's MTU:
// senders are told, and adapt.
func TestSmallUnderlay(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		t.Run(fmt.Sprintf("underlay6=%t", v6), func(t *testing.T) {
			w := twoNodes(t, 1400, v6)
			w.network("net", 4097, 1450, "10.10.0.0/16")
			a := w.nodes[0].sandbox("sa", "net", "10.10.0.3/16")
			b := w.nodes[1].sandbox("sb", "net", "10.10.0.4/16")
			fits := encap.InnerMTU(1400, v6)
			a.ping(b, lab.Ping{Size: fits, DF: true})
			if err := a.tryPing(b.addr, lab.Ping{Size: fits + 1, DF: true}, time.Second); !errors.Is(err, unix.EMSGSIZE) {
				t.Errorf("ping of %d bytes with DF: %v, want EMSGSIZE", fits+1, err)
			}
			w.nodes[0].drops(DropTooBig, 1)
			transfer(t, a, b, 10<<20)
			transfer(t, b, a, 10<<20)
			a.ping(b, lab.Ping{Size: 1450}) // the sender's kernel fragments
			w.closed()
		})
	}
}

// TestTooBig has devices with an MTU above the network's: what does not fit is
// answered, and TCP does not even try, for its MSS is clamped.
func TestTooBig(t *testing.T) {
	w := twoNodes(t, 9000, false)
	w.network("net", 4097, 1450, "10.10.0.0/16")
	a := w.nodes[0].sandbox("sa", "net", "10.10.0.3/16")
	b := w.nodes[1].sandbox("sb", "net", "10.10.0.4/16")
	for _, sb := range []*sandbox{a, b} {
		link, err := sb.host.Netlink().LinkByName("eth0")
		if err == nil {
			err = sb.host.Netlink().LinkSetMTU(link, 8000)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	transfer(t, a, b, 10<<20)
	if st := w.nodes[0].sw.Stats(); st.Total.Drops[DropTooBig.String()] != 0 {
		t.Errorf("TCP segments were too big: the MSS was not clamped; drops %v", st.Total.Drops)
	}
	if err := a.tryPing(b.addr, lab.Ping{Size: 1451, DF: true}, time.Second); !errors.Is(err, unix.EMSGSIZE) {
		t.Errorf("ping of 1451 bytes with DF: %v, want EMSGSIZE", err)
	}
	w.nodes[0].drops(DropTooBig, 1)
	a.ping(b, lab.Ping{Size: 1450, DF: true})
	w.closed()
}

// TestIsolation: sandboxes on two networks with the same subnet do not see each
// other, nor anybody after their network is gone.
func TestIsolation(t *testing.T) {
	w := twoNodes(t, 1500, false)
	w.network("red", 4097, 1450, "10.10.0.0/16")
	w.network("blue", 4098, 1450, "10.10.0.0/16")
	ra, rb := w.nodes[0].sandbox("ra", "red", "10.10.0.3/16"), w.nodes[1].sandbox("rb", "red", "10.10.0.4/16")
	ba := w.nodes[0].sandbox("ba", "blue", "10.10.0.5/16")
	ra.ping(rb, lab.Ping{})
	if err := ba.tryPing(rb.addr, lab.Ping{}, 500*time.Millisecond); err == nil {
		t.Error("a sandbox of another network answered")
	}
	w.nodes[0].drops(DropNoEndpoint, 1)
	w.nodes[1].sw.RemoveNetwork("red")
	if err := ra.tryPing(rb.addr, lab.Ping{}, 500*time.Millisecond); err == nil {
		t.Error("a network that was removed answered")
	}
	w.nodes[1].drops(DropUnknownVNI, 1)
	w.nodes[1].sw.SetNetwork(w.snaps["red"])
	ra.ping(rb, lab.Ping{})
	enc := *w.snaps["red"]
	enc.Encrypted = true
	w.nodes[1].sw.SetNetwork(&enc)
	if err := ra.tryPing(rb.addr, lab.Ping{}, 500*time.Millisecond); err == nil {
		t.Error("an encrypted network answered in clear text")
	}
	w.closed()
}

// TestAbsent: a connection to an address that nobody has fails when its SYN is
// repeated; one to an address that appears meanwhile does not.
func TestAbsent(t *testing.T) {
	w := twoNodes(t, 1500, false)
	w.network("net", 4097, 1450, "10.10.0.0/16")
	a := w.nodes[0].sandbox("sa", "net", "10.10.0.3/16")
	dial := func(addr string) (c net.Conn, err error) {
		_ = a.host.Do(func() error {
			c, err = net.DialTimeout("tcp", net.JoinHostPort(addr, "80"), 10*time.Second)
			return nil
		})
		return c, err
	}
	began := time.Now()
	if _, err := dial("10.10.0.77"); !errors.Is(err, unix.EHOSTUNREACH) || time.Since(began) < absentWait || time.Since(began) > 5*time.Second {
		t.Errorf("nobody: %v after %v", err, time.Since(began))
	}
	late := make(chan error, 1)
	go func() {
		c, err := dial("10.10.0.4")
		if err == nil {
			c.Close()
		}
		late <- err
	}()
	w.nodes[0].drops(DropNoEndpoint, 3)
	b := w.nodes[1].sandbox("sb", "net", "10.10.0.4/16")
	var l net.Listener
	if err := b.host.Do(func() (err error) { l, err = net.Listen("tcp", "10.10.0.4:80"); return err }); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := <-late; err != nil {
		t.Errorf("an address that appeared: %v", err)
	}
	w.closed()
}

// TestManyPorts has several queues and workers, and a port that comes and goes
// while traffic flows.
func TestManyPorts(t *testing.T) {
	w := &world{t: t, Lab: lab.New(t), snaps: make(map[string]*directory.Snapshot)}
	a, b := w.Host("a"), w.Host("b")
	w.Veth(1500,
		lab.End{Host: a, Name: "eth0", Addrs: []string{"192.0.2.1/24"}},
		lab.End{Host: b, Name: "eth0", Addrs: []string{"192.0.2.2/24"}})
	w.node(a, "192.0.2.1", Config{Workers: 3})
	w.node(b, "192.0.2.2", Config{Workers: 2, SourcePorts: 1})
	w.network("net", 4097, 1450, "10.10.0.0/16")
	var boxes []*sandbox
	for i := range 12 {
		n := w.nodes[i%2]
		name := fmt.Sprint("s", i)
		boxes = append(boxes, n.attach(w.Host(name), "eth0", "net", fmt.Sprintf("10.10.0.%d/16", 10+i), 1+i%3))
	}
	for i, sb := range boxes {
		sb.ping(boxes[(i+1)%len(boxes)], lab.Ping{})
	}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			for _, sb := range boxes[10:] {
				if err := sb.port.Close(); err != nil {
					t.Errorf("close: %v", err)
				}
				sb.open("net")
			}
		}
	})
	for i := 2; i < 6; i += 2 {
		wg.Go(func() { transfer(t, boxes[i], boxes[i+1], 10<<20) })
	}
	for i := range 4 {
		wg.Go(func() { flood(ctx, t, boxes[i], boxes[10+i%2], 200) })
	}
	time.Sleep(time.Second)
	cancel()
	wg.Wait()
	boxes[0].ping(boxes[10], lab.Ping{})
	boxes[1].ping(boxes[11], lab.Ping{})
	w.closed()
}

// flood sends datagrams until ctx ends; nobody need listen.
func flood(ctx context.Context, t *testing.T, from, to *sandbox, size int) {
	var conn net.Conn
	if err := from.host.Do(func() (err error) {
		conn, err = net.Dial("udp", netip.AddrPortFrom(to.addr, 9).String())
		return err
	}); err != nil {
		t.Errorf("flood: %v", err)
		return
	}
	defer conn.Close()
	b := make([]byte, size)
	for ctx.Err() == nil {
		_, _ = conn.Write(b) // ECONNREFUSED, mostly
	}
}

// TestAllocations: forwarding makes no garbage.
func TestAllocations(t *testing.T) {
	w := twoNodes(t, 1500, false)
	w.network("net", 4097, 1450, "10.10.0.0/16")
	a := w.nodes[0].sandbox("sa", "net", "10.10.0.3/16")
	b := w.nodes[1].sandbox("sb", "net", "10.10.0.4/16")
	c := w.nodes[0].sandbox("sc", "net", "10.10.0.5/16")
	transfer(t, a, b, 1<<20)

	pump(t, a, b) // warm
	var m0, m1 runtime.MemStats
	runtime.ReadMemStats(&m0)
	before := w.nodes[0].sw.Stats().Total.PortIn.Packets
	runtime.ReadMemStats(&m0)
	pump(t, a, b)
	pump(t, a, c)
	runtime.ReadMemStats(&m1)
	packets := w.nodes[0].sw.Stats().Total.PortIn.Packets - before
	if packets < 5000 {
		t.Fatalf("only %d packets", packets)
	}
	// The sockets of the test itself, and Stats, take some.
	if per := float64(m1.Mallocs-m0.Mallocs) / float64(packets); per > 0.05 {
		t.Errorf("%.3f allocations a packet (%d for %d packets), want none", per, m1.Mallocs-m0.Mallocs, packets)
	}
}

// pump sends 20 MB by TCP and 2,000 datagrams, with few allocations of its own.
func pump(t *testing.T, from, to *sandbox) {
	t.Helper()
	var l net.Listener
	var c, u net.Conn
	if err := to.host.Do(func() (err error) {
		l, err = net.Listen("tcp", netip.AddrPortFrom(to.addr, 0).String())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := from.host.Do(func() (err error) {
		if u, err = net.Dial("udp", netip.AddrPortFrom(to.addr, 9).String()); err != nil {
			return err
		}
		c, err = net.Dial("tcp", l.Addr().String())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	r, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer r.Close()
		_, _ = io.Copy(io.Discard, struct{ io.Reader }{r})
	}()
	b := make([]byte, 1<<20)
	for range 20 {
		if _, err := c.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	_ = c.Close()
	for range 2000 {
		_, _ = u.Write(b[:64])
	}
	<-done
}

// TestRunEnds: no goroutine and no descriptor outlives Run.
func TestRunEnds(t *testing.T) {
	h := lab.New(t).Host("a")
	h.Addr("lo", "192.0.2.1/32")
	opts := goleak.IgnoreCurrent()
	files := descriptors(t)
	cfg := Config{Underlay: netip.MustParseAddrPort("192.0.2.1:4790"), Workers: 2}
	for range 3 {
		var sw *Switch
		if err := h.Do(func() (err error) { sw, err = New(cfg); return err }); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- sw.Run(ctx) }()
		time.Sleep(20 * time.Millisecond)
		cancel()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if _, err := sw.AddPort(PortConfig{}); err == nil {
			t.Error("AddPort after Run succeeded")
		}
		sw.Stats()
		sw.SetNetwork(&directory.Snapshot{ID: "x"})
		sw.RemoveNetwork("x")
	}
	goleak.VerifyNone(t, opts)
	if n := descriptors(t); n > files {
		t.Errorf("%d descriptors open, %d before", n, files)
	}
}

func TestNewRefuses(t *testing.T) {
	w := twoNodes(t, 1500, false)
	for _, tt := range []struct{ addr, want string }{
		{"192.0.2.1:4789", "is taken"},
		{"192.0.2.200:4789", "not an address of this machine"},
		{"0.0.0.0:4789", "unicast"},
		{"192.0.2.1:0", "a port"},
	} {
		err := w.nodes[0].host.Do(func() error {
			sw, err := New(Config{Underlay: netip.MustParseAddrPort(tt.addr), Workers: 2})
			if err == nil {
				sw.Close()
			}
			return err
		})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want it to say %q", tt.addr, err, tt.want)
		}
	}
}

package dataplane_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ovnd/ovnd/bench/lab"
	"github.com/ovnd/ovnd/dataplane"
	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/encap"
	"github.com/ovnd/ovnd/netstack"
)

// The VIPs of the service web, of the same backends by another name, and the
// balancer's own address.
var (
	webVIP   = netip.MustParseAddr("10.0.0.100")
	web6VIP  = netip.MustParseAddr("fd00::100")
	otherVIP = netip.MustParseAddr("10.0.0.101")
	webLB    = netip.MustParsePrefix("10.0.0.99/24")
)

// A vipWorld is two nodes with one network, and a balancer on the first, where the
// clients are.
type vipWorld struct {
	t        *testing.T
	lab      *lab.Lab
	nodes    []*dataplane.Switch
	addrs    []netip.Addr
	ids      []string // of an encrypted network
	balancer *netstack.Balancer
	guests   []*guest
	mu       sync.Mutex // one publish at a time
	snap     *directory.Snapshot
	meet     func(*directory.Snapshot) // tells the encrypted network's nodes of each other
}

// newVIPWorld makes it, on a plain or encrypted network.
func newVIPWorld(t *testing.T, encrypted bool) *vipWorld {
	t.Helper()
	w := &vipWorld{t: t, meet: func(*directory.Snapshot) {}}
	if encrypted {
		s := sealed(t, 2, false)
		w.lab, w.snap = s.lab, s.snap
		for _, n := range s.nodes {
			w.nodes, w.addrs, w.ids = append(w.nodes, n.sw), append(w.addrs, n.addr), append(w.ids, n.id)
		}
	} else {
		l, hosts := star(t, "n1", "n2")
		w.lab, w.snap = l, network("net", 4097, false)
		for i, h := range hosts {
			w.addrs, w.ids = append(w.addrs, under4(i+1)), append(w.ids, "")
			w.nodes = append(w.nodes, startSwitch(t, h, w.addrs[i]))
			w.snap.Peers[w.addrs[i]] = h.Name()
		}
	}
	var port atomic.Pointer[dataplane.StackPort]
	b, err := netstack.NewBalancer(netstack.BalancerConfig{
		Name: "net", Addr: webLB, MTU: w.snap.MTU, Log: slog.New(slog.DiscardHandler), GoneGrace: time.Second,
		Send: func(frames [][]byte) {
			if p := port.Load(); p != nil {
				p.Inject(frames)
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	w.balancer = b
	run(t, "balancer", b.Run)
	p, err := w.nodes[0].AddStackPort(dataplane.StackPortConfig{
		NetworkID: w.snap.ID, EndpointID: "lb", Name: "lb", MAC: encap.EndpointMAC(webLB.Addr()),
		Addrs: []netip.Addr{webLB.Addr()}, VIPs: true, Balancer: b, MTU: w.snap.MTU, Deliver: b.Deliver,
	})
	if err != nil {
		t.Fatal(err)
	}
	port.Store(p)
	w.publish(func(s *directory.Snapshot) { w.place(s, webLB.Addr(), 0).Kind = directory.LoadBalancer })
	t.Cleanup(w.closes) // before the switches end
	return w
}

// closes waits until every packet is accounted for. The test's context has ended.
func (w *vipWorld) closes() {
	for _, sw := range w.nodes {
		end := time.Now().Add(patience)
		for !sw.Stats().Total.Closed() {
			if time.Now().After(end) {
				w.t.Errorf("the ledger does not close: %s", pretty(sw.Stats()))
				return
			}
			time.Sleep(time.Millisecond)
		}
	}
}

// place enters an endpoint at a node.
func (w *vipWorld) place(s *directory.Snapshot, addr netip.Addr, node int) *directory.Endpoint {
	ep := &directory.Endpoint{
		ID: "ep-" + addr.String(), Name: addr.String(), Addr: addr, MAC: encap.EndpointMAC(addr), VTEP: w.addrs[node], Owner: w.ids[node],
	}
	s.Endpoints = s.Endpoints.With(addr, ep)
	return ep
}

// publish gives a changed copy of the network to both nodes and the balancer.
func (w *vipWorld) publish(change func(*directory.Snapshot)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	next := *w.snap
	next.Version++
	change(&next)
	next.Services, next.VIPs = directory.Services(next.Endpoints)
	w.snap = &next
	w.balancer.Update(w.snap)
	for _, sw := range w.nodes {
		sw.SetNetwork(w.snap)
	}
}

// A guest is a namespace on the network.
type guest struct {
	w *vipWorld
	*lab.Host
	node int
	a, b netip.Addr // IPv4 and IPv6
}

// guest puts number i on a node: 10.0.0.i and fd00::i.
func (w *vipWorld) guest(node, i int) *guest {
	w.t.Helper()
	g := &guest{
		w: w, Host: w.lab.Host(fmt.Sprintf("g%d", i)), node: node,
		a: netip.MustParseAddr(fmt.Sprintf("10.0.0.%d", i)), b: netip.MustParseAddr(fmt.Sprintf("fd00::%d", i)),
	}
	g.Sysctl("net.ipv6.conf.default.accept_dad", "0")
	plug(w.t, w.nodes[node], g.Host, "eth0", w.snap, g.a, g.b)
	w.until("the IPv6 address can be used", func() bool {
		return g.Do(func() error {
			l, err := net.Listen("tcp", at(g.b, 1).String())
			if err == nil {
				err = l.Close()
			}
			return err
		}) == nil
	})
	w.publish(func(s *directory.Snapshot) {
		w.place(s, g.a, node)
		w.place(s, g.b, node).MAC = encap.EndpointMAC(g.a) // a port has one
	})
	// What the kernel's devices or a session still keep back is not lost.
	for _, o := range w.guests {
		g.reaches(o.a)
		g.reaches(o.b)
	}
	w.guests = append(w.guests, g)
	return g
}

// serves makes the guest a backend of web.
func (g *guest) serves() {
	g.w.publish(func(s *directory.Snapshot) { g.w.enlist(s, g, "web", webVIP, web6VIP) })
}

// enlist makes a guest a backend of a service.
func (w *vipWorld) enlist(s *directory.Snapshot, g *guest, name string, vips ...netip.Addr) {
	for i, addr := range []netip.Addr{g.a, g.b}[:len(vips)] {
		ep := w.place(s, addr, g.node)
		ep.MAC = encap.EndpointMAC(g.a)
		ep.ServiceID, ep.ServiceName, ep.VIP = fmt.Sprint(name, i), fmt.Sprint(name, i), vips[i]
	}
}

// change changes the guest's endpoints.
func (g *guest) change(how func(*directory.Endpoint)) {
	g.w.publish(func(s *directory.Snapshot) {
		for _, a := range []netip.Addr{g.a, g.b} {
			ep := *s.Endpoints.At(a)
			how(&ep)
			s.Endpoints = s.Endpoints.With(a, &ep)
		}
	})
}

// leave takes the guest's endpoints out of the network.
func (g *guest) leave() {
	g.w.publish(func(s *directory.Snapshot) {
		s.Endpoints = s.Endpoints.Without(g.a)
		s.Endpoints = s.Endpoints.Without(g.b)
	})
}

// listen serves TCP and UDP at a port: it says who it is and whom it sees, then
// sends back what comes.
func (g *guest) listen(port uint16) {
	g.w.t.Helper()
	var l net.Listener
	var u net.PacketConn
	g.do(func() (err error) { l, err = net.Listen("tcp", fmt.Sprintf(":%d", port)); return err })
	g.do(func() (err error) { u, err = net.ListenPacket("udp", fmt.Sprintf(":%d", port)); return err })
	var work sync.WaitGroup
	var open sync.Map
	work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			open.Store(c, nil)
			work.Go(func() {
				defer c.Close()
				fmt.Fprintf(c, "%s %s\n", g.Name(), c.RemoteAddr())
				_, _ = io.Copy(c, c)
			})
		}
	})
	work.Go(func() {
		buf := make([]byte, 65536)
		for {
			n, from, err := u.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = u.WriteTo(append([]byte(g.Name()+" "+from.String()+"\n"), buf[:n]...), from)
		}
	})
	g.w.t.Cleanup(func() {
		l.Close()
		u.Close()
		open.Range(func(c, _ any) bool { c.(net.Conn).Close(); return true })
		work.Wait()
	})
}

// reaches waits until the guest gets an answer from an address: on an encrypted
// network there is a session then.
func (g *guest) reaches(addr netip.Addr) {
	g.w.t.Helper()
	g.w.until("an answer of "+addr.String(), func() bool {
		return ping(g.w.t, g.Host, addr.String(), lab.Ping{Size: 100}, time.Second) == nil
	})
}

func (g *guest) do(f func() error) {
	g.w.t.Helper()
	if err := g.Do(f); err != nil {
		g.w.t.Fatal(err)
	}
}

// dial connects from a port of the guest, 0: any.
func (g *guest) dial(network string, from uint16, to netip.AddrPort) (c net.Conn, err error) {
	d := net.Dialer{Timeout: patience, Control: reuse}
	local := netip.AddrPortFrom(g.a, from)
	if to.Addr().Is6() {
		local = netip.AddrPortFrom(g.b, from)
	}
	d.LocalAddr = net.TCPAddrFromAddrPort(local)
	if network == "udp" {
		d.LocalAddr = net.UDPAddrFromAddrPort(local)
	}
	err = g.Do(func() error {
		ctx, cancel := context.WithTimeout(g.w.t.Context(), patience)
		defer cancel()
		c, err = d.DialContext(ctx, network, to.String())
		return err
	})
	if err == nil {
		g.w.t.Cleanup(func() { c.Close() })
		_ = c.SetDeadline(time.Now().Add(patience))
	}
	return c, err
}

// reuse lets several connections have one source port.
func reuse(_, _ string, c syscall.RawConn) error {
	var err error
	if doErr := c.Control(func(fd uintptr) {
		err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
	}); doErr != nil {
		return doErr
	}
	return err
}

func (g *guest) mustDial(network string, from uint16, to netip.AddrPort) net.Conn {
	g.w.t.Helper()
	c, err := g.dial(network, from, to)
	if err != nil {
		g.w.t.Fatalf("%s to %s: %v", network, to, err)
	}
	return c
}

// line reads a line, byte by byte.
func line(t *testing.T, c net.Conn) string {
	t.Helper()
	var b []byte
	for one := make([]byte, 1); len(b) == 0 || b[len(b)-1] != '\n'; b = append(b, one[0]) {
		if _, err := io.ReadFull(c, one); err != nil {
			t.Fatalf("after %q: %v", b, err)
		}
	}
	return strings.TrimSpace(string(b))
}

// greeted returns who answers a connection, and whom it sees.
func greeted(t *testing.T, c net.Conn) (who, sees string) {
	t.Helper()
	who, sees, _ = strings.Cut(line(t, c), " ")
	return who, sees
}

// echoes checks that a connection carries something both ways.
func echoes(t *testing.T, c net.Conn, what string) {
	t.Helper()
	if _, err := fmt.Fprintln(c, what); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	if got := line(t, c); got != what {
		t.Fatalf("%q came back as %q", what, got)
	}
}

// asked sends a datagram and returns who answers and whom it sees.
func asked(t *testing.T, c net.Conn, size int) (who, sees string) {
	t.Helper()
	if _, err := c.Write(noise(size, 3)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 65536)
	n, err := c.Read(buf)
	if err != nil {
		t.Fatalf("datagram of %d bytes: %v", size, err)
	}
	head, data, _ := strings.Cut(string(buf[:n]), "\n")
	if data != string(noise(size, 3)) {
		t.Fatalf("a datagram of %d bytes came back as %d", size, len(data))
	}
	who, sees, _ = strings.Cut(head, " ")
	return who, sees
}

// stats returns what the balancer counts of a backend.
func (g *guest) stats() netstack.BackendStats {
	g.w.t.Helper()
	for _, s := range g.w.balancer.Stats().Services {
		for _, b := range s.Backends {
			if b.Addr == g.a && s.Name == "web0" {
				return b
			}
		}
	}
	g.w.t.Fatalf("%s is no backend", g.Name())
	return netstack.BackendStats{}
}

func (w *vipWorld) until(what string, ok func() bool) {
	w.t.Helper()
	for ctx := limited(w.t); !ok(); time.Sleep(time.Millisecond) {
		if ctx.Err() != nil {
			w.t.Fatalf("not in %v: %s; %+v", patience, what, w.balancer.Stats())
		}
	}
}

func at(a netip.Addr, port uint16) netip.AddrPort { return netip.AddrPortFrom(a, port) }

package netstack

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/waiter"

	"github.com/ovnd/ovnd/discovery/directory"
)

// echo sends back what comes.
func echo(c net.Conn) { io.Copy(c, c) }

// say writes a line and returns the answer.
func say(t *testing.T, c net.Conn, line string) string {
	t.Helper()
	if _, err := io.WriteString(c, line+"\n"); err != nil {
		t.Fatalf("write: %v", err)
	}
	got, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		t.Fatalf("read: %v", err)
	}
	return strings.TrimSpace(got)
}

func backendStats(t *testing.T, l *lan, h *host) BackendStats {
	t.Helper()
	for _, s := range l.b.Stats().Services {
		for _, b := range s.Backends {
			if b.Addr == h.addr {
				return b
			}
		}
	}
	t.Fatalf("no backend %s", h.addr)
	return BackendStats{}
}

// TestVIPPassesOverDeadBackends: one refuses, one is silent, one answers.
func TestVIPPassesOverDeadBackends(t *testing.T) {
	l := newLAN(t, func(c *BalancerConfig) { c.DialTimeout = 50 * time.Millisecond })
	alive, refusing, silent := l.addBackend("10.10.0.11"), l.addBackend("10.10.0.12"), l.addBackend("10.10.0.13")
	serveTCP(t, alive, 80, nameOf(alive))
	client := l.addHost("10.10.0.20")
	l.publish()
	l.cut(silent.addr)
	for range 6 {
		if got := ask(t, client, 80); got != alive.addr.String() {
			t.Fatalf("%q answered", got)
		}
	}
	if st := l.b.Stats(); st.NoBackend != 0 || st.Connections != 6 {
		t.Errorf("stats %+v", st)
	}
	for _, h := range []*host{refusing, silent} {
		if st := backendStats(t, l, h); st.Failures == 0 || st.Connections != 0 || st.Active != 0 {
			t.Errorf("stats of a dead backend %+v", st)
		}
	}
}

// TestVIPWithoutBackends: a VIP that nobody stands behind refuses at once and is
// not there for ping; one that was never there neither.
func TestVIPWithoutBackends(t *testing.T) {
	l := newLAN(t)
	h := l.addBackend("10.10.0.11")
	serveTCP(t, h, 80, nameOf(h))
	client := l.addHost("10.10.0.20")
	l.publish()
	if got := ask(t, client, 80); got != h.addr.String() {
		t.Fatalf("%q answered", got)
	}
	if !ping(t, client, vipA, 5*time.Second) {
		t.Error("a VIP with a backend does not answer ping")
	}
	l.drain(h)
	l.publish()
	if _, err := dialVIP(t, client, 80); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("a VIP without backends: %v", err)
	}
	if ping(t, client, vipA, 200*time.Millisecond) {
		t.Error("a VIP without backends answers ping")
	}
	if !ping(t, client, lbAddr.Addr(), 5*time.Second) {
		t.Error("the balancer's own address does not answer ping")
	}
	c, err := gonet.DialUDP(client.Stack, nil, &tcpip.FullAddress{Addr: toAddr(vipA), Port: 53}, client.protocol())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// gonet's Read does not notice an ICMP error, its Write does.
	eventually(t, "UDP to a VIP without backends is refused", func() bool {
		_, err := c.Write([]byte("?"))
		return err != nil && strings.Contains(err.Error(), "refused")
	})
}

// ping reports whether addr answers h within limit.
func ping(t *testing.T, h *host, addr netip.Addr, limit time.Duration) bool {
	t.Helper()
	var queue waiter.Queue
	ep, terr := h.NewEndpoint(icmp.ProtocolNumber4, ipv4.ProtocolNumber, &queue)
	if terr != nil {
		t.Fatal(terr)
	}
	defer ep.Close()
	entry, ready := waiter.NewChannelEntry(waiter.ReadableEvents)
	queue.EventRegister(&entry)
	defer queue.EventUnregister(&entry)
	if terr := ep.Connect(tcpip.FullAddress{Addr: toAddr(addr)}); terr != nil {
		t.Fatal(terr)
	}
	b := header.ICMPv4(make([]byte, header.ICMPv4MinimumSize+8))
	b.SetType(header.ICMPv4Echo)
	if _, terr := ep.Write(strings.NewReader(string(b)), tcpip.WriteOptions{}); terr != nil {
		t.Fatal(terr)
	}
	select {
	case <-ready:
		return true
	case <-time.After(limit):
		return false
	}
}

// TestVIPPassesOnResets in either direction.
func TestVIPPassesOnResets(t *testing.T) {
	l := newLAN(t)
	h := l.addBackend("10.10.0.11")
	ended := make(chan error, 1)
	serveTCP(t, h, 80, func(c net.Conn) {
		_, err := io.Copy(io.Discard, c)
		ended <- err
	})
	serveTCP(t, h, 81, func(c net.Conn) { // with unread data, closing resets
		time.Sleep(20 * time.Millisecond)
	})
	client := l.addHost("10.10.0.20")
	l.publish()

	c, ep := dialEndpoint(t, client, 80)
	sayHello(t, c)
	ep.Abort()
	if err := <-ended; err == nil {
		t.Error("the backend saw the end of what the client has reset")
	}
	c, _ = dialEndpoint(t, client, 81)
	defer c.Close()
	sayHello(t, c)
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("the client read %v of what the backend has reset", err)
	}
	eventually(t, "no connection is open", func() bool { return l.b.Stats().Active == 0 })
}

func sayHello(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
}

// dialEndpoint connects h to the VIP with an endpoint that can be aborted.
func dialEndpoint(t *testing.T, h *host, port uint16) (net.Conn, tcpip.Endpoint) {
	t.Helper()
	queue := &waiter.Queue{}
	ep, terr := h.NewEndpoint(header.TCPProtocolNumber, ipv4.ProtocolNumber, queue)
	if terr != nil {
		t.Fatal(terr)
	}
	entry, ready := waiter.NewChannelEntry(waiter.WritableEvents)
	queue.EventRegister(&entry)
	defer queue.EventUnregister(&entry)
	ep.Connect(tcpip.FullAddress{Addr: toAddr(vipA), Port: port})
	<-ready
	if terr := ep.LastError(); terr != nil {
		t.Fatal(terr)
	}
	c := gonet.NewTCPConn(queue, ep)
	c.SetDeadline(time.Now().Add(10 * time.Second))
	return c, ep
}

// TestVIPHalfCloses: a backend that has ended its direction still hears.
func TestVIPHalfCloses(t *testing.T) {
	l := newLAN(t)
	h := l.addBackend("10.10.0.11")
	heard := make(chan string, 1)
	serveTCP(t, h, 80, func(c net.Conn) {
		io.WriteString(c, "bye")
		c.(*gonet.TCPConn).CloseWrite()
		b, _ := io.ReadAll(c)
		heard <- string(b)
	})
	client := l.addHost("10.10.0.20")
	l.publish()
	c, err := dialVIP(t, client, 80)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(c); err != nil || string(b) != "bye" {
		t.Fatalf("read %q: %v", b, err)
	}
	io.WriteString(c, "still here")
	c.Close()
	if got := <-heard; got != "still here" {
		t.Errorf("the backend heard %q", got)
	}
}

// TestVIPHairpin: a backend that calls its own VIP may get itself.
func TestVIPHairpin(t *testing.T) {
	l := newLAN(t)
	h := l.addBackend("10.10.0.11")
	serveTCP(t, h, 80, func(c net.Conn) { io.WriteString(c, c.RemoteAddr().(*net.TCPAddr).IP.String()) })
	l.publish()
	if got := ask(t, h, 80); got != lbAddr.Addr().String() {
		t.Errorf("the backend saw %q, not the balancer", got)
	}
}

// TestVIPDrains: connections to a backend that drains go on; new ones go
// elsewhere; those to an endpoint that is gone are reset after the grace.
func TestVIPDrains(t *testing.T) {
	l := newLAN(t, func(c *BalancerConfig) { c.GoneGrace = time.Second })
	old := l.addBackend("10.10.0.11")
	serveTCP(t, old, 80, echo)
	client := l.addHost("10.10.0.20")
	l.publish()
	c, err := dialVIP(t, client, 80)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	say(t, c, "one")

	fresh := l.addBackend("10.10.0.12")
	serveTCP(t, fresh, 80, nameOf(fresh))
	l.drain(old)
	l.publish()
	if got := say(t, c, "two"); got != "two" {
		t.Errorf("answer %q", got)
	}
	for range 3 {
		if got := ask(t, client, 80); got != fresh.addr.String() {
			t.Errorf("%q took a connection while it drains", got)
		}
	}
	if st := backendStats(t, l, old); !st.Draining || st.Active != 1 {
		t.Errorf("stats %+v", st)
	}
	l.remove(old)
	l.publish()
	if got := say(t, c, "three"); got != "three" { // within the grace
		t.Errorf("answer %q", got)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("a connection to an endpoint that is gone: %v", err)
	}
	eventually(t, "no connection is open", func() bool { return l.b.Stats().Active == 0 })
}

// TestVIPCapsHandshakes: SYNs of clients that do not go on are bounded, for each
// client and in all, and give their places back.
func TestVIPCapsHandshakes(t *testing.T) {
	l := newLAN(t, func(c *BalancerConfig) {
		c.MaxHandshakes, c.DialTimeout = 6, 300*time.Millisecond
	})
	h := l.addBackend("10.10.0.11")
	flooder, other := l.addHost("10.10.0.20"), l.addHost("10.10.0.21")
	l.publish()
	l.cut(h.addr) // dials take their time
	var dials sync.WaitGroup
	dial := func(from *host) {
		dials.Go(func() {
			if c, err := gonet.DialTCP(from.Stack, tcpip.FullAddress{Addr: toAddr(vipA), Port: 80}, from.protocol()); err == nil {
				c.Close()
				t.Error("connected to nobody")
			}
		})
	}
	for range 12 {
		dial(flooder)
	}
	eventually(t, "the flooder has its share", func() bool { st := l.b.Stats(); return st.Handshakes == 4 && st.OverCap >= 8 })
	dial(other)
	eventually(t, "another client has a place", func() bool { return l.b.Stats().Handshakes == 5 || l.b.Stats().NoBackend > 0 })
	dials.Wait()
	eventually(t, "no place is taken", func() bool { return l.b.Stats().Handshakes == 0 })
	l.b.conns.mu.Lock()
	defer l.b.conns.mu.Unlock()
	if len(l.b.conns.perClient)+len(l.b.conns.perVIP) != 0 {
		t.Errorf("clients %v and VIPs %v are remembered", l.b.conns.perClient, l.b.conns.perVIP)
	}
}

// TestVIPGivesUpClients that ask for a connection and do not complete it.
func TestVIPGivesUpClients(t *testing.T) {
	l := newLAN(t, func(c *BalancerConfig) { c.HandshakeTimeout = 10 * time.Millisecond })
	h := l.addBackend("10.10.0.11")
	var ended atomic.Int32
	serveTCP(t, h, 80, func(c net.Conn) {
		io.Copy(io.Discard, c)
		ended.Add(1)
	})
	client := l.addHost("10.10.0.20")
	l.publish()
	l.cut(client.addr) // it never hears
	go func() {
		if c, err := gonet.DialTCP(client.Stack, tcpip.FullAddress{Addr: toAddr(vipA), Port: 80}, client.protocol()); err == nil {
			c.Close()
		}
	}()
	eventually(t, "the handshake is given up", func() bool { return l.b.Stats().Abandoned == 1 })
	eventually(t, "the backend is told", func() bool { return ended.Load() == 1 })
	client.Close()
}

// TestVIPKeepsIdleConnections, and notices when an end has vanished.
func TestVIPKeepsIdleConnections(t *testing.T) {
	// The five questions take longer than the half second within which a stack
	// answers such segments but once.
	l := newLAN(t, func(c *BalancerConfig) { c.KeepAlive = 600 * time.Millisecond })
	h := l.addBackend("10.10.0.11")
	ended := make(chan error, 1)
	serveTCP(t, h, 80, func(c net.Conn) {
		_, err := io.Copy(c, c)
		ended <- err
	})
	client := l.addHost("10.10.0.20")
	l.publish()
	c, err := dialVIP(t, client, 80)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	say(t, c, "hello")
	before := l.b.Stats().Link.In
	eventually(t, "both ends have been asked a few times", func() bool { return l.b.Stats().Link.In >= before+4 })
	if got := say(t, c, "again"); got != "again" {
		t.Errorf("answer %q", got)
	}
	l.cut(client.addr)
	if err := <-ended; err == nil {
		t.Error("the backend saw the end of a client that has vanished")
	}
}

// TestVIPTakesPortsAgain: a client may use a port again at once, though what it
// had there rests in TIME-WAIT.
func TestVIPTakesPortsAgain(t *testing.T) {
	l := newLAN(t)
	h := l.addBackend("10.10.0.11")
	serveTCP(t, h, 80, nameOf(h)) // the backend ends first
	client := l.addHost("10.10.0.20")
	l.publish()
	local := tcpip.FullAddress{Addr: toAddr(client.addr), Port: 4242}
	start := time.Now()
	for range 5 {
		var c *gonet.TCPConn
		eventually(t, "the client's own stack lets the port go", func() (ok bool) {
			var err error
			c, err = gonet.DialTCPWithBind(t.Context(), client.Stack, local, tcpip.FullAddress{Addr: toAddr(vipA), Port: 80}, client.protocol())
			return err == nil
		})
		if _, err := io.ReadAll(c); err != nil {
			t.Fatal(err)
		}
		c.Close()
	}
	if took := time.Since(start); took > 3*time.Second { // each would have taken one
		t.Errorf("took %v", took)
	}
}

// TestVIPsComeAndGo with the services that have them.
func TestVIPsComeAndGo(t *testing.T) {
	l := newLAN(t)
	h := l.addBackend("10.10.0.11")
	serveTCP(t, h, 80, echo)
	client := l.addHost("10.10.0.20")
	owns := func() bool {
		l.b.updating.Lock()
		defer l.b.updating.Unlock()
		_, has := l.b.vips.owned[vipA]
		return has
	}
	l.publish()
	c, err := dialVIP(t, client, 80)
	if err != nil {
		t.Fatal(err)
	}
	say(t, c, "hello")
	l.eps[h.addr] = &directory.Endpoint{ID: "ep-10.10.0.11", Addr: h.addr} // of no service any more
	l.publish()
	if !owns() {
		t.Error("a VIP was given up while a connection used it")
	}
	if got := say(t, c, "again"); got != "again" {
		t.Errorf("answer %q", got)
	}
	c.Close()
	eventually(t, "the VIP is given up", func() bool { return !owns() })
	if _, err := gonet.DialTCPWithBind(t.Context(), l.b.stack, toFull(netip.AddrPortFrom(vipA, 0)), toFull(netip.AddrPortFrom(h.addr, 80)), ipv4.ProtocolNumber); err == nil {
		t.Error("the stack has the address still")
	}
	l.eps[h.addr].ServiceID, l.eps[h.addr].VIP = "id-web", vipA
	l.publish()
	if c, err = dialVIP(t, client, 80); err != nil {
		t.Fatalf("a VIP that has come back: %v", err)
	}
	say(t, c, "back")
	c.Close()
}

// TestDialService takes turns, and counts as the VIP does.
func TestDialService(t *testing.T) {
	l := newLAN(t)
	for _, addr := range []string{"10.10.0.11", "10.10.0.12"} {
		h := l.addBackend(addr)
		serveTCP(t, h, 80, nameOf(h))
	}
	l.addBackend("10.10.0.13") // refuses
	l.publish()
	port := directory.Port{Protocol: directory.TCP, Target: 80, Published: 8080}
	got := make(map[string]int)
	for range 12 {
		c, err := l.b.DialService(t.Context(), "id-web", port)
		if err != nil {
			t.Fatal(err)
		}
		name, err := io.ReadAll(c)
		if err != nil {
			t.Fatal(err)
		}
		got[string(name)]++
		c.Close()
		c.Close()
	}
	if len(got) != 2 || got["10.10.0.11"]+got["10.10.0.12"] != 12 {
		t.Errorf("got %v", got)
	}
	if st := l.b.Stats(); st.Active != 0 || st.Connections != 12 {
		t.Errorf("stats %+v", st)
	}
	if _, err := l.b.DialService(t.Context(), "id-gone", port); !errors.Is(err, errNoBackend) {
		t.Errorf("a service that is not there: %v", err)
	}
	l.cut(netip.MustParseAddr("10.10.0.11"))
	port.Published = 9999
	if _, err := l.b.DialService(t.Context(), "id-web", port); !errors.Is(err, errNoBackend) {
		t.Errorf("a port that nobody publishes: %v", err)
	}
}

func TestErrors(t *testing.T) {
	for _, test := range []struct {
		err  tcpip.Error
		want error
	}{
		{&tcpip.ErrConnectionRefused{}, syscall.ECONNREFUSED},
		{&tcpip.ErrConnectionReset{}, syscall.ECONNRESET},
		{&tcpip.ErrTimeout{}, syscall.ETIMEDOUT},
		{nil, nil},
	} {
		if got := toError(test.err); !errors.Is(got, test.want) {
			t.Errorf("%v became %v", test.err, got)
		}
	}
}

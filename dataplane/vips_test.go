package dataplane_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/ovnd/ovnd/discovery/directory"
)

// TestVIPDirect: connections and datagrams to a VIP go round a backend here and
// one on another node in strict turns, and each sees the client's own address.
func TestVIPDirect(t *testing.T) {
	for _, encrypted := range []bool{false, true} {
		for _, vip := range []netip.Addr{webVIP, web6VIP} {
			t.Run(fmt.Sprintf("encrypted=%v vip=%s", encrypted, vip), func(t *testing.T) { testVIPDirect(t, encrypted, vip) })
		}
	}
}

func testVIPDirect(t *testing.T, encrypted bool, vip netip.Addr) {
	w := newVIPWorld(t, encrypted)
	client, here, there := w.guest(0, 20), w.guest(0, 11), w.guest(1, 12)
	for _, g := range []*guest{here, there} {
		g.listen(80)
		g.serves()
	}
	for _, network := range []string{"tcp", "udp"} {
		var last string
		for i := range 20 {
			c := client.mustDial(network, 0, at(vip, 80))
			var who, sees string
			if network == "tcp" {
				who, sees = greeted(t, c)
				echoes(t, c, fmt.Sprint("round ", i))
			} else {
				who, sees = asked(t, c, 5000)
			}
			if who == last {
				t.Fatalf("%s: %s had two turns, at connection %d, and sees %s; %+v, %+v", network, who, i, sees, w.balancer.Stats(), w.nodes[0].Stats().VIPs)
			}
			if last = who; sees != c.LocalAddr().String() {
				t.Errorf("%s sees %s, not %s", who, sees, c.LocalAddr())
			}
			if c.RemoteAddr().String() != at(vip, 80).String() {
				t.Errorf("the client sees %s", c.RemoteAddr())
			}
		}
	}
	if st := w.balancer.Stats(); st.DirectConnections != 20 || st.DirectFlows != 20 || st.Connections != 20 || st.Active != 0 {
		t.Errorf("stats %+v", st)
	}
	if st := w.nodes[0].Stats().VIPs; st.Begun != 40 || st.Full != 0 {
		t.Errorf("%+v", st)
	}
}

// TestVIPDirectTransfers moves 100 MiB each way at once: every byte arrives.
func TestVIPDirectTransfers(t *testing.T) {
	const size = 100 << 20
	for _, encrypted := range []bool{false, true} {
		for node, where := range []string{"here", "there"} {
			t.Run(fmt.Sprintf("encrypted=%v %s", encrypted, where), func(t *testing.T) {
				w := newVIPWorld(t, encrypted)
				client, server := w.guest(0, 20), w.guest(node, 11)
				server.listen(80)
				server.serves()
				c := client.mustDial("tcp", 0, at(webVIP, 80)).(*net.TCPConn)
				if who, _ := greeted(t, c); who != server.Name() {
					t.Fatalf("%s answers", who)
				}
				_ = c.SetDeadline(time.Now().Add(2 * time.Minute))
				data := noise(size, 9)
				sent := make(chan error, 1)
				go func() {
					_, err := c.Write(data)
					sent <- errors.Join(err, c.CloseWrite())
				}()
				sum := sha256.New()
				n, err := io.Copy(sum, c)
				if err != nil || n != size || [32]byte(sum.Sum(nil)) != sha256.Sum256(data) {
					t.Fatalf("%d of %d bytes came back, %v", n, size, err)
				}
				if err := <-sent; err != nil {
					t.Error(err)
				}
				w.until("the connection has ended", func() bool { return w.nodes[0].Stats().VIPs.Flows == 0 })
				if st := server.stats(); st.Active != 0 || st.Direct != 0 || st.Connections != 1 {
					t.Errorf("stats %+v", st)
				}
			})
		}
	}
}

// TestVIPDirectPassesOver backends that refuse, and one that is silent; a client
// is refused when all are.
func TestVIPDirectPassesOver(t *testing.T) {
	w := newVIPWorld(t, false)
	client, good := w.guest(0, 20), w.guest(1, 12)
	good.listen(80)
	refusing, silent := w.guest(0, 11), w.guest(1, 13)
	silent.Down("eth0")
	for _, g := range []*guest{refusing, good, silent} {
		g.serves()
	}
	for range 6 {
		c := client.mustDial("tcp", 0, at(webVIP, 80))
		if who, _ := greeted(t, c); who != good.Name() {
			t.Fatalf("%s answers", who)
		}
	}
	if st := refusing.stats(); st.Failures == 0 || st.Connections != 0 || st.Active != 0 {
		t.Errorf("%+v", st)
	}
	if st := silent.stats(); st.Failures != 1 { // the others were spared the wait
		t.Errorf("%+v", st)
	}
	if st := w.balancer.Stats(); st.DirectConnections != 6 || st.Connections != 6 {
		t.Errorf("%+v", st)
	}
	if _, err := client.dial("tcp", 0, at(webVIP, 81)); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("nobody listens: %v", err)
	}
	if st := w.balancer.Stats(); st.NoBackend != 1 {
		t.Errorf("%+v", st)
	}
}

// TestVIPDirectRefusedDatagrams: UDP goes to the next backend when the first has
// no socket, and the client is told when none has.
func TestVIPDirectRefusedDatagrams(t *testing.T) {
	w := newVIPWorld(t, false)
	client, good := w.guest(0, 20), w.guest(1, 12)
	good.listen(53)
	for _, g := range []*guest{w.guest(0, 11), good, w.guest(1, 13)} {
		g.serves()
	}
	c := client.mustDial("udp", 0, at(webVIP, 53))
	buf := make([]byte, 100)
	w.until("an answer", func() bool {
		_, _ = c.Write([]byte("?"))
		_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		n, err := c.Read(buf)
		if errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatal("the client was told of one that refused")
		}
		return n > 0
	})
	c = client.mustDial("udp", 0, at(webVIP, 54))
	w.until("the client is told that nobody is there", func() bool {
		_, err := c.Write([]byte("?"))
		return errors.Is(err, syscall.ECONNREFUSED)
	})
}

// TestVIPDirectEnds: connections to an endpoint that is gone are reset, those to
// one that drains go on.
func TestVIPDirectEnds(t *testing.T) {
	w := newVIPWorld(t, false)
	client, old, fresh := w.guest(0, 20), w.guest(1, 11), w.guest(0, 12)
	old.listen(80)
	fresh.listen(80)
	old.serves()
	c, u := client.mustDial("tcp", 0, at(webVIP, 80)), client.mustDial("udp", 0, at(webVIP, 80))
	greeted(t, c)
	if who, _ := asked(t, u, 10); who != old.Name() {
		t.Fatalf("%s answers", who)
	}
	fresh.serves()
	old.change(func(ep *directory.Endpoint) { ep.Disabled = true })
	echoes(t, c, "draining")
	if who, _ := asked(t, u, 10); who != old.Name() {
		t.Errorf("%s has taken over a flow", who)
	}
	for range 4 {
		if who, _ := greeted(t, client.mustDial("tcp", 0, at(webVIP, 80))); who != fresh.Name() {
			t.Errorf("%s takes a connection while it drains", who)
		}
	}
	if st := old.stats(); !st.Draining || st.Active != 2 || st.Direct != 2 {
		t.Errorf("%+v", st)
	}
	old.leave()
	w.until("a flow has another backend", func() bool {
		_, _ = u.Write([]byte("?")) // until then they go nowhere
		_ = u.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		n, _ := u.Read(make([]byte, 100))
		return n > 0
	})
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a connection to an endpoint that is gone: %v", err)
	}
}

// TestVIPDirectHairpin: a client whose own turn it is gets itself by the proxy,
// and nobody's turn is lost.
func TestVIPDirectHairpin(t *testing.T) {
	w := newVIPWorld(t, false)
	a, b := w.guest(0, 11), w.guest(1, 12)
	for _, g := range []*guest{a, b} {
		g.listen(80)
		g.serves()
	}
	last := ""
	for i := range 10 {
		who, sees := greeted(t, a.mustDial("tcp", 0, at(webVIP, 80)))
		if who == last {
			t.Fatalf("%s had two turns, at connection %d", who, i)
		}
		last = who
		if host, _, _ := net.SplitHostPort(sees); (who == a.Name()) != (host == webLB.Addr().String()) {
			t.Errorf("%s sees %s", who, sees)
		}
	}
	if st := w.balancer.Stats(); st.DirectConnections != 5 || st.Connections != 10 {
		t.Errorf("%+v", st)
	}
}

// TestVIPProxied: a service may ask for the proxy.
func TestVIPProxied(t *testing.T) {
	w := newVIPWorld(t, false)
	client, server := w.guest(0, 20), w.guest(1, 11)
	server.listen(80)
	server.serves()
	server.change(func(ep *directory.Endpoint) { ep.Way = directory.Proxied })
	for _, network := range []string{"tcp", "udp"} {
		c := client.mustDial(network, 0, at(webVIP, 80))
		sees := ""
		if network == "tcp" {
			_, sees = greeted(t, c)
		} else {
			_, sees = asked(t, c, 10)
		}
		if host, _, _ := net.SplitHostPort(sees); host != webLB.Addr().String() {
			t.Errorf("%s: the backend sees %s", network, sees)
		}
	}
	if st := w.nodes[0].Stats().VIPs; st.Begun != 0 {
		t.Errorf("%+v", st)
	}
}

package dataplane_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ovnd/ovnd/dataplane"
	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/encap"
	"github.com/ovnd/ovnd/netstack"
)

// TestVIPDirectCollisions: connections of a client that would be one once they are
// rewritten stay apart, whichever comes first.
func TestVIPDirectCollisions(t *testing.T) {
	w := newVIPWorld(t, false)
	client, server := w.guest(0, 20), w.guest(1, 11)
	server.listen(80)
	server.serves()
	port := uint16(40000)
	for _, network := range []string{"tcp", "udp"} {
		talk := func(c net.Conn, what string) (sees string) {
			t.Helper()
			if network == "udp" {
				_, sees = asked(t, c, 20)
				return sees
			}
			echoes(t, c, what)
			return ""
		}
		open := func(to netip.AddrPort) net.Conn {
			t.Helper()
			c := client.mustDial(network, port, to)
			if network == "tcp" {
				greeted(t, c)
			}
			return c
		}
		for _, vipFirst := range []bool{true, false} {
			port++
			var byVIP, own net.Conn
			if vipFirst {
				byVIP = open(at(webVIP, 80))
				talk(byVIP, "first")
				own = open(at(server.a, 80))
			} else {
				own = open(at(server.a, 80))
				talk(own, "first")
				byVIP = open(at(webVIP, 80))
			}
			for i := range 5 {
				a, b := talk(byVIP, fmt.Sprint("VIP ", i)), talk(own, fmt.Sprint("own ", i))
				if network == "udp" && a == b {
					t.Errorf("the server sees %s twice", a)
				}
			}
			own.Close()
			byVIP.Close()
		}
	}
}

// TestVIPDirectTwoVIPs: one source port to two VIPs with one backend.
func TestVIPDirectTwoVIPs(t *testing.T) {
	w := newVIPWorld(t, false)
	client, server := w.guest(0, 20), w.guest(1, 11)
	server.listen(80)
	server.serves()
	// No endpoint has two services on a network: the first one's VIP changes, as
	// when a service is made anew, while a connection goes through the old one.
	first := client.mustDial("tcp", 41000, at(webVIP, 80))
	greeted(t, first)
	server.change(func(ep *directory.Endpoint) {
		if ep.Addr == server.a {
			ep.ServiceID, ep.VIP = "again", otherVIP
		}
	})
	second := client.mustDial("tcp", 41000, at(otherVIP, 80))
	greeted(t, second)
	for i := range 5 {
		echoes(t, first, fmt.Sprint("old ", i))
		echoes(t, second, fmt.Sprint("new ", i))
	}
}

// TestVIPDirectStacks: backends without a device, here and on another node.
func TestVIPDirectStacks(t *testing.T) {
	for _, encrypted := range []bool{false, true} {
		t.Run(fmt.Sprintf("encrypted=%v", encrypted), func(t *testing.T) {
			w := newVIPWorld(t, encrypted)
			client := w.guest(0, 20)
			machine := newMachine(t)
			for node, i := range []int{11, 12} {
				client.reaches(w.stackBackend(node, i, machine))
			}
			for i := range 10 {
				c := client.mustDial("tcp", 0, at(webVIP, 80))
				line(t, c)
				echoes(t, c, fmt.Sprint("round ", i))
				c.Close()
			}
			for _, s := range w.balancer.Stats().Services {
				for _, b := range s.Backends {
					if b.Connections != 5 || b.Failures != 0 {
						t.Errorf("%+v", b)
					}
				}
			}
			if st := w.balancer.Stats(); st.DirectConnections != 10 {
				t.Errorf("%+v", st)
			}
			w.until("all have ended", func() bool { return w.nodes[0].Stats().VIPs.Flows == 0 })
		})
	}
}

// newMachine serves at a port of this machine's loopback: it says hello, and sends
// back what comes.
func newMachine(t *testing.T) netip.AddrPort {
	t.Helper()
	loopbackUp(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			work.Go(func() {
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(2 * patience))
				_, _ = c.Write([]byte("hello\n"))
				buf := make([]byte, 1000)
				for {
					n, err := c.Read(buf)
					if err != nil {
						return
					}
					_, _ = c.Write(buf[:n])
				}
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		work.Wait()
	})
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// loopbackUp has this process' own namespace reach itself.
func loopbackUp(t *testing.T) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err == nil {
		lo.SetUint16(unix.IFF_UP)
		err = unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// stackBackend puts a backend of web on a node whose sockets are the machine's.
func (w *vipWorld) stackBackend(node, i int, machine netip.AddrPort) netip.Addr {
	w.t.Helper()
	addr := netip.MustParseAddr(fmt.Sprintf("10.0.0.%d", i))
	var port atomic.Pointer[dataplane.StackPort]
	h, err := netstack.NewHost(netstack.HostConfig{
		Addr: netip.PrefixFrom(addr, 24), MTU: w.snap.MTU, Log: slog.New(slog.DiscardHandler),
		Send: func(frames [][]byte) {
			if p := port.Load(); p != nil {
				p.Inject(frames)
			}
		},
		Target: func(directory.Protocol, uint16) (netip.AddrPort, bool) { return machine, true },
	})
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	p, err := w.nodes[node].AddStackPort(dataplane.StackPortConfig{
		NetworkID: w.snap.ID, EndpointID: addr.String(), Name: addr.String(), MAC: encap.EndpointMAC(addr),
		Addrs: []netip.Addr{addr}, MTU: w.snap.MTU, Deliver: h.Deliver,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	port.Store(p)
	w.t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	})
	w.publish(func(s *directory.Snapshot) {
		ep := w.place(s, addr, node)
		ep.ServiceID, ep.ServiceName, ep.VIP = "web", "web", webVIP
	})
	return addr
}

// TestVIPDirectChurn: clients connect all the time while backends come and go, and
// refuse: each connection is answered, and the books are right.
func TestVIPDirectChurn(t *testing.T) {
	w := newVIPWorld(t, false)
	good := []*guest{w.guest(0, 11), w.guest(1, 12)}
	for _, g := range good {
		g.listen(80)
		g.serves()
	}
	w.guest(0, 13).serves() // refuses
	moving := w.guest(1, 14)
	moving.listen(80)
	clients := []*guest{w.guest(0, 20), w.guest(0, 21)}
	ctx, stop := context.WithCancel(t.Context())
	var work sync.WaitGroup
	var connections atomic.Int64
	for _, c := range clients {
		for range 4 {
			work.Go(func() {
				for ctx.Err() == nil {
					conn, err := c.dial("tcp", 0, at(webVIP, 80))
					if err != nil {
						if ctx.Err() == nil {
							t.Error(err)
						}
						return
					}
					_, err = conn.Write([]byte("hello\n"))
					buf := make([]byte, 100)
					for n, lines := 0, 0; lines < 2 && err == nil; {
						if n, err = conn.Read(buf); err == nil {
							for _, b := range buf[:n] {
								if b == '\n' {
									lines++
								}
							}
						}
					}
					conn.Close()
					if err != nil && !errors.Is(err, syscall.ECONNRESET) {
						t.Error(err)
						return
					}
					connections.Add(1)
				}
			})
		}
	}
	for i := range 20 {
		before := connections.Load()
		if i%2 == 0 {
			moving.serves()
		} else {
			moving.change(func(ep *directory.Endpoint) { ep.ServiceID, ep.VIP = "", netip.Addr{} })
		}
		w.until("connections are made", func() bool { return connections.Load() >= before+50 || t.Failed() })
	}
	stop()
	work.Wait()
	w.until("all have ended", func() bool { return w.nodes[0].Stats().VIPs.Flows == 0 })
	st := w.balancer.Stats()
	if st.DirectActive != 0 || st.DirectConnections < uint64(connections.Load()) {
		t.Errorf("%+v after %d connections", st, connections.Load())
	}
}

package netstack

import (
	"net"
	"net/netip"
	"sync/atomic"
	"testing"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// TestEgressTakesPortsAgain: a sandbox may use a port again at once, though what
// it had there rests in TIME-WAIT. It asks once.
func TestEgressTakesPortsAgain(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var accepted atomic.Int32
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted.Add(1)
			_ = c.Close() // the far end ends first
		}
	}()
	o := newOutlet(t, EgressConfig{HostLoopback: true})
	to := netip.AddrPortFrom(gateway.Addr(), l.Addr().(*net.TCPAddr).AddrPort().Port())
	from := netip.AddrPortFrom(o.sandbox.addr, 4242)
	c, err := gonet.DialTCPWithBind(t.Context(), o.sandbox.Stack, toFull(from), toFull(to), o.sandbox.protocol())
	if err != nil {
		t.Fatal(err)
	}
	_, _ = c.Read(make([]byte, 1))
	c.Close()
	eventually(t, "the connection rests", func() bool {
		for _, ep := range o.stack.RegisteredEndpoints() {
			if ep, ok := ep.(*tcp.Endpoint); ok && ep.EndpointState() == tcp.StateTimeWait {
				return true
			}
		}
		return false
	})
	o.Deliver(synFrom(from, to), 1)
	eventually(t, "it makes way for the next", func() bool { return accepted.Load() == 2 })
}

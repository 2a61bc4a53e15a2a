package netstack

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"

	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/encap"
)

// TestBegin: the data plane may have what is not this balancer's already.
func TestBegin(t *testing.T) {
	l := newLAN(t, func(c *BalancerConfig) { c.DialTimeout = 10 * time.Second })
	h := l.addBackend("10.10.0.11")
	client := l.addHost("10.10.0.20")
	l.publish()
	at := func(port uint16) (client4, service netip.AddrPort) {
		return netip.AddrPortFrom(client.addr, port), netip.AddrPortFrom(vipA, 80)
	}
	begins := func(protocol uint8, port uint16) bool {
		from, to := at(port)
		return l.b.Begin(protocol, from, to) != nil
	}
	if !begins(encap.ProtocolTCP, 4000) || !begins(encap.ProtocolUDP, 4000) {
		t.Error("a flow of a client is refused")
	}
	if l.b.Begin(encap.ProtocolTCP, netip.AddrPortFrom(client.addr, 4000), netip.MustParseAddrPort("10.10.0.77:80")) != nil {
		t.Error("a flow to no VIP is taken")
	}

	// A connection that is pending here, and a flow, stay.
	l.cut(h.addr)
	dialed := make(chan struct{})
	go func() {
		defer close(dialed)
		local := tcpip.FullAddress{Addr: toAddr(client.addr), Port: 4001}
		if c, err := gonet.DialTCPWithBind(t.Context(), client.Stack, local, tcpip.FullAddress{Addr: toAddr(vipA), Port: 80}, client.protocol()); err == nil {
			c.Close()
		}
	}()
	eventually(t, "the connection is pending", func() bool { return !begins(encap.ProtocolTCP, 4001) })
	if !begins(encap.ProtocolTCP, 4002) {
		t.Error("another is refused")
	}
	u, err := gonet.DialUDP(client.Stack, &tcpip.FullAddress{Addr: toAddr(client.addr), Port: 4003}, &tcpip.FullAddress{Addr: toAddr(vipA), Port: 80}, client.protocol())
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	u.Write([]byte("?"))
	eventually(t, "the flow is there", func() bool { return !begins(encap.ProtocolUDP, 4003) })
	client.Close()
	<-dialed

	for way, want := range map[directory.Way]bool{directory.Proxied: false, directory.Direct: true, directory.DefaultWay: true} {
		l.eps[h.addr].Way = way
		l.publish()
		if begins(encap.ProtocolTCP, 4005) != want {
			t.Errorf("with the label %q: %v", way, !want)
		}
	}
	l.drain(h)
	l.publish()
	if begins(encap.ProtocolTCP, 4006) {
		t.Error("a flow for which there is no backend is taken")
	}
}

// TestDirectCounts: what the data plane carries counts as what ends here does.
func TestDirectCounts(t *testing.T) {
	l := newLAN(t)
	h := l.addBackend("10.10.0.11")
	serveTCP(t, h, 80, func(net.Conn) {})
	l.publish()
	from, to := netip.MustParseAddrPort("10.10.0.20:4000"), netip.AddrPortFrom(vipA, 80)
	b, _ := l.b.Begin(encap.ProtocolTCP, from, to).Next()
	b.Opened()
	u, _ := l.b.Begin(encap.ProtocolUDP, from, to).Next()
	u.Opened()
	u.Failed(false)
	if st := backendStats(t, l, h); st.Active != 2 || st.Direct != 2 || st.Connections != 2 || st.Failures != 1 {
		t.Errorf("%+v", st)
	}
	if st := l.b.Stats(); st.Connections != 1 || st.Flows != 1 || st.DirectConnections != 1 || st.DirectFlows != 1 || st.DirectActive != 2 || st.Active != 0 {
		t.Errorf("%+v", st)
	}
	b.Closed()
	u.Closed()
	if st := l.b.Stats(); st.DirectActive != 0 || backendStats(t, l, h).Active != 0 {
		t.Errorf("%+v", st)
	}
	if b.Addr() != h.addr || b.EndpointID() != "ep-10.10.0.11" || !b.Serving() {
		t.Errorf("%s, %s", b.Addr(), b.EndpointID())
	}
	l.remove(h)
	l.publish()
	if b.Serving() {
		t.Error("it serves though it is gone")
	}
}

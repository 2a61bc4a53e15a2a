package netstack

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"

	"github.com/ovnd/ovnd/dataplane/pkt"
	"github.com/ovnd/ovnd/encap"
)

// echoUDP answers each datagram at the host's loopback.
func echoUDP(t *testing.T) netip.AddrPort {
	t.Helper()
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		b := make([]byte, 65536)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = c.WriteTo(b[:n], from)
		}
	}()
	return netip.AddrPortFrom(gateway.Addr(), uint16(c.LocalAddr().(*net.UDPAddr).Port))
}

// TestEgressUDP sends datagrams of all sizes, some in fragments, and has a closed
// port refused.
func TestEgressUDP(t *testing.T) {
	o := newOutlet(t, EgressConfig{HostLoopback: true})
	c := o.datagrams(echoUDP(t))
	for _, size := range []int{100, 0, 1472, 9000, 1} {
		want := bytes.Repeat([]byte{byte(size)}, size)
		if _, err := c.Write(want); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 10000)
		n, err := c.Read(got)
		if err != nil || !bytes.Equal(got[:n], want) {
			t.Fatalf("datagram of %d bytes: %d came back, %v", size, n, err)
		}
	}
	if st := o.Stats(); st.Flows != 1 || st.ActiveFlows != 1 {
		t.Errorf("%+v", st)
	}
	o.expireFlows(time.Now().Add(2 * time.Minute))
	if n := o.Stats().ActiveFlows; n != 1 {
		t.Errorf("%d flows after two idle minutes, want 1", n)
	}
	o.expireFlows(time.Now().Add(4 * time.Minute))
	if n := o.Stats().ActiveFlows; n != 0 {
		t.Errorf("%d flows after four idle minutes, want none", n)
	}
}

// TestEgressUDPRefused: a sender is told by ICMP that nobody listens, or that it
// may not go there.
func TestEgressUDPRefused(t *testing.T) {
	far := netip.MustParseAddrPort("192.168.7.7:53")
	for _, test := range []struct {
		loopback bool
		to       netip.AddrPort
	}{{true, closedPort(t)}, {false, closedPort(t)}, {true, far}, {false, netip.MustParseAddrPort("192.0.2.1:4789")}} {
		o := newOutlet(t, EgressConfig{HostLoopback: test.loopback, Refuse: func(a netip.Addr) bool { return a == far.Addr() }})
		_, _ = o.datagrams(test.to).Write([]byte("x"))
		told := o.sandbox.Stats().ICMP.V4.PacketsReceived.DstUnreachable
		eventually(t, fmt.Sprintf("%+v: an ICMP error", test), func() bool { return told.Value() == 1 })
		if ours := !test.loopback || test.to == far; (o.Stats().Refused == 1) != ours {
			t.Errorf("%+v: %+v", test, o.Stats())
		}
	}
}

// TestEgressFlowCap: a sandbox that has as many flows as it may loses those that
// were idle for longest.
func TestEgressFlowCap(t *testing.T) {
	o := newOutlet(t, EgressConfig{HostLoopback: true, MaxFlows: 6})
	at := echoUDP(t)
	b := make([]byte, 8)
	var conns []*gonet.UDPConn
	for range 6 {
		c := o.datagrams(at)
		conns = append(conns, c)
		_, _ = c.Write([]byte("x"))
		if _, err := c.Read(b); err != nil {
			t.Fatal(err)
		}
	}
	if st := o.Stats(); st.ActiveFlows != share(6) || st.Evicted != uint64(6-share(6)) {
		t.Errorf("%+v", st)
	}
	_, _ = conns[0].Write([]byte("x")) // a flow again, for another's
	if _, err := conns[0].Read(b); err != nil {
		t.Error(err)
	}
}

// TestEgressPing: where the host lets its user open no ping sockets, or nobody
// may go, a sandbox is told; the gateway answers itself.
func TestEgressPing(t *testing.T) {
	o := newOutlet(t, EgressConfig{})
	o.open = func(uint8, netip.AddrPort) (*datagramSocket, error) {
		return nil, os.NewSyscallError("socket", syscall.EACCES)
	}
	received := o.sandbox.Stats().ICMP.V4.PacketsReceived
	for i, to := range []string{"192.0.2.1", "169.254.169.254"} {
		o.link.Deliver(pingFrom(o.sandbox.addr, netip.MustParseAddr(to)), 1)
		eventually(t, "an error about "+to, func() bool { return received.DstUnreachable.Value() == uint64(i+1) })
	}
	o.link.Deliver(pingFrom(o.sandbox.addr, gateway.Addr()), 1)
	eventually(t, "the gateway's reply", func() bool { return received.EchoReply.Value() == 1 })
	if st := o.Stats(); st.PingsDenied != 1 || st.Refused != 1 || st.Pings != 0 || st.ActiveFlows != 0 {
		t.Errorf("%+v", st)
	}
}

// TestErrorLimit: a burst, and then no more than the rate.
func TestErrorLimit(t *testing.T) {
	var l errorLimit
	began, sent := time.Now(), 0
	for range 10000 {
		if l.allow() {
			sent++
		}
	}
	if most := errorBurst + 1 + int(time.Since(began)/errorInterval); sent < errorBurst || sent > most {
		t.Errorf("%d allowed, want %d to %d", sent, errorBurst, most)
	}
}

// pingFrom is an echo request behind its metadata.
func pingFrom(from, to netip.Addr) []byte {
	b := make([]byte, pkt.MetaLen+encap.IPv4HeaderLen+icmpHeaderLen)
	msg := encap.PutIPv4(b[pkt.MetaLen:], from, to, encap.ProtocolICMP, icmpHeaderLen).Payload()
	msg[0], msg[5] = 8, 1
	sum := encap.Checksum(msg, 0)
	msg[2], msg[3] = byte(sum>>8), byte(sum)
	return b
}

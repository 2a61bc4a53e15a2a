package netstack

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"

	"github.com/ovnd/ovnd/dataplane/pkt"
	"github.com/ovnd/ovnd/encap"
)

var gateway = netip.MustParsePrefix("172.18.0.1/16")

// An outlet is an egress that runs, and a sandbox behind it.
type outlet struct {
	*Egress
	t       *testing.T
	sandbox *host
}

func newOutlet(t *testing.T, cfg EgressConfig) *outlet {
	t.Helper()
	o := &outlet{t: t}
	cfg.Gateway, cfg.MTU = gateway, 1500
	cfg.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	// A stack that is told at once of an error about what it sends would wait
	// for itself: there is a queue between the two.
	cfg.Send = queue(t, func(frames [][]byte) { carryTo(o.sandbox.link, frames) })
	var err error
	if o.Egress, err = NewEgress(cfg); err != nil {
		t.Fatal(err)
	}
	o.sandbox = newHost(t, "172.18.0.2", 1500, func(frames [][]byte) { carryTo(o.link, frames) })
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- o.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return o
}

func carryTo(l *Link, frames [][]byte) {
	for _, f := range frames {
		ip, err := encap.ParseIP(f[pkt.MetaLen:])
		if err != nil {
			continue
		}
		if plan, err := pkt.NewPlan(pkt.ParseMeta(f), ip); err == nil {
			l.Deliver(f, plan.Count())
		}
	}
}

// queue returns a function that copies frames for a goroutine which carries them.
func queue(t *testing.T, carry func([][]byte)) func([][]byte) {
	frames := make(chan [][]byte, 1024)
	ended, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case f := <-frames:
				carry(f)
			case <-done:
				return
			}
		}
	}()
	t.Cleanup(func() {
		close(done)
		<-ended
	})
	return func(lent [][]byte) {
		own := make([][]byte, 0, len(lent))
		for _, f := range lent {
			own = append(own, bytes.Clone(f))
		}
		select {
		case frames <- own:
		case <-done:
		}
	}
}

// dial connects from the sandbox.
func (o *outlet) dial(to netip.AddrPort) (*gonet.TCPConn, error) {
	ctx, cancel := context.WithTimeout(o.t.Context(), 3*time.Second)
	defer cancel()
	c, err := gonet.DialContextTCP(ctx, o.sandbox.Stack, toFull(to), o.sandbox.protocol())
	if err == nil {
		o.t.Cleanup(func() { c.Close() })
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	}
	return c, err
}

// datagrams connects a UDP socket from the sandbox.
func (o *outlet) datagrams(to netip.AddrPort) *gonet.UDPConn {
	o.t.Helper()
	remote := toFull(to)
	c, err := gonet.DialUDP(o.sandbox.Stack, nil, &remote, o.sandbox.protocol())
	if err != nil {
		o.t.Fatal(err)
	}
	o.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	return c
}

// serve listens at the host's loopback and gives each connection to handle. It
// returns the address that stands for it.
func serve(t *testing.T, handle func(*net.TCPConn)) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
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
			go handle(c.(*net.TCPConn))
		}
	}()
	return netip.AddrPortFrom(gateway.Addr(), uint16(l.Addr().(*net.TCPAddr).Port))
}

// closedPort returns a port of the host's loopback that nobody listens at.
func closedPort(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	return netip.AddrPortFrom(gateway.Addr(), uint16(l.Addr().(*net.TCPAddr).Port))
}

// TestEgressTCP moves data both ways, one direction after the other has ended.
func TestEgressTCP(t *testing.T) {
	o := newOutlet(t, EgressConfig{HostLoopback: true})
	const size = 8 << 20
	at := serve(t, func(c *net.TCPConn) {
		defer c.Close()
		h := sha256.New()
		if _, err := io.Copy(h, c); err != nil {
			t.Errorf("server: %v", err)
		}
		_, _ = c.Write(h.Sum(nil))
		_, _ = io.CopyN(c, rand.NewChaCha8([32]byte{4}), size)
	})
	c, err := o.dial(at)
	if err != nil {
		t.Fatal(err)
	}
	h := sha256.New()
	if _, err := io.CopyN(io.MultiWriter(c, h), rand.NewChaCha8([32]byte{3}), size); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, sha256.Size)
	if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, h.Sum(nil)) {
		t.Fatalf("the server got other data: %v", err)
	}
	rest, err := io.ReadAll(c)
	want := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{4}).Read(want)
	if err != nil || !bytes.Equal(rest, want) {
		t.Fatalf("%d bytes came back, other ones or not all: %v", len(rest), err)
	}
	c.Close()
	o.idle()
	if st := o.Stats(); st.Connections != 1 {
		t.Errorf("%+v", st)
	}
}

// idle waits until no connection is left.
func (o *outlet) idle() {
	o.t.Helper()
	eventually(o.t, "no connection is left", func() bool {
		st := o.Stats()
		return st.Active == 0 && st.Dialing == 0
	})
}

// TestEgressRefused: what cannot be reached is refused at once, and nobody is
// asked where nobody may go.
func TestEgressRefused(t *testing.T) {
	open := serve(t, func(c *net.TCPConn) { c.Close() })
	for _, test := range []struct {
		name string
		cfg  EgressConfig
		to   netip.AddrPort
		ours bool // it was refused here
	}{
		{"closed port", EgressConfig{HostLoopback: true}, closedPort(t), false},
		{"host's loopback by the gateway", EgressConfig{}, open, true},
		{"metadata service", EgressConfig{}, netip.MustParseAddrPort("169.254.169.254:80"), true},
		{"this network", EgressConfig{}, netip.MustParseAddrPort("0.0.0.1:80"), true},
		{"future use", EgressConfig{}, netip.MustParseAddrPort("240.0.0.1:80"), true},
		{"an overlay", EgressConfig{Refuse: netip.MustParsePrefix("10.10.0.0/16").Contains}, netip.MustParseAddrPort("10.10.0.3:80"), true},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := newOutlet(t, test.cfg)
			_, err := o.dial(test.to)
			if err == nil || !strings.Contains(err.Error(), "refused") {
				t.Errorf("dial %s: %v, want a refusal", test.to, err)
			}
			st := o.Stats()
			if (st.Refused == 1) != test.ours || (st.Unreachable == 1) == test.ours {
				t.Errorf("%+v", st)
			}
			o.idle()
		})
	}
}

// TestEgressOtherSandbox: one that asks for another hears that it may not, from
// the gateway.
func TestEgressOtherSandbox(t *testing.T) {
	o := newOutlet(t, EgressConfig{})
	if _, err := o.dial(netip.MustParseAddrPort("172.18.0.3:80")); err == nil || !strings.Contains(err.Error(), "no route to host") {
		t.Errorf("dial: %v", err)
	}
	if st := o.Stats(); st.Refused == 0 || st.Connections != 0 {
		t.Errorf("%+v", st)
	}
}

// TestEgressReset passes resets on, both ways.
func TestEgressReset(t *testing.T) {
	o := newOutlet(t, EgressConfig{HostLoopback: true})
	got := make(chan error, 1)
	at := serve(t, func(c *net.TCPConn) {
		b := make([]byte, 1)
		_, _ = c.Read(b)
		if b[0] == 'r' {
			_ = c.SetLinger(0)
			c.Close()
			return
		}
		_, _ = c.Write(b)
		_, err := c.Read(b)
		got <- err
	})
	c, err := o.dial(at)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = c.Write([]byte("r"))
	if _, err := c.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "reset") {
		t.Errorf("after the server's reset: %v", err)
	}
	if c, err = o.dial(at); err != nil {
		t.Fatal(err)
	}
	_, _ = c.Write([]byte("x"))
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	for _, ep := range o.sandbox.RegisteredEndpoints() {
		ep.Abort()
	}
	if err := <-got; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("after the sandbox's reset the server has %v", err)
	}
	o.idle()
}

// TestEgressConnCap: the connection that is one too many has to wait.
func TestEgressConnCap(t *testing.T) {
	o := newOutlet(t, EgressConfig{HostLoopback: true, MaxConnections: 3})
	at := serve(t, func(c *net.TCPConn) {
		_, _ = io.Copy(io.Discard, c)
		c.Close()
	})
	first, err := o.dial(at)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.dial(at); err != nil {
		t.Fatal(err)
	}
	waits := make(chan error, 1)
	go func() {
		_, err := o.dial(at)
		waits <- err
	}()
	for o.Stats().OverCap == 0 {
		time.Sleep(time.Millisecond)
	}
	first.Close()
	if err := <-waits; err != nil {
		t.Errorf("when there is room again: %v", err)
	}
}

// TestEgressDial connects from the gateway to a sandbox.
func TestEgressDial(t *testing.T) {
	o := newOutlet(t, EgressConfig{})
	l, err := gonet.ListenTCP(o.sandbox.Stack, o.sandbox.full(80), o.sandbox.protocol())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err == nil {
			_, _ = c.Write([]byte(c.RemoteAddr().(*net.TCPAddr).IP.String()))
			c.Close()
		}
	}()
	c, err := o.DialContext(t.Context(), "tcp", "172.18.0.2:80")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, err := io.ReadAll(c); err != nil || string(got) != "172.18.0.1" {
		t.Errorf("the sandbox sees %q, %v", got, err)
	}
	if _, err := o.DialContext(t.Context(), "tcp", "172.18.0.2:81"); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("a closed port: %v", err)
	}
	laddr := o.sandbox.full(53)
	u, err := gonet.DialUDP(o.sandbox.Stack, &laddr, nil, o.sandbox.protocol())
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	d, err := o.DialContext(t.Context(), "udp", "172.18.0.2:53")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	b := make([]byte, 8)
	_, _ = d.Write([]byte("ask"))
	_ = u.SetDeadline(time.Now().Add(5 * time.Second))
	n, from, err := u.ReadFrom(b)
	if err != nil || string(b[:n]) != "ask" {
		t.Fatalf("%q, %v", b[:n], err)
	}
	_, _ = u.WriteTo([]byte("answer"), from)
	_ = d.SetDeadline(time.Now().Add(5 * time.Second))
	if n, err = d.Read(b); err != nil || string(b[:n]) != "answer" {
		t.Errorf("%q, %v", b[:n], err)
	}
	for _, bad := range []string{"192.0.2.1:80", "172.18.0.1:80", "nonsense"} {
		if _, err := o.DialContext(t.Context(), "tcp", bad); err == nil {
			t.Errorf("dialed %s", bad)
		}
	}
	if _, err := o.DialContext(t.Context(), "sctp", "172.18.0.2:80"); err == nil {
		t.Error("dialed sctp")
	}
}

// TestEgressEnds: nothing is left of an egress that ends with connections and
// flows open, and a handshake under way.
func TestEgressEnds(t *testing.T) {
	at := serve(t, func(c *net.TCPConn) {
		_, _ = io.Copy(io.Discard, c)
		c.Close()
	})
	uat := echoUDP(t)
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	var sandbox *Link
	e, err := NewEgress(EgressConfig{
		Gateway: gateway, MTU: 1500, HostLoopback: true,
		Send: func(frames [][]byte) { carryTo(sandbox, frames) },
	})
	if err != nil {
		t.Fatal(err)
	}
	sandbox = NewLink(1500, func(frames [][]byte) { carryTo(e.link, frames) })
	s, err := newStack(sandbox)
	if err != nil {
		t.Fatal(err)
	}
	if err := addAddr(s, netip.MustParseAddr("172.18.0.2"), true); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	c, err := gonet.DialTCP(s, toFull(at), protocolOf(at.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	remote := toFull(uat)
	u, err := gonet.DialUDP(s, nil, &remote, protocolOf(at.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = u.Write([]byte("x"))
	if _, err := u.Read(make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	e.link.Deliver(synFrom(netip.MustParseAddrPort("172.18.0.9:9"), at), 1) // nobody completes that
	for e.stack.Stats().TCP.PassiveConnectionOpenings.Value()+e.Stats().Connections < 2 {
		if len(e.stack.RegisteredEndpoints()) > 1 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	_ = c.SetDeadline(time.Now().Add(3 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err == nil || strings.Contains(err.Error(), "timeout") {
		t.Errorf("a connection after the end: %v", err)
	}
	c.Close()
	u.Close()
	s.Destroy()
	if st := e.Stats(); st.Active != 0 || st.ActiveFlows != 0 || st.Dialing != 0 {
		t.Errorf("%+v", st)
	}
	if c := &e.clients; len(c.by)+len(c.conns)+len(c.dials) != 0 {
		t.Errorf("left in the table: %+v", c.by)
	}
}

// synFrom is a SYN behind its metadata.
func synFrom(from, to netip.AddrPort) []byte {
	b := make([]byte, pkt.MetaLen+encap.IPv4HeaderLen+encap.TCPHeaderLen)
	p := encap.PutIPv4(b[pkt.MetaLen:], from.Addr(), to.Addr(), encap.ProtocolTCP, encap.TCPHeaderLen)
	s := p.Payload()
	s[0], s[1] = byte(from.Port()>>8), byte(from.Port())
	s[2], s[3] = byte(to.Port()>>8), byte(to.Port())
	s[12], s[13], s[14] = 5<<4, 2, 0xff
	pkt.Meta{Flags: pkt.DataValid}.Put(b)
	return b
}

// TestEgressConfig: errors name the field.
func TestEgressConfig(t *testing.T) {
	send := func([][]byte) {}
	for field, cfg := range map[string]EgressConfig{
		"Gateway": {MTU: 1500, Send: send, Gateway: netip.MustParsePrefix("172.18.0.0/16")},
		"MTU":     {Gateway: gateway, Send: send},
		"Send":    {Gateway: gateway, MTU: 1500},
	} {
		if _, err := NewEgress(cfg); err == nil || !strings.Contains(err.Error(), "EgressConfig."+field) {
			t.Errorf("%s: %v", field, err)
		}
	}
}

package netstack

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ovnd/ovnd/discovery/directory"
)

var loopback = netip.MustParseAddr("127.0.0.1")

// freePort returns a port of 127.0.0.1 that nobody listens at, by either protocol.
func freePort(t *testing.T) uint16 {
	t.Helper()
	for range 100 {
		l, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(netip.AddrPortFrom(loopback, 0)))
		if err != nil {
			t.Fatal(err)
		}
		port := l.Addr().(*net.TCPAddr).AddrPort().Port()
		c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(loopback, port)))
		l.Close()
		if err == nil {
			c.Close()
			return port
		}
	}
	t.Fatal("no free port")
	return 0
}

// run has f run until the test ends.
func run(t *testing.T, f func(context.Context) error) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Run did not return")
		}
	})
	t.Cleanup(stop)
	return stop
}

// newIngress serves the ports of l at 127.0.0.1.
func newIngress(t *testing.T, l *lan) (i *Ingress, stop func()) {
	t.Helper()
	i = NewIngress(IngressConfig{
		Addrs:    []netip.Addr{loopback, netip.MustParseAddr("192.0.2.1")}, // the second is not this machine's
		Balancer: l.b, Node: "n1", Log: slog.New(slog.DiscardHandler),
	})
	return i, run(t, i.Run)
}

// publishAt has all backends publish their port 80 for TCP and 53 for UDP as port.
func (l *lan) publishAt(port uint16) {
	for a, ep := range l.eps {
		next := *ep
		next.Ports = []directory.Port{
			{Protocol: directory.TCP, Target: 80, Published: port},
			{Protocol: directory.UDP, Target: 53, Published: port},
		}
		l.eps[a] = &next
	}
}

// askHost connects to 127.0.0.1 and returns who answers.
func askHost(t *testing.T, port uint16) (string, error) {
	t.Helper()
	c, err := net.DialTimeout("tcp4", netip.AddrPortFrom(loopback, port).String(), 5*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	b, err := io.ReadAll(c)
	return string(b), err
}

func TestIngress(t *testing.T) {
	l := newLAN(t)
	for _, addr := range []string{"10.10.0.11", "10.10.0.12"} {
		h := l.addBackend(addr)
		serveTCP(t, h, 80, nameOf(h))
		serveUDP(t, h, 53, named(h))
	}
	i, _ := newIngress(t, l)
	port := freePort(t)
	l.publishAt(port)
	i.Update(l.publish())
	got := make(map[string]int)
	for range 10 {
		name, err := askHost(t, port)
		if err != nil {
			t.Fatal(err)
		}
		got[name]++
	}
	if got["10.10.0.11"] != 5 || got["10.10.0.12"] != 5 {
		t.Errorf("answers %v", got)
	}
	for range 4 {
		c, err := net.Dial("udp4", netip.AddrPortFrom(loopback, port).String())
		if err != nil {
			t.Fatal(err)
		}
		first := exchange(t, c, []byte("a"), 5*time.Second)
		if again := exchange(t, c, []byte("a"), 5*time.Second); again != first {
			t.Errorf("a flow went from %q to %q", first, again)
		}
		got[first]++
		c.Close()
	}
	if got["11 a"] != 2 || got["12 a"] != 2 {
		t.Errorf("answers %v", got)
	}
	ports := i.Ports()
	if len(ports) != 2 || ports[0].Port.Protocol != directory.TCP || ports[0].ServiceName != "web" || ports[0].Err != nil ||
		len(ports[0].Addrs) != 1 || ports[0].Addrs[0] != loopback {
		t.Errorf("ports %+v", ports)
	}

	clear(l.eps)
	i.Update(l.publish())
	if _, err := askHost(t, port); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a port that is published no more: %v", err)
	}
	if ports := i.Ports(); len(ports) != 0 {
		t.Errorf("ports %+v", ports)
	}
}

// TestIngressCarries data both ways, ends and resets.
func TestIngressCarries(t *testing.T) {
	l := newLAN(t)
	h := l.addBackend("10.10.0.11")
	ended := make(chan error, 2)
	serveTCP(t, h, 80, func(c net.Conn) {
		_, err := io.Copy(c, c)
		ended <- err
	})
	i, stop := newIngress(t, l)
	port := freePort(t)
	l.publishAt(port)
	i.Update(l.publish())
	dial := func() *net.TCPConn {
		c, err := net.Dial("tcp4", netip.AddrPortFrom(loopback, port).String())
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(20 * time.Second))
		return c.(*net.TCPConn)
	}
	c := dial()
	sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<18)
	go func() {
		c.Write(sent)
		c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d of %d bytes came back: %v", len(got), len(sent), err)
	}
	c.Close()
	if err := <-ended; err != nil {
		t.Errorf("the backend saw %v", err)
	}

	c = dial()
	say(t, c, "hello")
	c.SetLinger(0)
	c.Close()
	if err := <-ended; err == nil {
		t.Error("the backend saw the end of what the client has reset")
	}
	eventually(t, "no connection is open", func() bool { return l.b.Stats().Active == 0 })

	c = dial()
	defer c.Close()
	say(t, c, "hello")
	stop() // the node ends
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("when the ingress ended a client saw %v", err)
	}
}

// TestIngressWithoutBackends resets clients rather than letting them wait.
func TestIngressWithoutBackends(t *testing.T) {
	l := newLAN(t)
	h := l.addBackend("10.10.0.11") // listens nowhere
	i, _ := newIngress(t, l)
	port := freePort(t)
	l.publishAt(port)
	i.Update(l.publish())
	if _, err := askHost(t, port); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a service that does not listen: %v", err)
	}
	l.drain(h)
	i.Update(l.publish())
	if _, err := askHost(t, port); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a service that drains: %v", err)
	}
}

func TestReserve(t *testing.T) {
	l := newLAN(t)
	h := l.addBackend("10.10.0.11")
	serveTCP(t, h, 80, nameOf(h))
	i, _ := newIngress(t, l)
	port, other := freePort(t), freePort(t)
	ports := []directory.Port{{Protocol: directory.TCP, Target: 80, Published: port}}
	release, err := i.Reserve(ports)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := askHost(t, port); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a port that is only reserved: %v", err)
	}
	l.publishAt(port)
	i.Update(l.publish())
	release()
	release()
	if name, err := askHost(t, port); name != "10.10.0.11" {
		t.Errorf("a port that was reserved and is published: %q, %v", name, err)
	}

	// All or none.
	taken, err := net.Listen("tcp4", netip.AddrPortFrom(loopback, other).String())
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	free := freePort(t)
	_, err = i.Reserve([]directory.Port{{Published: free}, {Published: other}})
	var pe *PortError
	if !errors.As(err, &pe) || pe.Port.Published != other || !errors.Is(err, syscall.EADDRINUSE) ||
		!strings.Contains(err.Error(), "node n1") || !strings.Contains(err.Error(), "choose another port") {
		t.Errorf("a port that is taken: %v", err)
	}
	if _, err := askHost(t, free); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("a port of a reservation that failed: %v", err)
	}
	if _, err := i.Reserve([]directory.Port{{Published: free, Protocol: directory.SCTP}}); err == nil || !strings.Contains(err.Error(), "sctp is not supported") {
		t.Errorf("SCTP: %v", err)
	}
}

// TestIngressTriesAgain to open a port that was taken.
func TestIngressTriesAgain(t *testing.T) {
	l := newLAN(t)
	h := l.addBackend("10.10.0.11")
	serveTCP(t, h, 80, nameOf(h))
	i, _ := newIngress(t, l)
	port := freePort(t)
	taken, err := net.Listen("tcp4", netip.AddrPortFrom(loopback, port).String())
	if err != nil {
		t.Fatal(err)
	}
	l.publishAt(port)
	i.Update(l.publish())
	if ports := i.Ports(); len(ports) != 2 || !errors.Is(ports[0].Err, syscall.EADDRINUSE) || ports[1].Err != nil {
		t.Errorf("ports %+v", ports)
	}
	taken.Close()
	i.retry()
	if name, err := askHost(t, port); name != "10.10.0.11" {
		t.Errorf("a port that has become free: %q, %v", name, err)
	}
}

func TestPortErrors(t *testing.T) {
	port := directory.Port{Protocol: directory.TCP, Published: 80}
	for err, says := range map[error]string{
		syscall.EACCES:     "node n1 cannot publish port 80/tcp: permission denied: choose a port of 1024 or more, or lower net.ipv4.ip_unprivileged_port_start there",
		syscall.EADDRINUSE: "choose another port",
		syscall.EMFILE:     "ulimit -n",
		io.ErrShortWrite:   "short write",
	} {
		if got := (&PortError{Node: "n1", Port: port, Err: &net.OpError{Op: "listen", Err: err}}).Error(); !strings.Contains(got, says) {
			t.Errorf("%v: %q does not say %q", err, got, says)
		}
	}
}

func TestPortForward(t *testing.T) {
	far, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	go func() {
		for {
			c, err := far.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "task")
			c.Close()
		}
	}()
	cfg := PortForwardConfig{
		Addrs: []netip.Addr{loopback}, Node: "n1", Port: directory.Port{Protocol: directory.TCP, Published: freePort(t)},
		Dial: func(ctx context.Context, network string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, far.Addr().String())
		},
		Log: slog.New(slog.DiscardHandler),
	}
	f, err := NewPortForward(cfg)
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, f.Run)
	if got, err := askHost(t, cfg.Port.Published); got != "task" {
		t.Errorf("got %q, %v", got, err)
	}
	var pe *PortError
	if _, err := NewPortForward(cfg); !errors.As(err, &pe) || pe.Node != "n1" {
		t.Errorf("the same port a second time: %v", err)
	}
	stop()
	if _, err := askHost(t, cfg.Port.Published); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("after its end: %v", err)
	}
}

// TestHostPortWithoutDescriptors waits until the process has some again.
func TestHostPortWithoutDescriptors(t *testing.T) {
	port := directory.Port{Protocol: directory.TCP, Published: freePort(t)}
	h, err := listenAt([]netip.Addr{loopback}, port, slog.New(slog.DiscardHandler), func(context.Context) (net.Conn, error) {
		near, far := net.Pipe()
		go echo(far)
		return near, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	h.start()
	defer h.reset()
	defer h.close()
	client, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := unix.Rlimit{Cur: 0, Max: limit.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	err = unix.Connect(client, &unix.SockaddrInet4{Port: int(port.Published), Addr: loopback.As4()})
	time.Sleep(20 * time.Millisecond) // the listener meets the limit more than once
	if rerr := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || rerr != nil {
		t.Fatal(err, rerr)
	}
	f := os.NewFile(uintptr(client), "client")
	defer f.Close()
	if _, err := f.WriteString("hello\n"); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 6)
	if _, err := io.ReadFull(f, buf); err != nil || string(buf) != "hello\n" {
		t.Errorf("read %q: %v", buf, err)
	}
}

// FuzzIgnores: whatever a sandbox sends, only echo requests for VIPs that are
// not ready are ignored.
func FuzzIgnores(f *testing.F) {
	var table vipTable
	table.init()
	table.ready.Store(&map[netip.Addr]bool{vipA: false})
	f.Add([]byte{0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0, 0, 10, 10, 0, 20, 10, 10, 0, 3, 8, 0, 0, 0, 0, 0, 0, 0})
	f.Add([]byte{0x45})
	f.Add([]byte{0x60, 0, 0, 0, 0, 0, 58, 64})
	f.Fuzz(func(t *testing.T, b []byte) {
		if table.ignores(b) && (b[0]>>4 != 4 || b[9] != 1 || netip.AddrFrom4([4]byte(b[16:20])) != vipA) {
			t.Errorf("%x is ignored", b)
		}
	})
}

package netstack

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
)

// serveTCP has h serve each connection to port with handle.
func serveTCP(t *testing.T, h *host, port uint16, handle func(net.Conn)) io.Closer {
	t.Helper()
	l, err := gonet.ListenTCP(h.Stack, h.full(port), h.protocol())
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
				handle(c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		h.Close()
		work.Wait()
	})
	return l
}

// nameOf answers each connection with the host's address.
func nameOf(h *host) func(net.Conn) {
	return func(c net.Conn) { io.WriteString(c, h.addr.String()) }
}

// dialVIP connects h to port of the VIP.
func dialVIP(t *testing.T, h *host, port uint16) (*gonet.TCPConn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := gonet.DialContextTCP(ctx, h.Stack, tcpip.FullAddress{Addr: toAddr(vipA), Port: port}, h.protocol())
	if err == nil {
		c.SetDeadline(time.Now().Add(10 * time.Second))
	}
	return c, err
}

// ask connects to the VIP and returns who answers.
func ask(t *testing.T, h *host, port uint16) string {
	t.Helper()
	c, err := dialVIP(t, h, port)
	if err != nil {
		t.Fatalf("VIP: %v", err)
	}
	defer c.Close()
	name, err := io.ReadAll(c)
	if err != nil {
		t.Fatalf("VIP: %v", err)
	}
	return string(name)
}

func TestVIPTakesTurns(t *testing.T) {
	l := newLAN(t)
	for _, addr := range []string{"10.10.0.11", "10.10.0.12", "10.10.0.13"} {
		h := l.addBackend(addr)
		serveTCP(t, h, 80, nameOf(h))
	}
	client := l.addHost("10.10.0.20")
	l.publish()
	got := make(map[string]int)
	for range 30 {
		got[ask(t, client, 80)]++
	}
	if want := map[string]int{"10.10.0.11": 10, "10.10.0.12": 10, "10.10.0.13": 10}; !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	eventually(t, "no connection is open", func() bool { return l.b.Stats().Active == 0 })
	if st := l.b.Stats(); st.Connections != 30 || st.NoBackend != 0 || st.Handshakes != 0 {
		t.Errorf("stats %+v", st)
	}
}

// TestVIPUnderLoad: turns are exact for clients that come all at once, and when a
// backend ends, whom it has not accepted does not notice.
func TestVIPUnderLoad(t *testing.T) {
	l := newLAN(t)
	addrs := []string{"10.10.0.11", "10.10.0.12", "10.10.0.13"}
	var doomed io.Closer
	for i, addr := range addrs {
		h := l.addBackend(addr)
		c := serveTCP(t, h, 80, nameOf(h))
		if i == 0 {
			doomed = c
		}
	}
	client := l.addHost("10.10.0.20")
	l.publish()
	const requests = 15
	load := func() (got map[string]int, broken int) {
		got = make(map[string]int)
		var mu sync.Mutex
		var all sync.WaitGroup
		for range 24 {
			all.Go(func() {
				for range requests {
					c, err := dialVIP(t, client, 80)
					reset := err != nil && strings.HasSuffix(err.Error(), (&tcpip.ErrConnectionReset{}).String())
					if err != nil && !reset {
						t.Errorf("VIP: %v", err)
						return
					}
					var name []byte
					if err == nil {
						name, err = io.ReadAll(c)
						c.Close()
					}
					mu.Lock()
					if got[string(name)]++; err != nil {
						broken++
					}
					mu.Unlock()
				}
			})
		}
		all.Wait()
		return got, broken
	}
	got, broken := load()
	if broken > 0 {
		t.Errorf("%d connections were broken", broken)
	}
	for _, addr := range addrs {
		if got[addr] != 24*requests/3 {
			t.Errorf("turns %v", got)
		}
	}
	time.AfterFunc(20*time.Millisecond, func() { doomed.Close() })
	// What waits in its queue to be accepted has reached it, at most one
	// connection of each client; its reset may come with the handshake.
	if _, broken := load(); broken > 24 {
		t.Errorf("%d connections were broken", broken)
	}
}

// TestVIPCarries moves data both ways at once and compares checksums; the client
// ends its direction first.
func TestVIPCarries(t *testing.T) {
	const size = 16 << 20
	l := newLAN(t)
	h := l.addBackend("10.10.0.11")
	serveTCP(t, h, 80, func(c net.Conn) { // echo, then half-close by Close
		if _, err := io.Copy(c, c); err != nil {
			t.Errorf("echo: %v", err)
		}
	})
	client := l.addHost("10.10.0.20")
	l.publish()
	c, err := dialVIP(t, client, 80)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	sent := sha256.New()
	go func() {
		if _, err := io.CopyN(io.MultiWriter(c, sent), rand.NewChaCha8([32]byte{1}), size); err != nil {
			t.Errorf("send: %v", err)
		}
		c.CloseWrite()
	}()
	got := sha256.New()
	n, err := io.Copy(got, c)
	if err != nil || n != size {
		t.Fatalf("received %d bytes: %v", n, err)
	}
	if string(got.Sum(nil)) != string(sent.Sum(nil)) {
		t.Error("the echo differs")
	}
}

func TestVIPRefuses(t *testing.T) {
	l := newLAN(t)
	l.addBackend("10.10.0.11") // listens nowhere
	client := l.addHost("10.10.0.20")
	l.publish()
	if c, err := dialVIP(t, client, 80); err == nil {
		c.Close()
		t.Fatal("a port that no backend listens at was connected")
	} else if errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("not refused but silent: %v", err)
	}
	if st := l.b.Stats(); st.NoBackend != 1 || st.Services[0].Backends[0].Failures != 1 {
		t.Errorf("stats %+v", st)
	}
}

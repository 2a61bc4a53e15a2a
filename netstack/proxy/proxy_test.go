package proxy

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 10 * time.Second

// A world is what the proxies of a test lead to: names and where they are.
type world map[string]any // netip.AddrPort or error

// DialContext implements [Dialer].
func (w world) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	switch to := w[addr].(type) {
	case netip.AddrPort:
		return new(net.Dialer).DialContext(ctx, network, to.String())
	case error:
		return nil, fmt.Errorf("connect to %s: %w", addr, to)
	}
	return nil, fmt.Errorf("%s: %w", addr, ErrNoName)
}

// refusing is a dialer for failures by name.
func failures() world {
	return world{
		"refused:1": syscall.ECONNREFUSED, "absent:1": ErrUnavailable, "silent:1": syscall.ETIMEDOUT,
		"slow:1": context.DeadlineExceeded, "nohost:1": syscall.EHOSTUNREACH, "nonet:1": syscall.ENETUNREACH,
		"secret:1": ErrForbidden, "odd:1": errors.New("odd"),
	}
}

// start serves a proxy at a loopback address until the test ends.
func start(t *testing.T, cfg Config) *net.TCPAddr {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serveOn(t, cfg, ln)
	return ln.Addr().(*net.TCPAddr)
}

func serveOn(t *testing.T, cfg Config, ln net.Listener) *Server {
	t.Helper()
	s := New(cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Serve: %v", err)
			}
		case <-time.After(patience):
			t.Error("Serve did not return")
		}
	})
	return s
}

// webServer returns a server that tells what came, and its address.
func webServer(t *testing.T) netip.AddrPort {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s %s\n", r.Method, r.Host, r.URL)
		for name := range r.Header {
			if strings.HasPrefix(name, "Proxy-") || name == "X-Forwarded-For" {
				fmt.Fprintf(w, "leaked %s\n", name)
			}
		}
	}))
	t.Cleanup(srv.Close)
	return netip.MustParseAddrPort(srv.Listener.Addr().String())
}

// echoServer sends back what comes, and ends when the client does.
func echoServer(t *testing.T) netip.AddrPort {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	work.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			work.Go(func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		work.Wait()
	})
	return netip.MustParseAddrPort(ln.Addr().String())
}

func dialProxy(t *testing.T, at *net.TCPAddr) *net.TCPConn {
	t.Helper()
	c, err := net.DialTCP("tcp", nil, at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return c
}

// handshake greets a SOCKS server, with credentials unless user is empty, and
// returns what it answers to them: a method, or a status.
func handshake(t *testing.T, c net.Conn, user, password string) (method, status byte) {
	t.Helper()
	method = methodNone
	if user != "" {
		method = methodPassword
	}
	exchange(t, c, []byte{5, 1, method})
	b := read(t, c, 2)
	if b[0] != 5 {
		t.Fatalf("version %d", b[0])
	}
	if b[1] != methodPassword {
		return b[1], 0
	}
	exchange(t, c, concat([]byte{1, byte(len(user))}, []byte(user), []byte{byte(len(password))}, []byte(password)))
	return b[1], read(t, c, 2)[1]
}

func concat(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func exchange(t *testing.T, c net.Conn, b []byte) {
	t.Helper()
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, c io.Reader, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(c, b); err != nil {
		t.Fatalf("read: %v", err)
	}
	return b
}

// ask sends a request for a name and returns the reply's code and address.
func ask(t *testing.T, c net.Conn, command byte, name string, port uint16) (byte, netip.AddrPort) {
	t.Helper()
	b := concat([]byte{5, command, 0, addressName, byte(len(name))}, []byte(name))
	exchange(t, c, binary.BigEndian.AppendUint16(b, port))
	head := read(t, c, 4)
	n := 4
	if head[3] == addressIPv6 {
		n = 16
	}
	addr, _ := netip.AddrFromSlice(read(t, c, n))
	return head[1], netip.AddrPortFrom(addr, binary.BigEndian.Uint16(read(t, c, 2)))
}

// TestConnect: what goes through arrives, in both directions, with its end; what
// a client sends before it has the answer does too.
func TestConnect(t *testing.T) {
	echo := echoServer(t)
	at := start(t, Config{Own: world{"echo:7": echo, "[fd00::1]:7": echo, "10.0.0.1:7": echo}})
	c := dialProxy(t, at)
	if method, _ := handshake(t, c, "", ""); method != methodNone {
		t.Fatalf("method %d", method)
	}
	if reply, bound := ask(t, c, commandConnect, "echo", 7); reply != 0 || !bound.Addr().IsLoopback() {
		t.Fatalf("reply %d, bound to %s", reply, bound)
	}
	text := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	go func() {
		_, _ = c.Write(text)
		_ = c.CloseWrite()
	}()
	if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, text) {
		t.Errorf("%d bytes came back, %v; want %d", len(got), err, len(text))
	}

	for _, to := range [][]byte{
		{5, 1, 0, addressIPv4, 10, 0, 0, 1, 0, 7},
		append([]byte{5, 1, 0, addressIPv6, 0xfd}, append(make([]byte, 14), 1, 0, 7)...),
	} {
		c := dialProxy(t, at)
		exchange(t, c, concat([]byte{5, 1, 0}, to, []byte("early")))
		_ = c.CloseWrite()
		read(t, c, 2+10)
		if got, err := io.ReadAll(c); err != nil || string(got) != "early" {
			t.Errorf("%v: %q came back, %v", to, got, err)
		}
	}
}

// TestFailures: each error has its reply and its status.
func TestFailures(t *testing.T) {
	at := start(t, Config{Own: failures()})
	for _, tc := range []struct {
		name   string
		reply  byte
		status int
		kind   string
	}{
		{"nowhere", replyHostUnreachable, 502, "dns_error"},
		{"absent", replyHostUnreachable, 503, "destination_unavailable"},
		{"refused", replyRefused, 502, "connection_refused"},
		{"silent", replyTTLExpired, 504, "connection_timeout"},
		{"slow", replyTTLExpired, 504, "connection_timeout"},
		{"nohost", replyHostUnreachable, 502, "destination_ip_unroutable"},
		{"nonet", replyNetworkUnreachable, 502, "destination_ip_unroutable"},
		{"secret", replyNotAllowed, 403, "destination_ip_prohibited"},
		{"odd", replyFailure, 500, "proxy_internal_error"},
	} {
		c := dialProxy(t, at)
		handshake(t, c, "", "")
		if reply, _ := ask(t, c, commandConnect, tc.name, 1); reply != tc.reply {
			t.Errorf("%s: reply %d, want %d", tc.name, reply, tc.reply)
		}
		for method, target := range map[string]string{"CONNECT": tc.name + ":1", "GET": "http://" + tc.name + ":1/"} {
			resp := roundTrip(t, at, fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s:1\r\nConnection: close\r\n\r\n", method, target, tc.name))
			if status := resp.Header.Get("Proxy-Status"); resp.StatusCode != tc.status || !strings.Contains(status, "error="+tc.kind+";") {
				t.Errorf("%s %s: %s, Proxy-Status %q, want %d %s", method, tc.name, resp.Status, status, tc.status, tc.kind)
			}
		}
	}
}

// roundTrip sends one HTTP request as it is and returns the answer.
func roundTrip(t *testing.T, at *net.TCPAddr, request string) *http.Response {
	t.Helper()
	c := dialProxy(t, at)
	exchange(t, c, []byte(request))
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("%q: %v", request, err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil && resp.StatusCode != http.StatusOK {
		t.Errorf("%q: body: %v", request, err)
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp
}

// TestPassword: credentials lead where their user may go, wrong ones nowhere,
// none only the user's own processes.
func TestPassword(t *testing.T) {
	a, b := webServer(t), webServer(t)
	cfg := Config{Authenticate: func(user, password string) Dialer {
		switch {
		case user == "alice" && password == "wonder":
			return world{"web:80": a}
		case user == "bob" && password == "build:er":
			return world{"other:80": b}
		}
		return nil
	}}
	at := start(t, cfg)
	get := func(user *url.Userinfo, scheme, target string) (*http.Response, error) {
		proxy := &url.URL{Scheme: scheme, Host: at.String(), User: user}
		tr := &http.Transport{Proxy: http.ProxyURL(proxy), DisableKeepAlives: true}
		defer tr.CloseIdleConnections()
		return (&http.Client{Transport: tr, Timeout: patience}).Get(target)
	}
	for _, scheme := range []string{"socks5h", "http"} {
		for _, tc := range []struct {
			user   *url.Userinfo
			target string
			ok     bool
		}{
			{url.UserPassword("alice", "wonder"), "http://web/x?y", true},
			{url.UserPassword("bob", "build:er"), "http://other/x?y", true},
			{url.UserPassword("bob", "build:er"), "http://web/x?y", false},
			{url.UserPassword("alice", "build:er"), "http://web/x?y", false},
			{nil, "http://web/x?y", false},
		} {
			resp, err := get(tc.user, scheme, tc.target)
			if ok := err == nil && resp.StatusCode == http.StatusOK; ok != tc.ok {
				t.Errorf("%s, %s, %s: %v, %v", scheme, tc.user, tc.target, resp, err)
			}
			if err == nil {
				body, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				if host := strings.TrimPrefix(strings.TrimSuffix(tc.target, "/x?y"), "http://"); tc.ok && string(body) != "GET "+host+" /x?y\n" {
					t.Errorf("%s: %q came", scheme, body)
				}
			}
		}
	}
	c := dialProxy(t, at)
	if method, _ := handshake(t, c, "", ""); method != methodRefused {
		t.Errorf("a client without credentials gets method %d", method)
	}
	c = dialProxy(t, at)
	if method, status := handshake(t, c, "alice", "nonsense"); method != methodPassword || status == 0 {
		t.Errorf("wrong password: method %d, status %d", method, status)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("after a wrong password: %v", err)
	}
	resp := roundTrip(t, at, "CONNECT web:80 HTTP/1.1\r\nHost: web:80\r\n\r\n")
	if resp.StatusCode != http.StatusProxyAuthRequired || resp.Header.Get("Proxy-Authenticate") == "" {
		t.Errorf("CONNECT without credentials: %s", resp.Status)
	}
}

// TestOwnProcess: the kernel tells who has the other end of a connection.
func TestOwnProcess(t *testing.T) {
	for _, network := range []string{"tcp4", "tcp6", "tcp"} {
		ln, err := net.Listen(network, net.JoinHostPort(map[bool]string{true: "::1", false: "127.0.0.1"}[network == "tcp6"], "0"))
		if err != nil {
			t.Skip(err)
		}
		defer ln.Close()
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		s, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		peer, err := peerSocket(s.LocalAddr(), s.RemoteAddr())
		if err != nil || peer.uid != os.Geteuid() {
			t.Errorf("%s: uid %d, %v; want %d", network, peer.uid, err, os.Geteuid())
		}
		if _, err := peerSocket(s.LocalAddr(), &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9), Port: 1}); err == nil {
			t.Errorf("%s: a socket that is not there has an owner", network)
		}
	}
	a, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if peer, err := peerSocket(a.LocalAddr(), b.LocalAddr()); err != nil || peer.uid != os.Geteuid() {
		t.Errorf("udp: uid %d, %v", peer.uid, err)
	}
	for uid, want := range map[int]bool{0: true, os.Geteuid(): os.Geteuid() != 65534, os.Geteuid() + 1: false} {
		if ours(uid) != want {
			t.Errorf("ours(%d) = %t", uid, !want)
		}
	}
}

// TestAssociate: datagrams go to several far ends by name, and answers come back
// with the address that they are from.
func TestAssociate(t *testing.T) {
	far := []netip.AddrPort{udpEcho(t, "a"), udpEcho(t, "b")}
	at := start(t, Config{Own: world{"a:1": far[0], "b:1": far[1]}})
	c := dialProxy(t, at)
	handshake(t, c, "", "")
	reply, relay := ask(t, c, commandAssociate, "0.0.0.0", 0)
	if reply != 0 || !relay.Addr().IsLoopback() || relay.Port() == 0 {
		t.Fatalf("reply %d, relay at %s", reply, relay)
	}
	u, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(relay))
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	_ = u.SetDeadline(time.Now().Add(patience))
	for i, name := range []string{"a", "b", "a"} {
		exchange(t, u, []byte{0, 0, 1, addressName, 1, name[0], 0, 1, 'f'}) // a fragment: dropped
		exchange(t, u, concat([]byte{0, 0, 0, addressName, 1, name[0], 0, 1}, []byte{'0' + byte(i)}))
		buf := make([]byte, 100)
		n, err := u.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		addr, payload, err := parseDatagram(buf[:n])
		if want := far[strings.Index("ab", name)].String(); err != nil || addr != want || string(payload) != fmt.Sprint(name, i) {
			t.Errorf("%q from %s, %v; want %s%d from %s", payload, addr, err, name, i, want)
		}
	}
	// Another socket is not the client.
	other, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(relay))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	exchange(t, other, []byte{0, 0, 0, addressName, 1, 'a', 0, 1, 'x'})
	_ = other.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := other.Read(make([]byte, 100)); err == nil {
		t.Errorf("somebody else's datagram was answered with %d bytes", n)
	}
	// The association ends with its connection.
	c.Close()
	deadline := time.Now().Add(patience)
	for refused := false; !refused; {
		_, err := u.Write([]byte{0, 0, 0, addressName, 1, 'a', 0, 1, 'x'})
		refused = errors.Is(err, syscall.ECONNREFUSED)
		if time.Now().After(deadline) {
			t.Fatal("the relay is still there")
		}
	}
}

// udpEcho sends back what comes behind its name.
func udpEcho(t *testing.T, name string) netip.AddrPort {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	work.Go(func() {
		buf := make([]byte, 100)
		for {
			n, from, err := c.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = c.WriteToUDPAddrPort(append([]byte(name), buf[:n]...), from)
		}
	})
	t.Cleanup(func() {
		c.Close()
		work.Wait()
	})
	return netip.MustParseAddrPort(c.LocalAddr().String())
}

// TestRefusesNonsense: what is no request of a proxy gets an answer that says so,
// or the end.
func TestRefusesNonsense(t *testing.T) {
	at := start(t, Config{Own: world{}})
	for request, want := range map[string]int{
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n":                400,
		"GET https://x/ HTTP/1.1\r\nHost: x\r\n\r\n":       501,
		"CONNECT x HTTP/1.1\r\nHost: x\r\n\r\n":            502,
		"BREW http://x:99999/ HTTP/1.1\r\nHost: x\r\n\r\n": 502,
	} {
		if resp := roundTrip(t, at, request); resp.StatusCode != want {
			t.Errorf("%q: %s", request, resp.Status)
		}
	}
	for _, tc := range []struct{ request, want []byte }{
		{[]byte{5, 1, 0, 5, 2, 0, 1, 10, 0, 0, 1, 0, 7}, []byte{5, 0, 5, replyNoCommand, 0, 1, 0, 0, 0, 0, 0, 0}},     // BIND
		{[]byte{5, 1, 0, 5, 1, 0, 9, 10, 0, 0, 1, 0, 7}, []byte{5, 0, 5, replyNoAddressType, 0, 1, 0, 0, 0, 0, 0, 0}}, // type 9
		{[]byte{5, 1, 0x80}, []byte{5, 0xff}},
		{[]byte{5, 0}, []byte{5, 0xff}},
		{[]byte{5, 1, 0, 4, 1, 0, 1}, []byte{5, 0}},
		{[]byte{5, 1, 2, 9}, []byte{5, 2}},
	} {
		c := dialProxy(t, at)
		exchange(t, c, tc.request)
		_ = c.CloseWrite()
		got, err := io.ReadAll(c)
		if err != nil && !errors.Is(err, syscall.ECONNRESET) || !bytes.Equal(got, tc.want) {
			t.Errorf("%v: got %v, %v; want %v", tc.request, got, err, tc.want)
		}
	}
}

// TestUnixSocket: its mode is the only guard.
func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "p")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := serveOn(t, Config{Own: world{"echo:7": echoServer(t)}}, ln)
	if n := s.Active(); n != 0 {
		t.Errorf("%d clients before the first", n)
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	handshake(t, c, "", "")
	if reply, _ := ask(t, c, commandConnect, "echo", 7); reply != 0 {
		t.Fatalf("reply %d", reply)
	}
	exchange(t, c, []byte("over unix"))
	if got := read(t, c, 9); string(got) != "over unix" {
		t.Errorf("%q came back", got)
	}
	if n := s.Active(); n != 1 {
		t.Errorf("%d clients, want one", n)
	}
}

// TestManyClients: a thousand at a time, and no goroutine is left.
func TestManyClients(t *testing.T) {
	echo := echoServer(t)
	at := start(t, Config{Own: world{"echo:7": echo}})
	const clients = 1000
	var all sync.WaitGroup
	errs := make(chan error, clients)
	for range clients {
		all.Go(func() { errs <- oneEcho(at) })
	}
	all.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

func oneEcho(at *net.TCPAddr) error {
	c, err := net.DialTCP("tcp", nil, at)
	if err != nil {
		return err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := c.Write(concat([]byte{5, 1, 0, 5, 1, 0, addressName, 4}, []byte("echo"), []byte{0, 7}, []byte("hello"))); err != nil {
		return err
	}
	b := make([]byte, 2+10+5)
	if _, err := io.ReadFull(c, b); err != nil {
		return err
	}
	if got := string(b[12:]); got != "hello" {
		return fmt.Errorf("%q came back", got)
	}
	return nil
}

// TestCurl uses what users use.
func TestCurl(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("no curl on this machine")
	}
	at := start(t, Config{Own: world{"web:80": webServer(t)}})
	for _, proxy := range []string{"socks5h://" + at.String(), "http://" + at.String()} {
		for _, tunnel := range []string{"--proxytunnel", "--no-proxytunnel"} {
			out, err := exec.Command("curl", "-sS", "--noproxy", "", "--proxy", proxy, tunnel, "http://web/path").CombinedOutput()
			if err != nil || string(out) != "GET web /path\n" {
				t.Errorf("%s %s: %v: %s", proxy, tunnel, err, out)
			}
		}
	}
	out, err := exec.Command("curl", "-sS", "--noproxy", "", "--proxy", "socks5h://"+at.String(), "http://nowhere/").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "(4)") {
		t.Errorf("a name that does not exist: %v: %s", err, out)
	}
}

func FuzzRequest(f *testing.F) {
	f.Add([]byte{5, 1, 0, 1, 127, 0, 0, 1, 0, 80})
	f.Add([]byte{5, 3, 0, 3, 3, 'w', 'e', 'b', 0, 80})
	f.Add(append([]byte{5, 1, 0, 4}, make([]byte, 18)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		req, err := readRequest(bytes.NewReader(b))
		if err == nil {
			checkHostPort(t, req.addr)
		}
		_, _ = readMethods(bytes.NewReader(b))
		_, _, _ = readPassword(bytes.NewReader(b))
	})
}

func FuzzDatagram(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 127, 0, 0, 1, 0, 80, 'x'})
	f.Add([]byte{0, 0, 0, 3, 3, 'w', 'e', 'b', 0, 80})
	f.Fuzz(func(t *testing.T, b []byte) {
		addr, payload, err := parseDatagram(b)
		if err != nil {
			return
		}
		checkHostPort(t, addr)
		if !bytes.HasSuffix(b, payload) {
			t.Error("the payload is not the datagram's end")
		}
		if ap, err := netip.ParseAddrPort(addr); err == nil && ap.Addr().Zone() == "" {
			again, rest, err := parseDatagram(append(appendDatagramHead(nil, ap), payload...))
			if err != nil || again != addr || !bytes.Equal(rest, payload) {
				t.Errorf("%s came back as %s, %v", addr, again, err)
			}
		}
	})
}

func checkHostPort(t *testing.T, addr string) {
	t.Helper()
	host, _, err := net.SplitHostPort(addr)
	if err == nil && host == "" {
		t.Errorf("%q has no host", addr)
	}
}

func FuzzDiag(f *testing.F) {
	f.Add(make([]byte, 100), uint16(1))
	f.Fuzz(func(_ *testing.T, b []byte, port uint16) {
		_, _ = parseDiag(b, netip.AddrPortFrom(netip.IPv6Loopback(), port))
	})
}

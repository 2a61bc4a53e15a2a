package whoami

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start serves on ports of the kernel's choosing until the test ends.
func start(t *testing.T) *server {
	t.Helper()
	t.Setenv("OVND_TASK_NAME", "my-test.3.abc")
	t.Setenv("OVND_TASK_SLOT", "3")
	s, err := listen("0", "0")
	if err != nil {
		t.Skipf("port 0 gave one over TCP that is in use over UDP: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.run(ctx) }()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	return s
}

// at is where a client on this machine finds a.
func at(a net.Addr) string {
	_, port, _ := net.SplitHostPort(a.String())
	return net.JoinHostPort("127.0.0.1", port)
}

func request(t *testing.T, method, url, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Test", "one")
	req.Header.Add("X-Test", "two")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(got)
}

func TestHTTP(t *testing.T) {
	s := start(t)
	code, page := request(t, "GET", "http://"+at(s.web.Addr())+"/some/path?q=1", "")
	if code != 200 {
		t.Errorf("status %d", code)
	}
	for _, line := range []string{
		"host: " + s.who.host, "task: my-test.3.abc", "slot: 3", "server: " + at(s.web.Addr()), "client: 127.0.0.1:",
		"request: GET /some/path?q=1 HTTP/1.1", "header Host: " + at(s.web.Addr()), "header X-Test: one", "header X-Test: two",
	} {
		if !strings.Contains(page, line) {
			t.Errorf("the page lacks %q:\n%s", line, page)
		}
	}
	if strings.Contains(page, "node:") {
		t.Errorf("the page names a node that is not known:\n%s", page)
	}
}

func TestHealth(t *testing.T) {
	s := start(t)
	url := "http://" + at(s.web.Addr()) + "/health"
	for _, step := range []struct {
		method, body string
		want         int
	}{
		{"GET", "", 200},
		{"POST", "503\n", 200},
		{"GET", "", 503},
		{"POST", "99", 400},
		{"POST", strings.Repeat("2", 1000), 400},
		{"GET", "", 503},
		{"POST", "200", 200},
		{"GET", "", 200},
	} {
		if code, _ := request(t, step.method, url, step.body); code != step.want {
			t.Errorf("%s %q: status %d, want %d", step.method, step.body, code, step.want)
		}
	}
}

func TestEcho(t *testing.T) {
	s := start(t)
	for network, to := range map[string]string{"tcp": at(s.stream.Addr()), "udp": at(s.datagram.LocalAddr())} {
		conn, err := net.Dial(network, to)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := conn.Write([]byte("hello\n")); err != nil {
			t.Fatal(err)
		}
		// One read may take a datagram only once.
		r := bufio.NewReaderSize(conn, maxDatagram)
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(line, "host="+s.who.host+" task=my-test.3.abc server=") || !strings.Contains(line, " client="+conn.LocalAddr().String()+"\n") {
			t.Errorf("%s: greeted with %q", network, line)
		}
		if got, err := r.ReadString('\n'); err != nil || got != "hello\n" {
			t.Errorf("%s: echo is %q, %v", network, got, err)
		}
	}
}

// The longest datagram comes back, cut to what fits.
func TestLongDatagram(t *testing.T) {
	s := start(t)
	conn, err := net.Dial("udp", at(s.datagram.LocalAddr()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	const longest = 65507
	if _, err := conn.Write(bytes.Repeat([]byte("x"), longest)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, maxDatagram)
	if n, err := conn.Read(buf); err != nil || n != longest {
		t.Errorf("%d bytes came back, %v", n, err)
	}
}

// A request that is under way when the end comes is answered.
func TestGracefulEnd(t *testing.T) {
	s, err := listen("0", "0")
	if err != nil {
		t.Skip(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.run(ctx) }()
	conn, err := net.Dial("tcp", at(s.web.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	idle, err := net.Dial("tcp", at(s.stream.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	greeting, err := bufio.NewReader(idle).ReadString('\n')
	if err != nil || greeting == "" {
		t.Fatal(err)
	}
	// The server reads the body's first byte, then it is told to end.
	_, _ = io.WriteString(conn, "POST /health HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
	r := bufio.NewReader(conn)
	if line, err := r.ReadString('\n'); err != nil || !strings.Contains(line, "100 Continue") {
		t.Fatalf("%q, %v", line, err)
	}
	_, _ = r.ReadString('\n')
	cancel()
	_, _ = io.WriteString(conn, "200")
	if line, err := r.ReadString('\n'); err != nil || !strings.Contains(line, "200 OK") {
		t.Errorf("answered with %q, %v", line, err)
	}
	if err := <-done; err != nil {
		t.Errorf("run: %v", err)
	}
}

func TestMistakes(t *testing.T) {
	busy, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	_, port, _ := net.SplitHostPort(busy.Addr().String())
	for _, tc := range []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{"-help"}, 0, "ECHO_PORT"},
		{[]string{"-nosuch"}, 2, "nosuch"},
		{[]string{"extra"}, 2, `"extra"`},
		{[]string{"-port", "http"}, 1, `-port="http"`},
		{[]string{"-port", port, "-echo", "0"}, 1, "-port or PORT"},
		{[]string{"-port", "0", "-echo", port}, 1, "-echo or ECHO_PORT"},
	} {
		var stderr bytes.Buffer
		if got := run(t.Context(), tc.args, io.Discard, &stderr); got != tc.status || !strings.Contains(stderr.String(), tc.says) {
			t.Errorf("%q: status %d, want %d, says %q", tc.args, got, tc.status, stderr.String())
		}
	}
}

func TestRunEnds(t *testing.T) {
	t.Setenv("PORT", "0")
	t.Setenv("ECHO_PORT", "0")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var stdout bytes.Buffer
	if got := run(ctx, nil, &stdout, io.Discard); got != 0 || !strings.Contains(stdout.String(), "HTTP on [::]:") {
		t.Errorf("status %d, says %q", got, stdout.String())
	}
}

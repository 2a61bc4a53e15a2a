package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// childEnv makes the test binary a program that the tests start.
const childEnv = "OVND_TEST_CHILD"

func TestMain(m *testing.M) {
	if kind := os.Getenv(childEnv); kind != "" {
		childMain(kind)
	}
	// The environment of whoever runs the tests must not choose a node.
	for _, name := range []string{"OVND_HOST", "OVND_STATE_DIR"} {
		_ = os.Unsetenv(name)
	}
	os.Exit(m.Run())
}

// A result is what one command line did.
type result struct {
	out, err string
	code     int
}

// ovndCommand runs one command line with no input.
func ovndCommand(t *testing.T, args ...string) result {
	t.Helper()
	return ovndWithInput(t, "", args...)
}

func ovndWithInput(t *testing.T, input string, args ...string) result {
	t.Helper()
	var out, errs bytes.Buffer
	code := execute(t.Context(), &cli{in: strings.NewReader(input), out: &out, err: &errs}, args)
	return result{out.String(), errs.String(), code}
}

func (r result) want(t *testing.T, out, errs string, code int) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code %d, want %d", r.code, code)
	}
	diff(t, "stdout", r.out, out)
	diff(t, "stderr", r.err, errs)
}

func diff(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s:\n%s\nwant:\n%s", what, got, want)
	}
}

// testdata reads a file of reference output.
func testdata(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A fakeNode answers API calls on a unix socket with what a test gave it.
type fakeNode struct {
	host    string // to pass to --host
	mu      sync.Mutex
	answers map[string]answer // by "GET /networks", without version and query
	calls   []call
}

type answer struct {
	status int // 0: 200
	body   any // a string is sent as it is; a hijacked takes the connection
}

// A call is a request that the node got.
type call struct {
	method, path, query string
	body                string
}

func (c call) String() string { return c.method + " " + c.path }

func newFakeNode(t *testing.T) *fakeNode {
	t.Helper()
	return newFakeNodeAt(t, filepath.Join(shortDir(t), "ovnd.sock"))
}

// shortDir is a folder for sockets, whose paths t.TempDir's names outgrow.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ovnd-cmd-") //nolint:usetesting // see above
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func newFakeNodeAt(t *testing.T, socket string) *fakeNode {
	t.Helper()
	n := &fakeNode{host: "unix://" + socket, answers: make(map[string]answer)}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: n}}
	server.Start()
	t.Cleanup(server.Close)
	return n
}

func (n *fakeNode) on(call string, status int, body any) {
	n.answers[call] = answer{status, body}
}

var apiVersion = regexp.MustCompile(`^/v[0-9.]+/`)

func (n *fakeNode) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	c := call{r.Method, apiVersion.ReplaceAllString(r.URL.Path, "/"), r.URL.Query().Encode(), strings.TrimSpace(string(body))}
	if c.path == "/_ping" {
		w.Header().Set("Api-Version", "1.51")
		return
	}
	n.mu.Lock()
	n.calls = append(n.calls, c)
	a, ok := n.answers[c.String()]
	n.mu.Unlock()
	if !ok {
		a = answer{http.StatusNotFound, message("no answer for " + c.String())}
	}
	if a.status == 0 {
		a.status = http.StatusOK
	}
	if h, ok := a.body.(hijacked); ok {
		h.serve(w)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(a.status)
	if s, ok := a.body.(string); ok {
		_, _ = io.WriteString(w, s)
	} else if a.body != nil {
		_ = json.NewEncoder(w).Encode(a.body)
	}
}

// A hijacked is what is sent on a connection that has become a stream.
type hijacked string

func (h hijacked) serve(w http.ResponseWriter) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"+string(h))
}

func message(text string) map[string]string { return map[string]string{"message": text} }

// run runs one command line against the node.
func (n *fakeNode) run(t *testing.T, args ...string) result {
	t.Helper()
	return ovndCommand(t, append([]string{"--host", n.host}, args...)...)
}

// last is the last call of the given kind.
func (n *fakeNode) last(t *testing.T, kind string) call {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range slices.Backward(n.calls) {
		if c.String() == kind {
			return c
		}
	}
	t.Fatalf("the node got no %s but %v", kind, n.calls)
	return call{}
}

// wantBody compares JSON by value.
func (c call) wantBody(t *testing.T, want string) {
	t.Helper()
	var got, expected any
	if err := json.Unmarshal([]byte(c.body), &got); err != nil {
		t.Fatalf("%s: body %q: %v", c, c.body, err)
	}
	if err := json.Unmarshal([]byte(want), &expected); err != nil {
		t.Fatal(err)
	}
	if g, w := fmt.Sprint(got), fmt.Sprint(expected); g != w {
		t.Errorf("%s: body\n%s\nwant\n%s", c, g, w)
	}
}

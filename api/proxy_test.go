package api

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"

	"github.com/ovnd/ovnd/api/types"
)

func closedSoon(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(5 * time.Second):
		t.Fatalf("not within 5 s: %s", what)
	}
}

// TestProxySessions: a session lasts as long as its request, and no longer than
// what it is about.
func TestProxySessions(t *testing.T) {
	f := newFakeNode()
	p := &fakeProxies{}
	f.proxies = p
	s := serve(t, f)
	c := s.ovndClient(t)
	requests := []any{
		types.ProxyRequest{Networks: []string{"a", "b"}, Listen: "127.0.0.1:1080", AllUsers: true},
		types.ForwardRequest{Networks: []string{"a"}, Listen: "/x.sock", Target: "db:5432"},
		types.ExposeRequest{Networks: []string{"a"}, Name: "api", Port: 80, Protocol: "udp", Target: netip.MustParseAddrPort("127.0.0.1:3000")},
	}
	for _, how := range []string{"the client goes", "it ends by itself", "the server stops"} {
		ctx, cancel := context.WithCancel(t.Context())
		p.opened, p.sessions = nil, nil
		one, err := c.OpenProxy(ctx, requests[0].(types.ProxyRequest))
		if err != nil {
			t.Fatal(err)
		}
		two, err := c.OpenForward(ctx, requests[1].(types.ForwardRequest))
		if err != nil {
			t.Fatal(err)
		}
		three, err := c.OpenExpose(ctx, requests[2].(types.ExposeRequest))
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(p.opened, requests) {
			t.Errorf("the backend got %+v, want %+v", p.opened, requests)
		}
		if one.Listen != "127.0.0.1:1080" || len(one.Env) != 1 || two.Listen != "/x.sock" || three.Address.String() != "10.10.0.9" {
			t.Errorf("answers %+v, %+v, %+v", one.ProxySession, two.ProxySession, three.ProxySession)
		}
		want := ""
		switch how {
		case "the client goes":
			cancel()
		case "it ends by itself":
			want = "the network is gone"
			for _, session := range p.sessions {
				close(session.done)
			}
		case "the server stops":
			want = "the node stops"
			s.cancel()
		}
		for _, session := range p.sessions {
			closedSoon(t, how+": the session is closed", session.closed)
		}
		if err := one.Wait(ctx); want == "" && err != nil || want != "" && (err == nil || err.Error() != want) {
			t.Errorf("%s: %v, want %q", how, err, want)
		}
		for _, session := range []interface{ Close() error }{one, two, three} {
			_ = session.Close()
		}
		cancel()
	}
}

// TestConnect: a connection is one in both directions, each with its end.
func TestConnect(t *testing.T) {
	f := newFakeNode()
	p := &fakeProxies{}
	f.proxies = p
	c := serve(t, f).ovndClient(t)
	conn, err := c.Connect(t.Context(), types.ConnectRequest{Networks: []string{"a"}, Target: "web:7"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	data := bytes.Repeat([]byte("0123456789"), 100000)
	go func() {
		_, _ = conn.Write(data)
		_ = conn.CloseWrite()
	}()
	got, err := io.ReadAll(conn)
	if want := append([]byte("web:7\n"), data...); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes came back, %v; want %d", len(got), err, len(want))
	}
	p.carried.Wait()
	if _, err := c.Connect(t.Context(), types.ConnectRequest{Target: "nowhere:1"}); !cerrdefs.IsNotFound(err) || !strings.Contains(err.Error(), "no such name") {
		t.Errorf("to nowhere: %v", err)
	}
}

// TestConnectEndsWithServer: a connection does not hold up the node's end.
func TestConnectEndsWithServer(t *testing.T) {
	f := newFakeNode()
	p := &fakeProxies{}
	f.proxies = p
	s := serve(t, f)
	conn, err := s.ovndClient(t).Connect(t.Context(), types.ConnectRequest{Target: "web:7"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	s.stop(t)
	if _, err := io.ReadAll(conn); err != nil {
		t.Logf("the connection ends with %v", err)
	}
	p.carried.Wait()
}

// TestProxyRefusals: requests that make no sense do not reach the backend; a node
// without proxies has none of the calls.
func TestProxyRefusals(t *testing.T) {
	f := newFakeNode()
	p := &fakeProxies{}
	f.proxies = p
	web := serve(t, f).httpClient(t)
	many := `"` + strings.Join(strings.Split(strings.Repeat("n", maxProxyNetworks+1), ""), `","`) + `"`
	for _, tc := range []struct{ path, body, says string }{
		{"proxy", `{}`, "no address"},
		{"proxy", `{"Listen":"taken"}`, "already in use"},
		{"proxy", `{"Listen":"1","Networks":["a","a"]}`, "twice"},
		{"proxy", `{"Listen":"1","Networks":[""]}`, "empty"},
		{"proxy", `{"Listen":"1","Networks":[` + many + `]}`, "at most"},
		{"proxy", `{`, "EOF"},
		{"forward", `{"Listen":"1"}`, "NAME:PORT"},
		{"forward", `{"Listen":"1","Target":"web"}`, "NAME:PORT"},
		{"forward", `{"Target":"web:1"}`, "no address"},
		{"expose", `{"Name":"a b","Port":1}`, "invalid name"},
		{"connect", `{"Target":":1"}`, "NAME:PORT"},
		{"connect", `{"Target":"web:1","Networks":[""]}`, "empty"},
	} {
		resp, err := web.Post("http://ovnd/ovnd/"+tc.path, "application/json", strings.NewReader(tc.body))
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusBadRequest || !strings.Contains(string(b), tc.says) {
			t.Errorf("%s %s: %s %s, want 400 and %q", tc.path, tc.body, resp.Status, b, tc.says)
		}
	}
	if len(p.opened) > 0 {
		t.Errorf("the backend got %+v", p.opened)
	}
	if env, err := serve(t, f).ovndClient(t).Env(t.Context()); err != nil || env.Listen != "127.0.0.1:1080" {
		t.Errorf("env: %+v, %v", env, err)
	}
	if _, err := serve(t, newFakeNode()).ovndClient(t).Env(t.Context()); err == nil {
		t.Error("a node without proxies answers")
	}
}

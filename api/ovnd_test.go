package api

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"

	"github.com/ovnd/ovnd/api/client"
	"github.com/ovnd/ovnd/api/types"
)

// ovndClient is the client of ovnd's own calls.
func (s *testServer) ovndClient(t *testing.T) *client.Client {
	t.Helper()
	c, err := client.New("unix://" + s.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestAttach(t *testing.T) {
	f := newFakeNode()
	c := serve(t, f).ovndClient(t)
	want := types.AttachRequest{
		Name: "a1", Hostname: "box",
		Networks: []types.AttachNetwork{{Target: "plain_net", IP: netip.MustParseAddr("10.20.0.77"), Aliases: []string{"web"}}, {Target: "spare"}},
	}
	resp, err := c.Attach(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	if got := <-f.attached; !reflect.DeepEqual(got, want) {
		t.Errorf("the backend got %+v, want %+v", got, want)
	}
	if resp.Spec.Name != "a1" || resp.Spec.Token != "secret" {
		t.Errorf("spec %+v", resp.Spec)
	}
}

// TestAttachAbandoned: when the caller goes, the backend learns of it.
func TestAttachAbandoned(t *testing.T) {
	f := newFakeNode()
	f.block = make(chan struct{})
	c := serve(t, f).ovndClient(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := c.Attach(ctx, types.AttachRequest{Networks: []types.AttachNetwork{{Target: "spare"}}})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Attach: %v, want its context's error", err)
	}
	select {
	case <-f.gone:
	case <-time.After(5 * time.Second):
		t.Error("5 s later the backend still waits for the client that has gone")
	}
}

func TestRelease(t *testing.T) {
	c := serve(t, newFakeNode()).ovndClient(t)
	if err := c.Release(t.Context(), types.ReleaseRequest{ID: "a", Token: "secret"}); err != nil {
		t.Error(err)
	}
	if err := c.Release(t.Context(), types.ReleaseRequest{ID: "a", Token: "guess"}); !cerrdefs.IsNotFound(err) {
		t.Errorf("a wrong token: %v, want not found", err)
	}
}

func TestCheckAttach(t *testing.T) {
	ok := func(change func(*types.AttachRequest)) types.AttachRequest {
		req := types.AttachRequest{Networks: []types.AttachNetwork{{Target: "net"}}}
		change(&req)
		return req
	}
	many := make([]string, maxAliases+1)
	for i := range many {
		many[i] = "a"
	}
	tests := []struct {
		name   string
		change func(*types.AttachRequest)
		want   string // empty: accepted
	}{
		{"least", func(*types.AttachRequest) {}, ""},
		{"all", func(r *types.AttachRequest) {
			r.Name, r.Hostname = "web_1.x-y", "web-1.example"
			r.Networks[0].IP, r.Networks[0].Aliases = netip.MustParseAddr("fd00::1"), []string{"web", "db_1"}
		}, ""},
		{"name of one", func(r *types.AttachRequest) { r.Name = "x" }, ""},
		{"name with slash", func(r *types.AttachRequest) { r.Name = "a/b" }, "invalid name"},
		{"name too long", func(r *types.AttachRequest) { r.Name = strings.Repeat("x", 129) }, "invalid name"},
		{"hostname with space", func(r *types.AttachRequest) { r.Hostname = "a b" }, "invalid hostname"},
		{"hostname too long", func(r *types.AttachRequest) { r.Hostname = strings.Repeat("x.", 33) + "x" }, "invalid hostname"},
		{"hostname with newline", func(r *types.AttachRequest) { r.Hostname = "a\n" }, "invalid hostname"},
		{"no network", func(r *types.AttachRequest) { r.Networks = nil }, "--network"},
		{"network without name", func(r *types.AttachRequest) { r.Networks[0].Target = "" }, "name is empty"},
		{"twice", func(r *types.AttachRequest) { r.Networks = append(r.Networks, r.Networks[0]) }, "network net is given twice"},
		{"too many", func(r *types.AttachRequest) { r.Networks = make([]types.AttachNetwork, maxAttachNetworks+1) }, "at most 64"},
		{"any address", func(r *types.AttachRequest) { r.Networks[0].IP = netip.IPv4Unspecified() }, "one host"},
		{"group address", func(r *types.AttachRequest) { r.Networks[0].IP = netip.MustParseAddr("224.0.0.1") }, "one host"},
		{"zone", func(r *types.AttachRequest) { r.Networks[0].IP = netip.MustParseAddr("fe80::1%eth0") }, "one host"},
		{"alias", func(r *types.AttachRequest) { r.Networks[0].Aliases = []string{"a b"} }, "invalid alias (a b)"},
		{"many aliases", func(r *types.AttachRequest) { r.Networks[0].Aliases = many }, "at most 16"},
		{"long aliases", func(r *types.AttachRequest) {
			for range 9 {
				r.Networks[0].Aliases = append(r.Networks[0].Aliases, strings.Repeat("x", 60))
			}
		}, "more than 512 bytes"},
	}
	for _, tt := range tests {
		err := CheckAttach(ok(tt.change))
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v", tt.name, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || !cerrdefs.IsInvalidArgument(err)):
			t.Errorf("%s: %v, want class invalid argument and %q", tt.name, err, tt.want)
		}
	}
}

func TestStatus(t *testing.T) {
	f := newFakeNode()
	c := serve(t, f).ovndClient(t)
	got, err := c.Status(t.Context())
	if err != nil || !reflect.DeepEqual(got, f.ovndStatus()) {
		t.Errorf("got %+v, %v\nwant %+v", got, err, f.ovndStatus())
	}
}

func TestNetworkVerbose(t *testing.T) {
	c := serve(t, newFakeNode()).ovndClient(t)
	got, err := c.NetworkVerbose(t.Context(), "plain_net")
	if err != nil {
		t.Fatal(err)
	}
	if got.ID != usedID || got.Version != 7 || got.VNI != 4097 || got.MTU != 1450 || len(got.Endpoints) != 3 || len(got.Peers) != 2 {
		t.Fatalf("got %+v", got)
	}
	here, there := netip.MustParseAddr("192.0.2.11"), netip.MustParseAddr("192.0.2.12")
	want := []types.Endpoint{
		{Address: netip.MustParseAddr("10.20.0.5"), Name: "my-test.1.js3kw89zbb09plu86jn1xnsy6", Kind: "task", Local: true, VTEP: here, NodeName: selfName},
		{Address: netip.MustParseAddr("10.20.0.6"), Name: "my-test.2.rbmhtcqabx5tfiyux21qtd6g8", Kind: "task", VTEP: there, NodeName: "7b56a7c4484e"},
		{Address: netip.MustParseAddr("10.20.0.10"), Name: "plain_net-endpoint", Kind: "load-balancer", Local: true, VTEP: here, NodeName: selfName},
	}
	for i, ep := range got.Endpoints {
		brief := types.Endpoint{Address: ep.Address, Name: ep.Name, Kind: ep.Kind, Local: ep.Local, VTEP: ep.VTEP, NodeName: ep.NodeName}
		if !reflect.DeepEqual(brief, want[i]) {
			t.Errorf("endpoint %d: %+v, want %+v", i, brief, want[i])
		}
	}
	if v := got.StaticVTEPs; len(v) != 1 || v[0].MacAddress != "02:42:0a:14:00:c8" || v[0].Learn {
		t.Errorf("static VTEPs %+v", v)
	}
	if _, err := c.NetworkVerbose(t.Context(), "a/b"); !cerrdefs.IsNotFound(err) || !strings.Contains(err.Error(), "network a/b not found") {
		t.Errorf("missing network: %v, want class not found", err)
	}
}

// TestDown: the answer arrives although the node stops because of it.
func TestDown(t *testing.T) {
	f := newFakeNode()
	s := serve(t, f)
	c := s.ovndClient(t)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		<-f.down
		s.cancel()
	}()
	resp, err := c.Down(t.Context())
	if err != nil || resp.PID != os.Getpid() {
		t.Errorf("down: %+v, %v; want the server's pid, %d", resp, err, os.Getpid())
	}
	<-stopped
	s.stop(t)
	if _, err := c.Status(t.Context()); !errors.Is(err, client.ErrNoNode) {
		t.Errorf("after the stop: %v, want ErrNoNode", err)
	}
}

func TestClientErrors(t *testing.T) {
	for _, host := range []string{"", "unix://", "tcp://127.0.0.1:2375", "/run/ovnd.sock"} {
		if _, err := client.New(host); err == nil {
			t.Errorf("New(%q): no error", host)
		}
	}
	c, err := client.New("unix://" + filepath.Join(t.TempDir(), "none.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Status(t.Context()); !errors.Is(err, client.ErrNoNode) || !strings.Contains(err.Error(), "ovnd up") {
		t.Errorf("no socket: %v, want ErrNoNode and the remedy", err)
	}
}

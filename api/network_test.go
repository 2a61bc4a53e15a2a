package api

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/client"

	"github.com/ovnd/ovnd/api/types"
)

// mobyClient is moby's own client of the server.
func (s *testServer) mobyClient(t *testing.T) *client.Client {
	t.Helper()
	c, err := client.New(client.WithHost("unix://" + s.path))
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, c)
	return c
}

// TestInspectAsDocker compares with what Docker 28.2 answered, byte for byte.
func TestInspectAsDocker(t *testing.T) {
	c := serve(t, newFakeNode()).httpClient(t)
	_, _, body := request(t, c, "GET", "/v1.50/networks/plain_net", "", "")
	var got bytes.Buffer
	if err := json.Indent(&got, []byte(body), "", "    "); err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/inspect.json")
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("got %s\nwant %s", got.String(), want)
	}
}

func TestInspect(t *testing.T) {
	c := serve(t, newFakeNode()).mobyClient(t)

	ingress, err := c.NetworkInspect(t.Context(), "ingress", client.NetworkInspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if ep, ok := ingress.Network.Containers["ingress-sbox"]; !ok || ep.Name != "ingress-endpoint" || ep.IPv4Address != netip.MustParsePrefix("10.0.0.2/24") {
		t.Errorf("ingress: containers %v, want ingress-sbox with ingress-endpoint", ingress.Network.Containers)
	}

	// As Docker: what has nothing on this node has no endpoints to show.
	spare, err := c.NetworkInspect(t.Context(), "dvzz", client.NetworkInspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(spare.Raw), `"Containers":null`) || spare.Network.Peers != nil {
		t.Errorf("network without endpoints here: %s", spare.Raw)
	}

	verbose, err := c.NetworkInspect(t.Context(), usedID, client.NetworkInspectOptions{Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	svc := verbose.Network.Services["my-test"]
	if svc.VIP != netip.MustParseAddr("10.20.0.2") || len(svc.Tasks) != 2 || svc.Tasks[1].Info["Host IP"] != "192.0.2.12" {
		t.Errorf("verbose: services %+v, want my-test with its two tasks", verbose.Network.Services)
	}

	if _, err := c.NetworkInspect(t.Context(), "nosuch", client.NetworkInspectOptions{}); !cerrdefs.IsNotFound(err) {
		t.Errorf("missing network: %v, want class not found", err)
	}
}

// TestInspectSealing shows the sessions of an encrypted network where Docker's
// verbose form and ovnd's own are asked for, and only there.
func TestInspectSealing(t *testing.T) {
	node := newFakeNode()
	want := types.NetworkSealing{
		Policy: "auto",
		Sessions: []types.Session{
			{NodeID: "m3kw89zbb09plu86jn1xnsy6z", Policy: "auto", Established: true, Cipher: "aes-256-gcm", Epoch: 2, Age: 12.5, RxPackets: 7},
			{NodeID: "w3kw89zbb09plu86jn1xnsy6z", Policy: "auto", Reason: "unanswered"},
		},
		Drops: map[string]uint64{"no_session": 3},
	}
	node.sealing = map[string]*types.NetworkSealing{usedID: &want}
	s := serve(t, node)
	c := s.mobyClient(t)
	for verbose, shown := range map[bool]bool{false: false, true: true} {
		got, err := c.NetworkInspect(t.Context(), usedID, client.NetworkInspectOptions{Verbose: verbose})
		if err != nil {
			t.Fatal(err)
		}
		var fields struct{ Sealing *types.NetworkSealing }
		if err := json.Unmarshal(got.Raw, &fields); err != nil {
			t.Fatal(err)
		}
		if shown != reflect.DeepEqual(fields.Sealing, &want) || !shown && fields.Sealing != nil {
			t.Errorf("verbose %v: %+v", verbose, fields.Sealing)
		}
	}
	_, _, body := request(t, s.httpClient(t), "GET", "/ovnd/networks/"+usedID+"/verbose", "", "")
	var own types.NetworkVerbose
	if err := json.Unmarshal([]byte(body), &own); err != nil || !reflect.DeepEqual(own.Sealing, &want) {
		t.Errorf("own form: %+v, %v", own.Sealing, err)
	}
	_, _, body = request(t, s.httpClient(t), "GET", "/v1.50/networks/spare?verbose=true", "", "")
	if strings.Contains(body, "Sealing") {
		t.Errorf("a plain network: %s", body)
	}
}

func TestListFilters(t *testing.T) {
	c := serve(t, newFakeNode()).mobyClient(t)
	tests := []struct {
		filters []string // key, term, …
		want    string
	}{
		{nil, "ingress plain_net spare"},
		{[]string{"driver", "overlay"}, "ingress plain_net spare"},
		{[]string{"driver", "over"}, ""},
		{[]string{"name", "pla"}, "plain_net"},
		{[]string{"name", "^ingress$", "name", "spare"}, "ingress spare"},
		{[]string{"name", "(["}, ""},
		{[]string{"id", "dv"}, "plain_net spare"},
		{[]string{"label", "a"}, "spare"},
		{[]string{"label", "a=b"}, "spare"},
		{[]string{"label", "a=c"}, ""},
		{[]string{"label", "a", "label", "z"}, ""},
		{[]string{"scope", "swarm"}, "ingress plain_net spare"},
		{[]string{"scope", "local"}, ""},
		{[]string{"type", "custom"}, "ingress plain_net spare"},
		{[]string{"type", "builtin"}, ""},
		{[]string{"dangling", "true"}, "ingress spare"},
		{[]string{"dangling", "false"}, "plain_net"},
		{[]string{"dangling", "true", "label", "a=b"}, "spare"},
	}
	for _, tt := range tests {
		f := client.Filters{}
		for p := range slices.Chunk(tt.filters, 2) {
			f.Add(p[0], p[1])
		}
		list, err := c.NetworkList(t.Context(), client.NetworkListOptions{Filters: f})
		if err != nil {
			t.Errorf("%v: %v", tt.filters, err)
			continue
		}
		names := make([]string, 0, len(list.Items))
		for _, n := range list.Items {
			names = append(names, n.Name)
		}
		if got := strings.Join(names, " "); got != tt.want {
			t.Errorf("filters %v: got %q, want %q", tt.filters, got, tt.want)
		}
	}
}

// TestLegacyFilters: the form of clients before API 1.22, which curl users
// still write.
func TestLegacyFilters(t *testing.T) {
	c := serve(t, newFakeNode()).httpClient(t)
	_, _, body := request(t, c, "GET", "/networks?filters=%7B%22name%22:%5B%22spare%22%5D%7D", "", "")
	var list []network.Summary
	if err := json.Unmarshal([]byte(body), &list); err != nil || len(list) != 1 || list[0].Name != "spare" {
		t.Errorf("got %s, want spare alone", body)
	}
}

func TestCreateAndRemove(t *testing.T) {
	f := newFakeNode()
	f.warning = "subnet 10.10.19.0/16 has host bits set: 10.10.0.0/16 is used"
	c := serve(t, f).mobyClient(t)
	res, err := c.NetworkCreate(t.Context(), "ngx_net", client.NetworkCreateOptions{
		Driver: "overlay", Attachable: true, Labels: map[string]string{"a": "b"},
		Options: map[string]string{"com.docker.network.driver.mtu": "1400"},
		IPAM: &network.IPAM{Driver: "default", Config: []network.IPAMConfig{{
			Subnet: netip.MustParsePrefix("10.10.19.0/16"), IPRange: netip.MustParsePrefix("10.10.5.0/24"), Gateway: netip.MustParseAddr("10.10.0.254"),
			AuxAddress: map[string]netip.Addr{"printer": netip.MustParseAddr("10.10.0.7")},
		}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(res.Warning, []string{f.warning}) {
		t.Errorf("warnings %q, want the backend's", res.Warning)
	}
	req := f.created[0]
	cfg := req.IPAM.Config[0]
	if req.Name != "ngx_net" || !req.Attachable || req.Labels["a"] != "b" || req.Options["com.docker.network.driver.mtu"] != "1400" ||
		cfg.Subnet != netip.MustParsePrefix("10.10.19.0/16") || cfg.IPRange != netip.MustParsePrefix("10.10.5.0/24") ||
		cfg.Gateway != netip.MustParseAddr("10.10.0.254") || cfg.AuxAddress["printer"] != netip.MustParseAddr("10.10.0.7") {
		t.Errorf("the backend got %+v", req)
	}
	if _, err := c.NetworkCreate(t.Context(), "ngx_net", client.NetworkCreateOptions{Driver: "overlay"}); !cerrdefs.IsConflict(err) {
		t.Errorf("second network of a name: %v, want class conflict", err)
	}
	if _, err := c.NetworkRemove(t.Context(), res.ID[:12], client.NetworkRemoveOptions{}); err != nil {
		t.Errorf("remove by ID prefix: %v", err)
	}
}

func TestPrune(t *testing.T) {
	tests := []struct {
		name    string
		filters client.Filters
		worker  bool
		want    []string
	}{
		{"unused, but never ingress or one in use", nil, false, []string{"spare"}},
		{"label", client.Filters{}.Add("label", "a=b"), false, []string{"spare"}},
		{"other label", client.Filters{}.Add("label", "z"), false, nil},
		{"not label", client.Filters{}.Add("label!", "a"), false, nil},
		{"not other label", client.Filters{}.Add("label!", "z"), false, []string{"spare"}},
		{"before it was created", client.Filters{}.Add("until", "2026-11-22T17:00:00Z"), false, nil},
		{"after it was created", client.Filters{}.Add("until", "2026-11-22T18:00:00Z"), false, []string{"spare"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := serve(t, newFakeNode()).mobyClient(t)
			res, err := c.NetworkPrune(t.Context(), client.NetworkPruneOptions{Filters: tt.filters})
			if err != nil || !slices.Equal(res.Report.NetworksDeleted, tt.want) {
				t.Errorf("deleted %v, error %v; want %v", res.Report.NetworksDeleted, err, tt.want)
			}
		})
	}
}

// TestWorker: a worker says that it cannot change networks, prune included.
func TestWorker(t *testing.T) {
	f := newFakeNode()
	f.worker = true
	c := serve(t, f).mobyClient(t)
	_, createErr := c.NetworkCreate(t.Context(), "x", client.NetworkCreateOptions{Driver: "overlay"})
	_, removeErr := c.NetworkRemove(t.Context(), "spare", client.NetworkRemoveOptions{})
	_, pruneErr := c.NetworkPrune(t.Context(), client.NetworkPruneOptions{})
	for name, err := range map[string]error{"create": createErr, "remove": removeErr, "prune": pruneErr} {
		if !cerrdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "This node is not a swarm manager") {
			t.Errorf("%s: %v, want class unavailable", name, err)
		}
	}
}

func TestSwarmThroughClient(t *testing.T) {
	c := serve(t, newFakeNode()).mobyClient(t)
	nodes, err := c.NodeList(t.Context(), client.NodeListOptions{Filters: client.Filters{}.Add("role", "manager")})
	if err != nil || len(nodes.Items) != 1 || nodes.Items[0].ID != managerID {
		t.Errorf("nodes with role=manager: %+v, %v", nodes.Items, err)
	}
	if _, err := c.NodeUpdate(t.Context(), workerID, client.NodeUpdateOptions{Spec: swarm.NodeSpec{Role: swarm.NodeRoleManager}}); err != nil {
		t.Errorf("node update: %v", err)
	}
	sw, err := c.SwarmInspect(t.Context(), client.SwarmInspectOptions{})
	if err != nil || sw.Swarm.JoinTokens.Worker != "SWMTKN-1-worker" {
		t.Errorf("swarm inspect: %+v, %v", sw.Swarm, err)
	}
	info, err := c.Info(t.Context(), client.InfoOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if i := info.Info; i.Swarm.NodeID != managerID || i.Name != "localhost" || i.ContainersRunning != 3 || i.NCPU == 0 || i.MemTotal == 0 || i.KernelVersion == "" {
		t.Errorf("info: %+v", i)
	}
	v, err := c.ServerVersion(t.Context(), client.ServerVersionOptions{})
	if err != nil || v.Platform.Name != "ovnd" || v.Version != "0.1.0" || v.APIVersion != APIVersion || v.MinAPIVersion != MinAPIVersion {
		t.Errorf("version: %+v, %v", v, err)
	}
	if client.MaxAPIVersion != APIVersion {
		t.Errorf("moby's client speaks API %s, the server says %s", client.MaxAPIVersion, APIVersion)
	}
}

func TestParseTime(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.FixedZone("", 3600))
	for s, want := range map[string]time.Time{
		"10m":                             now.Add(-10 * time.Minute),
		"1h30m":                           now.Add(-90 * time.Minute),
		"0":                               time.Unix(0, 0),
		"1700000000":                      time.Unix(1700000000, 0),
		"1700000000.5":                    time.Unix(1700000000, 500000000),
		"1700000000.000000001":            time.Unix(1700000000, 1),
		"2026-11-22T10:00:00Z":            now.Add(-time.Hour),
		"2026-11-22T11:00:00.25+01:00":    now.Add(-time.Hour + 250*time.Millisecond),
		"2026-11-22T11:00:00":             now.Add(-time.Hour),
		"2026-11-22T11:00":                now.Add(-time.Hour),
		"2026-11-22":                      now.Add(-12 * time.Hour),
		"2026-11-22T11:00:00.123456789":   now.Add(-time.Hour + 123456789),
		"1700000000.00000000199999999999": time.Unix(1700000000, 1),
	} {
		if got, err := parseTime(s, now); err != nil || !got.Equal(want) {
			t.Errorf("parseTime(%q) = %v, %v; want %v", s, got, err, want)
		}
	}
	for _, s := range []string{"", "soon", "1700000000.x", "-5", "99999999999999999999", "2026-13-01", "1.2.3"} {
		if got, err := parseTime(s, now); err == nil {
			t.Errorf("parseTime(%q) = %v, want an error", s, got)
		}
	}
}

package api

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"sync"
	"testing"
	"time"

	cerrdefs "github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/swarm"
	swarmrouter "github.com/moby/moby/v2/daemon/server/router/swarm"
	"github.com/moby/moby/v2/daemon/server/swarmbackend"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ovnd/ovnd/api/types"
	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/encap"
	"github.com/ovnd/ovnd/sandbox"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

const (
	managerID = "ah2lt4rfnp5tua63rsdks07g2"
	workerID  = "y9vv9bfwwknxnrd3eruffwkr0"
	selfName  = "b404dc42bd45" // this node's gossip name
	ingressID = "j0a7j3mks3pysbdwp3a51fxlp"
	usedID    = "dvdqkogqh62gxbbi77m7ctrts"
)

// fakeNode implements all backends over a table of networks.
type fakeNode struct {
	swarmrouter.Backend // nil: what a test does not expect panics, and so fails it

	mu        sync.Mutex
	networks  []network.Network
	snapshots map[string]*directory.Snapshot
	sealing   map[string]*types.NetworkSealing // none: no network is encrypted
	worker    bool                             // not a manager: networks cannot be changed
	warning   string
	created   []network.CreateRequest
	nodes     []swarm.Node
	attached  chan types.AttachRequest
	block     chan struct{} // if set, Attach waits for it or for the client to go
	entered   chan struct{} // closed when such an Attach begins
	gone      chan struct{} // closed when a blocked Attach saw its client go
	down      chan struct{}

	containers ContainerBackend // nil: none
	proxies    ProxyBackend     // nil: none
}

func newFakeNode() *fakeNode {
	created := time.Date(2026, 11, 22, 17, 27, 30, 869417901, time.UTC)
	overlay := func(name, id, subnet, gw, vni string, labels map[string]string) network.Network {
		return network.Network{
			Name: name, ID: id, Created: created, Scope: "swarm", Driver: "overlay", EnableIPv4: true,
			IPAM:    network.IPAM{Driver: "default", Config: []network.IPAMConfig{{Subnet: netip.MustParsePrefix(subnet), Gateway: netip.MustParseAddr(gw)}}},
			Options: map[string]string{directory.OptionVNIs: vni}, Labels: labels, Ingress: name == "ingress",
		}
	}
	return &fakeNode{
		networks: []network.Network{
			overlay("ingress", ingressID, "10.0.0.0/24", "10.0.0.1", "4096", nil),
			overlay("plain_net", usedID, "10.20.0.0/16", "10.20.0.1", "4097", nil),
			overlay("spare", "dvzzkogqh62gxbbi77m7ctrts", "10.0.1.0/24", "10.0.1.1", "4098", map[string]string{"a": "b"}),
		},
		snapshots: map[string]*directory.Snapshot{
			usedID:    plainSnapshot(),
			ingressID: ingressSnapshot(),
		},
		nodes: []swarm.Node{
			fakeSwarmNode(workerID, "hsp1", swarm.NodeRoleWorker),
			fakeSwarmNode(managerID, "localhost", swarm.NodeRoleManager),
		},
		attached: make(chan types.AttachRequest, 1),
		entered:  make(chan struct{}),
		gone:     make(chan struct{}),
		down:     make(chan struct{}),
	}
}

// plainSnapshot is the network of Docker's reference output, with one task
// here and one elsewhere.
func plainSnapshot() *directory.Snapshot {
	here, there := netip.MustParseAddr("192.0.2.11"), netip.MustParseAddr("192.0.2.12")
	ep := func(addr, id, name, sandbox, owner string, vtep netip.Addr, kind directory.EndpointKind) *directory.Endpoint {
		a := netip.MustParseAddr(addr)
		e := &directory.Endpoint{ID: id, Name: name, SandboxID: sandbox, Addr: a, MAC: encap.EndpointMAC(a), NodeID: owner, VTEP: vtep, Kind: kind}
		if kind == directory.Task {
			e.ServiceID, e.ServiceName, e.VIP = "ivcb6veswzb8lbiguopvgmfyr", "my-test", netip.MustParseAddr("10.20.0.2")
		}
		return e
	}
	s := &directory.Snapshot{
		Version: 7, ID: usedID, Name: "plain_net", VNI: 4097, MTU: 1450,
		Subnets: []directory.Subnet{{Prefix: netip.MustParsePrefix("10.20.0.0/16"), Gateway: netip.MustParseAddr("10.20.0.1")}},
		Peers:   map[netip.Addr]string{there: "7b56a7c4484e", here: selfName},
		StaticVTEPs: []directory.StaticVTEP{{
			Name: "kernel", VTEP: netip.MustParseAddr("192.0.2.50"), Addr: netip.MustParseAddr("10.20.0.200"),
			MAC: encap.EndpointMAC(netip.MustParseAddr("10.20.0.200")),
		}},
	}
	for _, e := range []*directory.Endpoint{
		ep("10.20.0.5", "12af8f7f6c39c95d47641aa4a4852d9cbd0743c1cbf24cee963025c31bac8c5a", "my-test.1.js3kw89zbb09plu86jn1xnsy6", "821f692a75de8e94c043bb0e23db2c18c2b169aa19b2dd6686be5e4e5623c381", selfName, here, directory.Task),
		ep("10.20.0.10", "dee49ad4e2483cb7e0c340e1a0a116eb893cd5e4684ac9bcfc568757b64c3458", "plain_net-endpoint", "", selfName, here, directory.LoadBalancer),
		ep("10.20.0.6", "94f36d54e3758f9a721906ee6bfe6c1ad4defdc82abe71e97783e383acc3a0b2", "my-test.2.rbmhtcqabx5tfiyux21qtd6g8", "", "7b56a7c4484e", there, directory.Task),
	} {
		s.Endpoints = s.Endpoints.With(e.Addr, e)
	}
	return s
}

func ingressSnapshot() *directory.Snapshot {
	a := netip.MustParseAddr("10.0.0.2")
	return &directory.Snapshot{
		ID: ingressID, Name: "ingress", Ingress: true, VNI: 4096,
		Subnets: []directory.Subnet{{Prefix: netip.MustParsePrefix("10.0.0.0/24")}},
		Endpoints: directory.MapOf(map[netip.Addr]*directory.Endpoint{a: {
			ID: "6dfed3683dff176d6c8e6140987f24b1097466d081a4944492013f0930d5012e", Addr: a, MAC: encap.EndpointMAC(a),
			NodeID: selfName, Kind: directory.LoadBalancer,
		}}),
	}
}

func fakeSwarmNode(id, host string, role swarm.NodeRole) swarm.Node {
	n := swarm.Node{
		ID:          id,
		Meta:        swarm.Meta{Version: swarm.Version{Index: 90}},
		Spec:        swarm.NodeSpec{Role: role, Availability: swarm.NodeAvailabilityActive},
		Description: swarm.NodeDescription{Hostname: host, Engine: swarm.EngineDescription{EngineVersion: "0.1.0"}},
		Status:      swarm.NodeStatus{State: swarm.NodeStateReady, Addr: "192.0.2.11"},
	}
	if role == swarm.NodeRoleManager {
		n.ManagerStatus = &swarm.ManagerStatus{Leader: true, Reachability: swarm.ReachabilityReachable, Addr: "192.0.2.11:2377"}
	}
	return n
}

var errNotManager = cerrdefs.ErrUnavailable.WithMessage("This node is not a swarm manager.")

func (f *fakeNode) CreateNetwork(_ context.Context, req network.CreateRequest) (id, warning string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.worker {
		return "", "", errNotManager
	}
	f.created = append(f.created, req)
	id = fmt.Sprintf("new%022d", len(f.created))
	f.networks = append(f.networks, network.Network{Name: req.Name, ID: id, Driver: req.Driver, Scope: "swarm", Labels: req.Labels, Created: time.Now()})
	return id, f.warning, nil
}

func (f *fakeNode) GetNetworks(context.Context) ([]network.Network, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]network.Network(nil), f.networks...), nil
}

func (f *fakeNode) RemoveNetwork(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.worker {
		return errNotManager
	}
	if id == usedID {
		return status.Errorf(codes.FailedPrecondition, "network %s is in use by service ivcb6veswzb8lbiguopvgmfyr", id)
	}
	for i, n := range f.networks {
		if n.ID == id {
			f.networks = append(f.networks[:i:i], f.networks[i+1:]...)
			return nil
		}
	}
	return status.Errorf(codes.NotFound, "network %s not found", id)
}

func (f *fakeNode) Sealing(id string) *types.NetworkSealing { return f.sealing[id] }

func (f *fakeNode) Snapshot(id string) (*directory.Snapshot, string) {
	return f.snapshots[id], selfName
}

func (f *fakeNode) Info(context.Context) swarm.Info {
	return swarm.Info{
		NodeID: managerID, NodeAddr: "192.0.2.11", LocalNodeState: swarm.LocalNodeStateActive, ControlAvailable: true,
		Nodes: 2, Managers: 1, RemoteManagers: []swarm.Peer{{NodeID: managerID, Addr: "192.0.2.11:2377"}},
		Cluster: &swarm.ClusterInfo{
			ID: "0fakecluster", DataPathPort: 4789, SubnetSize: 24,
			DefaultAddrPool: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
		},
	}
}

func (f *fakeNode) Status() string { return "active/manager" }

func (f *fakeNode) Inspect() (swarm.Swarm, error) {
	return swarm.Swarm{
		ClusterInfo: *f.Info(context.Background()).Cluster,
		JoinTokens:  swarm.JoinTokens{Worker: "SWMTKN-1-worker", Manager: "SWMTKN-1-manager"},
	}, nil
}

func (f *fakeNode) Init(swarm.InitRequest) (string, error) {
	return "", status.Error(codes.FailedPrecondition, `This node is already part of a swarm.`)
}

func (f *fakeNode) Leave(_ context.Context, force bool) error {
	if !force {
		return status.Error(codes.FailedPrecondition, "You are attempting to leave the swarm on a node that is participating as a manager.")
	}
	return nil
}

func (f *fakeNode) Join(swarm.JoinRequest) error {
	return cerrdefs.ErrInvalidArgument.WithMessage("invalid join token")
}

func (f *fakeNode) Update(uint64, swarm.Spec, swarmbackend.UpdateFlags) error { return nil }

func (f *fakeNode) GetNodes(opts swarmbackend.NodeListOptions) ([]swarm.Node, error) {
	var list []swarm.Node
	for _, n := range f.nodes {
		if opts.Filters.ExactMatch("role", string(n.Spec.Role)) {
			list = append(list, n)
		}
	}
	return list, nil
}

func (f *fakeNode) GetNode(id string) (swarm.Node, error) {
	for _, n := range f.nodes {
		if n.ID == id || n.Description.Hostname == id {
			return n, nil
		}
	}
	return swarm.Node{}, cerrdefs.ErrNotFound.WithMessage("node " + id + " not found")
}

func (f *fakeNode) UpdateNode(id string, _ uint64, spec swarm.NodeSpec) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range f.nodes {
		if f.nodes[i].ID == id {
			f.nodes[i].Spec = spec
			return nil
		}
	}
	return cerrdefs.ErrNotFound.WithMessage("node " + id + " not found")
}

func (f *fakeNode) RemoveNode(id string, force bool) error {
	if !force {
		return status.Errorf(codes.FailedPrecondition, "node %s is not down and can't be removed", id)
	}
	return nil
}

func (f *fakeNode) GetServices(swarmbackend.ServiceListOptions) ([]swarm.Service, error) {
	return []swarm.Service{}, nil
}

func (f *fakeNode) GetTasks(swarmbackend.TaskListOptions) ([]swarm.Task, error) {
	return []swarm.Task{}, nil
}

func (f *fakeNode) GetService(id string, _ bool) (swarm.Service, error) {
	return swarm.Service{}, cerrdefs.ErrNotFound.WithMessage("service " + id + " not found")
}

func (f *fakeNode) GetTask(id string) (swarm.Task, error) {
	return swarm.Task{}, cerrdefs.ErrNotFound.WithMessage("task " + id + " not found")
}

func (f *fakeNode) System() System {
	return System{
		ID: "QFKI:G6A2", Hostname: "localhost", StateDir: "/var/lib/ovnd", Version: "0.1.0", Commit: "abcdef1",
		Running: 3, Warnings: []string{"WARNING: no CPU or memory limits"},
	}
}

func (f *fakeNode) Release(req types.ReleaseRequest) error {
	if req.Token != "secret" {
		return cerrdefs.ErrNotFound.WithMessage("no sandbox " + req.ID + " waits for its process")
	}
	return nil
}

func (f *fakeNode) Attach(ctx context.Context, req types.AttachRequest) (types.AttachResponse, error) {
	if f.block != nil {
		close(f.entered)
		select {
		case <-f.block:
		case <-ctx.Done():
			close(f.gone)
			return types.AttachResponse{}, ctx.Err()
		}
	}
	f.attached <- req
	return types.AttachResponse{Spec: sandbox.Spec{ID: "821f", Name: req.Name, Hostname: req.Hostname, Token: "secret"}}, nil
}

func (f *fakeNode) ovndStatus() types.Status {
	return types.Status{
		NodeID: managerID, Hostname: "localhost", Role: "manager", State: "active", Version: "0.1.0",
		Addresses: types.Addresses{Advertise: netip.MustParseAddr("192.0.2.11"), DataPath: netip.MustParseAddrPort("192.0.2.11:4789")},
		Networks:  []types.NetworkState{{ID: usedID, Name: "plain_net", VNI: 4097, MTU: 1450, Subnets: []netip.Prefix{netip.MustParsePrefix("10.20.0.0/16")}}},
		Ports:     []types.PortState{{Name: "a", Network: "plain_net", Traffic: types.Traffic{TxPackets: 3, TxBytes: 252}}},
		Drops:     map[string]uint64{"no_peer": 1}, Ledger: types.Ledger{Sent: 3, Delivered: 2, Dropped: 1},
	}
}

func (f *fakeNode) Down() { close(f.down) }

// ovndFake is a fakeNode whose Status is OvndBackend's; SwarmBackend has a
// method of the same name.
type ovndFake struct{ *fakeNode }

func (o ovndFake) Status(context.Context) (types.Status, error) { return o.ovndStatus(), nil }

// testServer is a server on a socket of its own.
type testServer struct {
	path   string
	events *EventLog
	cancel context.CancelFunc
	done   chan error
}

// serve runs a server over f until the test ends.
func serve(t *testing.T, f *fakeNode) *testServer {
	t.Helper()
	s := &testServer{path: filepath.Join(t.TempDir(), "run", "ovnd.sock"), events: NewEventLog(), done: make(chan error, 1)}
	ln, err := Listen(s.path)
	if err != nil {
		t.Fatal(err)
	}
	srv, err := New(Config{Networks: f, Swarm: f, Containers: f.containers, System: f, Ovnd: ovndFake{f}, Proxies: f.proxies, Events: s.events})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	go func() { s.done <- srv.Run(ctx, ln) }()
	t.Cleanup(func() { s.stop(t) })
	return s
}

// stop ends the server and waits for it. Calls after the first do nothing.
func (s *testServer) stop(t *testing.T) {
	s.cancel()
	if s.done == nil {
		return
	}
	select {
	case err := <-s.done:
		if err != nil {
			t.Errorf("Run: %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("Run has not returned 5 s after its context ended")
	}
	s.done = nil
}

// httpClient speaks plain HTTP to the server.
func (s *testServer) httpClient(t *testing.T) *http.Client {
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", s.path)
	}}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func (f *fakeNode) GetSecret(id string) (swarm.Secret, error) {
	return swarm.Secret{}, cerrdefs.ErrNotFound.WithMessage("secret " + id + " not found")
}

func (f *fakeNode) GetConfig(id string) (swarm.Config, error) {
	return swarm.Config{}, cerrdefs.ErrNotFound.WithMessage("config " + id + " not found")
}

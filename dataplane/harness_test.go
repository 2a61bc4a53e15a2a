package dataplane

import (
	"context"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/ovnd/ovnd/bench/lab"
	"github.com/ovnd/ovnd/dataplane/tun"
	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/encap"
)

// A world is a lab with switches on hosts of their own, joined by veth, and
// sandboxes.
type world struct {
	t *testing.T
	*lab.Lab
	nodes []*node
	snaps map[string]*directory.Snapshot
}

type node struct {
	w    *world
	host *lab.Host
	addr netip.Addr
	sw   *Switch
}

type sandbox struct {
	host *lab.Host
	node *node
	addr netip.Addr
	port *Port
	// files keep the device when the port is closed.
	files []*os.File
}

// twoNodes makes two nodes whose veth has the MTU, over IPv4 or IPv6.
func twoNodes(t *testing.T, mtu int, v6 bool) *world {
	t.Helper()
	w := &world{t: t, Lab: lab.New(t), snaps: make(map[string]*directory.Snapshot)}
	a, b := w.Host("a"), w.Host("b")
	w.Veth(mtu,
		lab.End{Host: a, Name: "eth0", Addrs: []string{"192.0.2.1/24", "2001:db8::1/64"}},
		lab.End{Host: b, Name: "eth0", Addrs: []string{"192.0.2.2/24", "2001:db8::2/64"}})
	addrs := []string{"192.0.2.1", "192.0.2.2"}
	if v6 {
		addrs = []string{"2001:db8::1", "2001:db8::2"}
	}
	w.node(a, addrs[0], Config{})
	w.node(b, addrs[1], Config{})
	return w
}

// node starts a switch on a host.
func (w *world) node(h *lab.Host, addr string, cfg Config) *node {
	w.t.Helper()
	n := &node{w: w, host: h, addr: netip.MustParseAddr(addr)}
	cfg.Underlay = netip.AddrPortFrom(n.addr, encap.VXLANPort)
	cfg.Log = slog.New(slog.NewTextHandler(w.t.Output(), nil))
	var err error
	if doErr := h.Do(func() error { n.sw, err = New(cfg); return err }); doErr != nil {
		w.t.Fatal(doErr)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.sw.Run(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("Run: %v", err)
		}
	})
	w.nodes = append(w.nodes, n)
	return n
}

// network makes a network and publishes it to every node.
func (w *world) network(id string, vni encap.VNI, mtu int, subnets ...string) {
	s := &directory.Snapshot{
		ID: id, Name: id, VNI: vni, MTU: mtu,
		Peers: make(map[netip.Addr]string),
	}
	for _, p := range subnets {
		prefix := netip.MustParsePrefix(p)
		s.Subnets = append(s.Subnets, directory.Subnet{Prefix: prefix, Gateway: prefix.Addr().Next()})
	}
	for _, n := range w.nodes {
		s.Peers[n.addr] = ""
	}
	w.snaps[id] = s
	w.publish(id, func(*directory.Snapshot) {})
}

// publish changes a copy of a network's snapshot and gives it to every node.
func (w *world) publish(id string, change func(*directory.Snapshot)) {
	next := *w.snaps[id]
	next.Version++
	next.Peers = maps.Clone(next.Peers)
	change(&next)
	w.snaps[id] = &next
	for _, n := range w.nodes {
		n.sw.SetNetwork(&next)
	}
}

// sandbox makes a namespace with a TUN device and attaches it.
func (n *node) sandbox(name, network, addr string) *sandbox {
	n.w.t.Helper()
	return n.attach(n.w.Host(name), "eth0", network, addr, 1)
}

// attach makes a device on a host and attaches it.
func (n *node) attach(h *lab.Host, dev, network, prefix string, queues int) *sandbox {
	t, snap := n.w.t, n.w.snaps[network]
	t.Helper()
	p := netip.MustParsePrefix(prefix)
	sb := &sandbox{host: h, node: n, addr: p.Addr()}
	err := h.Do(func() error {
		files, watcher, err := tun.Create(dev, snap.MTU, queues)
		if err != nil {
			return err
		}
		sb.files = files
		return watcher.Close()
	})
	if err != nil {
		t.Fatal(err)
	}
	h.Addr(dev, prefix)
	h.Up(dev)
	n.w.publish(network, func(s *directory.Snapshot) {
		s.Endpoints = s.Endpoints.With(sb.addr, &directory.Endpoint{
			Name: h.Name(), Addr: sb.addr, MAC: encap.EndpointMAC(sb.addr), VTEP: n.addr,
		})
	})
	sb.open(network)
	t.Cleanup(func() {
		for _, f := range sb.files {
			_ = f.Close()
		}
	})
	return sb
}

// open adds the sandbox's device to the switch, with duplicates of its files.
func (sb *sandbox) open(network string) {
	t := sb.node.w.t
	t.Helper()
	cfg := PortConfig{
		NetworkID: network, EndpointID: sb.host.Name(), Name: sb.host.Name(),
		Addrs: []netip.Addr{sb.addr}, MAC: encap.EndpointMAC(sb.addr), MTU: sb.node.w.snaps[network].MTU,
	}
	for _, f := range sb.files {
		cfg.Queues = append(cfg.Queues, dupFile(t, f))
	}
	var err error
	if sb.port, err = sb.node.sw.AddPort(cfg); err != nil {
		t.Fatal(err)
	}
}

// ping expects an answer within two seconds.
func (sb *sandbox) ping(dst *sandbox, p lab.Ping) {
	sb.node.w.t.Helper()
	if err := sb.tryPing(dst.addr, p, 2*time.Second); err != nil {
		sb.node.w.t.Fatalf("ping %s → %s, %+v: %v", sb.addr, dst.addr, p, err)
	}
}

func (sb *sandbox) tryPing(dst netip.Addr, p lab.Ping, d time.Duration) error {
	ctx, cancel := context.WithTimeout(sb.node.w.t.Context(), d)
	defer cancel()
	return sb.host.Ping(ctx, dst, p)
}

// drops waits until a node has dropped at least n packets for a reason.
func (n *node) drops(why Drop, want uint64) {
	n.w.t.Helper()
	var st Stats
	for range 200 {
		if st = n.sw.Stats(); st.Total.Drops[why.String()] >= want {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	n.w.t.Fatalf("%s: %d packets dropped as %s, want %d; all drops: %v", n.host.Name(), st.Total.Drops[why.String()], why, want, st.Total.Drops)
}

// closed waits until every ledger's equation holds.
func (w *world) closed() {
	w.t.Helper()
	for _, n := range w.nodes {
		var st Stats
		for range 300 {
			if st = n.sw.Stats(); st.Total.Closed() {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if !st.Total.Closed() {
			w.t.Errorf("%s: ledger does not close: %+v", n.host.Name(), st.Total)
		}
		for _, net := range st.Networks {
			if !net.Ledger.Closed() {
				w.t.Errorf("%s: ledger of %s does not close: %+v", n.host.Name(), net.Name, net.Ledger)
			}
		}
	}
}

func dupFile(t *testing.T, f *os.File) *os.File {
	t.Helper()
	fd, err := tun.Duplicate(f)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// delivered waits until a node has written exactly n packets to its sandboxes.
func (n *node) delivered(want uint64) {
	n.w.t.Helper()
	var st Stats
	for range 200 {
		if st = n.sw.Stats(); st.Total.PortOut.Packets >= want {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if got := st.Total.PortOut.Packets; got != want {
		n.w.t.Fatalf("%s: %d packets delivered, want %d; drops: %v", n.host.Name(), got, want, st.Total.Drops)
	}
}

// descriptors counts the open files of this process.
func descriptors(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}

package dataplane_test

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/ovnd/ovnd/bench/lab"
	"github.com/ovnd/ovnd/dataplane"
	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/encap"
)

const redVNI, blueVNI = 5001, 5002

// forbidden is in every packet that must not arrive anywhere.
const forbidden = "must not arrive"

// Inner addresses of the tasks on nodes 1 and 2, and of the rogue, which is a
// VTEP of red alone.
var (
	red   = [3]netip.Addr{1: netip.MustParseAddr("10.1.0.1"), 2: netip.MustParseAddr("10.1.0.2")}
	blue  = [3]netip.Addr{1: netip.MustParseAddr("10.2.0.1"), 2: netip.MustParseAddr("10.2.0.2")}
	rogue = netip.MustParseAddr("10.1.0.9")
)

// A twin is two nodes that are both on two networks, red and blue, with a task
// on each, a rogue that red knows as a VTEP, and a stranger that nobody knows.
type twin struct {
	t         *testing.T
	sw        [3]*dataplane.Switch // by node
	tasks     map[string]*lab.Host // red1, red2, blue1, blue2
	wires     map[string]*lab.Wire // of their devices
	underlay  *lab.Wire            // of node 2
	senders   map[string]*net.UDPConn
	red, blue *directory.Snapshot
}

func newTwin(t *testing.T) *twin {
	t.Helper()
	l, hosts := star(t, "node1", "node2", "rogue", "stranger")
	w := &twin{
		t: t, tasks: map[string]*lab.Host{}, wires: map[string]*lab.Wire{}, senders: map[string]*net.UDPConn{},
		red: network("red", redVNI, false, subnet("10.1.0.0/24"),
			endpoint(red[1], under4(1)), endpoint(red[2], under4(2)), endpoint(rogue, under4(3))),
		blue: network("blue", blueVNI, false, subnet("10.2.0.0/24"),
			endpoint(blue[1], under4(1)), endpoint(blue[2], under4(2))),
	}
	w.underlay = hosts[1].Wire("eth0")
	for node := 1; node <= 2; node++ {
		w.sw[node] = startSwitch(t, hosts[node-1], under4(node))
		for name, net := range map[string]*directory.Snapshot{"red": w.red, "blue": w.blue} {
			addr := red[node]
			if name == "blue" {
				addr = blue[node]
			}
			w.sw[node].SetNetwork(net)
			host := l.Host(name + string(rune('0'+node)))
			plug(t, w.sw[node], host, "eth0", net, addr)
			host.Route("0.0.0.0/0", "eth0", netip.Addr{})
			w.tasks[host.Name()], w.wires[host.Name()] = host, host.Wire("eth0")
		}
	}
	for _, h := range hosts[2:] {
		w.sender(h)
	}
	return w
}

// sender opens a socket that sends VXLAN from the host.
func (w *twin) sender(h *lab.Host) {
	w.t.Helper()
	err := h.Do(func() error {
		conn, err := net.ListenUDP("udp", &net.UDPAddr{Port: 50000})
		w.senders[h.Name()] = conn
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { w.senders[h.Name()].Close() })
}

// inject sends a frame to node 1 from the rogue or the stranger.
func (w *twin) inject(from string, f frame) {
	w.t.Helper()
	to := netip.AddrPortFrom(under4(1), encap.VXLANPort)
	if _, err := w.senders[from].WriteToUDPAddrPort(f.marshal(), to); err != nil {
		w.t.Fatal(err)
	}
}

// counted waits until node 1 has dropped packets for the reason, counted from
// before.
func (w *twin) counted(name, reason string, before map[string]uint64, packets uint64) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 5*time.Second)
	defer cancel()
	for {
		now := drops(w.sw[1])
		if now[reason] == before[reason]+packets {
			break
		}
		if ctx.Err() != nil {
			w.t.Errorf("%s: %d packets counted as %s, want %d; all drops before %v, now %v",
				name, now[reason]-before[reason], reason, packets, before, now)
			return
		}
		time.Sleep(time.Millisecond)
	}
}

// Frames that a VTEP must not send are dropped, each under its reason, and
// nothing of them arrives anywhere.
func TestIsolationFromTheWire(t *testing.T) {
	w := newTwin(t)
	w.reach()
	for _, c := range []struct {
		name, from, reason string
		frame              frame
	}{
		{"spoofed VTEP", "stranger", "unknown_vtep", frame{vni: redVNI, from: rogue, to: red[1]}},
		{"spoofed VTEP and a task's address", "stranger", "unknown_vtep", frame{vni: redVNI, from: red[2], to: red[1]}},
		{"VTEP of the other network", "rogue", "unknown_vtep", frame{vni: blueVNI, from: blue[2], to: blue[1]}},
		{"wrong VNI", "rogue", "unknown_vni", frame{vni: redVNI + 100, from: rogue, to: red[1]}},
		{"address of the other network", "rogue", "no_route", frame{vni: redVNI, from: rogue, to: blue[1]}},
		{"from an address of the other network", "rogue", "foreign_source", frame{vni: redVNI, from: blue[2], to: red[1]}},
		{"from another node's task", "rogue", "stolen_source", frame{vni: redVNI, from: red[2], to: red[1]}},
		{"from the receiver itself", "rogue", "stolen_source", frame{vni: redVNI, from: red[1], to: red[1]}},
		{"to another node's task", "rogue", "split_horizon", frame{vni: redVNI, from: rogue, to: red[2]}},
		{"to nobody", "rogue", "no_endpoint", frame{vni: redVNI, from: rogue, to: netip.MustParseAddr("10.1.0.77")}},
		{"to everybody", "rogue", "multicast", frame{vni: redVNI, from: rogue, to: netip.MustParseAddr("10.1.0.255")}},
		{"reserved bits", "rogue", "reserved_bits", frame{vni: redVNI, header: 1, from: rogue, to: red[1]}},
		{"without a VNI", "rogue", "bad_vxlan", frame{vni: redVNI, header: 1 << 59, from: rogue, to: red[1]}},
		{"VLAN tag", "rogue", "vlan", frame{vni: redVNI, tags: []byte{0x81, 0, 0, 7}, from: rogue, to: red[1]}},
		{"wrong MAC", "rogue", "wrong_mac", frame{vni: redVNI, dst: encap.EndpointMAC(blue[1]), from: rogue, to: red[1]}},
		{"MPLS", "rogue", "ethertype", frame{vni: redVNI, tags: []byte{0x88, 0x47}, from: rogue, to: red[1]}},
	} {
		const copies = 3
		before := drops(w.sw[1])
		for range copies {
			c.frame.payload = []byte(forbidden)
			w.inject(c.from, c.frame)
		}
		w.counted(c.name, c.reason, before, copies)
	}
	w.nothingArrived()
	closes(t, w.sw[1])
	closes(t, w.sw[2])
}

// A task reaches nothing beyond its own network, whatever it writes into its
// packets.
func TestIsolationFromTasks(t *testing.T) {
	w := newTwin(t)
	w.reach()
	for _, c := range []struct {
		name, reason string
		from, to     netip.Addr
	}{
		{"to the other network on this node", "no_route", red[1], blue[1]},
		{"to the other network on another node", "no_route", red[1], blue[2]},
		{"to the underlay", "no_route", red[1], under4(2)},
		{"to nobody", "no_endpoint", red[1], netip.MustParseAddr("10.1.0.77")},
		{"from another task's address", "spoofed_source", red[2], rogue},
		{"from the other network's address", "spoofed_source", blue[2], rogue},
		{"from the other network's address, to it", "spoofed_source", blue[2], blue[1]},
	} {
		before := drops(w.sw[1])
		f := frame{from: c.from, to: c.to, payload: []byte(forbidden)}
		if err := w.wires["red1"].Send(f.packet()); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		w.counted(c.name, c.reason, before, 1)
	}
	w.nothingArrived()
	closes(t, w.sw[1])
	closes(t, w.sw[2])
}

// Two networks may have the same addresses: each task reaches its own namesake.
func TestIsolationOfEqualAddresses(t *testing.T) {
	l, hosts := star(t, "node1", "node2")
	var tasks [3][2]*lab.Host
	snaps := [2]*directory.Snapshot{}
	for i, vni := range []encap.VNI{redVNI, blueVNI} {
		snaps[i] = network("net"+string(rune('0'+i)), vni, false, subnet("10.1.0.0/24"),
			endpoint(red[1], under4(1)), endpoint(red[2], under4(2)))
	}
	for node := 1; node <= 2; node++ {
		sw := startSwitch(t, hosts[node-1], under4(node))
		for i, snap := range snaps {
			tasks[node][i] = l.Host(snap.Name + string(rune('0'+node)))
			sw.SetNetwork(snap)
			plug(t, sw, tasks[node][i], "eth0", snap, red[node])
		}
	}
	for i := range snaps {
		own, other := tasks[2][i].Wire("eth0"), tasks[2][1-i].Wire("eth0")
		ctx := limited(t)
		if err := tasks[1][i].Ping(ctx, red[2], lab.Ping{Size: 100 + i}); err != nil {
			t.Fatal(err)
		}
		echo := func(f lab.Frame) bool { return len(f.Data) == 100+i && f.Data[9] == 1 }
		if _, err := own.Find(ctx, echo); err != nil {
			t.Errorf("network %d: %v", i, err)
		}
		short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if f, err := other.Find(short, echo); err == nil {
			t.Errorf("network %d: the other network saw %x", i, f.Data)
		}
		cancel()
		transfer(t, tasks[1][i], tasks[2][i], red[2], 1<<20)
	}
}

// reach checks that each network works between the nodes.
func (w *twin) reach() {
	w.t.Helper()
	ctx := limited(w.t)
	for task, dst := range map[string]netip.Addr{"red1": red[2], "red2": red[1], "blue1": blue[2], "blue2": blue[1]} {
		if err := w.tasks[task].Ping(ctx, dst, lab.Ping{}); err != nil {
			w.t.Fatalf("%v\n%s", err, pretty(w.sw[1].Stats()))
		}
	}
}

// nothingArrived sends a good packet to every task and looks at all that each
// device has carried up to it, and at the underlay.
func (w *twin) nothingArrived() {
	w.t.Helper()
	w.reach()
	for task, wire := range w.wires {
		w.clean(task, wire, strings.HasPrefix(task, "red1"))
	}
	w.clean("the underlay", w.underlay, false)
}

// clean drains the wire and fails if a forbidden packet came in there. The task
// that sent it has seen it go out.
func (w *twin) clean(name string, wire *lab.Wire, sender bool) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 100*time.Millisecond)
	defer cancel()
	for {
		f, err := wire.Next(ctx)
		if err != nil {
			return
		}
		if strings.Contains(string(f.Data), forbidden) && (!sender || !f.Outgoing) {
			w.t.Errorf("%s saw %x", name, f.Data)
		}
	}
}

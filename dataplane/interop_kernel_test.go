package dataplane_test

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"github.com/ovnd/ovnd/bench/lab"
	"github.com/ovnd/ovnd/dataplane"
	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/encap"
)

const kernelVNI = 0x123456

// Inner addresses: of the kernel's VXLAN device, of ovnd's port, and of a machine
// on a bridge behind the kernel's device.
var (
	innerKernel = netip.MustParseAddr("10.0.0.2")
	innerOvnd   = netip.MustParseAddr("10.0.0.3")
	innerBehind = netip.MustParseAddr("10.0.0.4")
)

var everyone = make(net.HardwareAddr, 6) // the FDB's default entry

// kernelPeer is a kernel VXLAN device on one host and a switch on another whose
// port is on a third.
type kernelPeer struct {
	kernel, task *lab.Host
	sw           *dataplane.Switch
	snap         *directory.Snapshot
	mtu          int
}

// A peering says how the two find each other.
type peering struct {
	name  string
	v6    bool
	arp   bool // the kernel asks by ARP rather than have static entries
	learn bool // ovnd learns rather than have the address fixed
}

func newKernelPeer(t *testing.T, p peering) *kernelPeer {
	t.Helper()
	l, hosts := star(t, "kernel", "node")
	kernelVTEP, nodeVTEP := under(1, p.v6), under(2, p.v6)
	k := &kernelPeer{kernel: hosts[0], task: l.Host("task"), mtu: encap.InnerMTU(1500, p.v6)}

	mac, peer := encap.EndpointMAC(innerKernel), encap.EndpointMAC(innerOvnd)
	k.kernel.VXLAN(lab.VXLAN{
		Name: "vx0", VNI: kernelVNI, Local: kernelVTEP, MTU: k.mtu, MAC: mac[:],
		Addrs: []string{innerKernel.String() + "/24"}, Learning: p.arp,
	})
	if p.arp {
		k.kernel.FDB("vx0", everyone, nodeVTEP)
	} else {
		k.kernel.FDB("vx0", peer[:], nodeVTEP)
		k.kernel.Neigh("vx0", innerOvnd, peer[:])
	}

	vtep := directory.StaticVTEP{Name: "kernel", VTEP: kernelVTEP, Learn: p.learn}
	if !p.learn {
		vtep.Addr, vtep.MAC = innerKernel, mac
	}
	k.snap = network("net", kernelVNI, p.v6, endpoint(innerOvnd, nodeVTEP), static(vtep))
	k.sw = startSwitch(t, hosts[1], nodeVTEP)
	k.sw.SetNetwork(k.snap)
	plug(t, k.sw, k.task, "eth0", k.snap, innerOvnd)
	return k
}

// A kernel VXLAN device is a full peer: ping of every size up to the MTU and TCP
// both ways, however the two find each other.
func TestKernelPeer(t *testing.T) {
	for _, p := range []peering{
		{name: "static"},
		{name: "static, IPv6 underlay", v6: true},
		{name: "kernel asks by ARP", arp: true},
		{name: "both learn", arp: true, learn: true},
		{name: "both learn, IPv6 underlay", v6: true, arp: true, learn: true},
		{name: "ovnd learns from a static kernel", learn: true},
	} {
		t.Run(p.name, func(t *testing.T) {
			k := newKernelPeer(t, p)
			ctx := limited(t)
			// In half of the cases the kernel speaks first, in half ovnd.
			first, second := k.kernel, k.task
			addrs := []netip.Addr{innerOvnd, innerKernel}
			if p.v6 || p.learn && !p.arp {
				first, second, addrs = second, first, []netip.Addr{innerKernel, innerOvnd}
			}
			for i, h := range []*lab.Host{first, second} {
				if err := h.Ping(ctx, addrs[i], lab.Ping{Size: k.mtu, DF: true}); err != nil {
					t.Fatalf("%v\n%s", err, pretty(k.sw.Stats()))
				}
				if err := h.Ping(ctx, addrs[i], lab.Ping{Size: k.mtu + 1, DF: true}); !errors.Is(err, syscall.EMSGSIZE) {
					t.Errorf("ping of %d bytes: %v, want EMSGSIZE", k.mtu+1, err)
				}
				if err := h.Ping(ctx, addrs[i], lab.Ping{Size: 5000}); err != nil {
					t.Errorf("fragments: %v", err)
				}
			}
			transfer(t, k.kernel, k.task, innerOvnd, 4<<20)
			transfer(t, k.task, k.kernel, innerKernel, 4<<20)
			closes(t, k.sw)
		})
	}
}

// Behind a learning VTEP may be a whole Ethernet: addresses are learned one by
// one, and follow a machine that moves to another VTEP.
func TestKernelPeerWithBridge(t *testing.T) {
	l, hosts := star(t, "kernel1", "node", "kernel2")
	nodeVTEP := under4(2)
	snap := network("net", kernelVNI, false, endpoint(innerOvnd, nodeVTEP),
		static(directory.StaticVTEP{Name: "k1", VTEP: under4(1), Learn: true}),
		static(directory.StaticVTEP{Name: "k2", VTEP: under4(3), Learn: true}))
	sw := startSwitch(t, hosts[1], nodeVTEP)
	sw.SetNetwork(snap)
	task := l.Host("task")
	plug(t, sw, task, "eth0", snap, innerOvnd)

	behind := []*lab.Host{l.Host("behind1"), l.Host("behind2")}
	for i, k := range []*lab.Host{hosts[0], hosts[2]} {
		k.VXLAN(lab.VXLAN{Name: "vx0", VNI: kernelVNI, Local: under4(1 + 2*i), MTU: snap.MTU, Learning: true})
		k.FDB("vx0", everyone, nodeVTEP)
		l.Veth(snap.MTU, lab.End{Host: k, Name: "down0"}, lab.End{Host: behind[i], Name: "eth0"})
		k.Bridge("br0", "vx0", "down0")
	}
	hosts[0].Addr("br0", innerKernel.String()+"/24")
	behind[0].Addr("eth0", innerBehind.String()+"/24")

	ctx := limited(t)
	for _, dst := range []netip.Addr{innerKernel, innerBehind} {
		if err := task.Ping(ctx, dst, lab.Ping{}); err != nil {
			t.Fatalf("%v\n%s", err, pretty(sw.Stats()))
		}
	}
	transfer(t, task, behind[0], innerBehind, 1<<20)

	// The machine moves: it has the same address behind the other VTEP, and
	// speaks first, as machines do that come up.
	behind[0].Down("eth0")
	behind[1].Addr("eth0", innerBehind.String()+"/24")
	if err := behind[1].Ping(ctx, innerOvnd, lab.Ping{}); err != nil {
		t.Fatalf("after the move: %v\n%s", err, pretty(sw.Stats()))
	}
	transfer(t, task, behind[1], innerBehind, 1<<20)
}

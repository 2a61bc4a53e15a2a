package lab

import (
	"bytes"
	"net"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// An End is one end of a veth link.
type End struct {
	Host  *Host
	Name  string           // of the interface, such as "eth0"
	Addrs []string         // in CIDR notation, IPv4 or IPv6
	MAC   net.HardwareAddr // nil: the kernel picks one
}

// Veth links two hosts (or a host with itself) by a veth pair of the given MTU,
// both ends up.
func (l *Lab) Veth(mtu int, a, b End) {
	l.tb.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = a.Name, mtu, a.MAC
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerMTU, veth.PeerHardwareAddr = b.Name, uint32(mtu), b.MAC
	veth.PeerNamespace = netlink.NsFd(int(b.Host.ns.Fd()))
	a.Host.add(veth)
	for _, e := range []End{a, b} {
		e.Host.Addr(e.Name, e.Addrs...)
		e.Host.Up(e.Name)
	}
}

// VXLAN configures a kernel VXLAN device. The zero value of a field means what
// it says beside it.
type VXLAN struct {
	Name     string
	VNI      uint32
	Local    netip.Addr // underlay address that frames are sent from
	Remote   netip.Addr // where frames without an FDB entry go; zero: nowhere
	Port     int        // UDP destination port; 0: 4789
	MTU      int        // 0: the kernel's choice, which is the underlay's less the overhead
	MAC      net.HardwareAddr
	Addrs    []string // inner addresses in CIDR notation
	Learning bool     // learn FDB entries from received frames
}

// VXLAN makes a kernel VXLAN device and takes it up.
func (h *Host) VXLAN(v VXLAN) {
	h.tb.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = v.Name, v.MTU, v.MAC
	if v.Port == 0 {
		v.Port = 4789
	}
	dev := &netlink.Vxlan{
		LinkAttrs: attrs,
		VxlanId:   int(v.VNI),
		SrcAddr:   v.Local.AsSlice(),
		Group:     v.Remote.AsSlice(),
		Port:      v.Port,
		Learning:  v.Learning,
	}
	h.add(dev)
	h.Addr(v.Name, v.Addrs...)
	h.Up(v.Name)
}

// Bridge makes a bridge with the given interfaces as ports and takes it up.
func (h *Host) Bridge(name string, ports ...string) {
	h.tb.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	h.add(&netlink.Bridge{LinkAttrs: attrs})
	for _, p := range ports {
		h.must("add "+p+" to "+name, h.nl.LinkSetMaster(h.link(p), h.link(name)))
	}
	h.Up(name)
}

// Addr gives the interface addresses in CIDR notation. IPv6 addresses are
// usable at once: duplicate address detection is off for them.
func (h *Host) Addr(dev string, addrs ...string) {
	h.tb.Helper()
	link := h.link(dev)
	for _, s := range addrs {
		addr, err := netlink.ParseAddr(s)
		h.must("address "+s, err)
		addr.Flags = unix.IFA_F_NODAD
		h.must("add "+s+" to "+dev, h.nl.AddrAdd(link, addr))
	}
}

// Up takes the interfaces up.
func (h *Host) Up(devs ...string) {
	h.tb.Helper()
	for _, dev := range devs {
		h.must("set "+dev+" up", h.nl.LinkSetUp(h.link(dev)))
	}
}

// Down takes the interfaces down.
func (h *Host) Down(devs ...string) {
	h.tb.Helper()
	for _, dev := range devs {
		h.must("set "+dev+" down", h.nl.LinkSetDown(h.link(dev)))
	}
}

// Route adds a route to dst, a prefix, through the interface; via is the
// gateway, or the zero Addr for none.
func (h *Host) Route(dst, dev string, via netip.Addr) {
	h.tb.Helper()
	_, ipnet, err := net.ParseCIDR(dst)
	h.must("route "+dst, err)
	h.must("route "+dst, h.nl.RouteReplace(&netlink.Route{
		LinkIndex: h.link(dev).Attrs().Index, Dst: ipnet, Gw: via.AsSlice(),
	}))
}

// Neigh adds a permanent ARP or ND entry: ip is at mac on the interface.
func (h *Host) Neigh(dev string, ip netip.Addr, mac net.HardwareAddr) {
	h.tb.Helper()
	h.must("neighbour "+ip.String(), h.nl.NeighSet(&netlink.Neigh{
		LinkIndex: h.link(dev).Attrs().Index, State: netlink.NUD_PERMANENT,
		IP: ip.AsSlice(), HardwareAddr: mac,
	}))
}

// FDB adds a permanent entry to a VXLAN device's forwarding table: frames to
// mac go to vtep. Frames to the all-zero MAC, which stands for broadcast and
// unknown addresses, go to every vtep added for it.
func (h *Host) FDB(dev string, mac net.HardwareAddr, vtep netip.Addr) {
	h.tb.Helper()
	set := h.nl.NeighSet
	if bytes.Equal(mac, make([]byte, len(mac))) {
		set = h.nl.NeighAppend // the only kind with several destinations
	}
	h.must("FDB entry "+mac.String(), set(&netlink.Neigh{
		LinkIndex: h.link(dev).Attrs().Index, Family: unix.AF_BRIDGE,
		Flags: netlink.NTF_SELF, State: netlink.NUD_PERMANENT | netlink.NUD_NOARP,
		IP: vtep.AsSlice(), HardwareAddr: mac,
	}))
}

// MAC returns the interface's Ethernet address.
func (h *Host) MAC(dev string) net.HardwareAddr {
	h.tb.Helper()
	return h.link(dev).Attrs().HardwareAddr
}

// Stats returns the interface's counters.
func (h *Host) Stats(dev string) netlink.LinkStatistics {
	h.tb.Helper()
	return *h.link(dev).Attrs().Statistics
}

func (h *Host) add(link netlink.Link) {
	h.tb.Helper()
	h.must("add "+link.Type()+" "+link.Attrs().Name, h.nl.LinkAdd(link))
}

func (h *Host) link(name string) netlink.Link {
	h.tb.Helper()
	link, err := h.nl.LinkByName(name)
	h.must("interface "+name, err)
	return link
}

func (h *Host) must(doing string, err error) {
	h.tb.Helper()
	if err != nil {
		h.tb.Fatalf("lab: %s: %s: %v", h.name, strings.TrimSpace(doing), err)
	}
}

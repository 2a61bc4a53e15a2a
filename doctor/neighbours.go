package doctor

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
)

// neighbours is what else makes networks on this machine.
func (h *host) neighbours(context.Context) []Finding {
	var findings []Finding
	if links, err := netlink.LinkList(); err != nil {
		findings = append(findings, warn("other overlays", "", "interfaces cannot be listed: %v", err))
	} else {
		findings = append(findings, overlays(links))
	}
	if h.cfg.NodePID == 0 { // a swarm has chosen its subnets
		findings = append(findings, h.routes())
	}
	return findings
}

// kinds are devices of other overlays and container engines, by the beginning
// of their names.
var kinds = []struct{ prefix, by string }{
	{"docker_gwbridge", "Docker Swarm"},
	{"docker", "Docker"},
	{"br-", "Docker"},
	{"podman", "Podman"},
	{"cni-podman", "Podman"},
	{"flannel", "flannel"},
	{"cilium", "Cilium"},
	{"cali", "Calico"},
	{"vxlan.calico", "Calico"},
	{"kube-ipvs", "kube-proxy"},
	{"weave", "Weave Net"},
	{"cni", "Kubernetes"},
	{"ovs-system", "Open vSwitch"},
	{"genev_sys", "Open vSwitch"},
	{"tailscale", "Tailscale"},
	{"zt", "ZeroTier"},
	{"nebula", "Nebula"},
	{"wg", "WireGuard"},
}

// linkTypes are kinds of devices, which may have any name, as rtnetlink(7) calls
// them.
var linkTypes = map[string]string{"vxlan": "VXLAN", "geneve": "Geneve", "wireguard": "WireGuard", "openvswitch": "Open vSwitch"}

func overlays(links []netlink.Link) Finding {
	var found []string
	for _, l := range links {
		name, by := l.Attrs().Name, linkTypes[l.Type()]
		for _, k := range kinds {
			if strings.HasPrefix(name, k.prefix) {
				by = joinKinds(k.by, by)
				break
			}
		}
		if v, isVXLAN := l.(*netlink.Vxlan); isVXLAN {
			by += fmt.Sprintf(", port %d/udp", v.Port)
		}
		if by != "" {
			found = append(found, fmt.Sprintf("%s (%s)", name, by))
		}
	}
	if found == nil {
		return ok("other overlays", "none seen")
	}
	slices.Sort(found)
	return ok("other overlays", "%s: they do no harm while they leave the ports above free", strings.Join(found, ", "))
}

func joinKinds(by, kind string) string {
	if kind == "" || kind == by {
		return by
	}
	return by + ", " + kind
}

// vxlanAt returns the kernel's VXLAN device that has a UDP port, empty if none
// has.
func vxlanAt(port uint16) string {
	links, err := netlink.LinkList()
	if err != nil {
		return ""
	}
	for _, l := range links {
		if v, isVXLAN := l.(*netlink.Vxlan); isVXLAN && v.Port == int(port) {
			return v.Name
		}
	}
	return ""
}

// pools are ranges for subnets: the swarm's own choice first, then what may be
// given to it instead (RFC 1918).
var pools = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"),
	netip.MustParsePrefix("172.24.0.0/13"),
	netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("10.128.0.0/9"),
	netip.MustParsePrefix("10.64.0.0/10"),
}

// routes looks for destinations of this machine that a swarm's subnets would
// hide from what runs on them.
func (h *host) routes() Finding {
	var taken []netip.Prefix
	for line := range strings.Lines(h.read("proc/net/route")) {
		if p, valid := parseRoute(line); valid && p.Bits() > 0 {
			taken = append(taken, p)
		}
	}
	overlaps := func(pool netip.Prefix) (in []string) {
		for _, p := range taken {
			if pool.Overlaps(p) {
				in = append(in, p.String())
			}
		}
		return in
	}
	hidden := overlaps(pools[0])
	if hidden == nil {
		return ok("address pool", "no route of this machine is in %s, where swarms take their subnets", pools[0])
	}
	remedy := "give a new swarm a range that is free in your network: ovnd up --default-addr-pool RANGE"
	for _, pool := range pools[1:] {
		if overlaps(pool) == nil {
			remedy = fmt.Sprintf("give a new swarm another range: ovnd up --default-addr-pool %s", pool)
			break
		}
	}
	slices.Sort(hidden)
	return warn("address pool", remedy, "this machine has routes in %s, where swarms take their subnets: %s. Services may not reach what is there",
		pools[0], strings.Join(slices.Compact(hidden), ", "))
}

// parseRoute reads the destination of a line of /proc/net/route; the table's
// heading is none.
func parseRoute(line string) (netip.Prefix, bool) {
	f := strings.Fields(line)
	if len(f) < 8 {
		return netip.Prefix{}, false
	}
	dest, err1 := strconv.ParseUint(f[1], 16, 32)
	mask, err2 := strconv.ParseUint(f[7], 16, 32)
	if err1 != nil || err2 != nil {
		return netip.Prefix{}, false
	}
	var addr, bits [4]byte
	binary.NativeEndian.PutUint32(addr[:], uint32(dest))
	binary.NativeEndian.PutUint32(bits[:], uint32(mask))
	ones, size := net.IPMask(bits[:]).Size()
	if size == 0 {
		return netip.Prefix{}, false // not contiguous
	}
	return netip.PrefixFrom(netip.AddrFrom4(addr), ones).Masked(), true
}

package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/ovnd/ovnd/dataplane/tun"
)

// setupNetwork makes the interfaces of s in this process's network namespace
// and returns their queues in order.
func setupNetwork(s *Spec) ([]*os.File, error) {
	if err := networkSysctls(procSys); err != nil {
		return nil, err
	}
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return nil, fmt.Errorf("find lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return nil, fmt.Errorf("set lo up: %w", err)
	}
	var queues []*os.File
	for i := range s.Interfaces {
		in := &s.Interfaces[i]
		q, err := in.create()
		if err != nil {
			return nil, fmt.Errorf("interface %s of network %s: %w", in.Name, in.NetworkName, err)
		}
		queues = append(queues, q...)
	}
	return queues, nil
}

// networkSysctls gives the command what it would need capabilities for: ports
// below 1024 and ICMP echo sockets.
func networkSysctls(sys string) error {
	// One gid is mapped; a range that reaches beyond is refused.
	gid := strconv.Itoa(unix.Getegid())
	for _, s := range []struct{ name, value string }{
		{"net/ipv4/ip_unprivileged_port_start", "0"},
		{"net/ipv4/ping_group_range", gid + " " + gid},
	} {
		err := os.WriteFile(filepath.Join(sys, s.name), []byte(s.value), 0)
		// Containers may have /proc/sys read-only; the sandbox is useful without.
		if err != nil && !errors.Is(err, unix.EROFS) && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("set sysctl: %w", err)
		}
	}
	return nil
}

func (in *Interface) create() ([]*os.File, error) {
	// The watcher ends with this stage.
	queues, _, err := tun.Create(in.Name, in.MTU, in.Queues)
	if err != nil {
		return nil, err
	}
	if err := in.ipv6Sysctls(procSys); err != nil {
		return nil, err
	}
	link, err := netlink.LinkByName(in.Name)
	if err != nil {
		return nil, fmt.Errorf("find the device: %w", err)
	}
	for _, p := range in.Addrs {
		// Nobody else has the address: the swarm's allocator gave it.
		addr := &netlink.Addr{IPNet: ipNet(p), Flags: unix.IFA_F_NODAD}
		if err := netlink.AddrAdd(link, addr); err != nil {
			return nil, fmt.Errorf("add address %s: %w", p, err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return nil, fmt.Errorf("set up: %w", err)
	}
	for _, p := range in.Routes {
		r := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(p.Masked()), Scope: netlink.SCOPE_LINK}
		if err := netlink.RouteAdd(r); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, fmt.Errorf("add route %s: %w", p, err)
		}
	}
	return queues, in.defaultRoute(link)
}

func (in *Interface) defaultRoute(link netlink.Link) error {
	if !in.Gateway.IsValid() {
		return nil
	}
	r := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: in.Gateway.AsSlice()}
	if err := netlink.RouteAdd(r); err != nil {
		return fmt.Errorf("add default route by %s: %w", in.Gateway, err)
	}
	return nil
}

// ipv6Sysctls keeps the kernel's own IPv6 packets off the overlay: without an
// IPv6 address there is no IPv6, as Docker has it, and with one neither
// duplicate address detection nor router solicitation, which only delay.
func (in *Interface) ipv6Sysctls(sys string) error {
	set := map[string]string{"disable_ipv6": "1"}
	if in.hasIPv6() {
		set = map[string]string{"disable_ipv6": "0", "accept_dad": "0", "accept_ra": "0", "addr_gen_mode": "1"}
	}
	for name, value := range set {
		path := filepath.Join(sys, "net/ipv6/conf", in.Name, name)
		err := os.WriteFile(path, []byte(value), 0)
		if errors.Is(err, fs.ErrNotExist) && !in.hasIPv6() {
			return nil // a kernel without IPv6
		}
		if err != nil && !errors.Is(err, unix.EROFS) {
			return fmt.Errorf("set sysctl: %w", err)
		}
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

package netstack

import (
	"maps"
	"net/netip"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/tcpip/header"

	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/encap"
)

// A vipTable is which VIPs the stack has. [Balancer.updating] guards it, but for
// ready.
type vipTable struct {
	// owned are the addresses that the stack has, the own one apart. The value
	// is false when the network has it no longer: such an address stays while
	// connections use it.
	owned map[netip.Addr]bool
	// ready tells of each owned one whether a backend is ready. It is replaced
	// as a whole.
	ready atomic.Pointer[map[netip.Addr]bool]
}

func (t *vipTable) init() {
	t.owned = make(map[netip.Addr]bool)
	t.ready.Store(&map[netip.Addr]bool{})
}

// ignores reports whether b is a packet that nobody answers: an echo request for
// a VIP that no backend stands behind.
func (t *vipTable) ignores(b []byte) bool {
	const protocolAt4, nextAt6 = 9, 6 // bytes into the header
	switch {
	case len(b) <= protocolAt4:
		return false
	case b[0]>>4 == 4 && b[protocolAt4] != encap.ProtocolICMP, b[0]>>4 == 6 && b[nextAt6] != encap.ProtocolICMPv6:
		return false // most packets
	}
	ip, err := encap.ParseIP(b)
	if err != nil || len(ip.Payload()) == 0 || ip.FragmentOffset != 0 {
		return false
	}
	kind := ip.Payload()[0]
	if ip.Is6() && kind != uint8(header.ICMPv6EchoRequest) || !ip.Is6() && kind != uint8(header.ICMPv4Echo) {
		return false
	}
	ready, isVIP := (*t.ready.Load())[ip.Dst()]
	return isVIP && !ready
}

// updateVIPs gives the stack the addresses that it lacks, and notes those that
// the network has no longer.
func (b *Balancer) updateVIPs(snap *directory.Snapshot) {
	for vip := range b.vips.owned {
		_, stays := snap.VIPs.Get(vip)
		b.vips.owned[vip] = stays
		if _, taken := snap.Endpoints.Get(vip); taken && !stays {
			b.conns.resetVIP(vip) // the address is somebody else's now
		}
	}
	for vip := range snap.VIPs.All() {
		if _, has := b.vips.owned[vip]; has || vip == b.cfg.Addr.Addr() {
			continue
		}
		if err := addAddr(b.stack, vip, false); err != nil {
			b.log.Error("VIP cannot be served", "vip", vip, "err", err)
			continue
		}
		b.vips.owned[vip] = true
	}
	b.removeUnused()
	ready := maps.Clone(b.vips.owned)
	for vip := range ready {
		ready[vip] = b.turns.byVIP(vip).isReady()
	}
	b.vips.ready.Store(&ready)
}

// removeVIPs takes from the stack the addresses that neither the network nor a
// connection has any more.
func (b *Balancer) removeVIPs() {
	b.updating.Lock()
	defer b.updating.Unlock()
	b.removeUnused()
}

func (b *Balancer) removeUnused() {
	for vip, stays := range b.vips.owned {
		if stays || b.conns.uses(vip) {
			continue
		}
		if err := b.stack.RemoveAddress(nic, toAddr(vip)); err != nil {
			b.log.Error("VIP cannot be given up", "vip", vip, "err", toError(err))
		}
		delete(b.vips.owned, vip)
	}
}

package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"

	"github.com/ovnd/ovnd/dataplane"
	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/encap"
	"github.com/ovnd/ovnd/netstack"
	"github.com/ovnd/ovnd/sandbox"
)

// The gateway bridge is how sandboxes reach the world outside: Docker's
// docker_gwbridge, but a network of this node's own that no packet leaves as it
// is. Sandboxes on it reach its gateway alone, which dials from the host.
const (
	bridgeID  = "docker_gwbridge"
	bridgeMTU = 1500
)

// bridgePools are the subnets that the bridge may have, as Docker's default
// pools: the first that the host does not use itself.
func bridgePools() []netip.Prefix {
	var pools []netip.Prefix
	for second := byte(18); second < 32; second++ {
		pools = append(pools, netip.PrefixFrom(netip.AddrFrom4([4]byte{172, second, 0, 0}), 16))
	}
	return pools
}

// chooseBridge returns the bridge's subnet. It stays the same while the state
// folder lives, since sandboxes outlive the node.
func chooseBridge(file string) (netip.Prefix, error) {
	var chosen netip.Prefix
	if err := loadJSON(file, &chosen); err == nil && chosen.IsValid() {
		return chosen, nil
	}
	used, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("gateway bridge: addresses of this machine: %w", err)
	}
	pools := bridgePools()
	chosen = pools[0] // if the host has them all, as good as any
	for _, p := range pools {
		if !overlapsAny(p, used) {
			chosen = p
			break
		}
	}
	return chosen, saveJSON(file, chosen)
}

func overlapsAny(p netip.Prefix, addrs []net.Addr) bool {
	for _, a := range addrs {
		if other, err := netip.ParsePrefix(a.String()); err == nil && p.Overlaps(other) {
			return true
		}
	}
	return false
}

// A bridge is the gateway bridge of this node.
type bridge struct {
	*netstack.Egress
	subnet netip.Prefix
	wire   stackWire
}

func newBridge(log *slog.Logger, sw *dataplane.Switch, store *directory.Store, subnet netip.Prefix, hostLoopback bool) (*bridge, error) {
	b := &bridge{subnet: subnet}
	var err error
	b.Egress, err = netstack.NewEgress(netstack.EgressConfig{
		Gateway: netip.PrefixFrom(b.gateway(), subnet.Bits()), MTU: bridgeMTU, Send: b.wire.send,
		HostLoopback: hostLoopback, VXLANPort: sw.UnderlayAddr().Port(), Log: log,
		Refuse: func(a netip.Addr) bool { return inOverlay(store, a) },
	})
	if err != nil {
		return nil, fmt.Errorf("gateway bridge: %w", err)
	}
	sw.SetNetwork(&directory.Snapshot{
		ID: bridgeID, Name: bridgeID, MTU: bridgeMTU,
		Subnets: []directory.Subnet{{Prefix: subnet, Gateway: b.gateway()}},
	})
	return b, b.wire.connect(sw, dataplane.StackPortConfig{
		NetworkID: bridgeID, EndpointID: bridgeID, Name: "gateway", MAC: encap.EndpointMAC(b.gateway()),
		Addrs: []netip.Addr{b.gateway()}, Hub: true, MTU: bridgeMTU, Deliver: b.Deliver,
	})
}

// inOverlay reports whether a belongs to an overlay network: the host must not
// be asked for it, whatever is there.
func inOverlay(store *directory.Store, a netip.Addr) bool {
	for _, snap := range store.Networks() {
		if snap.Contains(a) {
			return true
		}
	}
	return false
}

func (b *bridge) gateway() netip.Addr { return b.subnet.Addr().Next() }

// run serves until ctx ends.
func (b *bridge) run(ctx context.Context) error {
	return errors.Join(b.Run(ctx), b.wire.close())
}

// address returns an address of the bridge that none of taken has.
func (b *bridge) address(taken map[netip.Addr]bool) (netip.Addr, error) {
	for a := b.gateway().Next(); b.subnet.Contains(a); a = a.Next() {
		if !taken[a] {
			return a, nil
		}
	}
	return netip.Addr{}, fmt.Errorf("gateway bridge: no address left in %s", b.subnet)
}

// connect makes the interface that a sandbox with the address addr has on the
// bridge.
func (b *bridge) connect(name string, addr netip.Addr, queues int) sandbox.Interface {
	return sandbox.Interface{
		Name: name, NetworkID: bridgeID, NetworkName: bridgeID, EndpointID: randomID(),
		Addrs: []netip.Prefix{netip.PrefixFrom(addr, b.subnet.Bits())}, MAC: encap.EndpointMAC(addr),
		MTU: bridgeMTU, Queues: queues, Gateway: b.gateway(),
	}
}

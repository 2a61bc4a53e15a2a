package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/ovnd/ovnd/dataplane"
	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/encap"
	"github.com/ovnd/ovnd/netstack"
)

// stackPatience is how long a network stack may take to end.
const stackPatience = 3 * time.Second

// A stackWire is the way from a network stack to the switch. The stack exists
// before its port does; what it sends until then is dropped.
type stackWire struct {
	port atomic.Pointer[dataplane.StackPort]
}

func (w *stackWire) send(frames [][]byte) {
	if p := w.port.Load(); p != nil {
		p.Inject(frames)
	}
}

// connect gives the stack its port of the switch.
func (w *stackWire) connect(sw *dataplane.Switch, cfg dataplane.StackPortConfig) error {
	p, err := sw.AddStackPort(cfg)
	if err != nil {
		return err
	}
	w.port.Store(p)
	return nil
}

func (w *stackWire) close() error {
	if p := w.port.Swap(nil); p != nil {
		return p.Close()
	}
	return nil
}

// A balancer is this node's lb-<network> endpoint: the VIPs of one network.
// On the ingress network it also serves the published ports.
type balancer struct {
	*netstack.Balancer
	wire    stackWire
	stage   *stage
	ingress *netstack.Ingress // nil but on the ingress network
	ports   *stage            // of ingress
}

// startBalancer puts a balancer with the endpoint lb on the network of snap.
func startBalancer(log *slog.Logger, sw *dataplane.Switch, snap *directory.Snapshot, lb *directory.Endpoint, addr netip.Prefix) (*balancer, error) {
	b := &balancer{}
	var err error
	b.Balancer, err = netstack.NewBalancer(netstack.BalancerConfig{
		Name: snap.Name, Addr: addr, MTU: snap.MTU, Send: b.wire.send, Log: log,
	})
	if err != nil {
		return nil, fmt.Errorf("balancer of network %s: %w", snap.Name, err)
	}
	b.stage = startStage(context.Background(), "balancer of "+snap.Name, b.Run)
	err = b.wire.connect(sw, dataplane.StackPortConfig{
		NetworkID: snap.ID, EndpointID: lb.ID, Name: lb.Name, MAC: encap.EndpointMAC(addr.Addr()),
		Addrs: []netip.Addr{addr.Addr()}, VIPs: true, Balancer: b, MTU: snap.MTU, Deliver: b.Deliver,
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("balancer of network %s: %w", snap.Name, err), b.stage.stop(stackPatience))
	}
	b.Update(snap)
	return b, nil
}

// publishPorts makes b serve the published ports of the swarm at addrs.
func (b *balancer) publishPorts(log *slog.Logger, addrs []netip.Addr, hostname string, snap *directory.Snapshot) {
	b.ingress = netstack.NewIngress(netstack.IngressConfig{Addrs: addrs, Balancer: b.Balancer, Node: hostname, Log: log})
	b.ports = startStage(context.Background(), "published ports", b.ingress.Run)
	b.ingress.Update(snap)
}

// update passes on a version of the network.
func (b *balancer) update(snap *directory.Snapshot) {
	b.Update(snap)
	if b.ingress != nil {
		b.ingress.Update(snap)
	}
}

func (b *balancer) stop() error {
	var errs []error
	if b.ports != nil {
		errs = append(errs, b.ports.stop(stackPatience))
	}
	// Its last packets, resets, still leave by the switch.
	errs = append(errs, b.stage.stop(stackPatience), b.wire.close())
	return errors.Join(errs...)
}

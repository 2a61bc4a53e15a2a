package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"

	"github.com/ovnd/ovnd/dataplane"
	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/encap"
	"github.com/ovnd/ovnd/netstack"
)

// A portTarget says where on this machine what comes to an endpoint's port goes.
type portTarget func(p directory.Protocol, port uint16) (netip.AddrPort, bool)

// A stackHost is an endpoint without a device: a network stack of this process
// at a port of the switch.
type stackHost struct {
	*netstack.Host
	wire  stackWire
	stage *stage
}

// A hostConfig says which endpoint a stackHost is.
type hostConfig struct {
	networkID, endpointID, name string
	addr                        netip.Prefix
	mtu                         int
	target                      portTarget // nil: all ports are closed
	refused                     func(port uint16)
}

func startHost(log *slog.Logger, sw *dataplane.Switch, cfg hostConfig) (*stackHost, error) {
	h := &stackHost{}
	var err error
	h.Host, err = netstack.NewHost(netstack.HostConfig{
		Addr: cfg.addr, MTU: cfg.mtu, Send: h.wire.send, Target: cfg.target, Refused: cfg.refused, Log: log,
	})
	if err != nil {
		return nil, fmt.Errorf("endpoint %s: %w", cfg.name, err)
	}
	h.stage = startStage(context.Background(), "endpoint "+cfg.name, h.Run)
	err = h.wire.connect(sw, dataplane.StackPortConfig{
		NetworkID: cfg.networkID, EndpointID: cfg.endpointID, Name: cfg.name, MAC: encap.EndpointMAC(cfg.addr.Addr()),
		Addrs: []netip.Addr{cfg.addr.Addr()}, MTU: cfg.mtu, Deliver: h.Deliver,
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("endpoint %s: %w", cfg.name, err), h.stage.stop(stackPatience))
	}
	return h, nil
}

// Close implements [io.Closer]: it resets what is connected.
func (h *stackHost) Close() error {
	// The last packets, resets, still leave by the switch.
	return errors.Join(h.stage.stop(stackPatience), h.wire.close())
}

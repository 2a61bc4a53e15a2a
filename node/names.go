package node

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/ovnd/ovnd/discovery/resolver"
)

// openNames serves the names of all networks that this node takes part in at an
// address of the host.
func (n *Node) openNames(ctx context.Context) (*stage, error) {
	addr := n.cfg.DNSAddr
	udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
	if err != nil {
		return nil, fmt.Errorf("--dns %s: %w: choose another address or port", addr, err)
	}
	tcp, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("--dns %s: %w: choose another address or port", addr, err), udp.Close())
	}
	return startStage(ctx, "names", func(ctx context.Context) error {
		return n.names.Serve(ctx, resolver.Scope{All: true}, udp, tcp)
	}), nil
}

package netstack

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
)

const (
	nic = tcpip.NICID(1) // the only one of each stack

	// Buffers of a TCP endpoint, in bytes. They hold what has not been passed
	// on, so one that is idle costs nothing; between default and maximum they
	// grow with what goes through.
	tcpBufferMin     = 4 << 10
	tcpBufferDefault = 256 << 10
	tcpBufferMax     = 4 << 20
	udpBuffer        = 256 << 10

	// A port number is not used again for so long. RFC 9293 has four minutes,
	// which at thousands of connections a second are more than all ports; a
	// peer that still holds the old connection answers the new one's SYN with
	// an ACK, and is reset.
	timeWait = 2 * time.Second
	// synRetries bounds how long a handshake is repeated: 1+2+4+8 s.
	synRetries = 4
)

// newStack returns a stack with both IP versions, TCP, UDP and ICMP on one
// interface, which is link, and a route over it to everywhere. It has
// goroutines until [stack.Stack.Destroy].
func newStack(link stack.LinkEndpoint) (*stack.Stack, error) {
	s := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocolCUBIC, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
	})
	if err := configure(s, link); err != nil {
		s.Destroy()
		return nil, err
	}
	return s, nil
}

func configure(s *stack.Stack, link stack.LinkEndpoint) error {
	sack, moderate := tcpip.TCPSACKEnabled(true), tcpip.TCPModerateReceiveBufferOption(true)
	recovery := tcpip.TCPRecovery(0) // RACK takes reordering for loss
	wait, retries := tcpip.TCPTimeWaitTimeoutOption(timeWait), tcpip.TCPSynRetriesOption(synRetries)
	for _, o := range []tcpip.SettableTransportProtocolOption{
		&sack, &moderate, &recovery, &wait, &retries,
		&tcpip.TCPReceiveBufferSizeRangeOption{Min: tcpBufferMin, Default: tcpBufferDefault, Max: tcpBufferMax},
		&tcpip.TCPSendBufferSizeRangeOption{Min: tcpBufferMin, Default: tcpBufferDefault, Max: tcpBufferMax},
	} {
		if err := s.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			return fmt.Errorf("TCP option %T: %s", o, err)
		}
	}
	for _, o := range []any{
		tcpip.SendBufferSizeOption{Min: tcpBufferMin, Default: udpBuffer, Max: udpBuffer},
		tcpip.ReceiveBufferSizeOption{Min: tcpBufferMin, Default: udpBuffer, Max: udpBuffer},
	} {
		if err := s.SetOption(o); err != nil {
			return fmt.Errorf("option %T: %s", o, err)
		}
	}
	if err := s.CreateNIC(nic, link); err != nil {
		return fmt.Errorf("interface: %s", err)
	}
	s.SetRouteTable([]tcpip.Route{
		{Destination: header.IPv4EmptySubnet, NIC: nic},
		{Destination: header.IPv6EmptySubnet, NIC: nic},
	})
	return nil
}

// addAddr gives the stack an address. Only a primary one is the source of what
// the stack begins itself.
func addAddr(s *stack.Stack, addr netip.Addr, primary bool) error {
	behaviour := stack.NeverPrimaryEndpoint
	if primary {
		behaviour = stack.CanBePrimaryEndpoint
	}
	err := s.AddProtocolAddress(nic, tcpip.ProtocolAddress{
		Protocol:          protocolOf(addr),
		AddressWithPrefix: toAddr(addr).WithPrefix(),
	}, stack.AddressProperties{PEB: behaviour})
	if err != nil {
		return fmt.Errorf("address %s: %s", addr, err)
	}
	return nil
}

// protocolOf returns the network protocol that addr is of.
func protocolOf(addr netip.Addr) tcpip.NetworkProtocolNumber {
	if addr.Is4() {
		return ipv4.ProtocolNumber
	}
	return ipv6.ProtocolNumber
}

// toAddr and fromAddr convert between the two kinds of addresses.
func toAddr(addr netip.Addr) tcpip.Address { return tcpip.AddrFromSlice(addr.AsSlice()) }

func fromAddr(addr tcpip.Address) netip.Addr {
	a, _ := netip.AddrFromSlice(addr.AsSlice())
	return a
}

// toFull returns addr as the address of an endpoint.
func toFull(addr netip.AddrPort) tcpip.FullAddress {
	return tcpip.FullAddress{NIC: nic, Addr: toAddr(addr.Addr()), Port: addr.Port()}
}

// toError returns gVisor's kind of error as Go's.
func toError(err tcpip.Error) error {
	switch err.(type) {
	case nil:
		return nil
	case *tcpip.ErrConnectionRefused:
		return syscall.ECONNREFUSED
	case *tcpip.ErrConnectionReset, *tcpip.ErrConnectionAborted, *tcpip.ErrAborted:
		return syscall.ECONNRESET
	case *tcpip.ErrTimeout:
		return syscall.ETIMEDOUT
	case *tcpip.ErrHostUnreachable:
		return syscall.EHOSTUNREACH
	case *tcpip.ErrNetworkUnreachable:
		return syscall.ENETUNREACH
	}
	return errors.New(err.String())
}

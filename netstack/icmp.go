package netstack

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/ovnd/ovnd/dataplane/pkt"
	"github.com/ovnd/ovnd/encap"
)

// icmpHeaderLen is the size of an echo message without data, in bytes (RFC 792,
// RFC 4443 §4.1).
const icmpHeaderLen = 8

// ICMP errors are limited (RFC 1812 §4.3.2.8), as Linux does: to one each
// errorInterval, and up to errorBurst at once.
const (
	errorInterval = time.Millisecond
	errorBurst    = 50
)

// An errorLimit says whether an ICMP error may be sent. It holds the time at
// which all errors so far were due, in nanoseconds.
type errorLimit struct{ due atomic.Int64 }

func (l *errorLimit) allow() bool {
	for {
		now, was := time.Now().UnixNano(), l.due.Load()
		due := max(was, now) + int64(errorInterval)
		if due-now > errorBurst*int64(errorInterval) {
			return false
		}
		if l.due.CompareAndSwap(was, due) {
			return true
		}
	}
}

// An echoRequest is an echo request of either ICMP.
type echoRequest struct {
	ident, seq uint16
	message    []byte // all of it
}

// parseEcho reads an echo request, of ICMPv6 if is6 is set. message is aliased.
func parseEcho(message []byte, is6 bool) (echoRequest, bool) {
	kind := uint8(header.ICMPv4Echo)
	if is6 {
		kind = uint8(header.ICMPv6EchoRequest)
	}
	if len(message) < icmpHeaderLen || message[0] != kind || message[1] != 0 {
		return echoRequest{}, false
	}
	return echoRequest{
		ident:   binary.BigEndian.Uint16(message[4:]),
		seq:     binary.BigEndian.Uint16(message[6:]),
		message: message,
	}, true
}

// handlePing sees each ICMP message to this stack, whole. It returns false for
// those that the stack itself deals with: errors, and echo requests to the
// gateway.
func (e *Egress) handlePing(id stack.TransportEndpointID, p *stack.PacketBuffer) bool {
	from, to := fromAddr(id.RemoteAddress), fromAddr(id.LocalAddress)
	if to == e.gateway {
		return false
	}
	message := append(p.TransportHeader().View().ToSlice(), p.Data().AsRange().ToSlice()...)
	req, ok := parseEcho(message, to.Is6())
	if !ok {
		return false
	}
	client, far := netip.AddrPortFrom(from, req.ident), netip.AddrPortFrom(to, 0)
	key := egressFlowKey{encap.ProtocolICMP, client, far}
	if to.Is6() {
		key.protocol = encap.ProtocolICMPv6
	}
	f, err := e.flow(key)
	if err == nil {
		if err = f.send(req.message); err == nil {
			e.counters.pings.Add(1)
		}
	} else if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		e.counters.pingsDenied.Add(1)
	}
	e.flowFailed(key, req.seq, err)
	return true
}

// deliverPing takes what a ping socket received to the client: its message with
// the client's identifier in place of the socket's.
func (f *egressFlow) deliverPing(message []byte) {
	if len(message) < icmpHeaderLen {
		return
	}
	p := stack.NewPacketBuffer(stack.PacketBufferOptions{
		ReserveHeaderBytes: int(f.route.MaxHeaderLength()) + icmpHeaderLen,
		Payload:            buffer.MakeWithData(message[icmpHeaderLen:]),
	})
	defer p.DecRef()
	p.TransportProtocolNumber = tcpip.TransportProtocolNumber(f.key.protocol)
	h := p.TransportHeader().Push(icmpHeaderLen)
	copy(h, message)
	binary.BigEndian.PutUint16(h[4:], f.key.client.Port())
	h[2], h[3] = 0, 0
	sum := encap.SumBytes(h).Add(encap.SumBytes(message[icmpHeaderLen:]))
	if f.key.protocol == encap.ProtocolICMPv6 {
		sum = sum.Add(encap.Sum(f.route.PseudoHeaderChecksum(p.TransportProtocolNumber, uint16(len(message)))))
	}
	binary.BigEndian.PutUint16(h[2:], sum.Checksum())
	f.write(p)
}

// unreachableTCP tells a client that its SYN with the sequence number seq did not
// arrive.
func (e *Egress) unreachableTCP(client, to netip.AddrPort, seq uint32, why encap.Unreachable) {
	var head [8]byte
	binary.BigEndian.PutUint16(head[0:], client.Port())
	binary.BigEndian.PutUint16(head[2:], to.Port())
	binary.BigEndian.PutUint32(head[4:], seq)
	e.unreachable(client.Addr(), to.Addr(), encap.ProtocolTCP, head, why)
}

// unreachableUDP is the same for a datagram.
func (e *Egress) unreachableUDP(client, to netip.AddrPort, why encap.Unreachable) {
	var head [8]byte
	binary.BigEndian.PutUint16(head[0:], client.Port())
	binary.BigEndian.PutUint16(head[2:], to.Port())
	binary.BigEndian.PutUint16(head[4:], uint16(len(head)))
	e.unreachable(client.Addr(), to.Addr(), encap.ProtocolUDP, head, why)
}

// unreachablePing is the same for an echo request with the sequence number seq.
func (e *Egress) unreachablePing(client, to netip.AddrPort, seq uint16, why encap.Unreachable) {
	head := [8]byte{uint8(header.ICMPv4Echo)}
	protocol := encap.ProtocolICMP
	if to.Addr().Is6() {
		head[0], protocol = uint8(header.ICMPv6EchoRequest), encap.ProtocolICMPv6
	}
	binary.BigEndian.PutUint16(head[4:], client.Port())
	binary.BigEndian.PutUint16(head[6:], seq)
	e.unreachable(client.Addr(), to.Addr(), protocol, head, why)
}

// unreachable tells client that a packet to an address did not arrive. head are
// the first bytes of its transport header, which are what must be quoted.
func (e *Egress) unreachable(client, to netip.Addr, protocol uint8, head [8]byte, why encap.Unreachable) {
	if !e.errors.allow() {
		return
	}
	var orig [encap.IPv6HeaderLen + len(head)]byte
	var packet []byte
	if to.Is6() {
		const hops = 64
		packet = encap.PutIPv6(orig[:], client, to, protocol, hops, len(head))
	} else {
		packet = encap.PutIPv4(orig[:], client, to, protocol, len(head))
	}
	copy(packet[len(packet)-len(head):], head[:])
	ip, err := encap.ParseIP(packet)
	if err != nil {
		return // it was made here: it cannot be
	}
	from := e.gateway
	if why == encap.PortUnreachable || from.Is6() != to.Is6() {
		from = to
	}
	frame := make([]byte, pkt.MetaLen+encap.IPv6HeaderLen+icmpHeaderLen+len(packet))
	pkt.Meta{}.Put(frame)
	if n := encap.PutUnreachable(frame[pkt.MetaLen:], ip, why, from); n > 0 {
		e.cfg.Send([][]byte{frame[:pkt.MetaLen+n]})
	}
}

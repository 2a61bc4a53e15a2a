package netstack

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"github.com/ovnd/ovnd/dataplane/pkt"
	"github.com/ovnd/ovnd/encap"
)

// A host is a plain gVisor stack behind a link.
type host struct {
	*stack.Stack
	link *Link
	addr netip.Addr
}

// newHost makes a host with one address and a route to everywhere.
func newHost(t *testing.T, addr string, mtu int, send func([][]byte)) *host {
	t.Helper()
	h := &host{link: NewLink(mtu, send), addr: netip.MustParseAddr(addr)}
	h.Stack = stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
	})
	sack := tcpip.TCPSACKEnabled(true)
	h.SetTransportProtocolOption(tcp.ProtocolNumber, &sack)
	if err := h.CreateNIC(1, h.link); err != nil {
		t.Fatal(err)
	}
	protocol, subnet := ipv4.ProtocolNumber, header.IPv4EmptySubnet
	if h.addr.Is6() {
		protocol, subnet = ipv6.ProtocolNumber, header.IPv6EmptySubnet
	}
	if err := h.AddProtocolAddress(1, tcpip.ProtocolAddress{
		Protocol:          protocol,
		AddressWithPrefix: tcpip.AddrFromSlice(h.addr.AsSlice()).WithPrefix(),
	}, stack.AddressProperties{}); err != nil {
		t.Fatal(err)
	}
	h.SetRouteTable([]tcpip.Route{{Destination: subnet, NIC: 1}})
	t.Cleanup(func() {
		h.Destroy()
	})
	return h
}

func (h *host) protocol() tcpip.NetworkProtocolNumber {
	if h.addr.Is6() {
		return ipv6.ProtocolNumber
	}
	return ipv4.ProtocolNumber
}

func (h *host) full(port uint16) tcpip.FullAddress {
	return tcpip.FullAddress{Addr: tcpip.AddrFromSlice(h.addr.AsSlice()), Port: port}
}

// A cable joins two hosts.
type cable struct {
	a, b   *host
	supers atomic.Int64 // frames that stood for more than one wire packet
	batch  atomic.Int64 // the most frames in one send
	bad    atomic.Int64 // wire packets with a wrong checksum
}

// connect makes two hosts. If split is set, what travels is what would be on a
// wire: single packets without metadata.
func connect(t *testing.T, mtu int, split bool, addrA, addrB string) *cable {
	c := &cable{}
	c.a = newHost(t, addrA, mtu, func(f [][]byte) { c.carry(c.b, f, split) })
	c.b = newHost(t, addrB, mtu, func(f [][]byte) { c.carry(c.a, f, split) })
	return c
}

func (c *cable) carry(to *host, frames [][]byte, split bool) {
	c.batch.Store(max(c.batch.Load(), int64(len(frames))))
	for _, f := range frames {
		ip, err := encap.ParseIP(f[pkt.MetaLen:])
		if err != nil {
			c.bad.Add(1)
			continue
		}
		plan, err := pkt.NewPlan(pkt.ParseMeta(f), ip)
		if err != nil {
			c.bad.Add(1)
			continue
		}
		if plan.Count() > 1 {
			c.supers.Add(1)
		}
		var wire [][]byte
		for i := range plan.Count() {
			b := make([]byte, pkt.MetaLen+plan.Len())
			n := plan.Put(b[pkt.MetaLen:], nil, 0, i, i+1)
			b = b[:pkt.MetaLen+n]
			one, err := encap.ParseIP(b[pkt.MetaLen:])
			if err != nil || !one.IsFragment() && one.Protocol != encap.ProtocolICMP && !one.TransportChecksumOK() {
				c.bad.Add(1)
			}
			wire = append(wire, b)
		}
		if !split {
			to.link.Deliver(f, plan.Count())
			continue
		}
		for _, b := range wire {
			to.link.Deliver(b, 1)
		}
	}
}

// TestLink moves data between two stacks, as super-packets and as single
// packets, over both kinds of IP.
func TestLink(t *testing.T) {
	for _, test := range []struct {
		name  string
		a, b  string
		split bool
	}{
		{name: "super4", a: "10.0.0.1", b: "10.0.0.2"},
		{name: "wire4", a: "10.0.0.1", b: "10.0.0.2", split: true},
		{name: "super6", a: "fd00::1", b: "fd00::2"},
		{name: "wire6", a: "fd00::1", b: "fd00::2", split: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := connect(t, 1450, test.split, test.a, test.b)
			moveTCP(t, c.a, c.b, 8<<20)
			moveTCP(t, c.b, c.a, 1<<20)
			moveUDP(t, c.a, c.b)
			if c.supers.Load() == 0 {
				t.Error("no super-packet was sent")
			}
			if n := c.bad.Load(); n != 0 {
				t.Errorf("%d wire packets with a wrong checksum", n)
			}
			for _, h := range []*host{c.a, c.b} {
				if st := h.link.Stats(); st.Malformed+st.BadChecksum != 0 || st.In == 0 || st.Out == 0 {
					t.Errorf("link of %s: %+v", h.addr, st)
				}
			}
		})
	}
}

// moveTCP sends n bytes and compares checksums.
func moveTCP(t *testing.T, from, to *host, n int64) {
	t.Helper()
	l, err := gonet.ListenTCP(to.Stack, to.full(80), to.protocol())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := make(chan [32]byte, 1)
	go func() {
		defer close(got)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		h := sha256.New()
		if _, err := io.Copy(h, c); err == nil {
			got <- [32]byte(h.Sum(nil))
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := gonet.DialContextTCP(ctx, from.Stack, to.full(80), to.protocol())
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	h := sha256.New()
	if _, err := io.CopyN(io.MultiWriter(c, h), rand.NewChaCha8([32]byte{2}), n); err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	if sum := <-got; sum != [32]byte(h.Sum(nil)) {
		t.Errorf("%d bytes %s → %s arrived different", n, from.addr, to.addr)
	}
}

// moveUDP sends datagrams of several sizes, the largest of which is fragmented.
func moveUDP(t *testing.T, from, to *host) {
	t.Helper()
	laddr := to.full(53)
	l, err := gonet.DialUDP(to.Stack, &laddr, nil, to.protocol())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	raddr := to.full(53)
	c, err := gonet.DialUDP(from.Stack, nil, &raddr, from.protocol())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = l.SetDeadline(time.Now().Add(5 * time.Second))
	for _, size := range []int{1, 64, 1400, 9000} {
		want := bytes.Repeat([]byte{byte(size)}, size)
		if _, err := c.Write(want); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 10000)
		n, _, err := l.ReadFrom(got)
		if err != nil || !bytes.Equal(got[:n], want) {
			t.Fatalf("datagram of %d bytes: %d arrived, %v", size, n, err)
		}
	}
}

// TestLinkSplitsUDP delivers a super-packet of datagrams, which gVisor does not
// know.
func TestLinkSplitsUDP(t *testing.T) {
	h := newHost(t, "10.0.0.2", 1450, func([][]byte) {})
	laddr := h.full(53)
	l, err := gonet.DialUDP(h.Stack, &laddr, nil, h.protocol())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_ = l.SetDeadline(time.Now().Add(5 * time.Second))
	payload := slices.Concat(bytes.Repeat([]byte{'a'}, 100), bytes.Repeat([]byte{'b'}, 100), []byte("cc"))
	h.link.Deliver(udpSuper(h.addr, 53, payload, 100), 3)
	for _, want := range []string{string(payload[:100]), string(payload[100:200]), "cc"} {
		got := make([]byte, 200)
		n, _, err := l.ReadFrom(got)
		if err != nil || string(got[:n]) != want {
			t.Fatalf("got %q, %v; want %q", got[:n], err, want)
		}
	}
}

// udpSuper makes a super-packet of datagrams of size bytes from 10.0.0.1.
func udpSuper(dst netip.Addr, port uint16, payload []byte, size int) []byte {
	frame := make([]byte, pkt.MetaLen+encap.IPv4HeaderLen+encap.UDPHeaderLen+len(payload))
	p := encap.PutIPv4(frame[pkt.MetaLen:], netip.MustParseAddr("10.0.0.1"), dst, encap.ProtocolUDP, encap.UDPHeaderLen+len(payload))
	b := p.Payload()
	binary.BigEndian.PutUint16(b, 1000)
	binary.BigEndian.PutUint16(b[2:], port)
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
	binary.BigEndian.PutUint16(b[6:], uint16(p.PseudoSum(encap.ProtocolUDP, len(b))))
	copy(b[encap.UDPHeaderLen:], payload)
	m := pkt.Meta{Flags: pkt.NeedsChecksum, CsumStart: encap.IPv4HeaderLen, CsumOffset: encap.UDPChecksumOffset}
	if size > 0 {
		m.GSO, m.GSOSize = pkt.GSOUDP, uint16(size)
	}
	m.Put(frame)
	return frame
}

// TestLinkChecksums has damaged packets dropped, unless the metadata vouches for
// them.
func TestLinkChecksums(t *testing.T) {
	h := newHost(t, "10.0.0.2", 1450, func([][]byte) {})
	laddr := h.full(53)
	l, err := gonet.DialUDP(h.Stack, &laddr, nil, h.protocol())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	whole := udpSuper(h.addr, 53, []byte("whole"), 0)
	pkt.Meta{}.Put(whole)
	_ = encap.CompleteChecksum(whole[pkt.MetaLen:], encap.IPv4HeaderLen, encap.UDPChecksumOffset)

	damaged := bytes.Clone(whole)
	damaged[len(damaged)-1] ^= 1
	h.link.Deliver(damaged, 1)
	header := bytes.Clone(whole)
	header[pkt.MetaLen+8]-- // TTL
	h.link.Deliver(header, 1)
	h.link.Deliver(whole[:pkt.MetaLen+10], 1)
	h.link.Deliver(nil, 1)
	vouched := bytes.Clone(damaged)
	pkt.Meta{Flags: pkt.DataValid}.Put(vouched)
	h.link.Deliver(vouched, 1)
	h.link.Deliver(whole, 1)

	_ = l.SetDeadline(time.Now().Add(5 * time.Second))
	for _, want := range []string{"whold", "whole"} {
		got := make([]byte, 16)
		n, _, err := l.ReadFrom(got)
		if err != nil || string(got[:n]) != want {
			t.Fatalf("got %q, %v; want %q", got[:n], err, want)
		}
	}
	if st := h.link.Stats(); st.BadChecksum != 2 || st.Malformed != 2 || st.In != 6 {
		t.Errorf("%+v", st)
	}
}

// TestLinkCloses has a closed link carry nothing.
func TestLinkCloses(t *testing.T) {
	sent := 0
	h := newHost(t, "10.0.0.2", 1450, func([][]byte) { sent++ })
	raddr := tcpip.FullAddress{Addr: tcpip.AddrFrom4([4]byte{10, 0, 0, 1}), Port: 9}
	c, err := gonet.DialUDP(h.Stack, nil, &raddr, h.protocol())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("x")); err != nil || sent != 1 {
		t.Fatalf("before: %d sent, %v", sent, err)
	}
	h.link.Close()
	if _, err := c.Write([]byte("x")); err == nil || errors.Is(err, net.ErrClosed) || sent != 1 {
		t.Errorf("after: %d sent, %v", sent, err)
	}
	h.link.Deliver(udpSuper(h.addr, 53, []byte("x"), 0), 1)
	if st := h.link.Stats(); st.In != 0 {
		t.Errorf("%+v", st)
	}
}

// FuzzDeliver has frames of any bytes delivered.
func FuzzDeliver(f *testing.F) {
	f.Add(udpSuper(netip.MustParseAddr("10.0.0.2"), 53, []byte("hello world"), 4))
	f.Add(udpSuper(netip.MustParseAddr("10.0.0.2"), 53, []byte("hello"), 0))
	s := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
	})
	defer s.Destroy()
	l := NewLink(1450, func(frames [][]byte) {
		for _, b := range frames {
			ip, err := encap.ParseIP(b[pkt.MetaLen:])
			if err != nil {
				f.Fatal(err)
			}
			if _, err := pkt.NewPlan(pkt.ParseMeta(b), ip); err != nil {
				f.Fatal(err)
			}
		}
	})
	if err := s.CreateNIC(1, l); err != nil {
		f.Fatal(err)
	}
	s.SetPromiscuousMode(1, true)
	s.SetSpoofing(1, true)
	s.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: 1}, {Destination: header.IPv6EmptySubnet, NIC: 1}})
	f.Fuzz(func(_ *testing.T, b []byte) { l.Deliver(b, 1) })
}

package dataplane

import (
	"bytes"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ovnd/ovnd/bench/lab"
	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/encap"
)

// A forger sends datagrams to a node's VXLAN port from an underlay address, with
// or without a port.
type forger struct {
	t    *testing.T
	conn *net.UDPConn
	to   *net.UDPAddr
}

func forge(t *testing.T, h *lab.Host, from string, to *node) *forger {
	t.Helper()
	f := &forger{t: t, to: net.UDPAddrFromAddrPort(to.sw.UnderlayAddr())}
	if err := h.Do(func() (err error) {
		local, err := netip.ParseAddrPort(from)
		if err != nil {
			local = netip.AddrPortFrom(netip.MustParseAddr(from), 0)
		}
		f.conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(local))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.conn.Close() })
	return f
}

func (f *forger) send(b []byte) {
	f.t.Helper()
	if _, err := f.conn.WriteToUDP(b, f.to); err != nil {
		f.t.Fatal(err)
	}
}

// tos sets the outer header's byte that holds ECN.
func (f *forger) tos(v int) {
	raw, err := f.conn.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TOS, v) })
	}
	if err != nil {
		f.t.Fatal(err)
	}
}

// datagram is VXLAN, Ethernet and a UDP packet from src to dst.
func datagram(vni encap.VNI, dstMAC encap.MAC, src, dst string) []byte {
	b := make([]byte, plainPrefix+encap.IPv4HeaderLen+encap.UDPHeaderLen+18)
	encap.PutVXLAN(b, vni)
	s, d := netip.MustParseAddr(src), netip.MustParseAddr(dst)
	encap.PutEthernet(b[encap.VXLANHeaderLen:], dstMAC, encap.EndpointMAC(s), encap.EtherTypeIPv4)
	p := encap.PutIPv4(b[plainPrefix:], s, d, encap.ProtocolUDP, encap.UDPHeaderLen+18)
	u := encap.UDP(p.Payload())
	u[1], u[3] = 9, 9
	u.SetLength(len(u))
	u.SetChecksum(encap.Checksum(u, p.PseudoSum(encap.ProtocolUDP, len(u))))
	return b
}

// TestWhoMaySend sends what a VTEP must not: each is dropped under its reason,
// and none is delivered.
func TestWhoMaySend(t *testing.T) {
	w := twoNodes(t, 1500, false)
	w.network("net", 4097, 1450, "10.10.0.0/16")
	w.network("other", 4098, 1450, "10.20.0.0/16")
	a := w.nodes[0].sandbox("sa", "net", "10.10.0.3/16")
	w.nodes[1].sandbox("sb", "net", "10.10.0.4/16")
	w.nodes[0].sandbox("oa", "other", "10.20.0.3/16")
	w.nodes[1].host.Addr("eth0", "192.0.2.9/24")
	known, unknown := forge(t, w.nodes[1].host, "192.0.2.2", w.nodes[0]), forge(t, w.nodes[1].host, "192.0.2.9", w.nodes[0])

	mac := encap.EndpointMAC(a.addr)
	plain := func() []byte { return datagram(4097, mac, "10.10.0.4", "10.10.0.3") }
	set := func(at int, v byte) []byte { b := plain(); b[at] = v; return b }
	tests := []struct {
		name string
		from *forger
		b    []byte
		want Drop
	}{
		{"empty", known, nil, DropBadVXLAN},
		{"half a VXLAN header", known, plain()[:7], DropBadVXLAN},
		{"I flag clear", known, set(0, 0), DropBadVXLAN},
		{"reserved bit", known, set(3, 1), DropReserved},
		{"unknown VNI", known, datagram(5000, mac, "10.10.0.4", "10.10.0.3"), DropUnknownVNI},
		{"unknown VTEP", unknown, plain(), DropUnknownVTEP},
		{"no Ethernet header", known, plain()[:20], DropBadFrame},
		{"group as source MAC", known, set(14, 1), DropBadFrame},
		{"EtherType", known, set(20, 0x88), DropEtherType},
		{"IPv4 in an IPv6 frame", known, func() []byte { b := plain(); b[20], b[21] = 0x86, 0xdd; return b }(), DropMalformed},
		{"IP cut off", known, plain()[:40], DropMalformed},
		{"wrong MAC", known, set(13, 0xff), DropWrongMAC},
		{"broadcast MAC", known, datagram(4097, encap.BroadcastMAC, "10.10.0.4", "10.10.0.3"), DropMulticast},
		{"multicast", known, datagram(4097, mac, "10.10.0.4", "224.0.0.1"), DropMulticast},
		{"directed broadcast", known, datagram(4097, mac, "10.10.0.4", "10.10.255.255"), DropMulticast},
		{"source is here", known, datagram(4097, mac, "10.10.0.3", "10.10.0.3"), DropStolenSource},
		{"source outside", known, datagram(4097, mac, "192.168.0.1", "10.10.0.3"), DropForeignSource},
		{"source of the other network", known, datagram(4097, mac, "10.20.0.4", "10.10.0.3"), DropForeignSource},
		{"to the other network", known, datagram(4097, mac, "10.10.0.4", "10.20.0.3"), DropNoRoute},
		{"nobody", known, datagram(4097, mac, "10.10.0.4", "10.10.7.7"), DropNoEndpoint},
		{"back to the underlay", known, datagram(4097, encap.EndpointMAC(netip.MustParseAddr("10.10.0.4")), "10.10.0.9", "10.10.0.4"), DropSplitHorizon},
	}
	before := w.nodes[0].sw.Stats()
	for _, tt := range tests {
		count := w.nodes[0].sw.Stats().Total.Drops[tt.want.String()]
		tt.from.send(tt.b)
		w.nodes[0].drops(tt.want, count+1)
	}
	// The directory gives 10.10.0.8 to another VTEP than the one it comes from.
	w.publish("net", func(s *directory.Snapshot) {
		s.Endpoints = s.Endpoints.With(netip.MustParseAddr("10.10.0.8"), &directory.Endpoint{VTEP: netip.MustParseAddr("192.0.2.77")})
	})
	count := w.nodes[0].sw.Stats().Total.Drops[DropStolenSource.String()]
	known.send(datagram(4097, mac, "10.10.0.8", "10.10.0.3"))
	w.nodes[0].drops(DropStolenSource, count+1)

	after := w.nodes[0].sw.Stats()
	if after.Total.PortOut.Packets != before.Total.PortOut.Packets {
		t.Errorf("%d packets were delivered", after.Total.PortOut.Packets-before.Total.PortOut.Packets)
	}
	// And what it may: a known source, and one that gossip has not told of yet.
	for _, src := range []string{"10.10.0.4", "10.10.0.9"} {
		known.send(datagram(4097, mac, src, "10.10.0.3"))
	}
	w.nodes[0].delivered(after.Total.PortOut.Packets + 2)
	w.closed()
}

// TestReservedIgnored is the option for VTEPs that set reserved bits.
func TestReservedIgnored(t *testing.T) {
	w := twoNodes(t, 1500, false)
	w.network("net", 4097, 1450, "10.10.0.0/16")
	a := w.nodes[0].sandbox("sa", "net", "10.10.0.3/16")
	w.publish("net", func(s *directory.Snapshot) { s.Reserved = encap.ReservedIgnore })
	b := datagram(4097, encap.EndpointMAC(a.addr), "10.10.0.4", "10.10.0.3")
	b[0], b[1], b[7] = 0xff, 0xff, 0xff
	before := w.nodes[0].sw.Stats().Total.PortOut.Packets
	forge(t, w.nodes[1].host, "192.0.2.2", w.nodes[0]).send(b)
	w.nodes[0].delivered(before + 1)
}

// TestECN follows RFC 6040 §4.2 from the outer header to the sandbox.
func TestECN(t *testing.T) {
	w := twoNodes(t, 1500, false)
	w.network("net", 4097, 1450, "10.10.0.0/16")
	a := w.nodes[0].sandbox("sa", "net", "10.10.0.3/16")
	f := forge(t, w.nodes[1].host, "192.0.2.2", w.nodes[0])
	wire := a.host.Wire("eth0")
	for outer := range 4 {
		f.tos(outer)
		for inner := range 4 {
			b := datagram(4097, encap.EndpointMAC(a.addr), "10.10.0.4", "10.10.0.3")
			encap.IPv4(b[plainPrefix:]).SetECN(uint8(inner))
			// Tell the packets apart.
			b[len(b)-1], b[len(b)-2] = byte(outer), byte(inner)
			ip, _ := encap.ParseIP(b[plainPrefix:])
			encap.UDP(ip.Payload())[6], encap.UDP(ip.Payload())[7] = 0, 0 // no checksum
			want, drop := encap.ECNInner(uint8(outer), uint8(inner))
			count := w.nodes[0].sw.Stats().Total.Drops[DropECN.String()]
			f.send(b)
			if drop {
				w.nodes[0].drops(DropECN, count+1)
				continue
			}
			got, err := wire.Find(t.Context(), func(fr lab.Frame) bool {
				return bytes.Contains(fr.Data, ip.Packet[12:20]) && bytes.HasSuffix(fr.Data, []byte{byte(inner), byte(outer)})
			})
			if err != nil {
				t.Fatalf("outer %d, inner %d: %v", outer, inner, err)
			}
			at := bytes.Index(got.Data, ip.Packet[12:20]) - 12
			if at < 0 || got.Data[at+1]&3 != want || !encap.IPv4(got.Data[at:]).ChecksumOK() {
				t.Errorf("outer %d, inner %d: %x, want ECN %d and a right checksum", outer, inner, got.Data, want)
			}
		}
	}
	w.closed()
}

// TestSpoofed has a sandbox send from addresses that are not its own, and to
// groups.
func TestSpoofed(t *testing.T) {
	w := twoNodes(t, 1500, false)
	w.network("net", 4097, 1450, "10.10.0.0/16")
	a := w.nodes[0].sandbox("sa", "net", "10.10.0.3/16")
	w.nodes[1].sandbox("sb", "net", "10.10.0.4/16")
	a.host.Addr("eth0", "10.10.0.4/32", "10.10.0.99/32")
	for i, src := range []string{"10.10.0.4", "10.10.0.99"} {
		var conn *net.UDPConn
		if err := a.host.Do(func() (err error) {
			conn, err = net.DialUDP("udp4", &net.UDPAddr{IP: net.ParseIP(src)}, &net.UDPAddr{IP: net.IPv4(10, 10, 0, 7), Port: 9})
			return err
		}); err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write([]byte("x"))
		_ = conn.Close()
		w.nodes[0].drops(DropSpoofed, uint64(i+1))
	}
	multicast := w.nodes[0].sw.Stats().Total.Drops[DropMulticast.String()]
	for i, dst := range []string{"224.0.0.251", "10.10.255.255", "255.255.255.255"} {
		if err := a.host.Do(func() error {
			conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(10, 10, 0, 3)})
			if err != nil {
				return err
			}
			defer conn.Close()
			raw, err := conn.SyscallConn()
			if err != nil {
				return err
			}
			if err := raw.Control(func(fd uintptr) {
				_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1)
				_ = unix.BindToDevice(int(fd), "eth0")
			}); err != nil {
				return err
			}
			_, err = conn.WriteTo([]byte("x"), &net.UDPAddr{IP: net.ParseIP(dst), Port: 9})
			return err
		}); err != nil {
			t.Fatalf("%s: %v", dst, err)
		}
		w.nodes[0].drops(DropMulticast, multicast+uint64(i+1))
	}
	w.closed()
}

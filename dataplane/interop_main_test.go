package dataplane_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/ovnd/ovnd/bench/lab"
	"github.com/ovnd/ovnd/dataplane"
	"github.com/ovnd/ovnd/dataplane/tun"
	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/encap"
)

func TestMain(m *testing.M) { lab.Main(m) }

// Underlay addresses of the hosts of a test, by their number, in both families.
func under4(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}) }

func under6(i int) netip.Addr {
	return netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 15: byte(i)})
}

func under(i int, v6 bool) netip.Addr {
	if v6 {
		return under6(i)
	}
	return under4(i)
}

// star makes hosts with the given names whose eth0 is on one Ethernet, number i
// having the underlay addresses under4(i+1) and under6(i+1).
func star(t testing.TB, names ...string) (*lab.Lab, []*lab.Host) {
	t.Helper()
	l := lab.New(t)
	center := l.Host("switch")
	hosts := make([]*lab.Host, 0, len(names))
	ports := make([]string, 0, len(names))
	for i, name := range names {
		h, port := l.Host(name), fmt.Sprint("port", i)
		l.Veth(1500,
			lab.End{Host: h, Name: "eth0", Addrs: []string{under4(i+1).String() + "/24", under6(i+1).String() + "/64"}},
			lab.End{Host: center, Name: port})
		hosts, ports = append(hosts, h), append(ports, port)
	}
	center.Bridge("br0", ports...)
	return l, hosts
}

// patience is the time that anything in these tests may take.
const patience = 15 * time.Second

func limited(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// startSwitch runs a data plane on h until the test ends.
func startSwitch(t testing.TB, h *lab.Host, local netip.Addr) *dataplane.Switch {
	t.Helper()
	var sw *dataplane.Switch
	err := h.Do(func() (err error) {
		sw, err = dataplane.New(dataplane.Config{Underlay: netip.AddrPortFrom(local, encap.VXLANPort)})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- sw.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("switch: %v", err)
		}
	})
	return sw
}

// plug gives the host tap a TUN device dev with the inner addresses, and makes it
// a port of the switch.
func plug(t testing.TB, sw *dataplane.Switch, tap *lab.Host, dev string, snap *directory.Snapshot, addrs ...netip.Addr) {
	t.Helper()
	err := tap.Do(func() error {
		queues, watcher, err := tun.Create(dev, snap.MTU, 1)
		if err != nil {
			return err
		}
		defer watcher.Close()
		_, err = sw.AddPort(dataplane.PortConfig{
			NetworkID: snap.ID, EndpointID: dev, Name: tap.Name() + "-" + dev,
			Addrs: addrs, MAC: encap.EndpointMAC(addrs[0]), Queues: queues, MTU: snap.MTU,
		})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		bits := 24
		if a.Is6() {
			bits = 64
		}
		tap.Addr(dev, netip.PrefixFrom(a, bits).String())
	}
	tap.Up(dev)
}

// A netOption changes a snapshot that network makes.
type netOption func(*directory.Snapshot)

// network makes a snapshot with the subnets 10.0.0.0/24 and fd00::/64. The
// number of the subnet can be changed by subnet.
func network(name string, vni encap.VNI, v6 bool, options ...netOption) *directory.Snapshot {
	s := &directory.Snapshot{
		Version: 1, ID: "id-" + name, Name: name, VNI: vni,
		Subnets: []directory.Subnet{
			{Prefix: netip.MustParsePrefix("10.0.0.0/24"), Gateway: netip.MustParseAddr("10.0.0.254")},
			{Prefix: netip.MustParsePrefix("fd00::/64")},
		},
		MTU:   encap.InnerMTU(1500, v6),
		Peers: make(map[netip.Addr]string),
	}
	for _, o := range options {
		o(s)
	}
	return s
}

// endpoint says that the inner address is behind the VTEP, a known peer.
func endpoint(inner, vtep netip.Addr) netOption {
	return func(s *directory.Snapshot) {
		s.Peers[vtep] = "node"
		s.Endpoints = s.Endpoints.With(inner, &directory.Endpoint{
			ID: "ep-" + inner.String(), Addr: inner, MAC: encap.EndpointMAC(inner), VTEP: vtep,
		})
	}
}

func static(v directory.StaticVTEP) netOption {
	return func(s *directory.Snapshot) { s.StaticVTEPs = append(s.StaticVTEPs, v) }
}

func subnet(prefix string) netOption {
	return func(s *directory.Snapshot) {
		s.Subnets = []directory.Subnet{{Prefix: netip.MustParsePrefix(prefix)}}
	}
}

// transfer sends size random bytes each way over one TCP connection and compares
// what arrives.
func transfer(t *testing.T, from, to *lab.Host, addr netip.Addr, size int) {
	t.Helper()
	at := netip.AddrPortFrom(addr, 8080).String()
	var ln net.Listener
	if err := to.Do(func() (err error) { ln, err = net.Listen("tcp", at); return err }); err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	data := [2][]byte{noise(size, 1), noise(size, 2)}
	served := make(chan error, 1)
	go func() {
		conn, err := ln.Accept()
		if err != nil {
			served <- err
			return
		}
		served <- both(conn, data[1], data[0])
	}()
	var conn net.Conn
	dialer := net.Dialer{Timeout: patience}
	err := from.Do(func() (err error) { conn, err = dialer.Dial("tcp", at); return err })
	if err == nil {
		err = both(conn, data[0], data[1])
	}
	if err != nil {
		t.Errorf("TCP from %s to %s: %v", from.Name(), to.Name(), err)
		return
	}
	if err := <-served; err != nil {
		t.Errorf("TCP at %s from %s: %v", to.Name(), from.Name(), err)
	}
}

// both writes send to conn while it expects to read want.
func both(conn net.Conn, send, want []byte) error {
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	written := make(chan error, 1)
	go func() {
		_, err := conn.Write(send)
		if tcp, ok := conn.(*net.TCPConn); ok && err == nil {
			err = tcp.CloseWrite()
		}
		written <- err
	}()
	got, err := io.ReadAll(conn)
	if err != nil {
		return fmt.Errorf("after %d bytes: %w", len(got), err)
	}
	if sha256.Sum256(got) != sha256.Sum256(want) {
		return fmt.Errorf("%d bytes received differ from the %d sent", len(got), len(want))
	}
	return <-written
}

func noise(size int, seed byte) []byte {
	b := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b) // never fails
	return b
}

// pretty prints a value for messages.
func pretty(v any) string {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return err.Error()
	}
	return out.String()
}

// drops returns the numbers of packets that a switch has dropped, by reason.
func drops(sw *dataplane.Switch) map[string]uint64 { return sw.Stats().Total.Drops }

// closes waits until the ledgers of a switch, in total and network by network,
// account for every packet.
func closes(t *testing.T, sw *dataplane.Switch) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	for {
		stats := sw.Stats()
		closed := stats.Total.Closed()
		for _, n := range stats.Networks {
			closed = closed && n.Ledger.Closed()
		}
		if closed {
			return
		}
		if ctx.Err() != nil {
			t.Errorf("the ledger does not close: %s", pretty(stats))
			return
		}
		time.Sleep(time.Millisecond)
	}
}

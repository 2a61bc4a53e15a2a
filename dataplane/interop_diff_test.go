package dataplane_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ovnd/ovnd/bench/lab"
	"github.com/ovnd/ovnd/encap"
)

// A seen is one datagram as the receiver's socket got it.
type seen struct {
	payload  string
	tos, ttl int
}

// A target is a VTEP under test, and the socket behind it that shows what comes
// through.
type target struct {
	name  string
	outer netip.AddrPort
	inner map[bool]netip.Addr // by whether it is IPv6
	got   chan seen
}

// differ sends the same to a kernel VXLAN device and to ovnd, and compares what
// comes out behind them.
type differ struct {
	t       *testing.T
	v6      bool // underlay
	vni     encap.VNI
	sender  *net.UDPConn
	targets [2]*target // the kernel's, ovnd's
	serial  uint32
	stats   func() string
}

var (
	innerSender  = map[bool]netip.Addr{false: netip.MustParseAddr("10.0.0.1"), true: netip.MustParseAddr("fd00::1")}
	innerTargets = [2]map[bool]netip.Addr{
		{false: innerKernel, true: netip.MustParseAddr("fd00::2")},
		{false: innerOvnd, true: netip.MustParseAddr("fd00::3")},
	}
)

func newDiffer(t *testing.T, vni encap.VNI, v6 bool) *differ {
	t.Helper()
	l, hosts := star(t, "sender", "kernel", "node")
	sender, kernel, node, task := hosts[0], hosts[1], hosts[2], l.Host("task")
	d := &differ{t: t, v6: v6, vni: vni}

	mac := encap.EndpointMAC(innerKernel)
	kernel.VXLAN(lab.VXLAN{
		Name: "vx0", VNI: uint32(vni), Local: under(2, v6), MTU: encap.InnerMTU(1500, v6), MAC: mac[:],
		Addrs: []string{innerKernel.String() + "/24", innerTargets[0][true].String() + "/64"},
	})
	snap := network("net", vni, v6, endpoint(innerSender[false], under(1, v6)), endpoint(innerSender[true], under(1, v6)),
		endpoint(innerOvnd, under(3, v6)), endpoint(innerTargets[1][true], under(3, v6)))
	sw := startSwitch(t, node, under(3, v6))
	sw.SetNetwork(snap)
	plug(t, sw, task, "eth0", snap, innerOvnd, innerTargets[1][true])
	d.stats = func() string { return pretty(sw.Stats()) }

	for i, h := range []*lab.Host{kernel, task} {
		d.targets[i] = &target{
			name: []string{"kernel", "ovnd"}[i], outer: netip.AddrPortFrom(under(2+i, v6), encap.VXLANPort),
			inner: innerTargets[i], got: make(chan seen, 256),
		}
		d.targets[i].listen(t, h)
	}
	err := sender.Do(func() (err error) {
		d.sender, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(under(1, v6), 50000)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.sender.Close() })
	d.settle()
	return d
}

// listen opens the probe's sockets, one a family.
func (g *target) listen(t *testing.T, h *lab.Host) {
	t.Helper()
	for v6, addr := range g.inner {
		var conn *net.UDPConn
		err := h.Do(func() (err error) {
			conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, probePort)))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		ask(t, conn, v6)
		go g.receive(conn)
	}
}

// ask has the kernel tell TOS and TTL of what the socket receives.
func ask(t *testing.T, conn *net.UDPConn, v6 bool) {
	t.Helper()
	options := [][2]int{{unix.IPPROTO_IP, unix.IP_RECVTOS}, {unix.IPPROTO_IP, unix.IP_RECVTTL}}
	if v6 {
		options = [][2]int{{unix.IPPROTO_IPV6, unix.IPV6_RECVTCLASS}, {unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT}}
	}
	for _, o := range options {
		setOption(t, conn, o[0], o[1], 1)
	}
}

func setOption(t *testing.T, conn *net.UDPConn, level, option, value int) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err == nil {
		cerr := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, value) })
		if cerr != nil {
			err = cerr
		}
	}
	if err != nil {
		t.Fatalf("socket option %d/%d: %v", level, option, err)
	}
}

func (g *target) receive(conn *net.UDPConn) {
	payload, control := make([]byte, 4096), make([]byte, 256)
	for {
		n, cn, _, _, err := conn.ReadMsgUDPAddrPort(payload, control)
		if err != nil {
			return // closed
		}
		s := seen{payload: string(payload[:n]), tos: -1, ttl: -1}
		messages, _ := unix.ParseSocketControlMessage(control[:cn])
		for _, m := range messages {
			switch {
			case len(m.Data) == 1: // IP_TOS, which is a byte
				s.tos = int(m.Data[0])
			case m.Header.Type == unix.IP_TTL || m.Header.Type == unix.IPV6_HOPLIMIT:
				s.ttl = int(binary.NativeEndian.Uint32(m.Data))
			case m.Header.Type == unix.IPV6_TCLASS:
				s.tos = int(binary.NativeEndian.Uint32(m.Data))
			}
		}
		g.got <- s
	}
}

// settle sends good frames until both targets let them through: neighbour
// discovery on the underlay takes a moment, and IPv6 addresses come up late.
func (d *differ) settle() {
	d.t.Helper()
	ctx := limited(d.t)
	for _, g := range d.targets {
		for _, v6 := range []bool{false, true} {
			for arrived := false; !arrived; {
				d.send(g, d.frame(g, v6).marshal())
				select {
				case <-g.got:
					arrived = true
				case <-time.After(50 * time.Millisecond):
				case <-ctx.Done():
					d.t.Fatalf("%s lets nothing through\n%s", g.name, d.stats())
				}
			}
			d.through(g, d.frame(g, v6))
		}
	}
}

// frame returns a good frame to the target.
func (d *differ) frame(g *target, v6 bool) frame {
	d.serial++
	return frame{
		vni: d.vni, from: innerSender[v6], to: g.inner[v6], payload: fmt.Appendf(nil, "probe %08x", d.serial),
		// Both addresses of an endpoint are at one MAC.
		src: encap.EndpointMAC(innerSender[false]), dst: encap.EndpointMAC(g.inner[false]),
	}
}

func (d *differ) send(g *target, datagram []byte) {
	d.t.Helper()
	if _, err := d.sender.WriteToUDPAddrPort(datagram, g.outer); err != nil {
		d.t.Fatalf("send to %s: %v", g.name, err)
	}
}

// sendBurst sends each run of datagrams of one length by one system call, so
// that they arrive together (UDP_SEGMENT, udp(7)).
func (d *differ) sendBurst(g *target, datagrams [][]byte) {
	d.t.Helper()
	for len(datagrams) > 0 {
		size, n := len(datagrams[0]), 1
		for n < len(datagrams) && len(datagrams[n]) == size {
			n++
		}
		run := bytes.Join(datagrams[:n], nil)
		datagrams = datagrams[n:]
		if n == 1 {
			d.send(g, run)
			continue
		}
		control := make([]byte, unix.CmsgSpace(2))
		header := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
		header.Level, header.Type = unix.SOL_UDP, unix.UDP_SEGMENT
		header.SetLen(unix.CmsgLen(2))
		binary.NativeEndian.PutUint16(control[unix.CmsgLen(0):], uint16(size))
		if _, _, err := d.sender.WriteMsgUDPAddrPort(run, control, g.outer); err != nil {
			d.t.Fatalf("send %d datagrams to %s: %v", n, g.name, err)
		}
	}
}

// through sends f and returns what the target's sockets got until it arrived,
// without f itself. Frames take one way, so what was sent before f has arrived
// by then or never will.
func (d *differ) through(g *target, f frame) (before []seen) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), patience)
	defer cancel()
	d.send(g, f.marshal())
	for {
		select {
		case s := <-g.got:
			if s.payload == string(f.payload) {
				return before
			}
			before = append(before, s)
		case <-ctx.Done():
			d.t.Fatalf("%s: a good frame did not arrive\n%s", g.name, d.stats())
		}
	}
}

// compare sends the target's datagrams, which make derives from good frames to
// it, with the outer TOS to both targets, and fails if what arrives differs. It
// returns what ovnd let through.
func (d *differ) compare(name string, outerTOS int, inner6 bool, craft func(good frame) [][]byte) []seen {
	d.t.Helper()
	var got [2][]seen
	d.serial++
	serial := d.serial
	for i, g := range d.targets {
		d.serial = serial // both get the same payloads
		d.setTOS(outerTOS)
		d.sendBurst(g, craft(d.frame(g, inner6)))
		d.setTOS(0)
		got[i] = d.through(g, d.frame(g, inner6))
	}
	if !slices.Equal(got[0], got[1]) {
		d.t.Errorf("%s: the kernel lets through %+v, ovnd %+v", name, got[0], got[1])
	}
	return got[1]
}

func (d *differ) setTOS(tos int) {
	d.t.Helper()
	if d.v6 {
		setOption(d.t, d.sender, unix.IPPROTO_IPV6, unix.IPV6_TCLASS, tos)
	} else {
		setOption(d.t, d.sender, unix.IPPROTO_IP, unix.IP_TOS, tos)
	}
}

// one makes a craft function of a change to one frame.
func one(change func(*frame)) func(frame) [][]byte {
	return func(f frame) [][]byte {
		change(&f)
		return [][]byte{f.marshal()}
	}
}

// eachUnderlay runs a test over both families of underlay.
func eachUnderlay(t *testing.T, vni encap.VNI, test func(*testing.T, *differ)) {
	t.Helper()
	for _, v6 := range []bool{false, true} {
		name := "IPv4"
		if v6 {
			name = "IPv6"
		}
		t.Run(name, func(t *testing.T) { test(t, newDiffer(t, vni, v6)) })
	}
}

// Of the 64 bits of the VXLAN header, I must be set, and the 39 that are
// reserved must not be (RFC 7348 §5 would ignore them; Linux drops).
func TestDifferentialHeaderBits(t *testing.T) {
	eachUnderlay(t, 0xabcdef, func(t *testing.T, d *differ) {
		for bit := range 64 {
			got := d.compare(fmt.Sprintf("bit %d of the header flipped", bit), 0, false,
				one(func(f *frame) { f.header = 1 << bit }))
			if len(got) > 0 {
				t.Errorf("bit %d flipped: let through", bit)
			}
		}
	})
}

// VNI 0 is no network of ours on the wire: it marks those that never get there.
func TestDifferentialVNI(t *testing.T) {
	const last = 1<<24 - 1
	vnis := []encap.VNI{0, 1, 2, 0x7fffff, 0x800000, last - 1, last}
	for _, own := range []encap.VNI{1, last} {
		t.Run(fmt.Sprint(own), func(t *testing.T) {
			d := newDiffer(t, own, false)
			for _, vni := range vnis {
				got := d.compare(fmt.Sprintf("VNI %d", vni), 0, false, one(func(f *frame) { f.vni = vni }))
				if want := vni == own; (len(got) == 1) != want {
					t.Errorf("VNI %d on VNI %d: let through %v", vni, own, got)
				}
			}
		})
	}
}

// The shortest frame that carries a UDP datagram of 8 bytes has 58; none that is
// cut short comes through, and one with padding behind does.
func TestDifferentialLength(t *testing.T) {
	eachUnderlay(t, kernelVNI, func(t *testing.T, d *differ) {
		short := func(cut int) func(frame) [][]byte {
			return func(f frame) [][]byte {
				f.payload = f.payload[len(f.payload)-8:]
				f.padding = 4
				return [][]byte{f.marshal()[:cut]}
			}
		}
		for cut := range 58 {
			if got := d.compare(fmt.Sprintf("first %d bytes", cut), 0, false, short(cut)); len(got) > 0 {
				t.Errorf("a frame of %d bytes was let through", cut)
			}
		}
		for cut := 58; cut <= 62; cut++ {
			if got := d.compare(fmt.Sprintf("first %d bytes", cut), 0, false, short(cut)); len(got) != 1 {
				t.Errorf("a frame with %d bytes of padding: let through %v", cut-58, got)
			}
		}
	})
}

// The whole ECN table, inner × outer, for both inner families, with a DSCP that
// nothing may change.
func TestDifferentialECN(t *testing.T) {
	eachUnderlay(t, kernelVNI, func(t *testing.T, d *differ) {
		for _, inner6 := range []bool{false, true} {
			passed := 0
			for pair := range 16 {
				inner, outer := pair>>2, pair&3
				got := d.compare(fmt.Sprintf("inner ECN %02b, outer ECN %02b, inner IPv6 %t", inner, outer, inner6),
					0x20|outer, inner6, one(func(f *frame) { f.tos = 0xb8 | byte(inner) }))
				passed += len(got)
			}
			if passed != 15 { // all but congestion told to a transport that cannot be told
				t.Errorf("%d of 16 combinations were let through, want 15", passed)
			}
		}
	})
}

func TestDifferentialEthernet(t *testing.T) {
	d := newDiffer(t, kernelVNI, false)
	for name, tags := range map[string][]byte{
		"802.1Q tag":           {0x81, 0, 0, 7},
		"802.1ad tag":          {0x88, 0xa8, 0, 7},
		"802.1Q tag, twice":    {0x81, 0, 0, 7, 0x81, 0, 0, 8},
		"802.1Q priority tag":  {0x81, 0, 0xe0, 0},
		"802.1ad priority tag": {0x88, 0xa8, 0xe0, 0},
		"EtherType of MPLS":    {0x88, 0x47},
		"length, not a type":   {0, 40},
	} {
		d.compare(name, 0, false, one(func(f *frame) { f.tags = tags }))
	}
	d.compare("to another MAC", 0, false, one(func(f *frame) { f.dst = encap.MAC{2, 0x42, 10, 0, 0, 99} }))
	d.compare("from the receiver's own MAC", 0, false, one(func(f *frame) { f.src = f.dst }))
	// No station may have a group address (IEEE 802.3 §3.2.5); a VXLAN device
	// looks only if it learns.
	g := d.targets[1]
	f := d.frame(g, false)
	f.src = encap.MAC{3, 0x42, 10, 0, 0, 1}
	d.send(g, f.marshal())
	if got := d.through(g, d.frame(g, false)); len(got) > 0 {
		t.Errorf("from a group MAC: ovnd lets through %v", got)
	}
}

// What IP makes of a packet is for the receiver's stack to say, on a super-packet
// of several as on each alone.
func TestDifferentialIP(t *testing.T) {
	d := newDiffer(t, kernelVNI, false)
	for name, change := range map[string]func(*frame){
		"TTL 1":                  func(f *frame) { f.ttl = 1 },
		"TTL 255":                func(f *frame) { f.ttl = 255 },
		"options":                func(f *frame) { f.options = []byte{1, 1, 1, 0} },
		"bad IP checksum":        func(f *frame) { f.ipSum = 0x0100 },
		"bad UDP checksum":       func(f *frame) { f.udpSum = 0x0100 },
		"no UDP checksum":        func(f *frame) { f.noUDPSum = true },
		"nobody listens":         func(f *frame) { f.port = 9 },
		"last fragment alone":    func(f *frame) { f.fragment = 100 },
		"reserved fragment flag": func(f *frame) { f.fragment = 0x8000 },
		"don't fragment":         func(f *frame) { f.fragment = 0x4000 },
	} {
		d.compare(name, 0, false, one(change))
	}
	for name, change := range map[string]func(*frame){
		"IPv6, bad UDP checksum": func(f *frame) { f.udpSum = 0x0100 },
		"IPv6, no UDP checksum":  func(f *frame) { f.noUDPSum = true },
		"IPv6, hop limit 1":      func(f *frame) { f.ttl = 1 },
	} {
		d.compare(name, 0, true, one(change))
	}
	got := d.compare("two fragments", 0, false, func(f frame) [][]byte {
		whole := f.datagram()
		f.id = 1 // the fragment above has 0
		first, second := f, f
		first.fragment, first.payload = 0x2000, whole[8:16]
		second.fragment, second.payload = 2, whole[16:]
		b := first.marshal()
		copy(b[8+14+20:], whole[:16]) // the header with the sums of the whole
		return [][]byte{b, second.marshal()}
	})
	if len(got) != 1 {
		t.Errorf("two fragments: let through %v", got)
	}
}

// In a burst of like datagrams, which may travel as one, each is still judged by
// itself.
func TestDifferentialBurst(t *testing.T) {
	const (
		burst        = 16
		dontFragment = 0x4000
	)
	d := newDiffer(t, kernelVNI, false)
	for name, spoil := range map[string]func(*frame){
		"nothing":                 func(*frame) {},
		"one bad UDP checksum":    func(f *frame) { f.udpSum = 0x0100 },
		"one bad IP checksum":     func(f *frame) { f.ipSum = 0x0100 },
		"one without a checksum":  func(f *frame) { f.noUDPSum = true },
		"one with reserved bits":  func(f *frame) { f.header = 1 },
		"one of another VNI":      func(f *frame) { f.vni++ },
		"one with another TOS":    func(f *frame) { f.tos = 0x20 },
		"one with another TTL":    func(f *frame) { f.ttl = 7 },
		"one to another MAC":      func(f *frame) { f.dst[5]++ },
		"one shorter":             func(f *frame) { f.payload = f.payload[:4] },
		"one longer":              func(f *frame) { f.payload = []byte(strings.Repeat("x", 100)) },
		"one with padding behind": func(f *frame) { f.padding = 6 },
		"one empty":               func(f *frame) { f.payload = nil },
		"one of another flow":     func(f *frame) { f.port = 9 },
		"one with another ID":     func(f *frame) { f.id = 999 },
	} {
		for _, fragment := range []uint16{0, dontFragment} {
			got := d.compare("burst, "+name, 0, false, func(f frame) (out [][]byte) {
				for i := range burst {
					g := f
					g.payload = fmt.Appendf(nil, "%s %02d", f.payload, i)
					g.fragment, g.id = fragment, uint16(i)
					if i == burst/2 {
						spoil(&g)
					}
					out = append(out, g.marshal())
				}
				return out
			})
			if len(got) < burst-1 {
				t.Errorf("burst, %s: only %d of %d let through", name, len(got), burst)
			}
		}
	}
}

// A datagram without an outer checksum is a good one (RFC 7348 §5, RFC 6935), over
// IPv6 too, where a kernel VXLAN device has to be told so.
func TestNoOuterChecksum(t *testing.T) {
	eachUnderlay(t, kernelVNI, func(t *testing.T, d *differ) {
		if d.v6 {
			setOption(t, d.sender, unix.IPPROTO_UDP, unix.UDP_NO_CHECK6_TX, 1)
		} else {
			setOption(t, d.sender, unix.SOL_SOCKET, unix.SO_NO_CHECK, 1)
		}
		ovnd := d.targets[1]
		d.through(ovnd, d.frame(ovnd, false))
	})
}

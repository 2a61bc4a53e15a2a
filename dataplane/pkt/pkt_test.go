package pkt

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ovnd/ovnd/encap"
)

var (
	src4, dst4 = netip.MustParseAddr("10.10.0.3"), netip.MustParseAddr("10.10.0.4")
	src6, dst6 = netip.MustParseAddr("fd00::3"), netip.MustParseAddr("fd00::4")
)

// super builds a super-packet as a TUN gives it: checksums left partial.
func super(v6, tcp bool, payload []byte, size int) (Meta, []byte) {
	transport := make([]byte, encap.UDPHeaderLen, 64)
	m := Meta{Flags: NeedsChecksum, GSO: GSOUDP, GSOSize: uint16(size), CsumOffset: encap.UDPChecksumOffset}
	protocol := encap.ProtocolUDP
	if tcp {
		protocol = encap.ProtocolTCP
		transport = transport[:32] // timestamps, as Linux lays them out
		copy(transport[20:], []byte{1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8})
		binary.BigEndian.PutUint32(transport[4:], 0xfffffe00) // wraps
		binary.BigEndian.PutUint32(transport[8:], 77)
		transport[12] = 8 << 4
		encap.TCP(transport).SetFlags(encap.TCPFlagACK | encap.TCPFlagPSH)
		binary.BigEndian.PutUint16(transport[14:], 501)
		m.GSO, m.CsumOffset = GSOTCPv4, encap.TCPChecksumOffset
		if v6 {
			m.GSO = GSOTCPv6
		}
	}
	binary.BigEndian.PutUint16(transport, 4242)
	binary.BigEndian.PutUint16(transport[2:], 5201)
	body := append(transport, payload...)
	if !tcp {
		encap.UDP(body).SetLength(len(body))
	}
	b := make([]byte, MetaLen+encap.IPv6HeaderLen+len(body))
	var pseudo encap.Sum
	if v6 {
		p := encap.PutIPv6(b[MetaLen:], src6, dst6, protocol, 64, len(body))
		m.CsumStart, pseudo = encap.IPv6HeaderLen, p.PseudoSum(protocol, len(body))
	} else {
		b = b[:len(b)-encap.IPv6HeaderLen+encap.IPv4HeaderLen]
		p := encap.PutIPv4(b[MetaLen:], src4, dst4, protocol, len(body))
		p.SetID(0xfffe)
		p.UpdateChecksum()
		m.CsumStart, pseudo = encap.IPv4HeaderLen, p.PseudoSum(protocol, len(body))
	}
	binary.BigEndian.PutUint16(body[m.CsumOffset:], uint16(pseudo))
	copy(b[MetaLen+int(m.CsumStart):], body)
	if size == 0 || len(payload) <= size {
		m.GSO, m.GSOSize = GSONone, 0
	}
	m.Put(b)
	return m, b
}

// split takes a super-packet apart, and checks every wire packet.
func split(t *testing.T, frame, prefix []byte) [][]byte {
	t.Helper()
	ip, err := encap.ParseIP(frame[MetaLen:])
	if err != nil {
		t.Fatal(err)
	}
	plan, err := NewPlan(ParseMeta(frame), ip)
	if err != nil {
		t.Fatal(err)
	}
	wire := make([]byte, plan.Count()*(len(prefix)+plan.Len()))
	// In two parts, as happens where one send does not take all.
	half := plan.Count() / 2
	n := 0
	if half > 0 {
		n = plan.Put(wire, prefix, 0, 0, half)
	}
	n += plan.Put(wire[n:], prefix, 0, half, plan.Count())
	if want := plan.WireLen() + plan.Count()*len(prefix); n != want {
		t.Fatalf("Put wrote %d bytes, want %d", n, want)
	}
	var out [][]byte
	for wire = wire[:n]; len(wire) > 0; {
		size := min(len(prefix)+plan.Len(), len(wire))
		if !bytes.Equal(wire[:len(prefix)], prefix) {
			t.Fatalf("packet %d: prefix %x", len(out), wire[:len(prefix)])
		}
		p := wire[len(prefix):size]
		ip, err := encap.ParseIP(p)
		if err != nil || len(ip.Packet) != len(p) || !checksumsOK(ip) {
			t.Fatalf("packet %d of %d: %v, %d of %d bytes, checksums right: %t",
				len(out), plan.Count(), err, len(ip.Packet), len(p), err == nil && checksumsOK(ip))
		}
		out = append(out, p)
		wire = wire[size:]
	}
	if len(out) != plan.Count() || len(out[len(out)-1]) != plan.LastLen() {
		t.Fatalf("%d packets, the last of %d bytes; want %d, %d", len(out), len(out[len(out)-1]), plan.Count(), plan.LastLen())
	}
	return out
}

func checksumsOK(ip encap.IP) bool {
	return (ip.Is6() || encap.IPv4(ip.Packet).ChecksumOK()) && ip.TransportChecksumOK()
}

// A sink keeps copies of what a Joiner writes.
type sink struct {
	frames  [][]byte
	packets int
	noUDP   bool
}

func (s *sink) JoinsUDP() bool { return !s.noUDP }

func (s *sink) WriteSuper(pieces []unix.Iovec, packets, size int) {
	var b []byte
	for _, p := range pieces {
		b = append(b, unsafe.Slice(p.Base, p.Len)...)
	}
	s.frames = append(s.frames, b)
	s.packets += packets
}

// join feeds wire packets to a Joiner, and to another one by way of Extend, which
// must write the same.
func join(t *testing.T, s *sink, packets [][]byte) {
	t.Helper()
	quick := &sink{noUDP: s.noUDP}
	feed(t, s, packets, false)
	feed(t, quick, packets, true)
	if !reflect.DeepEqual(quick.frames, s.frames[len(s.frames)-len(quick.frames):]) {
		t.Errorf("Extend makes a difference: %x, without it %x", quick.frames, s.frames)
	}
}

func feed(t *testing.T, s *sink, packets [][]byte, extend bool) {
	t.Helper()
	j := NewJoiner()
	for _, p := range packets {
		frame := append(make([]byte, MetaLen), p...)
		if extend && j.Extend(frame[MetaLen:], false) {
			continue
		}
		ip, err := encap.ParseIP(frame[MetaLen:])
		if err != nil {
			t.Fatal(err)
		}
		j.Add(s, frame, ip, false)
	}
	j.Flush()
}

// TestSplitJoin takes super-packets apart and puts them together again: the same
// packet must come out, with metadata that NewPlan accepts.
func TestSplitJoin(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, v6 := range []bool{false, true} {
		for _, tcp := range []bool{false, true} {
			for _, size := range []int{1, 7, 512, 1398} {
				for _, n := range []int{1, size, size + 1, 3 * size, 20*size + 5, 44 * size} {
					t.Run(fmt.Sprintf("v6=%t,tcp=%t,%d/%d", v6, tcp, n, size), func(t *testing.T) {
						payload := make([]byte, n)
						for i := range payload {
							payload[i] = byte(r.Uint32())
						}
						_, frame := super(v6, tcp, payload, size)
						want := bytes.Clone(frame)
						packets := split(t, frame, []byte("prefix"))
						s := &sink{}
						join(t, s, packets)
						if s.packets != len(packets) {
							t.Fatalf("%d packets joined, want %d", s.packets, len(packets))
						}
						if len(s.frames) != 1 {
							t.Fatalf("%d packets became %d, want 1", len(packets), len(s.frames))
						}
						got := s.frames[0]
						if len(packets) > 1 && !bytes.Equal(got[MetaLen:], want[MetaLen:]) {
							t.Errorf("joined\n%x, want\n%x", got[:80], want[:80])
						}
						split(t, got, nil)
					})
				}
			}
		}
	}
}

// TestJoinRefuses lists what must not be joined, though it looks alike. What is
// delivered is what came, in order.
func TestJoinRefuses(t *testing.T) {
	_, frame := super(false, true, make([]byte, 4*100), 100)
	_, other := super(false, false, make([]byte, 4*100), 100)
	fix := func(p []byte) {
		ip, _ := encap.ParseIP(p)
		encap.IPv4(p).UpdateChecksum()
		tcp := encap.TCP(ip.Payload())
		tcp.SetChecksum(0)
		tcp.SetChecksum(encap.Checksum(tcp, ip.PseudoSum(len(tcp))))
	}
	tests := []struct {
		name   string
		super  []byte
		change func(p [][]byte) [][]byte
		want   int // frames
	}{
		{"nothing", frame, func(p [][]byte) [][]byte { return p }, 1},
		{"payload corrupted", frame, func(p [][]byte) [][]byte { p[1][60] ^= 1; return p }, 3},
		{"first corrupted", frame, func(p [][]byte) [][]byte { p[0][60] ^= 1; return p }, 2},
		{"IP header corrupted", frame, func(p [][]byte) [][]byte { p[1][8]--; return p }, 3},
		{"out of order", frame, func(p [][]byte) [][]byte { p[1], p[2] = p[2], p[1]; return p }, 4},
		{"one lost", frame, func(p [][]byte) [][]byte { return append(p[:1], p[2:]...) }, 2},
		{"twice", frame, func(p [][]byte) [][]byte { return [][]byte{p[0], p[0], p[1]} }, 2},
		{"other window", frame, func(p [][]byte) [][]byte { p[2][20+15]++; fix(p[2]); return p }, 3},
		{"other ack", frame, func(p [][]byte) [][]byte { p[2][20+11]++; fix(p[2]); return p }, 3},
		{"other option", frame, func(p [][]byte) [][]byte { p[2][20+31]++; fix(p[2]); return p }, 3},
		{"other TTL", frame, func(p [][]byte) [][]byte { p[2][8]--; fix(p[2]); return p }, 3},
		{"CE", frame, func(p [][]byte) [][]byte { p[2][1] |= 3; fix(p[2]); return p }, 3},
		{"other port", frame, func(p [][]byte) [][]byte { p[3][21]++; fix(p[3]); return p }, 2},
		{"FIN", frame, func(p [][]byte) [][]byte { p[3][33] |= 1; fix(p[3]); return p }, 2},
		{"URG", frame, func(p [][]byte) [][]byte { p[2][33] |= 0x20; fix(p[2]); return p }, 3},
		{"PSH in the middle", frame, func(p [][]byte) [][]byte { p[1][33] |= 8; fix(p[1]); return p }, 2},
		{"fragment", frame, func(p [][]byte) [][]byte { p[2][6] |= 0x20; fix(p[2]); return p }, 3},
		{"UDP", other, func(p [][]byte) [][]byte { return p }, 1},
		{"UDP without checksum", other, func(p [][]byte) [][]byte { p[1][26], p[1][27] = 0, 0; return p }, 3},
		{"UDP corrupted", other, func(p [][]byte) [][]byte { p[2][40] ^= 1; return p }, 3},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var in [][]byte
			for _, p := range split(t, bytes.Clone(tt.super), nil) {
				in = append(in, bytes.Clone(p))
			}
			in = tt.change(in)
			s := &sink{}
			join(t, s, in)
			if len(s.frames) != tt.want || s.packets != len(in) {
				t.Errorf("%d packets of %d delivered in %d frames, want %d", s.packets, len(in), len(s.frames), tt.want)
			}
			// Without what joining may change, all packets are there in order.
			var got [][]byte
			for _, f := range s.frames {
				if ParseMeta(f).GSO == GSONone {
					got = append(got, f[MetaLen:])
				} else {
					got = append(got, split(t, f, nil)...)
				}
			}
			for i := range in {
				if a, b := in[i], got[i]; !bytes.Equal(a[28:], b[28:]) && !bytes.Equal(a[52:], b[52:]) {
					t.Errorf("packet %d differs:\n%x, sent\n%x", i, b, a)
				}
			}
		})
	}
}

// TestPartial has packets of a kernel VXLAN device over veth: their checksums
// were left to a network card that does not exist.
func TestPartial(t *testing.T) {
	for _, tcp := range []bool{false, true} {
		_, frame := super(false, tcp, make([]byte, 300), 100)
		var in [][]byte
		for _, p := range split(t, frame, nil) {
			p = bytes.Clone(p)
			ip, _ := encap.ParseIP(p)
			field := 20 + encap.UDPChecksumOffset
			if tcp {
				field = 20 + encap.TCPChecksumOffset
			}
			binary.BigEndian.PutUint16(p[field:], uint16(ip.PseudoSum(len(ip.Payload()))))
			in = append(in, p)
		}
		s := &sink{}
		join(t, s, in)
		join(t, s, in[2:])
		if len(s.frames) != 2 {
			t.Fatalf("tcp=%t: %d frames, want 2", tcp, len(s.frames))
		}
		for _, f := range s.frames {
			if ParseMeta(f).Flags != NeedsChecksum {
				t.Errorf("tcp=%t: metadata %+v, want NeedsChecksum", tcp, ParseMeta(f))
			}
			split(t, f, nil)
		}
	}
}

// TestExtendAfterOther: what continues an earlier packet, but not the last, may
// belong elsewhere in spite of equal addresses.
func TestExtendAfterOther(t *testing.T) {
	_, frame := super(false, true, make([]byte, 300), 100)
	segments := split(t, frame, nil)
	for name, flags := range map[string]uint16{"passed on": encap.TCPFlagACK | encap.TCPFlagURG, "complete": encap.TCPFlagACK | encap.TCPFlagPSH} {
		first, other := &sink{}, &sink{}
		j := NewJoiner()
		add := func(dst Writer, b []byte) {
			frame := append(make([]byte, MetaLen), b...)
			ip, err := encap.ParseIP(frame[MetaLen:])
			if err != nil {
				t.Fatal(err)
			}
			j.Add(dst, frame, ip, false)
		}
		add(first, segments[0])
		last := bytes.Clone(segments[0])
		encap.TCP(last[encap.IPv4HeaderLen:]).SetFlags(flags)
		add(other, last)
		if j.Extend(segments[1], false) {
			t.Errorf("%s: extended a flow that the last packet did not go to", name)
		}
		add(first, segments[0])
		j.Flush()
		if j.Extend(segments[1], false) {
			t.Errorf("%s: extended what was flushed", name)
		}
	}
}

// TestJoinManyFlows has more flows at once than a Joiner follows, and a device
// without USO.
func TestJoinManyFlows(t *testing.T) {
	var in [][]byte
	flows := make([][][]byte, 3*maxFlows)
	for i := range flows {
		_, f := super(false, i%2 == 0, make([]byte, 300), 100)
		p := split(t, f, nil)
		for _, b := range p {
			b = bytes.Clone(b)
			b[15] = byte(i) // the source address
			ip, _ := encap.ParseIP(b)
			encap.IPv4(b).UpdateChecksum()
			at := 16
			if ip.Protocol == encap.ProtocolUDP {
				at = 6
			}
			binary.BigEndian.PutUint16(b[20+at:], uint16(ip.PseudoSum(len(b)-20)))
			_ = encap.CompleteChecksum(b, 20, at)
			flows[i] = append(flows[i], b)
		}
	}
	for n := range 3 {
		for i := range flows {
			in = append(in, flows[i][n])
		}
	}
	for _, noUDP := range []bool{false, true} {
		s := &sink{noUDP: noUDP}
		join(t, s, in)
		if s.packets != len(in) {
			t.Errorf("%d packets of %d came through", s.packets, len(in))
		}
		for _, f := range s.frames {
			if noUDP && ParseMeta(f).GSO == GSOUDP {
				t.Error("a device without USO was given a UDP super-packet")
			}
			split(t, f, nil)
		}
	}
}

// TestPlanRefuses has metadata that does not fit the packet.
func TestPlanRefuses(t *testing.T) {
	_, frame := super(false, true, make([]byte, 1000), 100)
	ip, err := encap.ParseIP(frame[MetaLen:])
	if err != nil {
		t.Fatal(err)
	}
	good := ParseMeta(frame)
	for name, change := range map[string]func(*Meta){
		"size 0":           func(m *Meta) { m.GSOSize = 0 },
		"no checksum":      func(m *Meta) { m.Flags = 0 },
		"start elsewhere":  func(m *Meta) { m.CsumStart++ },
		"start outside":    func(m *Meta) { m.CsumStart = 65535 },
		"offset elsewhere": func(m *Meta) { m.CsumOffset = 6 },
		"offset outside":   func(m *Meta) { m.CsumOffset = 65535 },
		"IPv6":             func(m *Meta) { m.GSO = GSOTCPv6 },
		"UDP":              func(m *Meta) { m.GSO, m.CsumOffset = GSOUDP, 6 },
		"unknown":          func(m *Meta) { m.GSO = 7 },
		"one, outside":     func(m *Meta) { m.GSO, m.CsumOffset = GSONone, 60000 },
	} {
		m := good
		change(&m)
		if _, err := NewPlan(m, ip); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	withECN := good
	withECN.GSO |= gsoECN
	if _, err := NewPlan(withECN, ip); err != nil {
		t.Errorf("GSO_ECN flag: %v", err)
	}
}

func TestAllocations(t *testing.T) {
	_, frame := super(false, true, make([]byte, 44*1398), 1398)
	wire := make([]byte, 1<<17)
	prefix := make([]byte, 22)
	j, out := NewJoiner(), discard{}
	n := testing.AllocsPerRun(50, func() {
		ip, _ := encap.ParseIP(frame[MetaLen:])
		plan, _ := NewPlan(ParseMeta(frame), ip)
		n := plan.Put(wire, prefix, 0, 0, plan.Count())
		for at := 0; at < n; {
			b := wire[at+22-MetaLen : min(at+22+plan.Len(), n)]
			ip, _ := encap.ParseIP(b[MetaLen:])
			j.Add(out, b, ip, false)
			at += 22 + plan.Len()
		}
		j.Flush()
	})
	if n != 0 {
		t.Errorf("%v allocations a super-packet, want none", n)
	}
}

type discard struct{}

func (discard) JoinsUDP() bool                    { return true }
func (discard) WriteSuper([]unix.Iovec, int, int) {}

// FuzzSplit: any metadata and packet are refused, or give wire packets of the
// sizes that were promised.
func FuzzSplit(f *testing.F) {
	for _, v6 := range []bool{false, true} {
		for _, tcp := range []bool{false, true} {
			_, frame := super(v6, tcp, make([]byte, 500), 100)
			f.Add(frame)
		}
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		if len(frame) < MetaLen || len(frame) > MaxSuper {
			return
		}
		ip, err := encap.ParseIP(frame[MetaLen:])
		if err != nil {
			return
		}
		p, err := NewPlan(ParseMeta(frame), ip)
		if err != nil {
			return
		}
		if p.Count() > 4096 {
			return // 64 KiB in payloads of a few bytes: slow, no different
		}
		b := make([]byte, p.Count()*(p.Len()+4))
		if n := p.Put(b, []byte("abcd"), 0, 0, p.Count()); n != p.WireLen()+4*p.Count() {
			t.Errorf("%d bytes written, want %d", n, p.WireLen()+4*p.Count())
		}
	})
}

// FuzzJoin: whatever is joined, each packet is delivered once, and as a
// super-packet with sound metadata.
func FuzzJoin(f *testing.F) {
	_, frame := super(false, true, make([]byte, 300), 100)
	ip, _ := encap.ParseIP(frame[MetaLen:])
	p, _ := NewPlan(ParseMeta(frame), ip)
	b := make([]byte, p.WireLen())
	p.Put(b, nil, 0, 0, p.Count())
	f.Add(b, uint16(p.Len()))
	f.Fuzz(func(t *testing.T, b []byte, size uint16) {
		if size == 0 || len(b) > 4096 {
			return
		}
		var packets [][]byte
		for len(b) > 0 {
			n := min(int(size), len(b))
			if ip, err := encap.ParseIP(b[:n]); err == nil {
				packets = append(packets, ip.Packet)
			}
			b = b[n:]
		}
		s := &sink{}
		join(t, s, packets)
		if s.packets != len(packets) {
			t.Errorf("%d packets of %d delivered", s.packets, len(packets))
		}
		for _, f := range s.frames {
			if ParseMeta(f).GSO != GSONone {
				split(t, f, nil)
			}
		}
	})
}

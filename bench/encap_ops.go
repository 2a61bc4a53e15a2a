package bench

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/ovnd/ovnd/crypto"
	"github.com/ovnd/ovnd/dataplane/pkt"
	"github.com/ovnd/ovnd/encap"
)

// A suite is a way to put packets on the wire.
type suite struct {
	subject string
	crypto  crypto.Suite // 0: plain VXLAN
}

var suites = []suite{{Ovnd, 0}, {OvndChaCha, crypto.ChaCha20Poly1305}, {OvndAES, crypto.AES256GCM}}

func (s suite) sealed() bool { return s.crypto != 0 }

// operations are the steps that differ between suites, and for plain VXLAN those
// that all have.
func (s suite) operations() []operation {
	ops := []operation{
		{"outbound", "a super-packet taken apart and made ready to send", s.outbound, true},
		{"inbound", "what arrived, checked and put together to a super-packet", s.inbound, true},
	}
	if s.sealed() {
		return append([]operation{
			{"seal", "one packet sealed in place", s.seal, false},
			{"open", "one packet opened in place", s.open, false},
		}, ops...)
	}
	return append([]operation{
		{"parse", "VXLAN, Ethernet, IP and transport headers of one packet read", s.parse, false},
		{"wrap", "one packet copied behind VXLAN and Ethernet headers, its checksum completed", s.wrap, false},
	}, ops...)
}

// Lengths of what is before and behind the inner packet.
const (
	plainPrefix  = encap.VXLANHeaderLen + encap.EthernetHeaderLen
	sealedShim   = 4 // VNI and flags, sealed
	sealedPrefix = crypto.HeaderLen + sealedShim + encap.EthernetHeaderLen
)

func (s suite) prefix() []byte {
	mac, peer := encap.EndpointMAC(inner[0]), encap.EndpointMAC(inner[1])
	if s.sealed() {
		b := make([]byte, sealedPrefix)
		binary.BigEndian.PutUint32(b[crypto.HeaderLen:], benchVNI<<8|1) // checksums stay partial
		encap.PutEthernet(b[crypto.HeaderLen+sealedShim:], peer, mac, encap.EtherTypeIPv4)
		return b
	}
	b := make([]byte, plainPrefix)
	encap.PutVXLAN(b, benchVNI)
	encap.PutEthernet(b[encap.VXLANHeaderLen:], peer, mac, encap.EtherTypeIPv4)
	return b
}

func (s suite) tail() int {
	if s.sealed() {
		return crypto.TagLen
	}
	return 0
}

// superMTU is the inner MTU over an underlay of 1500 bytes.
func superMTU(sealed bool) int {
	if sealed {
		return encap.EncryptedInnerMTU(1500, false)
	}
	return encap.InnerMTU(1500, false)
}

// superHeaders are IPv4 and TCP with timestamps.
const superHeaders = encap.IPv4HeaderLen + 32

// superSegment is the size in bytes of a super-packet's wire packets.
func superSegment(sealed bool) int { return superMTU(sealed) }

func superPackets(sealed bool) int {
	payload := superMTU(sealed) - superHeaders
	return (superSize + payload - 1) / payload
}

// frames are a batch of inner packets as a TUN gives them: metadata, UDP, and
// checksums left partial.
func (p payload) frames() [][]byte {
	out := make([][]byte, batchPackets)
	for i := range out {
		size := p.sizes[i%len(p.sizes)]
		b := make([]byte, pkt.MetaLen+size)
		ip := encap.PutIPv4(b[pkt.MetaLen:], inner[0], inner[1], encap.ProtocolUDP, size-encap.IPv4HeaderLen)
		ip.UpdateChecksum()
		udp := encap.UDP(b[pkt.MetaLen+encap.IPv4HeaderLen:])
		binary.BigEndian.PutUint16(udp, uint16(40000+i))
		binary.BigEndian.PutUint16(udp[2:], sinkPort)
		udp.SetLength(len(udp))
		sum := uint16(ip.PseudoSum(encap.ProtocolUDP, len(udp)))
		binary.BigEndian.PutUint16(udp[encap.UDPChecksumOffset:], sum)
		pkt.Meta{
			Flags: pkt.NeedsChecksum, HeaderLen: superHeaders, CsumStart: encap.IPv4HeaderLen, CsumOffset: encap.UDPChecksumOffset,
		}.Put(b)
		out[i] = b
	}
	return out
}

// superFrame is a TCP super-packet as a TUN gives it.
func superFrame(sealed bool) []byte {
	b := make([]byte, pkt.MetaLen+superHeaders+superSize)
	ip := encap.PutIPv4(b[pkt.MetaLen:], inner[0], inner[1], encap.ProtocolTCP, superHeaders-encap.IPv4HeaderLen+superSize)
	ip.UpdateChecksum()
	tcp := b[pkt.MetaLen+encap.IPv4HeaderLen:]
	binary.BigEndian.PutUint16(tcp, 40000)
	binary.BigEndian.PutUint16(tcp[2:], sinkPort)
	tcp[12] = 8 << 4                                            // 32 bytes of header
	copy(tcp[20:], []byte{1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8}) // timestamps
	encap.TCP(tcp).SetFlags(encap.TCPFlagACK)
	binary.BigEndian.PutUint16(tcp[encap.TCPChecksumOffset:], uint16(ip.PseudoSum(encap.ProtocolTCP, len(tcp))))
	pkt.Meta{
		Flags: pkt.NeedsChecksum, GSO: pkt.GSOTCPv4, GSOSize: uint16(superMTU(sealed) - superHeaders), HeaderLen: superHeaders,
		CsumStart: encap.IPv4HeaderLen, CsumOffset: encap.TCPChecksumOffset,
	}.Put(b)
	return b
}

// readdress changes the destination of a frame of frames, its checksums' part of it
// included.
func readdress(frame []byte, to netip.Addr) {
	ip := encap.IPv4(frame[pkt.MetaLen:])
	copy(ip[16:20], to.AsSlice())
	ip.UpdateChecksum()
}

func nothing() {}

// datagrams are the batch on the wire.
func (s suite) datagrams(load payload) (wire [][]byte, err error) {
	prefix := s.prefix()
	for _, frame := range load.frames() {
		plan, err := planOf(frame)
		if err != nil {
			return nil, err
		}
		b := make([]byte, len(prefix)+plan.WireLen()+s.tail())
		plan.Put(b, prefix, s.tail(), 0, 1)
		wire = append(wire, b)
	}
	return wire, nil
}

func planOf(frame []byte) (pkt.Plan, error) {
	ip, err := encap.ParseIP(frame[pkt.MetaLen:])
	if err != nil {
		return pkt.Plan{}, err
	}
	return pkt.NewPlan(pkt.ParseMeta(frame), ip)
}

func (s suite) parse(load payload) (setUp, run func(), err error) {
	wire, err := s.datagrams(load)
	if err != nil {
		return nil, nil, err
	}
	var hash uint32 // kept, so that nothing can be left out
	return nothing, func() {
		for _, b := range wire {
			_, frame, err := encap.ParseVXLAN(b, encap.ReservedDrop)
			if err != nil {
				panic(err)
			}
			_, _, _, packet, err := encap.ParseEthernet(frame)
			if err != nil {
				panic(err)
			}
			ip, err := encap.ParseIP(packet)
			if err != nil {
				panic(err)
			}
			hash ^= ip.FlowHash()
		}
	}, nil
}

func (s suite) wrap(load payload) (setUp, run func(), err error) {
	frames, prefix := load.frames(), s.prefix()
	out := make([]byte, 1<<16)
	return nothing, func() {
		for _, frame := range frames {
			plan, err := planOf(frame)
			if err != nil {
				panic(err)
			}
			plan.Put(out, prefix, s.tail(), 0, 1)
		}
	}, nil
}

// sessions returns the ends of a session, and what renews them when the keys have
// sealed as much as they may.
func (s suite) sessions() (a, b **crypto.Session, renew func()) {
	a, b = new(*crypto.Session), new(*crypto.Session)
	n := 0
	return a, b, func() {
		const often = 1 << 12 // batches; far below any limit
		if n%often == 0 {
			var err error
			if *a, *b, err = crypto.Pair(s.crypto); err != nil {
				panic(err) // the machine has no random numbers
			}
		}
		n++
	}
}

// sealAll seals the datagrams that lie one behind the other in b.
func sealAll(session *crypto.Session, b []byte, size, count int) {
	counter, ok := session.Reserve(count)
	if !ok {
		panic("the session seals no more")
	}
	for ; len(b) > 0; counter++ {
		n := min(size, len(b))
		session.Seal(b[:n], counter)
		b = b[n:]
	}
}

func (s suite) seal(load payload) (setUp, run func(), err error) {
	wire, err := s.datagrams(load)
	if err != nil {
		return nil, nil, err
	}
	a, _, renew := s.sessions()
	return renew, func() {
		for _, b := range wire {
			sealAll(*a, b, len(b), 1)
		}
	}, nil
}

func (s suite) open(load payload) (setUp, run func(), err error) {
	wire, err := s.datagrams(load)
	if err != nil {
		return nil, nil, err
	}
	a, b, renew := s.sessions()
	counters, fresh := make([]uint64, len(wire)), make([]bool, len(wire))
	return func() {
			renew()
			for _, d := range wire {
				sealAll(*a, d, len(d), 1)
			}
		}, func() {
			for i, d := range wire {
				var ok bool
				if _, counters[i], ok = (*b).Open(d); !ok {
					panic("what was sealed does not open")
				}
			}
			(*b).Accept(counters, fresh)
		}, nil
}

func (s suite) outbound(payload) (setUp, run func(), err error) {
	frame, prefix := superFrame(s.sealed()), s.prefix()
	plan, err := planOf(frame)
	if err != nil {
		return nil, nil, err
	}
	out := make([]byte, 1<<17)
	if !s.sealed() {
		return nothing, func() {
			plan, err := planOf(frame)
			if err != nil {
				panic(err)
			}
			plan.Put(out, prefix, 0, 0, plan.Count())
		}, nil
	}
	a, _, renew := s.sessions()
	size := len(prefix) + plan.Len() + s.tail()
	return renew, func() {
		plan, err := planOf(frame)
		if err != nil {
			panic(err)
		}
		plan.LeavePartial()
		n := plan.Put(out, prefix, s.tail(), 0, plan.Count())
		sealAll(*a, out[:n], size, plan.Count())
	}, nil
}

// discard is a TUN that takes everything.
type discard struct{}

func (discard) WriteSuper([]unix.Iovec, int, int) {}
func (discard) JoinsUDP() bool                    { return true }

func (s suite) inbound(payload) (setUp, run func(), err error) {
	plan, err := planOf(superFrame(s.sealed()))
	if err != nil {
		return nil, nil, err
	}
	if s.sealed() {
		plan.LeavePartial()
	}
	prefix := s.prefix()
	plain := make([]byte, 1<<17)
	n := plan.Put(plain, prefix, s.tail(), 0, plan.Count())
	size := len(prefix) + plan.Len() + s.tail()
	wire := make([]byte, n)
	join := pkt.NewJoiner()
	if !s.sealed() {
		// The first packet's headers become the super-packet's.
		return func() { copy(wire, plain[:n]) }, func() {
			for at := 0; at < n; at += size {
				joinOne(join, discard{}, wire[at:min(at+size, n)], plainPrefix, false)
			}
			join.Flush()
		}, nil
	}
	a, b, renew := s.sessions()
	counters, fresh := make([]uint64, plan.Count()), make([]bool, plan.Count())
	return func() {
			renew()
			copy(wire, plain[:n])
			sealAll(*a, wire, size, plan.Count())
		}, func() {
			for i := range plan.Count() {
				var ok bool
				if _, counters[i], ok = (*b).Open(wire[i*size : min((i+1)*size, n)]); !ok {
					panic("what was sealed does not open")
				}
			}
			(*b).Accept(counters, fresh)
			for at := 0; at < n; at += size {
				joinOne(join, discard{}, wire[at:min(at+size, n)-crypto.TagLen], sealedPrefix, true)
			}
			join.Flush()
		}, nil
}

// joinOne gives one datagram to the joiner, as the data plane does.
func joinOne(join *pkt.Joiner, to pkt.Writer, b []byte, prefix int, partial bool) {
	packet := b[prefix:]
	if join.Extend(packet, partial) {
		return
	}
	ip, err := encap.ParseIP(packet)
	if err != nil {
		panic(err)
	}
	join.Add(to, b[prefix-pkt.MetaLen:], ip, partial)
}

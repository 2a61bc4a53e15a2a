package pkt

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/ovnd/ovnd/encap"
)

const (
	// maxFlows is how many flows are put together at the same time: the flows
	// of small packets come mixed in one batch.
	maxFlows = 16
	// maxPackets is what one super-packet may stand for: UDP_MAX_SEGMENTS of
	// kernels before 6.9, and what UDP_GRO hands over at most.
	maxPackets = 64
)

// A Writer takes super-packets, to write them to a TUN.
type Writer interface {
	// WriteSuper takes one super-packet in pieces, the first of which begins
	// with its metadata. It stands for packets wire packets, which have size
	// bytes in all. It must not keep the pieces.
	WriteSuper(pieces []unix.Iovec, packets, size int)
	// JoinsUDP reports whether UDP super-packets (USO) are taken: by kernels
	// from 6.2 on. TCP's always are.
	JoinsUDP() bool
}

// A Joiner puts consecutive packets of a flow, TCP segments or UDP datagrams of
// one size, together again to super-packets, as Linux's GRO does. The packets of
// a flow keep their order. Only packets whose checksums are right are joined,
// since the kernel trusts those of a super-packet; others pass as they are, for
// the receiver to judge.
//
// A Joiner is for one goroutine, and does not allocate.
type Joiner struct {
	flows [maxFlows]*flow // the first n are in use
	n     int
	last  int // where the last packet went; maxFlows if it waits no more
}

// A flow is a super-packet that grows.
type flow struct {
	dst       Writer
	meta      []byte   // room for the metadata, before the first packet
	ip        encap.IP // the first packet
	headerLen int      // of IP and transport
	size      int      // payload bytes of the first packet
	total     int      // bytes of the super-packet
	wire      int      // bytes of the wire packets
	count     int
	next      uint32    // TCP sequence number
	lastID    uint16    // IPv4 identification of the last packet
	pseudo    encap.Sum // of the pseudo-header without length
	tcp       bool      // or else UDP
	verified  bool      // the first packet's checksums are right
	push      bool      // the last packet has PSH
	short     bool      // the last packet is shorter than the first
	pieces    [maxPackets]unix.Iovec
}

// NewJoiner returns a Joiner without packets.
func NewJoiner() *Joiner {
	j := &Joiner{}
	flows := new([maxFlows]flow)
	for i := range flows {
		j.flows[i] = &flows[i]
	}
	return j
}

// Add takes the packet ip for dst. frame is where it lies, with [MetaLen] bytes
// of room before it, which are overwritten; it must stay as it is until
// [Joiner.Flush]. With partial the transport checksum is the sum of the
// pseudo-header alone, by agreement with the sender.
func (j *Joiner) Add(dst Writer, frame []byte, ip encap.IP, partial bool) {
	headerLen := joinable(&ip)
	if i := j.find(dst, &ip); i >= 0 {
		f := j.flows[i]
		if headerLen > 0 && f.append(ip.Packet, headerLen, partial) {
			j.last = i
			if f.complete() {
				j.remove(i)
			}
			return
		}
		j.remove(i)
	}
	if j.n == maxFlows {
		j.remove(0)
	}
	f := j.flows[j.n]
	f.start(dst, frame, &ip, headerLen)
	if headerLen == 0 || f.complete() || ip.Protocol == encap.ProtocolUDP && !dst.JoinsUDP() {
		j.last = maxFlows
		f.write()
		return
	}
	j.last = j.n
	j.n++
}

// Extend takes the packet b, which must stay as it is until [Joiner.Flush], if it
// is the next TCP segment of the flow that the packet before it went to, with the
// same addresses. It does what [Joiner.Add] would, for a fraction of the time, so
// that what was decided about that packet need not be decided again. Otherwise
// it does nothing and returns false.
func (j *Joiner) Extend(b []byte, partial bool) bool {
	if j.last >= j.n || !j.flows[j.last].extend(b, partial) {
		return false
	}
	if j.flows[j.last].complete() {
		j.remove(j.last)
	}
	return true
}

// Flush writes what is still growing.
func (j *Joiner) Flush() {
	for _, f := range j.flows[:j.n] {
		f.write()
	}
	j.n = 0
}

// remove writes flow i and takes it out of those in use.
func (j *Joiner) remove(i int) {
	j.flows[i].write()
	j.n--
	j.flows[i], j.flows[j.n] = j.flows[j.n], j.flows[i]
	j.last = maxFlows
}

// find returns the flow that ip belongs to, -1 if there is none.
func (j *Joiner) find(dst Writer, ip *encap.IP) int {
	if j.last < j.n && j.flows[j.last].matches(dst, ip) {
		return j.last
	}
	for i, f := range j.flows[:j.n] {
		if f.matches(dst, ip) {
			return i
		}
	}
	return -1
}

// What follows runs for each packet of a bulk transfer, so it looks at bytes
// rather than through the views of package encap, which take half as long again.

// matches compares addresses, protocol and ports.
func (f *flow) matches(dst Writer, ip *encap.IP) bool {
	a, b := f.ip.Packet, ip.Packet
	at := ip.Transport
	if f.dst != dst || f.ip.Protocol != ip.Protocol || f.ip.Transport != at || a[0] != b[0] || len(b) < at+4 {
		return false
	}
	if b[0]>>4 == 6 {
		return string(a[8:40]) == string(b[8:40]) && string(a[at:at+4]) == string(b[at:at+4])
	}
	return string(a[12:20]) == string(b[12:20]) && string(a[at:at+4]) == string(b[at:at+4])
}

// joinable returns how long the headers of a packet are that may begin or
// continue a super-packet, its checksums aside, and 0 for any other.
func joinable(ip *encap.IP) (headerLen int) {
	b, at := ip.Packet, ip.Transport
	if b[0]>>4 == 6 {
		if at != encap.IPv6HeaderLen {
			return 0
		}
	} else if at != encap.IPv4HeaderLen || binary.BigEndian.Uint16(b[6:])&^ipv4DontFragment != 0 {
		return 0
	}
	switch {
	case ip.Protocol == encap.ProtocolTCP && len(b) > at+encap.TCPHeaderLen:
		// Data and nothing out of the ordinary.
		const plain = encap.TCPFlagACK | encap.TCPFlagPSH | encap.TCPFlagECE
		word := binary.BigEndian.Uint16(b[at+12:])
		flags, n := word&0x0fff, int(word>>12)*4
		if flags&^plain != 0 || flags&encap.TCPFlagACK == 0 || n < encap.TCPHeaderLen || at+n >= len(b) {
			return 0
		}
		return at + n
	case ip.Protocol == encap.ProtocolUDP && len(b) > at+encap.UDPHeaderLen:
		// Without a checksum there is nothing that vouches for the data.
		u := encap.UDP(b[at:])
		if u.Length() != len(u) || u.Checksum() == 0 {
			return 0
		}
		return at + encap.UDPHeaderLen
	}
	return 0
}

// ipv4DontFragment is the DF flag in the word of flags and fragment offset (RFC
// 791 §3.1).
const ipv4DontFragment = 0x4000

// start begins a super-packet; headerLen is 0 if nothing may be added to it.
func (f *flow) start(dst Writer, frame []byte, ip *encap.IP, headerLen int) {
	f.dst, f.meta, f.ip, f.headerLen = dst, frame[:MetaLen], *ip, headerLen
	f.size = len(ip.Packet) - headerLen
	f.total, f.wire, f.count = len(ip.Packet), len(ip.Packet), 1
	f.verified, f.push, f.short = false, false, false
	f.pieces[0] = piece(frame[:MetaLen+len(ip.Packet)])
	if headerLen > 0 {
		f.tcp = ip.Protocol == encap.ProtocolTCP
		f.pseudo = ip.PseudoSum(0)
		f.note(ip.Packet, f.size)
	}
}

// append adds a packet of the flow if it continues the super-packet.
func (f *flow) append(b []byte, headerLen int, partial bool) bool {
	payload := len(b) - headerLen
	if headerLen != f.headerLen || payload > f.size || f.total+payload > MaxIP || !f.continuedBy(b) {
		return false
	}
	f.verified = f.verified || f.checksumsOK(f.ip.Packet, partial)
	if !f.verified || !f.checksumsOK(b, partial) {
		return false
	}
	f.pieces[f.count] = piece(b[headerLen:])
	f.count++
	f.total += payload
	f.wire += len(b)
	f.short = payload < f.size
	f.note(b, payload)
	return true
}

// extend is append for any bytes. It looks at what append takes for granted: the
// version, the length, the protocol, addresses and ports.
func (f *flow) extend(b []byte, partial bool) bool {
	a := f.ip.Packet
	if !f.tcp || len(b) <= f.headerLen || a[0] != b[0] {
		return false
	}
	if f.ip.Is6() {
		if int(binary.BigEndian.Uint16(b[4:]))+encap.IPv6HeaderLen != len(b) || a[6] != b[6] || string(a[8:44]) != string(b[8:44]) {
			return false
		}
	} else if int(binary.BigEndian.Uint16(b[2:])) != len(b) || a[9] != b[9] || string(a[12:24]) != string(b[12:24]) {
		return false
	}
	return f.append(b, f.headerLen, partial)
}

// note keeps what the next packet is compared with.
func (f *flow) note(b []byte, payload int) {
	f.lastID = binary.BigEndian.Uint16(b[4:]) // of IPv4
	if f.tcp {
		t := b[f.ip.Transport:]
		f.next = binary.BigEndian.Uint32(t[4:]) + uint32(payload)
		f.push = t[13]&uint8(encap.TCPFlagPSH) != 0
	}
}

// continuedBy reports whether the headers of b are what splitting the
// super-packet would give: all equal but for lengths, checksums, the next
// sequence number, PSH, and an IPv4 identification that counts up unless DF makes
// it meaningless (RFC 6864 §4.1).
func (f *flow) continuedBy(b []byte) bool {
	a, at := f.ip.Packet, f.ip.Transport
	if b[0]>>4 == 6 {
		// Traffic class, flow label and hop limit.
		if string(a[:4]) != string(b[:4]) || a[7] != b[7] {
			return false
		}
	} else if a[1] != b[1] || string(a[6:9]) != string(b[6:9]) || // TOS, DF and TTL
		b[6]&(ipv4DontFragment>>8) == 0 && binary.BigEndian.Uint16(b[4:]) != f.lastID+1 {
		return false
	}
	if !f.tcp {
		return true
	}
	t, u := a[at:f.headerLen], b[at:f.headerLen]
	return binary.BigEndian.Uint32(u[4:]) == f.next &&
		string(t[8:13]) == string(u[8:13]) && // acknowledgment, data offset
		(t[13]^u[13])&^uint8(encap.TCPFlagPSH) == 0 &&
		string(t[14:16]) == string(u[14:16]) && // window
		string(t[encap.TCPHeaderLen:]) == string(u[encap.TCPHeaderLen:])
}

// checksumsOK reports whether the checksums of a packet of the flow are right,
// or left partial; agreed says that they should be.
func (f *flow) checksumsOK(b []byte, agreed bool) bool {
	at := f.ip.Transport
	if b[0]>>4 == 4 && encap.SumBytes(b[:at]).Checksum() != 0 {
		return false
	}
	pseudo := f.pseudo.AddUint32(uint32(len(b) - at))
	partial := binary.BigEndian.Uint16(b[at+f.checksumField():]) == uint16(pseudo)
	return partial || !agreed && encap.Checksum(b[at:], pseudo) == 0
}

func (f *flow) checksumField() int {
	if f.tcp {
		return encap.TCPChecksumOffset
	}
	return encap.UDPChecksumOffset
}

// complete reports whether nothing may follow: the last packet was short, asked
// for delivery (PSH), or was the last for which there is room.
func (f *flow) complete() bool { return f.push || f.short || f.count == maxPackets }

// PartialChecksum returns the offset of the checksum field in ip's transport
// header if the field holds the sum of the pseudo-header alone, and -1 if not.
// A kernel VXLAN device leaves it to the network card to complete; over veth, or
// between a virtual machine and its host, there is none, and the packet never
// was where it could be damaged.
func PartialChecksum(ip encap.IP) int {
	field := 0
	switch ip.Protocol {
	case encap.ProtocolTCP:
		field = encap.TCPChecksumOffset
	case encap.ProtocolUDP:
		field = encap.UDPChecksumOffset
	default:
		return -1
	}
	b := ip.Payload()
	if ip.IsFragment() || len(b) < field+2 || binary.BigEndian.Uint16(b[field:]) != uint16(ip.PseudoSum(len(b))) {
		return -1
	}
	return field
}

// SingleMeta returns the metadata of a packet that stands for itself.
func SingleMeta(ip encap.IP) Meta {
	if field := PartialChecksum(ip); field >= 0 {
		return Meta{Flags: NeedsChecksum, CsumStart: uint16(ip.Transport), CsumOffset: uint16(field)}
	}
	return Meta{}
}

// write hands the super-packet over, its headers and metadata made to fit.
func (f *flow) write() {
	if f.count == 1 {
		m := SingleMeta(f.ip)
		if m == (Meta{}) && f.verified {
			m.Flags = DataValid
		}
		m.Put(f.meta)
	} else {
		f.finish().Put(f.meta)
	}
	f.dst.WriteSuper(f.pieces[:f.count], f.count, f.wire)
	f.dst = nil
}

// finish makes the first packet's headers those of the super-packet.
func (f *flow) finish() Meta {
	// The view of the first packet ends with it, so lengths come from f.total.
	b, at := f.ip.Packet, f.ip.Transport
	m := Meta{
		Flags: NeedsChecksum, HeaderLen: uint16(f.headerLen),
		GSOSize: uint16(f.size), CsumStart: uint16(at),
	}
	length := f.total - at
	pseudo := uint16(f.ip.PseudoSum(length))
	if f.ip.Is6() {
		encap.IPv6(b).SetPayloadLen(f.total - encap.IPv6HeaderLen)
	} else {
		encap.IPv4(b).SetTotalLen(f.total)
		encap.IPv4(b).UpdateChecksum()
	}
	if f.ip.Protocol == encap.ProtocolUDP {
		u := encap.UDP(b[at:])
		u.SetLength(length)
		// Not SetChecksum: a sum of zero is no checksum yet.
		binary.BigEndian.PutUint16(u[encap.UDPChecksumOffset:], pseudo)
		m.GSO, m.CsumOffset = GSOUDP, encap.UDPChecksumOffset
		return m
	}
	t := encap.TCP(b[at:])
	t.SetChecksum(pseudo)
	if f.push {
		t.SetFlags(t.Flags() | encap.TCPFlagPSH)
	}
	m.GSO, m.CsumOffset = GSOTCPv4, encap.TCPChecksumOffset
	if f.ip.Is6() {
		m.GSO = GSOTCPv6
	}
	return m
}

func piece(b []byte) unix.Iovec {
	iov := unix.Iovec{Base: &b[0]}
	iov.SetLen(len(b))
	return iov
}

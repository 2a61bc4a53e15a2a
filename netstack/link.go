package netstack

import (
	"sync"
	"sync/atomic"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/log"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"

	"github.com/ovnd/ovnd/dataplane/pkt"
	"github.com/ovnd/ovnd/encap"
)

const (
	// wireSegments is how many wire packets one UDP_SEGMENT send may hold on
	// every kernel, and wireMax how many bytes over either kind of underlay.
	wireSegments = 64
	wireMax      = 65535 - encap.IPv6HeaderLen - encap.UDPHeaderLen
	// wirePrefix is what precedes each packet there.
	wirePrefix = encap.VXLANHeaderLen + encap.EthernetHeaderLen
	// keepScratch is the largest scratch buffer that is kept, in bytes.
	keepScratch = 4 * pkt.MaxSuper
)

// A Link is the gVisor end of a stack port: a [stack.LinkEndpoint] without link
// headers that does segmentation offload (gVisor calls it host GSO) both ways.
// All methods are safe for concurrent use.
type Link struct {
	send       func(frames [][]byte)
	mtu        atomic.Uint32
	dispatcher atomic.Pointer[attached]
	scratch    sync.Pool // of *scratch
	stats      linkCounters
}

type attached struct{ stack.NetworkDispatcher }

// A scratch is what one call of WritePackets gathers frames in.
type scratch struct {
	buf    []byte
	frames [][]byte
}

type linkCounters struct {
	in, out, malformed, badChecksum atomic.Uint64
}

// LinkStats counts wire packets: each that a super-packet stands for.
type LinkStats struct {
	In, Out     uint64
	Malformed   uint64 // among those in: no IP packet, or metadata that does not fit
	BadChecksum uint64 // among those in
}

var (
	_ stack.LinkEndpoint = (*Link)(nil)
	_ stack.GSOEndpoint  = (*Link)(nil)
)

// quiet has gVisor write no lines to standard error about packets that it finds
// odd: those are counted.
var quiet = sync.OnceFunc(func() { log.SetLevel(log.Warning) })

// NewLink returns the gVisor end of a stack port. mtu is the network's, in bytes.
// send takes frames, each virtio metadata and one IP super-packet, which are lent
// to it until it returns; it is called from many goroutines, with locks of gVisor
// held, and must not call [Link.Deliver].
func NewLink(mtu int, send func(frames [][]byte)) *Link {
	quiet()
	l := &Link{send: send}
	l.mtu.Store(uint32(mtu))
	l.scratch.New = func() any { return &scratch{buf: make([]byte, 0, pkt.MaxSuper)} }
	return l
}

// Stats returns what went through the link since it was made.
func (l *Link) Stats() LinkStats {
	return LinkStats{
		In: l.stats.in.Load(), Out: l.stats.out.Load(),
		Malformed: l.stats.malformed.Load(), BadChecksum: l.stats.badChecksum.Load(),
	}
}

// Deliver gives the stack one super-packet behind its virtio metadata, which is
// copied. packets is how many wire packets it stands for. Before the link is
// attached, and after it is closed, it does nothing.
func (l *Link) Deliver(frame []byte, packets int) {
	d := l.dispatcher.Load()
	if d == nil {
		return
	}
	l.stats.in.Add(uint64(packets))
	if len(frame) < pkt.MetaLen {
		l.stats.malformed.Add(uint64(packets))
		return
	}
	meta := pkt.ParseMeta(frame)
	ip, err := encap.ParseIP(frame[pkt.MetaLen:])
	if err != nil {
		l.stats.malformed.Add(uint64(packets))
		return
	}
	plan, err := pkt.NewPlan(meta, ip)
	if err != nil {
		l.stats.malformed.Add(uint64(packets))
		return
	}
	if !intact(meta, ip) {
		l.stats.badChecksum.Add(uint64(packets))
		return
	}
	if meta.GSO != pkt.GSOUDP {
		d.deliver(buffer.NewViewWithData(ip.Packet), ip)
		return
	}
	// gVisor takes TCP segments of any size, datagrams one by one.
	for i := range plan.Count() {
		size := plan.Len()
		if i == plan.Count()-1 {
			size = plan.LastLen()
		}
		v := buffer.NewViewSize(size)
		plan.Put(v.AsSlice(), nil, 0, i, i+1)
		d.deliver(v, ip)
	}
}

// deliver gives away v, which holds an IP packet of like's version.
func (d *attached) deliver(v *buffer.View, like encap.IP) {
	protocol := header.IPv4ProtocolNumber
	if like.Is6() {
		protocol = header.IPv6ProtocolNumber
	}
	p := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithView(v)})
	d.DeliverNetworkPacket(protocol, p)
	p.DecRef()
}

// intact reports whether the checksums of ip are right, as far as the metadata
// says that somebody must look: gVisor knows for a link only that nobody must, or
// that everybody must. A fragment's transport checksum covers what is elsewhere
// and is not looked at.
func intact(meta pkt.Meta, ip encap.IP) bool {
	if !ip.Is6() && !encap.IPv4(ip.Packet).ChecksumOK() {
		return false
	}
	if meta.Flags&(pkt.NeedsChecksum|pkt.DataValid) != 0 || ip.IsFragment() {
		return true
	}
	if ip.Protocol != encap.ProtocolTCP && ip.Protocol != encap.ProtocolUDP {
		return true // gVisor looks at ICMP's itself
	}
	return ip.TransportChecksumOK()
}

// WritePackets implements [stack.LinkWriter]. All packets of a call are lent to
// send at once.
func (l *Link) WritePackets(list stack.PacketBufferList) (int, tcpip.Error) {
	if l.dispatcher.Load() == nil {
		return 0, &tcpip.ErrClosedForSend{}
	}
	packets := list.AsSlice()
	size, wire := 0, 0
	for _, p := range packets {
		size += pkt.MetaLen + p.Size()
		wire += wirePackets(p)
	}
	s := l.scratch.Get().(*scratch)
	if cap(s.buf) < size {
		s.buf = make([]byte, 0, size)
	}
	s.buf, s.frames = s.buf[:0], s.frames[:0]
	for _, p := range packets {
		at := len(s.buf)
		s.buf = appendFrame(s.buf, p)
		s.frames = append(s.frames, s.buf[at:len(s.buf):len(s.buf)])
	}
	l.stats.out.Add(uint64(wire))
	l.send(s.frames)
	if cap(s.buf) <= keepScratch {
		l.scratch.Put(s)
	}
	return len(packets), nil
}

// appendFrame appends the metadata of p, and p.
func appendFrame(b []byte, p *stack.PacketBuffer) []byte {
	at := len(b)
	b = b[:at+pkt.MetaLen] // WritePackets has made room
	metaOf(p).Put(b[at:])
	views, skip := p.AsViewList()
	for v := views.Front(); v != nil; v = v.Next() {
		data := v.AsSlice()
		if skip >= len(data) {
			skip -= len(data)
			continue
		}
		b = append(b, data[skip:]...)
		skip = 0
	}
	return b
}

// metaOf returns the metadata of a packet that the stack sends. gVisor leaves
// TCP's checksums partial where it may; all others are complete.
func metaOf(p *stack.PacketBuffer) pkt.Meta {
	gso := &p.GSOOptions
	if gso.Type != stack.GSOTCPv4 && gso.Type != stack.GSOTCPv6 || !gso.NeedsCsum {
		return pkt.Meta{}
	}
	m := pkt.Meta{
		Flags: pkt.NeedsChecksum, HeaderLen: uint16(p.HeaderSize()),
		CsumStart: uint16(len(p.NetworkHeader().Slice())), CsumOffset: gso.CsumOffset,
	}
	if wirePackets(p) == 1 {
		return m
	}
	m.GSO, m.GSOSize = pkt.GSOTCPv4, gso.MSS
	if gso.Type == stack.GSOTCPv6 {
		m.GSO = pkt.GSOTCPv6
	}
	return m
}

// wirePackets returns how many wire packets p stands for.
func wirePackets(p *stack.PacketBuffer) int {
	size, mss := p.Data().Size(), int(p.GSOOptions.MSS)
	if p.GSOOptions.Type == stack.GSONone || mss == 0 || size <= mss {
		return 1
	}
	return (size + mss - 1) / mss
}

// Attach implements [stack.NetworkLinkEndpoint].
func (l *Link) Attach(d stack.NetworkDispatcher) {
	if d == nil {
		l.dispatcher.Store(nil)
		return
	}
	l.dispatcher.Store(&attached{d})
}

// IsAttached implements [stack.NetworkLinkEndpoint].
func (l *Link) IsAttached() bool { return l.dispatcher.Load() != nil }

// Close implements [stack.NetworkLinkEndpoint]: nothing goes through any more.
func (l *Link) Close() { l.dispatcher.Store(nil) }

// MTU implements [stack.NetworkLinkEndpoint].
func (l *Link) MTU() uint32 { return l.mtu.Load() }

// SetMTU implements [stack.NetworkLinkEndpoint].
func (l *Link) SetMTU(mtu uint32) { l.mtu.Store(mtu) }

// SupportedGSO implements [stack.GSOEndpoint].
func (l *Link) SupportedGSO() stack.SupportedGSO { return stack.HostGSOSupported }

// GSOMaxSize implements [stack.GSOEndpoint]: a super-packet of that size, whose
// segments have VXLAN and Ethernet headers each, still is one UDP_SEGMENT send.
func (l *Link) GSOMaxSize() uint32 {
	const headers = encap.IPv4HeaderLen + encap.TCPHeaderLen + 12 // with timestamps
	mtu := int(l.mtu.Load())
	segments := min(wireMax/(mtu+wirePrefix), wireSegments)
	// gVisor keeps that much back for headers.
	size := segments*(mtu-headers) + header.TCPTotalHeaderMaximumSize + 1
	return uint32(min(max(size, mtu), pkt.MaxIP))
}

// Capabilities implements [stack.NetworkLinkEndpoint]: Deliver has looked at
// what came in.
func (l *Link) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityRXChecksumOffload
}

// MaxHeaderLength implements [stack.NetworkLinkEndpoint].
func (l *Link) MaxHeaderLength() uint16 { return 0 }

// LinkAddress implements [stack.NetworkLinkEndpoint]: there is none.
func (l *Link) LinkAddress() tcpip.LinkAddress { return "" }

// SetLinkAddress implements [stack.NetworkLinkEndpoint].
func (l *Link) SetLinkAddress(tcpip.LinkAddress) {}

// ARPHardwareType implements [stack.NetworkLinkEndpoint].
func (l *Link) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareNone }

// AddHeader implements [stack.NetworkLinkEndpoint].
func (l *Link) AddHeader(*stack.PacketBuffer) {}

// ParseHeader implements [stack.NetworkLinkEndpoint].
func (l *Link) ParseHeader(*stack.PacketBuffer) bool { return true }

// SetOnCloseAction implements [stack.NetworkLinkEndpoint].
func (l *Link) SetOnCloseAction(func()) {}

// Wait implements [stack.NetworkLinkEndpoint]: a link has no goroutines.
func (l *Link) Wait() {}

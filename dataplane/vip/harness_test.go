package vip

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/ovnd/ovnd/dataplane/pkt"
	"github.com/ovnd/ovnd/encap"
)

var (
	client4  = netip.MustParseAddrPort("10.10.0.20:40000")
	service4 = netip.MustParseAddrPort("10.10.0.3:80")
	client6  = netip.MustParseAddrPort("[fd00::20]:40000")
	service6 = netip.MustParseAddrPort("[fd00::3]:80")
)

// turns is a Balancer: one strict round robin for all.
type turns struct {
	backends []*backend
	next     int
	proxied  bool // it wants all flows for itself
	gaveUp   int
}

type backend struct {
	addr                   netip.Addr
	opened, closed, failed int
	silent                 int
	gone                   bool
}

func (b *backend) Addr() netip.Addr   { return b.addr }
func (b *backend) EndpointID() string { return b.addr.String() }
func (b *backend) Opened()            { b.opened++ }
func (b *backend) Closed()            { b.closed++ }
func (b *backend) Serving() bool      { return !b.gone }
func (b *backend) Failed(silent bool) {
	b.failed++
	if silent {
		b.silent++
	}
}

func newTurns(addrs ...string) *turns {
	t := &turns{}
	for _, a := range addrs {
		t.backends = append(t.backends, &backend{addr: netip.MustParseAddr(a)})
	}
	return t
}

func (t *turns) Begin(_ uint8, client, _ netip.AddrPort) Attempt {
	if t.proxied {
		return nil
	}
	return &attempt{turns: t, client: client.Addr()}
}

type attempt struct {
	*turns
	client netip.Addr
	tried  []*backend
}

func (a *attempt) Exhausted() { a.gaveUp++ }

func (a *attempt) Next() (Backend, bool) {
	for i := range a.backends {
		b := a.backends[(a.next+i)%len(a.backends)]
		if slices.Contains(a.tried, b) {
			continue
		}
		if b.addr == a.client {
			return nil, true
		}
		a.next = (a.next + i + 1) % len(a.backends)
		a.tried = append(a.tried, b)
		return b, false
	}
	return nil, false
}

// A message is what a test's packet says.
type message struct {
	from, to netip.AddrPort
	udp      bool
	flags    uint16
	seq, ack uint32
	data     int
	partial  bool
	id       uint16 // of a first fragment
}

// frame builds a message behind its metadata.
func (m message) frame() []byte {
	protocol, header := encap.ProtocolTCP, encap.TCPHeaderLen
	if m.udp {
		protocol, header = encap.ProtocolUDP, encap.UDPHeaderLen
	}
	size := header + m.data
	at := encap.IPv4HeaderLen
	if m.from.Addr().Is6() {
		at = encap.IPv6HeaderLen
	}
	frame := make([]byte, pkt.MetaLen+at+size)
	b := frame[pkt.MetaLen:]
	for i := at + header; i < len(b); i++ {
		b[i] = byte(i*7 + m.data)
	}
	if m.from.Addr().Is6() {
		encap.PutIPv6(b, m.from.Addr(), m.to.Addr(), protocol, 64, size)
	} else {
		h := encap.PutIPv4(b, m.from.Addr(), m.to.Addr(), protocol, size)
		if m.id != 0 {
			h.SetID(m.id)
			binary.BigEndian.PutUint16(h[6:], 0x2000)
			h.UpdateChecksum()
		}
	}
	t := b[at:]
	binary.BigEndian.PutUint16(t, m.from.Port())
	binary.BigEndian.PutUint16(t[2:], m.to.Port())
	ip := encap.IP{Packet: b, Transport: at, Protocol: protocol}
	field := checksumField(protocol)
	if m.udp {
		encap.UDP(t).SetLength(size)
	} else {
		encap.TCP(t).SetSeq(m.seq)
		binary.BigEndian.PutUint32(t[8:], m.ack)
		t[12] = 5 << 4
		encap.TCP(t).SetFlags(m.flags)
	}
	if m.partial {
		binary.BigEndian.PutUint16(t[field:], uint16(ip.PseudoSum(size)))
		pkt.Meta{Flags: pkt.NeedsChecksum, CsumStart: uint16(at), CsumOffset: uint16(field)}.Put(frame)
	} else if sum := encap.Checksum(t, ip.PseudoSum(size)); m.udp {
		encap.UDP(t).SetChecksum(sum)
	} else {
		encap.TCP(t).SetChecksum(sum)
	}
	return frame
}

// A port is a table and the sandbox behind it.
type port struct {
	t *testing.T
	*Table
	all *Tables
	b   *turns
	has map[netip.Addr]bool // endpoints that are gone
	got [][]byte            // resets
}

func newPort(t *testing.T, b *turns) *port {
	all := NewTables()
	p := &port{t: t, Table: all.New("port"), all: all, b: b, has: make(map[netip.Addr]bool)}
	t.Cleanup(func() {
		p.Close()
		if st := all.Stats(); st.Flows != 0 || st.UDP != 0 {
			t.Errorf("after the end: %+v", st)
		}
		for _, x := range b.backends {
			if x.opened != x.closed {
				t.Errorf("%s was opened %d times and closed %d times", x.addr, x.opened, x.closed)
			}
		}
	})
	return p
}

func (p *port) Has(_ any, addr netip.Addr, _ string) (has, known bool) { return !p.has[addr], true }
func (p *port) Reset(_ any, frame []byte)                              { p.got = append(p.got, slices.Clone(frame)) }

// read returns what a frame says, and checks its checksums.
func read(t *testing.T, frame []byte) message {
	t.Helper()
	p, ok := locate(frame)
	if !ok || !p.isFlow() {
		t.Fatalf("no TCP or UDP: %x", frame)
	}
	if !p.v6 && !encap.IPv4(p.b).ChecksumOK() {
		t.Errorf("the header's checksum is wrong")
	}
	ip, err := encap.ParseIP(p.b)
	if err != nil {
		t.Fatal(err)
	}
	src, dst := p.ports()
	m := message{from: netip.AddrPortFrom(ip.Src(), src), to: netip.AddrPortFrom(ip.Dst(), dst), partial: p.partial}
	field := p.at + checksumField(p.protocol)
	switch {
	case p.partial:
		if got, want := binary.BigEndian.Uint16(p.b[field:]), uint16(ip.PseudoSum(len(ip.Payload()))); got != want {
			t.Errorf("partial checksum %04x, want %04x", got, want)
		}
	case p.more:
	case !ip.TransportChecksumOK():
		t.Errorf("the checksum of %+v is wrong", m)
	}
	if m.udp = p.protocol == encap.ProtocolUDP; !m.udp {
		m.flags, m.seq, m.ack = p.tcp().Flags(), p.tcp().Seq(), p.tcp().Ack()
	}
	return m
}

// send has the client send a message to the VIP.
func (p *port) send(m message) (message, Verdict) {
	p.t.Helper()
	return p.out(m, p.b, false)
}

func (p *port) out(m message, b *turns, known bool) (message, Verdict) {
	p.t.Helper()
	frame := m.frame()
	ip, err := encap.ParseIP(frame[pkt.MetaLen:])
	if err != nil {
		p.t.Fatal(err)
	}
	var balancer Balancer
	if b != nil {
		balancer = b
	}
	v := p.Out(frame, ip, balancer, known)
	return read(p.t, frame), v
}

// past has the client send a message to an endpoint.
func (p *port) past(m message) (message, Verdict) {
	p.t.Helper()
	return p.out(m, nil, true)
}

// answer delivers a message to the client.
func (p *port) answer(m message) (message, Verdict) {
	p.t.Helper()
	frame := m.frame()
	v := p.In(frame)
	return read(p.t, frame), v
}

// job does the one job that there is.
func (p *port) job() (frame []byte, toClient bool) {
	p.t.Helper()
	select {
	case j := <-p.all.Jobs():
		return j.Run()
	default:
		p.t.Fatal("there is no job")
		return nil, false
	}
}

func (p *port) idle() {
	p.t.Helper()
	if n := len(p.all.jobs); n > 0 {
		p.t.Errorf("%d jobs wait", n)
	}
}

const (
	syn    = encap.TCPFlagSYN
	ack    = encap.TCPFlagACK
	fin    = encap.TCPFlagFIN
	rst    = encap.TCPFlagRST
	synAck = syn | ack
)

// connect opens a connection from the client's port and returns its backend's end
// and the client's as that sees it.
func (p *port) connect(client, service netip.AddrPort) (from, to netip.AddrPort) {
	p.t.Helper()
	isn := rand.Uint32()
	m, v := p.send(message{from: client, to: service, flags: syn, seq: isn})
	if v != Translated {
		p.t.Fatalf("SYN: %v", v)
	}
	a, v := p.answer(message{from: m.to, to: m.from, flags: synAck, ack: isn + 1})
	if v != Translated || a.from != service || a.to != client {
		p.t.Fatalf("SYN-ACK %+v: %v", a, v)
	}
	return m.from, m.to
}

package vip

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"sync/atomic"

	"github.com/ovnd/ovnd/encap"
)

// A key names one direction of a flow, as the port's sandbox sees it: local is
// its own end.
type key struct {
	local, remote [2]uint64 // addresses; an IPv4 one is mapped
	ports         uint32    // local, remote
	kind          kind
}

// A kind is a protocol, and outward of what the sandbox sends, and ipv6.
type kind uint16

const (
	outward kind = 0x100
	ipv6    kind = 0x200
)

// mapped is the upper part of the IPv4-mapped addresses' lower half (RFC 4291
// §2.5.5.2).
const mapped = 0xffff << 32

// outKey returns the key of a packet that the sandbox sends, inKey of one that it
// gets.
func (p *packet) outKey() key {
	src, dst := p.words()
	s, d := p.ports()
	return key{local: src, remote: dst, ports: uint32(s)<<16 | uint32(d), kind: p.kind() | outward}
}

func (p *packet) inKey() key {
	src, dst := p.words()
	s, d := p.ports()
	return key{local: dst, remote: src, ports: uint32(d)<<16 | uint32(s), kind: p.kind()}
}

func (p *packet) kind() kind {
	if p.v6 {
		return kind(p.protocol) | ipv6
	}
	return kind(p.protocol)
}

// words returns source and destination.
func (p *packet) words() (src, dst [2]uint64) {
	if !p.v6 {
		return [2]uint64{0, mapped | uint64(binary.BigEndian.Uint32(p.b[12:]))},
			[2]uint64{0, mapped | uint64(binary.BigEndian.Uint32(p.b[16:]))}
	}
	return [2]uint64{binary.BigEndian.Uint64(p.b[8:]), binary.BigEndian.Uint64(p.b[16:])},
		[2]uint64{binary.BigEndian.Uint64(p.b[24:]), binary.BigEndian.Uint64(p.b[32:])}
}

// keyOf is the key between two ends, of a kind but for ipv6.
func keyOf(k kind, local, remote netip.AddrPort) key {
	if k &^= ipv6; local.Addr().Is6() {
		k |= ipv6
	}
	return key{
		local: wordsOf(local.Addr()), remote: wordsOf(remote.Addr()),
		ports: uint32(local.Port())<<16 | uint32(remote.Port()), kind: k,
	}
}

func wordsOf(a netip.Addr) [2]uint64 {
	b := a.As16() // mapped, if it is an IPv4 one
	return [2]uint64{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

// ends returns the two ends that a key is between.
func (k *key) ends() (local, remote netip.AddrPort) {
	return netip.AddrPortFrom(k.addr(k.local), uint16(k.ports>>16)), netip.AddrPortFrom(k.addr(k.remote), uint16(k.ports))
}

// addr undoes wordsOf.
func (k *key) addr(w [2]uint64) netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], w[0])
	binary.BigEndian.PutUint64(b[8:], w[1])
	if a := netip.AddrFrom16(b); k.kind&ipv6 != 0 {
		return a
	}
	return netip.AddrFrom4([4]byte(b[12:]))
}

func (k *key) protocol() uint8 { return uint8(k.kind) }

func (k *key) isTCP() bool { return k.protocol() == encap.ProtocolTCP }

// hash mixes the key with a seed.
func (k *key) hash(seed uint64) uint32 {
	const m = 0x9e3779b97f4a7c15
	h := seed ^ uint64(k.ports)<<8 ^ uint64(k.kind)
	for _, w := range [...]uint64{k.remote[1], k.local[1], k.remote[0] ^ bits.RotateLeft64(k.local[0], 32)} {
		hi, lo := bits.Mul64(h^w, m)
		h = hi ^ lo
	}
	return uint32(h>>32) ^ uint32(h)
}

// An index finds flows by either key. Readers take no lock; writers, of which
// there is one at a time, change no chain under a reader but by one pointer.
type index struct {
	buckets []atomic.Pointer[entry]
	entries int // of the writers
}

// An entry is one key of one flow.
type entry struct {
	key  key
	hash uint32
	flow *flow
	next atomic.Pointer[entry]
}

const minBuckets = 256

func newIndex(buckets int) *index { return &index{buckets: make([]atomic.Pointer[entry], buckets)} }

func (x *index) bucket(hash uint32) *atomic.Pointer[entry] {
	return &x.buckets[hash&uint32(len(x.buckets)-1)]
}

// find returns the flow that has k, nil if there is none. x may be nil.
func (x *index) find(k *key, hash uint32) *flow {
	if x == nil {
		return nil
	}
	for e := x.bucket(hash).Load(); e != nil; e = e.next.Load() {
		if e.hash == hash && e.key == *k {
			return e.flow
		}
	}
	return nil
}

// add puts f in front of what else has its key.
func (x *index) add(k key, hash uint32, f *flow) {
	b := x.bucket(hash)
	e := &entry{key: k, hash: hash, flow: f}
	e.next.Store(b.Load())
	b.Store(e)
	x.entries++
}

// remove takes f out from under k.
func (x *index) remove(k *key, hash uint32, f *flow) {
	at := x.bucket(hash)
	for e := at.Load(); e != nil; e = at.Load() {
		if e.flow == f && e.key == *k {
			at.Store(e.next.Load()) // e keeps its own next, for who reads it now
			x.entries--
			return
		}
		at = &e.next
	}
}

// grown returns an index of the same flows with more buckets, if x is full: a
// reader of the old one still finds all that it had.
func (x *index) grown() *index {
	if x.entries < len(x.buckets) {
		return x
	}
	next := newIndex(4 * len(x.buckets))
	for i := range x.buckets {
		for e := x.buckets[i].Load(); e != nil; e = e.next.Load() {
			next.add(e.key, e.hash, e.flow)
		}
	}
	return next
}

// each calls f for every flow, once.
func (x *index) each(f func(*flow)) {
	if x == nil {
		return
	}
	for i := range x.buckets {
		for e := x.buckets[i].Load(); e != nil; e = e.next.Load() {
			if e.key.kind&outward != 0 {
				f(e.flow)
			}
		}
	}
}

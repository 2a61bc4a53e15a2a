package crypto

import (
	"hash/maphash"
	"net/netip"
	"time"

	"golang.zx2c4.com/wireguard/device"
)

// mac1, mac2 and cookies are WireGuard's (WireGuard: Next Generation Kernel
// Network Tunnel, section 5.3 and 5.4.4, 5.4.7), keyed by the static public key of
// the receiver. Only who knows that key, which gossip tells members and no
// message carries in clear, can have more done than a hash.

// Under load, initiators must prove their address before anything costly is done
// for them.
const (
	queueLen     = 256         // messages that wait for the engine
	cookiesLen   = 16          // cookie replies that do: anybody can write one, and nobody else's place is theirs
	loadedQueue  = 32          // waiting messages that mean load
	loadedFor    = time.Second // after the last time there were as many
	addressRate  = 20          // handshakes a second of one address
	addressBurst = 5           // at once
	addressCells = 1024        // counters that all addresses share
)

// A limiter bounds what each address may ask for, in memory that never grows:
// addresses share cells by a hash whose seed nobody else knows. An IPv6 address
// counts as its /64, of which one host has every address.
type limiter struct {
	seed  maphash.Seed
	cells [addressCells]bucket
}

func newLimiter() *limiter { return &limiter{seed: maphash.MakeSeed()} }

func (l *limiter) allow(from netip.Addr, now time.Time) bool {
	if from.Is6() {
		prefix, _ := from.WithZone("").Prefix(64) // of an IPv6 address there is one
		from = prefix.Addr()
	}
	return l.cells[maphash.Comparable(l.seed, from)%addressCells].allow(addressRate, addressBurst, now)
}

// A bucket bounds how often something happens: rate times a second, burst at once.
// It is full after a second of nothing.
type bucket struct {
	tokens float64
	last   time.Time
}

func (b *bucket) allow(rate, burst float64, now time.Time) bool {
	if elapsed := now.Sub(b.last); b.last.IsZero() || elapsed > time.Second {
		b.tokens = burst
	} else if elapsed > 0 {
		b.tokens = min(burst, b.tokens+rate*elapsed.Seconds())
	}
	b.last = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// repeats remembers the initiations that came last, each by its mac1: a sender never
// sends one twice, and who repeats those of others, from their addresses or any, is
// not to use up what these may ask for. It is of the engine's goroutine.
type repeats struct {
	seed  maphash.Seed
	cells [addressCells][macLen]byte
}

// before says whether m is remembered, and remembers it.
func (r *repeats) before(m initiation) bool {
	mac := m.mac1()
	c := &r.cells[maphash.Bytes(r.seed, mac[:])%addressCells]
	if *c == mac {
		return true
	}
	*c = mac
	return false
}

// addressBytes is the source that a cookie is bound to. The port is left out:
// nodes send from several.
func addressBytes(from netip.Addr) []byte {
	b := from.As16()
	return b[:]
}

// newChecker returns what checks macs of messages to a static key of ours.
func newChecker(static [32]byte) *device.CookieChecker {
	c := new(device.CookieChecker)
	c.Init(device.NoisePublicKey(static))
	return c
}

// newMarker returns what puts macs on messages to a static key of a peer.
func newMarker(static [32]byte) *device.CookieGenerator {
	g := new(device.CookieGenerator)
	g.Init(device.NoisePublicKey(static))
	return g
}

// takeCookie keeps the cookie of a reply for the initiations to come, if it
// answers the last one.
func takeCookie(g *device.CookieGenerator, m cookieReply) bool {
	return g.ConsumeReply(&device.MessageCookieReply{
		Nonce:  [cookieNonceLen]byte(m.nonce()),
		Cookie: [cookieLen]byte(m.cookie()),
	})
}

// writeCookieReply returns the reply to an initiation from an address.
func writeCookieReply(c *device.CookieChecker, m initiation, from netip.Addr) (cookieReply, error) {
	reply, err := c.CreateReply(m, m.sender(), addressBytes(from))
	if err != nil {
		return nil, err
	}
	datagram := make(cookieReply, CookieReplyLen)
	datagram[0] = byte(CookieReply)
	putIndex(datagram[1:], m.sender())
	copy(datagram.nonce(), reply.Nonce[:])
	copy(datagram.cookie(), reply.Cookie[:])
	return datagram, nil
}

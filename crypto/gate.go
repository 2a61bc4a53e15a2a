package crypto

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"sync/atomic"
	"time"
)

// Under load, initiators must prove their address before anything costly is done
// for them: before the X25519 operations, two or three a message and most of what it
// costs. Rates are of a second.
const (
	queueLen     = 256         // messages that wait for the engine
	cookiesLen   = 16          // cookie replies that do: anybody can write one, and nobody else's place is theirs
	loadedQueue  = 32          // waiting messages that mean load
	loadedRate   = 128         // initiations that do, however few wait
	loadedFor    = time.Second // after the last time there were as many
	provenRate   = 256         // handshakes of those that have a cookie and are where gossip has a peer
	strangeRate  = 128         // and of those that have one and are elsewhere
	answerRate   = 16          // responses to one initiation of our own that are looked into
	answerBurst  = 32          // at once
	firstAnswers = callsEach   // responses to all initiations to nodes that have proven nothing
	strangeReply = 256         // cookie replies to addresses where gossip has no peer
	addressRate  = 20          // handshakes of one address
	addressBurst = 5           // at once
	addressCells = 1024        // counters that all addresses share
)

// A gate stands before the engine. It decides about messages on the goroutines that
// bring them, which take them from the queue of the sealed traffic: what it lets
// through is bounded, whoever sends how many, and it costs what it refuses as
// little as it can. It is safe for concurrent use and takes no lock.
type gate struct {
	start       time.Time
	repeated    repeats
	asked       pacer // initiations: beyond it there is load
	answers     pacer // responses of nodes that have proven nothing
	members     quota // of senders where gossip has peers
	strangers   quota // of all others, who take nothing from those
	loadedUntil atomic.Int64
	places      atomic.Pointer[map[netip.Addr]bool] // where gossip has peers
}

// A quota is what senders may ask for under load.
type quota struct {
	cookie  *limiter // cookie replies
	replies pacer    // the same of all addresses, for strangers
	rate    *limiter // handshakes of senders that have proven their address
	proven  pacer    // the same of all addresses
}

func newQuota() quota { return quota{cookie: newLimiter(), rate: newLimiter()} }

func (g *gate) init(now time.Time) {
	g.start, g.members, g.strangers = now, newQuota(), newQuota()
	g.repeated.seed = maphash.MakeSeed()
	g.places.Store(new(map[netip.Addr]bool))
}

// at returns a time as pacers have it, which follows the monotonic clock.
func (g *gate) at(now time.Time) int64 { return int64(now.Sub(g.start)) }

// load notes that more comes than the engine should have to answer.
func (g *gate) load(now int64) { g.loadedUntil.Store(now + int64(loadedFor)) }

// loaded says whether initiators have to prove their address.
func (g *gate) loaded(now int64) bool { return now < g.loadedUntil.Load() }

// initiation decides about an initiation whose mac1 is right. With demand it is to be
// answered with a cookie and nothing else. Without load mac2 is not looked at: else
// a member on the path could keep two others apart by cookies of its own making.
func (g *gate) initiation(c *checker, from netip.Addr, m initiation, now time.Time) (r Refusal, demand bool) {
	if g.repeated.before(m) {
		return RefusedReplay, false
	}
	t := g.at(now)
	if !g.asked.allow(loadedRate, loadedRate, t) {
		g.load(t)
	}
	if !g.loaded(t) {
		return refusedNot, false
	}
	q, rate, stranger := &g.members, provenRate, !(*g.places.Load())[from]
	if stranger {
		q, rate = &g.strangers, strangeRate
	}
	if c.checkMAC2(m, from, now) {
		if !q.rate.allow(from, t) || !q.proven.allow(rate, rate, t) {
			return RefusedRate, false
		}
		return refusedNot, false
	}
	if !q.cookie.allow(from, t) || stranger && !q.replies.allow(strangeReply, strangeReply, t) {
		return RefusedRate, false
	}
	return refusedNot, true
}

// An expected is an answer that this node awaits to an initiation of its own. Whoever that is to may
// have forged responses looked into, or a member that sees its index on the way. They
// take nothing from the answers of others: gossip invents nodes, and not such that
// have proven to be one.
type expected struct {
	stranger bool // that has proven nothing yet
	pacer    pacer
}

// response decides about a response to an initiation whose answer is awaited.
func (g *gate) response(a *expected, now int64) Refusal {
	if !a.pacer.allow(answerRate, answerBurst, now) || a.stranger && !g.answers.allow(firstAnswers, firstAnswers, now) {
		return RefusedRate
	}
	return refusedNot
}

// A pacer bounds how often something happens: rate times a second, burst at once. It
// is the virtual scheduling of ITU-T I.371 (GCRA), and safe for concurrent use.
type pacer struct{ due atomic.Int64 } // when the next one is on time, in ns

func (p *pacer) allow(rate, burst int, now int64) bool {
	each := int64(time.Second) / int64(rate)
	most := now + int64(burst)*each
	for {
		was := p.due.Load()
		// Later than most it can be only where the clock went back.
		due := min(max(was, now), most)
		ok := due+each <= most
		if ok {
			due += each
		}
		if due == was || p.due.CompareAndSwap(was, due) {
			return ok
		}
	}
}

// A limiter bounds what each address may ask for, in memory that never grows:
// addresses share cells by a hash whose seed nobody else knows. An IPv6 address
// counts as its /64, of which one host has every address.
type limiter struct {
	seed  maphash.Seed
	cells [addressCells]pacer
}

func newLimiter() *limiter { return &limiter{seed: maphash.MakeSeed()} }

func (l *limiter) allow(from netip.Addr, now int64) bool {
	if from.Is6() {
		prefix, _ := from.WithZone("").Prefix(64) // of an IPv6 address there is one
		from = prefix.Addr()
	}
	return l.cells[maphash.Comparable(l.seed, from)%addressCells].allow(addressRate, addressBurst, now)
}

// repeats remembers the initiations that came last, each by its mac1: a sender never
// sends one twice, and who repeats those of others, from their addresses or any, is
// not to use up what these may ask for.
type repeats struct {
	seed  maphash.Seed
	cells [addressCells]atomic.Uint64 // the first half of a mac1
}

// before says whether m is remembered, and remembers it.
func (r *repeats) before(m initiation) bool {
	mac := m.mac1()
	half := binary.BigEndian.Uint64(mac[:])
	return r.cells[maphash.Bytes(r.seed, mac[:])%addressCells].Swap(half) == half
}

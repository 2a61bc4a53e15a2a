package netstack

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ovnd/ovnd/discovery/directory"
)

// maxTurns is how many ports of one service have a turn of their own that is
// remembered. A client may try all 65,536.
const maxTurns = 64

// turns is what the balancer of one network remembers: which backend of which
// service is next, and what each of them does. It knows nothing of how a
// connection is carried, so that every way to carry one takes the same turns.
// All methods are safe for concurrent use.
type turns struct {
	mu       sync.RWMutex
	version  uint64
	services map[string]*service // by ID
	vips     map[netip.Addr]*service
}

// A service is the balancer's state of one service.
type service struct {
	id string

	mu   sync.Mutex
	info *directory.Service // of the latest snapshot
	// ready are the backends that take new connections, sorted by address;
	// known are these and those that drain, by endpoint ID.
	ready []*backend
	known map[string]*backend
	turns map[turnKey]*turn
	clock uint64 // counts the uses of turns
}

// A turnKey is what has a round robin of its own: a port of the VIP, or one
// that is published.
type turnKey struct {
	protocol  directory.Protocol
	port      uint16
	published bool
}

// A turn is one strict round robin. It remembers an address rather than a
// place, so that backends that come and go shift nobody's turn.
type turn struct {
	last netip.Addr // whose turn it was
	used uint64     // by service.clock
}

// A backend is one endpoint of a service, for as long as it stays with it.
type backend struct {
	id       string              // of the endpoint
	addr     netip.Addr          // its
	endpoint *directory.Endpoint // of the latest snapshot; guarded by service.mu
	serving  atomic.Bool         // it takes connections or drains

	// rests tells, in Unix nanoseconds, until when it is passed over since it did
	// not answer; 0: it has since.
	rests atomic.Int64
	heard atomic.Int64 // when it last took a connection, in Unix nanoseconds

	connections, failures atomic.Uint64
	active                atomic.Int64
	direct                atomic.Int64 // of active: those that the data plane carries
}

// restTime is how long a backend that did not answer is passed over, if there is
// another: then one connection finds out.
const restTime = 5 * time.Second

// silence is how long a backend must have taken no connection, beside the one that
// it did not answer: less is loss, or a backend that is slow, and no reason for it
// to rest. It is less than any way to reach one waits for an answer.
const silence = 900 * time.Millisecond

// opened, closed and failed count what became of a turn: a backend that could
// be reached is opened once and closed once, another has failed. One that was
// silent, to all who asked, rests.
func (b *backend) opened() { b.connections.Add(1); b.active.Add(1) }
func (b *backend) closed() { b.active.Add(-1) }

func (b *backend) failed(silent bool) {
	b.failures.Add(1)
	if now := time.Now(); silent && now.UnixNano()-b.heard.Load() >= int64(silence) {
		b.rest(now)
	}
}

// rest has the backend passed over for a while.
func (b *backend) rest(now time.Time) { b.rests.Store(now.Add(restTime).UnixNano()) }

// answers notes that the backend has answered.
func (b *backend) answers() {
	b.heard.Store(time.Now().UnixNano())
	if b.rests.Load() != 0 {
		b.rests.Store(0)
	}
}

func newTurns() *turns {
	return &turns{services: make(map[string]*service), vips: make(map[netip.Addr]*service)}
}

// update takes over the services of snap. A snapshot that is older than the one
// before is ignored.
func (t *turns) update(snap *directory.Snapshot) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if snap.Version < t.version {
		return
	}
	t.version = snap.Version
	for id, s := range t.services {
		if _, stays := snap.Services.Get(id); !stays {
			s.update(nil)
			delete(t.services, id)
		}
	}
	for id, info := range snap.Services.All() {
		s := t.services[id]
		if s == nil {
			s = &service{id: id, known: make(map[string]*backend), turns: make(map[turnKey]*turn)}
			t.services[id] = s
		}
		s.update(info)
	}
	clear(t.vips)
	for vip, info := range snap.VIPs.All() {
		if s := t.services[info.ID]; s != nil {
			t.vips[vip] = s
		}
	}
}

// byVIP and byID return nil for what the network does not have.
func (t *turns) byVIP(vip netip.Addr) *service {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.vips[vip]
}

func (t *turns) byID(id string) *service {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.services[id]
}

// update takes over what a snapshot says of the service; nil: nothing any more.
func (s *service) update(info *directory.Service) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.known
	s.info, s.ready, s.known = info, nil, make(map[string]*backend)
	if info != nil {
		for _, ep := range info.Backends {
			s.ready = append(s.ready, s.keep(before, ep))
		}
		for _, ep := range info.Draining {
			s.keep(before, ep)
		}
	}
	for id, b := range before {
		if s.known[id] != b {
			b.serving.Store(false)
		}
	}
}

// keep returns the backend of ep, which is the one it had before if it is the
// same endpoint at the same address.
func (s *service) keep(before map[string]*backend, ep *directory.Endpoint) *backend {
	b := before[ep.ID]
	if b == nil || b.addr != ep.Addr {
		b = &backend{id: ep.ID, addr: ep.Addr}
		b.serving.Store(true)
	}
	b.endpoint = ep
	s.known[ep.ID] = b
	return b
}

// isReady reports whether anybody takes new connections. s may be nil.
func (s *service) isReady() bool {
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.ready) > 0
}

// begin begins an attempt to reach the service at a port of its VIP.
func (s *service) begin(protocol directory.Protocol, port uint16) *attempt {
	return &attempt{service: s, key: turnKey{protocol: protocol, port: port}}
}

// beginPublished begins an attempt to reach the service at a published port.
func (s *service) beginPublished(p directory.Port) *attempt {
	return &attempt{service: s, key: turnKey{protocol: p.Protocol, port: p.Published, published: true}, published: p}
}

// An attempt looks for the backend of one connection. It is for one goroutine.
type attempt struct {
	service   *service
	key       turnKey
	published directory.Port // if key.published
	tried     []*backend
}

// next returns whose turn it is and at which port, and takes the turn. A backend
// that this attempt had before is passed over, and one that rests if another does
// not; when nobody is left, ok is false.
func (a *attempt) next() (b *backend, addr netip.AddrPort, ok bool) {
	b, addr, _ = a.take(netip.Addr{})
	return b, addr, b != nil
}

// take is next, but for a turn that is own's: that is left for another attempt.
func (a *attempt) take(own netip.Addr) (b *backend, addr netip.AddrPort, isOwn bool) {
	s := a.service
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.ready) == 0 {
		return nil, netip.AddrPort{}, false
	}
	now := time.Now()
	t := s.turn(a.key)
	b, port := a.whose(t, now)
	switch {
	case b == nil:
		return nil, netip.AddrPort{}, false
	case b.addr == own:
		return nil, netip.AddrPort{}, true
	}
	if b.rests.Load() != 0 {
		b.rest(now) // this attempt finds out; others go past it meanwhile
	}
	t.last = b.addr
	a.tried = append(a.tried, b)
	return b, netip.AddrPortFrom(b.addr, port), false
}

// whose returns the backend that is next by the turn t, and its port: of those
// that rest only if there is no other. The caller holds service.mu.
func (a *attempt) whose(t *turn, now time.Time) (b *backend, port uint16) {
	s := a.service
	first, _ := slices.BinarySearchFunc(s.ready, t.last, func(b *backend, last netip.Addr) int {
		// Never equal, so that the search ends behind last.
		return cmp.Or(b.addr.Compare(last), -1)
	})
	for i := range s.ready {
		next := s.ready[(first+i)%len(s.ready)]
		at, serves := a.port(next)
		if !serves || slices.Contains(a.tried, next) {
			continue
		}
		if next.rests.Load() <= now.UnixNano() {
			return next, at
		}
		if b == nil {
			b, port = next, at
		}
	}
	return b, port
}

// port returns the port of b that the attempt is for, and whether b has it.
func (a *attempt) port(b *backend) (port uint16, ok bool) {
	if !a.key.published {
		return a.key.port, true
	}
	return b.endpoint.Target(a.published)
}

// turn returns the turn of key. A new one begins anywhere: the nodes of a swarm
// must not all begin with the same backend. The caller holds s.mu, and there are
// backends.
func (s *service) turn(key turnKey) *turn {
	s.clock++
	t := s.turns[key]
	if t == nil {
		if len(s.turns) >= maxTurns {
			s.forgetTurn()
		}
		t = &turn{last: s.ready[rand.IntN(len(s.ready))].addr}
		s.turns[key] = t
	}
	t.used = s.clock
	return t
}

// forgetTurn forgets the turn that was used longest ago.
func (s *service) forgetTurn() {
	oldest := turnKey{}
	used := s.clock
	for key, t := range s.turns {
		if t.used < used {
			oldest, used = key, t.used
		}
	}
	delete(s.turns, oldest)
}

// ServiceStats is what a balancer has done for one service.
type ServiceStats struct {
	ID, Name string
	VIP      netip.Addr // the zero Addr: dnsrr
	Way      directory.Way
	Backends []BackendStats
}

// BackendStats is what one endpoint of a service was given. Counters begin when
// this node first heard of it.
type BackendStats struct {
	EndpointID, Name string
	Addr             netip.Addr
	Draining         bool   // takes no new connections
	Connections      uint64 // and UDP flows, in all
	Active           int    // of them, now
	Direct           int    // of these, those that the data plane carries
	Failures         uint64 // turns that it did not answer
}

// stats returns what all services have had, sorted by name.
func (t *turns) stats() []ServiceStats {
	t.mu.RLock()
	defer t.mu.RUnlock()
	all := make([]ServiceStats, 0, len(t.services))
	for s := range maps.Values(t.services) {
		all = append(all, s.stats())
	}
	slices.SortFunc(all, func(a, b ServiceStats) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	return all
}

func (s *service) stats() ServiceStats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := ServiceStats{ID: s.id, Name: s.info.Name, VIP: s.info.VIP, Way: s.info.Way}
	for _, b := range s.known {
		st.Backends = append(st.Backends, BackendStats{
			EndpointID: b.id, Name: b.endpoint.Name, Addr: b.addr,
			Draining:    !slices.Contains(s.ready, b),
			Connections: b.connections.Load(), Active: int(b.active.Load()), Direct: int(b.direct.Load()), Failures: b.failures.Load(),
		})
	}
	slices.SortFunc(st.Backends, func(a, b BackendStats) int { return a.Addr.Compare(b.Addr) })
	return st
}

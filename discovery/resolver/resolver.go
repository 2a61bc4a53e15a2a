package resolver

import (
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/ovnd/ovnd/discovery/directory"
)

// ttl is what answers from the directory carry, in seconds: how long a task
// that has died may live on in somebody's cache. Docker's is 600.
const ttl = 5

// A Config says where a Server's answers come from. Store is required.
type Config struct {
	Store *directory.Store
	// Upstreams returns the host's name servers, in order; it is called for each
	// question that is passed on and must not block. Nil: nobody is asked. See
	// [HostConf].
	Upstreams func() []netip.AddrPort
	Log       *slog.Logger // nil discards

	Timeout  time.Duration // of one upstream; 0: 4 s
	InFlight int           // questions passed on at one time, of all scopes; 0: 1024
	// ScopeInFlight is the same for one scope, so that no sandbox takes all of
	// them; 0: a quarter of InFlight, at least 1.
	ScopeInFlight int
	Connections   int // over TCP at one time, in one scope; 0: 32
}

// A Scope is what one client sees.
type Scope struct {
	// Networks are the IDs of the client's networks, in the order of its
	// interfaces. One that the store has no snapshot of yet is waited for:
	// unknown names of a single label are SERVFAIL meanwhile.
	Networks []string
	// All has every network of the store instead, by name: for the host. Of the
	// upstreams, the address that is served itself is left out.
	All bool

	Names map[string][]netip.Addr // further names (--add-host); they go first
	// Internal has nobody asked: every network is --internal.
	Internal bool
	// Upstreams, if not nil, are asked in place of the host's (--dns), from the
	// host all the same. Loopback addresses would mean the sandbox itself and
	// are left out.
	Upstreams []netip.AddrPort
	// NdotsSet says that the client's resolv.conf came with an ndots option
	// ([Conf.NdotsSet]): unknown names of a single label are then an empty answer,
	// upon which the client tries its search domains, as Docker has it.
	NdotsSet bool
}

// A Server answers for any number of scopes. All methods are safe for
// concurrent use.
type Server struct {
	cfg      Config
	log      *slog.Logger
	indexes  *indexes
	health   upstreamHealth
	inFlight chan struct{} // a token for each question passed on
	stats    counters
}

// New returns a server that runs nothing yet: [Server.Serve] does.
func New(cfg Config) *Server {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 4 * time.Second
	}
	if cfg.InFlight == 0 {
		cfg.InFlight = 1024
	}
	if cfg.ScopeInFlight == 0 {
		cfg.ScopeInFlight = max(1, cfg.InFlight/4)
	}
	if cfg.Connections == 0 {
		cfg.Connections = 32
	}
	return &Server{
		cfg: cfg, log: cfg.Log,
		indexes:  newIndexes(cfg.Store),
		health:   upstreamHealth{sick: make(map[netip.AddrPort]time.Time)},
		inFlight: make(chan struct{}, cfg.InFlight),
	}
}

// Stats are counts since the server was made. Every query is counted once in
// Queries and once in one of Local to Malformed.
type Stats struct {
	Queries uint64 // received, over UDP and TCP
	TCP     uint64 // of these, over TCP

	Local     uint64 // answered from the directory
	Forwarded uint64 // passed on, answered or not
	Refused   uint64 // beyond the cap, not to be passed on, or of a kind that is not served
	Malformed uint64 // no query

	Failed   uint64 // of Forwarded: no upstream had an answer
	Silent   uint64 // upstreams that did not answer in time, or not at all
	Bogus    uint64 // answers of upstreams that did not fit the question
	InFlight int    // passed on and not answered yet
}

type counters struct {
	queries, tcp, local, forwarded, refused, malformed, failed, silent, bogus atomic.Uint64
}

// Stats returns the counts. They are read one by one: a sum may be off by what
// happens meanwhile.
func (s *Server) Stats() Stats {
	c := &s.stats
	return Stats{
		Queries: c.queries.Load(), TCP: c.tcp.Load(),
		Local: c.local.Load(), Forwarded: c.forwarded.Load(),
		Refused: c.refused.Load(), Malformed: c.malformed.Load(),
		Failed: c.failed.Load(), Silent: c.silent.Load(), Bogus: c.bogus.Load(),
		InFlight: len(s.inFlight),
	}
}

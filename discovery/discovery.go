package discovery

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/moby/moby/v2/daemon/libnetwork/networkdb"

	"github.com/ovnd/ovnd/discovery/directory"
)

// DefaultPort is the port of gossip, TCP and UDP, as in Docker. It is the same
// for all nodes of a swarm.
const DefaultPort = 7946

// Config is what a Discovery needs to know.
type Config struct {
	Hostname      string     // for NetworkDB's own log lines
	BindAddr      netip.Addr // to listen on; unspecified: all addresses of the machine
	AdvertiseAddr netip.Addr // at which the other nodes reach this one
	Port          uint16     // 0: DefaultPort
	VTEP          netip.Addr // underlay address of this node's data path; zero: AdvertiseAddr

	// StateDir is an existing folder that only the user can read. It keeps the
	// gossip keys and what was last known of the other nodes.
	StateDir string

	Store *directory.Store // where the snapshots go
	Log   *slog.Logger     // nil: slog.Default()
}

// Discovery takes part in the gossip of a swarm and publishes a snapshot of
// each network that its node has joined. All methods are safe for concurrent
// use and none of them waits for another node; what they ask for is gossiped by
// Run.
type Discovery struct {
	cfg  Config
	wake chan struct{} // has room for one: Run has something to do
	look chan struct{} // has room for one: there are new nodes to join

	// unconfirmedFor is how long remembered endpoints stay once gossip could
	// have confirmed them.
	unconfirmedFor time.Duration

	bad       atomic.Uint64 // records refused
	badLogged atomic.Int64  // when one was last logged, Unix seconds

	mu        sync.Mutex
	name      string   // gossip name
	keys      []Key    // the keyring, primary first; empty: none yet
	managers  []string // gossip addresses or host names
	networks  map[string]*network
	conflicts map[string]int // by network, addresses with more than one claim
	version   uint64         // of the last snapshot published
	saved     savedPeers     // of the last run; networks move out of it as they are joined
	unsaved   bool           // networks has news that peersFile lacks
	status    Status         // what Run last saw of the cluster
	news      chan struct{}  // closed and replaced when a node has applied something
	trust     trust
	revoked   revocations

	unprovenLogged  time.Time // when records without a valid signature were last logged
	conflictsLogged time.Time // when endpoints that contradict each other were
}

// Status is the state of gossip, for people to read.
type Status struct {
	Name    string // this node's gossip name, new with each start
	Running bool   // there are keys, and gossip listens
	Nodes   []Node // in gossip, this one included, sorted by name

	BadRecords uint64 // records of other nodes that were refused
	Unproven   int    // records on encrypted networks that no owner stands for now: no endpoints
	Conflicts  int    // endpoints that are not there because another one has their address or ID
	Remembered int    // endpoints known from the last run alone
}

// A Node is a member of the gossip cluster.
type Node struct {
	Name string // gossip name, 12 hexadecimal digits
	Addr netip.Addr
}

// New returns a Discovery that has the keys and endpoints of its last run, if
// there was one. It does not gossip before Run. An address or port that is
// taken is reported here, before anything has begun.
func New(cfg Config) (*Discovery, error) {
	if !cfg.AdvertiseAddr.IsValid() || cfg.AdvertiseAddr.IsUnspecified() {
		return nil, errors.New("gossip needs the address at which other nodes reach this one: --advertise-addr")
	}
	if !cfg.BindAddr.IsValid() {
		cfg.BindAddr = cfg.AdvertiseAddr
	}
	if cfg.Port == 0 {
		cfg.Port = DefaultPort
	}
	if !cfg.VTEP.IsValid() {
		cfg.VTEP = cfg.AdvertiseAddr
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	cfg.AdvertiseAddr, cfg.VTEP = cfg.AdvertiseAddr.Unmap(), cfg.VTEP.Unmap()
	if err := checkPort(cfg.BindAddr, cfg.Port); err != nil {
		return nil, err
	}
	routeLogs(cfg.Log)

	d := &Discovery{
		cfg:            cfg,
		wake:           make(chan struct{}, 1),
		look:           make(chan struct{}, 1),
		unconfirmedFor: 30 * time.Second,
		name:           newName(),
		networks:       make(map[string]*network),
		conflicts:      make(map[string]int),
		news:           make(chan struct{}),
		// Above the numbers of any former run, should one have had the same key.
		trust: trust{sequence: uint64(time.Now().UnixNano()), now: time.Now},
	}
	d.restore()
	return d, nil
}

// restore reads what the last run left. A file that cannot be read costs what
// is in it, which the managers and gossip bring again, and not the start.
func (d *Discovery) restore() {
	var keys []Key
	if err := load(d.path(keysFile), &keys); err != nil {
		d.cfg.Log.Warn("gossip keys of the last run are lost", "error", err)
	} else if len(keys) > 0 {
		if d.keys, err = gossipKeys(keys); err != nil {
			d.cfg.Log.Warn("gossip keys of the last run are lost", "error", err)
		}
	}
	if err := load(d.path(peersFile), &d.saved); err != nil {
		d.cfg.Log.Warn("endpoints of the last run are lost", "error", err)
		d.saved = savedPeers{}
	}
	d.restoreRevocations()
}

func (d *Discovery) path(file string) string { return filepath.Join(d.cfg.StateDir, file) }

// newName makes a gossip name. It is a new one with each start, as libnetwork
// has it, so that nothing said before the start can be taken for news.
func newName() string { return networkdb.DefaultConfig().NodeID }

// Name returns the gossip name of this node: the 12 hexadecimal digits that
// Docker prints under Peers, and the NodeID of this node's endpoints in
// snapshots. It may change while Run runs.
func (d *Discovery) Name() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.name
}

// rename gives this node another gossip name.
func (d *Discovery) rename(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.name = name
	for _, n := range d.networks {
		n.rename(name)
		d.publish(n)
	}
}

// SetKeys hands over the swarm's keys, those of other subsystems included, which
// are ignored. The first ones start gossip. Later ones rotate the keyring while
// it runs: new keys are added, the second oldest becomes the one that is sent
// with, and keys that are missing are removed. The keys are kept for the next
// start; that this fails, on a full disk say, is logged and no error, since the
// node works without. Keys that gossip cannot use are an error.
func (d *Discovery) SetKeys(keys []Key) error {
	ring, err := gossipKeys(keys)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if equalKeys(d.keys, ring) {
		return nil
	}
	d.keys = ring
	signal(d.wake)
	if err := save(d.path(keysFile), ring, true); err != nil {
		d.cfg.Log.Warn("cannot keep the gossip keys: after a restart this node will need a manager", "error", err)
	}
	return nil
}

// Join names the managers of the swarm, each by address or host name. A port
// may follow and is ignored: that of gossip is the same everywhere. Until one of
// them is reached Run keeps trying, and again whenever it has lost all of them.
func (d *Discovery) Join(managers []string) {
	var hosts []string
	for _, m := range managers {
		host, _, err := net.SplitHostPort(m)
		if err != nil {
			host = m
		}
		if host != "" && host != d.cfg.AdvertiseAddr.String() && !slices.Contains(hosts, host) {
			hosts = append(hosts, host)
		}
	}
	slices.Sort(hosts)

	d.mu.Lock()
	defer d.mu.Unlock()
	if slices.Equal(hosts, d.managers) {
		return
	}
	d.managers = hosts
	signal(d.look)
}

// JoinNetwork puts this node on a network: its snapshot appears in the store,
// with what is remembered from the last run, and gossip fills it. It must come
// before the network's first endpoint. Joining a network again replaces what is
// known of it and keeps its endpoints. A network that this node cannot be on is
// refused.
func (d *Discovery) JoinNetwork(cfg NetworkConfig) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, err := newNetwork(cfg, self{name: d.name, vtep: d.cfg.VTEP, trust: &d.trust})
	if err != nil {
		return err
	}
	if old, ok := d.networks[cfg.ID]; ok {
		n.local, n.entries, n.remote, n.members, n.acks = old.local, old.entries, old.remote, old.members, old.acks
		n.rule = old.rule
	} else {
		if n.opts.Encrypted {
			n.rememberIdentities(d.saved.Identities[cfg.ID])
		}
		for id, ep := range d.saved.Networks[cfg.ID] {
			n.remember(id, ep.Peer, ep.Endpoint)
		}
		delete(d.saved.Networks, cfg.ID)
		delete(d.saved.Identities, cfg.ID)
	}
	d.networks[cfg.ID] = n
	d.publish(n)
	signal(d.wake)
	return nil
}

// LeaveNetwork takes this node off a network after its last endpoint. Its
// snapshot goes from the store, and the other nodes are told. Leaving a network
// that was not joined does nothing.
func (d *Discovery) LeaveNetwork(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.networks[id]; !ok {
		return
	}
	delete(d.networks, id)
	delete(d.conflicts, id)
	d.unsaved = true
	d.cfg.Store.Remove(id)
	signal(d.wake)
}

// AddEndpoint announces an endpoint of this node, or what changed about one. It
// is in the snapshot when AddEndpoint returns. The endpoint's VTEP and NodeID
// are this node's, whatever it says, and its MAC is derived from its address if
// it has none.
func (d *Discovery) AddEndpoint(networkID string, ep directory.Endpoint) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, ok := d.networks[networkID]
	if !ok {
		return fmt.Errorf("endpoint %s: this node has not joined network %s", ep.ID, networkID)
	}
	if err := n.add(ep); err != nil {
		return err
	}
	d.publish(n)
	signal(d.wake)
	return nil
}

// RemoveEndpoint withdraws an endpoint of this node. It is out of the snapshot
// when RemoveEndpoint returns.
func (d *Discovery) RemoveEndpoint(networkID, endpointID string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, ok := d.networks[networkID]
	if !ok || !n.remove(endpointID) {
		return fmt.Errorf("endpoint %s is none of this node's on network %s", endpointID, networkID)
	}
	d.publish(n)
	signal(d.wake)
	return nil
}

// Status returns the state of gossip. Its nodes are those of a moment ago.
func (d *Discovery) Status() Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.status
	s.Name = d.name
	s.Nodes = slices.Clone(s.Nodes)
	s.BadRecords = d.bad.Load()
	for id, n := range d.networks {
		s.Conflicts += d.conflicts[id]
		s.Unproven += n.unproven
		s.Remembered += n.unconfirmed()
	}
	return s
}

// publish makes and publishes the next version of a network. The caller holds
// the lock.
func (d *Discovery) publish(n *network) {
	d.version++
	snap, conflicts := n.snapshot(d.version)
	if now := time.Now(); conflicts > 0 && conflicts != d.conflicts[n.cfg.ID] && now.Sub(d.conflictsLogged) >= time.Minute {
		d.conflictsLogged = now // any member can have this happen as often as it likes
		d.cfg.Log.Warn("endpoints contradict each other about addresses", "network", n.cfg.Name, "addresses", conflicts)
	}
	d.conflicts[n.cfg.ID] = conflicts
	if now := time.Now(); n.unproven > 0 && now.Sub(d.unprovenLogged) >= time.Minute {
		d.unprovenLogged = now
		d.cfg.Log.Warn("gossip records without a valid signature of their owner: no endpoints", "network", n.cfg.Name, "records", n.unproven)
	}
	n.acks.note(snap.Version, n.builder.Disabled(), d.name)
	d.cfg.Store.Publish(snap)
}

// wanted returns what NetworkDB should hold, by network and endpoint ID; this
// node's own record is under its name.
func (d *Discovery) wanted() (keys []Key, entries map[string]map[string]entry) {
	d.mu.Lock()
	defer d.mu.Unlock()
	entries = make(map[string]map[string]entry, len(d.networks))
	for id, n := range d.networks {
		m := maps.Clone(n.entries)
		// Cannot fail: there is no text in it.
		if applied, err := putApplied(n.acks.applied); err == nil {
			m[d.name] = entry{applied: applied, identity: n.identityEntry()}
		}
		if n.cfg.Ingress {
			d.addRevocations(m)
		}
		entries[id] = m
	}
	return d.keys, entries
}

// signal leaves word in a channel that has room for one.
func signal(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

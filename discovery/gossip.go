package discovery

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/docker/go-events"
	"github.com/moby/moby/v2/daemon/libnetwork/networkdb"

	"github.com/ovnd/ovnd/crypto"
)

const (
	// closeTimeout bounds the farewell. NetworkDB gives the announcement 5 s
	// and memberlist 1 s; with a peer that answers it takes about one second.
	closeTimeout = 8 * time.Second
	// joinGrace bounds the wait for exchanges with other nodes that are under way
	// when gossip closes. NetworkDB gives one 30 s to be answered, and nobody asks
	// for the answer any more.
	joinGrace = time.Second
	// buryTimeout bounds the search for somebody to tell that the last run has
	// ended. A refusal comes at once; a machine that is gone is not worth more.
	buryTimeout = 5 * time.Second
	// farewellPause is between leaving the networks and the cluster, more than one
	// interval of gossip: to the others, one that leaves the cluster with its
	// networks not withdrawn may be about to come back; see returnTime.
	farewellPause = 300 * time.Millisecond
	// enterTimeout bounds the wait for NetworkDB's own record of a network that
	// is being joined, which takes a lock and no network traffic.
	enterTimeout = 500 * time.Millisecond
	// openAttempts and openPause say how often and how far apart a port in use
	// is tried.
	openAttempts = 5
	openPause    = 50 * time.Millisecond
	// crossingWindow is how long after joining a network a node that turns up
	// on it may have joined at the same moment; see membership.crossed.
	crossingWindow = 5 * time.Second
	// maxRepeats is how many endpoints of a network a node repeats for each
	// newcomer: at some 35 records a second that takes four seconds.
	maxRepeats = 64
)

// settlePauses is how long after a node has joined the others, and then again, it
// exchanges with each of them who is where: one that did not know it yet when it
// joined its networks has not heard of them.
var settlePauses = [...]time.Duration{time.Second, 3 * time.Second}

// settleTime is what such an exchange may take.
const settleTime = time.Second

// An entry is the two records of a local endpoint, of which naming is nil for a
// load balancer's and for one that is pending; or those of the node itself; or
// one that tells of a node that was removed.
type entry struct {
	place, naming, applied, identity, revocation []byte

	// On an encrypted network: what place becomes before it is deleted, and what
	// place says, without the sequence, signed with which key.
	released []byte
	claim    crypto.EndpointClaim
	key      [32]byte
}

// A tableEntry is the record that an entry has in one table; nil: none.
type tableEntry struct {
	table string
	value []byte
}

// tables returns the records of an entry by table. The place comes first: a name
// without one helps nobody.
func (e entry) tables() [5]tableEntry {
	return [...]tableEntry{
		{peerTable, e.place},
		{endpointTable, e.naming},
		{appliedTable, e.applied},
		{identityTable, e.identity},
		{revocationTable, e.revocation},
	}
}

// gossip is a running NetworkDB and what this node has told it. Only the
// goroutine of Run uses it, but for db, whose methods lock for themselves, and
// greeted.
type gossip struct {
	db     *networkdb.NetworkDB
	self   string // gossip name
	log    *slog.Logger
	keys   []Key // the keyring, primary first
	events *events.Channel
	cancel func() // ends the watch and the attempts to join

	// greeted says that a node has answered to this one's own join. Without it,
	// those in gossip are hearsay: nodes that have not noticed yet that the last
	// run was killed send their gossip to this one.
	greeted  atomic.Bool
	networks map[string]*membership // joined, by ID
	joining  sync.WaitGroup         // JoinNetwork calls under way
}

// A membership is this node's participation in the gossip of one network.
type membership struct {
	joined  time.Time
	alone   bool // nobody else was in gossip when it was joined, and nobody came
	synced  atomic.Bool
	entries map[string]entry // what is published, by endpoint ID
	nodes   []string         // gossip names on the network when last looked
	due     []time.Time      // when to repeat the entries

	until     time.Time           // on the way out, and since when it may go; zero: it stays
	contested map[string]struct{} // entries that another node has changed, by endpoint ID
}

// startGossip opens the sockets and starts NetworkDB under a gossip name.
func startGossip(cfg *Config, name string, keys []Key) (*gossip, error) {
	conf := networkdb.DefaultConfig()
	conf.NodeID = name
	conf.Hostname = cfg.Hostname
	conf.BindAddr = cfg.BindAddr.String()
	conf.AdvertiseAddr = cfg.AdvertiseAddr.String()
	conf.BindPort = int(cfg.Port)
	for _, k := range keys {
		conf.Keys = append(conf.Keys, bytes.Clone(k.Key))
	}
	db, err := openDB(conf)
	if err != nil {
		return nil, err
	}
	g := &gossip{db: db, self: name, log: cfg.Log, keys: keys, networks: make(map[string]*membership)}
	g.events, g.cancel = db.Watch("", "")
	return g, nil
}

// openDB starts NetworkDB. A port in use gets a few more chances: the sockets
// that this process has just closed live on for a moment if it was starting
// another one meanwhile, which has them until it calls execve.
func openDB(conf *networkdb.Config) (*networkdb.NetworkDB, error) {
	for attempt := 1; ; attempt++ {
		db, err := networkdb.New(conf)
		// NetworkDB flattens errors to text.
		inUse := err != nil && strings.Contains(err.Error(), syscall.EADDRINUSE.Error())
		switch {
		case err == nil:
			return db, nil
		case !inUse:
			return nil, fmt.Errorf("start gossip on %s port %d: %w", conf.BindAddr, conf.BindPort, err)
		case attempt == openAttempts:
			return nil, portTaken("TCP or UDP", conf.BindAddr, conf.BindPort, err)
		}
		time.Sleep(openPause)
	}
}

// checkPort reports whether gossip can listen on TCP and UDP at addr.
func checkPort(addr netip.Addr, port uint16) error {
	ap := netip.AddrPortFrom(addr, port)
	tcp, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(ap))
	if err != nil {
		return portError("TCP", ap, err)
	}
	tcp.Close()
	udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(ap))
	if err != nil {
		return portError("UDP", ap, err)
	}
	udp.Close()
	return nil
}

func portError(proto string, ap netip.AddrPort, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return portTaken(proto, ap.Addr().String(), int(ap.Port()), err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("gossip cannot listen at %s, which is no address of this machine: correct --listen-addr or --advertise-addr: %w", ap.Addr(), err)
	}
	return fmt.Errorf("gossip cannot listen on %s port %d at %s: %w", proto, ap.Port(), ap.Addr(), err)
}

func portTaken(proto, addr string, port int, err error) error {
	return fmt.Errorf("gossip cannot listen on %s port %d at %s, which another process has: stop that process (dockerd, another ovnd?) or give this node an address of its own with --advertise-addr and --listen-addr: %w",
		proto, port, addr, err)
}

// setKeys rotates the keyring.
func (g *gossip) setKeys(ring []Key) {
	if equalKeys(g.keys, ring) {
		return
	}
	rotate(g.db, g.keys, ring)
	g.keys = ring
	g.log.Info("gossip keys rotated", "primary", ring[0].Tag, "keys", len(ring))
}

// clustered reports whether gossip has reached another node.
func (g *gossip) clustered() bool { return len(g.db.ClusterPeers()) > 1 }

// apply makes NetworkDB hold exactly the networks and entries of want, which
// is keyed by network and endpoint ID. It reports whether it does; if not, what
// is missing is worth another try.
func (g *gossip) apply(want map[string]map[string]entry) (ok bool) {
	ok = true
	for id, m := range g.networks {
		if _, wanted := want[id]; !wanted {
			ok = g.part(id, m) && ok
		}
	}
	for id, entries := range want {
		m := g.networks[id]
		if m == nil {
			m = g.enter(id)
		} else {
			m.until = time.Time{}
		}
		ok = m != nil && g.publish(id, m, entries) && ok
	}
	return ok
}

// enter joins a network. The exchange of its entries with the nodes that are on
// it goes on behind: it takes as long as the slowest of them. The result is nil
// if the network could not be joined.
func (g *gossip) enter(id string) *membership {
	m := &membership{
		joined:    time.Now(),
		alone:     !g.clustered(),
		entries:   make(map[string]entry),
		contested: make(map[string]struct{}),
	}
	g.joining.Go(func() {
		// It fails if an earlier call that was slow has joined it after all.
		if err := g.db.JoinNetwork(id); err != nil {
			g.log.Debug("network not joined", "network", id, "error", err)
		}
		m.synced.Store(true)
	})

	// Entries may be made once this node is on its own list of the network.
	for deadline := time.Now().Add(enterTimeout); !slices.Contains(g.nodesOf(id), g.self); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			g.log.Warn("gossip is slow to join a network", "network", id)
			return nil
		}
	}
	m.nodes = g.nodesOf(id)
	g.networks[id] = m
	return m
}

// leave withdraws this node's entries of a network and leaves it.
func (g *gossip) leave(id string) {
	if err := g.db.LeaveNetwork(id); err != nil {
		g.log.Warn("cannot leave the gossip of a network", "network", id, "error", err)
	}
	delete(g.networks, id)
}

// publish makes the entries of a network those of want. It reports whether all
// of them are.
func (g *gossip) publish(id string, m *membership, want map[string]entry) (ok bool) {
	ok = true
	for ep, old := range m.entries {
		if _, ok := want[ep]; !ok {
			g.replace(id, ep, old, entry{})
			delete(m.entries, ep)
		}
	}
	for ep, e := range want {
		if g.replace(id, ep, m.entries[ep], e) {
			m.entries[ep] = e
		} else {
			ok = false
		}
	}
	return ok
}

// replace takes the records of one entry from old to e. It reports whether all of
// them are as wanted.
func (g *gossip) replace(id, ep string, old, e entry) (ok bool) {
	ok = true
	was := old.tables()
	if e.place == nil && old.released != nil {
		ok = g.set(peerTable, id, ep, old.place, old.released)
	}
	for i, now := range e.tables() {
		ok = g.set(now.table, id, ep, was[i].value, now.value) && ok
	}
	return ok
}

// set takes one entry from value old to value, where nil means none. It reports
// whether the entry is now as wanted.
func (g *gossip) set(table, id, ep string, old, value []byte) bool {
	var err error
	switch {
	case bytes.Equal(old, value):
		return true
	case value == nil:
		err = g.db.DeleteEntry(table, id, ep)
	default:
		// An entry may be there already although this run did not make it: the
		// other nodes may not have noticed yet that this one was restarted.
		if err = g.db.CreateEntry(table, id, ep, value); err != nil {
			err = g.db.UpdateEntry(table, id, ep, value)
		}
	}
	if err != nil {
		g.log.Warn("cannot gossip an endpoint", "network", id, "endpoint", ep, "table", table, "error", err)
		return false
	}
	return true
}

// nodesOf returns the gossip names of the nodes on a network.
func (g *gossip) nodesOf(id string) []string {
	peers := g.db.Peers(id)
	names := make([]string, len(peers))
	for i, p := range peers {
		names[i] = p.Name
	}
	return names
}

// members returns the nodes on a network, by gossip address.
func (g *gossip) members(id string) map[netip.Addr]string {
	peers := g.db.Peers(id)
	m := make(map[netip.Addr]string, len(peers))
	for _, p := range peers {
		if p.IP.IsValid() {
			m[p.IP] = p.Name
		}
	}
	return m
}

// crossed repairs nodes that have missed each other. An entry is sent four times,
// 200 ms apart, to those known to be on the network, and taken by those who know
// its owner to be there; while that news makes its way, through a large cluster
// or a busy machine, this is nobody, and the exchange that a newcomer asks for is
// refused by those who have not heard of it. NetworkDB by itself mends it at its
// next bulk sync, up to a minute later. So whoever finds a new node on a network
// repeats its own entries, at once and after each time that the newcomer settles,
// unless these are many and it is not new there itself.
func (g *gossip) crossed() {
	now := time.Now()
	for id, m := range g.networks {
		nodes := g.nodesOf(id)
		turnedUp := slices.ContainsFunc(nodes, func(n string) bool { return !slices.Contains(m.nodes, n) })
		m.nodes = nodes
		if turnedUp && !g.greeted.Load() {
			m.alone = false // it came to us, and has asked for the exchange
		}
		if turnedUp && (len(m.entries) <= maxRepeats || now.Sub(m.joined) <= crossingWindow) {
			m.due = []time.Time{now}
			at := now.Add(settleTime)
			for _, pause := range settlePauses {
				at = at.Add(pause)
				m.due = append(m.due, at)
			}
		}
		if len(m.due) > 0 && !m.due[0].After(now) {
			m.due = m.due[1:]
			g.repeatAll(id, m)
		}
	}
}

func (g *gossip) repeatAll(id string, m *membership) {
	for ep, e := range m.entries {
		for _, r := range e.tables() {
			g.repeat(r.table, id, ep, r.value)
		}
	}
}

func (g *gossip) repeat(table, id, ep string, value []byte) {
	if value == nil {
		return
	}
	if err := g.db.UpdateEntry(table, id, ep, value); err != nil {
		g.log.Debug("cannot repeat an endpoint", "network", id, "endpoint", ep, "table", table, "error", err)
	}
}

// rejoin leaves the networks that were joined while nobody else was in gossip;
// the next apply joins them again, now with the exchange of entries that there
// was nobody for. No one can have missed this node in between.
func (g *gossip) rejoin() {
	for id, m := range maps.Clone(g.networks) {
		if m.alone {
			g.leave(id)
		}
	}
}

// join tries to reach the nodes, which are addresses or host names, one after
// the other. It fails if none answers, and blocks for up to 10 s for each one
// that is silent.
func (g *gossip) join(nodes []string, port uint16) error {
	addrs := make([]string, len(nodes))
	for i, n := range nodes {
		addrs[i] = net.JoinHostPort(n, strconv.Itoa(int(port)))
	}
	err := g.db.Join(addrs)
	if err == nil {
		g.greeted.Store(true)
	}
	return err
}

// bury makes the other nodes forget a former life of this node that ended
// without a goodbye, and that they take for alive until it has missed enough
// pings. They would tell this node about it, and NetworkDB holds two nodes at
// one address for an old and a new one: whichever it hears of last is the new
// one. So the former node comes back, for about a second, to say goodbye.
func bury(cfg *Config, former string, keys []Key, nodes []string) {
	if len(nodes) == 0 {
		return // and nobody to tell about it
	}
	g, err := startGossip(cfg, former, keys)
	if err != nil {
		cfg.Log.Debug("cannot say goodbye for the last run", "error", err)
		return
	}
	// All at once: those that are gone would hold up the others. What is still
	// waiting for an answer then ends with TCP's time limit in memberlist, 10 s.
	answers := make(chan bool, len(nodes))
	for _, n := range nodes {
		go func() { answers <- g.join([]string{n}, cfg.Port) == nil }()
	}
	late := time.After(buryTimeout)
	for range nodes {
		select {
		case reached := <-answers:
			if !reached {
				continue
			}
		case <-late:
		}
		break
	}
	g.close()
}

// close says goodbye: the networks are left, which withdraws this node's
// entries, then the cluster. It returns within closeTimeout and joinGrace
// whatever the others do, and reports whether all was said; what is still waiting
// for them then ends within NetworkDB's own time limits.
func (g *gossip) close() bool {
	g.cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for id := range g.networks {
			if err := g.db.LeaveNetwork(id); err != nil {
				g.log.Debug("cannot leave the gossip of a network", "network", id, "error", err)
			}
		}
		if len(g.networks) > 0 && g.clustered() {
			time.Sleep(farewellPause)
		}
		g.db.Close()
	}()
	select {
	case <-done:
		g.awaitJoining()
		return true
	case <-time.After(closeTimeout):
		g.log.Warn("gossip is slow to close", "after", closeTimeout)
		return false
	}
}

// awaitJoining gives what still exchanges entries with other nodes the time to
// end, within joinGrace.
func (g *gossip) awaitJoining() {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		g.joining.Wait()
	}()
	select {
	case <-ended:
	case <-time.After(joinGrace):
	}
}

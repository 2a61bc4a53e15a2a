package discovery

import (
	"cmp"
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-events"
	"github.com/moby/moby/v2/daemon/libnetwork/networkdb"
)

const (
	// lookInterval is how often NetworkDB is asked what it has no events for:
	// which nodes are on a network.
	lookInterval = 200 * time.Millisecond
	// publishDelay collects what arrives together, a bulk sync's thousands of
	// entries say, into one snapshot.
	publishDelay = 10 * time.Millisecond
	// saveInterval is the least time between two writes of peersFile.
	saveInterval = 2 * time.Second
	// joinInterval is how often gossip is checked for a manager, and the
	// longest pause between two attempts to reach one; firstPause the shortest.
	joinInterval = 10 * time.Second
	firstPause   = 250 * time.Millisecond
	// claimTime is how long endpoints are remembered for a network that nobody
	// has joined since the start.
	claimTime = 2 * time.Minute
	// maxSavedNodes bounds the nodes that are remembered to join by.
	maxSavedNodes = 16
)

// A loop is one Run: everything that talks to NetworkDB. Its goroutine is the
// only one that uses it.
type loop struct {
	*Discovery
	gossip  *gossip // nil until there are keys
	events  <-chan events.Event
	reached chan struct{} // has room for one: a lone node has just joined others

	former    []string        // gossip names of this node that others may take for alive
	began     time.Time       // when Run did
	clustered time.Time       // since when other nodes are in gossip; zero: they are not
	dirty     map[string]bool // networks to publish
	delay     *time.Timer     // runs out publishDelay after the first became dirty
	again     bool            // not all of what is wanted could be done
	lastSave  time.Time
	refuges   []string  // what the file of the last save names to join by
	walked    time.Time // when the deleted entries were last looked through
	deletions bool      // entries of encrypted networks were deleted since

	failed map[netip.Addr]bool // nodes that have gone silent in gossip, by address there
}

// Run gossips until ctx ends, then announces that this node leaves and returns
// nil, within ten seconds. It starts as soon as there are keys; that the port
// cannot be had is the one error.
func (d *Discovery) Run(ctx context.Context) error {
	l := &loop{
		Discovery: d,
		reached:   make(chan struct{}, 1),
		began:     time.Now(),
		dirty:     make(map[string]bool),
		failed:    make(map[netip.Addr]bool),
		delay:     time.NewTimer(time.Hour),
	}
	l.delay.Stop()
	ctx, cancel := context.WithCancel(ctx)
	defer l.stop()
	defer cancel()

	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	if name := l.saved.Name; name != "" {
		l.former = []string{name}
	}
	signal(d.wake)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.wake:
			if err := l.reconcile(ctx); err != nil {
				return err
			}
		case ev := <-l.events:
			l.learn(ev.(networkdb.WatchEvent))
		case <-l.delay.C:
			l.publishDirty()
		case <-l.reached:
			if l.gossip != nil { // else it is about to start again
				l.tick() // keeps the names of the others, should this run be killed now
			}
			if l.gossip != nil {
				l.gossip.rejoin()
				signal(d.wake)
			}
		case <-tick.C:
			l.tick()
		}
	}
}

// reconcile makes NetworkDB hold what this node wants it to.
func (l *loop) reconcile(ctx context.Context) error {
	keys, entries := l.wanted()
	if len(keys) == 0 {
		return nil
	}
	if l.gossip == nil {
		if err := l.start(ctx, keys); err != nil {
			return err
		}
	}
	l.gossip.setKeys(keys)
	l.again = !l.gossip.apply(entries)
	return nil
}

// start starts gossip.
func (l *loop) start(ctx context.Context, keys []Key) error {
	l.mu.Lock()
	name, nodes := l.name, slices.Concat(l.managers, l.saved.Nodes)
	l.mu.Unlock()
	for _, former := range l.former {
		if ctx.Err() == nil {
			bury(&l.cfg, former, keys, nodes)
		}
	}
	l.former = nil

	g, err := startGossip(&l.cfg, name, keys)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	unwatch := g.cancel
	g.cancel = func() { cancel(); unwatch() }
	g.joining.Go(func() { l.keepJoined(ctx, g) })
	l.gossip, l.events = g, g.events.C
	l.cfg.Log.Info("gossip started", "name", name, "addr", netip.AddrPortFrom(l.cfg.AdvertiseAddr, l.cfg.Port))

	// At once: should this run be killed, the next one must know its name.
	l.mu.Lock()
	l.saved.Name, l.unsaved = name, true
	l.mu.Unlock()
	l.saveNews()
	return nil
}

// restart starts gossip again under another name, after NetworkDB has taken a
// former life of this node, of those names, for the newer one and cast this one
// out.
func (l *loop) restart(former []string) {
	l.cfg.Log.Warn("gossip starts again: it took the last run of this node for the present one", "former", former)
	l.gossip.close()
	l.gossip, l.events, l.former = nil, nil, former
	l.rename(newName()) // and what is known of others waits to be confirmed
	signal(l.wake)
}

// learn takes in one event of NetworkDB.
func (l *loop) learn(ev networkdb.WatchEvent) {
	if ev.Table == revocationTable {
		l.learnRevocation(ev)
		return
	}
	if ev.Table == networkdb.NodeTable {
		l.noteNode(ev)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	n, ok := l.networks[ev.NetworkID]
	if !ok {
		return // a network that was just left
	}
	if n.opts.Encrypted {
		if l.gossip.contest(ev) {
			return
		}
		l.deletions = l.deletions || ev.Table == peerTable && ev.Value == nil
	}
	if l.lingers(n, ev) {
		return
	}
	changed, err := n.learn(ev.Table, ev.Key, ev.Value)
	if err != nil {
		l.refused(n, ev.Key, err)
	}
	if ev.Table == appliedTable {
		l.announce()
	}
	if !changed {
		return
	}
	l.unsaved = true
	l.markDirty(ev.NetworkID)
}

// refused counts a bad record and logs at most one in a minute.
func (l *loop) refused(n *network, id string, err error) {
	l.bad.Add(1)
	now := time.Now().Unix()
	if last := l.badLogged.Load(); now-last >= 60 && l.badLogged.CompareAndSwap(last, now) {
		l.cfg.Log.Warn("gossip record refused", "network", n.cfg.Name, "endpoint", id, "error", err)
	}
}

func (l *loop) markDirty(id string) {
	if len(l.dirty) == 0 {
		l.delay.Reset(publishDelay)
	}
	l.dirty[id] = true
}

func (l *loop) publishDirty() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.deletions && l.gossip != nil {
		l.learnReleases()
	}
	for id := range l.dirty {
		n, ok := l.networks[id]
		if ok && n.rests() {
			continue
		}
		delete(l.dirty, id)
		if ok {
			l.publish(n)
		}
	}
	if len(l.dirty) > 0 {
		l.delay.Reset(publishDelay)
	}
}

// tick looks after what NetworkDB does not report and what takes its time.
func (l *loop) tick() {
	if l.gossip != nil {
		l.gossip.crossed()
		if usurpers, present := l.watchCluster(); !present {
			l.saveNews() // closing takes seconds
			l.restart(usurpers)
		} else {
			l.defend()
			l.rereadRevocations()
		}
		if l.again {
			signal(l.wake)
		}
	}
	// Who is there cannot wait: should this run be killed now and the manager be
	// away, the next one would look for nodes that have gone.
	if time.Since(l.lastSave) >= saveInterval || l.newRefuges() {
		l.saveNews()
	}
}

// watchCluster takes in who is in gossip and on which network, and drops what
// gossip should have confirmed by now. It reports whether this node is still in
// gossip, and the names of others that have its address.
func (l *loop) watchCluster() (usurpers []string, present bool) {
	peers := l.gossip.db.ClusterPeers()
	nodes := make([]Node, 0, len(peers))
	for _, p := range peers {
		nodes = append(nodes, Node{Name: p.Name, Addr: p.IP})
		if p.Name == l.gossip.self {
			present = true
		} else if p.IP == l.cfg.AdvertiseAddr {
			usurpers = append(usurpers, p.Name)
		}
	}
	slices.SortFunc(nodes, func(a, b Node) int { return strings.Compare(a.Name, b.Name) })
	if !present {
		// Who else is there is worth knowing all the same: should this run be
		// killed before it is back, the next one looks for them.
		l.mu.Lock()
		defer l.mu.Unlock()
		if !slices.Equal(nodes, l.status.Nodes) {
			l.status.Nodes, l.unsaved = nodes, true
		}
		return usurpers, false
	}
	switch {
	case len(nodes) < 2:
		l.clustered = time.Time{}
	case l.clustered.IsZero():
		l.clustered = time.Now()
	}

	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Equal(nodes, l.status.Nodes) {
		l.status.Nodes = nodes
		l.unsaved = true
	}
	l.status.Running = true
	for id, m := range l.gossip.networks {
		n, ok := l.networks[id]
		if !ok {
			continue
		}
		changed := n.setMembers(l.gossip.members(id))
		if n.expire(time.Now(), l.gossip.inGossip(id)) {
			l.unsaved, changed = true, true
		}
		if l.overdue(m) && n.forgetUnconfirmed() {
			l.cfg.Log.Info("endpoints of the last run dropped: gossip does not know them", "network", n.cfg.Name)
			l.unsaved, changed = true, true
		}
		if changed {
			l.markDirty(id)
		}
	}
	return usurpers, true
}

// overdue reports whether gossip has had its time to confirm the remembered
// endpoints of a network.
func (l *loop) overdue(m *membership) bool {
	return !l.clustered.IsZero() && m.synced.Load() &&
		time.Since(l.clustered) > l.unconfirmedFor && time.Since(m.joined) > l.unconfirmedFor
}

// keepJoined keeps this node in one gossip cluster with the managers.
func (l *loop) keepJoined(ctx context.Context, g *gossip) {
	pause := firstPause
	for ctx.Err() == nil {
		ok := l.joinOnce(ctx, g)
		wait := joinInterval
		if ok {
			pause = firstPause
		} else {
			wait, pause = pause, min(2*pause, joinInterval)
		}
		select {
		case <-ctx.Done():
		case <-l.look:
			pause = firstPause
		case <-time.After(wait):
		}
	}
}

// joinOnce tries to reach a manager unless one is in gossip already, and if
// none answers and this node is alone, the nodes that it knew in its last run.
// It reports whether there is nothing left to try for.
func (l *loop) joinOnce(ctx context.Context, g *gossip) bool {
	l.mu.Lock()
	managers, known := l.managers, l.saved.Nodes
	l.mu.Unlock()

	peers := g.db.ClusterPeers()
	first := !g.greeted.Load()
	for _, p := range peers {
		if !first && slices.Contains(managers, p.IP.String()) {
			return true
		}
	}
	alone := len(peers) < 2 || first
	var err error
	if len(managers) > 0 {
		err = g.join(managers, l.cfg.Port)
	}
	found := len(managers) > 0 && err == nil
	if !found && alone && len(known) > 0 {
		err = cmp.Or(g.join(known, l.cfg.Port), err)
	}
	if first && g.greeted.Load() {
		l.cfg.Log.Info("gossip joined", "nodes", len(g.db.ClusterPeers()))
		signal(l.reached)
		g.joining.Go(func() { l.settle(ctx, g) })
	}
	if err != nil {
		l.cfg.Log.Debug("no manager in gossip", "managers", managers, "error", err)
	}
	return found || len(managers) == 0 && (len(known) == 0 || !alone)
}

// settle tells the others again who is where, some time after this node has
// joined them.
func (l *loop) settle(ctx context.Context, g *gossip) {
	for _, pause := range settlePauses {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		var others []string
		for _, p := range g.db.ClusterPeers() {
			if p.IP != l.cfg.AdvertiseAddr && len(others) < maxSavedNodes {
				others = append(others, p.IP.String())
			}
		}
		if len(others) == 0 {
			continue
		}
		if err := g.join(others, l.cfg.Port); err != nil {
			l.cfg.Log.Debug("the others do not answer", "nodes", others, "error", err)
		}
	}
}

// saveNews writes peersFile if it has become out of date.
func (l *loop) saveNews() {
	l.mu.Lock()
	if time.Since(l.began) > claimTime && len(l.saved.Networks) > 0 {
		l.saved.Networks, l.saved.Identities = nil, nil
		l.unsaved = true
	}
	if !l.unsaved {
		l.mu.Unlock()
		return
	}
	l.unsaved = false
	state := savedPeers{
		Name:       l.saved.Name,
		Nodes:      l.savedNodes(),
		Networks:   make(map[string]map[string]savedEndpoint),
		Identities: make(map[string]map[string][]byte),
	}
	maps.Copy(state.Networks, l.saved.Networks)
	maps.Copy(state.Identities, l.saved.Identities)
	for id, n := range l.networks {
		state.Networks[id] = n.saved()
		if n.opts.Encrypted {
			state.Identities[id] = n.savedIdentities()
		}
	}
	l.saved.Nodes = state.Nodes
	l.mu.Unlock()

	l.lastSave, l.refuges = time.Now(), state.Nodes
	// Not durable: Run has other things to do than to wait for a disk, and what a
	// crash of the machine leaves behind is read with care.
	if err := save(l.path(peersFile), state, false); err != nil {
		l.cfg.Log.Warn("cannot keep the endpoints of other nodes for the next start", "error", err)
	}
}

// newRefuges reports whether other nodes are in gossip than the last file says.
func (l *loop) newRefuges() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !slices.Equal(l.savedNodes(), l.refuges)
}

// savedNodes returns the addresses to join by after a restart: those in gossip
// now, or while there are none the ones of the last run. The caller holds the
// lock.
func (l *loop) savedNodes() []string {
	var addrs []string
	for _, n := range l.status.Nodes {
		if n.Name != l.name && n.Addr != l.cfg.AdvertiseAddr && len(addrs) < maxSavedNodes {
			addrs = append(addrs, n.Addr.String())
		}
	}
	if len(addrs) == 0 {
		return l.saved.Nodes
	}
	return addrs
}

// stop ends Run: what is known is saved, then the cluster is left.
func (l *loop) stop() {
	l.delay.Stop()
	l.saveNews()
	if l.gossip == nil {
		return
	}
	l.gossip.releaseAll()
	left := l.gossip.close()
	l.mu.Lock()
	if left {
		l.saved.Name, l.unsaved = "", true
	}
	l.mu.Unlock()
	l.saveNews()
	l.mu.Lock()
	l.status = Status{}
	l.mu.Unlock()
}

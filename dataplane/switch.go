package dataplane

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/ovnd/ovnd/crypto"
	"github.com/ovnd/ovnd/dataplane/pkt"
	"github.com/ovnd/ovnd/dataplane/udp"
	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/encap"
)

// Config tunes a Switch. Only Underlay is required.
type Config struct {
	// Underlay is the local address and UDP port to receive at. Peers are sent
	// to at the same port.
	Underlay netip.AddrPort
	// Workers is how many threads forward; 0 means one for each two cores, at
	// least one and at most sixteen.
	Workers int
	// SourcePorts is the number of sockets to send from, the entropy of the
	// outer headers; 0 means 4 a worker.
	SourcePorts int
	// RecvBuffer and SendBuffer are socket buffer sizes in bytes, as far as the
	// kernel's limits allow; 0 means 1 MiB. More makes no higher throughput,
	// but longer queues.
	RecvBuffer, SendBuffer int
	// Sessions seal what goes to other nodes on encrypted networks; nil: such
	// networks are refused.
	Sessions *crypto.Engine
	// Log takes events, none of which is a packet; nil discards them.
	Log *slog.Logger
}

const (
	defaultBuffer      = 1 << 20
	defaultSourcePorts = 4
	maxWorkers         = 16
)

func (c Config) withDefaults() Config {
	if c.Workers <= 0 {
		// Below four cores a second one takes more from the applications than
		// it gives.
		c.Workers = min(max(runtime.GOMAXPROCS(0)/2, 1), maxWorkers)
	}
	c.SourcePorts = cmp.Or(c.SourcePorts, defaultSourcePorts*c.Workers)
	c.RecvBuffer = cmp.Or(c.RecvBuffer, defaultBuffer)
	c.SendBuffer = cmp.Or(c.SendBuffer, defaultBuffer)
	c.Log = cmp.Or(c.Log, slog.New(slog.DiscardHandler))
	return c
}

// A Switch forwards between the ports of a node and the underlay. All methods
// are safe for concurrent use.
type Switch struct {
	cfg      Config
	log      *slog.Logger
	local    netip.AddrPort
	under    *udp.Underlay
	workers  []*worker
	keeper   *keeper
	services *services
	late     chan lateFrame // for the keeper
	injector []*injector
	sessions *crypto.Engine // nil: no encrypted networks
	control  *control
	sections []section // by worker
	gathers  [][]byte  // by worker: room for one super-packet, made when first needed

	table atomic.Pointer[table]
	stray []ledger // by worker: packets of no network

	mu       sync.Mutex // one writer at a time; guards what follows
	nets     map[string]*directory.Snapshot
	ports    []*Port // by slot, nil where free
	accounts map[string]*account
	peers    map[netip.Addr]*peer
	nodes    map[*crypto.Peer]*sealedPeer
	closed   bool
}

// New opens the underlay's sockets. The caller must call Run, or Close.
func New(cfg Config) (*Switch, error) {
	cfg = cfg.withDefaults()
	if a := cfg.Underlay.Addr(); !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || a.Is4In6() || cfg.Underlay.Port() == 0 {
		return nil, fmt.Errorf("data plane: underlay %s: a unicast address of this machine and a port are needed", cfg.Underlay)
	}
	under, err := udp.Listen(udp.Config{
		Local: cfg.Underlay, Receivers: cfg.Workers, SourcePorts: cfg.SourcePorts,
		RecvBuffer: cfg.RecvBuffer, SendBuffer: cfg.SendBuffer,
	})
	if err != nil {
		return nil, fmt.Errorf("data plane: %w", err)
	}
	// Each worker, the keeper, the injectors, who looks after flows to VIPs and
	// what is sent about sessions count on their own.
	injectors := max(cfg.Workers, minInjectors)
	slots := cfg.Workers + 1 + injectors + 2
	s := &Switch{
		cfg: cfg, log: cfg.Log, local: cfg.Underlay, under: under,
		sections: make([]section, slots),
		stray:    make([]ledger, slots),
		nets:     make(map[string]*directory.Snapshot),
		accounts: make(map[string]*account),
		peers:    make(map[netip.Addr]*peer),
		sessions: cfg.Sessions,
		nodes:    make(map[*crypto.Peer]*sealedPeer),
	}
	s.late = make(chan lateFrame, maxLate)
	s.table.Store(&table{})
	for i := range cfg.Workers {
		w, err := newWorker(s, i, under.Receivers()[i])
		if err != nil {
			s.Close()
			return nil, fmt.Errorf("data plane: %w", err)
		}
		s.workers = append(s.workers, w)
	}
	s.keeper = newKeeper(s, cfg.Workers)
	for i := range injectors {
		s.injector = append(s.injector, newInjector(s, cfg.Workers+1+i))
	}
	s.services = newServices(s, slots-2)
	s.control = &control{sw: s, worker: slots - 1, sender: under.NewSender()}
	return s, nil
}

// Run forwards until ctx ends, then closes the switch and its ports. It returns
// nil if ctx ended.
func (s *Switch) Run(ctx context.Context) error {
	defer s.Close()
	defer reserveProcs(s.cfg.Workers)()
	g, gctx := errgroup.WithContext(ctx)
	for _, w := range s.workers {
		g.Go(w.run)
	}
	g.Go(func() error { return s.keeper.run(gctx) })
	g.Go(func() error { return s.services.run(gctx) })
	g.Go(func() error {
		<-gctx.Done()
		for _, w := range s.workers {
			w.stop()
		}
		s.under.Shutdown()
		return nil
	})
	err := g.Wait()
	if ctx.Err() != nil || errors.Is(err, udp.ErrClosed) {
		return nil
	}
	return err
}

// Close closes sockets and ports of a switch that does not run. Stacks may still
// send: nothing comes of it.
func (s *Switch) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	s.table.Store(&table{})
	s.waitForWorkers()
	for slot, p := range s.ports {
		if p != nil {
			p.closeFlows()
			_ = p.closeQueues()
			if p.stack != nil {
				p.stack.queue.close()
			}
			s.ports[slot] = nil
		}
	}
	for _, w := range s.workers {
		w.close()
	}
	s.under.Close()
}

// UnderlayAddr returns the address and port that the switch receives at.
func (s *Switch) UnderlayAddr() netip.AddrPort { return s.local }

// Workers returns the number of workers, which is also the best number of queues
// for a port's device.
func (s *Switch) Workers() int { return s.cfg.Workers }

// SetNetwork installs a version of a network, in place of an earlier one. Ports
// of the network that exist already start to work. An encrypted network is
// refused by a switch without sessions: it has no clear form. A network with VNI 0 is a
// star: it never leaves the node, and its ports reach the hub (see
// [StackPortConfig]), but not each other.
func (s *Switch) SetNetwork(snap *directory.Snapshot) {
	if snap.Encrypted && (s.sessions == nil || isStar(snap)) || !snap.VNI.Valid() {
		s.log.Error("network refused by the data plane", "network", snap.Name, "vni", snap.VNI, "encrypted", snap.Encrypted)
		s.RemoveNetwork(snap.ID)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if was := s.nets[snap.ID]; was != nil && was.Encrypted != snap.Encrypted {
		s.removeNetwork(snap.ID) // another network, which what is known of this one is not for
	}
	s.nets[snap.ID] = snap
	s.publish(snap.ID)
}

// RemoveNetwork forgets a network. Its ports stay, and drop what they get.
func (s *Switch) RemoveNetwork(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.nets[id]; ok {
		s.removeNetwork(id)
	}
}

// removeNetwork forgets a network that is there. s.mu is held.
func (s *Switch) removeNetwork(id string) {
	delete(s.nets, id)
	s.publish(id)
	s.waitForWorkers()
	a := s.account(id)
	a.ledgers[0].drop(DropNoNetwork, a.neighbours.clear()+s.forgetHeld(id))
	s.forget(id)
}

// publish swaps in a table in which the network id is compiled anew, and the
// others are taken over. s.mu is held.
func (s *Switch) publish(id string) {
	old := s.table.Load()
	next := &table{
		networks: make(map[string]*network, len(s.nets)),
		byVNI:    make(map[encap.VNI]*network, len(s.nets)),
		sealed:   make(map[encap.VNI]*network),
		ports:    make([]entry, len(s.ports)),
	}
	for other, n := range old.networks {
		if other != id && s.nets[other] == n.snap {
			next.add(n)
		}
	}
	if snap := s.nets[id]; snap != nil {
		if other := cmp.Or(next.byVNI[snap.VNI], next.sealed[snap.VNI]); other != nil {
			s.log.Error("two networks with one VNI", "vni", snap.VNI, "network", other.snap.Name, "refused", snap.Name)
			delete(s.nets, id)
		} else {
			next.add(s.compile(snap, old.networks[id]))
		}
	}
	for slot, p := range s.ports {
		if p != nil {
			next.ports[slot] = entry{port: p, net: next.networks[p.cfg.NetworkID]}
		}
	}
	s.table.Store(next)
	s.forgetPeers(next)
	s.forgetNodes(next)
	s.services.lookSoon()
	if len(next.sealed) > 0 {
		s.keeper.resumeSoon()
	}
}

// add takes n into a table that is being built.
func (t *table) add(n *network) {
	t.networks[n.snap.ID] = n
	switch {
	case n.star:
	case n.snap.Encrypted:
		t.sealed[n.snap.VNI] = n
	default:
		t.byVNI[n.snap.VNI] = n
	}
}

// account returns the account of a network, and opens it if need be. s.mu is
// held.
func (s *Switch) account(id string) *account {
	a := s.accounts[id]
	if a == nil {
		a = &account{ledgers: make([]ledger, len(s.sections))}
		s.accounts[id] = a
	}
	return a
}

// scratch returns the worker's room for one super-packet in one piece. s.mu is
// held.
func (s *Switch) scratch(worker int) []byte {
	if s.gathers == nil {
		s.gathers = make([][]byte, len(s.sections))
	}
	if s.gathers[worker] == nil {
		s.gathers[worker] = make([]byte, 0, pkt.MaxSuper)
	}
	return s.gathers[worker]
}

// forget closes the account of a network that is gone, once its last port is
// too; what it counted goes on counting among the strays. s.mu is held, and no
// worker uses the network.
func (s *Switch) forget(id string) {
	a := s.accounts[id]
	if a == nil || s.nets[id] != nil {
		return
	}
	for _, p := range s.ports {
		if p != nil && p.cfg.NetworkID == id {
			return
		}
	}
	for i := range a.ledgers {
		s.stray[i].merge(&a.ledgers[i])
	}
	delete(s.accounts, id)
}

// peer returns the peer at a VTEP address. s.mu is held.
func (s *Switch) peer(addr netip.Addr) *peer {
	p := s.peers[addr]
	if p == nil {
		p = &peer{
			addr:    udp.NewAddr(netip.AddrPortFrom(addr, s.local.Port())),
			traffic: make([]traffic, len(s.sections)),
		}
		s.peers[addr] = p
	}
	return p
}

// forgetPeers removes the peers that no network of t knows. s.mu is held.
func (s *Switch) forgetPeers(t *table) {
	used := make(map[*peer]bool, len(s.peers))
	for _, n := range t.byVNI {
		for _, v := range n.peers {
			used[v.peer] = true
		}
		for p := range n.from.behind {
			used[p] = true
		}
	}
	for addr, p := range s.peers {
		if !used[p] {
			delete(s.peers, addr)
		}
	}
}

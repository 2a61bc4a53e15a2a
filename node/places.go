package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	cerrdefs "github.com/containerd/errdefs"

	"github.com/ovnd/ovnd/cluster"
	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/encap"
)

const (
	// placeLinger is how long a place that nobody uses any more stays for the
	// next one. While it has connections it is used.
	placeLinger = 3 * time.Second
	// attachPatience bounds an attachment that several wait for.
	attachPatience = 12 * time.Second
)

// A place is an endpoint of the node's own on a network, for programs that have
// none: what they connect to comes from its address.
type place struct {
	*stackHost
	member   *member // whose network it is on
	att      cluster.Attachment
	name     string
	endpoint string // its ID
	since    time.Time
	gone     chan struct{} // closed when the swarm has taken it away, or it was closed

	// The mutex of places guards these, of a shared one.
	refs int
	idle *time.Timer
}

// places are those of this node. They end with the node, with its life in the
// swarm, or when nobody uses them.
type places struct {
	s *sandboxes

	opening sync.Mutex // of shared ones, so that there is one to a network

	mu     sync.Mutex
	epoch  int // grows when all are closed
	all    map[*place]bool
	shared map[string]*place // by network ID
}

func newPlaces(s *sandboxes) *places {
	return &places{s: s, all: make(map[*place]bool), shared: make(map[string]*place)}
}

// A placeConfig says what a place is to be.
type placeConfig struct {
	network string // name, ID or prefix
	name    string
	target  portTarget
}

// open attaches the node to a network as an endpoint of its own.
func (p *places) open(ctx context.Context, cfg placeConfig) (*place, error) {
	m, err := p.s.inSwarm()
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	epoch := p.epoch
	p.mu.Unlock()
	id := randomID()
	att, err := p.s.swarm.AttachNetwork(ctx, id, cfg.network, nil)
	if err != nil {
		return nil, err
	}
	pl := &place{member: m, att: att, name: cfg.name, endpoint: randomID(), gone: make(chan struct{})}
	if err := p.furnish(pl, id, cfg.target); err != nil {
		return nil, errors.Join(err, p.s.giveBack(att.TaskID))
	}
	p.mu.Lock()
	current := p.epoch == epoch
	if current {
		p.all[pl] = true
	}
	p.mu.Unlock()
	if !current {
		p.dismantle(pl)
		return nil, errOver
	}
	return pl, nil
}

// furnish gives a place its stack and announces it.
func (p *places) furnish(pl *place, id string, target portTarget) error {
	m, net := pl.member, pl.att.Network
	snap, err := m.networks.acquire(net)
	if err != nil {
		return err
	}
	pl.since = time.Now()
	pl.stackHost, err = startHost(p.s.log, m.sw, hostConfig{
		networkID: net.ID, endpointID: pl.endpoint, name: pl.name, addr: pl.att.Addrs[0], mtu: snap.MTU, target: target,
	})
	if err == nil {
		err = m.disc.AddEndpoint(net.ID, directory.Endpoint{
			ID: pl.endpoint, Name: pl.name, SandboxID: id, Addr: pl.Addr(), MAC: encap.EndpointMAC(pl.Addr()),
			VTEP: m.networks.vtep, Kind: directory.Task, TaskAliases: []string{id[:12]},
		})
		if err != nil {
			err = errors.Join(err, pl.Close())
		}
	}
	if err != nil {
		m.networks.release(net.ID)
		return fmt.Errorf("network %s: %w", net.Name, err)
	}
	return nil
}

// dismantle takes a place off its network and gives its address back.
func (p *places) dismantle(pl *place) {
	close(pl.gone)
	m, net := pl.member, pl.att.Network
	if err := m.disc.RemoveEndpoint(net.ID, pl.endpoint); err != nil {
		p.s.log.Warn("endpoint not withdrawn", "endpoint", pl.name, "network", net.Name, "error", err)
	}
	if err := pl.Close(); err != nil {
		p.s.log.Warn("endpoint not closed properly", "endpoint", pl.name, "network", net.Name, "error", err)
	}
	m.networks.release(net.ID)
	if err := p.s.giveBack(pl.att.TaskID); err != nil {
		p.s.log.Info("address not given back yet", "endpoint", pl.name, "network", net.Name, "error", err)
	}
}

// close ends a place; a second time it does nothing.
func (p *places) close(pl *place) {
	p.mu.Lock()
	open := p.all[pl]
	delete(p.all, pl)
	if p.shared[pl.att.Network.ID] == pl {
		delete(p.shared, pl.att.Network.ID)
	}
	if pl.idle != nil {
		pl.idle.Stop()
	}
	p.mu.Unlock()
	if open {
		p.dismantle(pl)
	}
}

// closeAll ends all places, when the node has forgotten its swarm: no other
// begins.
func (p *places) closeAll() {
	p.mu.Lock()
	p.epoch++
	all := make([]*place, 0, len(p.all))
	for pl := range p.all {
		all = append(all, pl)
	}
	p.mu.Unlock()
	for _, pl := range all {
		p.close(pl)
	}
}

// lost ends the place that an attachment belonged to, if there is one: the swarm
// may give its address to somebody else now.
func (p *places) lost(taskID string) bool {
	pl := p.owner(taskID)
	if pl == nil {
		return false
	}
	p.s.log.Warn("the swarm took an address of this node's own away", "endpoint", pl.name, "network", pl.att.Network.Name)
	p.close(pl)
	return true
}

// owner returns the place that an attachment belongs to, nil if there is none.
func (p *places) owner(taskID string) *place {
	p.mu.Lock()
	defer p.mu.Unlock()
	for pl := range p.all {
		if pl.att.TaskID == taskID {
			return pl
		}
	}
	return nil
}

// share returns the place that proxies have in common on a network, which it
// opens if there is none. Each call needs one release.
func (p *places) share(ctx context.Context, network string) (pl *place, release func(), err error) {
	if pl := p.use(network); pl != nil {
		return pl, p.releaser(pl), nil
	}
	p.opening.Lock()
	defer p.opening.Unlock()
	if pl := p.use(network); pl != nil { // another one's doing
		return pl, p.releaser(pl), nil
	}
	ctx, cancel := context.WithTimeout(ctx, attachPatience)
	defer cancel()
	pl, err = p.open(ctx, placeConfig{network: network, name: "proxy-" + p.s.hostname})
	if err != nil {
		return nil, nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.all[pl] {
		return nil, nil, errOver
	}
	pl.refs++
	p.shared[pl.att.Network.ID] = pl
	return pl, p.releaser(pl), nil
}

// use returns the shared place of a network with one more user, nil if there is
// none.
func (p *places) use(network string) *place {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, pl := range p.shared {
		if id == network || pl.att.Network.Name == network || strings.HasPrefix(id, network) {
			pl.refs++
			if pl.idle != nil {
				pl.idle.Stop()
				pl.idle = nil
			}
			return pl
		}
	}
	return nil
}

// releaser returns what ends one use of a shared place.
func (p *places) releaser(pl *place) func() {
	return sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if pl.refs--; pl.refs > 0 || !p.all[pl] {
			return
		}
		pl.idle = time.AfterFunc(placeLinger, func() {
			p.mu.Lock()
			unused, busy := pl.refs == 0, pl.Dialed() > 0
			if unused && busy {
				pl.idle.Reset(placeLinger)
			}
			p.mu.Unlock()
			if unused && !busy {
				p.close(pl)
			}
		})
	})
}

// onlyNetwork returns the attachable network to use where none was named.
func (p *places) onlyNetwork(ctx context.Context) (string, error) {
	list, err := p.s.swarm.GetNetworks(ctx)
	if err != nil {
		return "", cerrdefs.ErrInvalidArgument.WithMessage("which network? Name it with --network")
	}
	var names []string
	for i := range list {
		if n := &list[i]; n.Attachable && !n.Ingress {
			names = append(names, n.Name)
		}
	}
	switch len(names) {
	case 0:
		return "", cerrdefs.ErrInvalidArgument.WithMessage("there is no attachable network: make one with \"ovnd network create --attachable NAME\"")
	case 1:
		return names[0], nil
	}
	return "", cerrdefs.ErrInvalidArgument.WithMessage("which network? Name it with --network: " + strings.Join(names, ", "))
}

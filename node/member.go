package node

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/ovnd/ovnd/dataplane"
	"github.com/ovnd/ovnd/discovery"
)

// How long each part may take to stop before the node goes on without it.
const (
	sandboxPatience   = 12 * time.Second // they get ten seconds from TERM to KILL
	discoveryPatience = 11 * time.Second // it takes ten at most
	dataplanePatience = 5 * time.Second
)

// A member is the node's life in one swarm: data plane, gossip and networks.
// Leaving a swarm ends it, joining another makes a new one.
type member struct {
	sw       *dataplane.Switch
	disc     *discovery.Discovery
	sealing  *sealing
	networks *networks
	bridge   *bridge
	stages   []*stage      // in the order of starting
	ended    chan struct{} // has an element for each stage that ended
}

// startMember binds data path and gossip on the node's addresses in its swarm.
func (n *Node) startMember(ctx context.Context) (*member, error) {
	_, advertise, dataPath := n.cluster.Addrs()
	underlay := netip.AddrPortFrom(dataPath, n.cluster.DataPathPort())
	sealing, err := n.newSealing()
	if err != nil {
		return nil, err
	}
	sw, err := dataplane.New(dataplane.Config{Underlay: underlay, Sessions: sealing.engine, Log: n.log})
	if err != nil {
		return nil, err
	}
	disc, err := n.openDiscovery(advertise.Addr(), dataPath)
	if err != nil {
		sw.Close()
		return nil, err
	}
	bridge, err := n.openBridge(sw)
	if err != nil {
		sw.Close()
		return nil, err
	}
	sealing.connect(sw, disc, n.cluster.Credentials)
	m := &member{
		sw: sw, disc: disc, sealing: sealing, bridge: bridge,
		networks: newNetworks(n, disc, sw, dataPath, sealing.meet),
		ended:    make(chan struct{}, 5),
	}
	m.run(ctx, "data path", sw.Run)
	m.run(ctx, "sessions", sealing.engine.Run)
	m.run(ctx, "discovery", disc.Run)
	m.run(ctx, "directory", m.networks.follow)
	m.run(ctx, "gateway bridge", bridge.run)
	m.networks.restore()
	return m, nil
}

func (n *Node) openBridge(sw *dataplane.Switch) (*bridge, error) {
	subnet, err := chooseBridge(filepath.Join(n.stateDir, "bridge.json"))
	if err != nil {
		return nil, err
	}
	return newBridge(n.log, sw, n.store, subnet, n.cfg.HostLoopback)
}

// gossipDir holds what belongs to one swarm: its keys and last peers.
func (n *Node) gossipDir() string { return filepath.Join(n.stateDir, "discovery") }

func (n *Node) openDiscovery(advertise, dataPath netip.Addr) (*discovery.Discovery, error) {
	if err := os.MkdirAll(n.gossipDir(), 0o700); err != nil {
		return nil, err
	}
	return discovery.New(discovery.Config{
		Hostname: n.cfg.Hostname, BindAddr: n.gossipBind(advertise), AdvertiseAddr: advertise, Port: DefaultGossipPort,
		VTEP: dataPath, StateDir: n.gossipDir(), Store: n.store, Log: n.log,
	})
}

// gossipBind is where gossip listens: at the advertised address, or where
// --listen-addr says that this is not an address of the machine itself.
func (n *Node) gossipBind(advertise netip.Addr) netip.Addr {
	if listen := n.cfg.ListenAddr.Addr(); listen.IsValid() {
		return listen
	}
	return advertise
}

func (m *member) run(ctx context.Context, name string, run func(context.Context) error) {
	s := startStage(ctx, name, run)
	m.stages = append(m.stages, s)
	go func() {
		<-s.done
		m.ended <- struct{}{}
	}()
}

// stop ends the member and returns its stages' errors. Gossip goes first, so
// that others stop sending here while the data plane still delivers.
func (m *member) stop() error {
	dataPath, sessions, disc, follow, bridge := m.stages[0], m.stages[1], m.stages[2], m.stages[3], m.stages[4]
	err := disc.stop(discoveryPatience)
	m.networks.close()
	return errors.Join(
		err,
		follow.stop(dataplanePatience),
		bridge.stop(dataplanePatience),
		sessions.stop(dataplanePatience),
		dataPath.stop(dataplanePatience),
	)
}

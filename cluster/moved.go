package cluster

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	swarmapi "github.com/moby/swarmkit/v2/api"
	"github.com/moby/swarmkit/v2/ca"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

const (
	// movedInterval is how often a manager compares its address with the one that
	// the managers have on record.
	movedInterval = 2 * time.Second
	// movedTimeout bounds one attempt to have the record changed: the leader tries
	// to connect to the new address for five seconds.
	movedTimeout = 10 * time.Second
)

// follow has a node that restarts use the addresses of today: those that it is
// started with, and another where this machine has the last one no more, as after
// a change of network. What was one with the advertised address stays that.
// towards is a manager's address, empty if the node knows no other.
func (s *startConfig) follow(cfg *Config, towards string) error {
	old := *s
	listen, advertise := old.ListenAddr.Addr(), old.AdvertiseAddr.Addr()
	switch {
	case cfg.AdvertiseAddr.Addr().IsValid():
		port := cmp.Or(cfg.AdvertiseAddr.Port(), old.AdvertiseAddr.Port())
		s.AdvertiseAddr = netip.AddrPortFrom(cfg.AdvertiseAddr.Addr(), port)
	case advertise.IsValid() && advertise == listen && !cfg.ListenAddr.Addr().IsValid() && !isLocal(advertise):
		addr, err := defaultAddr(towards)
		if err != nil {
			return err
		}
		s.AdvertiseAddr = netip.AddrPortFrom(addr, old.AdvertiseAddr.Port())
	}
	if s.AdvertiseAddr != old.AdvertiseAddr {
		s.former = old.AdvertiseAddr
	}
	switch {
	case cfg.ListenAddr.Addr().IsValid():
		s.ListenAddr = cfg.ListenAddr
	case old.ListenAddr == old.AdvertiseAddr:
		s.ListenAddr = s.AdvertiseAddr
	case listen == advertise:
		s.ListenAddr = netip.AddrPortFrom(s.AdvertiseAddr.Addr(), old.ListenAddr.Port())
	}
	switch {
	case cfg.DataPathAddr.IsValid():
		s.DataPathAddr = cfg.DataPathAddr
	case old.DataPathAddr == advertise:
		s.DataPathAddr = s.AdvertiseAddr.Addr()
	}
	return s.checkLocal()
}

// checkLocal refuses addresses that this machine does not have, by their flags.
func (s *startConfig) checkLocal() error {
	if a := s.ListenAddr.Addr(); a.IsValid() && !isLocal(a) {
		return fmt.Errorf("this machine does not have the address %s, at which the node listened: give it another with --advertise-addr, or with --listen-addr if others reach it by another one", a)
	}
	if a := s.DataPathAddr; a.IsValid() && !isLocal(a) {
		return fmt.Errorf("this machine does not have the address %s of the data path: give another with --data-path-addr", a)
	}
	return nil
}

// isLocal reports whether a socket of this machine may have an address.
func isLocal(a netip.Addr) bool {
	if a.IsUnspecified() {
		return true
	}
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 0)))
	if err != nil {
		return !errors.Is(err, unix.EADDRNOTAVAIL)
	}
	_ = conn.Close() // nothing was written
	return true
}

// keepRecord has the managers know where this one is, while it is one, until ctx
// ends. SwarmKit's record of a member is the address that it joined with: after a
// restart with another one, workers would be sent to the old.
func (c *Cluster) keepRecord(ctx context.Context) {
	tick := time.NewTicker(movedInterval)
	defer tick.Stop()
	var known netip.AddrPort // by the managers, as far as they told this one
	told := ""
	for {
		_, changed := c.current()
		err := c.correctRecord(ctx, &known)
		if err != nil && err.Error() != told && ctx.Err() == nil {
			told = err.Error()
			c.log.Warn("the managers do not know this one's new address yet", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-tick.C:
		}
	}
}

func (c *Cluster) correctRecord(ctx context.Context, known *netip.AddrPort) error {
	r, _ := c.current()
	sc := r.snapshot().config
	advertise := sc.AdvertiseAddr
	if !c.IsManager() || !advertise.IsValid() || advertise.Addr().IsUnspecified() {
		return nil
	}
	at, err := c.recorded(ctx)
	switch {
	case err == nil && (at == "" || at == advertise.String()):
		return nil
	case err == nil:
	case !sc.former.IsValid() || *known == advertise:
		return nil // there is no leader: that is the managers' business
	default:
		// The leader cannot tell this manager anything before it knows where.
		at = sc.former.String()
	}
	var errs []error
	for _, manager := range append(c.Remotes(), advertise.String()) {
		if manager == at {
			continue // where nobody is
		}
		err := c.rejoin(ctx, manager, advertise.String())
		if err == nil {
			*known = advertise
			c.log.Info("the managers know this one's new address", "address", advertise, "former", at)
			return nil
		}
		errs = append(errs, fmt.Errorf("manager %s: %w", manager, err))
	}
	return errors.Join(errs...)
}

// recorded is the address that the managers have of this one.
func (c *Cluster) recorded(ctx context.Context) (string, error) {
	return onManager(ctx, c, func(ctx context.Context, ctl swarmapi.ControlClient) (string, error) {
		resp, err := ctl.GetNode(ctx, &swarmapi.GetNodeRequest{NodeID: c.NodeID()})
		if err != nil || resp.Node.ManagerStatus == nil {
			return "", err
		}
		return resp.Node.ManagerStatus.Addr, nil
	})
}

// rejoin has a manager tell the leader that this node is at another address. To
// join again is how SwarmKit does that (manager/state/raft, Node.Join).
func (c *Cluster) rejoin(ctx context.Context, manager, advertise string) error {
	cred, err := c.Credentials()
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient(manager, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{{Certificate: cred.Chain, PrivateKey: cred.Key}},
		RootCAs:      cred.Roots, ServerName: ca.ManagerRole, MinVersion: tls.VersionTLS12,
	})))
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // the answer was read
	ctx, cancel := context.WithTimeout(ctx, movedTimeout)
	defer cancel()
	_, err = swarmapi.NewRaftMembershipClient(conn).Join(ctx, &swarmapi.JoinRequest{Addr: advertise})
	return err
}

// otherPeer is a manager that the node knew when it ran last, empty if it knew
// none but itself: the way to it is the way to the swarm.
func (d *stateDir) otherPeer(self netip.AddrPort) string {
	peers, err := d.peers()
	if err != nil {
		return "" // starting says why
	}
	for _, p := range peers {
		if p.Addr != self.String() {
			return p.Addr
		}
	}
	return ""
}

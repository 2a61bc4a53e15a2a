package discovery

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"time"

	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/encap"
)

// maxEndpoints bounds the endpoints of one network that other nodes may make
// this one remember: four times what a /16 holds.
const maxEndpoints = 1 << 18

// maxID bounds a network's or endpoint's ID, in bytes. Docker's have 25 and 64.
const maxID = 128

// A NetworkConfig describes a network as SwarmKit allocated it.
type NetworkConfig struct {
	ID, Name string
	VNI      encap.VNI
	Subnets  []directory.Subnet
	Options  map[string]string // driver options, see directory.ParseOptions
	Labels   map[string]string

	Internal, Attachable, Ingress bool

	Created time.Time
}

// self is what a network needs to know of its node.
type self struct {
	name  string     // gossip name
	vtep  netip.Addr // underlay address
	trust *trust     // nil: nothing on encrypted networks
}

// A network is what this node knows of one network that it has joined: the
// material of its snapshots. Discovery's lock guards it.
type network struct {
	cfg  NetworkConfig
	opts directory.Options
	self self

	local   map[string]directory.Endpoint // by endpoint ID, those of this node
	entries map[string]entry              // by endpoint ID, what gossip is to say of local
	remote  map[string]remote             // by endpoint ID, as gossiped or remembered
	members map[netip.Addr]string         // gossip address → gossip name of the nodes on the network
	acks    acks
	departures
	picture
	rule // of an encrypted network
}

// A remote is what the two tables say of one endpoint. Either may be missing:
// the records travel separately.
type remote struct {
	place  *place // as gossip has it now
	naming *naming
	held   *place // on an encrypted network, the claim that counts
}

func newNetwork(cfg NetworkConfig, s self) (*network, error) {
	opts, err := cfg.check()
	if err != nil {
		return nil, err
	}
	return &network{
		cfg:     cfg,
		opts:    opts,
		self:    s,
		local:   make(map[string]directory.Endpoint),
		entries: make(map[string]entry),
		remote:  make(map[string]remote),
		picture: newPicture(),
		rule:    newRule(),

		departures: newDepartures(),
	}, nil
}

// check reads the options and refuses a network that this node cannot be on.
func (c *NetworkConfig) check() (directory.Options, error) {
	fail := func(err error) (directory.Options, error) {
		return directory.Options{}, fmt.Errorf("network %s: %w", c.Name, err)
	}
	if err := checkID(c.ID); err != nil {
		return fail(err)
	}
	if c.VNI == 0 || !c.VNI.Valid() {
		return fail(fmt.Errorf("VXLAN ID %d is not from 1 to %d", c.VNI, encap.MaxVNI))
	}
	if len(c.Subnets) == 0 {
		return fail(errors.New("no subnet: the managers have not allocated it yet"))
	}
	opts, err := directory.ParseOptions(c.Options)
	if err != nil {
		return fail(err)
	}
	return opts, nil
}

// checkID refuses IDs that cannot be part of a key of NetworkDB, which joins
// network, table and key with slashes.
func checkID(id string) error {
	if id == "" || len(id) > maxID || strings.Contains(id, "/") {
		return fmt.Errorf("ID %q is not 1 to %d bytes without a slash", id, maxID)
	}
	return nil
}

// add takes a local endpoint in, filling in what follows from the node.
func (n *network) add(ep directory.Endpoint) error {
	if err := checkID(ep.ID); err != nil {
		return fmt.Errorf("endpoint %s: %w", ep.Name, err)
	}
	if ep.Name == "" && ep.Kind == directory.Task {
		return fmt.Errorf("endpoint %s has no name", ep.ID)
	}
	bits := n.bits(ep.Addr)
	if bits < 0 {
		return fmt.Errorf("endpoint %s: address %s lies in no subnet of network %s", ep.ID, ep.Addr, n.cfg.Name)
	}
	for id, other := range n.local {
		if other.Addr == ep.Addr && id != ep.ID {
			return fmt.Errorf("endpoint %s: address %s belongs to endpoint %s of this node", ep.ID, ep.Addr, id)
		}
	}
	if len(ep.Ports) > 0 && !n.cfg.Ingress {
		return fmt.Errorf("endpoint %s: ports are published on the ingress network, not on %s", ep.ID, n.cfg.Name)
	}
	if ep.VIP.IsValid() && n.bits(ep.VIP) < 0 {
		return fmt.Errorf("endpoint %s: virtual address %s lies in no subnet of network %s", ep.ID, ep.VIP, n.cfg.Name)
	}
	if ep.MAC == (encap.MAC{}) {
		ep.MAC = encap.EndpointMAC(ep.Addr)
	}
	ep.NodeID, ep.VTEP = n.self.name, n.self.vtep

	e, err := newEntry(&ep, bits)
	if err == nil && n.opts.Encrypted {
		ep.Owner = n.self.trust.nodeID()
		e, err = n.signEntry(&ep, bits, e, n.entries[ep.ID])
	}
	if err != nil {
		return fmt.Errorf("endpoint %s: %w", ep.ID, err)
	}
	n.local[ep.ID], n.entries[ep.ID] = ep, e
	n.noteChange(ep.ID)
	return nil
}

// rename takes in that this node is in gossip under another name, as a newcomer:
// what it was told under the old one counts as remembered.
func (n *network) rename(name string) {
	n.self.name, n.ownIdentity = name, nil
	n.noteAll()
	for id, ep := range n.local {
		ep.NodeID = name
		n.local[id] = ep
	}
	for _, r := range n.remote {
		if r.place != nil {
			r.place.cached = true
		}
		if r.naming != nil {
			r.naming.cached = true
		}
		if r.held != nil {
			r.held.cached = true
		}
	}
	for _, i := range n.identities {
		i.cached = true
	}
}

// newEntry makes the records of a local endpoint. A load balancer and an endpoint
// that is pending have none in the endpoint table: a Docker node would resolve
// their names.
func newEntry(ep *directory.Endpoint, bits int) (e entry, err error) {
	if e.place, err = putPlace(ep, bits); err != nil || ep.Kind == directory.LoadBalancer || ep.Pending {
		return e, err
	}
	if e.naming, err = putNaming(ep); err != nil {
		return e, err
	}
	// What the other nodes would refuse is refused here, where it can be mended.
	_, err = parseNaming(e.naming)
	return e, err
}

// remove forgets a local endpoint. It reports whether there was one.
func (n *network) remove(id string) bool {
	_, ok := n.local[id]
	delete(n.local, id)
	delete(n.entries, id)
	n.noteChange(id)
	return ok
}

// bits returns the prefix length of the subnet that holds a, -1 if none does.
func (n *network) bits(a netip.Addr) int {
	for _, s := range n.cfg.Subnets {
		if s.Prefix.Contains(a) {
			return s.Prefix.Bits()
		}
	}
	return -1
}

// learn takes in what gossip says of the entry id of table; value is nil when
// the entry is gone. It reports whether that changes anything. On an error the
// entry is treated as gone: its owner has withdrawn what was there before.
func (n *network) learn(table, id string, value []byte) (changed bool, err error) {
	if err := checkID(id); err != nil {
		return false, err
	}
	switch {
	case table == appliedTable:
		return false, n.acks.learn(id, value)
	case table == identityTable && n.opts.Encrypted:
		return n.learnIdentity(id, value)
	}
	r, known := n.remote[id]
	if !known && len(n.remote) >= maxEndpoints {
		return false, fmt.Errorf("network %s: more than %d endpoints", n.cfg.Name, maxEndpoints)
	}

	switch table {
	case peerTable:
		if value != nil && r.place != nil && bytes.Equal(value, r.place.raw) {
			changed, r.place.cached = r.place.cached, false
			n.noteChange(id)
			return changed, nil
		}
		n.settleBefore(id, &r)
		changed = r.place != nil
		if r.place, err = n.parsePlace(id, value); r.place != nil {
			changed = true
		}
	case endpointTable:
		if value != nil && r.naming != nil && bytes.Equal(value, r.naming.raw) {
			changed, r.naming.cached = r.naming.cached, false
			return changed, nil
		}
		changed = r.naming != nil
		if value == nil {
			r.naming = nil
		} else if r.naming, err = parseNaming(value); r.naming != nil {
			changed = true
		}
	default:
		return false, nil // another project's table: none of ours
	}
	n.keep(id, r)
	return changed, err
}

// keep stores r, or forgets it if nothing is left of it.
func (n *network) keep(id string, r remote) {
	n.noteChange(id)
	if r == (remote{}) {
		delete(n.remote, id)
		return
	}
	n.remote[id] = r
}

// parsePlace reads and checks the peer record of an endpoint. Records that name
// this node's own VTEP are no news, since the local endpoints are known first
// hand: such a record is left over from before this node was restarted, or is an
// old one of this run that somebody repeats, and yields nothing.
func (n *network) parsePlace(id string, value []byte) (*place, error) {
	if value == nil {
		return nil, nil
	}
	r, err := unmarshalPeer(value)
	if err != nil {
		return nil, err
	}
	p, err := parsePlace(r, value)
	if err != nil {
		return nil, err
	}
	if n.opts.Encrypted {
		if p.claim, err = parseClaim(n.cfg.ID, id, r); err != nil {
			return nil, err
		}
		n.noteReplay(id, p)
	}
	switch {
	case p.vtep == n.self.vtep:
		return nil, nil
	case n.bits(p.addr) < 0:
		return nil, fmt.Errorf("peer record: %s lies in no subnet of network %s", p.addr, n.cfg.Name)
	case p.vtep.Is4() != n.self.vtep.Is4():
		return nil, fmt.Errorf("peer record: VTEP %s is of another address family than this node's, %s", p.vtep, n.self.vtep)
	case p.vtep.IsLoopback() && !n.self.vtep.IsLoopback():
		return nil, fmt.Errorf("peer record: VTEP %s would be this machine", p.vtep)
	}
	return p, nil
}

// remember takes in a record of the last run, which counts until gossip says
// otherwise.
func (n *network) remember(id string, rawPlace, rawNaming []byte) {
	if checkID(id) != nil || len(n.remote) >= maxEndpoints {
		return
	}
	r := n.remote[id]
	if p, err := n.parsePlace(id, rawPlace); err == nil && p != nil && r.place == nil {
		p.cached = true
		r.place = p
	}
	if rawNaming != nil && r.naming == nil {
		if nm, err := parseNaming(rawNaming); err == nil {
			nm.cached = true
			r.naming = nm
		}
	}
	n.keep(id, r)
}

// forgetUnconfirmed drops what is remembered from the last run and gossip has
// not spoken of. It reports whether there was any.
func (n *network) forgetUnconfirmed() (changed bool) {
	for id, r := range n.remote {
		stale := r
		if r.place != nil && r.place.cached {
			r.place = nil
		}
		if r.naming != nil && r.naming.cached {
			r.naming = nil
		}
		if r.held != nil && r.held.cached {
			r.held = nil
		}
		if r != stale {
			n.keep(id, r)
			changed = true
		}
	}
	for name, i := range n.identities {
		if i.cached {
			delete(n.identities, name)
			changed = true
		}
	}
	return changed
}

// setMembers takes in the nodes that NetworkDB has on the network. It reports
// whether they changed.
func (n *network) setMembers(members map[netip.Addr]string) (changed bool) {
	if maps.Equal(members, n.members) {
		return false
	}
	n.noteMembers(members, time.Now())
	n.members, n.work.news = members, true
	n.noteAll()
	return true
}

// snapshot builds the picture of the network, and counts the endpoints that are
// not in it because another one has their address or ID.
func (n *network) snapshot(version uint64) (snap *directory.Snapshot, conflicts int) {
	snap = &directory.Snapshot{
		Version:     version,
		ID:          n.cfg.ID,
		Name:        n.cfg.Name,
		VNI:         n.cfg.VNI,
		Subnets:     n.cfg.Subnets,
		MTU:         n.mtu(),
		Internal:    n.cfg.Internal,
		Attachable:  n.cfg.Attachable,
		Ingress:     n.cfg.Ingress,
		Encrypted:   n.opts.Encrypted,
		Cipher:      n.opts.Cipher,
		Reserved:    n.opts.Reserved,
		Created:     n.cfg.Created,
		Labels:      n.cfg.Labels,
		Options:     n.cfg.Options,
		StaticVTEPs: n.opts.StaticVTEPs,
	}
	o, _ := n.settle()
	chosen, conflicts := n.draw(o)
	n.builder.Fill(snap)
	if o != nil {
		n.disputes = conflicts
		conflicts += n.waiting
		snap.Identities = n.present(chosen)
	}
	snap.Peers = n.peers()
	return snap, conflicts
}

func (n *network) mtu() int {
	v6 := n.self.vtep.Is6()
	switch {
	case n.opts.MTU != 0:
		return n.opts.MTU
	case n.opts.Encrypted && v6:
		return encap.DefaultEncryptedMTU6
	case n.opts.Encrypted:
		return encap.DefaultEncryptedMTU
	case v6:
		return encap.DefaultMTU6
	default:
		return encap.DefaultMTU
	}
}

// peers returns the VTEPs of the network: the members by their gossip address,
// which is where their data path is unless they were told otherwise, and any
// other address that an endpoint's record names.
func (n *network) peers() map[netip.Addr]string {
	peers := make(map[netip.Addr]string, len(n.members)+1)
	maps.Copy(peers, n.members)
	for vtep := range n.builder.VTEPs() {
		if _, known := peers[vtep]; !known {
			peers[vtep] = ""
		}
	}
	peers[n.self.vtep] = n.self.name
	return peers
}

// unconfirmed returns how many endpoints are known from the last run alone.
func (n *network) unconfirmed() (count int) {
	for _, r := range n.remote {
		if p := n.counts(r); p != nil && p.cached {
			count++
		}
	}
	return count
}

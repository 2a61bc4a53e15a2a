package discovery

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"net/netip"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ovnd/ovnd/crypto"
	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/discovery/records"
)

// identityTable is the NetworkDB table of records.IdentityRecord, in which each
// ovnd node has one entry an encrypted network, under its gossip name.
const identityTable = "ovnd_identity_table"

// trust is what this node is itself, and what it knows of others by their
// handshakes. Discovery's lock guards it.
type trust struct {
	own      directory.Identity
	sign     func(crypto.EndpointClaim) []byte // nil: this node has no identity yet
	sequence uint64                            // of the last claim signed

	// Of a node by its swarm ID; nil: no handshakes tell.
	alive    func(nodeID string) bool
	verified func(nodeID string) (static, record [32]byte, ok bool)

	now func() time.Time
}

// An identity is an entry of identityTable.
type identity struct {
	directory.Identity

	raw    []byte // the record as it came
	cached bool   // remembered from the last run, not confirmed by gossip yet
	order  uint64 // grows: which came first
}

// parseIdentity reads and checks the entry called name. The result keeps b. Of
// whom the keys are it does not say: that is the handshake's part.
func parseIdentity(networkID, name string, b []byte) (*identity, error) {
	if len(b) > maxRecord {
		return nil, fmt.Errorf("identity record of %d bytes", len(b))
	}
	var r records.IdentityRecord
	if err := proto.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("identity record: %w", err)
	}
	if err := checkNodeID(r.NodeId); err != nil {
		return nil, fmt.Errorf("identity record: node: %w", err)
	}
	if len(r.StaticKey) != 32 || len(r.RecordKey) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("identity record with keys of %d and %d bytes, want 32", len(r.StaticKey), len(r.RecordKey))
	}
	if n := len(r.StatementSignature); n == 0 || n > crypto.MaxSignatureLen {
		return nil, fmt.Errorf("identity record with a statement's signature of %d bytes, want 1 to %d", n, crypto.MaxSignatureLen)
	}
	vtep, err := netip.ParseAddr(r.Vtep)
	if err != nil || !isHost(vtep.Unmap()) {
		return nil, fmt.Errorf("identity record: VTEP %q is not the address of one node", r.Vtep)
	}
	i := &identity{raw: b, Identity: directory.Identity{
		NodeID:    r.NodeId,
		Static:    [32]byte(r.StaticKey),
		Record:    [32]byte(r.RecordKey),
		Signature: r.StatementSignature,
		VTEP:      vtep.Unmap(),
		Name:      name,
	}}
	if !crypto.VerifyEndpoint(i.Record, entryClaim(networkID, name, r.NodeId, r.Vtep), r.Signature) {
		return nil, errors.New("identity record with a wrong signature")
	}
	return i, nil
}

// entryClaim is what binds an entry of identityTable to its name, VTEP and
// network. Without an address it is no endpoint's.
func entryClaim(networkID, name, nodeID, vtep string) crypto.EndpointClaim {
	return crypto.EndpointClaim{NetworkID: networkID, EndpointID: name, VTEP: vtep, Owner: nodeID}
}

// putIdentity encodes this node's entry on a network.
func putIdentity(networkID string, i *directory.Identity, sign func(crypto.EndpointClaim) []byte) ([]byte, error) {
	vtep := i.VTEP.String()
	return proto.Marshal(&records.IdentityRecord{
		NodeId:             i.NodeID,
		StaticKey:          i.Static[:],
		RecordKey:          i.Record[:],
		StatementSignature: i.Signature,
		Vtep:               vtep,
		Signature:          sign(entryClaim(networkID, i.Name, i.NodeID, vtep)),
	})
}

// identityEntry returns this node's entry in identityTable; nil: it has none.
func (n *network) identityEntry() []byte {
	t := n.self.trust
	if !n.opts.Encrypted || t == nil || t.sign == nil {
		return nil
	}
	if n.ownIdentity == nil {
		own := t.own
		own.Name, own.VTEP = n.self.name, n.self.vtep
		// Cannot fail: SetIdentity has checked the text in it.
		n.ownIdentity, _ = putIdentity(n.cfg.ID, &own, t.sign)
	}
	return n.ownIdentity
}

// learnIdentity takes in the entry called name; value is nil when it is gone.
func (n *network) learnIdentity(name string, value []byte) (changed bool, err error) {
	old, known := n.identities[name]
	if known && bytes.Equal(old.raw, value) {
		changed, old.cached = old.cached, false
		return changed, nil
	}
	delete(n.identities, name)
	n.work.news = true
	if value == nil {
		return known, nil
	}
	if len(n.identities) >= maxNodes && !n.forgetStrangers() {
		return known, fmt.Errorf("identity record: more than %d nodes", maxNodes)
	}
	i, err := parseIdentity(n.cfg.ID, name, value)
	if err != nil {
		return known, err
	}
	n.addIdentity(i)
	return true, nil
}

// forgetStrangers makes room for another identity: those go whose name is no
// node's on the network and that no handshake has confirmed. It reports whether
// there is room, and is not asked more than once a second.
func (n *network) forgetStrangers() bool {
	now := n.self.trust.time()
	if now.Sub(n.crowded) < time.Second {
		return false
	}
	n.crowded = now
	on := make(map[string]bool, len(n.members))
	for _, name := range n.members {
		on[name] = true
	}
	maps.DeleteFunc(n.identities, func(name string, i *identity) bool {
		return !on[name] && !n.self.trust.shookHands(i)
	})
	return len(n.identities) < maxNodes
}

func (n *network) addIdentity(i *identity) {
	n.arrivals++
	i.order = n.arrivals
	n.identities[i.Name] = i
}

// An owner is what is known of a node that signs for endpoints.
type owner struct {
	key    [32]byte // its record key
	known  bool     // there is one
	proven bool     // by a handshake
	alive  bool     // on the network in gossip, or in session with this node
}

// rank orders owners by how much their word counts.
func (o owner) rank() int {
	switch {
	case o.alive && o.proven:
		return 2
	case o.alive:
		return 1
	}
	return 0
}

// owners looks up the owners of one network. It is good for one moment.
type owners struct {
	n       *network
	chosen  map[string]*identity // by node ID, this node's own left out: whose claims count
	called  map[string]*identity // with whom to shake hands
	members map[string]bool      // gossip names on the network
	memo    map[string]owner
	turn    uint64
}

func (n *network) owners() *owners {
	o := &owners{
		n:       n,
		chosen:  make(map[string]*identity, len(n.identities)),
		called:  make(map[string]*identity, len(n.identities)),
		members: make(map[string]bool, len(n.members)),
		memo:    make(map[string]owner, len(n.identities)),
		turn:    uint64(n.self.trust.time().Unix() / turnTime),
	}
	n.work.look(len(n.identities) + len(n.members))
	for _, name := range n.members {
		o.members[name] = true
	}
	for _, i := range n.identities {
		o.offer(i)
	}
	// A session outlives its entry in gossip, which any member can take away.
	for id, i := range n.proven {
		if was := o.chosen[id]; n.self.trust.inSession(id) && (was == nil || !n.self.trust.shookHands(was)) {
			o.offer(i)
		}
	}
	return o
}

// turnTime is for how long, in seconds, one of those who say they were a node is
// called: long enough for a second handshake message if the first is lost, under
// each of the keys that the sessions know of the node.
const turnTime = 6

// offer makes i the identity of its node if it is better than the one before:
// that of the session, then that of a node on the network, then the older one.
// To shake hands with is not the older one but one by lot: while a node is not in
// session any member may have said first that it were that node, and each has its
// turn to prove it.
func (o *owners) offer(i *identity) {
	if i.NodeID == o.n.self.trust.nodeID() {
		return
	}
	was := o.chosen[i.NodeID]
	if was == nil || cmp.Or(
		trueFirst(o.n.self.trust.shookHands(i), o.n.self.trust.shookHands(was)),
		trueFirst(o.members[i.Name], o.members[was.Name]),
		cmp.Compare(i.order, was.order),
	) < 0 {
		o.chosen[i.NodeID] = i
	}
	was = o.called[i.NodeID]
	if was == nil || cmp.Or(
		trueFirst(o.inSession(i), o.inSession(was)),
		trueFirst(o.members[i.Name], o.members[was.Name]),
		cmp.Compare(o.lot(i), o.lot(was)),
	) < 0 {
		o.called[i.NodeID] = i
	}
}

// inSession reports whether i is the identity with which its node is in session.
func (o *owners) inSession(i *identity) bool {
	return o.n.self.trust.inSession(i.NodeID) && o.n.self.trust.shookHands(i)
}

// lot is another number for each identity at each turn. It is random to all but
// this node.
func (o *owners) lot(i *identity) uint64 {
	return maphash.Comparable(o.n.lots, [2]uint64{i.order, o.turn})
}

// of returns what is known of a node.
func (o *owners) of(nodeID string) owner {
	w, ok := o.memo[nodeID]
	if ok {
		return w
	}
	t := o.n.self.trust
	i := o.chosen[nodeID]
	if i != nil {
		w.key, w.known = i.Record, true
	}
	if t != nil && t.verified != nil {
		if _, record, ok := t.verified(nodeID); ok {
			w.key, w.known, w.proven = record, true, true
		}
	}
	w.alive = t.inSession(nodeID) || i != nil && i.Record == w.key && o.members[i.Name]
	o.memo[nodeID] = w
	return w
}

// A verdict on a claim.
type verdict uint8

const (
	wrong   verdict = iota // its owner has not made it, or nobody knows the owner
	unknown                // there was no time yet to verify it
	right
)

// judge says whether the owner of a claim made it. What this node's own is it
// knows first hand.
func (o *owners) judge(p *place) verdict {
	id := p.claim.Owner
	if id == "" || id == o.n.self.trust.nodeID() {
		return wrong
	}
	w := o.of(id)
	switch {
	case !w.known:
		return wrong
	case w.key != p.claim.key && !o.n.work.mayVerify(id, w.proven, o.n.self.trust.time()):
		return unknown
	case p.claim.signedBy(w.key):
		return right
	}
	return wrong
}

// nodeID returns the swarm's ID of this node, "" if it is not known yet.
func (t *trust) nodeID() string {
	if t == nil {
		return ""
	}
	return t.own.NodeID
}

func (t *trust) inSession(nodeID string) bool {
	return t != nil && t.alive != nil && t.alive(nodeID)
}

// shookHands reports whether a handshake has shown that i is the node it says.
func (t *trust) shookHands(i *identity) bool {
	if t == nil || t.verified == nil {
		return false
	}
	static, record, ok := t.verified(i.NodeID)
	return ok && static == i.Static && record == i.Record
}

// SetIdentity says who this node is in the swarm: its statement, of which VTEP
// and Name are filled in, and what signs with the record key of that statement.
// Before it comes nothing is said of this node's endpoints on encrypted networks.
// It may come again, after the node's certificate was renewed. sign is called
// under a lock and must not call Discovery.
func (d *Discovery) SetIdentity(id directory.Identity, sign func(crypto.EndpointClaim) []byte) error {
	if err := checkNodeID(id.NodeID); err != nil {
		return fmt.Errorf("identity of this node: %w", err)
	}
	if n := len(id.Signature); n == 0 || n > crypto.MaxSignatureLen {
		return fmt.Errorf("identity of this node: signature of %d bytes, want 1 to %d", n, crypto.MaxSignatureLen)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.trust.own, d.trust.sign = id, sign
	for _, n := range d.networks {
		if !n.opts.Encrypted {
			continue
		}
		if err := n.resign(); err != nil {
			return err
		}
		d.publish(n)
	}
	signal(d.wake)
	return nil
}

// SetLiveness says how to find out whether another node has authenticated itself
// lately: its endpoints on encrypted networks then stand whatever gossip says.
// alive is called under a lock and must not call Discovery.
func (d *Discovery) SetLiveness(alive func(nodeID string) bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.trust.alive = alive
}

// SetVerified says how to find out which keys another node has proved to be its
// own in a handshake: no other record key counts for its endpoints then. verified
// is called under a lock and must not call Discovery. What it says is looked at
// several times a second.
func (d *Discovery) SetVerified(verified func(nodeID string) (static, record [32]byte, ok bool)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.trust.verified = verified
}

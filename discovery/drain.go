package discovery

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"iter"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/ovnd/ovnd/discovery/directory"
	"github.com/ovnd/ovnd/discovery/records"
)

// appliedTable is the NetworkDB table of records.AppliedRecord, in which each
// ovnd node has one entry a network, under its gossip name.
const appliedTable = "ovnd_applied_table"

const (
	// silentTime is how long Drain waits for nodes that have no entry in
	// appliedTable, Docker's: time enough for gossip to reach them.
	silentTime = 2 * time.Second
	// drainTime is how long it waits for nodes that have one and do not answer:
	// those that died are out of gossip by then.
	drainTime = 8 * time.Second
	// maxDraining bounds the endpoints in one record, so that it fits a packet
	// of gossip, 1,400 bytes. Whoever drains more at once waits its time.
	maxDraining = 128
	// maxMarks bounds the versions whose draining endpoints are kept until this
	// node has applied them.
	maxMarks = 32
	// maxNodes bounds the nodes of one network whose records are kept.
	maxNodes = 1 << 14
)

// acks is what the nodes of a network have applied. Discovery's lock guards it.
type acks struct {
	marks   []mark              // published and not known to be applied yet, oldest first
	applied []uint64            // by this node: its own record
	version uint64              // that this node has applied; 0: it never said
	others  map[string][]uint64 // the records of other nodes, by gossip name
}

// A mark is the draining endpoints of other nodes as of one snapshot.
type mark struct {
	version  uint64
	draining []uint64
}

// drainID is what an endpoint is called in records.AppliedRecord.
func drainID(endpointID string) uint64 {
	sum := sha256.Sum256([]byte(endpointID))
	return binary.BigEndian.Uint64(sum[:8])
}

// note takes in the version of a snapshot that has just been published, and the
// endpoints in it that are Disabled.
func (a *acks) note(version uint64, disabled iter.Seq[*directory.Endpoint], self string) {
	var draining []uint64
	for ep := range disabled {
		if ep.NodeID != self {
			draining = append(draining, drainID(ep.ID))
		}
	}
	slices.Sort(draining)
	draining = draining[:min(len(draining), maxDraining)]
	last := a.applied
	if len(a.marks) > 0 {
		last = a.marks[len(a.marks)-1].draining
	}
	if slices.Equal(last, draining) {
		return
	}
	if len(a.marks) == maxMarks {
		a.marks = slices.Delete(a.marks, 0, 1)
	}
	a.marks = append(a.marks, mark{version: version, draining: draining})
}

// apply takes in that this node uses version. It reports whether its record has
// changed.
func (a *acks) apply(version uint64) (changed bool) {
	a.version = max(a.version, version)
	for len(a.marks) > 0 && a.marks[0].version <= version {
		a.applied, changed = a.marks[0].draining, true
		a.marks = slices.Delete(a.marks, 0, 1)
	}
	return changed
}

// learn takes in the record of a node; nil when it is gone.
func (a *acks) learn(node string, value []byte) error {
	delete(a.others, node)
	if value == nil {
		return nil
	}
	draining, err := parseApplied(value)
	if err != nil {
		return err
	}
	if len(a.others) >= maxNodes {
		return fmt.Errorf("applied record: more than %d nodes", maxNodes)
	}
	if a.others == nil {
		a.others = make(map[string][]uint64)
	}
	a.others[node] = draining
	return nil
}

// parseApplied reads and checks an entry of appliedTable.
func parseApplied(b []byte) ([]uint64, error) {
	var r records.AppliedRecord
	if len(b) > maxRecord {
		return nil, fmt.Errorf("applied record of %d bytes", len(b))
	}
	if err := proto.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("applied record: %w", err)
	}
	if !r.Present || len(r.Draining) > maxDraining {
		return nil, fmt.Errorf("applied record of %d endpoints, present %t", len(r.Draining), r.Present)
	}
	return r.Draining, nil
}

// putApplied encodes this node's entry.
func putApplied(draining []uint64) ([]byte, error) {
	return proto.Marshal(&records.AppliedRecord{Draining: draining, Present: true})
}

// Drain marks a local endpoint Disabled and returns when every live ovnd node on
// the network has applied that, this one included, so that nobody begins a new
// connection to it. Nodes that never answer, Docker's, get 2 s, and those that
// answer no more 8 s. The error is ctx's if that ends first; the endpoint is
// Disabled all the same.
func (d *Discovery) Drain(ctx context.Context, networkID, endpointID string) error {
	version, err := d.disable(networkID, endpointID)
	if err != nil {
		return err
	}
	start := time.Now()
	// Nodes that leave and time that passes come without news.
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	for {
		waiting, news := d.waitsFor(networkID, endpointID, version, time.Since(start))
		if !waiting {
			return nil
		}
		select {
		case <-news:
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// disable marks a local endpoint Disabled and returns the version that says so.
func (d *Discovery) disable(networkID, endpointID string) (version uint64, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, ok := d.networks[networkID]
	if !ok {
		return 0, fmt.Errorf("endpoint %s: this node has not joined network %s", endpointID, networkID)
	}
	ep, ok := n.local[endpointID]
	if !ok {
		return 0, fmt.Errorf("endpoint %s is none of this node's on network %s", endpointID, networkID)
	}
	ep.Disabled = true
	if err := n.add(ep); err != nil {
		return 0, err
	}
	d.publish(n)
	signal(d.wake)
	return d.version, nil
}

// waitsFor reports whether there is a node that should still apply what version
// says of an endpoint of this node, and a channel that is closed at the next
// news.
func (d *Discovery) waitsFor(networkID, endpointID string, version uint64, since time.Duration) (waiting bool, news <-chan struct{}) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, ok := d.networks[networkID]
	if !ok || since >= drainTime {
		return false, nil
	}
	if n.acks.version > 0 && n.acks.version < version {
		return true, d.news
	}
	// A node that knows nothing of this endpoint by name has nothing to apply.
	if e := n.entries[endpointID]; e.naming == nil {
		return false, nil
	}
	// Who is there is looked up every lookInterval: right after the start or
	// after joining, nobody has looked yet.
	if n.members == nil && d.status.Running && since < silentTime {
		return true, d.news
	}
	id := drainID(endpointID)
	for name, draining := range n.acks.others {
		if name != d.name && !slices.Contains(draining, id) {
			return true, d.news
		}
	}
	for _, name := range n.members {
		if _, speaks := n.acks.others[name]; !speaks && name != d.name && since < silentTime {
			return true, d.news
		}
	}
	return false, nil
}

// Applied tells that this node's forwarding, balancer and DNS use version of the
// network now. It may be called for some versions only, the newest last.
func (d *Discovery) Applied(networkID string, version uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n, ok := d.networks[networkID]
	if !ok {
		return
	}
	if n.acks.apply(version) {
		signal(d.wake)
	}
	d.announce()
}

// announce wakes those who wait for news. The caller holds the lock.
func (d *Discovery) announce() {
	close(d.news)
	d.news = make(chan struct{})
}

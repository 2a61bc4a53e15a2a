package resolver

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/miekg/dns"

	"github.com/ovnd/ovnd/discovery/directory"
)

// indexes holds one index for each network that was asked about. Each is made
// when the first question meets a new snapshot, and never changes.
type indexes struct {
	store *directory.Store
	mu    sync.Mutex                        // one writer at a time
	byID  atomic.Pointer[map[string]*index] // replaced as a whole, never changed
}

func newIndexes(store *directory.Store) *indexes {
	x := &indexes{store: store}
	x.byID.Store(&map[string]*index{})
	return x
}

// of returns the index of the network's current snapshot, nil if there is none.
func (x *indexes) of(networkID string) *index {
	snap := x.store.Load(networkID)
	if snap == nil {
		return nil
	}
	if ix := (*x.byID.Load())[networkID]; ix != nil && ix.snap == snap {
		return ix
	}
	return x.renew(networkID)
}

// renew makes the index of the newest snapshot and drops those of networks that
// this node has left, which bounds the table.
func (x *indexes) renew(networkID string) *index {
	x.mu.Lock()
	defer x.mu.Unlock()
	snap := x.store.Load(networkID)
	if snap == nil {
		return nil
	}
	old := *x.byID.Load()
	if ix := old[networkID]; ix != nil && ix.snap == snap {
		return ix // another question was first
	}
	next := maps.Clone(old)
	maps.DeleteFunc(next, func(id string, _ *index) bool { return x.store.Load(id) == nil })
	ix := newIndex(snap)
	next[networkID] = ix
	x.byID.Store(&next)
	return ix
}

// An index is what one snapshot says, by what questions ask for.
type index struct {
	snap    *directory.Snapshot
	name    string // of the network, in lower case
	records map[string]*record
	reverse map[netip.Addr]string // domain names, with the final dot
}

// A record is what a name stands for. One without addresses is known all the
// same: those that it stands for take no new connections.
type record struct {
	v4, v6 []netip.Addr // sorted, each once
	// services are those of that name, for SRV; tasks says that the name is for
	// their tasks rather than their VIP.
	services []*directory.Service
	tasks    bool
}

func (r *record) empty() bool { return len(r.v4)+len(r.v6) == 0 }

func newIndex(snap *directory.Snapshot) *index {
	ix := &index{
		snap:    snap,
		name:    strings.ToLower(snap.Name),
		records: make(map[string]*record),
		reverse: make(map[netip.Addr]string),
	}
	if snap.Ingress || snap.VNI == 0 {
		return ix // for routing only; VNI 0 is the gateway bridge
	}
	for _, ep := range snap.Endpoints.All() {
		ix.addEndpoint(ep)
	}
	for _, svc := range snap.Services.All() {
		ix.addService(svc)
	}
	for _, r := range ix.records {
		r.v4, r.v6 = unique(r.v4), unique(r.v6)
	}
	return ix
}

func unique(addrs []netip.Addr) []netip.Addr {
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs)
}

func (ix *index) addEndpoint(ep *directory.Endpoint) {
	if ep.Kind != directory.Task || ep.Pending {
		return
	}
	ix.addReverse(ep.Addr, ep.Name)
	for _, name := range append([]string{ep.Name}, ep.TaskAliases...) {
		if r := ix.record(name); !ep.Disabled {
			r.add(ep.Addr)
		}
	}
}

func (ix *index) addService(svc *directory.Service) {
	if svc.VIP.IsValid() {
		ix.addReverse(svc.VIP, svc.Name)
	}
	for _, name := range append([]string{svc.Name}, svc.Aliases...) {
		r := ix.record(name)
		r.services = append(r.services, svc)
		if svc.VIP.IsValid() {
			r.add(svc.VIP)
		} else {
			r.addTasks(svc)
		}
		if name != "" {
			r = ix.record("tasks." + name)
			r.services, r.tasks = append(r.services, svc), true
			r.addTasks(svc)
		}
	}
}

// record returns the record of name, a new one if there is none.
func (ix *index) record(name string) *record {
	name = strings.ToLower(name)
	r := ix.records[name]
	if r == nil {
		r = new(record)
		if name != "" { // nobody can ask for the empty name
			ix.records[name] = r
		}
	}
	return r
}

func (r *record) addTasks(svc *directory.Service) {
	for _, ep := range svc.Backends {
		r.add(ep.Addr)
	}
}

func (r *record) add(a netip.Addr) {
	if a.Is4() {
		r.v4 = append(r.v4, a)
	} else {
		r.v6 = append(r.v6, a)
	}
}

// addReverse has addr answered as name on this network, if that makes a domain
// name: names come from other nodes.
func (ix *index) addReverse(addr netip.Addr, name string) {
	if fqdn, ok := domainName(name + "." + ix.snap.Name); ok && name != "" {
		ix.reverse[addr] = fqdn
	}
}

// domainName returns name with a final dot, and whether it needs no escapes and
// fits into a message (RFC 1035 §2.3.4).
func domainName(name string) (string, bool) {
	plain := func(c rune) bool {
		return c > ' ' && c < 0x7f && !strings.ContainsRune(`\"();@$`, c)
	}
	if strings.IndexFunc(name, func(c rune) bool { return !plain(c) }) >= 0 {
		return "", false
	}
	_, ok := dns.IsDomainName(name)
	return dns.Fqdn(name), ok
}

// find returns what name stands for on the networks, which are searched in
// order, and the network that says so. A name with dots may be one as it stands,
// or one of the network that its last labels name. Name is in lower case and
// without the final dot. Where no network has an address of it, the first record
// without any is returned, if there is one.
func find(networks []*index, name string) (r *record, on *index) {
	for _, ix := range networks {
		if found := ix.records[name]; found != nil && (r == nil || !found.empty()) {
			if r, on = found, ix; !r.empty() {
				return r, on
			}
		}
	}
	for i := strings.LastIndexByte(name, '.'); i > 0; i = strings.LastIndexByte(name[:i], '.') {
		host, network := name[:i], name[i+1:]
		for _, ix := range networks {
			if found := ix.records[host]; found != nil && ix.name == network && (r == nil || !found.empty()) {
				if r, on = found, ix; !r.empty() {
					return r, on
				}
			}
		}
	}
	return r, on
}

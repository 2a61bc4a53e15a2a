package directory

import (
	"iter"
	"maps"
	"net/netip"
	"slices"
)

// A Builder keeps the endpoints of a network and the services that they serve,
// from one snapshot to the next: a change of one endpoint costs the work that its
// service takes. It is of one goroutine.
type Builder struct {
	endpoints *Editor[netip.Addr, *Endpoint]
	services  *Editor[string, *Service]
	vips      *Editor[netip.Addr, *Service]

	vteps     map[netip.Addr]int // how many endpoints each has
	disabled  map[netip.Addr]*Endpoint
	mentioned map[netip.Addr][]string // services by the virtual addresses that their endpoints name

	// Since services were looked at last:
	touched map[string]map[netip.Addr]struct{} // services, and which of their endpoints
	flipped []netip.Addr                       // addresses that an endpoint has now, or has no more
}

// NewBuilder returns a builder of a network that will have about n endpoints.
func NewBuilder(n int) *Builder {
	return &Builder{
		endpoints: NewEditor[netip.Addr, *Endpoint](n),
		services:  NewEditor[string, *Service](0),
		vips:      NewEditor[netip.Addr, *Service](0),
		vteps:     make(map[netip.Addr]int),
		disabled:  make(map[netip.Addr]*Endpoint),
		mentioned: make(map[netip.Addr][]string),
		touched:   make(map[string]map[netip.Addr]struct{}),
	}
}

// Get returns the endpoint that has an address by now, nil if none does.
func (b *Builder) Get(addr netip.Addr) *Endpoint {
	ep, _ := b.endpoints.Get(addr)
	return ep
}

// Set adds an endpoint at its address, in place of one that was there. The caller
// gives it away.
func (b *Builder) Set(ep *Endpoint) {
	b.forget(ep.Addr)
	b.endpoints.Set(ep.Addr, ep)
	b.vteps[ep.VTEP]++
	if ep.Disabled {
		b.disabled[ep.Addr] = ep
	}
	b.touch(ep)
}

// Delete removes the endpoint at an address, if there is one.
func (b *Builder) Delete(addr netip.Addr) {
	b.forget(addr)
	b.endpoints.Delete(addr)
}

// forget takes an endpoint that is about to go out of the accounts.
func (b *Builder) forget(addr netip.Addr) {
	b.flipped = append(b.flipped, addr)
	was := b.Get(addr)
	if was == nil {
		return
	}
	if b.vteps[was.VTEP]--; b.vteps[was.VTEP] == 0 {
		delete(b.vteps, was.VTEP)
	}
	delete(b.disabled, addr)
	b.touch(was)
}

func (b *Builder) touch(ep *Endpoint) {
	if !ep.serves() {
		return
	}
	addrs := b.touched[ep.ServiceID]
	if addrs == nil {
		addrs = make(map[netip.Addr]struct{})
		b.touched[ep.ServiceID] = addrs
	}
	addrs[ep.Addr] = struct{}{}
}

// serves reports whether ep is part of its service: pending endpoints and load
// balancers are of none.
func (ep *Endpoint) serves() bool {
	return ep.ServiceID != "" && !ep.Pending && ep.Kind == Task
}

// VTEPs returns where endpoints are, and how many. It is lent until the next call
// of the builder.
func (b *Builder) VTEPs() map[netip.Addr]int { return b.vteps }

// Disabled returns the endpoints that are draining, in no order.
func (b *Builder) Disabled() iter.Seq[*Endpoint] { return maps.Values(b.disabled) }

// Replace has the builder hold these endpoints and no others. What it holds already
// is no change.
func (b *Builder) Replace(endpoints map[netip.Addr]*Endpoint) {
	held := b.endpoints.Map()
	for addr := range held.All() {
		if endpoints[addr] == nil {
			b.Delete(addr)
		}
	}
	for addr, ep := range endpoints {
		if was := held.At(addr); was == nil || !was.equal(ep) {
			b.Set(ep)
		}
	}
}

func (ep *Endpoint) equal(o *Endpoint) bool {
	return ep.ID == o.ID && ep.Name == o.Name && ep.SandboxID == o.SandboxID && ep.Addr == o.Addr && ep.MAC == o.MAC &&
		ep.NodeID == o.NodeID && ep.VTEP == o.VTEP && ep.Kind == o.Kind && ep.Owner == o.Owner &&
		ep.ServiceID == o.ServiceID && ep.ServiceName == o.ServiceName && ep.VIP == o.VIP &&
		slices.Equal(ep.Aliases, o.Aliases) && slices.Equal(ep.TaskAliases, o.TaskAliases) && ep.Way == o.Way &&
		ep.Disabled == o.Disabled && slices.Equal(ep.Ports, o.Ports) && ep.Pending == o.Pending
}

// Fill puts the endpoints, and the services and virtual addresses that follow from
// them, into a snapshot.
func (b *Builder) Fill(snap *Snapshot) {
	b.settle()
	snap.Endpoints, snap.Services, snap.VIPs = b.endpoints.Map(), b.services.Map(), b.vips.Map()
}

// settle brings the services up to date.
func (b *Builder) settle() {
	for _, addr := range b.flipped {
		for _, id := range b.mentioned[addr] {
			if b.touched[id] == nil {
				b.touched[id] = make(map[netip.Addr]struct{})
			}
		}
	}
	contested := make(map[netip.Addr]struct{}, len(b.touched))
	for id, addrs := range b.touched {
		was, _ := b.services.Get(id)
		now := b.rebuild(id, was, addrs)
		for _, s := range []*Service{was, now} {
			if s != nil && s.claim.IsValid() {
				contested[s.claim] = struct{}{}
			}
		}
		b.mention(id, was, now)
		if now == nil {
			b.services.Delete(id)
		} else {
			b.services.Set(id, now)
		}
	}
	for vip := range contested {
		b.award(vip)
	}
	clear(b.touched)
	b.flipped = b.flipped[:0]
}

// rebuild returns a service whose endpoints at addrs have changed, nil if none are
// left. was is what it was, nil if it is new.
func (b *Builder) rebuild(id string, was *Service, addrs map[netip.Addr]struct{}) *Service {
	s := &Service{ID: id}
	if was != nil {
		untouched := func(list []*Endpoint) []*Endpoint {
			kept := make([]*Endpoint, 0, len(list)+len(addrs))
			for _, ep := range list {
				if _, touched := addrs[ep.Addr]; !touched {
					kept = append(kept, ep)
				}
			}
			return kept
		}
		s.Backends, s.Draining = untouched(was.Backends), untouched(was.Draining)
	}
	for addr := range addrs {
		ep := b.Get(addr)
		switch {
		case ep == nil || !ep.serves() || ep.ServiceID != id:
		case ep.Disabled:
			s.Draining = append(s.Draining, ep)
		default:
			s.Backends = append(s.Backends, ep)
		}
	}
	if len(s.Backends)+len(s.Draining) == 0 {
		return nil
	}
	s.settle(b.endpoints)
	return s
}

// mention notes which virtual addresses the endpoints of a service name.
func (b *Builder) mention(id string, was, now *Service) {
	before, after := was.named(), now.named()
	for _, vip := range before {
		if has(after, vip) {
			continue
		}
		ids := slices.DeleteFunc(b.mentioned[vip], func(other string) bool { return other == id })
		if b.mentioned[vip] = ids; len(ids) == 0 {
			delete(b.mentioned, vip)
		}
	}
	for _, vip := range after {
		if !has(before, vip) {
			b.mentioned[vip] = append(b.mentioned[vip], id)
		}
	}
}

func has(sorted []netip.Addr, vip netip.Addr) bool {
	_, ok := slices.BinarySearchFunc(sorted, vip, netip.Addr.Compare)
	return ok
}

// award gives a virtual address to the one of the services that claim it with the
// smallest ID.
func (b *Builder) award(vip netip.Addr) {
	var winner *Service
	for _, id := range b.mentioned[vip] {
		if s, _ := b.services.Get(id); s.claim == vip && (winner == nil || id < winner.ID) {
			winner = s
		}
	}
	for _, id := range b.mentioned[vip] {
		s, _ := b.services.Get(id)
		if s.claim == vip && (s == winner) != (s.VIP == vip) {
			changed := *s // it may be in a snapshot
			changed.VIP = netip.Addr{}
			if s == winner {
				changed.VIP, winner = vip, &changed
			}
			b.services.Set(id, &changed)
		}
	}
	if winner == nil {
		b.vips.Delete(vip)
	} else {
		b.vips.Set(vip, winner)
	}
}

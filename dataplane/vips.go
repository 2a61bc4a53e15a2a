package dataplane

import (
	"context"
	"net/netip"
	"time"

	"github.com/ovnd/ovnd/dataplane/pkt"
	"github.com/ovnd/ovnd/dataplane/vip"
	"github.com/ovnd/ovnd/encap"
)

// This file joins the flows to VIPs, which package vip rewrites, to the switch.
// What a port sends is looked at by forwarder.forward, what it gets by its
// portWriter.

// mayTranslate reports whether what the port sends has to be looked at: to a VIP,
// or where it could be taken for what was sent to one.
func (p *Port) mayTranslate(n *network, r route, ip encap.IP) bool {
	return p.flows != nil &&
		(r.vip || p.flows.Live() || ip.Protocol == encap.ProtocolUDP && n.snap.VIPs.Len() > 0)
}

// translate takes a packet to where its flow goes.
func (f *forwarder) translate(n *network, p *Port, r route, known bool, ip encap.IP, plan pkt.Plan, frame []byte) {
	var b vip.Balancer
	if r.vip && r.port != nil {
		b = r.port.stack.balancer
	}
	switch p.flows.Out(frame, ip, b, known && !r.vip) {
	case vip.Translated:
		r, known = n.fib.Get(ip.Dst())
	case vip.Consumed:
		p.account.ledgers[f.worker].consumed.add(plan.Count(), plan.WireLen())
		return
	case vip.Full:
		f.drop(p, DropVIPFull, plan.Count())
		return
	case vip.Pass:
	}
	f.route(n, p, r, known, ip, plan, frame)
}

// receives rewrites what is about to be delivered to the port's sandbox, the
// headers of which are in frame, if it is of a flow to a VIP. It reports false if
// it was for the switch.
func (w *portWriter) receives(frame []byte, packets, size int) bool {
	if w.flows == nil || !w.flows.Live() || w.flows.In(frame) != vip.Consumed {
		return true
	}
	w.account.ledgers[w.worker].consumed.add(packets, size)
	return false
}

// services looks after the flows to VIPs: on a goroutine of its own, since what it
// sends may be for a stack whose locks a worker's caller holds.
type services struct {
	forwarder
	tables  *vip.Tables
	changed chan struct{} // a network may have lost an endpoint
}

func newServices(s *Switch, worker int) *services {
	v := &services{forwarder: newForwarder(s, worker), tables: vip.NewTables(), changed: make(chan struct{}, 1)}
	v.tables.Hold(v.holds)
	return v
}

// lookSoon says that a network has changed. It does not block.
func (v *services) lookSoon() {
	select {
	case v.changed <- struct{}{}:
	default:
	}
}

func (v *services) run(ctx context.Context) error {
	begin := time.Now()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var rested time.Time // networks that change all the time get a fifth of a processor at most
	for {
		select {
		case <-ctx.Done():
			return nil
		case j := <-v.tables.Jobs():
			v.do(j)
			continue
		case <-v.changed:
			if time.Now().Before(rested) {
				continue // until the next tick
			}
		case <-tick.C:
		}
		looking := time.Now()
		v.section.enter()
		v.tables.Look(uint32(looking.Sub(begin)/time.Second)+1, v)
		v.section.leave()
		rested = time.Now().Add(4 * time.Since(looking))
	}
}

// do does a job, and sends what comes of it.
func (v *services) do(j vip.Job) {
	v.section.enter()
	defer v.section.leave()
	frame, toClient := j.Run()
	p := j.Owner().(*Port)
	n := v.network(p)
	if frame == nil || n == nil {
		return
	}
	if toClient {
		v.Reset(p, frame)
		return
	}
	plan, ip, err := parse(frame)
	if err != nil {
		return // it was read before
	}
	n.ledgers[v.worker].originated.add(1, len(ip.Packet))
	r, known := n.fib.Get(ip.Dst())
	v.route(n, p, r, known, ip, plan, frame)
	v.tx.flush()
}

// network returns the network of a port that is there still, or else nil.
func (v *services) network(p *Port) *network {
	t := v.sw.table.Load()
	if p.slot >= len(t.ports) || t.ports[p.slot].port != p {
		return nil
	}
	return t.ports[p.slot].net
}

// holds reports whether what a port sends to addr waits for a session.
func (v *services) holds(owner any, addr netip.Addr) bool {
	n := v.network(owner.(*Port))
	if n == nil {
		return false
	}
	to := n.fib.At(addr).behind.node
	return to != nil && to.crypto.Sending() == nil
}

// Has implements [vip.Owner].
func (v *services) Has(owner any, addr netip.Addr, endpointID string) (has, known bool) {
	n := v.network(owner.(*Port))
	if n == nil {
		return false, false
	}
	ep := n.snap.Endpoints.At(addr)
	return ep != nil && ep.ID == endpointID, true
}

// Reset implements [vip.Owner].
func (v *services) Reset(owner any, frame []byte) {
	p := owner.(*Port)
	if v.network(p) == nil {
		return
	}
	size := len(frame) - pkt.MetaLen
	p.account.ledgers[v.worker].originated.add(1, size)
	p.writers[v.worker].write(frame, 1, size)
}

var _ vip.Owner = (*services)(nil)

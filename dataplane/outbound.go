package dataplane

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/ovnd/ovnd/dataplane/pkt"
	"github.com/ovnd/ovnd/dataplane/tun"
	"github.com/ovnd/ovnd/encap"
)

const (
	// drainPackets and drainBytes are what a queue may give before the next one
	// has its turn.
	drainPackets = 256
	drainBytes   = 256 << 10
	// wakeEvent marks the eventfd among the queues, whose events hold slot and
	// number.
	wakeEvent = -1
)

// An outbound worker owns TUN queues: it reads what sandboxes send and passes it
// to a local port or to the underlay.
type outbound struct {
	sw      *Switch
	worker  int
	section *section
	epoll   int
	wake    int // eventfd; written to stop
	tx      *transmitter
	buf     [pkt.MaxSuper]byte
}

func newOutbound(s *Switch, worker int) (*outbound, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		_ = unix.Close(epoll)
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	o := &outbound{
		sw: s, worker: worker, section: &s.sections[worker],
		epoll: epoll, wake: wake, tx: newTransmitter(s, worker),
	}
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: wakeEvent}
	if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, wake, &ev); err != nil {
		o.close()
		return nil, fmt.Errorf("epoll: %w", err)
	}
	return o, nil
}

// watch has the worker read queue number i of the port in a slot.
func (o *outbound) watch(slot, i int, q *tun.Queue) error {
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(slot), Pad: int32(i)}
	if err := unix.EpollCtl(o.epoll, unix.EPOLL_CTL_ADD, q.FD(), &ev); err != nil {
		return fmt.Errorf("watch TUN queue: %w", err)
	}
	return nil
}

// unwatch undoes watch; a queue that is not watched is no error.
func (o *outbound) unwatch(q *tun.Queue) {
	_ = unix.EpollCtl(o.epoll, unix.EPOLL_CTL_DEL, q.FD(), nil)
}

// stop makes run return.
func (o *outbound) stop() {
	_, _ = unix.Write(o.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
}

func (o *outbound) close() {
	_ = unix.Close(o.epoll)
	_ = unix.Close(o.wake)
}

func (o *outbound) run() error {
	var events [64]unix.EpollEvent
	var pace pace
	for {
		n, err := unix.EpollWait(o.epoll, events[:], -1)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("data plane: wait for TUN queues: %w", err)
		}
		pace.pass()
		o.section.enter()
		t := o.sw.table.Load()
		for _, ev := range events[:n] {
			if ev.Fd == wakeEvent {
				o.section.leave()
				return nil
			}
			o.drain(t, int(ev.Fd), int(ev.Pad))
		}
		o.tx.flush()
		o.section.leave()
	}
}

// drain reads a queue until it is empty. The port may be gone since the event.
func (o *outbound) drain(t *table, slot, i int) {
	if slot >= len(t.ports) || t.ports[slot].port == nil || i >= len(t.ports[slot].port.queues) {
		return
	}
	e := &t.ports[slot]
	q := e.port.queues[i]
	for packets, bytes := 0, 0; packets < drainPackets && bytes < drainBytes; packets++ {
		n, err := q.Read(o.buf[:])
		if err == nil {
			o.forward(e, o.buf[:n])
			bytes += n
			continue
		}
		if !errors.Is(err, unix.EAGAIN) {
			// The device is gone, with its network namespace say. It would
			// report that for ever.
			o.unwatch(q)
			o.sw.log.Info("port's device is gone", "port", e.port.cfg.Name, "err", err)
		}
		return
	}
}

// forward takes one super-packet, behind its metadata, from a port to where it
// belongs.
func (o *outbound) forward(e *entry, frame []byte) {
	p, l := e.port, &e.port.account.ledgers[o.worker]
	plan, ip, err := parse(frame)
	packets, bytes := plan.Count(), plan.WireLen()
	if err != nil {
		packets, bytes = 1, len(frame)
	}
	l.portIn.add(packets, bytes)
	p.traffic[o.worker].in.add(packets, bytes)
	if err != nil {
		o.drop(p, DropMalformed, packets)
		return
	}
	n := e.net
	if n == nil {
		o.drop(p, DropNoNetwork, packets)
		return
	}
	src, dst := ip.Src(), ip.Dst()
	r, known := n.fib[dst]
	switch {
	case r.group || isGroup(dst):
		o.drop(p, DropMulticast, packets)
	case !p.has(src):
		o.drop(p, DropSpoofed, packets)
	case plan.Len() > n.mtu:
		o.drop(p, DropTooBig, packets)
		o.tx.answerTooBig(n, p, ip, n.mtu)
	case r.port != nil:
		plan.PutHeaderLen(frame)
		r.port.writers[o.worker].write(frame[:pkt.MetaLen+len(ip.Packet)], packets, bytes)
	case r.peer != nil:
		o.tx.add(n, r.peer, r.mac, p.cfg.MAC, ip, plan)
	case known:
		o.drop(p, DropNoEndpoint, packets)
	case !n.snap.Contains(dst):
		o.drop(p, DropNoRoute, packets)
	default:
		o.toNeighbour(n, p, ip, plan, frame)
	}
}

func (o *outbound) drop(p *Port, why Drop, packets int) {
	p.account.ledgers[o.worker].drop(why, packets)
	p.dropped.Add(uint64(packets))
}

// toNeighbour sends to an address that is not in the directory, but may have
// been heard of, or be behind a VTEP that is learned from.
func (o *outbound) toNeighbour(n *network, p *Port, ip encap.IP, plan pkt.Plan, frame []byte) {
	src, dst := ip.Src(), ip.Dst()
	if mac, to, ok := n.neighbours.lookup(dst); ok {
		o.tx.add(n, to, mac, p.cfg.MAC, ip, plan)
		return
	}
	if len(n.learn) == 0 {
		o.drop(p, DropNoEndpoint, plan.Count())
		return
	}
	held, ask := n.neighbours.hold(dst, src, p.cfg.MAC, frame, plan.Count())
	if !held {
		o.drop(p, DropHoldFull, plan.Count())
	}
	if ask {
		o.tx.solicit(n, src, p.cfg.MAC, dst)
		o.sw.keeper.wakeUp()
	}
}

// parse reads a super-packet behind its metadata. It checks what the kernel
// gave no more than memory safety needs.
func parse(frame []byte) (pkt.Plan, encap.IP, error) {
	if len(frame) < pkt.MetaLen {
		return pkt.Plan{}, encap.IP{}, encap.ErrShort
	}
	ip, err := encap.ParseIP(frame[pkt.MetaLen:])
	if err != nil {
		return pkt.Plan{}, encap.IP{}, err
	}
	plan, err := pkt.NewPlan(pkt.ParseMeta(frame), ip)
	return plan, ip, err
}

// isGroup reports whether a is a multicast address or the limited broadcast
// address.
func isGroup(a netip.Addr) bool {
	return a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

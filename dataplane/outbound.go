package dataplane

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ovnd/ovnd/dataplane/pkt"
	"github.com/ovnd/ovnd/dataplane/tun"
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
	forwarder
	epoll int
	wake  int // eventfd; written to stop
	buf   [pkt.MaxSuper]byte
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
	o := &outbound{forwarder: newForwarder(s, worker), epoll: epoll, wake: wake}
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

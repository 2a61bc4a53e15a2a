package dataplane

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/ovnd/ovnd/dataplane/pkt"
	"github.com/ovnd/ovnd/dataplane/tun"
	"github.com/ovnd/ovnd/dataplane/udp"
)

const (
	// turnBytes is what one direction has before the other one has its turn:
	// about what the socket takes in meanwhile must fit its receive buffer.
	turnBytes = 128 << 10
	// drainPackets is what a queue may give at a time, and receives how often
	// the socket is read: up to 32 small packets each.
	drainPackets = 256
	receives     = 8
	// wakeEvent and socketEvent mark the eventfd and the socket among the
	// queues, whose events hold slot and number.
	wakeEvent   = -1
	socketEvent = -2
)

// A worker forwards in both directions, one after the other: it owns a socket of
// the underlay and TUN queues, and waits at all of them. What it writes to a
// device is often answered before the write returns, by an ICMP echo reply or a
// TCP acknowledgement, and what it sends, by the peer that was asked: with a
// thread a direction each answer would have to wake the other one.
type worker struct {
	forwarder
	in    *inbound
	epoll int
	wake  int // eventfd; written to stop
	// given is how many bytes queues have given since the socket's last turn.
	given int
	buf   [pkt.MaxSuper]byte
}

func newWorker(s *Switch, number int, recv *udp.Receiver) (*worker, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		_ = unix.Close(epoll)
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	w := &worker{forwarder: newForwarder(s, number), epoll: epoll, wake: wake}
	w.in = newInbound(&w.forwarder, recv)
	for mark, fd := range map[int32]int{wakeEvent: wake, socketEvent: recv.FD()} {
		ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: mark}
		if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
			w.close()
			return nil, fmt.Errorf("epoll: %w", err)
		}
	}
	return w, nil
}

// watch has the worker read queue number i of the port in a slot.
func (w *worker) watch(slot, i int, q *tun.Queue) error {
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(slot), Pad: int32(i)}
	if err := unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, q.FD(), &ev); err != nil {
		return fmt.Errorf("watch TUN queue: %w", err)
	}
	return nil
}

// unwatch undoes watch; a queue that is not watched is no error.
func (w *worker) unwatch(q *tun.Queue) {
	_ = unix.EpollCtl(w.epoll, unix.EPOLL_CTL_DEL, q.FD(), nil)
}

// stop makes run return.
func (w *worker) stop() {
	_, _ = unix.Write(w.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
}

func (w *worker) close() {
	_ = unix.Close(w.epoll)
	_ = unix.Close(w.wake)
}

func (w *worker) run() error {
	var events [64]unix.EpollEvent
	var pace pace
	for {
		n, err := unix.EpollWait(w.epoll, events[:], -1)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("data plane: wait for packets: %w", err)
		}
		pace.pass()
		w.section.enter()
		running := w.handle(events[:n])
		w.section.leave()
		if !running {
			return nil
		}
	}
}

// handle gives each of those that have something a turn. It reports false once
// the worker is to stop.
func (w *worker) handle(events []unix.EpollEvent) bool {
	t := w.sw.table.Load()
	for _, ev := range events {
		switch ev.Fd {
		case wakeEvent:
			return false
		case socketEvent:
			w.receive(t)
		default:
			w.drain(t, int(ev.Fd), int(ev.Pad))
			if w.given >= turnBytes {
				w.receive(t)
			}
		}
	}
	w.tx.flush()
	return true
}

// receive reads the socket until it is empty or its turn is over.
func (w *worker) receive(t *table) {
	w.given = 0
	for calls, bytes := 0, 0; calls < receives && bytes < turnBytes; calls++ {
		n := w.in.receive(t)
		if n == 0 {
			return
		}
		bytes += n
	}
}

// drain reads a queue until it is empty or its turn is over. The port may be gone
// since the event.
func (w *worker) drain(t *table, slot, i int) {
	if slot >= len(t.ports) || t.ports[slot].port == nil || i >= len(t.ports[slot].port.queues) {
		return
	}
	e := &t.ports[slot]
	q := e.port.queues[i]
	for packets, bytes := 0, 0; packets < drainPackets && bytes < turnBytes; packets++ {
		n, err := q.Read(w.buf[:])
		if err == nil {
			w.forward(e, w.buf[:n])
			bytes += n
			w.given += n
			continue
		}
		if !errors.Is(err, unix.EAGAIN) {
			// The device is gone, with its network namespace say. It would
			// report that for ever.
			w.unwatch(q)
			w.sw.log.Info("port's device is gone", "port", e.port.cfg.Name, "err", err)
		}
		return
	}
}

package dataplane

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/ovnd/ovnd/dataplane/pkt"
	"github.com/ovnd/ovnd/dataplane/tun"
	"github.com/ovnd/ovnd/dataplane/vip"
	"github.com/ovnd/ovnd/encap"
)

// PortConfig describes a port: one sandbox's device on one network.
type PortConfig struct {
	NetworkID  string
	EndpointID string
	Name       string       // of the endpoint, for Stats
	Addrs      []netip.Addr // the only addresses that it may send from
	MAC        encap.MAC    // on the wire; the device has none
	Queues     []*os.File   // of the TUN device, as package tun makes them
	MTU        int          // bytes; of the device, for Stats
}

// A Port is a TUN device that the switch reads and writes, or the switch's side
// of a stack port.
type Port struct {
	sw      *Switch
	cfg     PortConfig
	slot    int
	queues  []*tun.Queue
	stack   *stackEnd    // nil for a device
	flows   *vip.Table   // to VIPs; nil for a stack
	writers []portWriter // by worker
	traffic []traffic    // by worker
	dropped atomic.Uint64
	account *account

	closeOnce sync.Once
	closeErr  error
}

// A portWriter writes for one worker.
type portWriter struct {
	*Port
	queue  *tun.Queue // nil for a stack port, which has scratch
	worker int
	// scratch is the worker's, for super-packets in pieces.
	scratch []byte
}

var errClosed = errors.New("data plane: the switch is closed")

// AddPort takes ownership of cfg.Queues, also if it fails, and starts to
// forward. The port's network may be set later. An address that another port of
// the network has is an error.
func (s *Switch) AddPort(cfg PortConfig) (_ *Port, err error) {
	p := &Port{sw: s, cfg: cfg}
	p.cfg.Queues = nil
	defer func() {
		if err != nil {
			_ = p.closeQueues()
		}
	}()
	for i, f := range cfg.Queues {
		q, err := tun.Adopt(f)
		if err != nil {
			for _, rest := range cfg.Queues[i:] {
				_ = rest.Close()
			}
			return nil, fmt.Errorf("data plane: port %s: %w", cfg.Name, err)
		}
		p.queues = append(p.queues, q)
	}
	if len(p.queues) == 0 || len(cfg.Addrs) == 0 {
		return nil, fmt.Errorf("data plane: port %s: a queue and an address are needed", cfg.Name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.mayAdd(p); err != nil {
		return nil, err
	}
	s.insert(p)
	s.publish(cfg.NetworkID)
	for i, q := range p.queues {
		if err := s.reader(p, i).watch(p.slot, i, q); err != nil {
			s.remove(p)
			return nil, fmt.Errorf("data plane: port %s: %w", cfg.Name, err)
		}
	}
	return p, nil
}

// insert gives p a slot and what workers need. s.mu is held.
func (s *Switch) insert(p *Port) {
	p.slot = slices.Index(s.ports, nil)
	if p.slot < 0 {
		p.slot = len(s.ports)
		s.ports = append(s.ports, nil)
	}
	s.ports[p.slot] = p
	p.account = s.account(p.cfg.NetworkID)
	p.traffic = make([]traffic, len(s.sections))
	if p.stack == nil {
		p.flows = s.services.tables.New(p)
	}
	for w := range s.sections {
		writer := portWriter{Port: p, worker: w}
		if p.stack == nil {
			writer.queue = p.queues[s.queueOf(p, w)]
		} else {
			writer.scratch = s.scratch(w)
		}
		p.writers = append(p.writers, writer)
	}
}

// reader returns the worker that reads queue i of p: ports with one queue are
// spread among them. s.mu is held.
func (s *Switch) reader(p *Port, i int) *worker {
	return s.workers[(p.slot+i)%len(s.workers)]
}

// queueOf returns the number of the queue that a worker writes to: the one that it
// reads, if it reads any, since the kernel answers a flow at the queue that the
// flow came by (tun_flow_update in drivers/net/tun.c).
func (s *Switch) queueOf(p *Port, worker int) int {
	n := len(s.workers)
	return ((worker-p.slot)%n + n) % n % len(p.queues)
}

// remove takes p out of the table and waits until no worker uses it. s.mu is
// held.
func (s *Switch) remove(p *Port) {
	for i, q := range p.queues {
		s.reader(p, i).unwatch(q)
	}
	s.ports[p.slot] = nil
	s.publish(p.cfg.NetworkID)
	s.waitForWorkers()
	p.closeFlows()
	s.forget(p.cfg.NetworkID)
}

// Close stops forwarding and closes the switch's descriptors of the device.
func (p *Port) Close() error {
	p.closeOnce.Do(func() {
		s := p.sw
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.closed {
			return // and with it its ports
		}
		s.remove(p)
		p.closeErr = p.closeQueues()
		if p.stack != nil {
			p.stack.queue.close()
		}
	})
	return p.closeErr
}

// closeFlows ends the port's flows to VIPs. No worker uses it.
func (p *Port) closeFlows() {
	if p.flows != nil {
		p.flows.Close()
	}
}

func (p *Port) closeQueues() error {
	errs := make([]error, 0, len(p.queues))
	for _, q := range p.queues {
		errs = append(errs, q.Close())
	}
	p.queues = nil
	return errors.Join(errs...)
}

// has reports whether a is an address of the port.
func (p *Port) has(a netip.Addr) bool { return slices.Contains(p.cfg.Addrs, a) }

// WriteSuper implements [pkt.Writer].
func (w *portWriter) WriteSuper(pieces []unix.Iovec, packets, size int) {
	if w.queue == nil {
		w.write(gather(w.scratch, pieces), packets, size)
		return
	}
	if !w.receives(unsafeBytes(&pieces[0]), packets, size) {
		return
	}
	w.count(w.queue.Writev(pieces), packets, size)
}

// write writes one super-packet that lies in one piece behind its metadata.
func (w *portWriter) write(frame []byte, packets, size int) {
	if w.queue == nil {
		w.count(nil, packets, size) // first: delivering may answer
		w.stack.deliver(frame, packets)
		return
	}
	if !w.receives(frame, packets, size) {
		return
	}
	w.count(w.queue.Write(frame), packets, size)
}

// JoinsUDP implements [pkt.Writer]. A stack wants datagrams one by one.
func (w *portWriter) JoinsUDP() bool { return w.queue != nil && w.queue.USO() }

func (w *portWriter) count(err error, packets, size int) {
	l := &w.account.ledgers[w.worker]
	if err == nil {
		l.portOut.add(packets, size)
		w.traffic[w.worker].out.add(packets, size)
		return
	}
	why := DropPortWrite
	if errors.Is(err, unix.EIO) || errors.Is(err, unix.EBADFD) {
		why = DropPortDown
	}
	l.drop(why, packets)
	w.dropped.Add(uint64(packets))
}

var _ pkt.Writer = (*portWriter)(nil)

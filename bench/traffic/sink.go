package traffic

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const (
	// bulkBuffer is the size in bytes of one TCP read and write, iperf3's.
	bulkBuffer = 128 << 10
	// sinkBuffer is the UDP receive buffer in bytes. The sink shares its cores
	// with what is measured; it must be the network that loses.
	sinkBuffer = 4 << 20
	// udpBatch is the number of datagrams that one system call takes.
	udpBatch = 64
	// maxDatagram is the largest UDP payload in bytes that the sink counts
	// whole.
	maxDatagram = 9216
)

// A SinkSpec says where a sink listens, and what it does with what it gets.
type SinkSpec struct {
	Listen netip.AddrPort `json:"listen"`
	Verify bool           `json:"verify,omitempty"` // compare every byte: its sources must have Verify too
}

// A Sink accepts TCP connections and UDP datagrams on one address and throws
// away what it reads. At the next port it greets connections, as [GreetAddr]
// says, and sends datagrams back.
type Sink struct {
	verify     bool
	tcp, greet *net.TCPListener
	udp, echo  *net.UDPConn

	bytes, packets, disordered, corrupt atomic.Uint64
}

// NewSink listens, TCP and UDP, in the calling thread's network namespace.
func NewSink(spec SinkSpec) (_ *Sink, err error) {
	addr := spec.Listen
	s := &Sink{verify: spec.Verify}
	if s.verify {
		PreparePattern()
	}
	defer func() {
		if err != nil {
			s.close()
			err = fmt.Errorf("traffic sink: %w", err)
		}
	}()
	if s.tcp, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr)); err != nil {
		return nil, err
	}
	if s.greet, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(GreetAddr(addr))); err != nil {
		return nil, err
	}
	if s.echo, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(GreetAddr(addr))); err != nil {
		return nil, err
	}
	if s.udp, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr)); err != nil {
		return nil, err
	}
	_ = s.udp.SetReadBuffer(sinkBuffer) // capped by net.core.rmem_max
	return s, nil
}

// close closes the sockets that were opened.
func (s *Sink) close() {
	for _, l := range []*net.TCPListener{s.tcp, s.greet} {
		if l != nil {
			l.Close()
		}
	}
	for _, c := range []*net.UDPConn{s.udp, s.echo} {
		if c != nil {
			c.Close()
		}
	}
}

// Counters returns what has been received on all flows.
func (s *Sink) Counters() Counters {
	return Counters{
		Bytes: s.bytes.Load(), Packets: s.packets.Load(),
		Disordered: s.disordered.Load(), Corrupt: s.corrupt.Load(),
	}
}

// Run receives until ctx ends, and then returns nil.
func (s *Sink) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		<-ctx.Done()
		s.close()
		return nil
	})
	g.Go(func() error {
		for {
			conn, err := s.tcp.AcceptTCP()
			if err != nil {
				return stopped(ctx, err)
			}
			g.Go(func() error { return s.drain(ctx, conn) })
		}
	})
	g.Go(func() error { return s.greeter(ctx) })
	g.Go(func() error { return stopped(ctx, s.reflect()) })
	g.Go(func() error { return stopped(ctx, s.receive()) })
	return g.Wait()
}

// stopped returns nil if ctx has ended: the error is then its consequence.
func stopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// drain reads one TCP flow to its end.
func (s *Sink) drain(ctx context.Context, conn *net.TCPConn) error {
	file, err := blocking(conn)
	if err != nil {
		return fmt.Errorf("traffic sink: %w", err)
	}
	defer file.Close()
	defer onEnd(ctx, func() { _ = unix.Shutdown(int(file.Fd()), unix.SHUT_RDWR) })()

	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	buf := make([]byte, bulkBuffer)
	var check checker
	for {
		n, err := unix.Read(int(file.Fd()), buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return nil // a source that is stopped may reset its flows
		}
		if s.verify {
			s.corrupt.Add(check.check(buf[:n]))
		}
		s.bytes.Add(uint64(n))
	}
}

// receive counts datagrams until the socket is closed.
func (s *Sink) receive() error {
	raw, err := s.udp.SyscallConn()
	if err != nil {
		return err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	batch := newBatch(udpBatch, maxDatagram)
	var flows tracker
	for {
		var n int
		var rerr error
		err := raw.Read(func(fd uintptr) bool {
			n, rerr = batch.receive(int(fd))
			return !errors.Is(rerr, unix.EAGAIN)
		})
		if err = errors.Join(err, rerr); err != nil {
			return err
		}
		var bytes uint64
		for i, m := range batch.msgs[:n] {
			bytes += uint64(m.length)
			s.datagram(&flows, batch.bufs[i][:m.length])
		}
		s.bytes.Add(bytes)
		s.packets.Add(uint64(n))
	}
}

// datagram looks at one.
func (s *Sink) datagram(flows *tracker, b []byte) {
	if len(b) < datagramHeaderLen {
		return
	}
	if flows.see(b) {
		s.disordered.Add(1)
	}
	if s.verify {
		offset := datagramOffset(binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint64(b[8:]))
		s.corrupt.Add(mismatch(b[datagramHeaderLen:], offset))
	}
}

// reflect sends datagrams back where they came from until the socket is closed.
func (s *Sink) reflect() error {
	buf := make([]byte, maxDatagram)
	for {
		n, from, err := s.echo.ReadFromUDPAddrPort(buf)
		if err != nil {
			return err
		}
		_, _ = s.echo.WriteToUDPAddrPort(buf[:n], from) // what is refused counts as lost
	}
}

// A fileConn is what connections of package net have in common.
type fileConn interface {
	File() (*os.File, error)
	Close() error
}

// blocking takes the descriptor out of the runtime's poller: a thread of its
// own that blocks in the kernel wakes sooner than a goroutine. It closes conn.
func blocking(conn fileConn) (*os.File, error) {
	defer conn.Close() //nolint:errcheck // the file is a duplicate of its own
	file, err := conn.File()
	if err != nil {
		return nil, err
	}
	// Fd would do it too, and says so less plainly.
	if err := unix.SetNonblock(int(file.Fd()), false); err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// onEnd calls fn once ctx ends, unless the returned function is called first.
func onEnd(ctx context.Context, fn func()) (cancel func()) {
	stop := context.AfterFunc(ctx, fn)
	return func() { stop() }
}

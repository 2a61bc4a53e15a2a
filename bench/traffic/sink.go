package traffic

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"

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
	maxDatagram = 2048
)

// A Sink accepts TCP connections and UDP datagrams on one address and throws
// away what it reads. At the next port it greets connections, as [GreetAddr]
// says.
type Sink struct {
	tcp, greet *net.TCPListener
	udp        *net.UDPConn

	bytes, packets atomic.Uint64
}

// NewSink listens on addr, TCP and UDP, in the calling thread's network
// namespace.
func NewSink(addr netip.AddrPort) (*Sink, error) {
	tcp, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr))
	if err != nil {
		return nil, fmt.Errorf("traffic sink: %w", err)
	}
	greet, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(GreetAddr(addr)))
	if err != nil {
		tcp.Close()
		return nil, fmt.Errorf("traffic sink: %w", err)
	}
	udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
	if err != nil {
		tcp.Close()
		greet.Close()
		return nil, fmt.Errorf("traffic sink: %w", err)
	}
	_ = udp.SetReadBuffer(sinkBuffer) // capped by net.core.rmem_max
	return &Sink{tcp: tcp, greet: greet, udp: udp}, nil
}

// Counters returns what has been received on all flows.
func (s *Sink) Counters() Counters {
	return Counters{Bytes: s.bytes.Load(), Packets: s.packets.Load()}
}

// Run receives until ctx ends, and then returns nil.
func (s *Sink) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		<-ctx.Done()
		return errors.Join(s.tcp.Close(), s.greet.Close(), s.udp.Close())
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
	for {
		n, err := unix.Read(int(file.Fd()), buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return nil // a source that is stopped may reset its flows
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
		for _, m := range batch.msgs[:n] {
			bytes += uint64(m.length)
		}
		s.bytes.Add(bytes)
		s.packets.Add(uint64(n))
	}
}

// blocking takes the descriptor out of the runtime's poller: a thread of its
// own that blocks in the kernel wakes sooner than a goroutine. It closes conn.
func blocking(conn interface {
	syscall.Conn
	File() (*os.File, error)
	Close() error
},
) (*os.File, error) {
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

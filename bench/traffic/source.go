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
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// A Spec says what a source sends. Exactly one of TCPFlows, Connect, UDPRate and
// EchoInterval is set.
type Spec struct {
	To netip.AddrPort `json:"to"` // the sink; the port does not matter for echo

	TCPFlows   int    `json:"tcp_flows,omitempty"`
	Congestion string `json:"congestion,omitempty"` // TCP congestion control; "": the system's default

	Connect int `json:"connect,omitempty"` // TCP connections at a time, opened and ended one after the other

	UDPRate int `json:"udp_rate,omitempty"` // datagrams per second
	UDPSize int `json:"udp_size,omitempty"` // bytes of UDP payload

	EchoInterval time.Duration `json:"echo_interval_ns,omitempty"` // between echo requests
}

// A Source sends what its Spec says.
type Source struct {
	spec Spec

	bytes, packets atomic.Uint64
	echo           echoLog
}

// NewSource returns a source that has not begun to send.
func NewSource(spec Spec) *Source { return &Source{spec: spec} }

// Counters returns what has been sent on all flows, and for echo what came
// back.
func (s *Source) Counters() Counters {
	return Counters{Bytes: s.bytes.Load(), Packets: s.packets.Load(), RTTs: s.echo.rtts()}
}

// Run sends until ctx ends, and then returns nil. Sockets are opened in the
// calling thread's network namespace.
func (s *Source) Run(ctx context.Context) error {
	var err error
	switch {
	case s.spec.TCPFlows > 0:
		err = s.runTCP(ctx)
	case s.spec.Connect > 0:
		err = s.runConnect(ctx)
	case s.spec.UDPRate > 0:
		err = s.runUDP(ctx)
	case s.spec.EchoInterval > 0:
		err = s.runEcho(ctx)
	default:
		return errors.New("traffic source: none of TCPFlows, Connect, UDPRate and EchoInterval is set")
	}
	if err = stopped(ctx, err); err != nil {
		return fmt.Errorf("traffic source: %w", err)
	}
	return nil
}

func (s *Source) runTCP(ctx context.Context) error {
	dialer := net.Dialer{ControlContext: func(_ context.Context, _, _ string, c syscall.RawConn) error {
		return setCongestion(c, s.spec.Congestion)
	}}
	files := make([]*os.File, 0, s.spec.TCPFlows)
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	for range s.spec.TCPFlows {
		conn, err := dialer.DialContext(ctx, "tcp", s.spec.To.String())
		if err != nil {
			return err
		}
		file, err := blocking(conn.(*net.TCPConn))
		if err != nil {
			return err
		}
		files = append(files, file)
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, file := range files {
		g.Go(func() error { return s.pour(ctx, int(file.Fd())) })
	}
	return g.Wait()
}

// pour writes to one connected TCP socket until ctx ends.
func (s *Source) pour(ctx context.Context, fd int) error {
	defer onEnd(ctx, func() { _ = unix.Shutdown(fd, unix.SHUT_RDWR) })()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	buf := make([]byte, bulkBuffer)
	for {
		n, err := unix.Write(fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return stopped(ctx, err)
		}
		s.bytes.Add(uint64(n))
	}
}

func setCongestion(c syscall.RawConn, name string) error {
	if name == "" {
		return nil
	}
	var err error
	cerr := c.Control(func(fd uintptr) {
		err = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, name)
	})
	if err = errors.Join(cerr, err); err != nil {
		return fmt.Errorf("congestion control %q (see sysctl net.ipv4.tcp_available_congestion_control): %w", name, err)
	}
	return nil
}

const (
	// pacing is how often the UDP source wakes to send what is due: iperf3's
	// default, so that bursts are alike.
	pacing = time.Millisecond
	// maxBurst bounds what it sends before it looks at the clock again, should
	// it be late.
	maxBurst = 256
)

func (s *Source) runUDP(ctx context.Context) error {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(s.spec.To))
	if err != nil {
		return err
	}
	file, err := blocking(conn)
	if err != nil {
		return err
	}
	defer file.Close()
	fd := int(file.Fd())
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	payload := make([]byte, s.spec.UDPSize)
	gap := unix.NsecToTimespec(pacing.Nanoseconds())
	start := time.Now()
	for sent := 0; ctx.Err() == nil; {
		due := int(time.Since(start).Seconds() * float64(s.spec.UDPRate))
		late := due > sent+maxBurst
		due = min(due, sent+maxBurst)
		for ; sent < due; sent++ {
			n, err := unix.Write(fd, payload)
			if err == nil {
				s.bytes.Add(uint64(n))
			} else if !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, unix.EINTR) {
				return err
			}
			// What the local queue refuses was offered, and counts as lost.
			s.packets.Add(1)
		}
		if !late {
			_ = unix.Nanosleep(&gap, nil) // woken early by a signal: it only looks again
		}
	}
	return nil
}

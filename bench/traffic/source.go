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
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// A Spec says what a source sends. Exactly one of TCPFlows, Connect, UDPRate and
// EchoInterval is set.
type Spec struct {
	To     netip.AddrPort `json:"to"`               // the sink; the port does not matter for ICMP
	Verify bool           `json:"verify,omitempty"` // send what a sink with Verify expects

	TCPFlows   int     `json:"tcp_flows,omitempty"`
	TCPRate    float64 `json:"tcp_rate,omitempty"`   // bits a second of payload, of all flows together; 0: as fast as possible
	Congestion string  `json:"congestion,omitempty"` // TCP congestion control; "": the system's default

	Connect int `json:"connect,omitempty"` // TCP connections at a time, opened and ended one after the other

	UDPRate  float64 `json:"udp_rate,omitempty"`  // datagrams a second, of all flows together
	UDPSize  int     `json:"udp_size,omitempty"`  // bytes of UDP payload, at least MinDatagram
	UDPFlows int     `json:"udp_flows,omitempty"` // 0: one

	EchoInterval time.Duration `json:"echo_interval_ns,omitempty"` // between echo requests
	EchoUDP      bool          `json:"echo_udp,omitempty"`         // to the sink's reflecting port, rather than ICMP

	// SOCKS, if valid, is a proxy that TCP goes by, to To's port of SOCKSTo.
	SOCKS   netip.AddrPort `json:"socks,omitzero"`
	SOCKSTo netip.Addr     `json:"socks_to,omitzero"`
}

// A Source sends what its Spec says.
type Source struct {
	spec Spec

	bytes, packets atomic.Uint64
	echo           *echoLog // nil unless it sends echo requests
}

// NewSource returns a source that has not begun to send.
func NewSource(spec Spec) *Source {
	s := &Source{spec: spec}
	if spec.Verify {
		PreparePattern()
	}
	if spec.EchoInterval > 0 {
		s.echo = newEchoLog()
	}
	return s
}

// Counters returns what has been sent on all flows, and for echo what came
// back.
func (s *Source) Counters() Counters {
	c := Counters{Bytes: s.bytes.Load(), Packets: s.packets.Load()}
	if s.echo != nil {
		c.Answered, c.RTT = s.echo.export()
	}
	return c
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
		conn, err := s.dialTCP(ctx, &dialer, s.spec.To)
		if err != nil {
			return err
		}
		file, err := blocking(conn)
		if err != nil {
			return err
		}
		files = append(files, file)
	}
	g, ctx := errgroup.WithContext(ctx)
	for i, file := range files {
		g.Go(func() error { return s.pour(ctx, i, int(file.Fd())) })
	}
	return g.Wait()
}

// pour writes to one connected TCP socket until ctx ends.
func (s *Source) pour(ctx context.Context, flow, fd int) error {
	defer onEnd(ctx, func() { _ = unix.Shutdown(fd, unix.SHUT_RDWR) })()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	buf := make([]byte, bulkBuffer)
	var offset uint64
	write := func(b []byte) error {
		n, err := unix.Write(fd, b)
		if errors.Is(err, unix.EINTR) {
			return nil
		}
		if err != nil {
			return err
		}
		s.bytes.Add(uint64(n))
		offset += uint64(n)
		return nil
	}
	if s.spec.Verify {
		first := uint64(os.Getpid())*7919 + uint64(flow)*104_729
		// The send buffer is empty: it takes all eight.
		if err := write(binary.BigEndian.AppendUint64(nil, first)); err != nil {
			return stopped(ctx, err)
		}
		offset = first
	}
	pace := tcpPace{rate: s.spec.TCPRate / 8 / float64(s.spec.TCPFlows)}
	for {
		n := pace.wait(ctx)
		if ctx.Err() != nil {
			return nil
		}
		chunk := buf[:n]
		if s.spec.Verify {
			chunk = Pattern(offset, n)
		}
		if err := write(chunk); err != nil {
			return stopped(ctx, err)
		}
	}
}

// A tcpPace spreads a flow's writes: one in pacing, of what is due by then.
type tcpPace struct {
	rate  float64 // bytes a second; 0: no limit
	since time.Time
	sent  float64
}

// wait waits until something is due and returns how many bytes.
func (p *tcpPace) wait(ctx context.Context) int {
	if p.rate == 0 {
		return bulkBuffer
	}
	if p.since.IsZero() {
		p.since = time.Now()
	}
	const (
		least   = 4 << 10 // less would be segments that no bulk flow sends
		tooLate = 50 * time.Millisecond
	)
	gap := unix.NsecToTimespec(pacing.Nanoseconds())
	for ctx.Err() == nil {
		due := time.Since(p.since).Seconds()*p.rate - p.sent
		if due > p.rate*tooLate.Seconds() {
			// The path does not take the rate. What is late is not made up for.
			p.sent += due - least
			due = least
		}
		if due >= least {
			n := min(int(due), bulkBuffer)
			p.sent += float64(n)
			return n
		}
		_ = unix.Nanosleep(&gap, nil) // woken early by a signal: it only looks again
	}
	return 0
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

package traffic

import (
	"context"
	"encoding/binary"
	"net"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const (
	// echoSize is the message in bytes: ICMP's header and ping(8)'s 56 of data,
	// or as much UDP payload.
	echoSize = 64
	// lastEcho is how long answers are waited for after the last request.
	lastEcho = time.Second
	// maxEchoes bounds what one source remembers: the sequence number's range.
	maxEchoes = 1 << 16
)

// NewRTTs returns an empty histogram of round trips in nanoseconds: up to ten
// seconds, three digits.
func NewRTTs() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, (10 * time.Second).Nanoseconds(), 3)
}

// An echoLog holds what a source of echo requests waits for, and its round trips.
type echoLog struct {
	mu       sync.Mutex
	since    [maxEchoes]time.Time // by sequence number; zero: not sent, or answered
	pending  int
	answered uint64
	rtts     *hdrhistogram.Histogram
}

func newEchoLog() *echoLog { return &echoLog{rtts: NewRTTs()} }

func (l *echoLog) export() (answered uint64, rtt string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.answered == 0 {
		return 0, ""
	}
	text, err := l.rtts.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
	if err != nil {
		return l.answered, "" // cannot be: it is written to memory
	}
	return l.answered, string(text)
}

// sent notes a request. One with the same number, 65,536 before it, is lost.
func (l *echoLog) sent(seq uint16, since time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.since[seq].IsZero() {
		l.pending++
	}
	l.since[seq] = since
}

func (l *echoLog) received(seq uint16, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.since[seq].IsZero() {
		return // the second answer
	}
	// What takes longer than the histogram reaches is counted as its end.
	rtt := min(now.Sub(l.since[seq]).Nanoseconds(), l.rtts.HighestTrackableValue())
	_ = l.rtts.RecordValue(rtt)
	l.since[seq] = time.Time{}
	l.pending--
	l.answered++
}

// waiting reports whether an answer is still to come.
func (l *echoLog) waiting() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.pending > 0
}

// An echoKind is a way to have messages sent back.
type echoKind struct {
	icmp           bool
	request, reply byte // ICMP types
}

// runEcho sends echo requests on a fixed schedule. A late answer does not delay
// the next request, nor does a late request those after it.
func (s *Source) runEcho(ctx context.Context) error {
	conn, kind, err := s.dialEcho()
	if err != nil {
		return err
	}
	file, err := blocking(conn)
	if err != nil {
		return err
	}
	defer file.Close()
	// A raw socket has no shutdown that wakes a reader: look up now and then.
	timeout := unix.NsecToTimeval((20 * time.Millisecond).Nanoseconds())
	if err := unix.SetsockoptTimeval(int(file.Fd()), unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	id := uint16(os.Getpid())
	listening, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var g errgroup.Group
	g.Go(func() error { return s.receiveEcho(listening, int(file.Fd()), kind, id) })
	g.Go(func() error {
		defer stop()
		s.sendEcho(ctx, int(file.Fd()), kind, id)
		for end := time.Now().Add(lastEcho); s.echo.waiting() && time.Now().Before(end); {
			time.Sleep(time.Millisecond)
		}
		return nil
	})
	return g.Wait()
}

func (s *Source) dialEcho() (conn fileConn, kind echoKind, err error) {
	if s.spec.EchoUDP {
		conn, err = net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(GreetAddr(s.spec.To)))
		return conn, echoKind{}, err
	}
	network := "ip4:icmp"
	kind = echoKind{icmp: true, request: 8, reply: 0} // RFC 792
	if s.spec.To.Addr().Is6() {
		network = "ip6:ipv6-icmp"
		kind.request, kind.reply = 128, 129 // RFC 4443 §4
	}
	conn, err = net.DialIP(network, nil, &net.IPAddr{IP: s.spec.To.Addr().AsSlice()})
	return conn, kind, err
}

func (s *Source) sendEcho(ctx context.Context, fd int, kind echoKind, id uint16) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	msg := make([]byte, echoSize)
	msg[0] = kind.request
	binary.BigEndian.PutUint16(msg[4:], id)
	start := time.Now()
	for n := 0; ctx.Err() == nil; n++ {
		due := start.Add(time.Duration(n) * s.spec.EchoInterval)
		for wait := time.Until(due); wait > 0 && ctx.Err() == nil; wait = time.Until(due) {
			gap := unix.NsecToTimespec(min(wait, 20*time.Millisecond).Nanoseconds())
			_ = unix.Nanosleep(&gap, nil) // woken early by a signal: it only looks again
		}
		seq := uint16(n)
		binary.BigEndian.PutUint16(msg[6:], seq)
		binary.BigEndian.PutUint16(msg[2:], 0)
		// The kernel overwrites the checksum of ICMPv6, which has a
		// pseudo-header; only ICMPv4's is ours.
		binary.BigEndian.PutUint16(msg[2:], checksum(msg))
		s.echo.sent(seq, s.startOf(due))
		_, _ = unix.Write(fd, msg) // what is refused counts as lost
		s.packets.Add(1)
	}
}

// startOf returns when the round trip of a request that leaves now began. One that
// is a whole interval late began when it was due: a sender that is held up, by the
// very thing that is measured maybe, must not hide how long the requests would
// have taken that it did not send ("coordinated omission"; G. Tene, How NOT to
// Measure Latency, 2013). Less than that is the timer's slack.
func (s *Source) startOf(due time.Time) time.Time {
	now := time.Now()
	if now.Sub(due) >= s.spec.EchoInterval {
		return due
	}
	return now
}

func (s *Source) receiveEcho(ctx context.Context, fd int, kind echoKind, id uint16) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	buf := make([]byte, 2048)
	for ctx.Err() == nil {
		n, err := unix.Read(fd, buf)
		now := time.Now()
		if err != nil {
			continue // the time-out, or an ICMP error about an earlier request
		}
		msg := buf[:n]
		if kind.icmp && kind.reply == 0 && n > 20 { // raw IPv4 sockets deliver the IP header too
			msg = msg[min(int(msg[0]&0xf)*4, n):]
		}
		if len(msg) == echoSize && msg[0] == kind.reply && binary.BigEndian.Uint16(msg[4:]) == id {
			s.echo.received(binary.BigEndian.Uint16(msg[6:]), now)
		}
	}
	return nil
}

// checksum is the Internet checksum (RFC 1071) of b, whose length is even.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

package traffic

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// echoSize is the ICMP message in bytes: the header and ping(8)'s 56 of data.
const echoSize = 64

// maxEchoes bounds what one source remembers: the sequence number's range.
const maxEchoes = 1 << 16

// lastEcho is how long answers are waited for after the last request.
const lastEcho = 200 * time.Millisecond

// An echoLog holds the round trips of one source.
type echoLog struct {
	mu   sync.Mutex
	sent []time.Time
	rtt  []time.Duration // by sequence number; 0: no answer
}

func (l *echoLog) rtts() []time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]time.Duration, 0, len(l.rtt))
	for _, d := range l.rtt {
		if d > 0 {
			out = append(out, d)
		}
	}
	return out
}

// next takes a sequence number; ok is false when there are none left.
func (l *echoLog) next() (seq uint16, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.sent) == maxEchoes {
		return 0, false
	}
	l.sent, l.rtt = append(l.sent, time.Now()), append(l.rtt, 0)
	return uint16(len(l.sent) - 1), true
}

func (l *echoLog) answered(seq uint16, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if int(seq) < len(l.sent) && l.rtt[seq] == 0 {
		l.rtt[seq] = now.Sub(l.sent[seq])
	}
}

// runEcho sends echo requests on a fixed schedule. A late answer does not
// delay the next request, which would hide the worst round trips.
func (s *Source) runEcho(ctx context.Context) error {
	network, request, reply := "ip4:icmp", byte(8), byte(0) // RFC 792
	if s.spec.To.Addr().Is6() {
		network, request, reply = "ip6:ipv6-icmp", 128, 129 // RFC 4443 §4
	}
	conn, err := net.DialIP(network, nil, &net.IPAddr{IP: s.spec.To.Addr().AsSlice()})
	if err != nil {
		return err
	}
	file, err := blocking(conn)
	if err != nil {
		return err
	}
	defer file.Close()
	// A raw socket has no shutdown that wakes a reader: look up now and then.
	timeout := unix.NsecToTimeval((100 * time.Millisecond).Nanoseconds())
	if err := unix.SetsockoptTimeval(int(file.Fd()), unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	id := uint16(os.Getpid())
	listening, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var g errgroup.Group
	g.Go(func() error { return s.receiveEcho(listening, int(file.Fd()), reply, id) })
	g.Go(func() error {
		defer time.AfterFunc(lastEcho, stop)
		return s.sendEcho(ctx, int(file.Fd()), request, id)
	})
	return g.Wait()
}

func (s *Source) sendEcho(ctx context.Context, fd int, kind byte, id uint16) error {
	tick := time.NewTicker(s.spec.EchoInterval)
	defer tick.Stop()
	msg := make([]byte, echoSize)
	msg[0] = kind
	binary.BigEndian.PutUint16(msg[4:], id)
	for {
		seq, ok := s.echo.next()
		if !ok {
			return errors.New("more echo requests than there are sequence numbers")
		}
		binary.BigEndian.PutUint16(msg[6:], seq)
		binary.BigEndian.PutUint16(msg[2:], 0)
		// The kernel overwrites the checksum of ICMPv6, which has a
		// pseudo-header; only ICMPv4's is ours.
		binary.BigEndian.PutUint16(msg[2:], checksum(msg))
		if _, err := unix.Write(fd, msg); err == nil {
			s.packets.Add(1)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (s *Source) receiveEcho(ctx context.Context, fd int, kind byte, id uint16) error {
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
		if kind == 0 && n > 20 { // raw IPv4 sockets deliver the IP header too
			msg = msg[min(int(msg[0]&0xf)*4, n):]
		}
		if len(msg) == echoSize && msg[0] == kind && binary.BigEndian.Uint16(msg[4:]) == id {
			s.echo.answered(binary.BigEndian.Uint16(msg[6:]), now)
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

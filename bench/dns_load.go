package bench

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

const (
	typeA    = dns.TypeA
	typeAAAA = dns.TypeAAAA
	typePTR  = dns.TypePTR
)

const (
	dnsSockets = 4  // of a load at a fixed rate
	dnsClients = 64 // of one without: each waits for its answer
	// dnsPatience is how long an answer is waited for.
	dnsPatience = time.Second
	// dnsPacing is how often the load at a fixed rate looks what is due.
	dnsPacing = 100 * time.Microsecond
)

// A dnsQuestion is asked over and over. An answer with another number of records
// is none.
type dnsQuestion struct {
	name    string
	qtype   uint16
	answers int
}

// A dnsLoad asks one question, at a fixed rate whatever becomes of the answers,
// or with a fixed number of clients that wait for theirs.
type dnsLoad struct {
	server   netip.AddrPort
	question dnsQuestion
	rate     int // queries a second; 0: as fast as the clients are answered
	window   time.Duration

	conns []*net.UDPConn
}

// dnsCounts is what a load saw.
type dnsCounts struct {
	sent int
	took time.Duration
	rtts []time.Duration // of answers
}

func (l *dnsLoad) open(sockets int) error {
	for range sockets {
		conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(l.server))
		if err != nil {
			return err
		}
		l.conns = append(l.conns, conn)
	}
	return nil
}

func (l *dnsLoad) close() {
	for _, c := range l.conns {
		c.Close()
	}
}

// run asks for the window's length.
func (l *dnsLoad) run(ctx context.Context) (dnsCounts, error) {
	wire, err := new(dns.Msg).SetQuestion(dns.Fqdn(l.question.name), l.question.qtype).Pack()
	if err != nil {
		return dnsCounts{}, err
	}
	if l.rate > 0 {
		return l.steady(ctx, wire)
	}
	return l.waiting(ctx, wire)
}

// check returns the ID of an answer.
func (q dnsQuestion) check(packet []byte) (id uint16, err error) {
	if len(packet) < 12 || packet[2]&0x80 == 0 || packet[3]&0xf != dns.RcodeSuccess {
		return 0, fmt.Errorf("the answer is %x", packet)
	}
	if n := int(binary.BigEndian.Uint16(packet[6:])); n != q.answers {
		return 0, fmt.Errorf("the answer has %d records, want %d", n, q.answers)
	}
	return binary.BigEndian.Uint16(packet), nil
}

// A flight is what one socket has asked: when, by ID, in nanoseconds since the
// start. An ID comes again after 65,536 queries, which take longer than an
// answer is waited for.
type flight struct {
	conn *net.UDPConn
	at   [1 << 16]atomic.Int64
	rtts []time.Duration

	answered atomic.Int64
}

// steady asks at the rate, from all sockets in turn.
func (l *dnsLoad) steady(ctx context.Context, wire []byte) (counts dnsCounts, err error) {
	start := time.Now()
	flights := make([]*flight, len(l.conns))
	g, gctx := errgroup.WithContext(ctx)
	for i, conn := range l.conns {
		flights[i] = &flight{conn: conn}
		g.Go(func() error { return flights[i].collect(l.question, start) })
	}
	counts.sent, err = l.pace(gctx, flights, wire, start)
	counts.took = time.Since(start)
	awaitAnswers(gctx, flights, counts.sent)
	err = errors.Join(err, g.Wait())
	for _, f := range flights {
		counts.rtts = append(counts.rtts, f.rtts...)
	}
	return counts, err
}

// awaitAnswers waits until all queries are answered or lost, and ends the
// flights.
func awaitAnswers(ctx context.Context, flights []*flight, sent int) {
	for end := time.Now().Add(dnsPatience); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(time.Millisecond) {
		answered := 0
		for _, f := range flights {
			answered += int(f.answered.Load())
		}
		if answered == sent {
			break
		}
	}
	for _, f := range flights {
		_ = f.conn.SetReadDeadline(time.Unix(1, 0)) // fails only if it is closed
	}
}

// pace sends what is due until the window is over.
func (l *dnsLoad) pace(ctx context.Context, flights []*flight, wire []byte, start time.Time) (sent int, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	gap := unix.NsecToTimespec(dnsPacing.Nanoseconds())
	for ctx.Err() == nil {
		now := time.Since(start)
		if now > l.window {
			return sent, nil
		}
		for due := int(now.Seconds() * float64(l.rate)); sent < due; sent++ {
			f := flights[sent%len(flights)]
			id := uint16(sent / len(flights))
			binary.BigEndian.PutUint16(wire, id)
			// From when it was due: a late sender must not hide a slow server.
			f.at[id].Store(int64(sent) * int64(time.Second) / int64(l.rate))
			if _, err := f.conn.Write(wire); err != nil {
				return sent, err
			}
		}
		_ = unix.Nanosleep(&gap, nil) // woken early by a signal: it only looks again
	}
	return sent, ctx.Err()
}

// collect reads answers until the deadline.
func (f *flight) collect(q dnsQuestion, start time.Time) error {
	buf := make([]byte, dns.MaxMsgSize)
	for {
		n, err := f.conn.Read(buf)
		if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
			return nil
		}
		if err != nil {
			return err
		}
		id, err := q.check(buf[:n])
		if err != nil {
			return err
		}
		f.rtts = append(f.rtts, time.Since(start)-time.Duration(f.at[id].Load()))
		f.answered.Add(1)
	}
}

// waiting has each socket ask when it was answered.
func (l *dnsLoad) waiting(ctx context.Context, wire []byte) (counts dnsCounts, err error) {
	var mu sync.Mutex
	start := time.Now()
	g, gctx := errgroup.WithContext(ctx)
	for _, conn := range l.conns {
		own := slices.Clone(wire)
		g.Go(func() error {
			sent, rtts, err := l.askInTurn(gctx, conn, own, start)
			mu.Lock()
			defer mu.Unlock()
			counts.sent += sent
			counts.rtts = append(counts.rtts, rtts...)
			return err
		})
	}
	err = g.Wait()
	counts.took = time.Since(start)
	return counts, err
}

func (l *dnsLoad) askInTurn(ctx context.Context, conn *net.UDPConn, wire []byte, start time.Time) (sent int, rtts []time.Duration, err error) {
	buf := make([]byte, dns.MaxMsgSize)
	for ctx.Err() == nil && time.Since(start) < l.window {
		at := time.Now()
		binary.BigEndian.PutUint16(wire, uint16(sent))
		if _, err := conn.Write(wire); err != nil {
			return sent, rtts, err
		}
		sent++
		if err := conn.SetReadDeadline(at.Add(dnsPatience)); err != nil {
			return sent, rtts, err
		}
		n, err := conn.Read(buf)
		if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
			continue // lost
		}
		if err != nil {
			return sent, rtts, err
		}
		id, err := l.question.check(buf[:n])
		if err != nil {
			return sent, rtts, err
		}
		if id == uint16(sent-1) {
			rtts = append(rtts, time.Since(at))
		}
	}
	return sent, rtts, ctx.Err()
}

package traffic

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// A Trial sends datagrams at one rate after the other, for as long as it is told.
type Trial struct {
	source *Source
	sender *udpSender
}

// NewTrial opens the sockets that the Spec asks for in the calling thread's
// network namespace. Its UDPRate does not count.
func NewTrial(spec Spec) (*Trial, error) {
	s := NewSource(spec)
	u, err := s.openUDP()
	if err != nil {
		return nil, fmt.Errorf("traffic trial: %w", err)
	}
	return &Trial{source: s, sender: u}, nil
}

// Close closes the sockets.
func (t *Trial) Close() { t.sender.close() }

// Run sends for a time at a rate in datagrams a second. It returns how many were
// offered and how long that took: longer than asked for if the machine does not
// keep up.
func (t *Trial) Run(ctx context.Context, rate float64, d time.Duration) (sent uint64, took time.Duration, err error) {
	before := t.source.packets.Load()
	start := time.Now()
	err = t.sender.run(ctx, rate, d)
	return t.source.packets.Load() - before, time.Since(start), err
}

// openUDP opens a socket for each flow.
func (s *Source) openUDP() (_ *udpSender, err error) {
	if s.spec.UDPSize < MinDatagram || s.spec.UDPSize > maxDatagram {
		return nil, fmt.Errorf("datagrams of %d bytes: must be %d to %d", s.spec.UDPSize, MinDatagram, maxDatagram)
	}
	flows := max(s.spec.UDPFlows, 1)
	u := &udpSender{source: s, batch: newBatch(udpBatch, s.spec.UDPSize), seq: make([]uint64, flows)}
	defer func() {
		if err != nil {
			u.close()
		}
	}()
	for range flows {
		conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(s.spec.To))
		if err != nil {
			return nil, err
		}
		file, err := blocking(conn)
		if err != nil {
			return nil, err
		}
		u.files = append(u.files, file)
	}
	return u, nil
}

// run sends at a rate until ctx ends, or until what is due in d has been sent if
// that is not 0.
func (u *udpSender) run(ctx context.Context, rate float64, d time.Duration) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	total := int(rate * d.Seconds())
	gap := unix.NsecToTimespec(pacing.Nanoseconds())
	start := time.Now()
	for sent := 0; ctx.Err() == nil && (d == 0 || sent < total); {
		due := int(time.Since(start).Seconds() * rate)
		if d > 0 {
			due = min(due, total)
		}
		late := due > sent+maxBurst
		for due = min(due, sent+maxBurst); sent < due; {
			n := min(due-sent, udpBatch)
			if err := u.send(n); err != nil {
				return err
			}
			sent += n
		}
		if !late {
			_ = unix.Nanosleep(&gap, nil) // woken early by a signal: it only looks again
		}
	}
	return nil
}

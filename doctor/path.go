package doctor

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ovnd/ovnd/encap"
)

// Path MTU discovery at the packetization layer (RFC 8899), without any state
// of the kernel's: packets with DF set, of several sizes at once. Which of them
// an answer is to tells how large they may be. It needs no ICMP from routers,
// and finds black holes.

// largestProbe in bytes: beyond, nothing gets better.
const largestProbe = 9216

// A pathMTU is a measurement, in bytes.
type pathMTU struct {
	least, most int // most is what may also be possible
	open        bool
	by          string // how it was measured
}

// A prober sends packets of given sizes to one peer and collects what is
// answered. It has a descriptor until close.
type prober interface {
	// send sends a packet of size bytes, IP header included, as number n.
	send(n, size int) error
	// receive returns the number of a packet that was answered; unix.EAGAIN
	// means that there is none.
	receive() (n int, err error)
	fd() int
	close()
	// name is how it works.
	name() string
	// rounds is how often it may send, and batch how many at once: answers may
	// be limited in rate.
	rounds() int
	batch() int
}

var errNoAnswer = errors.New("nobody answers there: ICMP is dropped on the way")

// measurePath finds the largest packet, up to link bytes, that gets to addr.
func measurePath(ctx context.Context, addr netip.Addr, link int) (pathMTU, error) {
	err := errNoAnswer
	for _, open := range []func(netip.Addr) (prober, error){openEcho, openClosedPort} {
		p, openErr := open(addr)
		if openErr != nil {
			err = openErr
			continue
		}
		m, searchErr := search(ctx, p, smallest(addr), link)
		p.close()
		if searchErr == nil {
			return m, nil
		}
		err = searchErr
	}
	return pathMTU{}, err
}

// smallest is a size that every path takes: RFC 8200 §5, and the least that
// hosts have to reassemble over IPv4 (RFC 791 §3.1).
func smallest(addr netip.Addr) int {
	if addr.Is6() {
		return encap.MinMTU6
	}
	return 576
}

// A try is one round of probes.
type attempt struct {
	sizes    []int
	answered []bool
}

// Waits for a round's answers.
const (
	shortestWait = 200 * time.Millisecond // an answer of a busy machine is late
	firstWait    = 600 * time.Millisecond
)

// search narrows the answer down, from low, the least possible, to high.
func search(ctx context.Context, p prober, low, high int) (pathMTU, error) {
	low = min(low, high)
	m := pathMTU{by: p.name()}
	wait, first := firstWait, firstSizes(low, high, p.batch())
	for round := range p.rounds() {
		sizes := first
		if round > 0 {
			sizes = between(m.least, m.most, p.batch())
		}
		a, rtt, err := exchange(ctx, p, round*maxBatch, sizes, wait)
		if err != nil {
			return m, err
		}
		if !slices.Contains(a.answered, true) && round == 0 {
			return m, errNoAnswer
		}
		m.narrow(a, high)
		if m.open || m.least >= m.most {
			break
		}
		wait = min(max(4*rtt, shortestWait), firstWait)
	}
	return m, nil
}

// firstSizes are the ends, and what lies between that is common: Ethernet,
// PPPoE (RFC 4638), clouds, tunnels and WireGuard.
func firstSizes(low, high, batch int) []int {
	sizes := []int{high, low}
	for _, s := range []int{1500, 1492, 1460, 1420, 1400, 1280, 8901} {
		if s > low && s < high && len(sizes) < batch {
			sizes = append(sizes, s)
		}
	}
	slices.Sort(sizes)
	return slices.Compact(sizes)
}

// between returns up to n sizes above least, up to most, at equal distances.
func between(least, most, n int) []int {
	sizes := make([]int, 0, n)
	for i := range n {
		sizes = append(sizes, least+(most-least)*(i+1)/n)
	}
	sizes = slices.Compact(sizes)
	if len(sizes) > 0 && sizes[0] == least {
		sizes = sizes[1:]
	}
	return sizes
}

// narrow takes a round's answers in. high is the link's MTU.
func (m *pathMTU) narrow(a attempt, high int) {
	if m.most == 0 {
		m.most = high
	}
	for i, size := range a.sizes {
		if a.answered[i] {
			m.least = max(m.least, size)
		}
	}
	for i, size := range a.sizes {
		if !a.answered[i] && size > m.least {
			m.most = min(m.most, size-1)
		}
	}
	m.most = max(m.most, m.least)
	m.open = m.least == largestProbe
}

// maxBatch is the most that a prober sends in a round.
const maxBatch = 16

// exchange sends packets of these sizes, numbered from first on, each twice
// unless it is answered, and waits for the answers.
func exchange(ctx context.Context, p prober, first int, sizes []int, wait time.Duration) (attempt, time.Duration, error) {
	a := attempt{sizes: sizes, answered: make([]bool, len(sizes))}
	began := time.Now()
	var rtt time.Duration
	for again := range 2 {
		for i, size := range sizes {
			if a.answered[i] || again > 0 && p.batch() < maxBatch {
				continue
			}
			// EMSGSIZE and ENOBUFS are what a device says to what it drops.
			if err := p.send(first+i, size); err != nil && !errors.Is(err, unix.EMSGSIZE) && !errors.Is(err, unix.ENOBUFS) {
				return a, 0, fmt.Errorf("probe of %d bytes: %w", size, err)
			}
		}
		deadline := began.Add(time.Duration(again+1) * wait / 2)
		for slices.Contains(a.answered, false) && time.Now().Before(deadline) {
			if ctx.Err() != nil {
				return a, 0, fmt.Errorf("not measured in time: %w", ctx.Err())
			}
			n, err := nextAnswer(p, time.Until(deadline))
			if err != nil {
				return a, 0, err
			}
			if n -= first; n >= 0 && n < len(sizes) && !a.answered[n] {
				a.answered[n] = true
				rtt = max(rtt, time.Since(began))
			}
		}
	}
	return a, rtt, nil
}

// nextAnswer returns a packet's number, or -1 if none came.
func nextAnswer(p prober, wait time.Duration) (int, error) {
	n, err := p.receive()
	if !errors.Is(err, unix.EAGAIN) {
		return n, err
	}
	err = poll(p.fd(), unix.POLLIN|unix.POLLERR, int(wait.Milliseconds())+1)
	if err != nil && !errors.Is(err, unix.EAGAIN) {
		return -1, err
	}
	return -1, nil
}

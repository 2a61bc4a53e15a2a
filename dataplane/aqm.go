package dataplane

import (
	"math"
	"time"
)

// The receive buffer of the underlay is the one queue on a packet's way in, and
// a bulk flow fills it: every other packet waits behind it. Like CoDel (RFC 8289)
// this tells senders before the buffer overflows, and one at a time; the kernel's
// tail drop comes later and takes 64 segments at once.
//
// CoDel measures how long packets waited. What waits is a good measure of that
// here, since a worker that is behind handles bytes at a steady pace.
const (
	// standingQueue is how much may wait for long, in bytes as the kernel accounts
	// for them, which is up to twice the data: about 0.3 ms at 10 Gbit/s. Less
	// leaves the worker idle while senders speed up again.
	standingQueue = 500 << 10
	// standingTime is how long it must not have been less: some round trips of a
	// flow between machines of one site.
	standingTime = time.Millisecond
	// bulkRun is the size in bytes of the runs of datagrams that are looked at:
	// they make the queue.
	bulkRun = 16 << 10
)

// A queueManager decides when a sender is told that the queue stands.
type queueManager struct {
	since   time.Time // when the queue last became longer than standingQueue
	telling bool
	next    time.Time // when to tell again
	count   int       // times told since it began
}

// tell reports whether the sender of a packet is to be told, with queued bytes
// waiting behind it (RFC 8289 §5).
func (q *queueManager) tell(queued int, now time.Time) bool {
	switch {
	case queued < standingQueue:
		q.since, q.telling = time.Time{}, false
		return false
	case q.since.IsZero():
		q.since = now
		return false
	case now.Sub(q.since) < standingTime:
		return false
	case !q.telling:
		q.telling = true
		// Soon after the last time, as often as was needed then.
		if now.Sub(q.next) < 8*standingTime && q.count > 2 {
			q.count -= 2
		} else {
			q.count = 1
		}
		q.next = now.Add(q.pause())
		return true
	case now.After(q.next):
		q.count++
		q.next = q.next.Add(q.pause())
		return true
	}
	return false
}

// pause is the time until senders are told again: shorter each time, which makes
// TCP slow down evenly.
func (q *queueManager) pause() time.Duration {
	return time.Duration(float64(standingTime) / math.Sqrt(float64(q.count)))
}

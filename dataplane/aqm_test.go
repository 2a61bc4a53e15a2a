package dataplane

import (
	"testing"
	"time"
)

// told counts how often senders are told while the queue has a length for a time,
// looked at every 50 µs.
func told(q *queueManager, now *time.Time, queued int, d time.Duration) (n int) {
	for end := now.Add(d); now.Before(end); *now = now.Add(50 * time.Microsecond) {
		if q.tell(queued, *now) {
			n++
		}
	}
	return n
}

func TestQueueManager(t *testing.T) {
	q, now := &queueManager{}, time.Unix(1, 0)
	if n := told(q, &now, standingQueue-1, time.Second); n != 0 {
		t.Errorf("told %d times of a short queue", n)
	}
	for range 100 { // a burst, as after each wake-up
		if n := told(q, &now, 2*standingQueue, standingTime/2) + told(q, &now, 0, standingTime/2); n != 0 {
			t.Fatalf("told %d times of a queue that drains", n)
		}
	}
	first := told(q, &now, 2*standingQueue, 10*standingTime)
	then := told(q, &now, 2*standingQueue, 10*standingTime)
	if first < 5 || then <= first {
		t.Errorf("told %d times of a standing queue, then %d: want more and more", first, then)
	}
	if n := told(q, &now, 0, standingTime); n != 0 {
		t.Errorf("told %d times after the queue has gone", n)
	}
	if again := told(q, &now, 2*standingQueue, 2*standingTime); again < 3 {
		t.Errorf("told %d times when it stands again at once: the rate was forgotten", again)
	}
	now = now.Add(time.Minute)
	told(q, &now, 0, standingTime)
	if much := told(q, &now, 2*standingQueue, standingTime+100*time.Microsecond); much > 1 {
		t.Errorf("told %d times at first, a minute later", much)
	}
}

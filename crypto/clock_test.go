package crypto

import (
	"testing"
	"time"
	"unsafe"
)

// setBack returns t as a wall clock that was set back tells it: the reading of the
// monotonic clock stays. That is what time.Now does, and package time has no way to
// make up such a time.
func setBack(t time.Time, by time.Duration) time.Time {
	const shift = 30 // of the seconds in the first word of a time.Time with a monotonic reading
	*(*uint64)(unsafe.Pointer(&t)) -= uint64(by/time.Second) << shift
	return t
}

// TestClockSetBack sets the wall clock of one node back by hours, to before all
// certificates were made, while it runs: sessions go on and are renewed.
func TestClockSetBack(t *testing.T) {
	s := newSim(t, "a", "b")
	if back := setBack(s.now, time.Hour); back.Sub(s.now) != 0 || s.now.Round(0).Sub(back.Round(0)) != time.Hour {
		t.Fatal("time.Time is made in another way now")
	}
	a := s.nodes[0]
	by := time.Duration(0)
	a.engine.clock = func() time.Time { return setBack(s.now, by) }
	s.meet()
	s.connected(Auto)
	by = 10 * time.Hour
	f := &traffic{sim: s}
	f.run(3*rejectAfter, time.Second)
	f.check(t)
	// Nor does it keep the node from believing who was removed.
	removal, err := SignRevocation(s.ca.credentials(t, "m", roleManager), "b", s.now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := removal.Verify(testCluster, a.cred.Roots, a.engine.clock().Round(0)); err == nil {
		t.Error("the test shows nothing: the manager's certificate is valid so early")
	}
	if _, err := removal.Verify(testCluster, a.cred.Roots, a.engine.Today()); err != nil {
		t.Error(err)
	}
	if n := a.refusals(RefusedIdentity); n > 0 {
		t.Errorf("%d certificates refused", n)
	}
}

// TestClockSetRight starts a node with a wall clock that is years ahead, and sets it
// right while it runs: from then on the node and the others let each other in.
func TestClockSetRight(t *testing.T) {
	s := newSim(t, "a", "b")
	a := s.nodes[0]
	ahead := 2 * 365 * 24 * time.Hour
	a.engine.clock = func() time.Time { return setBack(s.now, -ahead) }
	a.engine.gate.init(a.engine.clock())
	s.meet()
	s.run(10 * time.Second)
	if a.refusals(RefusedIdentity) == 0 {
		t.Fatal("the test shows nothing: certificates are good for longer")
	}
	a.engine.clock = func() time.Time { return s.now }
	s.until(10*time.Second, "a session", func() bool { return a.sending(s.nodes[1]) != nil })
}

// TestSuspended has a node sleep for an hour, in which its monotonic clock stands.
// The other one has given it up long since; both find each other again.
func TestSuspended(t *testing.T) {
	s := newSim(t, "a", "b")
	a, b := s.nodes[0], s.nodes[1]
	s.meet()
	s.connected(Auto)
	s.run(time.Second)
	a.addr, b.addr = b.addr, a.addr // nothing of either comes anywhere
	s.nodes = s.nodes[1:]           // a does nothing
	asleep := time.Hour
	s.run(asleep)
	s.nodes = append(s.nodes, a)
	a.addr, b.addr = b.addr, a.addr
	a.skew, a.wake = -asleep, s.now
	s.until(silentAfter, "packets both ways", func() bool {
		a.send(b, Auto, "awake")
		b.send(a, Auto, "seen")
		return b.got["awake"] > 0 && a.got["seen"] > 0
	})
}

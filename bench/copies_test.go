package bench

import (
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ovnd/ovnd/crypto"
	"github.com/ovnd/ovnd/dataplane/pkt"
)

// A lookout is a TUN that looks where the pieces lie that it is given.
type lookout struct {
	t               *testing.T
	wire            []byte // what was received
	supers, packets int
}

func (*lookout) JoinsUDP() bool { return true }

func (l *lookout) WriteSuper(pieces []unix.Iovec, packets, _ int) {
	l.supers++
	l.packets += packets
	first := uintptr(unsafe.Pointer(unsafe.SliceData(l.wire)))
	for _, p := range pieces {
		if at := uintptr(unsafe.Pointer(p.Base)); at < first || at+uintptr(p.Len) > first+uintptr(len(l.wire)) {
			l.t.Errorf("%d bytes were copied out of the receive buffer", p.Len)
		}
	}
}

// What arrives is written to the TUN from where it was received, sealed or not:
// it is opened in place, and putting packets together copies nothing.
func TestInboundCopiesNothing(t *testing.T) {
	for _, s := range suites {
		plan, err := planOf(superFrame(s.sealed()))
		if err != nil {
			t.Fatal(err)
		}
		partial, prefix := s.sealed() && plan.LeavePartial(), s.prefix()
		wire := make([]byte, 1<<17)
		wire = wire[:plan.Put(wire, prefix, s.tail(), 0, plan.Count())]
		size := len(prefix) + plan.Len() + s.tail()
		out, join := &lookout{t: t, wire: wire}, pkt.NewJoiner()
		var sender, receiver *crypto.Session
		if s.sealed() {
			if sender, receiver, err = crypto.Pair(s.crypto); err != nil {
				t.Fatal(err)
			}
			sealAll(sender, wire, size, plan.Count())
		}
		for at := 0; at < len(wire); at += size {
			d := wire[at:min(at+size, len(wire))]
			if s.sealed() {
				plain, _, ok := receiver.Open(d)
				if !ok || &plain[0] != &d[crypto.HeaderLen] {
					t.Fatalf("%s: opened: %t, and not in place", s.subject, ok)
				}
			}
			joinOne(join, out, d[:len(d)-s.tail()], len(prefix), partial)
		}
		join.Flush()
		if out.supers != 1 || out.packets != plan.Count() {
			t.Errorf("%s: %d packets in %d writes, want %d in one", s.subject, out.packets, out.supers, plan.Count())
		}
	}
}

package traffic

import (
	"context"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// pacing is how often a source at a fixed rate wakes to send what is due:
	// iperf3's default, so that bursts are alike.
	pacing = time.Millisecond
	// maxBurst bounds what it sends before it looks at the clock again, should
	// it be late.
	maxBurst = 256
)

// A udpSender sends the datagrams of all flows from one thread, so that their
// rate is one.
type udpSender struct {
	source *Source
	files  []*os.File // by flow
	batch  *batch
	seq    []uint64 // by flow: of the next datagram
	turn   int      // flow of the next batch
}

func (s *Source) runUDP(ctx context.Context) error {
	u, err := s.openUDP()
	if err != nil {
		return err
	}
	defer u.close()
	return u.run(ctx, s.spec.UDPRate, 0)
}

func (u *udpSender) close() {
	for _, f := range u.files {
		f.Close()
	}
}

// send sends n datagrams of the flow whose turn it is. What the local queue
// refuses was offered too, and counts as lost.
func (u *udpSender) send(n int) error {
	flow := u.turn
	u.turn = (u.turn + 1) % len(u.files)
	for i := range n {
		b := u.batch.bufs[i]
		putDatagramHeader(b, uint32(os.Getpid()), uint32(flow), u.seq[flow])
		if u.source.spec.Verify {
			rest := b[datagramHeaderLen:]
			copy(rest, Pattern(datagramOffset(uint32(flow), u.seq[flow]), len(rest)))
		}
		u.seq[flow]++
	}
	sent, err := u.batch.send(int(u.files[flow].Fd()), n)
	if err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, unix.EINTR) {
		return err
	}
	u.source.bytes.Add(uint64(sent * len(u.batch.bufs[0])))
	u.source.packets.Add(uint64(n))
	return nil
}

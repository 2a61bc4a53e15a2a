package dataplane

import (
	"sync"
	"sync/atomic"

	"github.com/ovnd/ovnd/dataplane/pkt"
)

// What waits between two stacks of this process at most: super-packets, and bytes
// of them.
const (
	maxStackFrames = 1024
	maxStackBytes  = 4 << 20
)

// smallFrame is how many bytes a frame has at most that lies in a small buffer:
// one packet of Ethernet's size.
const smallFrame = 2 << 10

// Buffers of frames that wait: most are acknowledgements or super-packets.
var (
	smallFrames = sync.Pool{New: func() any { return new([smallFrame]byte) }}
	largeFrames = sync.Pool{New: func() any { return new([pkt.MetaLen + pkt.MaxIP]byte) }}
)

// A stackQueue takes frames from other stacks of this process to one stack, on a
// goroutine of its own: the goroutine that sends holds locks of its stack, and
// the one that delivers may have it answer.
type stackQueue struct {
	frames chan queuedFrame
	bytes  atomic.Int64
	done   chan struct{} // closed to end the goroutine
	ended  chan struct{}
}

// A queuedFrame is a super-packet behind its metadata in a buffer of a pool.
type queuedFrame struct {
	buf     any // *[smallFrame]byte or the large kind
	size    int
	packets int
}

func newStackQueue(deliver func(frame []byte, packets int)) *stackQueue {
	q := &stackQueue{
		frames: make(chan queuedFrame, maxStackFrames),
		done:   make(chan struct{}), ended: make(chan struct{}),
	}
	go q.run(deliver)
	return q
}

// put copies a frame into the queue. It returns false if there is no room.
func (q *stackQueue) put(frame []byte, packets int) bool {
	if q.bytes.Add(int64(len(frame))) > maxStackBytes {
		q.bytes.Add(-int64(len(frame)))
		return false
	}
	f := queuedFrame{size: len(frame), packets: packets}
	if len(frame) <= smallFrame {
		f.buf = smallFrames.Get()
	} else {
		f.buf = largeFrames.Get()
	}
	copy(f.data(), frame)
	select {
	case q.frames <- f:
		return true
	default:
		q.release(f)
		return false
	}
}

func (f queuedFrame) data() []byte {
	if b, ok := f.buf.(*[smallFrame]byte); ok {
		return b[:f.size]
	}
	return f.buf.(*[pkt.MetaLen + pkt.MaxIP]byte)[:f.size]
}

func (q *stackQueue) release(f queuedFrame) {
	q.bytes.Add(-int64(f.size))
	if f.size <= smallFrame {
		smallFrames.Put(f.buf)
	} else {
		largeFrames.Put(f.buf)
	}
}

func (q *stackQueue) run(deliver func(frame []byte, packets int)) {
	defer close(q.ended)
	for {
		select {
		case <-q.done:
			return
		case f := <-q.frames:
			deliver(f.data(), f.packets)
			q.release(f)
		}
	}
}

// close ends the queue: when it returns, nothing is delivered any more. It is
// called once.
func (q *stackQueue) close() {
	close(q.done)
	<-q.ended
}

// toStack passes on what one stack of this process sends to another.
func (f *forwarder) toStack(from, to *Port, frame []byte, packets, bytes int) {
	if from == to {
		f.drop(from, DropStackLoop, packets)
		return
	}
	if !to.stack.queue.put(frame, packets) {
		f.drop(from, DropStackFull, packets)
		return
	}
	to.writers[f.worker].count(nil, packets, bytes)
}

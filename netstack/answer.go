package netstack

import (
	"bytes"

	"github.com/ovnd/ovnd/dataplane/pkt"
	"github.com/ovnd/ovnd/encap"
)

// maxAnswers is how many SYN-ACKs wait to be sent at most.
const maxAnswers = 64

// answers are the SYN-ACKs of a stack. They leave from a goroutine of their own:
// gVisor holds the lock of the new endpoint while it sends one, and the client's
// ACK comes back before the write to its device has returned. The processor that
// takes the ACK would spin until then.
type answers struct {
	out   func(frames [][]byte)
	queue chan []byte
}

func newAnswers(out func(frames [][]byte)) *answers {
	return &answers{out: out, queue: make(chan []byte, maxAnswers)}
}

// send sends what the stack sends.
func (a *answers) send(frames [][]byte) {
	if len(frames) == 1 && isSYNACK(frames[0]) {
		select {
		case a.queue <- bytes.Clone(frames[0]):
			return
		default:
		}
	}
	a.out(frames)
}

// run sends SYN-ACKs until done is closed.
func (a *answers) run(done <-chan struct{}) {
	frames := make([][]byte, 0, maxAnswers)
	for {
		select {
		case <-done:
			return
		case frame := <-a.queue:
			frames = append(frames[:0], frame)
		}
		for more := true; more && len(frames) < maxAnswers; {
			select {
			case frame := <-a.queue:
				frames = append(frames, frame)
			default:
				more = false
			}
		}
		a.out(frames)
	}
}

// isSYNACK reports whether frame, of which the stack is the sender, is a SYN-ACK.
func isSYNACK(frame []byte) bool {
	if len(frame) > pkt.MetaLen+maxSYN {
		return false
	}
	ip, err := encap.ParseIP(frame[pkt.MetaLen:])
	if err != nil || ip.Protocol != encap.ProtocolTCP || ip.IsFragment() {
		return false
	}
	segment, err := encap.ParseTCP(ip.Payload())
	return err == nil && segment.Flags()&(encap.TCPFlagSYN|encap.TCPFlagACK) == encap.TCPFlagSYN|encap.TCPFlagACK
}

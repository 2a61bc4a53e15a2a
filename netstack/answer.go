package netstack

import (
	"bytes"

	"github.com/ovnd/ovnd/dataplane/pkt"
	"github.com/ovnd/ovnd/encap"
)

// maxAnswers is how many SYN-ACKs wait to be sent at most.
const maxAnswers = 64

// send sends what the stack sends. A SYN-ACK leaves from a goroutine of its own:
// gVisor holds the lock of the new endpoint while it sends one, and the client's
// ACK comes back before the write to its device has returned. The processor that
// takes the ACK would spin until then.
func (b *Balancer) send(frames [][]byte) {
	if len(frames) == 1 && isSYNACK(frames[0]) {
		select {
		case b.answers <- bytes.Clone(frames[0]):
			return
		default:
		}
	}
	b.cfg.Send(frames)
}

// sendAnswers sends SYN-ACKs until the balancer ends.
func (b *Balancer) sendAnswers() {
	frames := make([][]byte, 0, maxAnswers)
	for {
		select {
		case <-b.done:
			return
		case frame := <-b.answers:
			frames = append(frames[:0], frame)
		}
		for more := true; more && len(frames) < maxAnswers; {
			select {
			case frame := <-b.answers:
				frames = append(frames, frame)
			default:
				more = false
			}
		}
		b.cfg.Send(frames)
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

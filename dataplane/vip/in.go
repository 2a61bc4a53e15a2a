package vip

import "github.com/ovnd/ovnd/encap"

// In takes what is about to be delivered to the port's sandbox: a super-packet
// behind its metadata, or the first piece of one, which has its headers. It may
// rewrite it. Only Pass, Translated and Consumed are returned.
func (t *Table) In(frame []byte) Verdict {
	p, ok := locate(frame)
	switch {
	case !ok:
		return Pass
	case p.protocol == encap.ProtocolICMP || p.protocol == encap.ProtocolICMPv6:
		return t.errorIn(&p)
	case p.offset != 0:
		return t.fragmentIn(&p)
	case !p.isFlow() || p.protocol == encap.ProtocolTCP && p.tcp().HeaderLen() < encap.TCPHeaderLen:
		return Pass
	}
	k := p.inKey()
	f := t.find(&k)
	if f == nil {
		return Pass
	}
	switch {
	case p.protocol == encap.ProtocolUDP:
		if f.state.Load()&replied == 0 {
			f.set(replied)
		}
	case f.state.Load()&open == 0:
		if v := f.firstAnswer(&p); v != Translated {
			return v
		}
	default:
		f.progress(&p)
	}
	f.touch()
	f.receive.apply(&p, false)
	if p.more {
		t.fragments.note(&p, f, false)
	}
	return Translated
}

// progress notes what a segment of the backend says about the end of a connection.
func (f *flow) progress(p *packet) {
	tcp := p.tcp()
	switch flags := tcp.Flags(); {
	case flags&encap.TCPFlagRST != 0:
		f.set(reset)
	case flags&encap.TCPFlagFIN != 0:
		f.inEnd.Store(p.end())
		f.set(finIn)
	}
	if ack := tcp.Ack(); f.state.Load()&finOut != 0 && f.acked.Load() != ack {
		f.acked.Store(ack)
	}
}

// firstAnswer handles what comes while a SYN has had no answer.
func (f *flow) firstAnswer(p *packet) Verdict {
	tcp := p.tcp()
	const kinds = encap.TCPFlagSYN | encap.TCPFlagACK | encap.TCPFlagRST
	ours := tcp.Ack() == f.isn+1
	switch tcp.Flags() & kinds {
	case encap.TCPFlagSYN | encap.TCPFlagACK:
		if ours {
			if !f.answered() {
				return Pass // too late: another backend was asked
			}
			return Translated
		}
	case encap.TCPFlagRST | encap.TCPFlagACK:
		if ours && f.backend != nil {
			f.report(refused)
			return Consumed
		}
		if ours {
			f.set(reset)
			return Translated
		}
	}
	// The client has a connection of its own there, of which this is a part, or an
	// answer to the SYN that has nothing to do with it (RFC 9293 §3.10.7.4). If
	// the connection is an old one, the client resets it.
	f.report(collided)
	return Pass
}

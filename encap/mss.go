package encap

import "encoding/binary"

// TCP options (RFC 9293 §3.2).
const (
	tcpOptionEnd    = 0
	tcpOptionNop    = 1
	tcpOptionMSS    = 2
	tcpOptionMSSLen = 4
)

// ClampMSS lowers the maximum segment size that a SYN or SYN-ACK announces to
// mss, see [MSS], and keeps the TCP checksum right without reading the payload
// (RFC 1624). It reports whether it changed the packet. Any other packet, one
// without the option (whose sender means 536 or 1220 bytes, RFC 9293 §3.7.1) and
// one whose options are malformed are left alone.
//
// The checksum must be complete: where a device left it partial,
// [CompleteChecksum] comes first.
func ClampMSS(p IP, mss uint16) (changed bool) {
	if p.Protocol != ProtocolTCP || p.FragmentOffset != 0 {
		return false
	}
	t, err := ParseTCP(p.Payload())
	if err != nil || t.Flags()&TCPFlagSYN == 0 {
		return false
	}
	at := t.findMSS()
	if at < 0 {
		return false
	}
	old := binary.BigEndian.Uint16(t[at:])
	if old <= mss {
		return false
	}
	binary.BigEndian.PutUint16(t[at:], mss)
	// Options need no alignment: behind an odd number of NOPs the value lies
	// across two words of the checksum, and counts with its bytes exchanged.
	was, is := Sum(old).At(at), Sum(mss).At(at)
	t.SetChecksum(updateChecksum(t.Checksum(), uint16(was), uint16(is)))
	return true
}

// findMSS returns the offset in t of the value of the MSS option, -1 if there is
// none.
func (t TCP) findMSS() int {
	header := t[:t.HeaderLen()]
	for i := TCPHeaderLen; i < len(header); {
		kind := header[i]
		if kind == tcpOptionEnd {
			return -1
		}
		if kind == tcpOptionNop {
			i++
			continue
		}
		if i+1 >= len(header) {
			return -1
		}
		n := int(header[i+1])
		if n < 2 || n > len(header)-i {
			return -1
		}
		if kind == tcpOptionMSS && n == tcpOptionMSSLen {
			return i + 2
		}
		i += n
	}
	return -1
}

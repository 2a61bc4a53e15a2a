package encap

import (
	"net/netip"
	"testing"
)

func TestPutUnreachable(t *testing.T) {
	for _, test := range []struct {
		src, dst, from string
		why            Unreachable
		kind, code     byte
	}{
		{"10.0.0.1", "10.0.0.2", "10.0.0.254", HostUnreachable, 3, 1},
		{"10.0.0.1", "10.0.0.2", "10.0.0.254", AdminProhibited, 3, 13},
		{"fd00::1", "fd00::2", "fd00::fe", HostUnreachable, 1, 3},
		{"fd00::1", "fd00::2", "fd00::fe", NetUnreachable, 1, 0},
		{"fd00::1", "fd00::2", "fd00::fe", PortUnreachable, 1, 4},
		{"fd00::1", "fd00::2", "fd00::fe", AdminProhibited, 1, 1},
	} {
		src, dst, from := netip.MustParseAddr(test.src), netip.MustParseAddr(test.dst), netip.MustParseAddr(test.from)
		b := make([]byte, 200)
		var orig IP
		if src.Is4() {
			orig = mustIP(t, PutIPv4(b, src, dst, ProtocolUDP, 100))
		} else {
			orig = mustIP(t, PutIPv6(b, src, dst, ProtocolUDP, 64, 100))
		}
		out := make([]byte, MaxPacketTooBigLen)
		n := PutUnreachable(out, orig, test.why, from)
		got := mustIP(t, out[:n])
		msg := got.Payload()
		if got.Src() != from || got.Dst() != src || msg[0] != test.kind || msg[1] != test.code {
			t.Errorf("%+v: %s → %s, type %d code %d", test, got.Src(), got.Dst(), msg[0], msg[1])
		}
		if string(msg[icmpHeaderLen:]) != string(orig.Packet) {
			t.Errorf("%+v: quotes %x", test, msg[icmpHeaderLen:])
		}
		pseudo := Sum(0)
		if got.Is6() {
			pseudo = got.PseudoSum(len(msg))
		} else if !IPv4(got.Packet).ChecksumOK() {
			t.Errorf("%+v: IP checksum", test)
		}
		if Checksum(msg, pseudo) != 0 {
			t.Errorf("%+v: ICMP checksum", test)
		}
		// Nobody answers an error.
		if n := PutUnreachable(make([]byte, 2000), got, test.why, from); n != 0 {
			t.Errorf("%+v: an error was answered", test)
		}
		if n := PutUnreachable(make([]byte, 30), orig, test.why, from); n != 0 {
			t.Errorf("%+v: %d bytes written where there is no room", test, n)
		}
	}
}

func mustIP(t *testing.T, b []byte) IP {
	t.Helper()
	ip, err := ParseIP(b)
	if err != nil {
		t.Fatal(err)
	}
	return ip
}

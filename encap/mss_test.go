package encap

import (
	"bytes"
	"encoding/binary"
	"testing"
)

func TestClampMSS(t *testing.T) {
	for _, tt := range []struct {
		name    string
		flags   uint16
		options string
		mss     uint16
		want    string // the options after; empty: unchanged
	}{
		{"SYN", TCPFlagSYN, "020405b4", 1410, "02040582"},
		{"SYN-ACK", TCPFlagSYN | TCPFlagACK, "020405b4 0101 0402", 1410, "02040582 0101 0402"},
		{"to 1", TCPFlagSYN, "0204ffff", 1, "02040001"},
		{"to 0", TCPFlagSYN, "0204ffff", 0, "02040000"},
		{"at an odd offset", TCPFlagSYN, "01 020405b4 010101", 1410, "01 02040582 010101"},
		{"behind others", TCPFlagSYN, "0402 080a0102030405060708 020405b4", 1410, "0402 080a0102030405060708 02040582"},
		{"the last bytes", TCPFlagSYN, "01010101 020405b4", 100, "01010101 02040064"},
		{"equal", TCPFlagSYN, "02040582", 1410, ""},
		{"smaller", TCPFlagSYN, "02040218", 1410, ""},
		{"no SYN", TCPFlagACK, "020405b4", 1410, ""},
		{"no options", TCPFlagSYN, "", 1410, ""},
		{"no MSS", TCPFlagSYN, "01010402", 1410, ""},
		{"after the end", TCPFlagSYN, "00000000 020405b4", 1410, ""},
		{"option of length 0", TCPFlagSYN, "08000000 020405b4", 1410, ""},
		{"option of length 1", TCPFlagSYN, "08010000 020405b4", 1410, ""},
		{"option too long", TCPFlagSYN, "01010109 020405b4", 1410, ""},
		{"MSS of length 3", TCPFlagSYN, "020305 01", 1410, ""},
		{"MSS cut off", TCPFlagSYN, "01010204", 1410, ""},
		{"kind without length", TCPFlagSYN, "01010102", 1410, ""},
	} {
		families(t, func(t *testing.T, v6 bool) {
			for _, payload := range [][]byte{nil, pattern(7)} { // TCP Fast Open has data in a SYN
				p := tcpPacket(t, v6, tt.flags, unhex(t, tt.options), payload)
				was := bytes.Clone(p.Packet)
				changed := ClampMSS(p, tt.mss)
				if changed != (tt.want != "") {
					t.Errorf("%s: changed: %t", tt.name, changed)
				}
				if !changed {
					if !bytes.Equal(p.Packet, was) {
						t.Errorf("%s: packet is %x, was %x", tt.name, p.Packet, was)
					}
					continue
				}
				if got, want := TCP(p.Payload()).Options(), unhex(t, tt.want); !bytes.Equal(got, want) {
					t.Errorf("%s: options %x, want %x", tt.name, got, want)
				}
				if !p.TransportChecksumOK() {
					t.Errorf("%s: checksum wrong", tt.name)
				}
			}
		})
	}
}

func TestClampMSSOthers(t *testing.T) {
	syn := tcpPacket(t, false, TCPFlagSYN, unhex(t, "020405b4"), nil)
	later := bytes.Clone(syn.Packet)
	binary.BigEndian.PutUint16(later[6:], 1)
	notTCP := bytes.Clone(syn.Packet)
	notTCP[9] = ProtocolUDP
	short := bytes.Clone(syn.Packet[:IPv4HeaderLen+TCPHeaderLen])
	IPv4(short).SetTotalLen(len(short)) // the options are beyond the end now
	for name, b := range map[string][]byte{"later fragment": later, "not TCP": notTCP, "cut off": short} {
		was := bytes.Clone(b)
		if ClampMSS(mustParseIP(t, b), 100) || !bytes.Equal(b, was) {
			t.Errorf("%s: changed to %x from %x", name, b, was)
		}
	}
}

func FuzzClampMSS(f *testing.F) {
	f.Add(unhex(f, "020405b4"), TCPFlagSYN, uint16(1410), false)
	f.Add(unhex(f, "01020405b4010101"), TCPFlagSYN|TCPFlagACK, uint16(0), true)
	f.Fuzz(func(t *testing.T, options []byte, flags, mss uint16, v6 bool) {
		options = options[:min(len(options), 40)&^3]
		p := tcpPacket(t, v6, flags, options, pattern(3))
		was := bytes.Clone(p.Packet)
		changed := ClampMSS(p, mss)
		if !p.TransportChecksumOK() {
			t.Fatalf("checksum wrong: %x, was %x", p.Packet, was)
		}
		if changed == bytes.Equal(p.Packet, was) {
			t.Fatalf("changed: %t, but %x was %x", changed, p.Packet, was)
		}
		if changed && flags&TCPFlagSYN == 0 {
			t.Fatal("changed what is no SYN")
		}
		if ClampMSS(p, mss) {
			t.Fatal("clamped twice")
		}
	})
}

func BenchmarkClampMSS(b *testing.B) {
	p := tcpPacket(b, false, TCPFlagSYN, unhex(b, "020405b4 0402080a 00000000 00000000 01030307"), nil)
	b.SetBytes(int64(len(p.Packet)))
	mss := uint16(1459)
	for b.Loop() {
		if mss--; mss == 1 {
			binary.BigEndian.PutUint16(p.Payload()[22:], 1460)
			mss = 1459
		}
		ClampMSS(p, mss)
	}
}

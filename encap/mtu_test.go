package encap

import "testing"

func TestMTU(t *testing.T) {
	for _, tt := range []struct {
		name      string
		got, want int
	}{
		{"overhead over IPv4", Overhead(false), 50},
		{"overhead over IPv6", Overhead(true), 70},
		{"encrypted overhead over IPv4", EncryptedOverhead(false), 76},
		{"encrypted overhead over IPv6", EncryptedOverhead(true), 96},
		{"default", DefaultMTU, 1450},
		{"default over IPv6", DefaultMTU6, 1430},
		{"encrypted default", DefaultEncryptedMTU, 1424},
		{"encrypted default over IPv6", DefaultEncryptedMTU6, 1404},
		{"inner MTU of 1500", InnerMTU(1500, false), DefaultMTU},
		{"inner MTU of 1500, IPv6", InnerMTU(1500, true), DefaultMTU6},
		{"inner MTU of 9000", InnerMTU(9000, false), 8950},
		{"encrypted inner MTU of 1500", EncryptedInnerMTU(1500, false), DefaultEncryptedMTU},
		{"encrypted inner MTU of 1500, IPv6", EncryptedInnerMTU(1500, true), DefaultEncryptedMTU6},
		{"encrypted inner MTU of 9000", EncryptedInnerMTU(9000, false), 8924},
		{"what a sealed packet adds to a plain one", sealedExtra, 24},
		{"MSS of 1450", MSS(1450, false), 1410},
		{"MSS of 1450, IPv6", MSS(1450, true), 1390},
		// 65507 bytes are the most that sendto takes for a UDP datagram.
		{"greatest", MaxMTU + EthernetHeaderLen + VXLANHeaderLen, 65507},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, tt.got, tt.want)
		}
	}
	if sealedExtra > encryptedExtra {
		t.Errorf("a sealed packet needs %d bytes and has %d", sealedExtra, encryptedExtra)
	}
}

package encap

import (
	"bytes"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"
)

func TestParseEthernet(t *testing.T) {
	const macs = "02420a0a0009 02420a0a0003 "
	for _, tt := range []struct {
		name, frame string
		etherType   uint16
		payload     string
		err         error
	}{
		{"IPv4", macs + "0800 45", EtherTypeIPv4, "45", nil},
		{"no payload", macs + "0806", EtherTypeARP, "", nil},
		{"IEEE 802.3 length", macs + "0003 424203", 3, "424203", nil},
		{"priority tag", macs + "8100 a000 86dd 60", EtherTypeIPv6, "60", nil},
		{"priority tag of a provider", macs + "88a8 e000 0800 45", EtherTypeIPv4, "45", nil},
		{"two priority tags", macs + "88a8 0000 8100 0000 0800 45", EtherTypeIPv4, "45", nil},
		{"VLAN 1", macs + "8100 0001 0800 45", 0, "", ErrVLAN},
		{"VLAN 4095", macs + "8100 0fff 0800 45", 0, "", ErrVLAN},
		{"VLAN 5 in a priority tag", macs + "8100 0000 8100 0005 0800 45", 0, "", ErrVLAN},
		{"tag without EtherType", macs + "8100 0000 08", 0, "", ErrShort},
		{"empty", "", 0, "", ErrShort},
		{"thirteen bytes", macs + "08", 0, "", ErrShort},
	} {
		dst, src, etherType, payload, err := ParseEthernet(unhex(t, tt.frame))
		if err != tt.err {
			t.Errorf("%s: error %v, want %v", tt.name, err, tt.err)
			continue
		}
		if err != nil {
			continue
		}
		if dst != (MAC{2, 0x42, 10, 10, 0, 9}) || src != (MAC{2, 0x42, 10, 10, 0, 3}) {
			t.Errorf("%s: %v from %v", tt.name, dst, src)
		}
		if etherType != tt.etherType || !bytes.Equal(payload, unhex(t, tt.payload)) {
			t.Errorf("%s: type %#04x, payload %x", tt.name, etherType, payload)
		}
	}
}

func FuzzEthernet(f *testing.F) {
	f.Add(unhex(f, "02420a0a0009 02420a0a0003 0800 45"))
	f.Add(unhex(f, "02420a0a0009 02420a0a0003 8100 0000 0800 45"))
	f.Fuzz(func(t *testing.T, b []byte) {
		dst, src, etherType, payload, err := ParseEthernet(b)
		if err != nil {
			return
		}
		if !bytes.HasSuffix(b, payload) {
			t.Fatalf("payload %x is not the end of %x", payload, b)
		}
		out := append(make([]byte, EthernetHeaderLen), payload...)
		PutEthernet(out, dst, src, etherType)
		if len(out) == len(b) && !bytes.Equal(out, b) {
			t.Fatalf("wrote %x, read %x", out, b)
		}
		dst2, src2, etherType2, payload2, err := ParseEthernet(out)
		if err != nil || dst2 != dst || src2 != src || etherType2 != etherType || !bytes.Equal(payload2, payload) {
			t.Fatalf("read back %v %v %#04x %x %v", dst2, src2, etherType2, payload2, err)
		}
	})
}

func TestMAC(t *testing.T) {
	m := MAC{2, 0x42, 10, 10, 0, 9}
	if got := m.String(); got != "02:42:0a:0a:00:09" {
		t.Errorf("String() = %s", got)
	}
	for _, s := range []string{"02:42:0a:0a:00:09", "02-42-0A-0A-00-09", "0242.0a0a.0009"} {
		if got, err := ParseMAC(s); err != nil || got != m {
			t.Errorf("ParseMAC(%q) = %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "02:42", "02:42:0a:0a:00:0g", "02:42:0a:0a:00:09:00:00"} {
		got, err := ParseMAC(s)
		if err == nil {
			t.Errorf("ParseMAC(%q) = %v, want an error", s, got)
		} else if !strings.Contains(err.Error(), "MAC address") {
			t.Errorf("ParseMAC(%q): %v does not say what is wrong", s, err)
		}
	}
	text, err := m.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	var back MAC
	if err := back.UnmarshalText(text); err != nil || back != m {
		t.Errorf("UnmarshalText(%s) = %v, %v", text, back, err)
	}
	if err := back.UnmarshalText([]byte("x")); err == nil || back != m {
		t.Errorf("a bad text changed the MAC to %v, error %v", back, err)
	}
	if m.IsMulticast() || !BroadcastMAC.IsMulticast() {
		t.Error("IsMulticast")
	}
}

func TestEndpointMAC(t *testing.T) {
	for _, tt := range []struct {
		addr string
		want MAC
	}{
		{"10.10.0.9", MAC{2, 0x42, 10, 10, 0, 9}},
		{"::ffff:10.10.0.9", MAC{2, 0x42, 10, 10, 0, 9}},
		{"255.254.253.252", MAC{2, 0x42, 255, 254, 253, 252}},
	} {
		if got := EndpointMAC(netip.MustParseAddr(tt.addr)); got != tt.want {
			t.Errorf("EndpointMAC(%s) = %v, want %v", tt.addr, got, tt.want)
		}
	}
	seen := map[MAC]bool{}
	a := netip.MustParseAddr("fd00:10::")
	for range 1000 {
		a = a.Next()
		m := EndpointMAC(a)
		if m[0] != 2 || m[1] != 0x42 || seen[m] {
			t.Fatalf("EndpointMAC(%s) = %v", a, m)
		}
		seen[m] = true
	}
}

func TestMulticastMAC(t *testing.T) {
	for addr, want := range map[string]string{
		"224.0.0.251":       "01:00:5e:00:00:fb",
		"239.255.255.250":   "01:00:5e:7f:ff:fa",
		"ff02::1":           "33:33:00:00:00:01",
		"ff02::1:ff00:0009": "33:33:ff:00:00:09",
	} {
		if got := MulticastMAC(netip.MustParseAddr(addr)); got.String() != want || !got.IsMulticast() {
			t.Errorf("MulticastMAC(%s) = %v, want %s", addr, got, want)
		}
	}
}

// unhex reads hexadecimal digits, spaces between them allowed.
func unhex(tb testing.TB, s string) []byte {
	tb.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

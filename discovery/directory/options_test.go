package directory

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/ovnd/ovnd/encap"
)

func TestParseOptions(t *testing.T) {
	mac := encap.MAC{2, 0, 0, 0, 0, 9}
	addr := netip.MustParseAddr
	for _, tc := range []struct {
		name string
		in   map[string]string
		want Options
	}{
		{"none", nil, Options{}},
		{"mtu", map[string]string{OptionMTU: "1400"}, Options{MTU: 1400}},
		{"default mtu", map[string]string{OptionMTU: "0"}, Options{}},
		{"one vni", map[string]string{OptionVNIs: "4097"}, Options{VNIs: []encap.VNI{4097}}},
		{"vnis", map[string]string{OptionVNIs: "1,16777215"}, Options{VNIs: []encap.VNI{1, 1<<24 - 1}}},
		{"drop", map[string]string{OptionReserved: "drop"}, Options{}},
		{"ignore", map[string]string{OptionReserved: "ignore"}, Options{Reserved: encap.ReservedIgnore}},
		{
			"learning vtep",
			map[string]string{"ovnd.vtep.leaf1": "192.0.2.1,learn"},
			Options{StaticVTEPs: []StaticVTEP{{Name: "leaf1", VTEP: addr("192.0.2.1"), Learn: true}}},
		},
		{
			"fixed vteps, sorted, two behind one",
			map[string]string{
				"ovnd.vtep.b": "2001:db8::1,mac=02:00:00:00:00:09,ip=10.10.0.201",
				"ovnd.vtep.a": "2001:db8::1,ip=10.10.0.200,mac=02:00:00:00:00:09",
			},
			Options{StaticVTEPs: []StaticVTEP{
				{Name: "a", VTEP: addr("2001:db8::1"), Addr: addr("10.10.0.200"), MAC: mac},
				{Name: "b", VTEP: addr("2001:db8::1"), Addr: addr("10.10.0.201"), MAC: mac},
			}},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := ParseOptions(tc.in)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, tc.want) {
				t.Errorf("got %+v\nwant %+v", got, tc.want)
			}
		})
	}
}

func TestParseOptionsRefuses(t *testing.T) {
	for _, tc := range []struct {
		key, value string
		says       string // what the error must name, besides the key
	}{
		{"com.docker.network.mtu", "1400", OptionMTU},
		{"", "", OptionMTU},
		{OptionMTU, "67", "68"},
		{OptionMTU, "65486", "65485"},
		{OptionMTU, "-1", "bytes"},
		{OptionMTU, "1e3", "bytes"},
		{OptionVNIs, "", "16777215"},
		{OptionVNIs, "0", "16777215"},
		{OptionVNIs, "16777216", "16777215"},
		{OptionVNIs, "4097,", "16777215"},
		{OptionVNIs, "4097,4097", "twice"},
		{OptionReserved, "yes", "ignore"},
		{OptionEncrypted, "false", "goes without"},
		{OptionEncrypted, "maybe", "chacha20-poly1305"},
		{OptionEncrypted, "TRUE", "aes-256-gcm"},
		{OptionEncrypted, " ", "true"},
		{OptionEncrypted, "auto", "true"},
		{"ovnd.vtep.", "192.0.2.1,learn", "name"},
		{"ovnd.vtep." + strings.Repeat("x", 64), "192.0.2.1,learn", "63"},
		{"ovnd.vtep.a", "192.0.2.1", "ADDR,learn"},
		{"ovnd.vtep.a", "leaf1,learn", "IP address"},
		{"ovnd.vtep.a", "0.0.0.0,learn", "one host"},
		{"ovnd.vtep.a", "239.1.1.1,learn", "one host"},
		{"ovnd.vtep.a", "192.0.2.1,ip=10.10.0.1", "mac="},
		{"ovnd.vtep.a", "192.0.2.1,mac=02:00:00:00:00:09", "ip="},
		{"ovnd.vtep.a", "192.0.2.1,ip=10.10.0.1,mac=01:00:5e:00:00:01", "one interface"},
		{"ovnd.vtep.a", "192.0.2.1,ip=10.10.0.1,mac=00:00:00:00:00:00", "one interface"},
		{"ovnd.vtep.a", "192.0.2.1,ip=10.10.0.1,ip=10.10.0.2,mac=02:00:00:00:00:09", "ADDR,learn"},
		{"ovnd.vtep.a", "192.0.2.1,learn,learn", "ADDR,learn"},
	} {
		_, err := ParseOptions(map[string]string{tc.key: tc.value})
		if err == nil {
			t.Errorf("%s=%q: accepted", tc.key, tc.value)
			continue
		}
		if !strings.Contains(err.Error(), tc.key) || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s=%q: error %q names not both the key and %q", tc.key, tc.value, err, tc.says)
		}
	}
}

func TestParseOptionsEncrypted(t *testing.T) {
	for value, want := range map[string]Cipher{
		"": Auto, "true": Auto, "chacha20-poly1305": ChaCha20Poly1305, "aes-256-gcm": AES256GCM,
	} {
		o, err := ParseOptions(map[string]string{OptionEncrypted: value, OptionMTU: "1400", OptionVNIs: "4097"})
		if err != nil || !o.Encrypted || o.Cipher != want || o.MTU != 1400 {
			t.Errorf("%q: %+v, %v", value, o, err)
		}
		if want != Auto && o.Cipher.String() != value {
			t.Errorf("%q is printed as %q", value, o.Cipher)
		}
		for key, plain := range map[string]string{
			"ovnd.vtep.a":  "192.0.2.1,learn",
			"ovnd.vtep.b":  "192.0.2.1,ip=10.10.0.9,mac=02:00:00:00:00:09",
			OptionReserved: "ignore",
		} {
			_, err := ParseOptions(map[string]string{OptionEncrypted: value, key: plain})
			if err == nil || !strings.Contains(err.Error(), OptionEncrypted) || !strings.Contains(err.Error(), key) {
				t.Errorf("%q with %s: got %v, want an error that names both", value, key, err)
			}
		}
	}
	if Auto.String() != "auto" || Cipher(9).String() != "cipher 9" {
		t.Errorf("%s, %s", Auto, Cipher(9))
	}
	if o, err := ParseOptions(nil); err != nil || o.Encrypted {
		t.Errorf("without the option: %+v, %v", o, err)
	}
}

func TestParseOptionsContradiction(t *testing.T) {
	for _, in := range []map[string]string{
		{"ovnd.vtep.a": "192.0.2.1,learn", "ovnd.vtep.b": "192.0.2.1,learn"},
		{
			"ovnd.vtep.a": "192.0.2.1,ip=10.10.0.9,mac=02:00:00:00:00:01",
			"ovnd.vtep.b": "192.0.2.2,ip=10.10.0.9,mac=02:00:00:00:00:02",
		},
	} {
		_, err := ParseOptions(in)
		if err == nil || !strings.Contains(err.Error(), "ovnd.vtep.a") || !strings.Contains(err.Error(), "ovnd.vtep.b") {
			t.Errorf("%v: got %v, want an error that names both", in, err)
		}
	}
}

func TestCheckSubnets(t *testing.T) {
	subnets := []Subnet{{Prefix: netip.MustParsePrefix("10.10.0.0/16"), Gateway: netip.MustParseAddr("10.10.0.1")}}
	v6 := append(subnets, Subnet{Prefix: netip.MustParsePrefix("fd00::/64")})
	for _, tc := range []struct {
		name    string
		options map[string]string
		subnets []Subnet
		ok      bool
	}{
		{"inside", map[string]string{"ovnd.vtep.a": "192.0.2.1,ip=10.10.0.9,mac=02:00:00:00:00:01"}, subnets, true},
		{"outside", map[string]string{"ovnd.vtep.a": "192.0.2.1,ip=10.11.0.9,mac=02:00:00:00:00:01"}, subnets, false},
		{"gateway", map[string]string{"ovnd.vtep.a": "192.0.2.1,ip=10.10.0.1,mac=02:00:00:00:00:01"}, subnets, false},
		{"learning needs no address", map[string]string{"ovnd.vtep.a": "192.0.2.1,learn"}, subnets, true},
		{"small IPv4 MTU", map[string]string{OptionMTU: "576"}, subnets, true},
		{"IPv6 MTU too small", map[string]string{OptionMTU: "1279"}, v6, false},
		{"IPv6 MTU", map[string]string{OptionMTU: "1280"}, v6, true},
	} {
		o, err := ParseOptions(tc.options)
		if err != nil {
			t.Fatal(err)
		}
		if err := o.CheckSubnets(tc.subnets); (err == nil) != tc.ok {
			t.Errorf("%s: got %v", tc.name, err)
		}
	}
}

// FuzzParseOptions checks that whatever is accepted is usable.
func FuzzParseOptions(f *testing.F) {
	f.Add(OptionMTU, "1450", "ovnd.vtep.a", "192.0.2.1,learn")
	f.Add(OptionVNIs, "4097,4098", "ovnd.vtep.b", "2001:db8::1,ip=fd00::9,mac=02:00:00:00:00:09")
	f.Add(OptionReserved, "ignore", "encrypted", "")
	f.Add("ovnd.vtep.c", "192.0.2.1,learn", "encrypted", "aes-256-gcm")
	f.Fuzz(func(t *testing.T, k1, v1, k2, v2 string) {
		o, err := ParseOptions(map[string]string{k1: v1, k2: v2})
		if err != nil {
			return
		}
		if o.MTU != 0 && (o.MTU < encap.MinMTU4 || o.MTU > encap.MaxMTU) {
			t.Errorf("MTU %d", o.MTU)
		}
		for _, vni := range o.VNIs {
			if !vni.Valid() || vni == 0 {
				t.Errorf("VNI %d", vni)
			}
		}
		if o.Encrypted && (len(o.StaticVTEPs) > 0 || o.Reserved != encap.ReservedDrop) {
			t.Errorf("encrypted with what only clear text has: %+v", o)
		}
		for _, v := range o.StaticVTEPs {
			if !v.VTEP.IsValid() || v.VTEP.IsUnspecified() || v.VTEP.Is4In6() {
				t.Errorf("VTEP %v", v.VTEP)
			}
			if v.Learn == v.Addr.IsValid() || v.Learn == (v.MAC != encap.MAC{}) {
				t.Errorf("%+v is neither learning nor fixed", v)
			}
		}
	})
}

package encap

import (
	"bytes"
	"testing"
)

func TestParseVXLAN(t *testing.T) {
	for _, tt := range []struct {
		name string
		b    []byte
		r    Reserved
		vni  VNI
		err  error
	}{
		{"empty", nil, ReservedDrop, 0, ErrShort},
		{"seven bytes", []byte{8, 0, 0, 0, 0, 0, 1}, ReservedDrop, 0, ErrShort},
		{"no flag", []byte{0, 0, 0, 0, 0, 0x10, 1, 0}, ReservedDrop, 0, ErrNoVNI},
		{"other flags", []byte{0xf7, 0, 0, 0, 0, 0x10, 1, 0}, ReservedIgnore, 0, ErrNoVNI},
		{"VNI 0", []byte{8, 0, 0, 0, 0, 0, 0, 0}, ReservedDrop, 0, nil},
		{"VNI 4097", []byte{8, 0, 0, 0, 0, 0x10, 1, 0}, ReservedDrop, 4097, nil},
		{"greatest VNI", []byte{8, 0, 0, 0, 0xff, 0xff, 0xff, 0}, ReservedDrop, MaxVNI, nil},
		{"all reserved", []byte{0xff, 0xff, 0xff, 0xff, 0, 0x10, 1, 0xff}, ReservedIgnore, 4097, nil},
		{"all reserved", []byte{0xff, 0xff, 0xff, 0xff, 0, 0x10, 1, 0xff}, ReservedDrop, 4097, ErrReserved},
	} {
		vni, inner, err := ParseVXLAN(tt.b, tt.r)
		if vni != tt.vni || err != tt.err {
			t.Errorf("%s: ParseVXLAN = %d, %v; want %d, %v", tt.name, vni, err, tt.vni, tt.err)
		}
		if err == nil && len(inner) != 0 {
			t.Errorf("%s: inner %x, want nothing", tt.name, inner)
		}
	}
}

// TestReservedBits sets each of the 39 reserved bits alone.
func TestReservedBits(t *testing.T) {
	reserved := 0
	for bit := range VXLANHeaderLen * 8 {
		b := make([]byte, VXLANHeaderLen)
		PutVXLAN(b, 0)
		if bit == 4 || bit >= 32 && bit < 56 { // the I flag, and the VNI
			continue
		}
		reserved++
		b[bit/8] |= 0x80 >> (bit % 8)
		if _, _, err := ParseVXLAN(b, ReservedDrop); err != ErrReserved {
			t.Errorf("bit %d: %v, want ErrReserved", bit, err)
		}
		if _, _, err := ParseVXLAN(b, ReservedIgnore); err != nil {
			t.Errorf("bit %d, ignored: %v", bit, err)
		}
	}
	if reserved != 39 {
		t.Errorf("%d reserved bits, want 39", reserved)
	}
}

func TestVNIValid(t *testing.T) {
	for v, want := range map[VNI]bool{0: true, 4096: true, MaxVNI: true, MaxVNI + 1: false, 1 << 31: false} {
		if v.Valid() != want {
			t.Errorf("VNI(%d).Valid() = %t", v, !want)
		}
	}
}

func FuzzVXLAN(f *testing.F) {
	f.Add([]byte{8, 0, 0, 0, 0, 0x10, 1, 0, 1, 2, 3}, false)
	f.Add([]byte{0xff, 1, 2, 3, 4, 5, 6, 7}, true)
	f.Fuzz(func(t *testing.T, b []byte, ignore bool) {
		r := ReservedDrop
		if ignore {
			r = ReservedIgnore
		}
		vni, inner, err := ParseVXLAN(b, r)
		if err != nil {
			return
		}
		if !vni.Valid() {
			t.Fatalf("VNI %d from the wire", vni)
		}
		out := append(make([]byte, VXLANHeaderLen), inner...)
		PutVXLAN(out, vni)
		if !ignore && !bytes.Equal(out, b) {
			t.Fatalf("wrote %x, read %x", out, b)
		}
		vni2, inner2, err := ParseVXLAN(out, ReservedDrop)
		if err != nil || vni2 != vni || !bytes.Equal(inner2, inner) {
			t.Fatalf("read back %d %x %v, want %d %x", vni2, inner2, err, vni, inner)
		}
	})
}

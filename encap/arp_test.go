package encap

import (
	"bytes"
	"net/netip"
	"testing"
)

var (
	testMAC1 = MAC{2, 0x42, 10, 10, 0, 3}
	testMAC2 = MAC{2, 0x42, 10, 10, 0, 9}
)

func TestARP(t *testing.T) {
	b := bytes.Repeat([]byte{0xff}, ARPLen)
	PutARPRequest(b, testMAC1, testSrc4, testDst4)
	if want := unhex(t, "0001 0800 0604 0001 02420a0a0003 0a0a0003 000000000000 0a0a0009"); !bytes.Equal(b, want) {
		t.Errorf("request %x, want %x", b, want)
	}
	request, err := ParseARP(append(b, make([]byte, 18)...)) // padded to 60 bytes of frame
	if err != nil {
		t.Fatal(err)
	}
	if want := (ARP{Op: ARPRequest, SenderMAC: testMAC1, Sender: testSrc4, Target: testDst4}); request != want {
		t.Errorf("request %+v, want %+v", request, want)
	}
	PutARPReply(b, request, testMAC2)
	if want := unhex(t, "0001 0800 0604 0002 02420a0a0009 0a0a0009 02420a0a0003 0a0a0003"); !bytes.Equal(b, want) {
		t.Errorf("reply %x, want %x", b, want)
	}
	reply, err := ParseARP(b)
	if err != nil {
		t.Fatal(err)
	}
	if want := (ARP{ARPReply, testMAC2, testDst4, testMAC1, testSrc4}); reply != want {
		t.Errorf("reply %+v, want %+v", reply, want)
	}
}

// TestARPProbe: the answer to a probe goes to 0.0.0.0 (RFC 5227 §2.1.1).
func TestARPProbe(t *testing.T) {
	b := make([]byte, ARPLen)
	PutARPRequest(b, testMAC1, netip.IPv4Unspecified(), testDst4)
	probe, err := ParseARP(b)
	if err != nil {
		t.Fatal(err)
	}
	PutARPReply(b, probe, testMAC2)
	if reply, err := ParseARP(b); err != nil || reply.Target != netip.IPv4Unspecified() || reply.Sender != testDst4 {
		t.Errorf("reply %+v, %v", reply, err)
	}
}

func TestParseARPErrors(t *testing.T) {
	good := make([]byte, ARPLen)
	PutARPRequest(good, testMAC1, testSrc4, testDst4)
	if _, err := ParseARP(good[:ARPLen-1]); err != ErrShort {
		t.Errorf("27 bytes: %v, want ErrShort", err)
	}
	for at := range 6 { // hardware type, protocol type, both lengths
		b := bytes.Clone(good)
		b[at] ^= 0x10
		if _, err := ParseARP(b); err != ErrARP {
			t.Errorf("byte %d changed: %v, want ErrARP", at, err)
		}
	}
}

func FuzzARP(f *testing.F) {
	f.Add(unhex(f, "0001 0800 0604 0001 02420a0a0003 0a0a0003 000000000000 0a0a0009"))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := ParseARP(b)
		if err != nil {
			return
		}
		out := make([]byte, ARPLen)
		putARP(out, a)
		if !bytes.Equal(out, b[:ARPLen]) {
			t.Fatalf("wrote %x, read %x", out, b)
		}
		PutARPReply(out, a, testMAC2)
		reply, err := ParseARP(out)
		if want := (ARP{ARPReply, testMAC2, a.Target, a.SenderMAC, a.Sender}); err != nil || reply != want {
			t.Fatalf("reply %+v, %v; want %+v", reply, err, want)
		}
	})
}

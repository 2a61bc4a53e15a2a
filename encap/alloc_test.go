package encap

import (
	"net/netip"
	"testing"
)

// TestNoAllocation holds what the package comment promises, for each function
// that a packet can meet.
func TestNoAllocation(t *testing.T) {
	frame := make([]byte, 2000)
	PutVXLAN(frame, 4097)
	super := pattern(60000)
	for _, v6 := range []bool{false, true} {
		syn := tcpPacket(t, v6, TCPFlagSYN, unhex(t, "020405b4"), nil)
		data := tcpPacket(t, v6, TCPFlagACK, nil, super)
		datagram := udpPacket(t, v6, pattern(64))
		for name, f := range map[string]func(){
			"ParseIP":             func() { sink(ParseIP(data.Packet)) },
			"ParseTCP":            func() { sink(ParseTCP(data.Payload())) },
			"ParseUDP":            func() { sink(ParseUDP(datagram.Payload())) },
			"addresses":           func() { sink(data.Src(), data.Dst()) },
			"SetECN":              func() { data.SetECN(data.ECN()) },
			"TransportChecksumOK": func() { sink(data.TransportChecksumOK(), true) },
			"CompleteChecksum":    func() { sink(0, CompleteChecksum(data.Packet, data.Transport, TCPChecksumOffset)) },
			"FlowHash":            func() { sink(data.FlowHash(), 0) },
			"ClampMSS":            func() { sink(ClampMSS(syn, 1410), 0) },
			"too big":             func() { sink(putTooBig(frame, datagram, 1400), 0) },
		} {
			noAllocation(t, name, f)
		}
	}
	request, ns := make([]byte, ARPLen), make([]byte, NDLen)
	PutARPRequest(request, testMAC1, testSrc4, testDst4)
	PutNS(ns, testMAC1, testSrc6, testDst6)
	na := make([]byte, NDLen)
	PutNA(na, NS{Src: testSrc6, Target: testDst6}, testMAC2)
	for name, f := range map[string]func(){
		"VXLAN": func() {
			PutVXLAN(frame, 4097)
			_, inner, err := ParseVXLAN(frame, ReservedDrop)
			sink(inner, err)
		},
		"Ethernet": func() {
			PutEthernet(frame, testMAC1, testMAC2, EtherTypeIPv4)
			_, _, _, payload, err := ParseEthernet(frame)
			sink(payload, err)
		},
		"ARP": func() {
			a, err := ParseARP(request)
			PutARPReply(frame, a, testMAC2)
			sink(a, err)
		},
		"NS": func() {
			m, err := ParseNS(mustParseIP(t, ns))
			PutNA(frame, m, testMAC2)
			sink(m, err)
		},
		"NA":           func() { sink(ParseNA(mustParseIP(t, na))) },
		"PutNS":        func() { PutNS(frame, testMAC1, testSrc6, testDst6) },
		"PutIPv4":      func() { PutIPv4(frame, testSrc4, testDst4, ProtocolUDP, 64) },
		"PutIPv6":      func() { PutIPv6(frame, testSrc6, testDst6, ProtocolUDP, 64, 64) },
		"SumBytes":     func() { sink(SumBytes(super), 0) },
		"EndpointMAC":  func() { sink(EndpointMAC(testSrc4), EndpointMAC(testSrc6)) },
		"MulticastMAC": func() { sink(MulticastMAC(SolicitedNode(testDst6)), netip.Addr{}) },
	} {
		noAllocation(t, name, f)
	}
}

func noAllocation(t *testing.T, name string, f func()) {
	t.Helper()
	if n := testing.AllocsPerRun(100, f); n != 0 {
		t.Errorf("%s allocates %v times", name, n)
	}
}

// sink keeps the compiler from dropping a call whose results nobody wants.
//
//go:noinline
func sink[A, B any](A, B) {}

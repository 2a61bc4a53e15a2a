package encap

import (
	"encoding/binary"
	"fmt"
	"testing"
)

func TestFlowHash(t *testing.T) {
	families(t, func(t *testing.T, v6 bool) {
		base := tcpPacket(t, v6, TCPFlagACK, nil, pattern(9)).FlowHash()
		if again := tcpPacket(t, v6, TCPFlagPSH, nil, pattern(100)).FlowHash(); again != base {
			t.Error("two packets of a flow differ")
		}
		lastBytes := map[string]int{"source address": 15, "destination address": 19, "source port": 21, "destination port": 23}
		if v6 {
			lastBytes = map[string]int{"source address": 23, "destination address": 39, "source port": 41, "destination port": 43}
		}
		for name, at := range lastBytes {
			p := tcpPacket(t, v6, TCPFlagACK, nil, pattern(9))
			p.Packet[at]++
			if p.FlowHash() == base {
				t.Errorf("another %s, the same hash", name)
			}
		}
		udp := ipPacket(t, v6, ProtocolUDP, tcpPacket(t, v6, TCPFlagACK, nil, pattern(9)).Payload(), -1)
		if udp.FlowHash() == base {
			t.Error("another protocol, the same hash")
		}
	})
}

// TestFlowHashFragments: all fragments of a datagram go one way, whatever bytes
// stand where the first one has ports.
func TestFlowHashFragments(t *testing.T) {
	fragments4 := func(word uint16, data []byte) IP {
		p := ipPacket(t, false, ProtocolUDP, data, -1)
		binary.BigEndian.PutUint16(p.Packet[6:], word)
		return mustParseIP(t, p.Packet)
	}
	fragments6 := func(word uint16, data []byte) IP {
		header := binary.BigEndian.AppendUint16([]byte{ProtocolUDP, 0}, word)
		return ipPacket(t, true, ipv6Fragment, append(append(header, 1, 2, 3, 4), data...), -1)
	}
	for name, fragments := range map[string][]IP{
		"IPv4": {fragments4(0x2000, pattern(16)), fragments4(0x2002, make([]byte, 16)), fragments4(0x0004, nil)},
		"IPv6": {fragments6(0x0001, pattern(16)), fragments6(0x0011, make([]byte, 16)), fragments6(0x0020, nil)},
	} {
		for i, p := range fragments {
			if !p.IsFragment() {
				t.Fatalf("%s: %+v is no fragment", name, p)
			}
			if got, want := p.FlowHash(), fragments[0].FlowHash(); got != want {
				t.Errorf("%s: fragment %d has hash %#x, the first %#x", name, i, got, want)
			}
		}
	}
}

// TestFlowHashSpread: connections that differ in the source port
// alone use 16 sockets about evenly, whichever bits of the hash choose.
func TestFlowHashSpread(t *testing.T) {
	const flows, sockets = 16000, 16
	families(t, func(t *testing.T, v6 bool) {
		p := tcpPacket(t, v6, TCPFlagACK, nil, nil)
		for _, shift := range []int{0, 8, 16, 28} {
			var count [sockets]int
			for port := range flows {
				binary.BigEndian.PutUint16(p.Payload(), uint16(32768+port))
				count[p.FlowHash()>>shift%sockets]++
			}
			for socket, n := range count {
				if n < flows/sockets*8/10 || n > flows/sockets*12/10 {
					t.Errorf("bits from %d: socket %d has %d of %d flows", shift, socket, n, flows)
				}
			}
		}
	})
}

func BenchmarkFlowHash(b *testing.B) {
	for _, v6 := range []bool{false, true} {
		p := tcpPacket(b, v6, TCPFlagACK, nil, pattern(1300))
		b.Run(fmt.Sprintf("v6=%t", v6), func(b *testing.B) {
			b.SetBytes(int64(len(p.Packet)))
			for b.Loop() {
				p.FlowHash()
			}
		})
	}
}

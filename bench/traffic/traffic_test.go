package traffic_test

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/ovnd/ovnd/bench/lab"
	"github.com/ovnd/ovnd/bench/traffic"
)

func TestMain(m *testing.M) { lab.Main(m) }

// exchange runs a source against a sink on one host's loopback for a while and
// returns what both counted in the end.
func exchange(t *testing.T, addr string, spec traffic.Spec) (sent, received traffic.Counters) {
	t.Helper()
	h := lab.New(t).Host("h")
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	spec.To = netip.MustParseAddrPort(addr)
	var sink *traffic.Sink
	err := h.Do(func() (err error) { sink, err = traffic.NewSink(spec.To); return err })
	if err != nil {
		t.Fatal(err)
	}
	listening, stop := context.WithCancel(t.Context())
	defer stop()
	sinkErr := make(chan error, 1)
	go func() { sinkErr <- sink.Run(listening) }()

	source := traffic.NewSource(spec)
	sending, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := h.Do(func() error { return source.Run(sending) }); err != nil {
		t.Fatal(err)
	}
	// What was sent is still being read.
	for last := sink.Counters(); ; {
		time.Sleep(50 * time.Millisecond)
		now := sink.Counters()
		if now.Bytes == last.Bytes {
			break
		}
		last = now
	}
	stop()
	if err := <-sinkErr; err != nil {
		t.Error(err)
	}
	return source.Counters(), sink.Counters()
}

func TestTCP(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:5201", "[::1]:5201"} {
		sent, received := exchange(t, addr, traffic.Spec{TCPFlows: 3, Congestion: "cubic"})
		if received.Bytes == 0 || received.Bytes > sent.Bytes {
			t.Errorf("%s: %d bytes received of %d sent", addr, received.Bytes, sent.Bytes)
		}
	}
}

func TestUDP(t *testing.T) {
	const size, rate = 100, 10_000
	for _, addr := range []string{"127.0.0.1:5201", "[::1]:5201"} {
		sent, received := exchange(t, addr, traffic.Spec{UDPRate: rate, UDPSize: size})
		if sent.Packets < rate/20 || sent.Packets > rate/2 {
			t.Errorf("%s: %d datagrams sent in 0.3 s at %d a second", addr, sent.Packets, rate)
		}
		if received.Packets != sent.Packets || received.Bytes != sent.Packets*size {
			t.Errorf("%s: %d datagrams, %d bytes received of %d datagrams sent", addr, received.Packets, received.Bytes, sent.Packets)
		}
	}
}

func TestEcho(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:5201", "[::1]:5201"} {
		sent, _ := exchange(t, addr, traffic.Spec{EchoInterval: 10 * time.Millisecond})
		if sent.Packets < 5 || len(sent.RTTs) != int(sent.Packets) {
			t.Errorf("%s: %d of %d echo requests answered", addr, len(sent.RTTs), sent.Packets)
		}
		for _, rtt := range sent.RTTs {
			if rtt <= 0 || rtt > time.Second {
				t.Errorf("%s: round trip of %v", addr, rtt)
			}
		}
	}
}

func TestUnknownCongestionControl(t *testing.T) {
	h := lab.New(t).Host("h")
	source := traffic.NewSource(traffic.Spec{
		To: netip.MustParseAddrPort("127.0.0.1:5201"), TCPFlows: 1, Congestion: "nonesuch",
	})
	if err := h.Do(func() error { return source.Run(t.Context()) }); err == nil {
		t.Error("no error")
	}
}

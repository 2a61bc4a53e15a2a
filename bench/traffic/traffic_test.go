package traffic_test

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
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
	err := h.Do(func() (err error) {
		sink, err = traffic.NewSink(traffic.SinkSpec{Listen: spec.To, Verify: spec.Verify})
		return err
	})
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
	// What was sent is still being read; what is lost never comes.
	want := source.Counters()
	for end := time.Now().Add(2 * time.Second); sink.Counters().Bytes < want.Bytes && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	stop()
	if err := <-sinkErr; err != nil {
		t.Error(err)
	}
	return source.Counters(), sink.Counters()
}

func TestTCP(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:5201", "[::1]:5201"} {
		for _, verify := range []bool{false, true} {
			sent, received := exchange(t, addr, traffic.Spec{TCPFlows: 3, Congestion: "cubic", Verify: verify})
			if received.Bytes == 0 || received.Bytes != sent.Bytes {
				t.Errorf("%s: %d bytes received of %d sent", addr, received.Bytes, sent.Bytes)
			}
			if received.Corrupt != 0 {
				t.Errorf("%s: %d bytes are wrong", addr, received.Corrupt)
			}
		}
	}
}

// A flow with a rate keeps to it.
func TestTCPRate(t *testing.T) {
	const rate = 200e6
	sent, _ := exchange(t, "127.0.0.1:5201", traffic.Spec{TCPFlows: 2, TCPRate: rate})
	if want := rate / 8 * 0.3; float64(sent.Bytes) > 1.2*want || float64(sent.Bytes) < want/4 {
		t.Errorf("%d bytes in 0.3 s at %g bit/s", sent.Bytes, rate)
	}
}

func TestUDP(t *testing.T) {
	const size, rate = 100, 10_000
	for _, spec := range []traffic.Spec{{}, {UDPFlows: 3}, {Verify: true}} {
		spec.UDPRate, spec.UDPSize = rate, size
		for _, addr := range []string{"127.0.0.1:5201", "[::1]:5201"} {
			sent, received := exchange(t, addr, spec)
			if sent.Packets < rate/20 || sent.Packets > rate/2 {
				t.Errorf("%s: %d datagrams sent in 0.3 s at %d a second", addr, sent.Packets, rate)
			}
			if received.Packets != sent.Packets || received.Bytes != sent.Packets*size {
				t.Errorf("%s: %d datagrams, %d bytes received of %d datagrams sent", addr, received.Packets, received.Bytes, sent.Packets)
			}
			if received.Disordered != 0 || received.Corrupt != 0 {
				t.Errorf("%s: %d disordered, %d bytes wrong", addr, received.Disordered, received.Corrupt)
			}
		}
	}
}

func TestEcho(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:5201", "[::1]:5201"} {
		for _, udp := range []bool{false, true} {
			sent, _ := exchange(t, addr, traffic.Spec{EchoInterval: 10 * time.Millisecond, EchoUDP: udp})
			if sent.Packets < 5 || sent.Answered != sent.Packets {
				t.Errorf("%s: %d of %d echo requests answered", addr, sent.Answered, sent.Packets)
			}
			rtts, err := hdrhistogram.Decode([]byte(sent.RTT))
			if err != nil {
				t.Fatal(err)
			}
			if rtts.TotalCount() != int64(sent.Answered) || rtts.Min() <= 0 || rtts.Max() > time.Second.Nanoseconds() {
				t.Errorf("%s: round trips of %d to %d ns", addr, rtts.Min(), rtts.Max())
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

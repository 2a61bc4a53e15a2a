package udp

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ovnd/ovnd/bench/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

// pair opens two underlays that are joined by a veth of this MTU.
func pair(t *testing.T, mtu int, v6 bool) (a, b *Underlay) {
	t.Helper()
	l := lab.New(t)
	ha, hb := l.Host("a"), l.Host("b")
	l.Veth(mtu,
		lab.End{Host: ha, Name: "eth0", Addrs: []string{"192.0.2.1/24", "2001:db8::1/64"}},
		lab.End{Host: hb, Name: "eth0", Addrs: []string{"192.0.2.2/24", "2001:db8::2/64"}})
	addrs := [2]string{"192.0.2.1:4789", "192.0.2.2:4789"}
	if v6 {
		addrs = [2]string{"[2001:db8::1]:4789", "[2001:db8::2]:4789"}
	}
	return open(t, ha, addrs[0]), open(t, hb, addrs[1])
}

func open(t *testing.T, h *lab.Host, addr string) *Underlay {
	t.Helper()
	var u *Underlay
	if err := h.Do(func() (err error) {
		u, err = Listen(Config{Local: netip.MustParseAddrPort(addr), Receivers: 2, SourcePorts: 3, RecvBuffer: 1 << 20, SendBuffer: 1 << 20})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(u.Close)
	return u
}

// receive waits for messages.
func receive(r *Receiver) (int, error) {
	for {
		n, err := r.Receive()
		if !errors.Is(err, unix.EAGAIN) {
			return n, err
		}
		fds := []unix.PollFd{{Fd: int32(r.FD()), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return 0, err
		}
	}
}

// datagrams returns n of size bytes, the last of rest, one after the other.
func datagrams(n, size, rest int) []byte {
	b := make([]byte, (n-1)*size+rest)
	for i := range b {
		b[i] = byte(i/size + i)
	}
	return b
}

// collect receives with both receivers until it has n bytes in datagrams.
func collect(t *testing.T, u *Underlay, n int) (all []byte, segments int, ecn uint8, from netip.Addr) {
	t.Helper()
	timeout := time.AfterFunc(5*time.Second, u.Shutdown)
	defer timeout.Stop()
	type result struct {
		data     []byte
		segments int
		m        Message
	}
	got := make(chan result)
	stop := make(chan struct{})
	defer close(stop)
	for _, r := range u.Receivers() {
		go func() {
			for {
				k, err := receive(r)
				if err != nil {
					return
				}
				for i := range k {
					m := r.Message(i)
					res := result{data: bytes.Clone(m.Data), segments: (len(m.Data) + m.SegSize - 1) / m.SegSize, m: m}
					select {
					case got <- res:
					case <-stop:
						return
					}
				}
			}
		}()
	}
	for len(all) < n {
		select {
		case r := <-got:
			all = append(all, r.data...)
			segments += r.segments
			ecn, from = r.m.ECN, r.m.From
		case <-time.After(5 * time.Second):
			t.Fatalf("%d bytes of %d arrived", len(all), n)
		}
	}
	return all, segments, ecn, from
}

// TestSendReceive sends runs with and without UDP_SEGMENT: the same datagrams
// arrive, with the ECN field and the source address.
func TestSendReceive(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		for _, noGSO := range []bool{false, true} {
			a, b := pair(t, 1500, v6)
			to := NewAddr(b.Local())
			if noGSO {
				to.noGSO.Store(gsoRetry)
			}
			s := a.NewSender()
			want := datagrams(40, 1400, 77)
			sent, err := s.Send(to, 2, want, 1400, 2)
			if err != nil || sent != 40 {
				t.Fatalf("v6=%t, noGSO=%t: sent %d, %v", v6, noGSO, sent, err)
			}
			got, segments, ecn, from := collect(t, b, len(want))
			if !bytes.Equal(got, want) || segments != 40 || ecn != 2 || from != a.Local().Addr() {
				t.Errorf("v6=%t, noGSO=%t: %d bytes in %d datagrams from %s with ECN %d", v6, noGSO, len(got), segments, from, ecn)
			}
		}
	}
}

// TestNoGSO: where the kernel refuses UDP_SEGMENT, datagrams leave one by one,
// and it is not asked again.
func TestNoGSO(t *testing.T) {
	a, b := pair(t, 1500, false)
	s := a.NewSender()
	// SO_NO_CHECK makes it refuse: EINVAL or EIO.
	for _, fd := range a.ports {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_NO_CHECK, 1); err != nil {
			t.Fatal(err)
		}
	}
	to := NewAddr(b.Local())
	want := datagrams(5, 1000, 1000)
	if sent, err := s.Send(to, 0, want, 1000, 0); err != nil || sent != 5 {
		t.Fatalf("sent %d, %v", sent, err)
	}
	if to.noGSO.Load() != gsoRetry {
		t.Error("the refusal was not noted")
	}
	if got, segments, _, _ := collect(t, b, len(want)); !bytes.Equal(got, want) || segments != 5 {
		t.Errorf("%d bytes in %d datagrams", len(got), segments)
	}
}

// TestTooBig: what the link does not carry is EMSGSIZE, with and without
// UDP_SEGMENT, and MTU says what it carries.
func TestTooBig(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		a, b := pair(t, 1400, v6)
		s, to := a.NewSender(), NewAddr(b.Local())
		fits := 1400 - 28
		if v6 {
			fits = 1400 - 48
		}
		for _, n := range []int{1, 3} {
			if sent, err := s.Send(to, 0, datagrams(n, fits, fits), fits, 0); err != nil || sent != n {
				t.Errorf("v6=%t: %d of %d bytes: sent %d, %v", v6, n, fits, sent, err)
			}
			if sent, err := s.Send(to, 0, datagrams(n, fits+1, fits+1), fits+1, 0); !errors.Is(err, unix.EMSGSIZE) || sent != 0 {
				t.Errorf("v6=%t: %d of %d bytes: sent %d, %v, want EMSGSIZE", v6, n, fits+1, sent, err)
			}
		}
		if to.noGSO.Load() > 0 {
			t.Error("a datagram that does not fit was taken for a lack of UDP_SEGMENT")
		}
		if mtu, err := a.MTU(to); err != nil || mtu != 1400 {
			t.Errorf("v6=%t: MTU %d, %v, want 1400", v6, mtu, err)
		}
	}
}

// TestOverflow: what did not fit the receive buffer is counted.
func TestOverflow(t *testing.T) {
	a, b := pair(t, 1500, false)
	s, to, run := a.NewSender(), NewAddr(b.Local()), datagrams(40, 1400, 1400)
	send := func() {
		if _, err := s.Send(to, 0, run, 1400, 0); err != nil {
			t.Fatal(err)
		}
	}
	send() // resolves the neighbour
	collect(t, b, len(run))
	const runs = 200
	for range runs {
		send()
	}
	deadline := time.Now().Add(5 * time.Second)
	for b.Dropped() == 0 && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	dropped := int(b.Dropped())
	if dropped == 0 || dropped >= runs {
		t.Fatalf("%d of %d runs counted as dropped", dropped, runs)
	}
}

// TestShutdown wakes who waits for messages, and later receives say so too.
func TestShutdown(t *testing.T) {
	a, _ := pair(t, 1500, false)
	done := make(chan error)
	go func() {
		_, err := receive(a.Receivers()[0])
		done <- err
		_, err = receive(a.Receivers()[0])
		done <- err
	}()
	time.Sleep(20 * time.Millisecond)
	a.Shutdown()
	for range 2 {
		select {
		case err := <-done:
			if !errors.Is(err, ErrClosed) {
				t.Errorf("Receive: %v, want ErrClosed", err)
			}
		case <-time.After(5 * time.Second):
			t.Fatal("Receive was not woken")
		}
	}
}

// TestListenErrors: each says what is wrong and what to do.
func TestListenErrors(t *testing.T) {
	h := lab.New(t).Host("a")
	h.Addr("lo", "192.0.2.1/32")
	open(t, h, "192.0.2.1:4789")
	for addr, want := range map[string]string{
		"192.0.2.1:4789": "UDP port 4789 at 192.0.2.1 is taken",
		"192.0.2.9:4789": "192.0.2.9 is not an address of this machine",
	} {
		err := h.Do(func() error {
			_, err := Listen(Config{Local: netip.MustParseAddrPort(addr), Receivers: 2})
			return err
		})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", addr, err, want)
		}
	}
}

// TestHidden: the sockets to send from are not among those that listen, so that
// `ss -lu` shows the VXLAN port alone.
func TestHidden(t *testing.T) {
	a, _ := pair(t, 1500, false)
	for _, fd := range append(a.ports, a.probe) {
		if _, err := unix.Getpeername(fd); err != nil {
			t.Errorf("a socket to send from is not connected: %v", err)
		}
	}
	for _, r := range a.Receivers() {
		if n, err := unix.GetsockoptInt(r.fd, unix.SOL_SOCKET, unix.SO_REUSEPORT); err != nil || n != 0 {
			t.Errorf("others may join the VXLAN port: SO_REUSEPORT %d, %v", n, err)
		}
	}
}

func TestAllocations(t *testing.T) {
	a, b := pair(t, 1500, false)
	s, to, p := a.NewSender(), NewAddr(b.Local()), datagrams(40, 1400, 1400)
	got := make(chan int, 64)
	go func() {
		for {
			for _, r := range b.Receivers()[:1] {
				n, err := receive(r)
				if err != nil {
					return
				}
				for i := range n {
					got <- len(r.Message(i).Data)
				}
			}
		}
	}()
	defer b.Shutdown()
	// The kernel picks the receiver by ports: find one that picks the first.
	port := 0
	for ; port < s.Ports(); port++ {
		_, _ = s.Send(to, port, p, 1400, 1)
		select {
		case <-got:
		case <-time.After(200 * time.Millisecond):
			continue
		}
		break
	}
	if port == s.Ports() {
		t.Skip("all three source ports hash to the second receiver")
	}
	n := testing.AllocsPerRun(50, func() {
		_, _ = s.Send(to, port, p, 1400, 1)
		<-got
	})
	if n != 0 {
		t.Errorf("%v allocations a send and receive, want none", n)
	}
}

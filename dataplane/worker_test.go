package dataplane

import (
	"context"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ovnd/ovnd/bench/lab"
	"github.com/ovnd/ovnd/dataplane/tun"
	"github.com/ovnd/ovnd/discovery/directory"
)

// rounds returns how often the node's workers have woken.
func (n *node) rounds() (sum uint64) {
	for i := range n.sw.workers {
		sum += n.sw.sections[i].seq.Load() / 2
	}
	return sum
}

// TestWakeUps counts how often a worker wakes: not at all while others talk, and
// for a request and its answer twice at most, as both are its own.
func TestWakeUps(t *testing.T) {
	w := twoNodes(t, 1500, false)
	w.network("net", 4097, 1450, "10.10.0.0/16")
	na, nb := w.nodes[0], w.nodes[1]
	a, b := na.sandbox("sa", "net", "10.10.0.3/16"), nb.sandbox("sb", "net", "10.10.0.4/16")
	local := na.sandbox("sl", "net", "10.10.0.5/16")
	a.ping(b, lab.Ping{})
	a.ping(local, lab.Ping{})
	w.closed()

	const pings, spare = 50, 20 // spare: what devices say of themselves, MLD say
	before := nb.rounds()
	for range pings {
		a.ping(local, lab.Ping{})
	}
	if n := nb.rounds() - before; n > spare {
		t.Errorf("a worker woke %d times though nothing came", n)
	}
	before = nb.rounds()
	for range pings {
		a.ping(b, lab.Ping{})
	}
	if n := nb.rounds() - before; n < pings || n > 2*pings+spare {
		t.Errorf("a worker woke %d times for %d requests and answers", n, pings)
	}
}

// TestSocketHasItsTurn: queues that give without end do not keep a worker from the
// socket.
func TestSocketHasItsTurn(t *testing.T) {
	l := lab.New(t)
	host, other := l.Host("a"), l.Host("b")
	l.Veth(1500,
		lab.End{Host: host, Name: "eth0", Addrs: []string{"192.0.2.1/24"}},
		lab.End{Host: other, Name: "eth0", Addrs: []string{"192.0.2.2/24"}})
	w := &world{t: t, Lab: l, snaps: make(map[string]*directory.Snapshot)}
	under := netip.MustParseAddrPort("192.0.2.1:4789")
	n := &node{w: w, host: host, addr: under.Addr()}
	var err error
	if doErr := host.Do(func() error { n.sw, err = New(Config{Underlay: under, Workers: 1}); return err }); doErr != nil {
		t.Fatal(doErr)
	}
	defer n.sw.Close() // it never runs
	w.nodes = []*node{n}
	w.network("net", 4097, 1450, "10.10.0.0/16")
	sb := n.sandbox("s", "net", "10.10.0.3/16")

	const size = 1400
	fill(t, sb.host, "10.10.0.9:9", size, 2*turnBytes/size) // nobody has the address
	fill(t, other, under.String(), size, 1)
	worker := n.sw.workers[0]
	arrived := []unix.PollFd{{Fd: int32(worker.in.recv.FD()), Events: unix.POLLIN}}
	if n, err := unix.Poll(arrived, 5000); n != 1 {
		t.Fatalf("nothing arrives: %v", err)
	}
	worker.section.enter()
	defer worker.section.leave()
	if !worker.handle([]unix.EpollEvent{{Fd: int32(sb.port.slot)}}) {
		t.Fatal("the worker stops")
	}
	st := n.sw.Stats().Total
	if st.PortIn.Bytes < turnBytes || st.PortIn.Bytes > turnBytes+2*size {
		t.Errorf("the queue gave %d bytes, want a turn of %d", st.PortIn.Bytes, turnBytes)
	}
	if st.WireIn.Packets != 1 {
		t.Error("the socket had no turn")
	}
}

// fill sends datagrams from a host, which wait wherever they are read.
func fill(t *testing.T, h *lab.Host, to string, size, count int) {
	t.Helper()
	var conn net.Conn
	if err := h.Do(func() (err error) {
		conn, err = (&net.Dialer{}).DialContext(context.Background(), "udp", to)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for range count {
		if _, err := conn.Write(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
	}
}

// TestQueueOfWorker: a worker writes to the queue that it reads, where a port has
// one for each.
func TestQueueOfWorker(t *testing.T) {
	for workers := 1; workers <= 4; workers++ {
		s := &Switch{sections: make([]section, workers+3)}
		for range workers {
			s.workers = append(s.workers, &worker{})
		}
		for slot := range 9 {
			for queues := 1; queues <= 5; queues++ {
				p := &Port{slot: slot, queues: make([]*tun.Queue, queues)}
				for i := range s.sections {
					q := s.queueOf(p, i)
					if q < 0 || q >= queues {
						t.Fatalf("worker %d writes to queue %d of %d", i, q, queues)
					}
					if i < workers && queues >= workers && s.reader(p, q) != s.workers[i] {
						t.Errorf("%d workers, port %d: worker %d writes to queue %d, which another one reads", workers, slot, i, q)
					}
				}
			}
		}
	}
}

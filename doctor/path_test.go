package doctor

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ovnd/ovnd/bench/lab"
)

// measureFrom measures in a host, which has no echo sockets until allowPing.
func measureFrom(t *testing.T, h *lab.Host, to string, link int) pathMTU {
	t.Helper()
	var m pathMTU
	err := h.Do(func() (err error) {
		m, err = measurePath(t.Context(), netip.MustParseAddr(to), link)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func allowPing(h *lab.Host) { h.Sysctl("net.ipv4.ping_group_range", "0 0") }

// A router's narrower link is found exactly by echo, over both families, and
// between two usual sizes without.
func TestPathByRouter(t *testing.T) {
	l := lab.New(t)
	a, r, b := l.Host("a"), l.Host("r"), l.Host("b")
	l.Veth(9000,
		lab.End{Host: a, Name: "eth0", Addrs: []string{"192.0.2.1/24", "2001:db8:1::1/64"}},
		lab.End{Host: r, Name: "eth0", Addrs: []string{"192.0.2.254/24", "2001:db8:1::fe/64"}})
	l.Veth(1437,
		lab.End{Host: b, Name: "eth0", Addrs: []string{"198.51.100.1/24", "2001:db8:2::1/64"}},
		lab.End{Host: r, Name: "eth1", Addrs: []string{"198.51.100.254/24", "2001:db8:2::fe/64"}})
	r.Sysctl("net.ipv4.ip_forward", "1")
	r.Sysctl("net.ipv6.conf.all.forwarding", "1")
	r.Sysctl("net.ipv4.icmp_ratelimit", "0")
	r.Sysctl("net.ipv6.icmp.ratelimit", "0")
	for _, dst := range []string{"198.51.100.0/24", "2001:db8:2::/64"} {
		via := "192.0.2.254"
		if strings.Contains(dst, ":") {
			via = "2001:db8:1::fe"
		}
		a.Route(dst, "eth0", netip.MustParseAddr(via))
	}
	b.Route("192.0.2.0/24", "eth0", netip.MustParseAddr("198.51.100.254"))
	b.Route("2001:db8:1::/64", "eth0", netip.MustParseAddr("2001:db8:2::fe"))
	reachable(t, a, "198.51.100.1", "2001:db8:2::1")
	for _, to := range []string{"198.51.100.1", "2001:db8:2::1"} {
		m := measureFrom(t, a, to, 9000)
		if m.least > 1437 || m.most < 1437 || m.least < 1420 || m.most > 1459 || !strings.Contains(m.by, "UDP") {
			t.Errorf("%s: %+v", to, m)
		}
	}
	allowPing(a)
	for _, to := range []string{"198.51.100.1", "2001:db8:2::1"} {
		if m := measureFrom(t, a, to, 9000); m != (pathMTU{least: 1437, most: 1437, by: "echo"}) {
			t.Errorf("%s: %+v", to, m)
		}
	}
}

// A black hole, where no router says anything, is found as well.
func TestPathBlackHole(t *testing.T) {
	l := lab.New(t)
	a, b := l.Host("a"), l.Host("b")
	l.Veth(9000,
		lab.End{Host: a, Name: "eth0", Addrs: []string{"192.0.2.1/24"}},
		lab.End{Host: b, Name: "eth0", Addrs: []string{"192.0.2.2/24"}})
	link, err := b.Netlink().LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Netlink().LinkSetMTU(link, 1400); err != nil {
		t.Fatal(err)
	}
	reachable(t, a, "192.0.2.2")
	allowPing(a)
	const vlan = 4 // what a device takes beyond its MTU
	if m := measureFrom(t, a, "192.0.2.2", 9000); m.least != 1400+vlan || m.most != m.least {
		t.Errorf("%+v", m)
	}
}

func TestPathOfLoopback(t *testing.T) {
	h := lab.New(t).Host("h")
	for _, by := range []string{"UDP", "echo"} {
		for _, to := range []string{"127.0.0.1", "::1"} {
			if m := measureFrom(t, h, to, largestProbe); m.least != largestProbe || !m.open || !strings.HasPrefix(m.by, by) {
				t.Errorf("%s: %+v", to, m)
			}
		}
		allowPing(h)
	}
}

// A fakePath answers what fits, but for some.
type fakePath struct {
	echo
	mtu     int
	lose    func() bool
	batched int
	pending []int
	wake    [2]int
	sent    int
}

func newFakePath(t *testing.T, mtu, batch int, lose func() bool) *fakePath {
	t.Helper()
	p := &fakePath{mtu: mtu, batched: batch, lose: lose}
	if err := unix.Pipe2(p.wake[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = unix.Close(p.wake[0]), unix.Close(p.wake[1]) })
	return p
}

func (p *fakePath) send(n, size int) error {
	p.sent++
	if size <= p.mtu && !p.lose() {
		p.pending = append(p.pending, n)
	}
	return nil
}

func (p *fakePath) receive() (int, error) {
	if len(p.pending) == 0 {
		return -1, unix.EAGAIN
	}
	n := p.pending[0]
	p.pending = p.pending[1:]
	return n, nil
}

func (p *fakePath) fd() int    { return p.wake[0] }
func (p *fakePath) batch() int { return p.batched }

func never() bool { return false }

// Whatever the path's MTU, the search ends at it.
func TestSearch(t *testing.T) {
	for range 10 {
		link := 1280 + rand.IntN(largestProbe-1280)
		mtu := 576 + rand.IntN(link-576+1)
		p := newFakePath(t, mtu, maxBatch, never)
		m, err := search(t.Context(), p, 576, link)
		if err != nil || m.least != mtu || m.most != mtu {
			t.Errorf("MTU %d behind a link of %d: %+v, %v", mtu, link, m, err)
		}
		if p.sent > 5*2*maxBatch {
			t.Errorf("%d probes", p.sent)
		}
	}
}

// One of three packets lost makes the answer smaller at worst, never larger.
func TestSearchWithLoss(t *testing.T) {
	n := 0
	p := newFakePath(t, 1437, maxBatch, func() bool { n++; return n%3 == 0 })
	m, err := search(t.Context(), p, 576, 1500)
	if err != nil || m.least > 1437 || m.least < 1280 {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestSearchEnds(t *testing.T) {
	if m, err := search(t.Context(), newFakePath(t, 0, maxBatch, never), 576, 1500); !errors.Is(err, errNoAnswer) {
		t.Errorf("%+v, %v", m, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if m, err := search(ctx, newFakePath(t, 1000, maxBatch, never), 576, 1500); !errors.Is(err, context.Canceled) {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestJudgePath(t *testing.T) {
	for _, tc := range []struct {
		m      pathMTU
		v6     bool
		level  Level
		found  string
		remedy string
	}{
		{pathMTU{least: 1500, most: 1500, by: "echo"}, false, OK, "MTU 1500 (by echo)", ""},
		{pathMTU{least: largestProbe, most: largestProbe, open: true, by: "echo"}, false, OK, "MTU at least 9216", ""},
		{pathMTU{least: 1420, most: 1459, by: "x"}, false, Warn, "MTU 1420 to 1459", "mtu=1370 NAME (1344 with --opt encrypted)"},
		{pathMTU{least: 1280, most: 1280, by: "x"}, true, Warn, "MTU 1280", "mtu=1210 NAME (1184 with --opt encrypted)"},
	} {
		judgePath("path", tc.m, tc.v6).want(t, tc.level, tc.found, tc.remedy)
	}
}

func FuzzPortUnreachable(f *testing.F) {
	f.Add([]byte{})
	b := make([]byte, unix.CmsgSpace(extendedErrLen))
	h := cmsghdr(b)
	h.Level, h.Type = unix.SOL_IP, unix.IP_RECVERR
	h.SetLen(unix.CmsgLen(extendedErrLen))
	copy(b[unix.CmsgLen(0):], []byte{0, 0, 0, 0, unix.SO_EE_ORIGIN_ICMP, 3, 3})
	if !portUnreachable(b) {
		f.Error("port unreachable is not taken for what it is")
	}
	f.Add(b)
	f.Fuzz(func(_ *testing.T, b []byte) { portUnreachable(b) })
}

package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

func (w *walk) pingTasks(ctx context.Context, s *stepRun) error {
	from := w.tasks[0]
	for _, to := range w.tasks[1:] {
		answer, err := probe[pingAnswer](ctx, s, from, "ping", to.addr.String())
		if err != nil {
			return err
		}
		s.equal(fmt.Sprintf("%s on %s: 2 of 2 received", to.addr, to.on.name),
			fmt.Sprintf("%s on %s: %d of %d received", to.addr, to.on.name, answer.Received, answer.Sent))
	}
	return nil
}

func describeDNS(a dnsAnswer) string {
	what := strings.Join(sorted(a.Answers), ", ")
	if what == "" {
		what = "no address"
	}
	return fmt.Sprintf("%s %s, by %s", a.Rcode, what, a.Server)
}

const dnsServer = "127.0.0.11:53"

func (w *walk) names(ctx context.Context, s *stepRun) error {
	from := w.tasks[0]
	questions := []struct {
		name, kind, rcode string
		want              []string
	}{
		{service, "A", "NOERROR", []string{w.vip.String()}},
		{"tasks." + service, "A", "NOERROR", addresses(w.tasks)},
		{service + "." + network, "A", "NOERROR", []string{w.vip.String()}},
		{service, "AAAA", "NOERROR", nil},
		{w.vip.String(), "PTR", "NOERROR", []string{service + "." + network}},
	}
	for _, q := range questions {
		answer, err := probe[dnsAnswer](ctx, s, from, "dns", q.name, q.kind)
		if err != nil {
			return err
		}
		s.equal(describeDNS(dnsAnswer{dnsServer, q.rcode, q.want}), describeDNS(answer))
	}
	return nil
}

// turns is how many requests each task gets.
const turns = 2

func (w *walk) throughVIP(ctx context.Context, s *stepRun) error {
	for _, m := range w.machines {
		from, err := w.taskOn(m)
		if err != nil {
			return err
		}
		answer, err := probe[pingAnswer](ctx, s, from, "ping", service)
		if err != nil {
			return err
		}
		s.equal("ping: 2 of 2 received", fmt.Sprintf("ping: %d of %d received", answer.Received, answer.Sent))
		err = w.inTurn(ctx, s, turns*len(w.tasks), func(n int) ([]httpAnswer, error) {
			return probe[[]httpAnswer](ctx, s, from, "http", strconv.Itoa(n), "http://"+service+"/")
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) throughIngress(ctx context.Context, s *stepRun) error {
	for _, m := range w.machines {
		url := fmt.Sprintf("http://%s:%d/", m.addr, w.port)
		s.note("this machine $ curl " + url)
		err := w.inTurn(ctx, s, turns*len(w.tasks), func(n int) ([]httpAnswer, error) { return get(ctx, n, url), nil })
		if err != nil {
			return err
		}
	}
	return nil
}

// inTurn makes n requests and checks that each task answered as often.
func (w *walk) inTurn(ctx context.Context, s *stepRun, n int, request func(n int) ([]httpAnswer, error)) error {
	before, err := w.hits(ctx, nil)
	if err != nil {
		return err
	}
	pages, err := request(n)
	if err != nil {
		return err
	}
	s.check(fmt.Sprintf("%d pages", n), w.program.describe(pages), w.program.pages(pages, n))
	var want []string
	for _, t := range w.tasks {
		want = append(want, fmt.Sprintf("%s.%d ×%d", service, t.slot, n/len(w.tasks)))
	}
	expected := strings.Join(want, ", ")
	// nginx notes a request after it has answered.
	seen, _, err := eventually(ctx, settled, func(ctx context.Context) (string, bool, error) {
		after, err := w.hits(ctx, pages)
		if err != nil {
			return "", false, err
		}
		var got []string
		for i, t := range w.tasks {
			got = append(got, fmt.Sprintf("%s.%d ×%d", service, t.slot, after[i]-before[i]))
		}
		seen := strings.Join(got, ", ")
		return seen, seen == expected, nil
	})
	if err != nil {
		return err
	}
	s.equal(expected, seen)
	return nil
}

// hits counts the requests that each task has answered: by its log, or by what
// the pages say.
func (w *walk) hits(ctx context.Context, pages []httpAnswer) ([]int, error) {
	counts := make([]int, len(w.tasks))
	for i, t := range w.tasks {
		if w.program.log == "" {
			for _, p := range pages {
				if strings.Contains(p.Start, t.name) {
					counts[i]++
				}
			}
			continue
		}
		log, err := quietProbe[linesAnswer](ctx, t, "lines", w.program.log)
		if err != nil {
			return nil, err
		}
		counts[i] = log.Lines
	}
	return counts, nil
}

// nginxSizes are what Debian's welcome page has been, in bytes.
var nginxSizes = []int{612, 615}

// pages tells whether all n answers are pages of the program.
func (p program) pages(answers []httpAnswer, n int) bool {
	return len(answers) == n && !slices.ContainsFunc(answers, func(a httpAnswer) bool {
		if p.log == "" {
			return a.Status != http.StatusOK
		}
		return a.Status != http.StatusOK || !slices.Contains(nginxSizes, a.Bytes) || !strings.Contains(a.Start, "Welcome to nginx!")
	})
}

// describe counts answers that are alike: "10 pages of 615 bytes".
func (p program) describe(answers []httpAnswer) string {
	counts := make(map[string]int)
	var order []string
	for _, a := range answers {
		what := a.Error
		if what == "" {
			what = fmt.Sprintf("pages of %d bytes", a.Bytes)
			if p.log == "" {
				what = "pages"
			}
			if a.Status != http.StatusOK {
				what = fmt.Sprintf("answers with status %d", a.Status)
			}
		}
		if counts[what] == 0 {
			order = append(order, what)
		}
		counts[what]++
	}
	parts := make([]string, 0, len(order))
	for _, what := range order {
		parts = append(parts, fmt.Sprintf("%d %s", counts[what], what))
	}
	return strings.Join(parts, ", ")
}

// outside serves a page on an address of this machine that is not loopback,
// which is as far outside as is sure to be there.
func (w *walk) outside(ctx context.Context, s *stepRun) error {
	addr, ok := hostAddr()
	if !ok {
		s.skip("this machine has no network: loopback is its only address")
		return nil
	}
	const page = "the world outside"
	outside, stop, err := servePage(netip.AddrPortFrom(addr, 0), page)
	if err != nil {
		return err
	}
	defer stop()
	from := w.tasks[0]
	pages, err := probe[[]httpAnswer](ctx, s, from, "http", "1", "http://"+outside.String()+"/")
	if err != nil {
		return err
	}
	s.equal(page, pages[0].Start+pages[0].Error)

	inside, stop, err := servePage(netip.MustParseAddrPort("127.0.0.1:0"), page)
	if err != nil {
		return err
	}
	defer stop()
	loopback := netip.AddrPortFrom(netip.MustParseAddr("172.18.0.1"), inside.Port()).String()
	dial, err := probe[dialAnswer](ctx, s, from, "dial", loopback)
	if err != nil {
		return err
	}
	seen := "connected"
	if dial.Error != "" {
		seen = dial.Error
	}
	s.check("this machine's own 127.0.0.1 is refused", seen, strings.Contains(seen, "connection refused"))
	return nil
}

// servePage answers every request at addr, a port of 0 being any, with a page.
func servePage(addr netip.AddrPort, page string) (at netip.AddrPort, stop func(), err error) {
	l, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(addr))
	if err != nil {
		return netip.AddrPort{}, nil, err
	}
	server := &http.Server{
		ReadHeaderTimeout: probePatience,
		Handler:           http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(rw, page) }),
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	at = l.Addr().(*net.TCPAddr).AddrPort()
	return at, func() {
		if err := errors.Join(server.Close(), <-done); err != nil && !errors.Is(err, http.ErrServerClosed) {
			panic(err) // it has no other reason to end
		}
	}, nil
}

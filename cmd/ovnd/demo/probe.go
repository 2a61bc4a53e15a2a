package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// ProbeName is the hidden command that looks at the world from inside a task.
const ProbeName = "demo-probe"

// probePatience bounds one request or query of a probe.
const probePatience = 5 * time.Second

// Answers of the probes, as JSON on their standard output.
type (
	dnsAnswer struct {
		Server  string
		Rcode   string
		Answers []string // addresses or names
	}
	httpAnswer struct {
		Status int
		Bytes  int
		Start  string // of the body
		Error  string
	}
	pingAnswer struct {
		Sent, Received int
	}
	ifaceAnswer struct {
		Name  string
		MTU   int
		Addrs []string
	}
	linesAnswer struct{ Lines int }
	watchAnswer struct {
		At      time.Time // of the change; zero: it never came
		Answers []string
	}
	dialAnswer struct{ Error string }
)

// Probe runs one probe, args being its name and arguments, and prints what it
// saw. That something did not answer is seen, too; an error is a wrong use.
func Probe(ctx context.Context, out io.Writer, args []string) error {
	probes := map[string]struct {
		args int
		run  func(ctx context.Context, args []string) (any, error)
	}{
		"dns":        {2, probeDNS},
		"watch":      {3, probeWatch},
		"http":       {2, probeHTTP},
		"ping":       {1, probePing},
		"fit":        {2, probeFit},
		"dial":       {1, probeDial},
		"interfaces": {0, probeInterfaces},
		"lines":      {1, probeLines},
	}
	if len(args) == 0 {
		return errors.New(ProbeName + ": which probe?")
	}
	if args[0] == guardName && len(args) == 2 {
		return guard(os.Stdin, args[1])
	}
	probe, ok := probes[args[0]]
	if !ok || len(args)-1 != probe.args {
		return fmt.Errorf("%s %s: no such probe with %d arguments", ProbeName, args[0], len(args)-1)
	}
	answer, err := probe.run(ctx, args[1:])
	if err != nil {
		return fmt.Errorf("%s %s: %w", ProbeName, args[0], err)
	}
	return json.NewEncoder(out).Encode(answer)
}

// resolver is the first server of resolv.conf.
func resolver() (string, error) {
	conf, err := dns.ClientConfigFromFile("/etc/resolv.conf")
	if err != nil {
		return "", err
	}
	if len(conf.Servers) == 0 {
		return "", errors.New("/etc/resolv.conf names no server")
	}
	return net.JoinHostPort(conf.Servers[0], conf.Port), nil
}

// probeDNS asks for NAME and TYPE; for PTR NAME is an address.
func probeDNS(ctx context.Context, args []string) (any, error) {
	name, kind := args[0], args[1]
	rrType, ok := dns.StringToType[kind]
	if !ok {
		return nil, fmt.Errorf("type %q", kind)
	}
	server, err := resolver()
	if err != nil {
		return nil, err
	}
	if rrType == dns.TypePTR {
		if name, err = dns.ReverseAddr(name); err != nil {
			return nil, err
		}
	}
	return query(ctx, server, name, rrType)
}

func query(ctx context.Context, server, name string, rrType uint16) (dnsAnswer, error) {
	client := dns.Client{Timeout: probePatience}
	msg := new(dns.Msg)
	msg.SetQuestion(dns.Fqdn(name), rrType)
	reply, _, err := client.ExchangeContext(ctx, msg, server)
	if err != nil {
		return dnsAnswer{}, err
	}
	answer := dnsAnswer{Server: server, Rcode: dns.RcodeToString[reply.Rcode]}
	for _, rr := range reply.Answer {
		switch rr := rr.(type) {
		case *dns.A:
			answer.Answers = append(answer.Answers, rr.A.String())
		case *dns.AAAA:
			answer.Answers = append(answer.Answers, rr.AAAA.String())
		case *dns.PTR:
			answer.Answers = append(answer.Answers, strings.TrimSuffix(rr.Ptr, "."))
		}
	}
	return answer, nil
}

// probeWatch asks for NAME over and over, for at most SECONDS, until an
// address is gone from the answer or, with a + before it, is there.
func probeWatch(ctx context.Context, args []string) (any, error) {
	name := args[0]
	addr, wantThere := strings.CutPrefix(args[1], "+")
	limit, err := strconv.Atoi(args[2])
	if err != nil {
		return nil, err
	}
	server, err := resolver()
	if err != nil {
		return nil, err
	}
	var answer watchAnswer
	for end := time.Now().Add(time.Duration(limit) * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		a, err := query(ctx, server, name, dns.TypeA)
		if err != nil {
			return nil, err
		}
		answer.Answers = a.Answers
		there := false
		for _, s := range a.Answers {
			there = there || s == addr
		}
		if there == wantThere {
			answer.At = time.Now()
			break
		}
	}
	return answer, nil
}

// probeHTTP makes N requests for a URL, a connection each.
func probeHTTP(ctx context.Context, args []string) (any, error) {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return nil, err
	}
	return get(ctx, n, args[1]), nil
}

// startBytes is how much of a body an answer shows.
const startBytes = 256

func get(ctx context.Context, n int, url string) []httpAnswer {
	client := http.Client{
		Timeout: probePatience,
		Transport: &http.Transport{
			Proxy:             http.ProxyFromEnvironment, // of a task without namespaces
			DisableKeepAlives: true,
			DialContext:       (&net.Dialer{Resolver: &net.Resolver{PreferGo: true}}).DialContext,
		},
	}
	answers := make([]httpAnswer, n)
	for i := range answers {
		answers[i] = getOnce(ctx, &client, url)
	}
	return answers
}

func getOnce(ctx context.Context, client *http.Client, url string) (answer httpAnswer) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return httpAnswer{Error: err.Error()}
	}
	resp, err := client.Do(req)
	if err != nil {
		return httpAnswer{Error: err.Error()}
	}
	defer func() { _ = resp.Body.Close() }() // nothing was written to it
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return httpAnswer{Error: err.Error()}
	}
	return httpAnswer{Status: resp.StatusCode, Bytes: len(body), Start: string(body[:min(len(body), startBytes)])}
}

func probeDial(ctx context.Context, args []string) (any, error) {
	conn, err := (&net.Dialer{Timeout: probePatience}).DialContext(ctx, "tcp", args[0])
	if err != nil {
		return dialAnswer{Error: err.Error()}, nil
	}
	_ = conn.Close()
	return dialAnswer{}, nil
}

func probeInterfaces(context.Context, []string) (any, error) {
	ifaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var answer []ifaceAnswer
	for _, i := range ifaces {
		addrs, err := i.Addrs()
		if err != nil {
			return nil, err
		}
		a := ifaceAnswer{Name: i.Name, MTU: i.MTU}
		for _, addr := range addrs {
			if p, err := netip.ParsePrefix(addr.String()); err == nil && p.Addr().Is4() {
				a.Addrs = append(a.Addrs, p.String())
			}
		}
		answer = append(answer, a)
	}
	return answer, nil
}

func probeLines(_ context.Context, args []string) (any, error) {
	text, err := os.ReadFile(args[0])
	if err != nil {
		return nil, err
	}
	return linesAnswer{Lines: bytes.Count(text, []byte("\n"))}, nil
}

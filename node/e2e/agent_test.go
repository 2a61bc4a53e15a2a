package e2e

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The test binary is also the program inside the sandboxes: an agent that
// reads a command a line and answers each with a line of JSON.

const agentEnv = "OVND_E2E_AGENT"

const agentPort = 7000 // TCP: sink at 7000, echo at 7001; UDP: echo at 7000

// answer is one line of an agent.
type answer struct {
	Err string
	Out json.RawMessage
}

// agentMain serves commands from standard input until it closes.
func agentMain() {
	a := &agent{}
	if err := a.listen(); err != nil {
		fmt.Println("agent:", err)
		os.Exit(1)
	}
	fmt.Println("agent ready")
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		select {} // as a task, which has nobody to listen to
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		out, err := a.do(strings.Fields(lines.Text()))
		ans := answer{}
		if err != nil {
			ans.Err = err.Error()
		}
		ans.Out, _ = json.Marshal(out)
		line, _ := json.Marshal(ans)
		fmt.Printf("answer %s\n", line)
	}
	os.Exit(0)
}

type agent struct {
	stream net.Conn // an echo connection that stays open
	count  byte
	spray  *sprayer
	heard  atomic.Int64 // datagrams with clearMark
}

func (a *agent) do(args []string) (any, error) {
	if len(args) == 0 {
		return nil, errors.New("empty command")
	}
	switch args[0] {
	case "interfaces":
		return interfaces()
	case "send":
		n, _ := strconv.Atoi(args[2])
		return nil, send(args[1], n)
	case "udp":
		n, _ := strconv.Atoi(args[2])
		size, _ := strconv.Atoi(args[3])
		return udpEcho(args[1], n, size)
	case "ping":
		size, _ := strconv.Atoi(args[2])
		return nil, ping(args[1], size)
	case "open":
		var err error
		a.stream, err = net.DialTimeout("tcp", withPort(args[1], agentPort+1), 5*time.Second)
		return nil, err
	case "exchange":
		return nil, a.exchange()
	case "status":
		return os.ReadFile("/proc/self/status")
	case "lookup":
		return lookup(args[1])
	case "fetch":
		n, _ := strconv.Atoi(args[2])
		clients, _ := strconv.Atoi(args[3])
		return fetch(args[1], n, clients), nil
	case "dial":
		c, err := net.DialTimeout("tcp", args[1], 5*time.Second)
		if err == nil {
			err = c.Close()
		}
		return nil, err
	case "file":
		return os.ReadFile(args[1])
	case "canary":
		return nil, exchangeCanary(args[1], args[2])
	case "spray":
		a.spray = startSpray(args[1], args[2])
		return nil, nil
	case "hush":
		return a.spray.stop(), nil
	case "heard":
		return a.heard.Load(), nil
	}
	return nil, fmt.Errorf("unknown command %q", args[0])
}

// withPort adds a port to an address that has none.
func withPort(addr string, port int) string {
	if _, _, err := net.SplitHostPort(addr); err == nil {
		return addr
	}
	return net.JoinHostPort(addr, strconv.Itoa(port))
}

// listen starts the services that other agents use.
func (a *agent) listen() error {
	sink, err := net.Listen("tcp", ":"+strconv.Itoa(agentPort))
	if err != nil {
		return err
	}
	echo, err := net.Listen("tcp", ":"+strconv.Itoa(agentPort+1))
	if err != nil {
		return err
	}
	udp, err := net.ListenPacket("udp", ":"+strconv.Itoa(agentPort))
	if err != nil {
		return err
	}
	go serve(sink, func(c net.Conn) {
		h := sha256.New()
		_, _ = io.Copy(h, c)
		_, _ = c.Write(h.Sum(nil))
	})
	go serve(echo, func(c net.Conn) { _, _ = io.Copy(c, c) })
	go func() {
		buf := make([]byte, 65536)
		for {
			n, from, err := udp.ReadFrom(buf)
			if err != nil {
				return
			}
			if bytes.Contains(buf[:n], []byte(clearMark)) {
				a.heard.Add(1)
			}
			_, _ = udp.WriteTo(buf[:n], from)
		}
	}()
	return nil
}

func serve(l net.Listener, handle func(net.Conn)) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			handle(c)
		}()
	}
}

// send sends n bytes to the sink and compares what arrived by SHA-256.
func send(to string, n int) error {
	c, err := net.DialTimeout("tcp", net.JoinHostPort(to, strconv.Itoa(agentPort)), 5*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	h := sha256.New()
	seed := [32]byte{byte(n)}
	if _, err := io.CopyN(io.MultiWriter(c, h), rand.NewChaCha8(seed), int64(n)); err != nil {
		return err
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	got := make([]byte, sha256.Size)
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if want := h.Sum(nil); string(want) != string(got) {
		return fmt.Errorf("SHA-256 of %d bytes: sent %x, arrived %x", n, want, got)
	}
	return nil
}

// udpEcho sends n datagrams one after the other and returns how many came back.
func udpEcho(to string, n, size int) (int, error) {
	c, err := net.Dial("udp", withPort(to, agentPort))
	if err != nil {
		return 0, err
	}
	defer c.Close()
	out, in := make([]byte, size), make([]byte, 65536)
	back := 0
	for i := range n {
		out[0] = byte(i)
		if _, err := c.Write(out); err != nil {
			return back, err
		}
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		if m, err := c.Read(in); err == nil && m == size && in[0] == byte(i) {
			back++
		}
	}
	return back, nil
}

// exchange sends a byte over the open connection and waits for its echo.
func (a *agent) exchange() error {
	if a.stream == nil {
		return errors.New("no connection is open")
	}
	a.count++
	_ = a.stream.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := a.stream.Write([]byte{a.count}); err != nil {
		return err
	}
	var got [1]byte
	if _, err := io.ReadFull(a.stream, got[:]); err != nil {
		return err
	}
	if got[0] != a.count {
		return fmt.Errorf("echo of %d is %d", a.count, got[0])
	}
	return nil
}

// link is one interface as seen inside a sandbox.
type link struct {
	Name  string
	MTU   int
	Addrs []string
}

func interfaces() ([]link, error) {
	list, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var links []link
	for _, ifi := range list {
		l := link{Name: ifi.Name, MTU: ifi.MTU}
		addrs, err := ifi.Addrs()
		if err != nil {
			return nil, err
		}
		for _, addr := range addrs {
			l.Addrs = append(l.Addrs, addr.String())
		}
		links = append(links, l)
	}
	return links, nil
}

// ping sends one echo request whose IP packet has size bytes, with DF set, and
// waits for its answer. An ICMP socket needs no capability where
// net.ipv4.ping_group_range allows it (icmp(7)).
func ping(dst string, size int) error {
	addr, err := netip.ParseAddr(dst)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
	if err != nil {
		return fmt.Errorf("ICMP socket: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO); err != nil {
		return err
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 2}); err != nil {
		return err
	}
	request := make([]byte, size-20) // less the IPv4 header
	request[0] = 8                   // echo request, RFC 792; the kernel fills in identifier and checksum
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrInet4{Addr: addr.As4()}); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	reply := make([]byte, 65536)
	n, _, err := unix.Recvfrom(fd, reply, 0)
	if err != nil {
		return fmt.Errorf("no answer: %w", err)
	}
	if n != len(request) || reply[0] != 0 {
		return fmt.Errorf("answer has %d bytes and type %d", n, reply[0])
	}
	return nil
}

// startAgent runs an agent in a sandbox of the node and waits until it answers.
func (n *node) startAgent(runArgs ...string) *sandbox {
	n.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		n.t.Fatal(err)
	}
	s := n.sandbox(append(runArgs, "--env", agentEnv+"=1"), exe)
	s.waitOutput("agent ready")
	return s
}

// ask gives the agent one command and returns its answer.
func (s *sandbox) ask(out any, command ...string) error {
	s.node.t.Helper()
	before := strings.Count(s.out.String(), "\nanswer ")
	if _, err := fmt.Fprintln(s.stdin, strings.Join(command, " ")); err != nil {
		return err
	}
	var line string
	ended := false
	s.node.eventuallyWithin(5*time.Minute, "agent answers "+strings.Join(command, " "), func() error {
		gone := s.ended() // what it said before, it has said
		answers := strings.Split(s.out.String(), "\nanswer ")
		if len(answers) < before+2 || !strings.Contains(answers[before+1], "\n") {
			ended = gone
			if gone {
				return nil
			}
			return errors.New("no answer")
		}
		line, _, _ = strings.Cut(answers[before+1], "\n")
		return nil
	})
	if ended {
		return errors.New("the agent has ended")
	}
	var ans answer
	if err := json.Unmarshal([]byte(line), &ans); err != nil {
		return fmt.Errorf("%q: %w", line, err)
	}
	if ans.Err != "" {
		return fmt.Errorf("%s in sandbox on %s: %s", command[0], s.node.name, ans.Err)
	}
	if out != nil {
		return json.Unmarshal(ans.Out, out)
	}
	return nil
}

// mustAsk is ask that ends the test on an error.
func (s *sandbox) mustAsk(out any, command ...string) {
	s.node.t.Helper()
	if err := s.ask(out, command...); err != nil {
		s.node.t.Fatal(err)
	}
}

// waitNames waits until a name has n addresses, as gossip brings them.
func (s *sandbox) waitNames(name string, n int) (addrs []string) {
	s.node.t.Helper()
	s.node.eventually(fmt.Sprintf("%s has %d addresses", name, n), func() error {
		addrs = nil
		if err := s.ask(&addrs, "lookup", name); err != nil || len(addrs) != n {
			return fmt.Errorf("%v, %w", addrs, err)
		}
		return nil
	})
	return addrs
}

// waitFetch waits until n tasks answer at a URL.
func (s *sandbox) waitFetch(url string, n int) {
	s.node.t.Helper()
	s.node.eventually(fmt.Sprintf("%d tasks answer at %s", n, url), func() error {
		var got fetched
		if err := s.ask(&got, "fetch", url, fmt.Sprint(2*n), "1"); err != nil || got.Failed > 0 || len(got.Who) != n {
			return fmt.Errorf("%w, %+v", err, got)
		}
		return nil
	})
}

// background gives the agent a command that counts, and returns what waits for
// its answer and compares.
func (s *sandbox) background(command ...string) func(t *testing.T, want int) {
	type reply struct {
		n   int
		err error
	}
	done := make(chan reply, 1)
	go func() {
		var r reply
		r.err = s.ask(&r.n, command...)
		done <- r
	}()
	return func(t *testing.T, want int) {
		t.Helper()
		if r := <-done; r.err != nil || r.n != want {
			t.Errorf("%s: %d of %d, %v", strings.Join(command, " "), r.n, want, r.err)
		}
	}
}

// addr is the sandbox's address on its first overlay interface.
func (s *sandbox) addr() string {
	s.node.t.Helper()
	var links []link
	s.mustAsk(&links, "interfaces")
	for _, l := range links {
		if l.Name == "eth0" && len(l.Addrs) > 0 {
			host, _, _ := strings.Cut(l.Addrs[0], "/")
			return host
		}
	}
	s.node.t.Fatalf("no eth0 with an address in %+v", links)
	return ""
}

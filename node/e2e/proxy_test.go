package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// proxyAt is where the nodes of these tests have their proxy.
const proxyAt = "127.0.0.1:1080"

// program runs a program of the machine as the node's user, with some input.
func (n *node) program(stdin io.Reader, name string, args ...string) result {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "HOME="+filepath.Dir(n.stateDir))
	ordinaryUser(cmd)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &stdout, &stderr
	if err := n.host.Do(cmd.Start); err != nil {
		n.t.Fatalf("%s: %v", name, err)
	}
	_ = cmd.Wait() // the exit code says it
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// curl fetches a URL by way of a proxy.
func (n *node) curl(proxy, url string, args ...string) result {
	n.t.Helper()
	return n.program(nil, "curl", slices.Concat([]string{"-sS", "--max-time", "30", "--noproxy", "", "--proxy", proxy}, args, []string{url})...)
}

// line returns what follows "key: " in what ovnd/whoami says.
func line(body, key string) string {
	for l := range strings.Lines(body) {
		if v, ok := strings.CutPrefix(l, key+": "); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// A proxied is three nodes with services, the first of which has a proxy.
type proxied struct {
	t     *testing.T
	nodes [3]*node
}

// newProxied starts the nodes with some arguments each, and the services web, with
// a VIP, and rr, without one: three tasks each.
func newProxied(t *testing.T, args [3][]string) *proxied {
	t.Helper()
	needCurl(t)
	hosts, addrs := threeMachines(t, "192.0.2.%d", 24)
	for _, h := range hosts {
		h.Up("lo")
	}
	p := &proxied{t: t}
	p.nodes[0] = newNode(t, hosts[0], "n1", addrs[0]).up(append([]string{"--proxy", "127.0.0.1"}, args[0]...)...)
	join := []string{"--join", p.nodes[0].token("worker"), hostPort(addrs[0], 2377)}
	for i := 1; i < 3; i++ {
		p.nodes[i] = newNode(t, hosts[i], fmt.Sprintf("n%d", i+1), addrs[i]).up(slices.Concat(args[i], join)...)
	}
	m := p.nodes[0]
	m.must("network", "create", "-d", "overlay", "--attachable", "--subnet", "10.10.0.0/16", "net")
	m.must("service", "create", "-q", "--name", "web", "--network", "net", "--replicas", "3", "-p", "8080:80", "ovnd/whoami")
	m.must("service", "create", "-q", "--name", "rr", "--network", "net", "--replicas", "3", "--endpoint-mode", "dnsrr", "ovnd/whoami")
	return p
}

func needCurl(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("curl"); err != nil {
		if ci {
			t.Fatal("CI needs curl")
		}
		t.Skip("no curl on this machine")
	}
}

// TestProxies is everything that programs without an interface have, on nodes
// whose tasks live in sandboxes.
func TestProxies(t *testing.T) {
	p := newProxied(t, [3][]string{})
	t.Run("names", p.names)
	t.Run("errors", p.errors)
	t.Run("nc", p.nc)
	t.Run("forward and expose", p.forwardAndExpose)
	t.Run("datagrams", p.datagrams)
	t.Run("a thousand connections", p.thousand)
	t.Run("who may", p.whoMay)
	t.Run("internal", p.internal)
	for _, n := range p.nodes {
		checkStatus(t, n)
	}
	t.Run("a node stands still", p.standsStill)
}

// names: curl reaches VIPs, tasks and dnsrr names by both protocols, on all nodes
// and in exact turns where there is a VIP.
func (p *proxied) names(t *testing.T) {
	m := p.nodes[0]
	task := strings.Fields(m.must("service", "ps", "-q", "--no-trunc", "web"))[0]
	name := "web." + strings.Fields(m.must("service", "ps", "--filter", "id="+task, "--format", "{{.Name}}", "web"))[0][len("web."):] + "." + task
	for _, by := range [][]string{
		{"socks5h://" + proxyAt}, {"http://" + proxyAt}, {"http://" + proxyAt, "--proxytunnel"},
	} {
		for name, want := range map[string]int{"web": 3, "tasks.web": 3, "rr": 3, "tasks.rr": 3, "web.net": 3, "WEB": 3, name: 1} {
			who := map[string]int{}
			m.eventually(fmt.Sprintf("%s answers by %s with %d tasks", name, by, want), func() error {
				r := m.curl(by[0], "http://"+name+"/", by[1:]...)
				if task := line(r.stdout, "task"); r.code == 0 && task != "" {
					who[task]++
				} else {
					return fmt.Errorf("exit %d: %s%s", r.code, r.stdout, r.stderr)
				}
				if len(who) != want {
					return fmt.Errorf("only %v answered", who)
				}
				return nil
			})
		}
	}
	turns := map[string]int{}
	for range 12 {
		turns[line(m.curl("socks5h://"+proxyAt, "http://web/").stdout, "task")]++
	}
	for task, n := range turns {
		if n != 4 || task == "" {
			t.Errorf("%q answered %d of 12 requests to the VIP, want 4", task, n)
		}
	}
}

// errors: each has its reply, status and text.
func (p *proxied) errors(t *testing.T) {
	m := p.nodes[0]
	for _, tc := range []struct {
		where, reply, status, text string
	}{
		{"nowhere.invalid", "(4)", "502", "no such name"},
		{"web:81", "(5)", "502", "connection refused"},
		{"tasks.web:81", "(5)", "502", "connection refused"},
		{"10.10.200.200", "(4)", "502", "no route to host"},
		{"127.0.0.1:1080", "(2)", "403", "not allowed"},
	} {
		r := m.curl("socks5h://"+proxyAt, "http://"+tc.where+"/")
		if r.code != 97 || !strings.Contains(r.stderr, tc.reply) {
			t.Errorf("SOCKS5 to %s: %+v, want reply %s", tc.where, r, tc.reply)
		}
		r = m.curl("http://"+proxyAt, "http://"+tc.where+"/", "-w", "%{http_code}")
		if !strings.HasSuffix(r.stdout, tc.status) || !strings.Contains(r.stdout, tc.text) {
			t.Errorf("HTTP to %s: %+v, want %s and %q", tc.where, r, tc.status, tc.text)
		}
	}
	if r := m.run("env"); r.code != 0 || !strings.Contains(r.stdout, "export ALL_PROXY='socks5h://ovnd:") {
		t.Errorf("env: %+v", r)
	}
	if r := p.nodes[1].run("env"); r.code != 1 || !strings.Contains(r.stderr, "ovnd up --proxy") {
		t.Errorf("env of a node without proxy: %+v", r)
	}
}

// nc: streams go both ways, with their end; errors have an exit status.
func (p *proxied) nc(t *testing.T) {
	n := p.nodes[1] // which has no proxy, and tasks of its own
	data := make([]byte, 4<<20)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	for _, name := range []string{"web", "rr", "tasks.web"} {
		r := n.runWith(bytes.NewReader(data), "nc", "--network", "net", name, "7")
		greeting, echoed, _ := strings.Cut(r.stdout, "\n")
		if r.code != 0 || !strings.HasPrefix(greeting, "host=") || echoed != string(data) {
			t.Errorf("nc %s: exit %d, %q and %d of %d bytes came back; %s", name, r.code, greeting, len(echoed), len(data), r.stderr)
		}
	}
	for _, tc := range []struct {
		args, text string
	}{
		{"--network net nowhere 7", "no such name"},
		{"--network net web 81", "connection refused"},
		{"--network net 10.10.200.200 81", "no route to host"},
		{"--network lost web 81", "network lost"},
		{"--network net web http", "port"},
		{"--network net web", "requires 2 arguments"},
	} {
		if r := n.run(append([]string{"nc"}, strings.Fields(tc.args)...)...); r.code != 1 || !strings.Contains(r.stderr, tc.text) || r.stdout != "" {
			t.Errorf("nc %s: %+v, want 1 and %q", tc.args, r, tc.text)
		}
	}
}

// runWith is run with standard input.
func (n *node) runWith(stdin io.Reader, args ...string) result {
	n.t.Helper()
	cmd := n.command(context.Background(), args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &stdout, &stderr
	if err := n.host.Do(cmd.Start); err != nil {
		n.t.Fatalf("%s: %v", args, err)
	}
	_ = cmd.Wait() // the exit code says it
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// forwardAndExpose: a service is a port of a machine, and a program of a machine
// an endpoint, until the commands end; then the address is given back.
func (p *proxied) forwardAndExpose(t *testing.T) {
	n, m := p.nodes[2], p.nodes[0]
	path := filepath.Join(filepath.Dir(n.stateDir), "web.sock")
	tcp := n.attend(n.command(context.Background(), "forward", "--network", "net", "9000", "web:80"))
	unix := n.attend(n.command(context.Background(), "forward", "--network", "net", path, "tasks.rr:80"))
	tcp.waitOutput("127.0.0.1:9000 leads to web:80 on net")
	unix.waitOutput(path + " leads to")
	for _, args := range [][]string{{"http://127.0.0.1:9000/"}, {"--unix-socket", path, "http://x/"}} {
		r := n.program(nil, "curl", append([]string{"-sS", "--max-time", "30", "--noproxy", "*"}, args...)...)
		if r.code != 0 || line(r.stdout, "task") == "" {
			t.Errorf("%v: %+v", args, r)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v", info, err)
	}

	agent := hostAgent(n) // echoes at 127.0.0.1:7001
	agent.waitOutput("agent ready")
	stream := n.attend(n.command(context.Background(), "expose", "--network", "net", "lab:77", "7001"))
	stream.waitOutput("lab:77 (10.10.")
	datagrams := n.attend(n.command(context.Background(), "expose", "--network", "net", "labdns:53/udp", "127.0.0.1:7000"))
	datagrams.waitOutput("labdns:53/udp (10.10.")
	m.eventually("the exposed program answers from another node", func() error {
		r := m.runWith(strings.NewReader("over the overlay"), "nc", "--network", "net", "lab", "77")
		if r.code != 0 || r.stdout != "over the overlay" {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
	client := m.startAgent("--network", "net")
	client.waitUDP(t, "labdns")
	if r := m.run("nc", "--network", "net", "lab", "78"); r.code != 1 || !strings.Contains(r.stderr, "refused") {
		t.Errorf("another port of the exposed program: %+v", r)
	}
	status := n.must("status")
	for _, want := range []string{"lab (10.10.", "127.0.0.1:9000", path, "web:80"} {
		if !strings.Contains(status, want) {
			t.Errorf("status has no %q:\n%s", want, status)
		}
	}
	for _, s := range []*sandbox{tcp, unix, stream, datagrams} {
		_ = s.process.Signal(syscall.SIGTERM)
		if err := s.process.Wait(); err != nil {
			t.Errorf("after SIGTERM: %v, %s", err, s.out.String())
		}
	}
	m.eventually("the name of what was exposed is gone", func() error {
		if r := m.run("nc", "--network", "net", "lab", "77"); !strings.Contains(r.stderr, "no such name") {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
	if _, err := os.Stat(path); err == nil {
		t.Error("the forward's socket is still there")
	}
}

// waitUDP waits until a datagram to port 53 of a name is echoed.
func (s *sandbox) waitUDP(t *testing.T, name string) {
	t.Helper()
	s.node.eventually(name+" echoes datagrams", func() error {
		var addrs []string
		if err := s.ask(&addrs, "lookup", name); err != nil || len(addrs) != 1 {
			return fmt.Errorf("%v, %w", addrs, err)
		}
		var back int
		if err := s.ask(&back, "udp", addrs[0]+":53", "5", "100"); err != nil || back != 5 {
			return fmt.Errorf("%d of 5 came back, %w", back, err)
		}
		return nil
	})
}

// dialProxy connects to the first node's proxy from its machine.
func (p *proxied) dialProxy() (c *net.TCPConn, err error) {
	_ = p.nodes[0].host.Do(func() error {
		var conn net.Conn
		if conn, err = net.DialTimeout("tcp", proxyAt, 10*time.Second); err == nil {
			c = conn.(*net.TCPConn)
			err = c.SetDeadline(time.Now().Add(time.Minute))
		}
		return nil
	})
	return c, err
}

// socks asks for a name and returns the address in the reply.
func socks(c net.Conn, command byte, name string, port uint16) (netip.AddrPort, error) {
	b := append([]byte{5, 1, 0, 5, command, 0, 3, byte(len(name))}, name...)
	if _, err := c.Write(binary.BigEndian.AppendUint16(b, port)); err != nil {
		return netip.AddrPort{}, err
	}
	answer := make([]byte, 2+10)
	if _, err := io.ReadFull(c, answer); err != nil {
		return netip.AddrPort{}, err
	}
	if answer[1] != 0 || answer[3] != 0 {
		return netip.AddrPort{}, fmt.Errorf("refused: % x", answer)
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(answer[6:10])), binary.BigEndian.Uint16(answer[10:])), nil
}

// datagrams: UDP ASSOCIATE reaches VIPs and tasks by name.
func (p *proxied) datagrams(t *testing.T) {
	c, err := p.dialProxy()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	relay, err := socks(c, 3, "0.0.0.0", 0)
	if err != nil {
		t.Fatal(err)
	}
	var u net.Conn
	if err := p.nodes[0].host.Do(func() (err error) { u, err = net.Dial("udp", relay.String()); return err }); err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	for _, name := range []string{"web", "rr", "tasks.web"} {
		request := append([]byte{0, 0, 0, 3, byte(len(name))}, name...)
		request = append(request, 0, 7)
		request = append(request, "hello "+name...)
		p.nodes[0].eventually("a datagram to "+name+" comes back", func() error {
			if _, err := u.Write(request); err != nil {
				return err
			}
			_ = u.SetReadDeadline(time.Now().Add(time.Second))
			b := make([]byte, 1500)
			k, err := u.Read(b)
			if err != nil {
				return err
			}
			if got := string(b[:k]); !strings.HasSuffix(got, "hello "+name) {
				return fmt.Errorf("%q came back", got)
			}
			return nil
		})
	}
}

// thousand connections at one time, each of which is used at the end.
func (p *proxied) thousand(t *testing.T) {
	const count = 1000
	conns := make([]*net.TCPConn, count)
	for i := range conns {
		c, err := p.dialProxy()
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		defer c.Close()
		if _, err := socks(c, 1, "web", 7); err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		conns[i] = c
	}
	var all sync.WaitGroup
	errs := make(chan error, count)
	for i, c := range conns {
		all.Go(func() {
			text := fmt.Sprintf("this is %d", i)
			_ = c.SetDeadline(time.Now().Add(time.Minute)) // anew: making them all may have taken as long
			_, err := io.WriteString(c, text)
			err = errors.Join(err, c.CloseWrite())
			got, rerr := io.ReadAll(c)
			if err = errors.Join(err, rerr); err == nil && !strings.HasSuffix(string(got), "\n"+text) {
				err = fmt.Errorf("%q came back", got)
			}
			if err != nil {
				errs <- fmt.Errorf("connection %d: %w", i, err)
			}
		})
	}
	all.Wait()
	close(errs)
	for err := range errs {
		t.Fatal(err)
	}
	if !strings.Contains(p.nodes[0].must("status", "--format", "{{json .Proxies}}"), `"Kind":"proxy"`) {
		t.Error("status has no proxy")
	}
}

// whoMay: credentials are right or useless.
func (p *proxied) whoMay(t *testing.T) {
	m := p.nodes[0]
	env := m.must("env")
	for l := range strings.Lines(env) {
		if _, url, ok := strings.Cut(l, "ALL_PROXY='"); ok && strings.HasPrefix(l, "export ALL") {
			url = strings.Trim(strings.TrimSpace(url), "'")
			if r := m.curl(url, "http://web/"); r.code != 0 {
				t.Errorf("%s: %+v", url, r)
			}
		}
	}
	for _, user := range []string{"ovnd:wrong", "task-000000000000:wrong", ":"} {
		r := m.curl("http://"+proxyAt, "http://web/", "--proxy-user", user, "-w", "%{http_code}")
		if user != ":" && !strings.HasSuffix(r.stdout, "407") {
			t.Errorf("%s: %+v, want 407", user, r)
		}
		if user == ":" && line(r.stdout, "task") == "" {
			t.Errorf("empty credentials of an own process: %+v", r)
		}
	}
	secret := filepath.Join(m.stateDir, "proxy.json")
	if info, err := os.Stat(secret); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the secret: %v, %v", info, err)
	}
}

// internal: a proxy of an internal network does not lead outside.
func (p *proxied) internal(t *testing.T) {
	m := p.nodes[0]
	m.must("network", "create", "-d", "overlay", "--attachable", "--internal", "closed")
	defer m.eventually("the internal network can go", func() error {
		_, err := m.try("network", "rm", "closed")
		return err
	})
	s := m.attend(m.command(context.Background(), "proxy", "--network", "closed", "--listen", "1081"))
	s.waitOutput("proxy at 127.0.0.1:1081 for closed")
	outside := startHostAgent(p.nodes[1])
	defer outside.stdin.Close()
	r := m.curl("http://127.0.0.1:1081", "http://192.0.2.12:7001/", "-w", "%{http_code}")
	if !strings.HasSuffix(r.stdout, "403") || !strings.Contains(r.stdout, "--internal") {
		t.Errorf("to the world outside: %+v, want 403", r)
	}
	r = m.curl("http://127.0.0.1:1081", "http://web/", "-w", "%{http_code}")
	if !strings.HasSuffix(r.stdout, "502") {
		t.Errorf("to a name of another network: %+v, want 502", r)
	}
	_ = s.process.Signal(syscall.SIGINT)
	if err := s.process.Wait(); err != nil {
		t.Errorf("after SIGINT: %v, %s", err, s.out.String())
	}
}

// standsStill: a backend that does not answer is no refusal.
func (p *proxied) standsStill(t *testing.T) {
	m, n := p.nodes[0], p.nodes[2]
	task := ""
	for l := range strings.Lines(n.must("ps", "--format", "{{.Names}}")) {
		if strings.HasPrefix(l, "web.") {
			task = strings.TrimSpace(l)
		}
	}
	if task == "" {
		t.Fatal("no task on the third node")
	}
	if r := m.curl("socks5h://"+proxyAt, "http://"+task+"/"); r.code != 0 {
		t.Fatalf("%s: %+v", task, r)
	}
	_ = n.process.Signal(syscall.SIGSTOP)
	defer func() { _ = n.process.Signal(syscall.SIGCONT) }()
	r := m.curl("http://"+proxyAt, "http://"+task+"/", "-w", "%{http_code}")
	if !strings.HasSuffix(r.stdout, "504") && !strings.Contains(r.stdout, "no route to host") {
		t.Errorf("%s: %+v, want 504, or no route once the node is taken for dead", task, r)
	}
}

// TestProxyLetsGo: the node's own proxy, which nobody gave a network, does not
// keep one that it has used.
func TestProxyLetsGo(t *testing.T) {
	needCurl(t)
	hosts, addrs := oneMachine(t)
	n := newNode(t, hosts[0], "n1", addrs[0]).up("--proxy", "127.0.0.1")
	for _, network := range []string{"one", "two"} {
		n.must("network", "create", "-d", "overlay", "--attachable", network)
		n.must("service", "create", "-q", "--name", "web", "--network", network, "ovnd/whoami")
		n.eventually("the service of network "+network+" answers", func() error {
			if r := n.curl("socks5h://"+proxyAt, "http://web."+network+"/"); line(r.stdout, "service") != "web" {
				return fmt.Errorf("%+v", r)
			}
			return nil
		})
		if got := n.must("status", "--format", "{{json .Proxies}}"); !strings.Contains(got, `"Networks":["`+network+`"]`) {
			t.Errorf("status: %s", got)
		}
		n.must("service", "rm", "web")
		n.eventually("network "+network+" can go", func() error {
			_, err := n.try("network", "rm", network)
			return err
		})
	}
}

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

var noTUN = []string{"--tun", "never"}

// TestWithoutTUN is services and proxies where no node has TUN devices or
// namespaces.
func TestWithoutTUN(t *testing.T) {
	p := newProxied(t, [3][]string{noTUN, noTUN, noTUN})
	t.Run("names", p.names)
	t.Run("errors", p.errors)
	t.Run("nc", p.nc)
	t.Run("datagrams", p.datagrams)
	t.Run("a thousand connections", p.thousand)
	t.Run("published ports", p.published)
	t.Run("a task's surroundings", p.surroundings)
	t.Run("life", p.life)
	t.Run("refusals", p.refusals)
	t.Run("restart", p.restart)
	for _, n := range p.nodes {
		checkStatus(t, n)
	}
	t.Run("end", p.end)
}

// TestMixedTUN has nodes of both kinds in one swarm.
func TestMixedTUN(t *testing.T) {
	p := newProxied(t, [3][]string{nil, noTUN, {"--tun", "require"}})
	t.Run("names", p.names)
	t.Run("published ports", p.published)
	t.Run("forward and expose", p.forwardAndExpose)
	t.Run("sandboxes", func(t *testing.T) {
		for _, n := range []*node{p.nodes[0], p.nodes[2]} {
			client := n.startAgent("--network", "net")
			for _, name := range []string{"web", "rr"} {
				client.waitNames("tasks.web", 3)
				var got fetched
				client.mustAsk(&got, "fetch", "http://"+name+"/", "12", "3")
				if got.Failed > 0 || name == "web" && len(got.Who) != 3 {
					t.Errorf("%s from %s: %+v", name, n.name, got)
				}
			}
			client.stdin.Close()
		}
	})
	t.Run("modes", func(t *testing.T) {
		m := p.nodes[0]
		for i, want := range []string{"true", "false", "true"} {
			got := m.must("node", "inspect", p.nodes[i].name, "--format", `{{index .Description.Engine.Labels "ovnd.tun"}}`)
			if got != want {
				t.Errorf("node inspect %s: ovnd.tun is %s, want %s", p.nodes[i].name, got, want)
			}
			if got := p.nodes[i].must("status", "--format", "{{.TUN.Sandboxes}}"); got != want {
				t.Errorf("status of %s: %s, want %s", p.nodes[i].name, got, want)
			}
		}
		m.must("service", "create", "-q", "--name", "boxed", "--network", "net", "--constraint", "engine.labels.ovnd.tun==true", "--mode", "global", "ovnd/whoami")
		if nodes := m.must("service", "ps", "--format", "{{.Node}}", "boxed"); strings.Contains(nodes, "n2") {
			t.Errorf("a service constrained to nodes with TUN runs on %s", nodes)
		}
	})
	for _, n := range p.nodes {
		checkStatus(t, n)
	}
}

// published: each node's port leads to all tasks in turns.
func (p *proxied) published(t *testing.T) {
	for _, at := range p.nodes {
		for _, from := range p.nodes[:2] {
			who := map[string]int{}
			from.eventually("port 8080 of "+at.name+" leads to all tasks", func() error {
				r := from.program(nil, "curl", "-sS", "--max-time", "10", "--noproxy", "*", "http://"+at.addr+":8080/")
				task := line(r.stdout, "task")
				if r.code != 0 || task == "" {
					return fmt.Errorf("%+v", r)
				}
				if who[task]++; len(who) < 3 {
					return fmt.Errorf("only %v answered", who)
				}
				return nil
			})
		}
	}
}

// containers returns the names of the containers of a service on this node.
func (n *node) containers(service string) []string {
	n.t.Helper()
	return strings.Fields(n.must("ps", "--format", "{{.Names}}", "--filter", "label=com.docker.swarm.service.name="+service))
}

// surroundings: a task finds its port, its proxy and its names; several fit on
// one machine.
func (p *proxied) surroundings(t *testing.T) {
	m := p.nodes[0]
	m.must("service", "create", "-q", "--name", "many", "--network", "net", "--replicas", "6", "--env", "PORT=8000", "ovnd/whoami")
	who := map[string]bool{}
	m.eventually("all replicas answer at the port that the service named", func() error {
		r := m.curl("socks5h://"+proxyAt, "http://many:8000/")
		if task := line(r.stdout, "task"); task != "" {
			who[task] = true
		}
		if len(who) != 6 {
			return fmt.Errorf("%d did, %+v", len(who), r)
		}
		return nil
	})
	names := m.containers("many")
	if len(names) != 2 {
		t.Fatalf("%d of 6 replicas on 3 nodes are here: %v", len(names), names)
	}
	ports := map[string]bool{}
	for _, name := range names {
		ports[m.must("exec", name, "sh", "-c", "echo $PORT $PORT_8000")] = true
		out := m.must("exec", name, "curl", "-sS", "http://web/")
		if line(out, "service") != "web" {
			t.Errorf("a task that fetches http://web/ by its proxy has %q", out)
		}
		r := m.run("exec", name, "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "http://nowhere.invalid/")
		if r.stdout != "502" {
			t.Errorf("a task that fetches from a name that does not exist has %+v", r)
		}
		if r := m.run("exec", name, "curl", "-sS", "http://127.0.0.1:1/"); r.code != 7 {
			t.Errorf("a task's 127.0.0.1 is not the machine's: %+v", r)
		}
	}
	if len(ports) != 2 {
		t.Errorf("two tasks have the ports %v", ports)
	}
	// The task's own address is where its connections come from.
	out := m.must("exec", names[0], "curl", "-sS", "http://tasks.web/")
	client, _, _ := strings.Cut(line(out, "client"), ":")
	if client != "127.0.0.1" { // every task here is behind a stack
		t.Errorf("a task without namespaces sees the client %s", client)
	}
	outside := startHostAgent(p.nodes[1])
	defer outside.stdin.Close()
	if r := m.run("exec", names[0], "curl", "-sS", "--max-time", "5", "--proxytunnel", "telnet://"+p.nodes[1].addr+":7001"); strings.Contains(r.stderr, "403") {
		t.Errorf("a task does not reach the world outside: %+v", r)
	}
	m.must("service", "rm", "many")
}

// life: logs, health, updates, signals and exits are as those of any task.
func (p *proxied) life(t *testing.T) {
	m := p.nodes[0]
	dir := filepath.Dir(m.stateDir)
	ready := filepath.Join(dir, "ready")
	m.must("service", "create", "-d", "--name", "sick", "--network", "net", "--constraint", "node.hostname==n1", "--env", "PORT=80",
		"--health-cmd", "test -e "+ready, "--health-interval", "100ms", "--health-retries", "1000", "ovnd/whoami")
	m.eventually("the task starts", func() error {
		if out := m.must("service", "ps", "sick"); !strings.Contains(out, "Starting") {
			return errors.New(out)
		}
		return nil
	})
	if r := m.curl("http://"+proxyAt, "http://sick/", "-w", "%{http_code}"); !strings.HasSuffix(r.stdout, "502") {
		t.Errorf("a task that is not healthy yet has a name: %+v", r)
	}
	if err := os.WriteFile(ready, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	m.eventually("the healthy task answers", func() error {
		if r := m.curl("socks5h://"+proxyAt, "http://sick/"); line(r.stdout, "service") != "sick" {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
	m.must("service", "create", "-d", "--name", "short", "--restart-condition", "none", "--constraint", "node.hostname==n1", "host", "sh", "-c", "echo said; exit 3")
	m.eventually("the task's end and words are known", func() error {
		out := m.must("service", "ps", "--no-trunc", "short")
		if !strings.Contains(out, "non-zero exit (3)") {
			return errors.New(out)
		}
		if logs := m.must("service", "logs", "short"); !strings.HasSuffix(logs, "| said") {
			return errors.New(logs)
		}
		return nil
	})
	// Not one request fails while all tasks are replaced.
	stop := make(chan struct{})
	failed := make(chan error, 1)
	go func() {
		defer close(failed)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if r := m.curl("socks5h://"+proxyAt, "http://web/"); r.code != 0 {
				failed <- fmt.Errorf("%+v", r)
				return
			}
		}
	}()
	m.must("service", "update", "-q", "--env-add", "X=1", "--update-order", "start-first", "web")
	close(stop)
	if err := <-failed; err != nil {
		t.Errorf("a request during an update: %v", err)
	}
	m.must("service", "rm", "sick", "short")
}

// refusals: what needs namespaces is said, rather than left out.
func (p *proxied) refusals(t *testing.T) {
	m := p.nodes[0]
	expectError(t, m.run("run", "--network", "net", "--", "true"), 125, "no sandboxes", "ovnd proxy", "ovnd expose")
	for name, args := range map[string][]string{
		"mount": {"--mount", "type=bind,source=/etc,target=/mnt"},
		"host":  {"--host", "x:10.0.0.1"},
	} {
		m.must(append(append([]string{"service", "create", "-d", "--name", name}, args...), "ovnd/whoami")...)
		m.eventually("the task with "+args[0]+" is rejected", func() error {
			out := m.must("service", "ps", "--no-trunc", name)
			if !strings.Contains(out, "Rejected") || !strings.Contains(out, "this node has no sandboxes (--tun never)") {
				return errors.New(out)
			}
			return nil
		})
		m.must("service", "rm", name)
	}
	if r := m.run("up", "--state-dir", filepath.Join(filepath.Dir(m.stateDir), "x"), "--tun", "perhaps"); r.code != 1 || !strings.Contains(r.stderr, "require") {
		t.Errorf("--tun perhaps: %+v", r)
	}
}

// restart: a node that was killed finds its tasks, at their ports.
func (p *proxied) restart(t *testing.T) {
	n, m := p.nodes[1], p.nodes[0]
	names := n.containers("web")
	if len(names) == 0 {
		t.Fatal("no task on the second node")
	}
	before := n.must("exec", names[0], "sh", "-c", "echo $PORT $http_proxy; echo $PPID")
	n.kill()
	n.up(noTUN...)
	n.eventually("the task is there again", func() error {
		after, err := n.try("exec", names[0], "sh", "-c", "echo $PORT $http_proxy; echo $PPID")
		if err != nil {
			return err
		}
		if strings.TrimSpace(after) != before {
			return fmt.Errorf("%s, before %s", after, before)
		}
		return nil
	})
	m.eventually("the task answers again", func() error {
		if r := m.curl("socks5h://"+proxyAt, "http://"+names[0]+"/"); line(r.stdout, "task") != names[0] {
			return fmt.Errorf("%+v", r)
		}
		return nil
	})
	n.eventually("the task reaches its network by the proxy that it knows", func() error {
		out, err := n.try("exec", names[0], "curl", "-sS", "http://rr/")
		if err != nil || line(out, "service") != "rr" {
			return fmt.Errorf("%s, %w", out, err)
		}
		return nil
	})
}

// end: nothing is left of tasks when their node goes down.
func (p *proxied) end(t *testing.T) {
	n := p.nodes[2]
	names := append(n.containers("web"), n.containers("rr")...)
	if len(names) == 0 {
		t.Fatal("no task on the third node")
	}
	var pids []string
	for _, l := range strings.Split(n.must("top", names[0], "-eo", "pid,comm"), "\n")[1:] {
		pids = append(pids, strings.Fields(l)[0])
	}
	if len(pids) == 0 {
		t.Fatal("top shows no process")
	}
	n.down()
	for _, pid := range pids {
		if _, err := os.Stat("/proc/" + pid); err == nil {
			t.Errorf("process %s of a task is still there", pid)
		}
	}
}

// TestTUNAuto: where a sandbox cannot be had, the node says so and has tasks all
// the same, or does not start if it was told to require them.
func TestTUNAuto(t *testing.T) {
	needCurl(t)
	hosts, addrs := oneMachine(t)
	for i, missing := range []string{"tun", "userns"} {
		t.Run(missing, func(t *testing.T) {
			n := newNode(t, hosts[i], "n1", addrs[i])
			r := n.runBroken(missing, "up", "--advertise-addr", n.addr, "--tun", "require")
			why := map[string]string{"tun": "/dev/net/tun", "userns": "max_user_namespaces"}[missing]
			expectError(t, r, 1, "--tun require", why)
			r = n.runBroken(missing, "up", "--advertise-addr", n.addr, "--proxy", "1080")
			if r.code != 0 || !strings.Contains(r.stderr, "no namespaces") || !strings.Contains(r.stderr, why) {
				t.Fatalf("up: %+v", r)
			}
			defer n.must("down")
			if out := n.must("status"); !strings.Contains(out, why) {
				t.Errorf("status does not say how tasks live:\n%s", out)
			}
			n.must("network", "create", "-d", "overlay", "--attachable", "net")
			n.must("service", "create", "-q", "--name", "web", "--network", "net", "--replicas", "2", "ovnd/whoami")
			n.eventually("the service answers", func() error {
				if r := n.curl("socks5h://"+proxyAt, "http://web/"); line(r.stdout, "service") != "web" {
					return fmt.Errorf("%+v", r)
				}
				return nil
			})
		})
	}
}

// TestProxyAddressReturns: what was killed gives its address back: a network that
// nobody uses can be removed.
func TestProxyAddressReturns(t *testing.T) {
	hosts, addrs := oneMachine(t)
	n := newNode(t, hosts[0], "n1", addrs[0]).up()
	n.must("network", "create", "-d", "overlay", "--attachable", "net")
	s := n.attend(n.command(context.Background(), "expose", "--network", "net", "lab:80", "9"))
	s.waitOutput("leads to")
	if r := n.run("network", "rm", "net"); r.code == 0 {
		t.Fatal("a network in use was removed")
	}
	_ = s.process.Signal(syscall.SIGKILL)
	began := time.Now()
	n.eventually("the network can go", func() error {
		_, err := n.try("network", "rm", "net")
		return err
	})
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the address came back after %v", took)
	}
}

package e2e

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// whoami creates a service of the built-in program that says which task
// answered, and waits until it has converged.
func whoami(m *node, name string, replicas int, args ...string) {
	m.t.Helper()
	args = append([]string{"service", "create", "-q", "--name", name, "--replicas", fmt.Sprint(replicas)}, args...)
	m.must(append(args, "ovnd/whoami")...)
}

// requests is how many requests the balancer's tests send from each client.
func requests() int {
	if os.Getenv("OVND_SOAK") != "" {
		return 100_000
	}
	return 1_500
}

// TestRoundRobin counts the answers of each task: the requests that enter at one
// node go in exact turns, by the VIP and by a published port, whichever node it
// is.
func TestRoundRobin(t *testing.T) {
	hosts, addrs := oneMachine(t)
	nodes := threeNodes(t, hosts, addrs)
	m := nodes[0]
	m.must("network", "create", "-d", "overlay", "--attachable", "net")
	whoami(m, "web", 5, "--network", "net", "-p", "8080:80")
	outside := startHostAgent(m)
	for _, n := range nodes {
		countTurns(t, n.startAgent("--network", "net"), n.name+" by the VIP", "http://web/")
		countTurns(t, outside, n.name+" by the published port", "http://"+n.addr+":8080/")
	}
	for _, n := range nodes {
		checkStatus(t, n)
	}
}

// countTurns has a client send requests to five tasks, once all take part.
func countTurns(t *testing.T, from *sandbox, what, url string) {
	t.Helper()
	from.node.eventually("five tasks take part", func() error {
		var got fetched
		if err := from.ask(&got, "fetch", url, "5", "1"); err != nil || len(got.Who) != 5 {
			return fmt.Errorf("%v, %+v", err, got)
		}
		return nil
	})
	n := requests()
	var got fetched
	begin := time.Now()
	from.mustAsk(&got, "fetch", url, fmt.Sprint(n), "64")
	t.Logf("%s: %d requests, each on a connection of its own, in %v", what, n, time.Since(begin).Round(time.Millisecond))
	if got.Failed > 0 || len(got.Who) != 5 {
		t.Errorf("%s: %d of %d failed (%s), answers by %d tasks", what, got.Failed, n, got.Error, len(got.Who))
	}
	for who, count := range got.Who {
		if count < n/5-1 || count > n/5+1 {
			t.Errorf("%s: %s answered %d of %d requests", what, who, count, n)
		}
	}
}

// TestBackendDies has a backend killed under load: requests that had not
// reached it are answered by the others.
func TestBackendDies(t *testing.T) {
	hosts, addrs := oneMachine(t)
	nodes := threeNodes(t, hosts, addrs)
	m := nodes[0]
	m.must("network", "create", "-d", "overlay", "--attachable", "net")
	whoami(m, "web", 3, "--network", "net")
	client := nodes[1].startAgent("--network", "net")
	m.eventually("three tasks take part", func() error {
		var got fetched
		if err := client.ask(&got, "fetch", "http://web/", "3", "1"); err != nil || len(got.Who) != 3 {
			return fmt.Errorf("%v, %+v", err, got)
		}
		return nil
	})
	counted := make(chan fetched, 1)
	go func() {
		var got fetched
		if err := client.ask(&got, "fetch", "http://web/", "12000", "16"); err != nil {
			got.Error = err.Error()
		}
		counted <- got
	}()
	time.Sleep(200 * time.Millisecond) // in the middle of it
	name := strings.Fields(m.must("ps", "--format", "{{.Names}}"))[0]
	m.must("kill", name)
	got := <-counted
	// Those under way in the killed task, at most one for each client.
	if got.Failed > 16 || len(got.Who) < 3 {
		t.Errorf("%d of 12000 requests failed: %s; answered by %v", got.Failed, got.Error, got.Who)
	}
	m.eventually("the task is replaced", func() error {
		var got fetched
		if err := client.ask(&got, "fetch", "http://web/", "9", "1"); err != nil || len(got.Who) != 3 || got.Failed > 0 {
			return fmt.Errorf("%v, %+v", err, got)
		}
		return nil
	})
	if out := m.must("service", "ps", "web"); !strings.Contains(out, `\_ web.`) || !strings.Contains(out, "task: non-zero exit (137)") {
		t.Errorf("service ps shows no history of the killed task:\n%s", out)
	}
}

// TestNodeDies kills a node: its tasks are replaced on the others, and when it
// comes back too late nothing of them runs there.
func TestNodeDies(t *testing.T) {
	hosts, addrs := oneMachine(t)
	nodes := threeNodes(t, hosts, addrs)
	m := nodes[0]
	m.must("network", "create", "-d", "overlay", "--attachable", "net")
	whoami(m, "web", 3, "--network", "net")
	client := m.startAgent("--network", "net")
	before := client.waitNames("tasks.web", 3)
	nodes[2].kill()
	since := time.Now()
	m.eventually("the dead node's task is out of the names", func() error {
		var now []string
		if err := client.ask(&now, "lookup", "tasks.web"); err != nil {
			return err
		}
		for _, a := range now {
			if !strings.Contains(strings.Join(before, " "), a) {
				return nil // replaced already
			}
		}
		if len(now) == len(before) {
			return fmt.Errorf("%v", now)
		}
		return nil
	})
	t.Logf("out of the names after %v", time.Since(since).Round(100*time.Millisecond))
	m.eventually("three tasks run on two nodes", func() error {
		var got fetched
		if err := client.ask(&got, "fetch", "http://web/", "6", "1"); err != nil || len(got.Who) != 3 || got.Failed > 0 {
			return fmt.Errorf("%v, %+v", err, got)
		}
		return nil
	})
	nodes[2].up()
	m.eventually("three tasks, no more", func() error {
		out := m.must("service", "ls", "--format", "{{.Replicas}}")
		var addrs []string
		if err := client.ask(&addrs, "lookup", "tasks.web"); err != nil || out != "3/3" || len(addrs) != 3 {
			return fmt.Errorf("%v, %s, %v", err, out, addrs)
		}
		return nil
	})
}

// TestTasksOutliveTheirNode kills a node and restarts it at once: its tasks are
// the same processes, with their addresses and connections.
func TestTasksOutliveTheirNode(t *testing.T) {
	hosts, addrs := oneMachine(t)
	nodes := threeNodes(t, hosts, addrs)
	m, w := nodes[0], nodes[1]
	m.must("network", "create", "-d", "overlay", "--attachable", "net")
	m.must("service", "create", "-q", "--name", "web", "--network", "net", "--constraint", "node.hostname==n2", "--replicas", "2",
		"--env", agentEnv+"=1", "--env", "WHO={{.Task.Name}}", "host", testProgram(t), "serve")
	client := m.startAgent("--network", "net")
	before := client.waitNames("tasks.web", 2)
	client.mustAsk(nil, "open", before[0])
	client.mustAsk(nil, "exchange")
	pids := taskPIDs(w)
	w.kill()
	w.up()
	client.mustAsk(nil, "exchange")
	var after []string
	client.mustAsk(&after, "lookup", "tasks.web")
	if fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("addresses were %v and are %v", before, after)
	}
	w.eventually("the same processes", func() error {
		if now := taskPIDs(w); now != pids {
			return fmt.Errorf("were %q, are %q", pids, now)
		}
		return nil
	})
	time.Sleep(3 * time.Second) // the swarm has its say
	client.mustAsk(nil, "exchange")
	if out := m.must("service", "ps", "web", "--format", "{{.Name}} {{.CurrentState}}"); strings.Contains(out, "Failed") || strings.Contains(out, `\_`) {
		t.Errorf("a task was replaced:\n%s", out)
	}
}

// taskPIDs are the processes of a node's tasks.
func taskPIDs(n *node) string {
	n.t.Helper()
	ids := strings.Fields(n.must("ps", "-q", "--filter", "label=com.docker.swarm.task"))
	if len(ids) == 0 {
		return ""
	}
	return sortLines(n.must(append([]string{"inspect", "--format", "{{.State.Pid}} {{.Id}}"}, ids...)...))
}

// TestPublishedPortRefused asks for ports that nodes cannot have.
func TestPublishedPortRefused(t *testing.T) {
	hosts, addrs := oneMachine(t)
	m := newNode(t, hosts[0], "n1", addrs[0]).up()
	r := m.run("service", "create", "--name", "low", "-p", "80:80", "ovnd/whoami")
	if r.code == 0 || !strings.Contains(r.stderr, "80/tcp") || !strings.Contains(r.stderr, "n1") || !strings.Contains(r.stderr, "ip_unprivileged_port_start") {
		t.Errorf("port 80 of an ordinary user: exit %d, %q", r.code, r.stderr)
	}
	taken := startHostAgent(m) // listens at port 7000
	r = m.run("service", "create", "--name", "taken", "-p", "7000:80", "ovnd/whoami")
	if r.code == 0 || !strings.Contains(r.stderr, "7000/tcp") || !strings.Contains(r.stderr, "n1") || !strings.Contains(r.stderr, "listens at it") {
		t.Errorf("a port that is taken: exit %d, %q", r.code, r.stderr)
	}
	taken.stdin.Close()
	<-taken.process.Done()
	whoami(m, "free", 1, "-p", "7000:80")
	m.must("service", "rm", "free")
	m.eventually("no service is left", func() error {
		if out := m.must("ps", "-q"); out != "" {
			return errors.New(out)
		}
		return nil
	})
}

// TestPort80 publishes port 80 where the user may bind it.
func TestPort80(t *testing.T) {
	hosts, addrs := oneMachine(t)
	err := hosts[0].Do(func() error {
		return os.WriteFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", []byte("80"), 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	m := newNode(t, hosts[0], "n1", addrs[0]).up()
	whoami(m, "web", 2, "-p", "80:80")
	outside := startHostAgent(m)
	outside.waitFetch("http://"+m.addr+"/", 2)
	var got fetched
	outside.mustAsk(&got, "fetch", "http://"+m.addr+"/", "10", "2")
	if got.Failed > 0 || len(got.Who) != 2 {
		t.Errorf("%+v", got)
	}
}

func testProgram(t *testing.T) string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return exe
}

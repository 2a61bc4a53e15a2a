package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// idleTime is how long a connection is left alone: twenty minutes by `make
// soak`, which is longer than IPVS leaves one.
func idleTime() time.Duration {
	if os.Getenv("OVND_SOAK") != "" {
		return 20 * time.Minute
	}
	return 3 * time.Second
}

// TestIdleConnection leaves connections through a VIP and through a published
// port alone, and uses them again.
func TestIdleConnection(t *testing.T) {
	hosts, addrs := oneMachine(t)
	m := newNode(t, hosts[0], "n1", addrs[0]).up()
	w := newNode(t, hosts[1], "n2", addrs[1]).up("--join", m.token("worker"), hostPort(addrs[0], 2377))
	m.must("network", "create", "-d", "overlay", "--attachable", "net")
	m.must("service", "create", "-q", "--name", "echo", "--network", "net", "--replicas", "2", "-p", "7101:7001", "-p", "7100:7000/udp",
		"--env", agentEnv+"=1", "host", testProgram(t), "serve")
	inside := w.startAgent("--network", "net")
	outside := startHostAgent(m)
	open := func(a *sandbox, addr string) {
		a.node.eventually("connected to "+addr, func() error { return a.ask(nil, "open", addr) })
		a.mustAsk(nil, "exchange")
	}
	open(inside, "echo:7001")
	open(outside, w.addr+":7101")
	for from, to := range map[*sandbox]string{inside: "echo:7000", outside: w.addr + ":7100"} {
		var back int
		from.mustAsk(&back, "udp", to, "100", "1000")
		if back != 100 {
			t.Errorf("%d of 100 datagrams to %s came back", back, to)
		}
	}
	time.Sleep(idleTime())
	inside.mustAsk(nil, "exchange")
	outside.mustAsk(nil, "exchange")
}

// TestKilledTask measures how soon a task that died is out of the names, and
// how soon five tasks run.
func TestKilledTask(t *testing.T) {
	hosts, addrs := oneMachine(t)
	nodes := threeNodes(t, hosts, addrs)
	m := nodes[0]
	m.must("network", "create", "-d", "overlay", "--attachable", "net")
	client := nodes[1].startAgent("--network", "net")
	begin := time.Now()
	m.must("service", "create", "-d", "--name", "web", "--replicas", "5", "--network", "net", "--restart-condition", "none", "ovnd/whoami")
	names := func(want int) func() error {
		return func() error {
			var got []string
			if err := client.ask(&got, "lookup", "tasks.web"); err != nil || len(got) != want {
				return fmt.Errorf("%v, %w", got, err)
			}
			return nil
		}
	}
	m.eventually("five tasks have names", names(5))
	t.Logf("from service create to five names on another node: %v", time.Since(begin).Round(10*time.Millisecond))
	task := strings.Fields(m.must("ps", "--format", "{{.Names}}"))[0]
	begin = time.Now()
	m.must("kill", task)
	m.eventually("four tasks have names", names(4))
	t.Logf("from kill to four names on another node: %v", time.Since(begin).Round(10*time.Millisecond))
}

// TestManyServices has fifty services of three tasks, and says what they take.
func TestManyServices(t *testing.T) {
	if os.Getenv("OVND_SOAK") == "" {
		t.Skip("of make soak")
	}
	hosts, addrs := oneMachine(t)
	nodes := threeNodes(t, hosts, addrs)
	m := nodes[0]
	m.must("network", "create", "-d", "overlay", "--attachable", "--subnet", "10.10.0.0/16", "net")
	begin := time.Now()
	for i := range 50 {
		m.must("service", "create", "-d", "-q", "--name", fmt.Sprintf("s%d", i), "--replicas", "3", "--network", "net", "host", "sleep", "10000")
	}
	m.eventuallyWithin(10*time.Minute, "all tasks run", func() error {
		out := m.must("service", "ls", "--format", "{{.Replicas}}")
		if strings.Count(out, "3/3") != 50 {
			return fmt.Errorf("%s", strings.ReplaceAll(out, "\n", " "))
		}
		return nil
	})
	t.Logf("150 tasks after %v", time.Since(begin).Round(100*time.Millisecond))
	client := m.startAgent("--network", "net")
	begin = time.Now()
	m.eventuallyWithin(10*time.Minute, "the last service resolves", func() error { return client.ask(nil, "lookup", "s49") })
	t.Logf("the last of them resolves after %v", time.Since(begin).Round(100*time.Millisecond))
	for _, n := range nodes {
		t.Logf("%s: %d MB resident", n.name, n.residentMB())
	}
}

package e2e

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestCrash kills nodes as a power cut would. What runs in their sandboxes, its
// addresses and its connections outlive them.
func TestCrash(t *testing.T) {
	hosts, addrs := oneMachine(t)
	nodes := threeNodes(t, hosts, addrs)
	m, w2, w3 := nodes[0], nodes[1], nodes[2]
	m.must("network", "create", "-d", "overlay", "--attachable", "net")
	a1 := m.startAgent("--network", "net", "--name", "a1")
	a2 := w2.startAgent("--network", "net", "--name", "a2")
	a3 := w3.startAgent("--network", "net", "--name", "a3")
	addr1, addr2 := a1.addr(), a2.addr()
	a2.mustAsk(nil, "open", a3.addr())
	a3.mustAsk(nil, "open", addr1)
	a2.mustAsk(nil, "exchange")
	a3.mustAsk(nil, "exchange")

	t.Run("worker", func(t *testing.T) {
		// The others lose nothing meanwhile.
		others := a3.background("udp", addr1, "3000", "200")
		w2.kill()
		w2.up()
		a2.mustAsk(nil, "exchange")
		others(t, 3000)
		if got := a2.addr(); got != addr2 {
			t.Errorf("address was %s and is %s", addr2, got)
		}
	})
	t.Run("manager away", func(t *testing.T) {
		m.kill()
		a2.mustAsk(nil, "exchange")
		w2.kill()
		w2.up()
		a2.mustAsk(nil, "exchange")
		// The restarted node is new to the others' gossip, which takes a moment.
		w2.waitLog("gossip joined")
		w3.knowsPeer(w2)
		others := a3.background("udp", addr2, "3000", "200")
		m.up()
		others(t, 3000)
		m.kill()
		if r := w2.run("run", "--network", "net", "--", "true"); r.code != 125 || !strings.Contains(r.stderr, "manager") {
			t.Errorf("run without a manager: exit %d, %q", r.code, r.stderr)
		}
	})
	t.Run("manager", func(t *testing.T) {
		m.up()
		a3.mustAsk(nil, "exchange") // with a1, on the manager
		if got := a1.addr(); got != addr1 {
			t.Errorf("address was %s and is %s", addr1, got)
		}
		m.eventually("all nodes are ready again", func() error {
			out := m.must("node", "ls", "--format", "{{.Hostname}} {{.Status}}")
			if sortLines(out) != "n1 Ready\nn2 Ready\nn3 Ready" {
				return errors.New(out)
			}
			return nil
		})
		a4 := w3.startAgent("--network", "net", "--name", "a4")
		a4.mustAsk(nil, "send", addr2, "1000000")
		a2.mustAsk(nil, "exchange")
	})
	t.Run("addresses go back", func(t *testing.T) {
		a2.stdin.Close()
		a2.process.Kill() // the command line is killed, as a closed terminal would
		w2.eventually("the address is free again", func() error {
			r := w3.run("run", "--network", "net", "--ip", addr2, "--", "true")
			if r.code != 0 {
				return fmt.Errorf("exit %d: %s", r.code, r.stderr)
			}
			return nil
		})
	})
}

// knowsPeer waits until the node knows a restarted other by its new gossip name
// alone. Before that the old name's end takes the other's endpoints away for a
// moment.
func (n *node) knowsPeer(other *node) {
	n.t.Helper()
	log, err := os.ReadFile(other.log)
	if err != nil {
		n.t.Fatal(err)
	}
	started := regexp.MustCompile(`gossip started" name=(\S+)`).FindAllStringSubmatch(string(log), -1)
	if len(started) == 0 {
		n.t.Fatalf("%s has not started gossip", other.name)
	}
	n.eventually(n.name+" knows "+other.name, func() error {
		out := n.must("status", "--format", "{{range .Peers}}{{.IP}} {{.Name}}\n{{end}}")
		if want := other.addr + " " + started[len(started)-1][1]; !strings.Contains(out, want) {
			return fmt.Errorf("no %q in %q", want, out)
		}
		return nil
	})
}

// TestNodeGone restarts a node too late for its sandboxes' processes to be
// there: their addresses go back.
func TestNodeGone(t *testing.T) {
	hosts, addrs := oneMachine(t)
	m := newNode(t, hosts[0], "n1", addrs[0]).up()
	m.must("network", "create", "-d", "overlay", "--attachable", "net")
	a := m.startAgent("--network", "net", "--name", "a")
	addr := a.addr()
	m.kill()
	a.process.Kill()
	m.up()
	m.eventually("the address is free again", func() error {
		_, err := m.try("run", "--network", "net", "--ip", addr, "--", "true")
		return err
	})
}

func TestDownEndsSandboxes(t *testing.T) {
	hosts, addrs := oneMachine(t)
	m := newNode(t, hosts[0], "n1", addrs[0]).up()
	m.must("network", "create", "-d", "overlay", "--attachable", "net")
	a := m.startAgent("--network", "net", "--name", "a")
	m.down()
	<-a.process.Done()
	m.up()
	if out := m.must("network", "ls", "--filter", "driver=overlay", "--format", "{{.Name}}"); sortLines(out) != "ingress\nnet" {
		t.Errorf("networks after a restart:\n%s", out)
	}
}

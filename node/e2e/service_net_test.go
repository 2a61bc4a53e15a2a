package e2e

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
)

// TestServicesOnTwoNetworks has names and VIPs follow the networks: two services
// on a network each, and one on both.
func TestServicesOnTwoNetworks(t *testing.T) {
	hosts, addrs := oneMachine(t)
	m := newNode(t, hosts[0], "n1", addrs[0]).up()
	w := newNode(t, hosts[1], "n2", addrs[1]).up("--join", m.token("worker"), hostPort(addrs[0], 2377))
	m.must("network", "create", "-d", "overlay", "--attachable", "--subnet", "10.10.0.0/24", "red")
	m.must("network", "create", "-d", "overlay", "--attachable", "--subnet", "10.20.0.0/24", "blue")
	whoami(m, "on-red", 1, "--network", "red")
	whoami(m, "on-blue", 1, "--network", "name=blue,alias=azure")
	whoami(m, "on-both", 2, "--network", "red", "--network", "blue")
	red := w.startAgent("--network", "red")
	blue := w.startAgent("--network", "blue")
	for _, tc := range []struct {
		from   *sandbox
		name   string
		prefix string // of the one address; empty: there is none
	}{
		{red, "on-red", "10.10.0."},
		{red, "on-both", "10.10.0."},
		{red, "on-both.red", "10.10.0."},
		{red, "on-blue", ""},
		{red, "azure", ""},
		{red, "on-both.blue", ""},
		{blue, "on-blue", "10.20.0."},
		{blue, "azure", "10.20.0."},
		{blue, "ON-Both", "10.20.0."},
		{blue, "on-red", ""},
	} {
		tc.from.node.eventually(tc.name, func() error {
			var got []string
			err := tc.from.ask(&got, "lookup", tc.name)
			switch {
			case tc.prefix == "" && err == nil:
				t.Fatalf("%s resolves to %v on the other network", tc.name, got)
			case tc.prefix != "" && (err != nil || len(got) != 1 || !strings.HasPrefix(got[0], tc.prefix)):
				return fmt.Errorf("%v, %w", got, err)
			}
			return nil
		})
	}
	blue.waitFetch("http://on-both/", 2)
	var both fetched
	blue.mustAsk(&both, "fetch", "http://on-both/", "10", "2")
	if both.Failed > 0 || len(both.Who) != 2 {
		t.Errorf("on-both from blue: %+v", both)
	}
	vip := red.waitNames("on-red", 1)
	if err := blue.ask(nil, "dial", net.JoinHostPort(vip[0], "80")); err == nil {
		t.Error("blue reaches a VIP of red")
	}
}

// TestWayOut is the gateway bridge: sandboxes reach the machine's network by it,
// those of internal networks do not, nobody reaches the host's loopback.
func TestWayOut(t *testing.T) {
	hosts, addrs := threeMachines(t, "192.0.2.%d", 24)
	m := newNode(t, hosts[0], "n1", addrs[0]).up()
	m.must("network", "create", "-d", "overlay", "--attachable", "open")
	m.must("network", "create", "-d", "overlay", "--attachable", "--internal", "closed")
	outside := newNode(t, hosts[1], "outside", addrs[1])
	startHostAgent(outside)
	startHostAgent(m)
	open := m.startAgent("--network", "open")
	closed := m.startAgent("--network", "closed")
	var links []link
	open.mustAsk(&links, "interfaces")
	if len(links) != 3 || links[2].MTU != 1500 || !strings.HasPrefix(links[2].Addrs[0], "172.") || !strings.HasSuffix(links[2].Addrs[0], "/16") {
		t.Errorf("interfaces are %+v, want lo, eth0 and the gateway bridge", links)
	}
	open.mustAsk(nil, "dial", addrs[1]+":7001")
	open.mustAsk(nil, "send", addrs[1], "10000000")
	var back int
	open.mustAsk(&back, "udp", addrs[1], "50", "1000")
	if back != 50 {
		t.Errorf("%d of 50 datagrams came back", back)
	}
	if err := open.ask(nil, "dial", addrs[1]+":7999"); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("a closed port: %v, want refused", err)
	}
	gateway, _, _ := strings.Cut(links[len(links)-1].Addrs[0], "/")
	gateway = gateway[:strings.LastIndex(gateway, ".")] + ".1"
	if err := open.ask(nil, "dial", gateway+":7001"); err == nil {
		t.Error("the host's loopback answers at the gateway")
	}
	if err := closed.ask(nil, "dial", addrs[1]+":7001"); err == nil {
		t.Error("an internal network reaches the world")
	}
	if err := closed.ask(nil, "lookup", "example.com"); err == nil {
		t.Error("an internal network asks the world for names")
	}
}

// TestServiceLife is what happens to a service's tasks beside traffic: logs,
// health, updates, a program that is missing, ports of the task's node.
func TestServiceLife(t *testing.T) {
	hosts, addrs := oneMachine(t)
	m := newNode(t, hosts[0], "n1", addrs[0]).up()
	m.must("network", "create", "-d", "overlay", "--attachable", "net")

	t.Run("logs", func(t *testing.T) {
		m.must("service", "create", "-q", "--name", "talk", "--env", "SLOT={{.Task.Slot}}", "host", "sh", "-c", "echo slot $SLOT; echo trouble >&2; exec sleep 1000")
		m.eventually("the service's logs", func() error {
			r := m.run("service", "logs", "talk")
			if !strings.Contains(r.stdout, "| slot 1") || !strings.Contains(r.stderr, "| trouble") {
				return fmt.Errorf("%+v", r)
			}
			return nil
		})
		m.must("service", "rm", "talk")
	})
	t.Run("missing program", func(t *testing.T) {
		m.must("service", "create", "-d", "--name", "lost", "no-such-program")
		m.eventually("the task is rejected", func() error {
			out := m.must("service", "ps", "--no-trunc", "lost")
			if !strings.Contains(out, "Rejected") || !strings.Contains(out, `no program "no-such-program"`) {
				return errors.New(out)
			}
			return nil
		})
		m.must("service", "rm", "lost")
	})
	t.Run("health", func(t *testing.T) {
		client := m.startAgent("--network", "net")
		ready := t.TempDir() + "/ready"
		m.must("service", "create", "-d", "--name", "sick", "--network", "net",
			"--health-cmd", "test -e "+ready, "--health-interval", "100ms", "--health-retries", "100", "ovnd/whoami")
		m.eventually("the task starts", func() error {
			if out := m.must("service", "ps", "sick"); !strings.Contains(out, "Starting") {
				return errors.New(out)
			}
			return nil
		})
		if err := client.ask(nil, "lookup", "sick"); err == nil {
			t.Error("a service without a healthy task resolves")
		}
		writeFile(t, ready)
		m.eventually("the service resolves", func() error { return client.ask(nil, "lookup", "sick") })
		m.must("service", "rm", "sick")
	})
	t.Run("update and rollback", func(t *testing.T) {
		m.must("service", "create", "-q", "--name", "up", "--network", "net", "--replicas", "2", "--env", "V=1", "ovnd/whoami")
		m.must("service", "update", "-q", "--env-add", "V=2", "--update-order", "start-first", "up")
		if out := m.must("service", "inspect", "--format", "{{.Spec.TaskTemplate.ContainerSpec.Env}}", "up"); out != "[V=2]" {
			t.Errorf("environment after the update: %s", out)
		}
		m.must("service", "rollback", "-q", "up")
		if out := m.must("service", "inspect", "--format", "{{.Spec.TaskTemplate.ContainerSpec.Env}}", "up"); out != "[V=1]" {
			t.Errorf("environment after the rollback: %s", out)
		}
		m.must("service", "rm", "up")
	})
	t.Run("host port", func(t *testing.T) {
		m.must("service", "create", "-q", "--name", "near", "--publish", "mode=host,published=8090,target=80", "ovnd/whoami")
		outside := startHostAgent(m)
		outside.waitFetch("http://"+m.addr+":8090/", 1)
		var got fetched
		outside.mustAsk(&got, "fetch", "http://"+m.addr+":8090/", "3", "1")
		if got.Failed > 0 || len(got.Who) != 1 {
			t.Errorf("%+v", got)
		}
		m.must("service", "rm", "near")
	})
	t.Run("global", func(t *testing.T) {
		m.must("service", "create", "-q", "--name", "everywhere", "--mode", "global", "ovnd/whoami")
		if out := m.must("service", "ls", "--format", "{{.Mode}} {{.Replicas}}"); out != "global 1/1" {
			t.Errorf("service ls: %s", out)
		}
		m.must("service", "rm", "everywhere")
	})
}

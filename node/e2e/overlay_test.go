package e2e

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/ovnd/ovnd/bench/lab"
)

// transferSize is what the transfer tests send each way, in bytes: 100 MiB, or
// 8 MiB in short form.
func transferSize() string {
	if testing.Short() {
		return strconv.Itoa(8 << 20)
	}
	return strconv.Itoa(100 << 20)
}

// threeNodes starts a manager and two workers, each on its host with its
// address.
func threeNodes(t *testing.T, hosts [3]*lab.Host, addrs [3]string) [3]*node {
	t.Helper()
	var nodes [3]*node
	nodes[0] = newNode(t, hosts[0], "n1", addrs[0]).up()
	join := []string{"--join", nodes[0].token("worker"), hostPort(addrs[0], 2377)}
	nodes[1] = newNode(t, hosts[1], "n2", addrs[1]).up(join...)
	nodes[2] = newNode(t, hosts[2], "n3", addrs[2]).up(join...)
	return nodes
}

func hostPort(addr string, port int) string {
	if strings.Contains(addr, ":") {
		addr = "[" + addr + "]"
	}
	return fmt.Sprintf("%s:%d", addr, port)
}

// oneMachine is three loopback addresses of one host.
func oneMachine(t *testing.T) ([3]*lab.Host, [3]string) {
	h := lab.New(t).Host("machine")
	return [3]*lab.Host{h, h, h}, [3]string{"127.0.0.2", "127.0.0.3", "127.0.0.4"}
}

// threeMachines is three hosts on one Ethernet. format makes addresses from
// the numbers 11, 12 and 13.
func threeMachines(t *testing.T, format string, bits int) ([3]*lab.Host, [3]string) {
	l := lab.New(t)
	lan := l.Host("lan")
	var hosts [3]*lab.Host
	var addrs [3]string
	var ports []string
	for i := range hosts {
		hosts[i] = l.Host(fmt.Sprintf("m%d", i+1))
		addrs[i] = fmt.Sprintf(format, 11+i)
		port := fmt.Sprintf("port%d", i+1)
		l.Veth(1500,
			lab.End{Host: hosts[i], Name: "ens3", Addrs: []string{fmt.Sprintf("%s/%d", addrs[i], bits)}},
			lab.End{Host: lan, Name: port})
		ports = append(ports, port)
	}
	lan.Bridge("br0", ports...)
	return hosts, addrs
}

func TestOverlayOnOneMachine(t *testing.T) {
	hosts, addrs := oneMachine(t)
	testOverlay(t, threeNodes(t, hosts, addrs), 1450)
}

func TestOverlayOverIPv4(t *testing.T) {
	hosts, addrs := threeMachines(t, "192.0.2.%d", 24)
	testOverlay(t, threeNodes(t, hosts, addrs), 1450)
}

func TestOverlayOverIPv6(t *testing.T) {
	hosts, addrs := threeMachines(t, "2001:db8::%d", 64)
	testOverlay(t, threeNodes(t, hosts, addrs), 1430)
}

// testOverlay is the main job: a network, a process on each node, traffic.
// options are for the network's creation.
func testOverlay(t *testing.T, nodes [3]*node, mtu int, options ...string) {
	m := nodes[0]
	m.eventually("three nodes are ready", func() error {
		out := m.must("node", "ls", "--format", "{{.Hostname}} {{.Status}} {{.ManagerStatus}}")
		if want := "n1 Ready Leader\nn2 Ready \nn3 Ready "; sortLines(out) != sortLines(want) {
			return fmt.Errorf("node ls:\n%s", out)
		}
		return nil
	})
	create := append([]string{"network", "create", "--driver", "overlay", "--attachable", "--subnet", "10.10.19.0/16"}, options...)
	m.must(append(create, "ngx_net")...)
	var agents []*sandbox
	for i, n := range nodes {
		agents = append(agents, n.startAgent("--network", "ngx_net", "--name", "agent"+strconv.Itoa(i+1)))
	}
	checkInterfaces(t, agents[1], mtu)
	for i, from := range agents {
		to := agents[(i+1)%3].addr()
		from.node.eventually("ping of the full MTU", func() error { return from.ask(nil, "ping", to, strconv.Itoa(mtu)) })
		if err := from.ask(nil, "ping", to, strconv.Itoa(mtu+1)); err == nil || !strings.Contains(err.Error(), "message too long") {
			t.Errorf("ping of %d bytes with DF: %v, want message too long", mtu+1, err)
		}
		from.mustAsk(nil, "send", to, transferSize())
		var back int
		from.mustAsk(&back, "udp", to, "200", "1200")
		if back != 200 {
			t.Errorf("%d of 200 datagrams came back", back)
		}
	}
	checkStatus(t, nodes[1])
	for _, a := range agents {
		a.stdin.Close()
		<-a.process.Done()
	}
	m.eventually("addresses are back and the network can go", func() error {
		_, err := m.try("network", "rm", "ngx_net")
		return err
	})
}

func sortLines(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func checkInterfaces(t *testing.T, a *sandbox, mtu int) {
	t.Helper()
	var links []link
	a.mustAsk(&links, "interfaces")
	if len(links) != 3 || links[0].Name != "lo" || links[1].Name != "eth0" || links[2].Name != "eth1" {
		t.Fatalf("interfaces are %+v, want lo, eth0 and the gateway bridge", links)
	}
	if links[2].MTU != 1500 || !strings.HasPrefix(links[2].Addrs[0], "172.") {
		t.Errorf("eth1 is %+v, want the gateway bridge", links[2])
	}
	if links[1].MTU != mtu || len(links[1].Addrs) == 0 || !strings.HasPrefix(links[1].Addrs[0], "10.10.0.") || !strings.HasSuffix(links[1].Addrs[0], "/16") {
		t.Errorf("eth0 is %+v, want 10.10.0.x/16 and MTU %d", links[1], mtu)
	}
	var status []byte
	a.mustAsk(&status, "status")
	for _, set := range []string{"CapEff", "CapPrm", "CapBnd", "CapAmb", "CapInh"} {
		if !strings.Contains(string(status), set+":\t0000000000000000") {
			t.Errorf("the command has capabilities:\n%s", status)
		}
	}
}

// checkStatus looks at the ledger: everything sent was delivered or dropped
// for a reason.
func checkStatus(t *testing.T, n *node) {
	t.Helper()
	n.eventually("the ledger closes", func() error {
		out := n.must("status", "--format", "{{.Ledger.Sent}} {{.Ledger.Delivered}} {{.Ledger.Dropped}}")
		var sent, delivered, dropped uint64
		if _, err := fmt.Sscan(out, &sent, &delivered, &dropped); err != nil {
			return fmt.Errorf("%q: %w", out, err)
		}
		if sent == 0 || sent != delivered+dropped {
			return fmt.Errorf("sent %d, delivered %d, dropped %d", sent, delivered, dropped)
		}
		return nil
	})
}
